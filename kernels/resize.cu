// A batch of differently sized pictures, uint8 HWC, to the model's input in one launch: resize, crop, colour order,
// mean and scale, layout, dtype. Only what the crop keeps is computed, and only the rows it needs are read. Where the
// crop reaches beyond the resized box, the output is padding, of one level.
//
// The maths. Every output pixel is a weighted sum over source columns, then over source rows:
//     across[row][x] = sum over tx of source[row][column(x, tx)] * weight(x, tx)
//     total[y][x]    = sum over ty of across[row(y, ty)][x] * weight(y, ty)
// and the level it rounds to goes through a table of 3 x 256 values, (level - mean) / std in float32 and then the
// output's dtype, one row per output channel: the formula has only so many results.
//   area         both axes shrink: the share of each source pixel that an output pixel covers, float32; shares under a
//                thousandth are left out; rounded half to even
//   block_mean   both ratios whole: all weights 1, one product with float32(1 / pixels); 2 x 2 is rounded half up
//   area_linear  area mode where either axis grows: two pixels, blended by area where an output straddles an edge
//   linear       two pixels around (x + 0.5) * scale - 0.5; weights are integers of 11 bits here and in area_linear
//   cubic        four pixels, Keys' kernel with a = -0.75, float32
// Where the rules come from: OpenCV's documentation names the methods but not the arithmetic, so this is what OpenCV is
// observed to do with 8-bit pictures. The sums run in the order above, from the first tap to the last, with every
// product and every sum rounded on its own (no fused multiply-add), so that results are equal to the bit wherever this
// is compiled.
//
// Bytes of a picture: 3 * (source columns x source rows that the crop needs) read once + 3 * size * size * itemsize
// written once; 500 x 375 to 224 x 224 float32 by way of 256 on the short side: 0.32 MB + 0.60 MB. The roofline is that
// over the bandwidth of a copy. A GPU with an H200's bandwidth has few instructions to spare beside that: area mode
// takes 44 for three channels of an across value and 33 for the output pixel made of them (sm_90), and those are what
// the arrangement below saves.
//
// A block makes a tile of `rows` output rows by blockDim.x columns of one picture. A thread owns one column: it works
// its taps out once, in registers, and carries its sums down the rows, so that an across value is made once per source
// row and tile and never stored. Source rows come in groups through shared memory as they lie, in aligned 16-byte
// pieces (resize_rows.cuh); a pixel's bytes are shifted into place when they are read (resize_columns.cuh). To planes a
// warp writes 32 neighbours at a time; levels of an interleaved output are gathered in shared memory, and leave in
// vectors of four.
#include "resize_columns.cuh"
#include "resize_rows.cuh"
#include "resize_taps.cuh"

namespace {

constexpr int max_exact = 65793;  // pixels of level 255 that float32 adds up exactly: 2**24 / 255

// Where it goes.
template <class T>
struct Output {
    T* sample;  // the picture's
    int size, x, y;  // of the output; its first column and row in this tile
    int column;      // that this thread makes
    bool planar, swap;
};

// Where this thread's levels go, row after row: through the table to the output's planes, or to shared memory where
// they are in the interleaved output's order.
template <class T>
struct Sink {
    T* at;  // of the picture's first channel
    unsigned char* levels;
    const unsigned* table;
    int to_channel, to_row;  // from one of the picture's channels to the next in the output, and to its next row
    bool planar;

