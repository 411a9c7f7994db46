// Pillow's resize of a batch of pictures, uint8 HWC, to the model's input: by its bilinear, bicubic or Lanczos filter.
//
// The maths. Output x of an axis is centred at (x + 0.5) * scale and takes the source pixels that lie within
// support * max(scale, 1) of it; each weighs filter((pixel + 0.5 - centre) / max(scale, 1)), in double, over the sum of
// all, rounded to 22 bits behind the point. One axis after the other:
//     level = clamp((sum over taps of source * weight + 2**21) >> 22, 0, 255)
// so the one that comes first is rounded to bytes. That is columns, or rows where Pillow takes these first. What Pillow
// 13.0.0 does is described in preprocess/parts/pillow.py. Sums are integers: their order does not matter. Weights are
// those of the host where double's sin is; a GPU's may be a unit in the last place off, which moves a weight by 2**-22
// about once in 10**9, and hardly ever a level.
//
// Three launches. `resample_windows` works out where the taps of each output column and row begin, how many they are,
// and their weights, tap after tap, so that neighbours read neighbours. `resample_first` makes what the crop keeps of
// the axis that comes first; `resample_second_*` makes that of the other one, and writes what the levels become, or
// padding. A thread makes one pixel.
//
// Bytes of a picture: 3 * (source columns x source rows that the crop needs) read once, 3 bytes a pixel written and read
// between the two, 3 * size * size * itemsize written once. Taps are read again by their neighbours, from the caches:
// 500 x 375 to 224 x 224 float32 by way of 256 on the short side: 0.32 MB + 2 * 0.23 MB + 0.60 MB.
#include "resize_taps.cuh"

namespace {

constexpr int threads = 128;  // kernels/resample.py: THREADS
constexpr int precision_bits = 32 - 8 - 2;
constexpr double pi = 3.141592653589793;

// kernels/resample.py: PLAN
struct Plan {
    long long windows;  // ints before its own: those of columns, then those of rows; see Taps
    long long between;  // bytes before its own
    int columns_taps, rows_taps;  // of the longest window
    int low, extent;  // the source rows that the columns' pass is made for; with rows_first the columns
    int rows_first, reserved;
};
#ifndef __CUDACC_RTC__
static_assert(sizeof(Plan) == 40, "PLAN in kernels/resample.py has another layout");
#endif

// What the resized box covers of the output, on one axis, and which part of the picture becomes it.
struct Axis {
    int source, target;  // pixels of the box, and what they become
    int skipped;         // of these, before the first one that is kept
    int begin, count;    // of the output: the first column or row that is covered, and how many are
};

__device__ __forceinline__ Axis columns_of(const Picture& picture, int size) {
    const int begin = max(0, -picture.crop_left), end = min(size, picture.resized_width - picture.crop_left);
    return {picture.box_width, picture.resized_width, max(0, picture.crop_left), begin, end - begin};
}

__device__ __forceinline__ Axis rows_of(const Picture& picture, int size) {
    const int begin = max(0, -picture.crop_top), end = min(size, picture.resized_height - picture.crop_top);
    return {picture.box_height, picture.resized_height, max(0, picture.crop_top), begin, end - begin};
}

// The windows of one axis in memory: where each begins, how many pixels it has, then all first weights, all second ...
template <class T>
struct Taps {
    T* first;
    int outputs;

