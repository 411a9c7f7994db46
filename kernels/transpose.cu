// Transposes: of a matrix, and of pictures between interleaved (NHWC) and planar (NCHW) order.
//
// The maths: out[c][r] = in[r][c]. Nothing is computed, so a value is moved as the bits it has: float32 as unsigned,
// float16 as unsigned short, uint8 as unsigned char.
//
// Bytes moved: each value is read once and written once, 2 * rows * columns * sizeof(T); a picture of 224 x 224 in three
// channels 301,056 bytes as uint8, 1,204,224 as float32. Roofline: memory alone. The least time is those bytes divided by
// what the GPU copies per second (4.3 TB/s on an H200: 0.28 us for that float32 picture). Memory moves in sectors of 32
// bytes, so what counts is how many sectors each warp touches for how many bytes it wants.
//
// Naive: a warp reads along a row, whole sectors, but writes down a column: each value in a sector of its own. 16 x 16
// threads make a warp of two rows of 16: 4 sectors read, 16 sectors written, 2 values in each.
//
// Tiled: a block stages a tile in shared memory, so that it reads and writes along rows both times. Written by rows and
// read by columns, a tile must not have its columns in one bank (32 banks of 4 bytes). In a warp of 16 x 16 threads,
// lane (x, y) reads word pitch * x + y, where y has two values that follow each other:
//   [16][16]  16 x + y: even x all fall into bank y, odd x into bank 16 + y: 8 ways;
//   [16][17]  17 x + y: 17 is odd, so the 16 x of one y are apart, but x = 15 of the second y (255 + y + 1 = 256 + y) meets
//             x = 0 of the first in bank y: 2 ways; writing, 17 y + x, x = 15 of the second row meets x = 0 of the first;
//   [32][33]  with a whole row of 32 threads in a warp: 33 x + y falls into bank x + y: all apart, none.
// Banks are 4 bytes wide, so smaller values are packed: a thread moves words of K = 4 / sizeof(T) values, takes K rows,
// turns the K x K square in registers, and keeps tile[i] of words for the columns K * l + i: each a [32][33] of its own.
// Several words per thread (8, 8, 16) keep enough loads in flight to cover the memory's latency.
//
// Pictures: three channels are no square to tile. NHWC to NCHW takes a stream of triples apart, NCHW to NHWC puts one
// together. A thread has 48 bytes: 16 of each plane, which it moves at once; but its 48 bytes of the interleaved stream
// would leave gaps between the lanes. So the stream passes through shared memory: global accesses go in lane order, 16
// bytes each; shared ones lie 48 bytes apart, an odd number (3) of 16-byte units, which the eight lanes of a quarter-warp
// spread over all banks. Where planes do not begin on 16 bytes, values go one by one.
#include "memory.cuh"

constexpr int side = 32;          // of a tile, in words
constexpr int rows_at_once = 8;   // the tiled kernels run in blocks of 32 x 8
constexpr int small_side = 16;    // the naive and the study kernels run in blocks of 16 x 16
constexpr int lanes = 256;        // threads of a block of the image kernels
constexpr int channels = 3;

// ------------------------------------------------------------------------------------------------ matrices, naive

template <class T>
__device__ __forceinline__ void naive(const T* in, T* out, int rows, int columns) {
    const int across = (columns - 1) / small_side + 1;
    const int column = blockIdx.x % across * small_side + threadIdx.x;
    const int row = blockIdx.x / across * small_side + threadIdx.y;
    if (row >= rows || column >= columns) return;
    const T value = load(in + static_cast<long long>(row) * columns + column);
    store(out + static_cast<long long>(column) * rows + row, value);
}

extern "C" __global__ void transpose_naive_f32(const unsigned* in, unsigned* out, int rows, int columns) {
    naive(in, out, rows, columns);
}
extern "C" __global__ void transpose_naive_f16(const unsigned short* in, unsigned short* out, int rows, int columns) {
    naive(in, out, rows, columns);
}
extern "C" __global__ void transpose_naive_u8(const unsigned char* in, unsigned char* out, int rows, int columns) {
    naive(in, out, rows, columns);
}

// ----------------------------------------------------------------------------- matrices, the literature's small tile

template <int pitch>
__device__ __forceinline__ void small_tile(const unsigned* in, unsigned* out, int rows, int columns) {
    __shared__ unsigned tile[small_side][pitch];
    const int across = (columns - 1) / small_side + 1;
    const int first_column = blockIdx.x % across * small_side, first_row = blockIdx.x / across * small_side;
    const int x = threadIdx.x, y = threadIdx.y;
    if (first_row + y < rows && first_column + x < columns)
        store_shared(&tile[y][x], load(in + static_cast<long long>(first_row + y) * columns + first_column + x));
    __syncthreads();
    if (first_column + y < columns && first_row + x < rows)
        store(out + static_cast<long long>(first_column + y) * rows + first_row + x, load_shared(&tile[x][y]));
}