    __device__ __forceinline__ Sink(const Tile& tile, const Output<T>& output) : planar(output.planar) {
        const int size = output.size, step = planar ? size * size : 1;
        const int first = output.swap ? 2 * step : 0, above = load_shared(tile.shared.padding);
        at = output.sample + (output.y + above) * size + output.column + first;
        levels = tile.shared.levels + 3 * (above * blockDim.x + threadIdx.x) + first;
        table = tile.shared.table;
        to_channel = output.swap ? -step : step;
        to_row = planar ? size : 3 * blockDim.x;
    }
    __device__ __forceinline__ void keep(const unsigned* level) {
        if (planar) {
#pragma unroll
            for (int c = 0; c < 3; ++c)
                store(at + c * to_channel, static_cast<T>(load_shared(table + 256 * c + level[c])));
            at += to_row;
        } else {
#pragma unroll
            for (int c = 0; c < 3; ++c) store_shared(levels + c * to_channel, static_cast<unsigned char>(level[c]));
            levels += to_row;
        }
    }
};

// The nearest level of x, half to even: beside 1, float32 has no digits for less than a unit.
__device__ __forceinline__ unsigned nearest(float x) {
#ifdef KERNELS_HOST
    return host::float_bits(x + 1.0f) & 255;
#else
    return __float_as_uint(x + 1.0f) & 255;
#endif
}

// area and block_mean: each source row adds to the output row at hand, and the last one of that begins the next.
template <bool in_place, bool is_mean, class T, class Columns>
__device__ void shrink(const Tile& tile, const Output<T>& output, const Rows& rows, const Columns& columns) {
    Groups<in_place, false> groups(tile, rows);
    Sink<T> sink(tile, output);
    Sum<float> total = {};
    while (groups.end < rows.count) {
        groups.next();
        for (int i = groups.begin; i < groups.end; ++i) {
            const Slot slot = load_shared(groups.slot(i));
            const Sum<float> across = columns(slot.base);
#pragma unroll
            for (int c = 0; c < 3; ++c) total.channel[c] += across.channel[c] * slot.weight;
            if (!slot.ends) continue;
            const float share = is_mean ? load_shared(tile.shared.mean) : 1.0f;
            const float bias = is_mean ? load_shared(tile.shared.mean + 1) : 0.0f;
            unsigned level[3];
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                level[c] = nearest(is_mean ? total.channel[c] * share + bias : total.channel[c]);
                total.channel[c] = across.channel[c] * slot.next;
            }
            sink.keep(level);
        }
    }
}

// From two rows of integers: four bits are dropped before a row's product and 16 after it.
__device__ __forceinline__ void blend(const Sum<int>* across, const float* weight, unsigned* level) {
    const int upper = static_cast<int>(weight[0]), lower = static_cast<int>(weight[1]);
#pragma unroll
    for (int c = 0; c < 3; ++c)
        level[c] = (2 + ((across[0].channel[c] >> 4) * upper >> 16) + ((across[1].channel[c] >> 4) * lower >> 16)) >> 2;
}

__device__ __forceinline__ void blend(const Sum<float>* across, const float* weight, unsigned* level) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        float total = across[0].channel[c] * weight[0];
#pragma unroll
        for (int tap = 1; tap < 4; ++tap) total += across[tap].channel[c] * weight[tap];
        level[c] = nearest(min(max(total, 0.0f), 255.0f * level_unit));
    }
}

// linear, area_linear and cubic: the across values of n rows, which move down the picture.
template <bool in_place, int n, class S, class T, class Columns>
__device__ void slide(const Tile& tile, const Output<T>& output, const Rows& rows, const Columns& columns) {
    Groups<in_place, true> groups(tile, rows);
    Sink<T> sink(tile, output);
    Sum<S> across[n] = {};
    int have = 0;
    for (int y = 0; y < tile.rows; ++y) {
        const int needed = rows.window ? n * (y + 1) : load_shared(tile.shared.first + y) - rows.low + n;
        for (; have < needed; ++have) {
            if (have == groups.end) groups.next();
#pragma unroll
            for (int tap = 0; tap + 1 < n; ++tap) across[tap] = across[tap + 1];
            across[n - 1] = columns(load_shared(&groups.slot(have)->base));
        }
        float weight[n];
#pragma unroll
        for (int tap = 0; tap < n; ++tap) weight[tap] = load_shared(tile.shared.weights + 4 * y + tap);
        unsigned level[3];
        blend(across, weight, level);
        sink.keep(level);
    }
}

// block_mean of so many pixels that float32 cannot add them up: one thread, one output pixel after the other.
template <class T>
__device__ void shrink_exactly(const Tile& tile, const Output<T>& output, const Run& columns, float share) {
    Sink<T> sink(tile, output);
    for (int y = 0; y < tile.rows; ++y) {
        unsigned long long total[3] = {};
        const int first = load_shared(tile.shared.first + y), taps = load_shared(tile.shared.taps + y);
        for (int row = first; row < first + taps; ++row)
#pragma unroll 1
            for (int tap = 0; tap < columns.taps; ++tap)
#pragma unroll
                for (int c = 0; c < 3; ++c)
                    total[c] += load(tile.box + row * tile.pitch + 3ll * (columns.first + tap) + c);
        unsigned level[3];
#pragma unroll
        for (int c = 0; c < 3; ++c) level[c] = nearest(static_cast<float>(total[c]) * share * level_unit);
        sink.keep(level);
    }
}

