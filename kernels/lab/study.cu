// The teaching kernels of the CUDA literature, for `explain`: the hot path uses none of them.
//
// Copies. The maths: out[i] = in[i]. Bytes moved: 8 per float32, one read and one write; roofline: memory alone. Both
// kernels give a thread the same number of values, `each`. Linear storage gives it `each` values that follow each other,
// as a CPU's threads would divide an array: the 32 lanes of a warp then ask for addresses 4 * each bytes apart, up to
// one sector of 32 bytes per value (`each` of 8 or more), 8 times what is wanted. Coalesced gives neighbouring values to
// neighbouring threads: 32 lanes ask for 128 bytes in a row, 4 sectors.
//
// Matrix product. The maths: c[m][n] = sum over k of a[m][k] * b[k][n], added in the order of k, in float32. 2 m n k
// operations; at the least (m k + k n + m n) * 4 bytes. Naive: each thread reads a row of a and a column of b from global
// memory, 8 bytes for 2 operations. Tiled: a block stages 16 x 16 of each in shared memory, each value is then used 16
// times: 1/16 of the reads. Rooflines on an H200 (4.3 TB/s, 67 TFLOP/s float32 with fused multiply-add, which the kernels
// do without, so half of it): 8 bytes for 2 operations would be 1.1 TFLOP/s if each read went to memory, 17 TFLOP/s
// tiled; a square product of 4096 at the least bytes is bound by arithmetic. Both ways add the same values in the same
// order, so the results are equal bit for bit.
#include "memory.cuh"

extern "C" __global__ void copy_linear_f32(const float* in, float* out, int count, int each) {
    const long long first = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * each;
    for (int i = 0; i < each; ++i)
        if (first + i < count) store(out + first + i, load(in + first + i));
}

extern "C" __global__ void copy_coalesced_f32(const float* in, float* out, int count, int each) {
    const long long first = static_cast<long long>(blockIdx.x) * blockDim.x * each + threadIdx.x;
    for (int i = 0; i < each; ++i) {
        const long long at = first + static_cast<long long>(i) * blockDim.x;
        if (at < count) store(out + at, load(in + at));
    }
}

constexpr int side = 16;  // of a tile, and of a block

extern "C" __global__ void matmul_naive_f32(const float* a, const float* b, float* c, int m, int n, int k) {
    const int row = blockIdx.y * side + threadIdx.y, column = blockIdx.x * side + threadIdx.x;
    if (row >= m || column >= n) return;
    float sum = 0;
    for (int i = 0; i < k; ++i)
        sum += load(a + static_cast<long long>(row) * k + i) * load(b + static_cast<long long>(i) * n + column);
    store(c + static_cast<long long>(row) * n + column, sum);
}

extern "C" __global__ void matmul_tiled_f32(const float* a, const float* b, float* c, int m, int n, int k) {
    __shared__ float tile_a[side][side], tile_b[side][side];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * side + y, column = blockIdx.x * side + x;
    float sum = 0;
    for (int first = 0; first < k; first += side) {
        const bool in_a = row < m && first + x < k, in_b = first + y < k && column < n;
        store_shared(&tile_a[y][x], in_a ? load(a + static_cast<long long>(row) * k + first + x) : 0);
        store_shared(&tile_b[y][x], in_b ? load(b + static_cast<long long>(first + y) * n + column) : 0);
        __syncthreads();
        const int here = min(side, k - first);
        for (int i = 0; i < here; ++i) sum += load_shared(&tile_a[y][i]) * load_shared(&tile_b[i][x]);
        __syncthreads();  // before the next pass writes what others may still read
    }
    if (row < m && column < n) store(c + static_cast<long long>(row) * n + column, sum);
}
