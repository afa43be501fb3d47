/* neap_cuda.cu: the CUDA backend as a shared object of its own: whole training and scoring jobs, host pointers in, host pointers out. Series travel
   once a call through pinned staging buffers into stream-ordered memory (the device's pool keeps freed blocks: a caching allocator); windows are formed
   on the device. A call launches a few epochs at a time, so that it can be cancelled between launches.
   Only `train` and `predict` of the table are filled. cudart is linked statically; all symbols but neap_cuda_open are hidden. */
#include <cuda_runtime.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define restrict __restrict__
#include "kernels/cuda/fleet.h"

static char last_error[256] = "";
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static int device = 0, processors = 1, pooled = 0;
static size_t shared_limit = 48 << 10;

/* Keeps the sentence for neap_cuda_error; the code for the caller. */
static int failed(cudaError_t e, const char *what, size_t wanted) {
    size_t room = 0, total = 0;
    if (e == cudaErrorMemoryAllocation) cudaMemGetInfo(&room, &total);
    cudaGetLastError(); /* a failed allocation must not stick to the next call */
    pthread_mutex_lock(&error_lock);
    if (e == cudaErrorMemoryAllocation)
        snprintf(last_error, sizeof last_error, "%s: out of GPU memory: %zu bytes asked for, %zu of %zu free", what, wanted, room, total);
    else snprintf(last_error, sizeof last_error, "%s: %s", what, cudaGetErrorString(e));
    pthread_mutex_unlock(&error_lock);
    return e == cudaErrorMemoryAllocation ? NEAP_KERN_MEMORY : NEAP_KERN_IO;
}

/* ---- one call's device memory and copies ---- */

#define STAGE (8u << 20)

typedef struct upload { /* an array that went up, by its host address: series shared by many jobs travel once */
    const void *host;
    size_t bytes;
    void *dev;
} upload;

typedef struct call {
    cudaStream_t stream;
    char *stage[2];
    cudaEvent_t free_again[2];
    int turn;
    void **blocks; /* to free at the end */
    size_t count, cap;
    upload *seen; /* open addressing, power of two */
    size_t seen_cap, seen_count;
    neap_plan *host_plans; /* distinct networks */
    const neap_net **nets;
    neap_plan **plans; /* on the device */
    int plan_count;
    int rc;
} call;

#define TRY(c, expr, what)                                                                                             \
    do {                                                                                                               \
        cudaError_t e_ = (c)->rc ? cudaSuccess : (expr);                                                               \
        if (e_ != cudaSuccess) (c)->rc = failed(e_, what, 0);                                                          \
    } while (0)

static void call_open(call *c) {
    memset(c, 0, sizeof *c);
    TRY(c, cudaSetDevice(device), "choosing the GPU");
    TRY(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "stream");
    for (int i = 0; i < 2; i++) {
        TRY(c, cudaMallocHost((void **)&c->stage[i], STAGE), "staging memory");
        TRY(c, cudaEventCreateWithFlags(&c->free_again[i], cudaEventDisableTiming), "event");
    }
}

static void call_close(call *c) {
    if (c->stream) cudaStreamSynchronize(c->stream);
    for (size_t i = 0; i < c->count; i++) {
        if (pooled) cudaFreeAsync(c->blocks[i], c->stream);
        else cudaFree(c->blocks[i]);
    }
    if (c->stream) cudaStreamSynchronize(c->stream);
    for (int i = 0; i < 2; i++) {
        if (c->stage[i]) cudaFreeHost(c->stage[i]);
        if (c->free_again[i]) cudaEventDestroy(c->free_again[i]);
    }
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c->blocks), free(c->seen), free(c->host_plans), free(c->nets), free(c->plans);
}

/* Device memory that lives until call_close; NULL after a failure (c->rc says which). */
static void *take(call *c, size_t bytes) {
    void *p = NULL;
    if (c->rc) return NULL;
    if (c->count == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 256;
        void **more = (void **)realloc(c->blocks, cap * sizeof *more);
        if (!more) return c->rc = NEAP_KERN_MEMORY, (void *)NULL;
        c->blocks = more, c->cap = cap;
    }
    bytes = bytes ? bytes : 4;
    cudaError_t e = pooled ? cudaMallocAsync(&p, bytes, c->stream) : cudaMalloc(&p, bytes);
    if (e != cudaSuccess) return c->rc = failed(e, "GPU memory", bytes), (void *)NULL;
    return c->blocks[c->count++] = p;
}

