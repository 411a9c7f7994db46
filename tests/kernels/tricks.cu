// Kernels for the tests of the host form: good ones, and some with the faults that it must catch.
#include "memory.cuh"

extern "C" __global__ void where(unsigned* out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
    store(out + at, at);
}
extern "C" __global__ void types(double* out, bool a, unsigned char b, short c, unsigned d, long long e,
                                 unsigned long long f, float g, const double h) {
    store(out, a); store(out + 1, b); store(out + 2, c); store(out + 3, d);
    store(out + 4, e); store(out + 5, f); store(out + 6, g); store(out + 7, h);
}
extern "C" __global__ void rotate(const float* in, float* out, int times) {
    __shared__ float ring[64];
    store_shared(&ring[threadIdx.x], load(in + threadIdx.x));
    for (int i = 0; i < times; ++i) {
        __syncthreads();
        const float next = load_shared(&ring[(threadIdx.x + 1) % blockDim.x]);
        __syncthreads();
        store_shared(&ring[threadIdx.x], next);
    }
    store(out + threadIdx.x, load_shared(&ring[threadIdx.x]));
}
extern "C" __global__ void neighbour(const float* in, float* out) {
    __shared__ float line[64];
    store_shared(&line[threadIdx.x], load(in + threadIdx.x));
    store(out + threadIdx.x, load_shared(&line[threadIdx.x ? threadIdx.x - 1 : 0]));
}
extern "C" __global__ void unwritten(unsigned* out) {
    __shared__ unsigned cells[8];
    store(out + blockIdx.x, load_shared(&cells[3]));
    store_shared(&cells[3], 7);
}
extern "C" __global__ void halves(const float* in, unsigned short* bits, int count) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) store(bits + at, half_bits(load(in + at)));
}
extern "C" __global__ void values(const unsigned short* bits, float* out, int count) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) store(out + at, half_value(load(bits + at)));
}
extern "C" __global__ void past_the_end(unsigned char* out, int at) { store(out + at, 1); }
extern "C" __global__ void read_one(const unsigned char* in, unsigned char* out) { store(out, load(in)); }
extern "C" __global__ void past_a_tile(int at) {
    __shared__ int cells[8];
    store_shared(&cells[at], 1);
}
extern "C" __global__ void sixteen_bytes(const unsigned* in, int at) {
    load(reinterpret_cast<const Words4*>(in + at));
}
extern "C" __global__ void too_large(int a, int* out) { store(out, a + 1); }
extern "C" __global__ void too_far(float a, int* out) { store(out, static_cast<int>(a)); }
extern "C" __global__ void some_end() {
    if (threadIdx.x >= 5) return;
    __syncthreads();
}
extern "C" __global__ void two_barriers() {
    if (threadIdx.x < 5)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void endless(volatile int* cell) { while (*cell != 1) {} }
extern "C" __global__ void strided(const unsigned* in, unsigned* out, int stride) {
    __shared__ unsigned cells[32 * 33];
    store_shared(&cells[threadIdx.x * stride], load(in + threadIdx.x * stride));
    __syncthreads();
    store(out + threadIdx.x, load_shared(&cells[0]));
}
extern "C" __global__ void wide(const unsigned* in, int words) {
    __shared__ Words4 cells[32 * 8];
    if (words == 4) store_shared(&cells[threadIdx.x * 3], load(reinterpret_cast<const Words4*>(in) + threadIdx.x));
    if (words == 2)
        store_shared(reinterpret_cast<Words2*>(cells) + threadIdx.x * 2,
                     load(reinterpret_cast<const Words2*>(in) + threadIdx.x));
}
