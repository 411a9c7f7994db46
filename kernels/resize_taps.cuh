// What resize.cu is told of a picture, and which source pixels an output pixel is made of, with which weights.
//
// Coordinates are worked out in double and the rest in float32, as OpenCV does it: every rounding here is one there.
#pragma once

#include "memory.cuh"

namespace {

constexpr float cubic_a = -0.75f;  // OpenCV's; others use -0.5

// kernels/resize.py: Path
enum Path { area, block_mean, area_linear, linear, cubic, pillow_bilinear, pillow_bicubic, pillow_lanczos };

// kernels/resize.py: PICTURE
struct Picture {
    unsigned long long pixels;  // address of the first byte
    long long pitch;            // bytes from row to row
    double scale_x, scale_y;    // source pixels per target pixel
    int width, height;
    int box_left, box_top, box_width, box_height;  // the part that is resized
    int resized_width, resized_height;
    int crop_left, crop_top;  // the first pixel of the resized box that is kept; negative: so much is padding before it
    int path;
    int pad_level;  // of what lies beyond the resized box
};
#ifndef __CUDACC_RTC__  // NVRTC has no offsetof
static_assert(sizeof(Picture) == 80 && __builtin_offsetof(Picture, width) == 32 &&
                  __builtin_offsetof(Picture, path) == 72,
              "PICTURE in kernels/resize.py has another layout");
#endif

// float32 counts in units of 2**-23 levels, so that a byte becomes a float by way of its bits alone: as a subnormal it
// is worth 2**-149 a level, which the weights of columns make up for. Powers of two change no rounding.
constexpr float level_unit = 0x1p-23f, column_unit = 0x1p126f;

#if defined(__CUDA_FTZ) && __CUDA_FTZ
#error "resize.cu needs subnormal numbers: compile without --ftz=true and --use_fast_math"
#endif

template <class S>
constexpr bool is_float = false;
template <>
constexpr bool is_float<float> = true;

// A run of neighbouring source pixels: the first one's weight, the last one's, and that of all between.
struct Run {
    int first, taps;
    float begin, middle, end;

    __device__ __forceinline__ float weight(int tap) const {
        return tap == 0 ? begin : tap == taps - 1 ? end : middle;
    }
};

// Source pixels first to first + n - 1, which the picture's edge repeats.
template <int n>
struct Window {
    int first;
    float weight[n];
};

__device__ Run area_run(int source, double scale, int output) {
    const double start = output * scale, end = start + scale;
    const double cell = min(scale, source - start);
    const int last = min(static_cast<int>(floor(end)), source - 1);
    const int whole = min(static_cast<int>(ceil(start)), last);
    const bool has_lead = whole - start > 1e-3, has_tail = end - last > 1e-3;
    const float middle = static_cast<float>(1.0 / cell);
    const float lead = static_cast<float>((whole - start) / cell);
    const float tail = has_tail ? static_cast<float>(min(min(end - last, 1.0), cell) / cell) : 0.0f;
    Run run;
    run.first = whole - has_lead;
    run.taps = last - whole + has_lead + has_tail;
    run.begin = has_lead ? lead : whole < last ? middle : tail;
    run.middle = middle;
    run.end = has_tail ? tail : whole < last ? middle : lead;
    return run;
}

__device__ __forceinline__ Run make_run(int path, int source, double scale, int output) {
    if (path == area) return area_run(source, scale, output);
    const int block = static_cast<int>(scale);
    return {output * block, block, 1.0f, 1.0f, 1.0f};
}

__device__ void make_window(int path, int source, int target, double scale, int output, Window<2>& window) {
    float share;
    if (path == linear) {
        const float position = static_cast<float>((output + 0.5) * scale - 0.5);
        window.first = static_cast<int>(floorf(position));
        share = position - floorf(position);
    } else {
        const double inverse = static_cast<double>(target) / source;
        window.first = static_cast<int>(floor(output * scale));
        share = static_cast<float>((output + 1) - (window.first + 1) * inverse);
        share = share <= 0.0f ? 0.0f : share - floorf(share);
    }
    window.weight[0] = rintf((1.0f - share) * 2048.0f);
    window.weight[1] = rintf(share * 2048.0f);
}

__device__ void make_window(int, int, int, double scale, int output, Window<4>& window) {
    const float position = static_cast<float>((output + 0.5) * scale - 0.5);
    const float a = cubic_a, x = position - floorf(position), y = 1.0f - x;
    window.first = static_cast<int>(floorf(position)) - 1;
    window.weight[0] = ((a * (x + 1.0f) - 5.0f * a) * (x + 1.0f) + 8.0f * a) * (x + 1.0f) - 4.0f * a;
    window.weight[1] = ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    window.weight[2] = ((a + 2.0f) * y - (a + 3.0f)) * y * y + 1.0f;
    window.weight[3] = 1.0f - window.weight[0] - window.weight[1] - window.weight[2];
}

__device__ __forceinline__ int clamp(int x, int low, int high) {
    return min(max(x, low), high);
}

}  // namespace
