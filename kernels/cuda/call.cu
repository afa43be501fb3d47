/* call.cu: see call.h. */
#include "kernels/cuda/call.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST ((size_t)256 << 10)
#define MOST  ((size_t)64 << 20)
#define APART 128 /* unused at a block's start: results of two blocks are never neighbours */

void call_check(call *c, cudaError_t e, const char *what) {
    if (!c->rc && e != cudaSuccess) c->rc = gpu_failed(e, what, 0);
}

void call_open(call *c) {
    memset(c, 0, sizeof *c);
    call_check(c, cudaSetDevice(gpu.device), "choosing the GPU");
    if (!c->rc) call_check(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "stream");
    if (!c->rc) c->rc = gpu_stage_open(&c->stage, c->stream);
}

void call_close(call *c) {
    if (c->stream) cudaStreamSynchronize(c->stream);
    for (size_t i = 0; i < c->block_count; i++) gpu_free(c->blocks[i]);
    gpu_stage_close(&c->stage);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c->blocks), free(c->seen), free(c->host_plans), free(c->nets), free(c->plans), free(c->fetch);
}

/* Room for one more element; 0 or -1. */
static int grow(void **list, size_t count, size_t *cap, size_t size) {
    if (count < *cap) return 0;
    size_t more = *cap ? *cap * 2 : 64;
    void *p = realloc(*list, more * size);
    if (!p) return -1;
    *list = p, *cap = more;
    return 0;
}

void *call_take(call *c, call_arena *a, size_t bytes) {
    bytes = (bytes + 15) / 16 * 16;
    if (c->rc) return NULL;
    if (bytes > a->left) {
        void *p = NULL;
        size_t size = !a->grown ? FIRST : a->grown < MOST ? a->grown * 2 : MOST;
        a->grown = size;
        if (size < bytes) size = bytes;
        if (grow((void **)&c->blocks, c->block_count, &c->block_cap, sizeof *c->blocks)) return c->rc = NEAP_KERN_MEMORY, (void *)NULL;
        c->rc = gpu_alloc(&p, size + APART, c->stream);
        if (c->rc) return NULL;
        c->blocks[c->block_count++] = p;
        a->at = (char *)p + APART, a->left = size;
    }
    void *p = a->at;
    a->at += bytes, a->left -= bytes;
    return p;
}

void call_put(call *c, void *to, const void *from, size_t bytes) {
    if (!c->rc) c->rc = gpu_put(&c->stage, to, from, bytes);
}

void call_zero(call *c, void *p, size_t bytes) {
    if (!c->rc) call_check(c, cudaMemsetAsync(p, 0, bytes, c->stream), "clearing GPU memory");
}

static call_upload *seen_at(call_upload *table, size_t cap, const void *host, size_t bytes) {
    size_t i = (size_t)(((uint64_t)(uintptr_t)host * 0x9E3779B97F4A7C15u) >> 20) & (cap - 1);
    while (table[i].host && (table[i].host != host || table[i].bytes != bytes)) i = (i + 1) & (cap - 1);
    return &table[i];
}

const void *call_share(call *c, const void *host, size_t bytes) {
    if (!host || c->rc) return NULL;
    if (2 * (c->seen_count + 1) > c->seen_cap) {
        size_t cap = c->seen_cap ? c->seen_cap * 2 : 64;
        call_upload *more = (call_upload *)calloc(cap, sizeof *more);
        if (!more) return c->rc = NEAP_KERN_MEMORY, (const void *)NULL;
        for (size_t i = 0; i < c->seen_cap; i++)
            if (c->seen[i].host) *seen_at(more, cap, c->seen[i].host, c->seen[i].bytes) = c->seen[i];
        free(c->seen);
        c->seen = more, c->seen_cap = cap;
    }
    call_upload *u = seen_at(c->seen, c->seen_cap, host, bytes);
    if (u->host) return u->dev;
    void *dev = call_take(c, &c->in, bytes);
    call_put(c, dev, host, bytes);
    if (c->rc) return NULL;
    u->host = host, u->bytes = bytes, u->dev = dev;
    c->seen_count++;
    return dev;
}

