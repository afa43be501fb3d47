/* shim_cuda.h: a stand-in for the CUDA runtime, so that the whole backend (kernels/cuda, host side included) runs without a GPU. Device memory is an
   arena that only copies and launches may touch: any other access ends the program. Fresh memory is NaN, its size is NEAP_SHIM_MEMORY bytes, and
   launches take turns with forward, reverse and random thread order. Everything is over when a call returns, so streams and events are empty. */
#ifndef NEAP_SHIM_CUDA_H
#define NEAP_SHIM_CUDA_H
#include "spec/c/shim.h"

typedef enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNoDevice = 100 } cudaError_t;
typedef struct shim_stream *cudaStream_t;
typedef struct shim_event *cudaEvent_t;
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
struct cudaDeviceProp {
    char name[256];
};

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
const char *cudaGetErrorString(cudaError_t e);

static inline cudaError_t shim_nothing(void) { return cudaSuccess; }
#define cudaSetDevice(d)                shim_nothing()
#define cudaGetLastError()              shim_nothing()
#define cudaDeviceSynchronize()         shim_nothing()
#define cudaStreamCreateWithFlags(s, f) (*(s) = (cudaStream_t)(s), shim_nothing())
#define cudaStreamDestroy(s)            shim_nothing()
#define cudaStreamSynchronize(s)        shim_nothing()
#define cudaStreamWaitEvent(s, e, f)    ((void)(e), shim_nothing())
#define cudaEventCreateWithFlags(e, f)  (*(e) = (cudaEvent_t)(e), shim_nothing())
#define cudaEventDestroy(e)             ((void)(e), shim_nothing())
#define cudaEventRecord(e, s)           ((void)(e), shim_nothing())
#define cudaEventSynchronize(e)         ((void)(e), shim_nothing())
#define cudaFuncSetAttribute(f, a, v)   ((void)(v), shim_nothing())

/* Device memory may be touched between these two; they nest, and keep other threads out. */
void shim_enter(void);
void shim_leave(void);
int shim_order(void); /* of the next launch */

#define GPU_LAUNCH(kernel, blocks, threads, shared, stream, arg) shim_launch(kernel##_shim, (void *)&(arg), (int)(blocks), (int)(threads), shared)

static inline __attribute__((unused)) void shim_launch(void (*body)(void *), void *arg, int blocks, int threads, size_t shared) {
    shim_enter();
    shim_blocks = blocks;
    int order = shim_order();
    for (int b = 0; b < blocks; b++) shim_run_block(body, arg, order == SHIM_REVERSE ? blocks - 1 - b : b, threads, shared, order);
    shim_leave();
}
#endif
