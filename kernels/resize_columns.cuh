// One column of resize.cu: the weighted sum over its pixels in one source row, be that in shared memory or in place.
#pragma once

#include "resize_taps.cuh"

namespace {

constexpr int max_columns = 224;         // threads of a block: four blocks of them leave 72 registers to each
constexpr int max_rows = 16;             // output rows of a block
constexpr int staged_bytes = 16 * 1024;  // of source rows; rows of more are read in place
constexpr int max_slots = 64;            // source rows in one group
constexpr int past_end = 32;             // a run is read in whole words, up to 15 bytes more than it has

// Three channels of one pixel, in the picture's order.
template <class S>
struct Sum {
    S channel[3];
};

// What the threads of a block share.
struct alignas(16) Slot {
    int base;  // where the source row begins among the staged bytes; read in place: which row of the box it is
    int ends;  // is it the last row of the output row that it adds to?
    float weight, next;  // there, and in the output row after it
};
struct Source {
    const unsigned char *begin, *end;  // of the picture
    const unsigned char* top;          // of the box: the first byte that the tile needs of row 0
    long long pitch;
    int bytes, stride;  // that it needs of a row; with what is left of its first and last 16 bytes

    __device__ __forceinline__ const unsigned char* row(int i) const { return top + i * pitch; }
};
struct Shared {
    Source* source;         // what is wanted only between groups of rows, and would take registers all along
    unsigned* words;        // source rows
    Slot* slots;            // one for each of them
    unsigned char* levels;  // of the tile, where the output is interleaved
    unsigned* table;        // what they become, a picture's channel after the other
    int* first;             // per output row: source row
    int* taps;
    float* weights;  // four per output row
    int* columns;    // first source column, and the one after the last
    int* padding;    // rows of it above the first, whether the picture has any, all rows of the tile
    float* mean;     // block_mean: what a total is multiplied by, and what is added then
};

// The tile of a block: `rows` output rows that the resized box covers.
struct Tile {
    const unsigned char* box;  // first byte of the part that is resized
    const unsigned char *begin, *end;  // of the whole picture
    long long pitch;
    int box_height, rows;
    Shared shared;
};

__device__ __forceinline__ float float_of(unsigned bits) {
#ifdef KERNELS_HOST
    return host::bits_float(bits);
#else
    return __uint_as_float(bits);
#endif
}

// An address that comes from memory could be any kind's: not to know it costs every access.
__device__ __forceinline__ void assume_global([[maybe_unused]] const void* at) {
#ifndef KERNELS_HOST
    __builtin_assume(__isGlobal(at));
#endif
}

// How far behind a multiple of 16 an address is.
__device__ __forceinline__ unsigned phase_of(const unsigned char* at) {
    return static_cast<unsigned>(reinterpret_cast<unsigned long long>(at) & 15);
}

// Byte i of four, as the number that S counts levels in: an integer, or a subnormal float32, whose bits are the byte's.
template <class S>
__device__ __forceinline__ S level_of(unsigned bytes, int i) {
#ifdef KERNELS_HOST
    const unsigned byte = bytes >> 8 * i & 255;
#else
    const unsigned byte = __byte_perm(bytes, 0, 0x4440 + i);
#endif
    if constexpr (is_float<S>)
        return float_of(byte);
    else
        return static_cast<S>(byte);
}

// Bytes shift / 8 to shift / 8 + 3 of two neighbouring words.
__device__ __forceinline__ unsigned funnel(unsigned low, unsigned high, int shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> shift);
}

// Add n neighbouring pixels, the first one's bytes lowest in `bytes`, to `sum`, which starts with them if is_first.
template <bool is_first, int n, class S, class W>
__device__ __forceinline__ void add_pixels(const unsigned* bytes, const W* weight, Sum<S>& sum) {
#pragma unroll
    for (int tap = 0; tap < n; ++tap)
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const int at = 3 * tap + c;
            const S product = level_of<S>(bytes[at / 4], at % 4) * static_cast<S>(weight[tap]);
            sum.channel[c] = is_first && tap == 0 ? product : sum.channel[c] + product;
        }
}

// n neighbouring pixels from a byte of the staged rows on.
template <int n, class S, class W>
__device__ __forceinline__ Sum<S> staged_run(const unsigned* words, int byte, const W* weight) {
    constexpr int count = (3 * n + 6) / 4, used = (3 * n + 3) / 4;
    unsigned raw[count], bytes[used];
#pragma unroll
    for (int i = 0; i < count; ++i) raw[i] = load_shared(words + (byte >> 2) + i);
#pragma unroll
    for (int i = 0; i < used; ++i)
        bytes[i] = i + 1 < count ? funnel(raw[i], raw[i + 1], (byte & 3) * 8) : raw[i] >> (byte & 3) * 8;
    Sum<S> sum;
    add_pixels<true, n>(bytes, weight, sum);
    return sum;
}