    __device__ __forceinline__ T* count() const { return first + outputs; }
    __device__ __forceinline__ T* weight(int tap) const { return first + (2 + tap) * static_cast<long long>(outputs); }
};

template <class T>
__device__ __forceinline__ Taps<T> columns_taps(T* windows, const Plan& plan, const Axis& columns) {
    return {windows + plan.windows, columns.count};
}

template <class T>
__device__ __forceinline__ Taps<T> rows_taps(T* windows, const Plan& plan, const Axis& columns, const Axis& rows) {
    return {windows + plan.windows + (2 + plan.columns_taps) * static_cast<long long>(columns.count), rows.count};
}

__device__ __forceinline__ double sinc(double x) {
    return x == 0.0 ? 1.0 : sin(pi * x) / (pi * x);
}

__device__ double filter(int path, double x) {
    constexpr double a = -0.5;
    x = fabs(x);
    if (path == pillow_bilinear) return x < 1.0 ? 1.0 - x : 0.0;
    if (path == pillow_lanczos) return x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

// Three channels of one pixel: `count` taps from `at` on, `step` bytes from one to the next, whose weights lie `stride`
// apart.
struct Levels {
    int channel[3];
};

__device__ __forceinline__ Levels weighed(const unsigned char* at, long long step, int count, const int* weight,
                                          int stride) {
    int sum[3] = {1 << (precision_bits - 1), 1 << (precision_bits - 1), 1 << (precision_bits - 1)};
    for (int tap = 0; tap < count; ++tap, at += step, weight += stride) {
        const int factor = load(weight);
#pragma unroll
        for (int c = 0; c < 3; ++c) sum[c] += load(at + c) * factor;
    }
    Levels found;
#pragma unroll
    for (int c = 0; c < 3; ++c) found.channel[c] = clamp(sum[c] >> precision_bits, 0, 255);
    return found;
}

template <class T>
__device__ void second(const Picture* pictures, const Plan* plans, const int* windows, const unsigned char* between,
                       T* target, long long sample_bytes, const unsigned* values, int size, int planar, int swap) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= size * size) return;
    const Picture picture = load(pictures + blockIdx.z);
    const Plan plan = load(plans + blockIdx.z);
    const Axis columns = columns_of(picture, size), rows = rows_of(picture, size);
    const int x = place % size - columns.begin, y = place / size - rows.begin;
    Levels levels = {{picture.pad_level, picture.pad_level, picture.pad_level}};
    if (x >= 0 && x < columns.count && y >= 0 && y < rows.count) {
        const unsigned char* begin = between + plan.between;
        const Taps<const int> taps =
            plan.rows_first ? columns_taps(windows, plan, columns) : rows_taps(windows, plan, columns, rows);
        const int output = plan.rows_first ? x : y, first = load(taps.first + output) - plan.low;
        const long long width = plan.rows_first ? plan.extent : columns.count;
        const long long at = plan.rows_first ? y * width + first : first * width + x;
        levels = weighed(begin + 3 * at, plan.rows_first ? 3 : 3 * width, load(taps.count() + output),
                         taps.weight(0) + output, taps.outputs);
    }
    T* sample = reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(target) + blockIdx.z * sample_bytes);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const int channel = swap ? 2 - c : c;
        const unsigned value = load(values + 256 * channel + levels.channel[c]);
        store(sample + (planar ? channel * size * size + place : 3 * place + channel), static_cast<T>(value));
    }
}

}  // namespace

// Of all kernels: pictures and plans, one for each z of the grid; windows, as many ints as the plans say; between, as
// many bytes. Blocks have 128 threads.