/* Host to device through the staging buffers: the source may change or go as soon as this returns. */
static void put(call *c, void *to, const void *from, size_t bytes) {
    const char *src = (const char *)from;
    for (char *dst = (char *)to; bytes > 0 && !c->rc;) {
        size_t n = bytes < STAGE ? bytes : STAGE;
        int s = c->turn ^= 1;
        TRY(c, cudaEventSynchronize(c->free_again[s]), "copy to the GPU");
        if (c->rc) return;
        memcpy(c->stage[s], src, n);
        TRY(c, cudaMemcpyAsync(dst, c->stage[s], n, cudaMemcpyHostToDevice, c->stream), "copy to the GPU");
        TRY(c, cudaEventRecord(c->free_again[s], c->stream), "copy to the GPU");
        dst += n, src += n, bytes -= n;
    }
}

static void get(call *c, void *to, const void *from, size_t bytes) {
    if (bytes) TRY(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, c->stream), "copy from the GPU");
}

static upload *seen_at(upload *table, size_t cap, const void *host, size_t bytes) {
    size_t i = (size_t)(((uint64_t)(uintptr_t)host * 0x9E3779B97F4A7C15u) >> 20) & (cap - 1);
    while (table[i].host && (table[i].host != host || table[i].bytes != bytes)) i = (i + 1) & (cap - 1);
    return &table[i];
}

/* The device copy of a read-only array; NULL stays NULL. */
static const void *share(call *c, const void *host, size_t bytes) {
    if (!host || c->rc) return NULL;
    if (2 * (c->seen_count + 1) > c->seen_cap) {
        size_t cap = c->seen_cap ? c->seen_cap * 2 : 64;
        upload *more = (upload *)calloc(cap, sizeof *more);
        if (!more) return c->rc = NEAP_KERN_MEMORY, (const void *)NULL;
        for (size_t i = 0; i < c->seen_cap; i++)
            if (c->seen[i].host) *seen_at(more, cap, c->seen[i].host, c->seen[i].bytes) = c->seen[i];
        free(c->seen);
        c->seen = more, c->seen_cap = cap;
    }
    upload *u = seen_at(c->seen, c->seen_cap, host, bytes);
    if (u->host) return u->dev;
    void *dev = take(c, bytes);
    put(c, dev, host, bytes);
    if (c->rc) return NULL;
    *u = (upload){host, bytes, dev};
    c->seen_count++;
    return dev;
}

/* A data set with device pointers. Rows are sent as they lie, stride and all. */
static neap_data send(call *c, const neap_net *net, const neap_data *d) {
    neap_data r = *d;
    if (d->n < 1) return r;
    if (d->x) {
        r.x = (const float *)share(c, d->x, ((size_t)(d->n - 1) * d->ldx + net->in) * sizeof(float));
        r.y = (const float *)share(c, d->y, ((size_t)(d->n - 1) * d->ldy + net->out) * sizeof(float));
        return r;
    }
    r.series = (const float *)share(c, d->series, (size_t)d->length * sizeof(float));
    r.target = (const float *)share(c, d->target, (size_t)d->length * sizeof(float));
    r.starts = (const int64_t *)share(c, d->starts, (size_t)d->n * sizeof(int64_t));
    if (d->extras) r.extra = (const float *)share(c, d->extra, ((size_t)(d->length - 1) * d->ldextra + d->extras) * sizeof(float));
    return r;
}

