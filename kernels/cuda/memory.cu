/* memory.cu: see memory.h. Blocks are kept in size classes, four to an octave, so at most a quarter of a block is spare. What the driver refuses is
   asked for once more after everything cached was given back to it. */
#include "kernels/cuda/memory.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gpu_state gpu;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[320];

/* ---- errors ---- */

int gpu_refuse(int code, const char *text) {
    pthread_mutex_lock(&lock);
    snprintf(last_error, sizeof last_error, "%s", text);
    pthread_mutex_unlock(&lock);
    return code;
}

int gpu_failed(cudaError_t e, const char *what, size_t wanted) {
    char text[320];
    neap_memory_use use;
    cudaGetLastError(); /* a failed allocation must not stick to the next call */
    if (e == cudaErrorMemoryAllocation) {
        gpu_memory(&use);
        snprintf(text, sizeof text, "%s: out of GPU memory: %zu bytes asked for, %zu of %zu free, %zu in use by neap", what, wanted, use.free, use.total, use.used);
        return gpu_refuse(NEAP_KERN_MEMORY, text);
    }
    snprintf(text, sizeof text, "%s: %s", what, cudaGetErrorString(e));
    return gpu_refuse(NEAP_KERN_IO, text);
}

const char *gpu_error(void) { return last_error; }

/* ---- blocks ---- */

#define CLASSES 192
#define SMALLEST 512

typedef struct block {
    void *p;
    size_t bytes;
    int size_class;
    struct block *next;
} block;

static block *idle[CLASSES];                         /* cached, by size class */
static block **busy;                                 /* handed out: open hash table by address */
static size_t busy_cap, busy_count, in_use, in_cache; /* in_*: bytes */

/* The class of a size, and the bytes of a block of that class. */
static int class_of(size_t bytes, size_t *whole) {
    size_t base = SMALLEST;
    int c = 0;
    while (base * 2 <= bytes) base *= 2, c += 4;
    for (int i = 0; i < 4; i++, c++) {
        *whole = base + base / 4 * (size_t)i;
        if (bytes <= *whole) return c;
    }
    *whole = base * 2;
    return c;
}

static size_t slot_of(const void *p) {
    size_t i = (size_t)(((uint64_t)(uintptr_t)p * 0x9E3779B97F4A7C15u) >> 20) & (busy_cap - 1);
    while (busy[i] && busy[i]->p != p) i = (i + 1) & (busy_cap - 1);
    return i;
}

static int busy_add(block *b) {
    if (2 * (busy_count + 1) > busy_cap) {
        size_t old_cap = busy_cap, cap = busy_cap ? busy_cap * 2 : 256;
        block **old = busy, **more = (block **)calloc(cap, sizeof *more);
        if (!more) return -1;
        busy = more, busy_cap = cap;
        for (size_t i = 0; i < old_cap; i++)
            if (old[i]) busy[slot_of(old[i]->p)] = old[i];
        free(old);
    }
    busy[slot_of(b->p)] = b;
    busy_count++;
    in_use += b->bytes;
    return 0;
}

/* Takes a block out of the table, closing the gap so that later ones of its chain are found. */
static block *busy_remove(void *p) {
    size_t i = busy_cap ? slot_of(p) : 0;
    block *b = busy_cap ? busy[i] : NULL;
    if (!b) return NULL;
    busy[i] = NULL, busy_count--, in_use -= b->bytes;
    for (size_t k = (i + 1) & (busy_cap - 1); busy[k]; k = (k + 1) & (busy_cap - 1)) {
        block *moved = busy[k];
        busy[k] = NULL;
        busy[slot_of(moved->p)] = moved;
    }
    return b;
}

static void trim(void) {
    cudaDeviceSynchronize();
    for (int c = 0; c < CLASSES; c++)
        for (block *b; (b = idle[c]);) {
            idle[c] = b->next;
            in_cache -= b->bytes;
            cudaFree(b->p);
            free(b);
        }
}

static cudaError_t take(size_t bytes, block **out) {
    size_t whole;
    int c = class_of(bytes, &whole);
    cudaError_t e = cudaSuccess;
    block *b = idle[c];
    if (b) {
        idle[c] = b->next;
        in_cache -= b->bytes;
    } else {
        b = (block *)calloc(1, sizeof *b);
        if (!b) return cudaErrorMemoryAllocation;
        e = cudaMalloc(&b->p, whole);
        if (e == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            trim();
            e = cudaMalloc(&b->p, whole);
        }
        if (e != cudaSuccess) return free(b), e;
        b->bytes = whole, b->size_class = c;
    }
    if (busy_add(b)) {
        cudaFree(b->p);
        free(b);
        return cudaErrorMemoryAllocation;
    }
    *out = b;
    return cudaSuccess;
}

int gpu_alloc(void **out, size_t bytes, cudaStream_t stream) {
    block *b = NULL;
    cudaEvent_t event;
    cudaSetDevice(gpu.device); /* a thread of its own may ask first */
    pthread_mutex_lock(&lock);
    cudaError_t e = take(bytes, &b);
    pthread_mutex_unlock(&lock);
    if (e == cudaSuccess && stream != gpu.stream) { /* the block's last user may still be at work in the tensors' stream */
        e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        if (e == cudaSuccess) {
            e = cudaEventRecord(event, gpu.stream);
            if (e == cudaSuccess) e = cudaStreamWaitEvent(stream, event, 0);
            cudaEventDestroy(event);
        }
    }
    if (e != cudaSuccess) {
        if (b) gpu_free(b->p);
        return gpu_failed(e, "GPU memory", bytes);
    }
#ifndef __CUDACC__
    cudaMemsetAsync(b->p, 0xFF, b->bytes, stream); /* NaN: nobody may rely on what was there */
#endif
    *out = b->p;
    return 0;
}

