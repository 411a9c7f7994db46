// The source rows of resize.cu: which ones a tile needs, and how they come into shared memory, one group after another.
#pragma once

#include "resize_columns.cuh"

namespace {

// The box's rows that a tile needs, as a list: from `low` on, or each output row's own window where rows are left out.
struct Rows {
    int low, count, last;
    int window;  // 0: neighbours
    const int* first;

    __device__ __forceinline__ int operator[](int i) const {
        return clamp(window == 0 ? low + i : load_shared(first + i / window) + i % window, 0, last);
    }
};

// A tile's rows in shared memory, one group after another.
template <bool in_place, bool is_window>
struct Groups {
    const Tile& tile;
    const Rows rows;
    int begin = 0, end = 0;  // the rows that are there

    __device__ Groups(const Tile& tile, const Rows& rows) : tile(tile), rows(rows) {
        if (threadIdx.x) return;
        const int left = load_shared(tile.shared.columns), bytes = 3 * (load_shared(tile.shared.columns + 1) - left);
        const int stride = max((bytes + 30) & ~15, 32);
        store_shared(tile.shared.source, {tile.begin, tile.end, tile.box + 3ll * left, tile.pitch, bytes, stride});
    }

    // The next group, and its slots.
    __device__ void next() {
        __syncthreads();
        const Source source = load_shared(tile.shared.source);
        assume_global(source.top);
        begin = end;
        end = min(rows.count, begin + (in_place ? max_slots : min(max_slots, staged_bytes / source.stride)));
        if (is_window)
            describe_windows(source);
        else
            describe_runs(source);
        if (!in_place) {
            if (source.row(rows[begin]) - 15 >= source.begin && source.row(rows[end - 1]) + source.stride <= source.end)
                copy<true>(source);
            else
                copy<false>(source);
        }
        __syncthreads();
    }
    __device__ __forceinline__ const Slot* slot(int i) const { return tile.shared.slots + (i - begin); }

private:
    __device__ __forceinline__ static int base(const Source& source, int slot, int row) {
        return in_place ? row : slot * source.stride + static_cast<int>(phase_of(source.row(row)));
    }

    // Slots of a window's rows: where they are is all there is to know.
    __device__ void describe_windows(const Source& source) const {
        for (int i = threadIdx.x; i < end - begin; i += blockDim.x)
            store_shared(&tile.shared.slots[i].base, base(source, i, rows[begin + i]));
    }

    // Slots of rows that are added up, by the output rows that they add to: threads y, y + max_rows ... take the taps
    // of output row y, all but the first one where that is the last one of the row before.
    __device__ void describe_runs(const Source& source) const {
        const int y = threadIdx.x % max_rows;
        if (y >= tile.rows) return;
        const int *first = tile.shared.first, *taps = tile.shared.taps;
        const int from = load_shared(first + y), count = load_shared(taps + y);
        const bool is_shared = y > 0 && load_shared(first + y - 1) + load_shared(taps + y - 1) - 1 == from;
        const bool shares = y + 1 < tile.rows && load_shared(first + y + 1) == from + count - 1;
        const float next = shares ? load_shared(tile.shared.weights + 4 * (y + 1)) : 0.0f;
        const int stop = min(count, rows.low + end - from);
        for (int tap = max(static_cast<int>(is_shared), rows.low + begin - from) + threadIdx.x / max_rows; tap < stop;
             tap += blockDim.x / max_rows) {
            const int i = from + tap - rows.low - begin, ends = tap == count - 1;
            const float weight = load_shared(tile.shared.weights + 4 * y + (tap == 0 ? 0 : ends ? 2 : 1));
            store_shared(tile.shared.slots + i, {base(source, i, from + tap), ends, weight, ends ? next : 0.0f});
        }
    }

    // The aligned 16 bytes at `at`, of which the picture's are read.
    __device__ __forceinline__ static Words4 piece(const Source& source, const unsigned char* at) {
        if (at >= source.begin && at + 16 <= source.end) return load(reinterpret_cast<const Words4*>(at));
        unsigned long long low = 0, high = 0;
#pragma unroll 1
        for (int i = 15; i >= 0; --i) {
            high = high << 8 | low >> 56;
            low = low << 8 | (at + i >= source.begin && at + i < source.end ? load(at + i) : 0);
        }
        const auto word = [](unsigned long long bits) { return static_cast<unsigned>(bits); };
        return {word(low), word(low >> 32), word(high), word(high >> 32)};
    }

    // All threads of the block. Where all pieces lie in the picture, two of each thread are under way at once.
    template <bool is_inside>
    __device__ void copy(const Source& source) const {
        constexpr unsigned at_once = is_inside ? 2 : 1;
        const unsigned per_row = source.stride / 16, pieces = per_row * (end - begin);
        const unsigned long long inverse = 0xffffffffu / per_row + 1;  // i / per_row = i * inverse >> 32 for small i
        const unsigned char* top = source.row(rows[begin]);
        auto target = reinterpret_cast<Words4*>(tile.shared.words);
        for (unsigned i = threadIdx.x; i < pieces; i += at_once * blockDim.x) {
            Words4 taken[at_once];
#pragma unroll
            for (unsigned k = 0; k < at_once; ++k) {
                const unsigned at = i + k * blockDim.x;
                if (at >= pieces) continue;
                const unsigned slot = static_cast<unsigned>(at * inverse >> 32), column = at - slot * per_row;
                const unsigned char* row = is_window ? source.row(rows[begin + slot]) : top + slot * source.pitch;
                const unsigned char* from = row - phase_of(row) + 16 * column;
                if (is_inside)
                    taken[k] = load(reinterpret_cast<const Words4*>(from));
                else
                    taken[k] = 16 * column < phase_of(row) + source.bytes ? piece(source, from) : Words4{};
            }
#pragma unroll
            for (unsigned k = 0; k < at_once; ++k)
                if (i + k * blockDim.x < pieces) store_shared(target + i + k * blockDim.x, taken[k]);
        }
    }
};

}  // namespace
