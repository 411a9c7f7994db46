// Runs a block's threads as fibers: each runs until it ends or comes to a barrier, then the next one does.
//
// A fiber is needed only by a thread that waits: one fiber runs thread after thread until one of them comes to a
// barrier and keeps it; the scheduler then takes a fresh fiber for the rest. A kernel without a barrier therefore runs
// in a single fiber, without a switch per thread. AddressSanitizer is told of every switch.
#include "block.hpp"

#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "counting.hpp"

uint3 threadIdx, blockIdx, blockDim, gridDim;

#if defined(__x86_64__) && !defined(KERNELS_UCONTEXT)
// Saves what a call must keep, changes stacks and goes on where the other stack was left. ucontext does the same with a
// system call each time.
extern "C" void kernels_switch(void** save, void* resume);
asm(R"(
.text
.globl kernels_switch
.type kernels_switch, @function
kernels_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kernels_switch, .-kernels_switch
)");

struct Context {
    void* top = nullptr;

    void prepare(char* stack, size_t bytes, void (*main)()) {
        auto words = reinterpret_cast<void**>(stack + bytes) - 1;  // at `main` the stack is 8 bytes off a multiple of 16
        *--words = reinterpret_cast<void*>(main);
        top = std::fill_n(words - 6, 6, nullptr) - 6;
    }
    static void change(Context& from, Context& to) { kernels_switch(&from.top, to.top); }
};
#else
#include <ucontext.h>

struct Context {
    ucontext_t state{};

    void prepare(char* stack, size_t bytes, void (*main)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = stack;
        state.uc_stack.ss_size = bytes;
        makecontext(&state, main, 0);
    }
    static void change(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
};
#endif

namespace host {
namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr unsigned char poison = 0xCD;

struct Fiber {
    Context context;
    char* stack;
    bool waits = false;
    int site = 0;
};

struct Launch {
    const char* name = nullptr;
    Entry entry = nullptr;
    const unsigned char* slots = nullptr;
    Order order = Order::forward;
    std::vector<uint3> index;       // of each thread
    std::vector<unsigned> turns;    // the order of this phase
    size_t next_turn = 0;           // threads from here on have not begun
    std::vector<Fiber*> waiting;    // by thread; null where it ended
};

Launch launch;
Context scheduler;
const void* scheduler_stack;
size_t scheduler_stack_bytes;
Fiber* running = nullptr;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle;
std::mt19937_64 shuffle{20240401};

void enter(unsigned thread) {
    current_thread = thread;
    threadIdx = launch.index[thread];
}

void back_to_scheduler() {
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, scheduler_stack, scheduler_stack_bytes);
    Context::change(running->context, scheduler);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void fiber_main() {
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
    for (;;) {
        while (launch.next_turn < launch.turns.size()) {
            enter(launch.turns[launch.next_turn++]);
            launch.entry(launch.slots);
        }
        running->waits = false;
        back_to_scheduler();
    }
}

Fiber* idle_fiber() {
    if (idle.empty()) {
        auto fiber = std::make_unique<Fiber>();
        void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            fprintf(stderr, "out of memory for the threads of a block\n");
            _exit(1);
        }
        fiber->stack = static_cast<char*>(stack);
        fiber->context.prepare(fiber->stack, stack_bytes, fiber_main);
        idle.push_back(fiber.get());
        fibers.push_back(std::move(fiber));
    }
    Fiber* fiber = idle.back();
    idle.pop_back();
    return fiber;
}

// Let `fiber` run until its thread waits, or until it has nothing more to do.
void resume(Fiber* fiber) {
    running = fiber;
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, fiber->stack, stack_bytes);
    Context::change(scheduler, fiber->context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
    if (!fiber->waits) idle.push_back(fiber);
}

void arrange(std::vector<unsigned>& turns) {
    if (launch.order == Order::shuffled) std::shuffle(turns.begin(), turns.end(), shuffle);
}

[[noreturn]] void diverged(size_t arrived, int site, int other) {
    fprintf(stderr, "barrier divergence: ");
    if (site != other)
        fprintf(stderr, "threads of one block wait at line %d and at line %d\n", site, other);
    else
        fprintf(stderr, "%zu of %zu threads wait at line %d, the others have ended\n", arrived, launch.turns.size(), site);
    abort();
}

void check_barrier() {
    size_t arrived = 0;
    int site = 0;
    for (unsigned thread = 0; thread < launch.waiting.size(); ++thread) {
        const Fiber* fiber = launch.waiting[thread];
        if (!fiber) continue;
        if (arrived++ == 0) site = fiber->site;
        enter(thread);
        if (fiber->site != site) diverged(arrived, site, fiber->site);
    }
    if (arrived != launch.waiting.size()) diverged(arrived, site, site);
}

void run_block(const Module& module) {
    // Byte by byte and volatile: the sanitizer's memset would find its own red zones between the arrays.
    for (volatile unsigned char* byte = module.shared_begin; byte < module.shared_end; ++byte) *byte = poison;
    arrange(launch.turns);
    launch.next_turn = 0;
    size_t waiting = 0;
    while (launch.next_turn < launch.turns.size()) {
        Fiber* fiber = idle_fiber();
        resume(fiber);
        if (fiber->waits) ++waiting;
    }
    while (waiting) {
        check_barrier();
        waiting = 0;
        arrange(launch.turns);
        for (const auto thread : launch.turns) {
            Fiber* fiber = std::exchange(launch.waiting[thread], nullptr);
            enter(thread);
            resume(fiber);
            if (fiber->waits) ++waiting;
        }
    }
}

}  // namespace

void barrier(int site) {
    running->waits = true;
    running->site = site;
    launch.waiting[current_thread] = running;
    back_to_scheduler();
}

void tell_where() {
    if (launch.name)
        fprintf(stderr, "\nin kernel %s block (%u, %u, %u) thread (%u, %u, %u)\n", launch.name, blockIdx.x, blockIdx.y,
                blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
}

void run(const char* name, const Module& module, Entry entry, const unsigned char* slots, uint3 grid, uint3 block,
         Order order) {
    gridDim = grid;
    blockDim = block;
    const unsigned threads = block.x * block.y * block.z;
    launch = {name, entry, slots, order, {}, std::vector<unsigned>(threads), 0, std::vector<Fiber*>(threads)};
    for (unsigned z = 0; z < block.z; ++z)
        for (unsigned y = 0; y < block.y; ++y)
            for (unsigned x = 0; x < block.x; ++x) launch.index.push_back({x, y, z});
    std::iota(launch.turns.begin(), launch.turns.end(), 0u);
    if (order == Order::reverse) std::reverse(launch.turns.begin(), launch.turns.end());
    const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; ++i) {
        const uint64_t at = order == Order::reverse ? blocks - 1 - i : i;
        blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                    static_cast<unsigned>(at / grid.x / grid.y)};
        if (counting) begin_block(threads);
        run_block(module);
        if (counting) end_block();
    }
    launch.name = nullptr;
}

}  // namespace host