// Grid (ceil(size / 128), 2, pictures): columns, then rows.
extern "C" __global__ void __launch_bounds__(threads)
    resample_windows(const Picture* pictures, const Plan* plans, int* windows, int size) {
    const Picture picture = load(pictures + blockIdx.z);
    const Plan plan = load(plans + blockIdx.z);
    const Axis columns = columns_of(picture, size), rows = rows_of(picture, size);
    const Axis axis = blockIdx.y == 0 ? columns : rows;
    const Taps<int> taps =
        blockIdx.y == 0 ? columns_taps(windows, plan, columns) : rows_taps(windows, plan, columns, rows);
    const int output = blockIdx.x * blockDim.x + threadIdx.x;
    if (output >= axis.count) return;
    const double scale = static_cast<double>(axis.source) / axis.target, stretch = max(scale, 1.0);
    const double centre = (output + axis.skipped + 0.5) * scale, reach = (picture.path - cubic) * stretch;
    const int low = max(static_cast<int>(centre - reach + 0.5), 0);
    const int count = min(static_cast<int>(centre + reach + 0.5), axis.source) - low;
    double total = 0.0;
    for (int tap = 0; tap < count; ++tap) total += filter(picture.path, (low + tap - centre + 0.5) * (1.0 / stretch));
    if (total == 0.0) total = 1.0;
    store(taps.first + output, low);
    store(taps.count() + output, count);
    for (int tap = 0; tap < count; ++tap) {
        const double share = filter(picture.path, (low + tap - centre + 0.5) * (1.0 / stretch)) / total;
        const double weight = share * (1 << precision_bits);
        store(taps.weight(tap) + output, static_cast<int>(weight < 0.0 ? weight - 0.5 : weight + 0.5));
    }
}

// Grid (ceil(most pixels between / 128), 1, pictures).
extern "C" __global__ void __launch_bounds__(threads)
    resample_first(const Picture* pictures, const Plan* plans, const int* windows, unsigned char* between, int size) {
    const Picture picture = load(pictures + blockIdx.z);
    const Plan plan = load(plans + blockIdx.z);
    const Axis columns = columns_of(picture, size), rows = rows_of(picture, size);
    const int width = plan.rows_first ? plan.extent : columns.count;
    const int height = plan.rows_first ? rows.count : plan.extent;
    const long long place = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (place >= static_cast<long long>(width) * height) return;
    const int x = static_cast<int>(place % width), y = static_cast<int>(place / width);
    const Taps<const int> taps =
        plan.rows_first ? rows_taps(windows, plan, columns, rows) : columns_taps(windows, plan, columns);
    const int output = plan.rows_first ? y : x, first = load(taps.first + output);
    const int column = plan.rows_first ? plan.low + x : first, row = plan.rows_first ? first : plan.low + y;
    const unsigned char* at = reinterpret_cast<const unsigned char*>(picture.pixels) +
                              (picture.box_top + row) * picture.pitch + 3ll * (picture.box_left + column);
    const Levels levels = weighed(at, plan.rows_first ? picture.pitch : 3, load(taps.count() + output),
                                  taps.weight(0) + output, taps.outputs);
#pragma unroll
    for (int c = 0; c < 3; ++c)
        store(between + plan.between + 3 * place + c, static_cast<unsigned char>(levels.channel[c]));
}

// target: sample z begins at byte z * sample_bytes, which is a multiple of the item's size. values: what the levels
// become, bits of the output's dtype, 256 for each output channel. planar: NCHW. swap: output channel c is the
// picture's 2 - c. Grid (ceil(size * size / 128), 1, pictures).
extern "C" __global__ void __launch_bounds__(threads)
    resample_second_f32(const Picture* pictures, const Plan* plans, const int* windows, const unsigned char* between,
                        unsigned* target, long long sample_bytes, const unsigned* values, int size, int planar,
                        int swap) {
    second(pictures, plans, windows, between, target, sample_bytes, values, size, planar, swap);
}

extern "C" __global__ void __launch_bounds__(threads)
    resample_second_f16(const Picture* pictures, const Plan* plans, const int* windows, const unsigned char* between,
                        unsigned short* target, long long sample_bytes, const unsigned* values, int size, int planar,
                        int swap) {
    second(pictures, plans, windows, between, target, sample_bytes, values, size, planar, swap);
}

// uint8 and int8: the table knows which.
extern "C" __global__ void __launch_bounds__(threads)
    resample_second_u8(const Picture* pictures, const Plan* plans, const int* windows, const unsigned char* between,
                       unsigned char* target, long long sample_bytes, const unsigned* values, int size, int planar,
                       int swap) {
    second(pictures, plans, windows, between, target, sample_bytes, values, size, planar, swap);
}