void gpu_free(void *p) {
    if (!p) return;
    pthread_mutex_lock(&lock);
    block *b = busy_remove(p);
    if (b) {
        b->next = idle[b->size_class];
        idle[b->size_class] = b;
        in_cache += b->bytes;
    }
    pthread_mutex_unlock(&lock);
}

void gpu_memory(neap_memory_use *use) {
    use->free = use->total = 0;
    cudaMemGetInfo(&use->free, &use->total);
    pthread_mutex_lock(&lock);
    use->used = in_use, use->cached = in_cache;
    pthread_mutex_unlock(&lock);
}

/* ---- staging ---- */

#define KEPT 4
static gpu_stage kept[KEPT]; /* pinning memory takes milliseconds: stages of ended calls wait here */
static int kept_count;

int gpu_stage_open(gpu_stage *s, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    memset(s, 0, sizeof *s);
    pthread_mutex_lock(&lock);
    if (kept_count) *s = kept[--kept_count];
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 2 && e == cudaSuccess && !s->ready[i]; i++) {
        e = cudaMallocHost((void **)&s->buffer[i], GPU_STAGE);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&s->ready[i], cudaEventDisableTiming);
    }
    s->stream = stream;
    return e == cudaSuccess ? 0 : gpu_failed(e, "pinned host memory", GPU_STAGE);
}

void gpu_stage_close(gpu_stage *s) {
    int keeps = 0;
    s->filled = 0, s->turn = 0;
    pthread_mutex_lock(&lock);
    if (s->ready[1] && kept_count < KEPT) kept[kept_count++] = *s, keeps = 1;
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 2 && !keeps; i++) {
        if (s->buffer[i]) cudaFreeHost(s->buffer[i]);
        if (s->ready[i]) cudaEventDestroy(s->ready[i]);
    }
    memset(s, 0, sizeof *s);
}

int gpu_stage_flush(gpu_stage *s) {
    if (!s->filled) return 0;
    cudaError_t e = cudaMemcpyAsync(s->to, s->buffer[s->turn], s->filled, cudaMemcpyHostToDevice, s->stream);
    if (e == cudaSuccess) e = cudaEventRecord(s->ready[s->turn], s->stream);
    s->turn ^= 1, s->filled = 0;
    if (e == cudaSuccess) e = cudaEventSynchronize(s->ready[s->turn]); /* the other buffer is free again */
    return e == cudaSuccess ? 0 : gpu_failed(e, "copy to the GPU", 0);
}

int gpu_put(gpu_stage *s, void *to, const void *from, size_t bytes) {
    const char *src = (const char *)from;
    for (char *dst = (char *)to; bytes > 0;) {
        int rc = s->filled && (s->to + s->filled != dst || s->filled == GPU_STAGE) ? gpu_stage_flush(s) : 0;
        if (rc) return rc;
        size_t room = GPU_STAGE - s->filled, n = bytes < room ? bytes : room;
        if (!s->filled) s->to = dst;
        memcpy(s->buffer[s->turn] + s->filled, src, n);
        s->filled += n, dst += n, src += n, bytes -= n;
    }
    return 0;
}

int gpu_get(gpu_stage *s, void *to, const void *from, size_t bytes) {
    int rc = gpu_stage_flush(s);
    char *dst = (char *)to, *late = NULL;
    const char *src = (const char *)from;
    size_t late_bytes = 0;
    cudaError_t e = cudaSuccess;
    while (!rc && (bytes > 0 || late)) { /* one buffer fills while the other is emptied */
        size_t n = bytes < GPU_STAGE ? bytes : GPU_STAGE;
        int mine = s->turn, other = s->turn ^ 1;
        if (n) {
            e = cudaMemcpyAsync(s->buffer[mine], src, n, cudaMemcpyDeviceToHost, s->stream);
            if (e == cudaSuccess) e = cudaEventRecord(s->ready[mine], s->stream);
        }
        if (e == cudaSuccess && late) {
            e = cudaEventSynchronize(s->ready[other]);
            if (e == cudaSuccess) memcpy(late, s->buffer[other], late_bytes);
        }
        if (e != cudaSuccess) rc = gpu_failed(e, "copy from the GPU", 0);
        late = n ? dst : NULL, late_bytes = n;
        dst += n, src += n, bytes -= n;
        s->turn = other;
    }
    return rc;
}

/* ---- start ---- */

int gpu_start(void) {
    int n = 0, optin = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n == 0) e = cudaErrorNoDevice;
    if (e == cudaSuccess) e = cudaSetDevice(gpu.device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu.device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&gpu.processors, cudaDevAttrMultiProcessorCount, gpu.device);
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking);
    if (e != cudaSuccess) return gpu_failed(e, "the GPU does not start", 0);
    static struct cudaDeviceProp about;
    if (cudaGetDeviceProperties(&about, gpu.device) == cudaSuccess) snprintf(gpu.model, sizeof gpu.model, "%s", about.name);
    gpu.shared_limit = (size_t)optin;
    return 0;
}
