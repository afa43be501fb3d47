/* gpu.h: what the device code may use, in two meanings: CUDA's under nvcc, and that of the fiber shim (spec/c/shim.h), which runs
   the same sources as plain C on the CPU. The code between stays in the subset that C and CUDA C++ share.

   Arithmetic: explicit round-to-nearest operations, so that nothing is contracted or approximated whatever the flags. */
#ifndef NEAP_GPU_H
#define NEAP_GPU_H
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define GPU_FN __device__ static __forceinline__
/* A kernel takes one argument, by value; at most t threads a block, and registers for b blocks on a multiprocessor. Launched by GPU_LAUNCH. */
#define GPU_KERNEL(name, type, t, b) extern "C" __global__ void __launch_bounds__(t, b) name(const type a)
#define GPU_UNROLL                   _Pragma("unroll")
#define GPU_UNROLL8                  _Pragma("unroll 8")
#define gpu_thread()                 ((int)threadIdx.x)
#define gpu_threads()                ((int)blockDim.x)
#define gpu_block()                  ((int)blockIdx.x)
#define gpu_blocks()                 ((int)gridDim.x)
#define gpu_sync(id)                 __syncthreads()
extern __shared__ float gpu_shared_memory[];
#define gpu_shared() gpu_shared_memory

typedef float V;
typedef int M;
#define LANE           1
#define LANE_FN        __device__ static __forceinline__
#define LANE_SCALAR_FN __device__ static inline
LANE_FN V v_set1(float a) { return a; }
LANE_FN V v_load(const float *p) { return *p; }
LANE_FN void v_store(float *p, V a) { *p = a; }
LANE_FN V v_add(V a, V b) { return __fadd_rn(a, b); }
LANE_FN V v_sub(V a, V b) { return __fsub_rn(a, b); }
LANE_FN V v_mul(V a, V b) { return __fmul_rn(a, b); }
LANE_FN V v_div(V a, V b) { return __fdiv_rn(a, b); }
LANE_FN V v_sqrt(V a) { return __fsqrt_rn(a); }
LANE_FN V v_fma(V a, V b, V c) { return __fmaf_rn(a, b, c); }
LANE_FN V v_nfma(V a, V b, V c) { return __fmaf_rn(-a, b, c); }
LANE_FN M v_lt(V a, V b) { return a < b; }
LANE_FN V v_sel(M m, V a, V b) { return m ? a : b; }
LANE_FN V v_max0(V a) { return 0.0f > a ? 0.0f : a; }
LANE_FN V v_abs(V a) { return fabsf(a); }
LANE_FN V v_copysign(V a, V sign) { return copysignf(a, sign); }
LANE_FN V v_pow2(V t) { return __uint_as_float((__float_as_uint(t) << 23) + 0x3F800000u); }
LANE_SCALAR_FN double d_add(double a, double b) { return __dadd_rn(a, b); }
LANE_SCALAR_FN double d_mul(double a, double b) { return __dmul_rn(a, b); }
LANE_SCALAR_FN double d_sub(double a, double b) { return __dsub_rn(a, b); }
LANE_SCALAR_FN double d_div(double a, double b) { return __ddiv_rn(a, b); }
LANE_SCALAR_FN double d_sqrt(double a) { return __dsqrt_rn(a); }
LANE_SCALAR_FN double d_fma(double a, double b, double c) { return __fma_rn(a, b, c); }
#define NEAP_LANE_H
#else
#include "kernels/lane_scalar.h"
#include "spec/c/shim.h"
#define GPU_FN                       static inline __attribute__((always_inline, unused))
#define GPU_KERNEL(name, type, t, b) GPU_KERNEL_(name, type)
#define GPU_KERNEL_(name, type)                                                                                                                      \
    static void name(const type a);                                                                                                                  \
    static __attribute__((unused)) void name##_shim(void *p) { name(*(const type *)p); }                                                             \
    static void name(const type a)
#define GPU_UNROLL
#define GPU_UNROLL8
#define gpu_thread()  shim_thread
#define gpu_threads() shim_threads
#define gpu_block()   shim_block
#define gpu_blocks()  shim_blocks
#define gpu_sync(id)  shim_sync(id)
#define gpu_shared()  shim_shared
LANE_SCALAR_FN double d_add(double a, double b) { return a + b; }
LANE_SCALAR_FN double d_fma(double a, double b, double c) { return fma(a, b, c); }
#endif
#endif
