/* mlp_avx512.c: simd.h for sixteen lanes. The only translation unit that may use these instructions; select.c asks the CPU first. */
#if defined(__x86_64__)
#include "kernels/lane_avx512.h"
#define TILE_R    4
#define TILE_U    4
#define TILE_C    4
#define TILE_TALL 12
#define PEAK      neap_peak_avx512
#include "kernels/simd.h"

const neap_kernels neap_kernels_avx512 = {
    .abi = NEAP_KERNELS_ABI,
    .name = "avx512",
    .train = drive_train,
    .predict = drive_predict,
    .gather = gather_rows,
    .shuffle = perm_fill,
    .step = simd_step,
    .forward = simd_forward,
    .unary = ops_unary,
    .binary = ops_binary,
    .reduce = ops_reduce,
    .gemm = simd_gemm,
};
#endif