/* Number of the network's plan, made and sent at first sight; -1 after a failure. */
static int plan_of(call *c, const neap_net *net) {
    for (int i = c->plan_count - 1; i >= 0; i--)
        if (c->nets[i] == net || !memcmp(&c->host_plans[i].net, net, sizeof *net)) return i;
    int n = c->plan_count;
    neap_plan *hp = (neap_plan *)realloc(c->host_plans, (size_t)(n + 1) * sizeof *hp);
    if (hp) c->host_plans = hp;
    const neap_net **nets = (const neap_net **)realloc(c->nets, (size_t)(n + 1) * sizeof *nets);
    if (nets) c->nets = nets;
    neap_plan **plans = (neap_plan **)realloc(c->plans, (size_t)(n + 1) * sizeof *plans);
    if (plans) c->plans = plans;
    if (!hp || !nets || !plans) return c->rc = NEAP_KERN_MEMORY, -1;
    if (plan_make(&hp[n], net, shared_limit)) {
        pthread_mutex_lock(&error_lock);
        snprintf(last_error, sizeof last_error, "a network this wide does not fit the GPU's shared memory (%zu bytes a block); train it on the cpu", shared_limit);
        pthread_mutex_unlock(&error_lock);
        return c->rc = NEAP_KERN_UNSUPPORTED, -1;
    }
    nets[n] = net;
    plans[n] = (neap_plan *)take(c, sizeof **plans);
    put(c, plans[n], &hp[n], sizeof **plans);
    if (c->rc) return -1;
    return c->plan_count++;
}

/* ---- training ---- */

typedef void (*train_kernel)(fleet_job *, int, int);
static const train_kernel kernels[3] = {neap_fleet_train_0, neap_fleet_train_2, neap_fleet_train_4};

static int order_by_plan(const void *a, const void *b) {
    const int *x = (const int *)a, *y = (const int *)b; /* pairs: plan, job */
    return x[0] != y[0] ? x[0] - y[0] : x[1] - y[1];
}

/* Launches epochs from..to-1 of all jobs, plan by plan. */
static void launch(call *c, const int *order, int n, fleet_job *dev, int from, int to) {
    for (int i = 0; i < n && !c->rc;) {
        int plan = order[2 * i], k = i;
        const neap_plan *p = &c->host_plans[plan];
        train_kernel f = kernels[p->owned / 2];
        while (k < n && order[2 * k] == plan) k++;
        TRY(c, cudaFuncSetAttribute((const void *)f, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p->shared_bytes), "shared memory");
        if (c->rc) return;
        f<<<k - i, p->threads, p->shared_bytes, c->stream>>>(dev + i, from, to);
        TRY(c, cudaGetLastError(), "launch");
        i = k;
    }
}