// ------------------------------------------------------------------------------------------------------- a whole tile

// The first and last thread know which source columns the block needs.
__device__ __forceinline__ void tell_columns(const Tile& tile, int first, int end) {
    if (threadIdx.x == 0) store_shared(tile.shared.columns, first);
    if (threadIdx.x == blockDim.x - 1) store_shared(tile.shared.columns + 1, end);
    __syncthreads();
}

__device__ __forceinline__ bool fits(const Tile& tile) {
    return 3ll * (load_shared(tile.shared.columns + 1) - load_shared(tile.shared.columns)) + 30 <= staged_bytes;
}

template <class T>
__device__ void make_area(const Tile& tile, const Output<T>& output, const Picture& picture, int x, int y) {
    Run run = make_run(picture.path, picture.box_width, picture.scale_x, x);
    run.begin *= column_unit, run.middle *= column_unit, run.end *= column_unit;
    if (static_cast<int>(threadIdx.x) < tile.rows) {
        const Run down = make_run(picture.path, picture.box_height, picture.scale_y, y + threadIdx.x);
        store_shared(tile.shared.first + threadIdx.x, down.first);
        store_shared(tile.shared.taps + threadIdx.x, down.taps);
        store_shared(tile.shared.weights + 4 * threadIdx.x, down.begin);
        store_shared(tile.shared.weights + 4 * threadIdx.x + 1, down.middle);
        store_shared(tile.shared.weights + 4 * threadIdx.x + 2, down.end);
    }
    float share = 1.0f;
    if (picture.path == block_mean) share = static_cast<float>(1.0 / (picture.scale_x * picture.scale_y));
    if (threadIdx.x == 0) {
        store_shared(tile.shared.mean, share);
        // Sums of four are multiples of 1/4: this turns half to even into half up, and nothing else.
        store_shared(tile.shared.mean + 1, share == 0.25f && run.taps == 2 ? 0.125f * level_unit : 0.0f);
    }
    tell_columns(tile, run.first, run.first + run.taps);
    const int low = load_shared(tile.shared.first), last = tile.rows - 1;
    const int end = load_shared(tile.shared.first + last) + load_shared(tile.shared.taps + last);
    const Rows rows = {low, end - low, tile.box_height - 1, 0, tile.shared.first};
    const int left = load_shared(tile.shared.columns);
    int most = static_cast<int>(picture.scale_x) + 2;
    if (picture.path == block_mean) {
        most = run.taps;
        if (picture.scale_x * picture.scale_y > max_exact) return shrink_exactly(tile, output, run, share);
    }
    // The usual photo shrinks less than twofold; what is worth a path of its own there is not elsewhere.
    if (!fits(tile))
        shrink<true, true>(tile, output, rows, DirectRun(tile, run, left));
    else if (most == 3 && picture.path == area)
        shrink<false, false>(tile, output, rows, ShortRun<3>(tile, run, left));
    else if (most <= 4)
        shrink<false, true>(tile, output, rows, ShortRun<4>(tile, run, left));
    else
        shrink<false, true>(tile, output, rows, LongRun(tile, run, left));
}

template <int n, class S, class T>
__device__ void make_windows(const Tile& tile, const Output<T>& output, const Picture& picture, int x, int y) {
    const int width = picture.box_width, height = picture.box_height;
    Window<n> window;
    if (static_cast<int>(threadIdx.x) < tile.rows) {
        make_window(picture.path, height, picture.resized_height, picture.scale_y, y + threadIdx.x, window);
        store_shared(tile.shared.first + threadIdx.x, window.first);
#pragma unroll
        for (int tap = 0; tap < n; ++tap) store_shared(tile.shared.weights + 4 * threadIdx.x + tap, window.weight[tap]);
    }
    make_window(picture.path, width, picture.resized_width, picture.scale_x, x, window);
    if constexpr (is_float<S>)
        for (float& weight : window.weight) weight *= column_unit;
    tell_columns(tile, clamp(window.first, 0, width - 1), clamp(window.first + n - 1, 0, width - 1) + 1);
    const bool leaves_out = picture.scale_y >= n;
    const int low = load_shared(tile.shared.first), end = load_shared(tile.shared.first + tile.rows - 1) + n;
    const Rows rows = {low, leaves_out ? n * tile.rows : end - low, height - 1, leaves_out ? n : 0, tile.shared.first};
    const int left = load_shared(tile.shared.columns);
    if (fits(tile))
        slide<false, n, S>(tile, output, rows, StagedWindow<n, S>(tile, window, width, left));
    else
        slide<true, n, S>(tile, output, rows, DirectWindow<n, S>(tile, window, width, left));
}