extern "C" __global__ void transpose_tile16x16_f32(const unsigned* in, unsigned* out, int rows, int columns) {
    small_tile<16>(in, out, rows, columns);
}
extern "C" __global__ void transpose_tile16x17_f32(const unsigned* in, unsigned* out, int rows, int columns) {
    small_tile<17>(in, out, rows, columns);
}

// ------------------------------------------------------------------------------------------------ matrices, tiled

// Values `at` ... of a line of `length` as one word; `whole` where words are aligned and none crosses the line's end.
template <class T, bool whole>
__device__ __forceinline__ unsigned load_word(const T* line, int at, int length) {
    constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T);
    if constexpr (whole) {
        return load(reinterpret_cast<const unsigned*>(line + at));
    } else {
        unsigned word = 0;
#pragma unroll
        for (int i = 0; i < values; ++i)
            if (at + i < length) word |= static_cast<unsigned>(load(line + at + i)) << (bits * i);
        return word;
    }
}

template <class T, bool whole>
__device__ __forceinline__ void store_word(T* line, int at, int length, unsigned word) {
    constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T);
    if constexpr (whole) {
        store(reinterpret_cast<unsigned*>(line + at), word);
    } else {
#pragma unroll
        for (int i = 0; i < values; ++i)
            if (at + i < length) store(line + at + i, static_cast<T>(word >> (bits * i)));
    }
}

// Value `index` of values that lie packed in words.
template <class T>
__device__ __forceinline__ unsigned value_of(const unsigned* words, int index) {
    constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T);
    return words[index / values] >> (bits * (index % values)) & (0xffffffffu >> (32 - bits));
}

// A block transposes `down` tiles that lie below each other, so that it writes lines of down * 128 bytes.
template <class T, int down>
struct Tiles {
    static constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T), steps = side / rows_at_once;
    using Cells = unsigned[down * values][side][side + 1];

    int rows, columns, first_row, first_column;

    __device__ __forceinline__ Tiles(int rows, int columns) : rows(rows), columns(columns) {
        const int across = (columns - 1) / (side * values) + 1;
        first_column = blockIdx.x % across * (side * values);
        first_row = blockIdx.x / across * (side * values * down);
    }

    // All loads come before the first store, so that they are under way together.
    template <bool whole>
    __device__ __forceinline__ void read(const T* in, Cells& tile) const {
        const int column = first_column + values * threadIdx.x;
        unsigned words[down][steps][values];
#pragma unroll
        for (int d = 0; d < down; ++d)
#pragma unroll
            for (int step = 0; step < steps; ++step)
#pragma unroll
                for (int i = 0; i < values; ++i) {
                    const int row = first_row + values * (side * d + rows_at_once * step + threadIdx.y) + i;
                    words[d][step][i] = 0;
                    if (row < rows && column < columns)
                        words[d][step][i] = load_word<T, whole>(in + static_cast<long long>(row) * columns, column, columns);
                }
#pragma unroll
        for (int d = 0; d < down; ++d)
#pragma unroll
            for (int step = 0; step < steps; ++step)
#pragma unroll
                for (int i = 0; i < values; ++i) {
                    unsigned turned = 0;
#pragma unroll
                    for (int r = 0; r < values; ++r) turned |= value_of<T>(&words[d][step][r], i) << (bits * r);
                    store_shared(&tile[d * values + i][rows_at_once * step + threadIdx.y][threadIdx.x], turned);
                }
    }

    template <bool whole>
    __device__ __forceinline__ void write(const Cells& tile, T* out) const {
        unsigned words[steps][values][down];
#pragma unroll
        for (int step = 0; step < steps; ++step)
#pragma unroll
            for (int i = 0; i < values; ++i)
#pragma unroll
                for (int d = 0; d < down; ++d)
                    words[step][i][d] = load_shared(&tile[d * values + i][threadIdx.x][rows_at_once * step + threadIdx.y]);
#pragma unroll
        for (int step = 0; step < steps; ++step)
#pragma unroll
            for (int i = 0; i < values; ++i)
#pragma unroll
                for (int d = 0; d < down; ++d) {
                    const int column = first_column + values * (rows_at_once * step + threadIdx.y) + i;
                    const int row = first_row + values * (side * d + threadIdx.x);
                    if (column < columns && row < rows)
                        store_word<T, whole>(out + static_cast<long long>(column) * rows, row, rows, words[step][i][d]);
                }
    }
};