static int cuda_train(const neap_kernels *k, neap_train_job *jobs, size_t count, int threads, const neap_progress *progress) {
    call c;
    int n = 0, most = 0, cancelled = 0;
    int *order = (int *)malloc(count * 2 * sizeof *order);
    fleet_job *host = (fleet_job *)calloc(count, sizeof *host);
    neap_perm *perms = NULL;
    call_open(&c);
    if (!order || !host) c.rc = NEAP_KERN_MEMORY;
    for (size_t i = 0; i < count && !c.rc; i++) {
        neap_train_job *j = &jobs[i];
        j->status = j->train->n < 1 || j->train->n >= UINT32_MAX || j->batch < 1 || (j->train->x && !j->train->y) ? NEAP_KERN_INVALID : 0;
        j->epochs_done = j->best_epoch = 0, j->best_loss = INFINITY;
        if (j->status || j->epochs < 1) continue;
        order[2 * n] = plan_of(&c, j->net);
        order[2 * n++ + 1] = (int)i;
        if (j->epochs > most) most = j->epochs;
    }
    if (!c.rc) qsort(order, (size_t)n, 2 * sizeof *order, order_by_plan);
    if (most) perms = (neap_perm *)malloc((size_t)most * sizeof *perms);
    if (most && !perms) c.rc = NEAP_KERN_MEMORY;
    for (int i = 0; i < n && !c.rc; i++) {
        neap_train_job *j = &jobs[order[2 * i + 1]];
        fleet_job *f = &host[i];
        const neap_plan *p = &c.host_plans[order[2 * i]];
        size_t bytes = j->net->params * sizeof(float);
        int big = j->batch > p->rows || j->hyper->clip > 0.0f;
        char *state = (char *)take(&c, bytes * (3 + (size_t)big + (j->best ? 1 : 0)));
        f->plan = c.plans[order[2 * i]], f->hyper = *j->hyper;
        f->train = send(&c, j->net, j->train);
        if (j->val) f->val = send(&c, j->net, j->val);
        if (c.rc) break;
        f->w = (float *)state, f->m = (float *)(state + bytes), f->v = (float *)(state + 2 * bytes);
        if (big) f->grad = (float *)(state + 3 * bytes);
        if (j->best) f->best = (float *)(state + (3 + (size_t)big) * bytes);
        put(&c, f->w, j->state->w, bytes), put(&c, f->m, j->state->m, bytes), put(&c, f->v, j->state->v, bytes);
        f->t = j->state->t, f->epoch0 = j->epoch0, f->seed = j->seed, f->best_loss = INFINITY;
        f->batch = j->batch, f->epochs = j->epochs, f->patience = j->patience, f->shuffle = j->shuffle;
        f->train_loss = (double *)take(&c, (size_t)j->epochs * 2 * sizeof(double));
        f->val_loss = f->train_loss + j->epochs;
        for (int e = 0; e < j->epochs; e++) neap_perm_init(&perms[e], (uint32_t)j->train->n, j->seed, (uint64_t)(j->epoch0 + e));
        neap_perm *dev_perms = (neap_perm *)take(&c, (size_t)j->epochs * sizeof *perms);
        put(&c, dev_perms, perms, (size_t)j->epochs * sizeof *perms);
        f->perms = dev_perms;
    }
    fleet_job *dev = (fleet_job *)take(&c, (size_t)n * sizeof *dev);
    put(&c, dev, host, (size_t)n * sizeof *dev);
    /* the first launch is one epoch and is timed; then as many as take a tenth of a second */
    for (int from = 0, slice = 1; from < most && !c.rc && !cancelled; from += slice) {
        struct timespec a, b;
        if (from == 1) slice = slice > 0 ? slice : 1;
        clock_gettime(CLOCK_MONOTONIC, &a);
        launch(&c, order, n, dev, from, from + slice > most ? most : from + slice);
        TRY(&c, cudaStreamSynchronize(c.stream), "training");
        clock_gettime(CLOCK_MONOTONIC, &b);
        cancelled = progress && progress->poll && progress->poll(progress->ud);
        if (from == 0) {
            double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
            int next = s > 0.1 ? 1 : (int)(0.1 / (s + 1e-6));
            from += slice - next, slice = next; /* the loop adds `next`: on to epoch 1 */
        }
    }
    get(&c, host, dev, (size_t)n * sizeof *dev);
    TRY(&c, cudaStreamSynchronize(c.stream), "training");
    for (int i = 0; i < n && !c.rc; i++) {
        neap_train_job *j = &jobs[order[2 * i + 1]];
        fleet_job *f = &host[i];
        size_t bytes = j->net->params * sizeof(float);
        get(&c, j->state->w, f->w, bytes), get(&c, j->state->m, f->m, bytes), get(&c, j->state->v, f->v, bytes);
        if (j->best && f->best_epoch) get(&c, j->best, f->best, bytes);
        if (j->train_loss) get(&c, j->train_loss, f->train_loss, (size_t)f->epochs_done * sizeof(double));
        if (j->val_loss && j->val) get(&c, j->val_loss, f->val_loss, (size_t)f->epochs_done * sizeof(double));
        j->state->t = f->t, j->epochs_done = f->epochs_done, j->best_epoch = f->best_epoch, j->best_loss = f->best_loss;
        j->status = cancelled ? NEAP_KERN_CANCELLED : 0;
    }
    TRY(&c, cudaStreamSynchronize(c.stream), "training");
    int rc = c.rc ? c.rc : cancelled ? NEAP_KERN_CANCELLED : 0;
    for (size_t i = 0; i < count; i++) {
        if (c.rc) jobs[i].status = c.rc;
        if (!rc) rc = jobs[i].status;
    }
    call_close(&c);
    free(order), free(host), free(perms);
    return rc;
}

/* ---- scoring ---- */

