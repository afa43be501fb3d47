/* shim_cuda.c: see shim_cuda.h. The arena grows from the bottom; freed blocks wait for a request of their size. One lock around everything. */
#include "spec/c/shim_cuda.h"
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#define ARENA ((size_t)4 << 30) /* addresses; memory comes when it is touched */
#define MOST  4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t owner;
static int depth;
static char *arena;
static size_t top, used, limit = (size_t)64 << 20;

static struct {
    void *p;
    size_t bytes;
    int busy;
} blocks[MOST];
static int count;

void shim_enter(void) {
    if (depth && pthread_equal(owner, pthread_self())) {
        depth++;
        return;
    }
    pthread_mutex_lock(&lock);
    owner = pthread_self(), depth = 1;
    if (!arena) {
        const char *text = getenv("NEAP_SHIM_MEMORY");
        if (text) limit = strtoull(text, NULL, 10);
        arena = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) abort();
    }
    if (top) mprotect(arena, top, PROT_READ | PROT_WRITE);
}

void shim_leave(void) {
    if (--depth) return;
    if (top) mprotect(arena, top, PROT_NONE);
    pthread_mutex_unlock(&lock);
}

int shim_order(void) {
    static int launches;
    return launches++ % 3;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    cudaError_t e = cudaErrorMemoryAllocation;
    bytes = (bytes + 4095) / 4096 * 4096;
    shim_enter();
    int at = 0;
    while (at < count && (blocks[at].busy || blocks[at].bytes != bytes)) at++;
    if (used + bytes <= limit && (at < count || (count < MOST && top + bytes <= ARENA))) {
        if (at == count) {
            blocks[count].p = arena + top, blocks[count].bytes = bytes, count++;
            mprotect(arena + top, bytes, PROT_READ | PROT_WRITE);
            top += bytes;
        }
        blocks[at].busy = 1;
        used += bytes;
        *p = blocks[at].p;
        memset(*p, 0xFF, bytes);
        e = cudaSuccess;
    }
    shim_leave();
    return e;
}

cudaError_t cudaFree(void *p) {
    shim_enter();
    int at = 0;
    while (at < count && (blocks[at].p != p || !blocks[at].busy)) at++;
    if (p && at == count) abort(); /* freed twice, or never ours */
    if (p) blocks[at].busy = 0, used -= blocks[at].bytes;
    shim_leave();
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes) { return (*p = malloc(bytes)) ? cudaSuccess : cudaErrorMemoryAllocation; }

cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}

static int inside(const void *p, size_t bytes) { return (const char *)p >= arena && (const char *)p + bytes <= arena + top; }

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t stream) {
    shim_enter();
    if (bytes && ((kind != cudaMemcpyHostToDevice && !inside(from, bytes)) || (kind != cudaMemcpyDeviceToHost && !inside(to, bytes)))) abort();
    memcpy(to, from, bytes);
    shim_leave();
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    shim_enter();
    if (bytes && !inside(p, bytes)) abort();
    memset(p, value, bytes);
    shim_leave();
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    shim_enter();
    *free_bytes = limit - used, *total = limit;
    shim_leave();
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : 227 << 10;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    snprintf(p->name, sizeof p->name, "shim (no GPU)");
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorNoDevice ? "no device" : "shim error"; }