neap_data call_data(call *c, const neap_net *net, const neap_data *d) {
    neap_data r = *d;
    if (d->n < 1) return r;
    if (d->x) { /* rows are sent as they lie, stride and all */
        r.x = (const float *)call_share(c, d->x, ((size_t)(d->n - 1) * d->ldx + net->in) * sizeof(float));
        r.y = (const float *)call_share(c, d->y, ((size_t)(d->n - 1) * d->ldy + net->out) * sizeof(float));
        return r;
    }
    r.series = (const float *)call_share(c, d->series, (size_t)d->length * sizeof(float));
    r.target = (const float *)call_share(c, d->target, (size_t)d->length * sizeof(float));
    r.starts = (const int64_t *)call_share(c, d->starts, (size_t)d->n * sizeof(int64_t));
    if (d->extras) r.extra = (const float *)call_share(c, d->extra, ((size_t)(d->length - 1) * d->ldextra + d->extras) * sizeof(float));
    return r;
}

int call_plan(call *c, const neap_net *net) {
    char text[200];
    if (c->rc) return -1;
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
    if (plan_make(&hp[n], net, gpu.shared_limit)) {
        snprintf(text, sizeof text, "a network this wide does not fit the GPU's shared memory (%zu bytes a block); train it on the cpu", gpu.shared_limit);
        return c->rc = gpu_refuse(NEAP_KERN_UNSUPPORTED, text), -1;
    }
    nets[n] = net;
    plans[n] = (neap_plan *)call_take(c, &c->in, sizeof **plans);
    call_put(c, plans[n], &hp[n], sizeof **plans);
    return c->rc ? -1 : c->plan_count++;
}

/* ---- results ---- */

void call_fetch_later(call *c, void *host, const void *dev, size_t bytes) {
    if (c->rc || !bytes) return;
    if (grow((void **)&c->fetch, c->fetch_count, &c->fetch_cap, sizeof *c->fetch)) {
        c->rc = NEAP_KERN_MEMORY;
        return;
    }
    call_fetch *f = &c->fetch[c->fetch_count++];
    f->dev = (const char *)dev, f->host = host, f->bytes = bytes;
}

static int by_address(const void *a, const void *b) {
    const call_fetch *x = (const call_fetch *)a, *y = (const call_fetch *)b;
    return (x->dev > y->dev) - (x->dev < y->dev);
}

/* Neighbours come in one transfer: a fleet has tens of thousands of small results. */
void call_fetch_all(call *c) {
    char *buffer = c->rc || !c->fetch_count ? NULL : (char *)malloc(GPU_STAGE);
    if (!c->rc && c->fetch_count && !buffer) c->rc = NEAP_KERN_MEMORY;
    if (c->fetch_count) qsort(c->fetch, c->fetch_count, sizeof *c->fetch, by_address);
    for (size_t i = 0, k; i < c->fetch_count && !c->rc; i = k) {
        const call_fetch *f = c->fetch + i;
        size_t span = f->bytes;
        for (k = i + 1; k < c->fetch_count; k++) {
            size_t reach = (size_t)(c->fetch[k].dev - f->dev) + c->fetch[k].bytes, last = (size_t)(c->fetch[k - 1].dev - f->dev) + c->fetch[k - 1].bytes;
            if (reach > GPU_STAGE || (size_t)(c->fetch[k].dev - f->dev) > last + 64) break; /* further off: perhaps another block */
            span = reach;
        }
        if (k == i + 1) {
            c->rc = gpu_get(&c->stage, f->host, f->dev, f->bytes);
            continue;
        }
        c->rc = gpu_get(&c->stage, buffer, f->dev, span);
        for (size_t at = i; at < k && !c->rc; at++) memcpy(c->fetch[at].host, buffer + (c->fetch[at].dev - f->dev), c->fetch[at].bytes);
    }
    c->fetch_count = 0;
    free(buffer);
}

void call_wait(call *c, const char *what) {
    if (!c->rc) c->rc = gpu_stage_flush(&c->stage);
    if (!c->rc) call_check(c, cudaStreamSynchronize(c->stream), what);
}
