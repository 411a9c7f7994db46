// The tail alone, for pixels that have the model's size already: colour order, mean and scale, layout, dtype.
//
// The maths: out[n][place(c, y, x)] = T((in[n][place'(c', y, x)] - mean[c]) / std[c]) in float32, with c' = c, or 2 - c
// where the colours change places. A level has 256 values, so that formula is a table of 3 x 256, worked out once.
// uint8 means the levels themselves; int8 is rounded half to even and saturated. All of this is in the table.
//
// Bytes of a picture: 3 * size * size read + 3 * size * size * itemsize written, each once; 224 x 224 to float32:
// 0.15 MB + 0.60 MB. The roofline is that over the bandwidth of a copy.
//
// A thread writes 16 bytes at a time. From interleaved to planar it takes as many pixels as one such vector of each
// plane holds; where the layout stays, one vector of neighbours.
#include "memory.cuh"

namespace {

constexpr int threads = 256;     // kernels/normalize.py: THREADS
constexpr int steps = 4;         // vectors of a thread, kernels/normalize.py: STEPS
constexpr int table_values = 3 * 256;

// n bytes, 4, 8 or 16 of them: one access where they are aligned and all there.
template <int n>
struct Bytes {
    unsigned word[n / 4];

    __device__ __forceinline__ unsigned operator[](int i) const { return word[i / 4] >> i % 4 * 8 & 255; }
};

__device__ __forceinline__ Bytes<4> load_whole(const unsigned char* from, Bytes<4>*) {
    return {{load(reinterpret_cast<const unsigned*>(from))}};
}
__device__ __forceinline__ Bytes<8> load_whole(const unsigned char* from, Bytes<8>*) {
    const Words2 words = load(reinterpret_cast<const Words2*>(from));
    return {{words.x, words.y}};
}
__device__ __forceinline__ Bytes<16> load_whole(const unsigned char* from, Bytes<16>*) {
    const Words4 words = load(reinterpret_cast<const Words4*>(from));
    return {{words.x, words.y, words.z, words.w}};
}

template <int n>
__device__ __forceinline__ Bytes<n> load_bytes(const unsigned char* from, int left) {
    if (left >= n && is_aligned(from, n)) return load_whole(from, static_cast<Bytes<n>*>(nullptr));
    Bytes<n> bytes = {};
#pragma unroll
    for (int i = 0; i < n; ++i)
        if (i < left) bytes.word[i / 4] |= static_cast<unsigned>(load(from + i)) << i % 4 * 8;
    return bytes;
}

// 16 bytes of values: one access where they are aligned and all wanted.
template <class T>
__device__ __forceinline__ void store_values(T* to, const unsigned* value, int left) {
    constexpr int n = 16 / sizeof(T), per_word = 4 / sizeof(T), bits = 8 * sizeof(T);
    if (left >= n && is_aligned(to, 16)) {
        unsigned word[4] = {};
#pragma unroll
        for (int i = 0; i < n; ++i) word[i / per_word] |= value[i] << i % per_word * bits;
        store(reinterpret_cast<Words4*>(to), {word[0], word[1], word[2], word[3]});
        return;
    }
#pragma unroll
    for (int i = 0; i < n; ++i)
        if (i < left) store(to + i, static_cast<T>(value[i]));
}

// Interleaved to planar: n pixels of a thread, n values of each plane.
template <class T>
__device__ void take_apart(const unsigned char* levels, T* target, const unsigned* table, int plane, int swap) {
    constexpr int n = 16 / sizeof(T);
    for (int step = 0; step < steps; ++step) {
        const int at = ((blockIdx.x * steps + step) * threads + threadIdx.x) * n;
        if (at >= plane) return;
        const int left = plane - at;
        Bytes<n> bytes[3];
#pragma unroll
        for (int i = 0; i < 3; ++i) bytes[i] = load_bytes<n>(levels + 3 * at + i * n, 3 * left - i * n);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            unsigned value[n];
#pragma unroll
            for (int i = 0; i < n; ++i) {
                const unsigned first = bytes[3 * i / n][3 * i % n];
                const unsigned second = bytes[(3 * i + 1) / n][(3 * i + 1) % n];
                const unsigned third = bytes[(3 * i + 2) / n][(3 * i + 2) % n];
                const unsigned level = c == 1 ? second : (c == 0) == !swap ? first : third;
                value[i] = load_shared(table + 256 * c + level);
            }
            store_values(target + c * plane + at, value, left);
        }
    }
}