// Columns or rows of the output that the resized box covers; the others are padding.
struct Span {
    int begin, end;

    __device__ __forceinline__ bool has(int i) const { return begin <= i && i < end; }
};

__device__ __forceinline__ Span covered(int crop, int resized, int size) {
    return {max(0, -crop), min(size, resized - crop)};
}

// What the resized box does not cover of the tile: its value to the planes, or its level to those in shared memory. The
// picture is read once more, so that nothing of this takes registers before.
template <class T>
__device__ __forceinline__ void pad(const Output<T>& output, const Tile& tile, const Picture* picture,
                                    const unsigned* values, int rows) {
    const int size = output.size, x = threadIdx.x, plane = size * size;
    const Span across = covered(load(&picture->crop_left), load(&picture->resized_width), size);
    const Span down = covered(load(&picture->crop_top), load(&picture->resized_height), size);
    const int level = load(&picture->pad_level);
    const bool beside = !across.has(output.x + x);
#pragma unroll 1
    for (int row = 0; row < rows; ++row) {
        if (!beside && down.has(output.y + row)) continue;
        T* at = output.sample + (output.y + row) * size + output.x + x;
        unsigned char* levels = tile.shared.levels + 3 * (row * blockDim.x + x);
#pragma unroll
        for (int c = 0; c < 3; ++c)
            if (!output.planar)
                store_shared(levels + c, static_cast<unsigned char>(level));
            else if (output.x + x < size)
                store(at + c * plane, static_cast<T>(load(values + 256 * c + level)));
    }
}

// Four values at once, as many bytes as their type makes of them.
__device__ __forceinline__ void store_four(unsigned* target, const unsigned* value) {
    store(reinterpret_cast<Words4*>(target), {value[0], value[1], value[2], value[3]});
}
__device__ __forceinline__ void store_four(unsigned short* target, const unsigned* value) {
    store(reinterpret_cast<Words2*>(target), {value[0] | value[1] << 16, value[2] | value[3] << 16});
}
__device__ __forceinline__ void store_four(unsigned char* target, const unsigned* value) {
    store(reinterpret_cast<unsigned*>(target), value[0] | value[1] << 8 | value[2] << 16 | value[3] << 24);
}

// The tile's levels through the table to an interleaved output, four values of a thread at a time. A row is three times
// as many values as the block has threads. `in_fours`: there are only whole fours, and they are aligned.
template <bool in_fours, class T>
__device__ __forceinline__ void write(const Tile& tile, const Output<T>& output, int rows) {
    const int n = blockDim.x, size = output.size, values = 3 * min(n, size - output.x);
    for (int all = 4 * threadIdx.x, row = 0; row < rows; all += 4 * n) {
        row = all / (3 * n);
        const int i = all - 3 * n * row;
        if (row >= rows || i >= values) continue;
        T* at = output.sample + 3 * ((output.y + row) * size + output.x) + i;
        const unsigned levels = load_shared(reinterpret_cast<const unsigned*>(tile.shared.levels + 3 * row * n + i));
        unsigned value[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int channel = output.swap ? 2 - (i + k) % 3 : (i + k) % 3;
            value[k] = load_shared(tile.shared.table + 256 * channel + level_of<unsigned>(levels, k));
        }
        if (in_fours) {
            store_four(at, value);
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k)
                if (i + k < values) store(at + k, static_cast<T>(value[k]));
        }
    }
}