static int cuda_predict(const neap_kernels *k, neap_predict_job *jobs, size_t count, int threads, const neap_progress *progress) {
    call c;
    call_open(&c);
    for (size_t i = 0; i < count && !c.rc; i++) { /* jobs overlap in the stream only by their copies; a big one spreads over the chip */
        neap_predict_job *j = &jobs[i];
        const neap_net *net = j->net;
        int64_t n = j->data->n;
        if (j->loss) *j->loss = NAN;
        if ((j->status = j->loss && j->data->x && !j->data->y ? NEAP_KERN_INVALID : 0) || n < 1) continue;
        int plan = plan_of(&c, net);
        float *w = (float *)take(&c, net->params * sizeof(float)), *out = j->out ? (float *)take(&c, (size_t)n * net->out * sizeof(float)) : NULL;
        double *loss = j->loss ? (double *)take(&c, sizeof *loss) : NULL;
        neap_data d = send(&c, net, j->data);
        put(&c, w, j->w, net->params * sizeof(float));
        int64_t pieces = j->loss ? 1 : (n + 4095) / 4096; /* a loss is one ordered sum */
        if (pieces > 8 * processors) pieces = 8 * processors;
        fleet_score *host = (fleet_score *)calloc((size_t)pieces, sizeof *host), *dev = (fleet_score *)take(&c, (size_t)pieces * sizeof *dev);
        if (!host) c.rc = NEAP_KERN_MEMORY;
        for (int64_t s = 0; s < pieces && !c.rc; s++) {
            int64_t lo = n * s / pieces, hi = n * (s + 1) / pieces;
            fleet_score *f = &host[s];
            *f = (fleet_score){c.plans[plan], {0}, d, w, out ? out + lo * net->out : NULL, loss};
            if (j->hyper) f->hyper = *j->hyper;
            f->data.n = hi - lo;
            if (d.x) f->data.x += lo * d.ldx, f->data.y = d.y ? d.y + lo * d.ldy : NULL;
            else if (d.starts) f->data.starts += lo;
            else f->data.first += lo * d.stride;
        }
        if (!c.rc) {
            const neap_plan *p = &c.host_plans[plan];
            put(&c, dev, host, (size_t)pieces * sizeof *host);
            TRY(&c, cudaFuncSetAttribute((const void *)neap_fleet_predict, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p->shared_bytes), "shared memory");
            if (!c.rc) neap_fleet_predict<<<(unsigned)pieces, p->threads, p->shared_bytes, c.stream>>>(dev);
            TRY(&c, cudaGetLastError(), "launch");
            if (out) get(&c, j->out, out, (size_t)n * net->out * sizeof(float));
            if (loss) get(&c, j->loss, loss, sizeof *loss);
        }
        free(host);
        if (progress && progress->poll && progress->poll(progress->ud)) c.rc = NEAP_KERN_CANCELLED;
    }
    TRY(&c, cudaStreamSynchronize(c.stream), "scoring");
    int rc = c.rc;
    for (size_t i = 0; i < count; i++) {
        if (c.rc) jobs[i].status = c.rc;
        if (!rc) rc = jobs[i].status;
    }
    call_close(&c);
    return rc;
}

/* ---- entry ---- */

static const neap_kernels table = {NEAP_KERNELS_ABI, "cuda", cuda_train, cuda_predict, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

typedef struct neap_cuda_entry {
    const neap_kernels *kernels;
    const char *(*error)(void);
} neap_cuda_entry;

static const char *error_text(void) { return last_error; }

extern "C" __attribute__((visibility("default"))) int neap_cuda_open(uint32_t abi, neap_cuda_entry *entry) {
    int n = 0, optin = 0, pools = 0;
    entry->error = error_text;
    if (abi != NEAP_KERNELS_ABI) {
        snprintf(last_error, sizeof last_error, "neap_cuda.so has interface %d, neap needs %u: build both from one source", NEAP_KERNELS_ABI, abi);
        return -1;
    }
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n == 0) e = cudaErrorNoDevice;
    if (e == cudaSuccess) e = cudaSetDevice(device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device);
    if (e != cudaSuccess) return failed(e, "the GPU does not start", 0), -1;
    shared_limit = (size_t)optin;
    pooled = pools;
    cudaMemPool_t pool;
    uint64_t keep = UINT64_MAX; /* freed blocks stay with us */
    if (pooled && cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess) cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
    entry->kernels = &table;
    return 0;
}
