// The host form's device: a process that owns memory and runs kernels, as a GPU does, and dies of an illegal access.
//
// It reads commands, one line each, on its standard input and answers on its standard output; raw bytes follow a line
// where it says so. Sanitizers write to standard error. Numbers are decimal.
//
//     alloc BYTES                                    ok ADDRESS | failed
//     free ADDRESS                                   ok
//     write ADDRESS BYTES, then the bytes            ok
//     read ADDRESS BYTES                             ok, then the bytes
//     fill ADDRESS BYTES VALUE                       ok
//     load PATH                                      ok MODULE | failed REASON
//     launch MODULE NAME GX GY GZ BX BY BZ SLOTS, then SLOTS * 8 bytes      ok | failed
//     counts                                         ok BYTES, then the lines of counting.hpp
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "block.hpp"
#include "counting.hpp"

namespace {

constexpr unsigned char poison = 0xCD;
constexpr size_t alignment = 256;  // as cudaMalloc

std::vector<const host::Module*> modules;

void get(void* bytes, size_t count) {
    if (fread(bytes, 1, count, stdin) != count) _exit(0);  // whoever started this is gone
}

unsigned char* pointer(unsigned long long address) {
    return reinterpret_cast<unsigned char*>(address);
}

const char* text_of(const std::string& line, size_t word) {
    size_t at = 0;
    while (word--) at = line.find(' ', at) + 1;
    return line.c_str() + at;
}

void alloc(unsigned long long bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes) || !memory) {
        printf("failed\n");
        return;
    }
    memset(memory, poison, bytes);
    printf("ok %llu\n", static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(memory)));
}

void load(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const void* module = library ? dlsym(library, "kernels_module") : nullptr;
    if (!module) {
        printf("failed %s\n", dlerror());
        return;
    }
    modules.push_back(static_cast<const host::Module*>(module));
    printf("ok %zu\n", modules.size() - 1);
}

void launch(const std::string& line, host::Order order) {
    unsigned number, slots;
    char name[256];
    uint3 grid, block;
    sscanf(line.c_str(), "launch %u %255s %u %u %u %u %u %u %u", &number, name, &grid.x, &grid.y, &grid.z, &block.x,
           &block.y, &block.z, &slots);
    std::vector<unsigned char> arguments(8 * slots);
    get(arguments.data(), arguments.size());
    const host::Module& module = *modules[number];
    for (int i = 0; i < module.count; ++i)
        if (!strcmp(module.names[i], name)) {
            host::run(name, module, module.entries[i], arguments.data(), grid, block, order);
            printf("ok\n");
            return;
        }
    printf("failed\n");
}

void counts() {
    char* text = nullptr;
    size_t bytes = 0;
    FILE* out = open_memstream(&text, &bytes);
    host::write_counts(out);
    fclose(out);
    printf("ok %zu\n", bytes);
    fwrite(text, 1, bytes, stdout);
    free(text);
}

void on_abort(int) {
    host::tell_where();
    _exit(1);
}

}  // namespace

// server ORDER COUNT: forward, reverse or shuffled; 1 to count
int main(int, char** arguments) {
    signal(SIGABRT, on_abort);
    signal(SIGINT, SIG_IGN);
    const auto order = !strcmp(arguments[1], "forward")   ? host::Order::forward
                       : !strcmp(arguments[1], "reverse") ? host::Order::reverse
                                                          : host::Order::shuffled;
    host::counting = !strcmp(arguments[2], "1");
    char* buffer = nullptr;
    size_t capacity = 0;
    for (ssize_t length; (length = getline(&buffer, &capacity, stdin)) > 0; fflush(stdout)) {
        const std::string line(buffer, length - 1);
        unsigned long long address = 0, bytes = 0;
        unsigned value = 0;
        if (sscanf(line.c_str(), "alloc %llu", &bytes) == 1)
            alloc(bytes);
        else if (sscanf(line.c_str(), "free %llu", &address) == 1)
            free(pointer(address)), printf("ok\n");
        else if (sscanf(line.c_str(), "write %llu %llu", &address, &bytes) == 2)
            get(pointer(address), bytes), printf("ok\n");
        else if (sscanf(line.c_str(), "read %llu %llu", &address, &bytes) == 2)
            printf("ok\n"), fwrite(pointer(address), 1, bytes, stdout);
        else if (sscanf(line.c_str(), "fill %llu %llu %u", &address, &bytes, &value) == 3)
            memset(pointer(address), static_cast<int>(value), bytes), printf("ok\n");
        else if (line.rfind("load ", 0) == 0)
            load(text_of(line, 1));
        else if (line.rfind("launch ", 0) == 0)
            launch(line, order);
        else if (line == "counts")
            counts();
        else
            _exit(2);
    }
}