template <class T, int down>
__device__ __forceinline__ void tiled(const T* in, T* out, int rows, int columns) {
    __shared__ typename Tiles<T, down>::Cells tile;
    const Tiles<T, down> tiles(rows, columns);
    if (tiles.values == 1 || (columns % tiles.values == 0 && is_aligned(in, 4)))
        tiles.template read<true>(in, tile);
    else
        tiles.template read<false>(in, tile);
    __syncthreads();
    if (tiles.values == 1 || (rows % tiles.values == 0 && is_aligned(out, 4)))
        tiles.template write<true>(tile, out);
    else
        tiles.template write<false>(tile, out);
}

extern "C" __global__ void __launch_bounds__(side * rows_at_once)
transpose_tiled_f32(const unsigned* in, unsigned* out, int rows, int columns) {
    tiled<unsigned, 2>(in, out, rows, columns);
}
extern "C" __global__ void __launch_bounds__(side * rows_at_once)
transpose_tiled_f16(const unsigned short* in, unsigned short* out, int rows, int columns) {
    tiled<unsigned short, 1>(in, out, rows, columns);
}
extern "C" __global__ void __launch_bounds__(side * rows_at_once)
transpose_tiled_u8(const unsigned char* in, unsigned char* out, int rows, int columns) {
    tiled<unsigned char, 1>(in, out, rows, columns);
}

// ------------------------------------------------------------------------------------------------ pictures, naive

// One thread per value, in the order of the interleaved side.
template <class T, bool to_planes>
__device__ __forceinline__ void image_naive(const T* in, T* out, int pictures, int pixels) {
    const long long at = static_cast<long long>(blockIdx.x) * lanes + threadIdx.x;
    const long long picture = at / (static_cast<long long>(channels) * pixels);
    if (picture >= pictures) return;
    const int channel = at % channels;
    const long long pixel = at / channels - picture * pixels;
    const long long planar = (picture * channels + channel) * pixels + pixel;
    if (to_planes)
        store(out + planar, load(in + at));
    else
        store(out + at, load(in + planar));
}

extern "C" __global__ void nhwc_to_nchw_naive_f32(const unsigned* in, unsigned* out, int pictures, int pixels) {
    image_naive<unsigned, true>(in, out, pictures, pixels);
}
extern "C" __global__ void nhwc_to_nchw_naive_f16(const unsigned short* in, unsigned short* out, int pictures, int pixels) {
    image_naive<unsigned short, true>(in, out, pictures, pixels);
}
extern "C" __global__ void nhwc_to_nchw_naive_u8(const unsigned char* in, unsigned char* out, int pictures, int pixels) {
    image_naive<unsigned char, true>(in, out, pictures, pixels);
}
extern "C" __global__ void nchw_to_nhwc_naive_f32(const unsigned* in, unsigned* out, int pictures, int pixels) {
    image_naive<unsigned, false>(in, out, pictures, pixels);
}
extern "C" __global__ void nchw_to_nhwc_naive_f16(const unsigned short* in, unsigned short* out, int pictures, int pixels) {
    image_naive<unsigned short, false>(in, out, pictures, pixels);
}
extern "C" __global__ void nchw_to_nhwc_naive_u8(const unsigned char* in, unsigned char* out, int pictures, int pixels) {
    image_naive<unsigned char, false>(in, out, pictures, pixels);
}

// ------------------------------------------------------------------------------------------------ pictures, tiled

// A block's share of one picture: up to `lanes` threads' worth of pixels from `first` on.
template <class T>
struct Share {
    static constexpr int pixels_of_thread = 16 / sizeof(T);
    int picture, first, count;
    long long offset;  // of the picture's first value; both orders have the same

    __device__ __forceinline__ Share(int pixels) {
        constexpr int most = lanes * pixels_of_thread;
        const int shares = (pixels - 1) / most + 1;
        picture = blockIdx.x / shares;
        first = blockIdx.x % shares * most;
        count = min(most, pixels - first);
        offset = static_cast<long long>(picture) * channels * pixels;
    }
};

// Planes that begin on 16 bytes: then a thread's pixels are all there or none is.
template <class T>
__device__ __forceinline__ bool in_words4(const T* in, const T* out, int pixels) {
    return pixels % (16 / static_cast<int>(sizeof(T))) == 0 && is_aligned(in, 16) && is_aligned(out, 16);
}

__device__ __forceinline__ void unpack(const Words4& from, unsigned* to) {
    to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
}

template <class T>
__device__ __forceinline__ void to_planes(const T* in, T* out, int pictures, int pixels) {
    constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T);
    __shared__ Words4 staged[channels * lanes];
    const Share<T> share(pixels);
    if (share.picture >= pictures) return;
    const T* source = in + share.offset + static_cast<long long>(channels) * share.first;
    T* target = out + share.offset + share.first;
    const int thread = threadIdx.x;
    if (!in_words4(in, out, pixels)) {
        for (int pixel = thread; pixel < share.count; pixel += lanes)
            for (int channel = 0; channel < channels; ++channel)
                store(target + static_cast<long long>(channel) * pixels + pixel, load(source + channels * pixel + channel));
        return;
    }
    const int threads = share.count / share.pixels_of_thread;
    const Words4* stream = reinterpret_cast<const Words4*>(source);
    Words4 words[channels];
