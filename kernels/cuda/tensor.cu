/* tensor.cu: launches the tensor kernels in the tensors' stream. Matrix products go to cuBLAS where libcublas opens (it is no link dependency) and the
   operands lie as it wants them, in exact float32; else to the kernel of our own. */
#include "kernels/cuda/memory.h"
#include "kernels/cuda/tensor.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Enough blocks to fill the chip, no more than the elements need. */
static int64_t blocks_for(int64_t elements) {
    int64_t n = (elements + 255) / 256, most = 16 * (int64_t)gpu.processors;
    return n < 1 ? 1 : n < most ? n : most;
}

static int launched(const char *what) {
    cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? 0 : gpu_failed(e, what, 0);
}

int gpu_map(const neap_map *m) {
    if (m->count == 0) return 0;
    int fast = m->out.dtype == NEAP_F32 && (m->a.dtype == NEAP_F32 || !m->a.data) &&
               (m->kind == NEAP_MAP_COPY || m->kind == NEAP_MAP_UNARY || (m->kind == NEAP_MAP_BINARY && (m->b.dtype == NEAP_F32 || !m->b.data)));
    cudaSetDevice(gpu.device);
    if (fast) GPU_LAUNCH(neap_tensor_float, blocks_for(m->count), 256, 0, gpu.stream, *m);
    else GPU_LAUNCH(neap_tensor_any, blocks_for(m->count), 256, 0, gpu.stream, *m);
    return launched("tensor arithmetic");
}

int gpu_reduce(const neap_reduction *r) {
    tensor_reducing a;
    size_t shared = 256 * sizeof(tensor_part);
    int64_t most = 8 * (int64_t)gpu.processors;
    a.r = *r, a.pieces = 1, a.parts = NULL;
    if (r->count == 0) return 0;
    cudaSetDevice(gpu.device);
    if (r->n <= 64) {
        GPU_LAUNCH(neap_tensor_reduce_short, blocks_for(r->count), 256, 0, gpu.stream, a);
        return launched("reduction");
    }
    if (r->count < most) { /* too few blocks to fill the chip: cut long ones */
        a.pieces = most / r->count < r->n / 4096 ? most / r->count : r->n / 4096;
        if (a.pieces < 1) a.pieces = 1;
    }
    if (a.pieces > 1) {
        int rc = gpu_alloc((void **)&a.parts, (size_t)(r->count * a.pieces) * sizeof *a.parts, gpu.stream);
        if (rc) return rc;
    }
    int64_t jobs = r->count * a.pieces;
    GPU_LAUNCH(neap_tensor_reduce_long, jobs < 65536 ? jobs : 65536, 256, shared, gpu.stream, a);
    if (a.pieces > 1) GPU_LAUNCH(neap_tensor_reduce_join, r->count < 65536 ? r->count : 65536, 256, shared, gpu.stream, a);
    gpu_free(a.parts);
    return launched("reduction");
}

/* ---- cuBLAS ---- */

typedef int (*blas_create_fn)(void **handle);
typedef int (*blas_set_fn)(void *handle, cudaStream_t stream);
typedef int (*blas_sgemm_fn)(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                             const float *beta, float *c, int ldc);

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t blas_lock = PTHREAD_MUTEX_INITIALIZER;
static void *blas_handle;
static blas_sgemm_fn blas_sgemm;

static void blas_open(void) {
#ifdef __CUDACC__ /* under the shim our own kernel is what is tested */
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so", "/usr/local/cuda/lib64/libcublas.so"};
    const char *wish = getenv("NEAP_CUBLAS"); /* a path, or "off" */
    void *so = NULL;
    if (wish && !strcmp(wish, "off")) return;
    if (wish && *wish) so = dlopen(wish, RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; !so && i < 4; i++) so = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!so) return;
    blas_create_fn create = (blas_create_fn)dlsym(so, "cublasCreate_v2");
    blas_set_fn set_stream = (blas_set_fn)dlsym(so, "cublasSetStream_v2");
    blas_sgemm = (blas_sgemm_fn)dlsym(so, "cublasSgemm_v2");
    if (!create || !set_stream || !blas_sgemm || create(&blas_handle) || set_stream(blas_handle, gpu.stream)) blas_sgemm = NULL;
#endif
}

const char *gpu_gemm_name(void) {
    pthread_once(&blas_once, blas_open);
    return blas_sgemm ? "cublas" : "neap";
}

/* Row-major with unit steps along rows or along columns: 0 or 1 for cuBLAS (its column-major view of the same memory); -1: it cannot. */
static int blas_layout(int64_t row, int64_t col, int64_t rows, int64_t cols, int64_t *ld) {
    if (col == 1 && row >= cols && row <= INT32_MAX) return *ld = row, 0;
    if (row == 1 && col >= rows && col <= INT32_MAX) return *ld = col, 1;
    return -1;
}

/* c' = b' a', all column-major. Returns 1 if cuBLAS took it. */
static int by_blas(const neap_product *p) {
    int64_t lda = 0, ldb = 0;
    int ta = blas_layout(p->a_row, p->a_col, p->m, p->k, &lda), tb = blas_layout(p->b_row, p->b_col, p->k, p->n, &ldb), rc;
    float one = 1.0f, zero = 0.0f;
    if (ta < 0 || tb < 0 || p->k == 0 || !strcmp(gpu_gemm_name(), "neap")) return 0;
    pthread_mutex_lock(&blas_lock);
    rc = blas_sgemm(blas_handle, tb, ta, (int)p->n, (int)p->m, (int)p->k, &one, (const float *)p->b, (int)ldb, (const float *)p->a, (int)lda, &zero,
                    (float *)p->c, (int)p->n);
    pthread_mutex_unlock(&blas_lock);
    return rc == 0;
}

int gpu_gemm(const neap_product *p) {
    int64_t tiles = (p->m + MM_SIDE - 1) / MM_SIDE * ((p->n + MM_SIDE - 1) / MM_SIDE);
    if (p->m == 0 || p->n == 0) return 0;
    cudaSetDevice(gpu.device);
    if (p->a_dtype == NEAP_F32 && p->b_dtype == NEAP_F32 && p->out_dtype == NEAP_F32 && tiles <= INT32_MAX) {
        if (by_blas(p)) return 0;
        GPU_LAUNCH(neap_tensor_gemm, tiles, 256, 2 * MM_DEPTH * MM_PITCH * sizeof(float), gpu.stream, *p);
    } else {
        GPU_LAUNCH(neap_tensor_gemm_any, blocks_for(p->m * p->n), 256, 0, gpu.stream, *p);
    }
    return launched("matrix product");
}
