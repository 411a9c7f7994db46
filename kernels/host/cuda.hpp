// Makes g++ read the kernels as C++: CUDA's words, and how a kernel's calls reach the server that runs it.
//
// Included before each .cu file by the build (host/build.py); the files themselves know nothing of it. What is declared
// `extern` here lives in the server (block.cpp, counting.cpp).
#pragma once

#include <math.h>
#include <stddef.h>

#include <cstring>
#include <utility>

#define __global__ __attribute__((used))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time, so what a block shares is static. A module's zero-initialised data holds nothing else, and
// the server overwrites all of it before each block (KERNELS_MODULE).
#define __shared__ static
#define __syncthreads() host::barrier(__LINE__)

struct uint3 {
    unsigned x, y, z;
};
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

template <class T>
inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
inline T max(T a, T b) {
    return a < b ? b : a;
}

namespace host {

enum Kind { global_read, global_write, shared_read, shared_write };

extern bool counting;
void record(Kind kind, const void* address, unsigned bytes, int site);
void barrier(int site);

inline void touch(Kind kind, const void* address, unsigned bytes, int site) {
    if (__builtin_expect(counting, false)) record(kind, address, bytes, site);
}

inline unsigned float_bits(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float bits_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned short half_bits(float x) {
    const unsigned sign = float_bits(x) >> 16 & 0x8000, magnitude = float_bits(x) & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude < 0x38800000)  // under 2**-14: a multiple of 2**-24
        return sign | static_cast<unsigned>(rintf(bits_float(magnitude) * 16777216.0f));
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more round to infinity
    const unsigned rebiased = magnitude - (112u << 23);
    return sign | (rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13;
}

inline float half_value(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 31) return bits_float(fraction ? 0x7fffffff : sign | 0x7f800000);
    if (exponent == 0) return bits_float(sign | float_bits(static_cast<float>(fraction) / 16777216.0f));
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

// How the server calls an entry point: each argument lies in a slot of 8 bytes.
using Entry = void (*)(const unsigned char* slots);

struct Module {
    const char* const* names;
    const Entry* entries;
    int count;
    unsigned char* shared_begin;
    unsigned char* shared_end;
};

template <class A>
inline A slot(const unsigned char* slots, size_t i) {
    static_assert(sizeof(A) <= 8, "an argument of a kernel takes at most 8 bytes");
    A value;
    memcpy(&value, slots + 8 * i, sizeof value);
    return value;
}

template <auto kernel>
struct Caller;
template <class... A, void (*kernel)(A...)>
struct Caller<kernel> {
    template <size_t... I>
    static void spread(const unsigned char* slots, std::index_sequence<I...>) {
        kernel(slot<A>(slots, I)...);
    }
    static void call(const unsigned char* slots) { spread(slots, std::index_sequence_for<A...>{}); }
};

}  // namespace host

// Closes a module: its entry points, and where its zero-initialised data lies (names given by the linker).
extern unsigned char kernels_bss_begin[] __asm__("__bss_start") __attribute__((visibility("hidden")));
extern unsigned char kernels_bss_end[] __asm__("_end") __attribute__((visibility("hidden")));
#define KERNELS_MODULE(count, names, entries)                                                \
    extern "C" __attribute__((visibility("default"))) const host::Module kernels_module = { \
        names, entries, count, kernels_bss_begin, kernels_bss_end};