#pragma unroll
    for (int i = 0; i < channels; ++i)
        if (lanes * i + thread < channels * threads) words[i] = load(stream + lanes * i + thread);
#pragma unroll
    for (int i = 0; i < channels; ++i)
        if (lanes * i + thread < channels * threads) store_shared(&staged[lanes * i + thread], words[i]);
    __syncthreads();
    if (thread >= threads) return;
    unsigned mixed[4 * channels];
#pragma unroll
    for (int i = 0; i < channels; ++i) unpack(load_shared(&staged[channels * thread + i]), mixed + 4 * i);
#pragma unroll
    for (int channel = 0; channel < channels; ++channel) {
        unsigned plane[4] = {};
#pragma unroll
        for (int i = 0; i < share.pixels_of_thread; ++i)
            plane[i / values] |= value_of<T>(mixed, channels * i + channel) << (bits * (i % values));
        Words4* line = reinterpret_cast<Words4*>(target + static_cast<long long>(channel) * pixels);
        store(line + thread, Words4{plane[0], plane[1], plane[2], plane[3]});
    }
}

template <class T>
__device__ __forceinline__ void to_pixels(const T* in, T* out, int pictures, int pixels) {
    constexpr int values = 4 / sizeof(T), bits = 8 * sizeof(T);
    __shared__ Words4 staged[channels * lanes];
    const Share<T> share(pixels);
    if (share.picture >= pictures) return;
    const T* source = in + share.offset + share.first;
    T* target = out + share.offset + static_cast<long long>(channels) * share.first;
    const int thread = threadIdx.x;
    if (!in_words4(in, out, pixels)) {
        for (int pixel = thread; pixel < share.count; pixel += lanes)
            for (int channel = 0; channel < channels; ++channel)
                store(target + channels * pixel + channel, load(source + static_cast<long long>(channel) * pixels + pixel));
        return;
    }
    const int threads = share.count / share.pixels_of_thread;
    if (thread < threads) {
        unsigned planes[channels][4], mixed[4 * channels] = {};
#pragma unroll
        for (int channel = 0; channel < channels; ++channel)
            unpack(load(reinterpret_cast<const Words4*>(source + static_cast<long long>(channel) * pixels) + thread),
                   planes[channel]);
#pragma unroll
        for (int i = 0; i < channels * share.pixels_of_thread; ++i)
            mixed[i / values] |= value_of<T>(planes[i % channels], i / channels) << (bits * (i % values));
#pragma unroll
        for (int i = 0; i < channels; ++i)
            store_shared(&staged[channels * thread + i],
                         Words4{mixed[4 * i], mixed[4 * i + 1], mixed[4 * i + 2], mixed[4 * i + 3]});
    }
    __syncthreads();
    Words4* stream = reinterpret_cast<Words4*>(target);
#pragma unroll
    for (int i = 0; i < channels; ++i)
        if (lanes * i + thread < channels * threads)
            store(stream + lanes * i + thread, load_shared(&staged[lanes * i + thread]));
}

extern "C" __global__ void __launch_bounds__(lanes)
nhwc_to_nchw_tiled_f32(const unsigned* in, unsigned* out, int pictures, int pixels) {
    to_planes(in, out, pictures, pixels);
}
extern "C" __global__ void __launch_bounds__(lanes)
nhwc_to_nchw_tiled_f16(const unsigned short* in, unsigned short* out, int pictures, int pixels) {
    to_planes(in, out, pictures, pixels);
}
extern "C" __global__ void __launch_bounds__(lanes)
nhwc_to_nchw_tiled_u8(const unsigned char* in, unsigned char* out, int pictures, int pixels) {
    to_planes(in, out, pictures, pixels);
}
extern "C" __global__ void __launch_bounds__(lanes)
nchw_to_nhwc_tiled_f32(const unsigned* in, unsigned* out, int pictures, int pixels) {
    to_pixels(in, out, pictures, pixels);
}
extern "C" __global__ void __launch_bounds__(lanes)
nchw_to_nhwc_tiled_f16(const unsigned short* in, unsigned short* out, int pictures, int pixels) {
    to_pixels(in, out, pictures, pixels);
}
extern "C" __global__ void __launch_bounds__(lanes)
nchw_to_nhwc_tiled_u8(const unsigned char* in, unsigned char* out, int pictures, int pixels) {
    to_pixels(in, out, pictures, pixels);
}