template <class T>
__device__ void make_tile(const Picture* pictures, void* target, long long sample_bytes, const unsigned* values,
                          int size, int max_tile_rows, int planar, int swap) {
    alignas(16) __shared__ unsigned words[(staged_bytes + past_end) / 4];
    __shared__ Source source[1];
    __shared__ Slot slots[max_slots];
    alignas(4) __shared__ unsigned char levels[3 * max_rows * max_columns];
    alignas(16) __shared__ unsigned table[3 * 256];
    __shared__ float weights[4 * max_rows], mean[2];
    __shared__ int first[max_rows], taps[max_rows], columns[2], padding[3];

    const Picture picture = load(pictures + blockIdx.z);
    const int y = blockIdx.x * max_tile_rows, x = blockIdx.y * blockDim.x;
    const Span across = covered(picture.crop_left, picture.resized_width, size);
    const Span down = covered(picture.crop_top, picture.resized_height, size);
    const int rows = min(max_tile_rows, size - y), top = max(y, down.begin), bottom = min(y + rows, down.end);
    for (int i = threadIdx.x; i < 3 * 256 / 4; i += blockDim.x) {
        const int from = swap ? i + 2 * (64 - i / 64 * 64) : i;
        store_shared(reinterpret_cast<Words4*>(table) + i, load(reinterpret_cast<const Words4*>(values) + from));
    }

    Tile tile;
    tile.begin = reinterpret_cast<const unsigned char*>(picture.pixels);
    assume_global(tile.begin);
    tile.end = tile.begin + (picture.height - 1) * picture.pitch + 3ll * picture.width;
    tile.box = tile.begin + picture.box_top * picture.pitch + 3ll * picture.box_left;
    tile.pitch = picture.pitch;
    tile.box_height = picture.box_height;
    tile.rows = bottom - top;
    tile.shared = {source, words, slots, levels, table, first, taps, weights, columns, padding, mean};
    if (threadIdx.x == 0) {
        store_shared(padding, top - y);
        store_shared(padding + 2, rows);
        store_shared(padding + 1, !across.has(0) || !across.has(size - 1) || !down.has(0) || !down.has(size - 1));
    }
    auto sample = reinterpret_cast<T*>(static_cast<unsigned char*>(target) + blockIdx.z * sample_bytes);
    // Threads beside the columns that the resized box covers work the nearest of these out once more: they help to copy,
    // and write what its thread does.
    const int column = clamp(x + static_cast<int>(threadIdx.x), across.begin, across.end - 1);
    const Output<T> output = {sample, size, x, y, column, planar != 0, swap != 0};

    if (top < bottom && x < across.end && x + static_cast<int>(blockDim.x) > across.begin) {
        const int from = picture.crop_left + column, row = picture.crop_top + top;
        if (picture.path <= block_mean)
            make_area(tile, output, picture, from, row);
        else if (picture.path == cubic)
            make_windows<4, float>(tile, output, picture, from, row);
        else
            make_windows<2, int>(tile, output, picture, from, row);
    } else {
        __syncthreads();
    }
    if (load_shared(padding + 1)) pad(output, tile, pictures + blockIdx.z, values, load_shared(padding + 2));
    if (planar) return;
    __syncthreads();
    if (size % 4 == 0 && is_aligned(output.sample, 4 * sizeof(T)))
        write<true>(tile, output, load_shared(padding + 2));
    else
        write<false>(tile, output, load_shared(padding + 2));
}

}  // namespace

// pictures: one for each z of the grid. target: sample z begins at byte z * sample_bytes, which is a multiple of the
// item's size. values: what the levels become, bits of the output's dtype, 256 for each output channel; aligned to 16
// bytes. rows: output rows of a block, at most 16. planar: NCHW. swap: output channel c is the picture's 2 - c.
// Grid (ceil(size / rows), ceil(size / blockDim.x), pictures), block (a multiple of 32 up to 224).
extern "C" __global__ void __launch_bounds__(max_columns, 4)
    resize_f32(const Picture* pictures, float* target, long long sample_bytes, const unsigned* values, int size,
               int rows, int planar, int swap) {
    make_tile<unsigned>(pictures, target, sample_bytes, values, size, rows, planar, swap);
}

extern "C" __global__ void __launch_bounds__(max_columns, 4)
    resize_f16(const Picture* pictures, unsigned short* target, long long sample_bytes, const unsigned* values,
               int size, int rows, int planar, int swap) {
    make_tile<unsigned short>(pictures, target, sample_bytes, values, size, rows, planar, swap);
}

// uint8 and int8: the table knows which.
extern "C" __global__ void __launch_bounds__(max_columns, 4)
    resize_u8(const Picture* pictures, unsigned char* target, long long sample_bytes, const unsigned* values, int size,
              int rows, int planar, int swap) {
    make_tile<unsigned char>(pictures, target, sample_bytes, values, size, rows, planar, swap);
}
