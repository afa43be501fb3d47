/* runtime.h: the host side's view of CUDA in two meanings, as gpu.h is the device code's: the CUDA runtime under nvcc, or the stand-in of
   spec/c/shim_cuda.h, where device memory is host memory that nobody else may touch and a launch runs the threads as fibers. */
#ifndef NEAP_RUNTIME_H
#define NEAP_RUNTIME_H
#ifdef __CUDACC__
#include <cuda_runtime.h>
#define restrict __restrict__
#define GPU_LAUNCH(kernel, blocks, threads, shared, stream, ...) kernel<<<(unsigned)(blocks), (unsigned)(threads), (shared), (stream)>>>(__VA_ARGS__)
#define GPU_EXPORT                                               extern "C" __attribute__((visibility("default")))
#else
#include "spec/c/shim_cuda.h"
#define GPU_EXPORT __attribute__((visibility("default")))
#endif
#endif