// The layout stays: 16 bytes of neighbouring values. Where colours change places, their levels are taken one by one.
template <class T>
__device__ void keep_layout(const unsigned char* levels, T* target, const unsigned* table, int plane, int planar,
                            int swap) {
    constexpr int n = 16 / sizeof(T);
    const int values = 3 * plane;
    const int run = planar ? plane : 1;  // neighbours of one channel
    for (int step = 0; step < steps; ++step) {
        const int at = ((blockIdx.x * steps + step) * threads + threadIdx.x) * n;
        if (at >= values) return;
        const int left = values - at;
        int channel = (planar ? at / plane : at) % 3, more = planar ? plane - at % plane : 1;
        const Bytes<n> bytes = swap ? Bytes<n>{} : load_bytes<n>(levels + at, left);
        unsigned value[n];
#pragma unroll
        for (int i = 0; i < n; ++i) {
            unsigned level = bytes[i];
            if (swap && i < left) level = load(levels + at + i + 2 * (1 - channel) * run);
            value[i] = load_shared(table + 256 * channel + level);
            if (--more == 0) {
                channel = channel == 2 ? 0 : channel + 1;
                more = run;
            }
        }
        store_values(target + at, value, left);
    }
}

template <class T>
__device__ void normalize(const unsigned char* levels, T* target, const unsigned* values, long long level_bytes,
                          long long sample_bytes, int plane, int from_planar, int to_planar, int swap) {
    alignas(16) __shared__ unsigned table[table_values];
    for (int i = threadIdx.x; i < table_values / 4; i += threads)
        store_shared(reinterpret_cast<Words4*>(table) + i, load(reinterpret_cast<const Words4*>(values) + i));
    __syncthreads();
    const unsigned char* from = levels + blockIdx.z * level_bytes;
    T* to = target + blockIdx.z * sample_bytes / static_cast<long long>(sizeof(T));
    if (to_planar && !from_planar)
        take_apart(from, to, table, plane, swap);
    else
        keep_layout(from, to, table, plane, to_planar, swap);
}

}  // namespace

// levels: uint8, sample z of the grid begins at byte z * level_bytes, in NCHW if from_planar, else NHWC. target:
// sample z begins at byte z * sample_bytes, a multiple of the item's size, in NCHW if to_planar, else NHWC; planar to
// interleaved is not there. values: what the levels become, bits of the output's dtype, 256 for each output channel;
// aligned to 16 bytes. plane: pixels of a sample, at most 2**28. swap: output channel c is the source's 2 - c.
// Grid (ceil(vectors / (steps * threads)), 1, samples) of `threads`; vectors of 16 bytes: of one plane where an
// interleaved source becomes planar, else of a sample.
extern "C" __global__ void __launch_bounds__(threads)
    normalize_f32(const unsigned char* levels, float* target, const unsigned* values, long long level_bytes,
                  long long sample_bytes, int plane, int from_planar, int to_planar, int swap) {
    normalize(levels, reinterpret_cast<unsigned*>(target), values, level_bytes, sample_bytes, plane, from_planar,
              to_planar, swap);
}

extern "C" __global__ void __launch_bounds__(threads)
    normalize_f16(const unsigned char* levels, unsigned short* target, const unsigned* values, long long level_bytes,
                  long long sample_bytes, int plane, int from_planar, int to_planar, int swap) {
    normalize(levels, target, values, level_bytes, sample_bytes, plane, from_planar, to_planar, swap);
}

// uint8 and int8: the table knows which.
extern "C" __global__ void __launch_bounds__(threads)
    normalize_u8(const unsigned char* levels, unsigned char* target, const unsigned* values, long long level_bytes,
                 long long sample_bytes, int plane, int from_planar, int to_planar, int swap) {
    normalize(levels, target, values, level_bytes, sample_bytes, plane, from_planar, to_planar, swap);
}
