/* neap_cuda.cu: the CUDA backend's one entry: a shared object of its own with two function tables, jobs of models (kernels.h) and tensors (device.h).
   cudart is linked statically; all symbols but neap_cuda_open are hidden. */
#include "kernels/cuda/entry.h"
#include "kernels/cuda/memory.h"
#include <stdio.h>
#include <string.h>

/* Tensors' staging; under one lock, as copies of several threads may meet. */
#include <pthread.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gpu_stage stage;

static int device_alloc(void **out, size_t bytes) { return gpu_alloc(out, bytes ? bytes : 1, gpu.stream); }

static int device_zero(void *p, size_t bytes) {
    cudaError_t e = cudaMemsetAsync(p, 0, bytes, gpu.stream);
    return e == cudaSuccess ? 0 : gpu_failed(e, "clearing GPU memory", 0);
}

static int device_put(void *to, const void *from, size_t bytes) {
    pthread_mutex_lock(&lock);
    int rc = stage.stream ? 0 : gpu_stage_open(&stage, gpu.stream);
    if (!rc) rc = gpu_put(&stage, to, from, bytes);
    if (!rc) rc = gpu_stage_flush(&stage);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int device_get(void *to, const void *from, size_t bytes) {
    pthread_mutex_lock(&lock);
    int rc = stage.stream ? 0 : gpu_stage_open(&stage, gpu.stream);
    if (!rc) rc = gpu_get(&stage, to, from, bytes);
    pthread_mutex_unlock(&lock);
    return rc;
}

static const char *device_model(void) { return gpu.model; }

static const neap_kernels jobs = {NEAP_KERNELS_ABI, "cuda", gpu_train, gpu_predict, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

static const neap_device tensors = {NEAP_DEVICE_ABI, "cuda", device_alloc, gpu_free, device_zero, device_put, device_get, gpu_map, gpu_reduce, gpu_gemm,
                                    gpu_gemm_name, gpu_memory, gpu_error, device_model};

GPU_EXPORT int neap_cuda_open(uint32_t abi, neap_cuda_entry *entry) {
    char text[160];
    entry->error = gpu_error;
    if (abi != NEAP_CUDA_ABI) {
        snprintf(text, sizeof text, "neap_cuda.so has interface %d, neap needs %u: build both from one source", NEAP_CUDA_ABI, abi);
        return gpu_refuse(NEAP_KERN_UNSUPPORTED, text);
    }
    int rc = gpu_start();
    if (rc) return rc;
    entry->kernels = &jobs;
    entry->device = &tensors;
    return 0;
}