// A column's sum over a staged source row that begins at byte `base`: up to n pixels.
template <int n>
struct ShortRun {
    const unsigned* words;
    int offset;
    float weight[n];

    __device__ __forceinline__ ShortRun(const Tile& tile, const Run& run, int left)
        : words(tile.shared.words), offset(3 * (run.first - left)) {
#pragma unroll
        for (int tap = 0; tap < n; ++tap) weight[tap] = tap < run.taps ? run.weight(tap) : 0.0f;
    }
    __device__ __forceinline__ Sum<float> operator()(int base) const {
        return staged_run<n, float>(words, base + offset, weight);
    }
};

// The same for any number of pixels: the first one, then four at a time, of which the last are filled up with zeros.
struct LongRun {
    const unsigned* words;
    int offset;
    Run run;

    __device__ __forceinline__ LongRun(const Tile& tile, const Run& run, int left)
        : words(tile.shared.words), offset(3 * (run.first - left)), run(run) {}
    __device__ __forceinline__ Sum<float> operator()(int base) const {
        Sum<float> sum = staged_run<1, float>(words, base + offset, &run.begin);
        const int byte = base + offset + 3, shift = (byte & 3) * 8;
        const unsigned* word = words + (byte >> 2);
        unsigned last = load_shared(word);
        int left = run.taps - 2;  // between the first and the last
        const float middle[4] = {run.middle, run.middle, run.middle, run.middle};
        for (; left >= 4; left -= 4, word += 3) last = add_four(word, last, shift, middle, sum);
        if (left < 0) return sum;
        float weight[4];
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) weight[tap] = tap < left ? run.middle : tap == left ? run.end : 0.0f;
        add_four(word, last, shift, weight, sum);
        return sum;
    }

private:
    // Pixels that begin in word[0], which is `first`; gives word[3].
    static __device__ __forceinline__ unsigned add_four(const unsigned* word, unsigned first, int shift,
                                                        const float* weight, Sum<float>& sum) {
        const unsigned b = load_shared(word + 1), c = load_shared(word + 2), d = load_shared(word + 3);
        const unsigned bytes[3] = {funnel(first, b, shift), funnel(b, c, shift), funnel(c, d, shift)};
        add_pixels<false, 4>(bytes, weight, sum);
        return d;
    }
};

// A run that is read where it lies: a tile's row is longer than the staging memory.
struct DirectRun {
    const unsigned char* box;
    long long pitch;
    Run run;

    __device__ __forceinline__ DirectRun(const Tile& tile, const Run& run, int)
        : box(tile.box), pitch(tile.pitch), run(run) {}
    __device__ __forceinline__ Sum<float> operator()(int row) const {
        Sum<float> sum = {};
        const unsigned char* at = box + row * pitch + 3ll * run.first;
#pragma unroll 1
        for (int tap = 0; tap < run.taps; ++tap, at += 3)
            for (int c = 0; c < 3; ++c) sum.channel[c] += level_of<float>(load(at + c), 0) * run.weight(tap);
        return sum;
    }
};

// Two pixels blended in integers, or four in float32. Where the picture's edge repeats, taps are read one by one.
template <int n, class S>
struct StagedWindow {
    const unsigned* words;
    int offset, last;
    Window<n> window;

    __device__ __forceinline__ StagedWindow(const Tile& tile, const Window<n>& window, int width, int left)
        : words(tile.shared.words), offset(3 * left), last(width - 1), window(window) {}
    __device__ __forceinline__ Sum<S> operator()(int base) const {
        const int from = base - offset;
        if (window.first >= 0 && window.first + n - 1 <= last)
            return staged_run<n, S>(words, from + 3 * window.first, window.weight);
        Sum<S> sum = {};
#pragma unroll
        for (int tap = 0; tap < n; ++tap) {
            const int byte = from + 3 * clamp(window.first + tap, 0, last);
            const Sum<S> one = staged_run<1, S>(words, byte, window.weight + tap);
            for (int c = 0; c < 3; ++c) sum.channel[c] += one.channel[c];
        }
        return sum;
    }
};

template <int n, class S>
struct DirectWindow {
    const unsigned char* box;
    long long pitch;
    int last;
    Window<n> window;

    __device__ __forceinline__ DirectWindow(const Tile& tile, const Window<n>& window, int width, int)
        : box(tile.box), pitch(tile.pitch), last(width - 1), window(window) {}
    __device__ __forceinline__ Sum<S> operator()(int row) const {
        Sum<S> sum = {};
#pragma unroll
        for (int tap = 0; tap < n; ++tap) {
            const unsigned char* at = box + row * pitch + 3ll * clamp(window.first + tap, 0, last);
            for (int c = 0; c < 3; ++c)
                sum.channel[c] += level_of<S>(load(at + c), 0) * static_cast<S>(window.weight[tap]);
        }
        return sum;
    }
};

}  // namespace
