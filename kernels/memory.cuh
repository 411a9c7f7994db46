// The only door to memory: every kernel reads and writes global and shared memory through these functions.
//
// On a GPU they are plain accesses that the compiler inlines. In host form (KERNELS_HOST, see host/cuda.hpp) they also
// tell who asked for what, so that sectors and bank conflicts can be counted. `site` is the line of the call.
//
// Entry points are written out, one per element type, as  extern "C" __global__ void name(parameters)  and not made by
// a macro: kernels/device.py reads their parameters from the text to check what it is given.
#pragma once

// Four and two words moved by one instruction; the address must be a multiple of 16 and 8.
struct alignas(16) Words4 {
    unsigned x, y, z, w;
};
struct alignas(8) Words2 {
    unsigned x, y;
};

// T itself, in a place where a call does not decide what T is: store(pixels, 0) writes what `pixels` points to.
template <class T>
struct Exactly {
    using type = T;
};

#ifdef KERNELS_HOST

template <class T>
inline T load(const T* p, int site = __builtin_LINE()) {
    host::touch(host::global_read, p, sizeof(T), site);
    return *p;
}

template <class T>
inline void store(T* p, typename Exactly<T>::type value, int site = __builtin_LINE()) {
    host::touch(host::global_write, p, sizeof(T), site);
    *p = value;
}

template <class T>
inline T load_shared(const T* p, int site = __builtin_LINE()) {
    host::touch(host::shared_read, p, sizeof(T), site);
    return *p;
}

template <class T>
inline void store_shared(T* p, typename Exactly<T>::type value, int site = __builtin_LINE()) {
    host::touch(host::shared_write, p, sizeof(T), site);
    *p = value;
}

// IEEE binary16 bits of x, rounded to nearest even; NaN becomes 0x7fff, as PTX says.
inline unsigned short half_bits(float x) {
    return host::half_bits(x);
}

// The value of IEEE binary16 bits: exact.
inline float half_value(unsigned short bits) {
    return host::half_value(bits);
}

#else

template <class T>
__device__ __forceinline__ T load(const T* p) {
    return *p;
}

template <class T>
__device__ __forceinline__ void store(T* p, typename Exactly<T>::type value) {
    *p = value;
}

template <class T>
__device__ __forceinline__ T load_shared(const T* p) {
    return *p;
}

template <class T>
__device__ __forceinline__ void store_shared(T* p, typename Exactly<T>::type value) {
    *p = value;
}

// IEEE binary16 bits of x, rounded to nearest even; NaN becomes 0x7fff, as PTX says.
__device__ __forceinline__ unsigned short half_bits(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// The value of IEEE binary16 bits: exact.
__device__ __forceinline__ float half_value(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

#endif

// Is the address a multiple of `bytes` (a power of two)?
__device__ __forceinline__ bool is_aligned(const void* p, unsigned bytes) {
    return (reinterpret_cast<unsigned long long>(p) & (bytes - 1)) == 0;
}
