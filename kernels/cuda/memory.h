/* memory.h: device memory and the way to and from it, for all of the backend. One allocator serves tensors and jobs: freed blocks are kept by size
   and handed out again in stream order, without asking the driver, which would wait for the whole GPU. Thread-safe. */
#ifndef NEAP_CUDA_MEMORY_H
#define NEAP_CUDA_MEMORY_H
#include <stddef.h>
#include "kernels/cuda/runtime.h"
#include "kernels/device.h"
#include "kernels/kernels.h"

typedef struct gpu_state {
    int device, processors;
    size_t shared_limit; /* bytes of shared memory that a block may ask for */
    cudaStream_t stream; /* tensors' */
    char model[256];
} gpu_state;

extern gpu_state gpu;

/* Chooses and starts the GPU. 0, or a code with the sentence in gpu_error. */
int gpu_start(void);

/* Keeps the sentence for gpu_error and returns the NEAP_KERN_* code. `wanted`: bytes, for a failed allocation. */
int gpu_failed(cudaError_t e, const char *what, size_t wanted);
int gpu_refuse(int code, const char *text); /* the same, for what is not CUDA's failure */
const char *gpu_error(void);

/* Memory for work in `stream`; contents undefined (the shim: NaN). The work of the block's last user comes first, whatever its stream. */
int gpu_alloc(void **out, size_t bytes, cudaStream_t stream);
/* Back to the cache. The block's last work must lie in the tensors' stream, or be over. NULL is fine. */
void gpu_free(void *p);
void gpu_memory(neap_memory_use *use);

/* A pair of pinned buffers through which host memory travels: copying into one overlaps the transfer of the other. */
typedef struct gpu_stage {
    cudaStream_t stream;
    char *buffer[2];
    cudaEvent_t ready[2];
    int turn;
    size_t filled; /* of buffer[turn], not yet sent */
    char *to;      /* where those bytes go */
} gpu_stage;

#define GPU_STAGE ((size_t)8 << 20)

int gpu_stage_open(gpu_stage *s, cudaStream_t stream);
void gpu_stage_close(gpu_stage *s);
/* Bytes that follow the last ones in device memory travel with them; gpu_stage_flush sends what is left. */
int gpu_put(gpu_stage *s, void *to, const void *from, size_t bytes);
int gpu_stage_flush(gpu_stage *s);
/* Waits; the host memory is filled when it returns. */
int gpu_get(gpu_stage *s, void *to, const void *from, size_t bytes);

/* ---- the parts of the backend ---- */
int gpu_train(const neap_kernels *k, neap_train_job *jobs, size_t count, int threads, const neap_progress *progress);
int gpu_predict(const neap_kernels *k, neap_predict_job *jobs, size_t count, int threads, const neap_progress *progress);
int gpu_map(const neap_map *m);
int gpu_reduce(const neap_reduction *r);
int gpu_gemm(const neap_product *p);
const char *gpu_gemm_name(void);
#endif
