/* net.c: where a network's numbers lie in memory. Rows are padded to NEAP_LANES floats so that no kernel has a ragged edge; padding is zero and stays
   zero through training (its gradients are zero), which every backend relies on. */
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static long padded(long n) { return (n + NEAP_LANES - 1) / NEAP_LANES * NEAP_LANES; }

int neap_net_init(neap_net *net, const int *sizes, int layers, int act, float leak) {
    memset(net, 0, sizeof *net);
    if (layers < 1 || layers > NEAP_MAX_LAYERS || act < 0 || act >= NEAP_ACT_COUNT) return NEAP_KERN_INVALID;
    for (int i = 0; i <= layers; i++)
        if (sizes[i] < 1 || sizes[i] > (1 << 16)) return NEAP_KERN_INVALID;
    net->layers = layers;
    net->in = sizes[0];
    net->out = sizes[layers];
    net->ldx = padded(sizes[0]);
    net->leak = leak;
    for (int i = 0; i < layers; i++) {
        neap_layer *l = &net->layer[i];
        int last = i == layers - 1;
        l->in = sizes[i];
        l->out = sizes[i + 1];
        l->act = last ? NEAP_ACT_LINEAR : act;
        l->narrow = l->out < 8;
        l->ld = padded(l->narrow ? l->in : l->out);
        l->ldh = last && l->narrow ? l->out : padded(l->out);
        l->nw = (size_t)l->ld * (size_t)(l->narrow ? l->out : l->in);
        l->w = net->params;
        l->b = l->w + l->nw;
        net->params = l->b + (size_t)padded(l->out);
    }
    return 0;
}

uint64_t neap_random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint64_t x = seed;
    for (int i = 0; i < 3; i++) { /* one splitmix64 finaliser per word */
        x += 0x9E3779B97F4A7C15u * (i == 0 ? 1 : i == 1 ? 2 * stream + 1 : 2 * counter + 1);
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return x;
}

/* uniform in [-bound, bound) from 24 bits */
static float uniform(uint64_t seed, uint64_t stream, uint64_t counter, float bound) {
    float u = (float)(neap_random_bits(seed, stream, counter) >> 40) * 0x1p-23f - 1.0f;
    return u * bound;
}

void neap_net_seed(const neap_net *net, float *w, uint64_t seed) {
    memset(w, 0, net->params * sizeof *w);
    for (int i = 0; i < net->layers; i++) {
        const neap_layer *l = &net->layer[i];
        float bound = 1.0f / sqrtf((float)l->in);
        for (int o = 0; o < l->out; o++) {
            for (int k = 0; k < l->in; k++) { /* numbered as torch's [out][in], so the layout does not matter */
                size_t at = l->narrow ? (size_t)o * l->ld + k : (size_t)k * l->ld + o;
                w[l->w + at] = uniform(seed, 2 * (uint64_t)i, (uint64_t)o * l->in + k, bound);
            }
            w[l->b + o] = uniform(seed, 2 * (uint64_t)i + 1, (uint64_t)o, bound);
        }
    }
}

void neap_net_export(const neap_net *net, const float *w, int layer, float *weight, float *bias) {
    const neap_layer *l = &net->layer[layer];
    for (int o = 0; weight && o < l->out; o++)
        for (int k = 0; k < l->in; k++) weight[(size_t)o * l->in + k] = w[l->w + (l->narrow ? (size_t)o * l->ld + k : (size_t)k * l->ld + o)];
    if (bias) memcpy(bias, w + l->b, (size_t)l->out * sizeof *bias);
}

void neap_net_import(const neap_net *net, float *w, int layer, const float *weight, const float *bias) {
    const neap_layer *l = &net->layer[layer];
    for (int o = 0; weight && o < l->out; o++)
        for (int k = 0; k < l->in; k++) w[l->w + (l->narrow ? (size_t)o * l->ld + k : (size_t)k * l->ld + o)] = weight[(size_t)o * l->in + k];
    if (bias) memcpy(w + l->b, bias, (size_t)l->out * sizeof *bias);
}

int neap_work_init(neap_work *work, const neap_net *net, int rows, int deep) {
    memset(work, 0, sizeof *work);
    if (deep > rows) deep = rows;
    long widest = net->ldx;
    size_t n = (size_t)rows, m = (size_t)deep, order = n > NEAP_ORDER ? n : NEAP_ORDER,
           floats = n * net->ldx + 2 * n * net->out + net->params + 3 * NEAP_LANES;
    for (int i = 0; i < net->layers; i++) {
        const neap_layer *l = &net->layer[i];
        if (l->ldh > widest) widest = l->ldh;
        floats += m * l->ldh * (l->act == NEAP_ACT_GELU ? 2 : 1) + 2 * NEAP_LANES;
        if (i > 0 && !l->narrow) floats += (size_t)padded(l->in) * l->out;
    }
    floats += 2 * (m * widest + NEAP_LANES) + order;
    work->bytes = floats * sizeof(float) + 4096;
    work->bytes = (work->bytes + 63) / 64 * 64;
    work->block = aligned_alloc(64, work->bytes);
    if (!work->block) return NEAP_KERN_MEMORY;
    memset(work->block, 0, work->bytes);
    work->rows = rows;
    work->indices = (int)order;
    work->deep = deep;

    float *p = work->block;
#define CARVE(count) (p += padded((long)(count)), p - padded((long)(count)))
    work->x = CARVE(n * net->ldx);
    work->y = CARVE(n * net->out);
    work->z = CARVE(n * net->out);
    for (int i = 0; i < net->layers; i++) {
        const neap_layer *l = &net->layer[i];
        work->h[i] = CARVE(m * l->ldh);
        if (l->act == NEAP_ACT_GELU) work->g[i] = CARVE(m * l->ldh);
        if (i > 0 && !l->narrow) work->wt[i] = CARVE((size_t)padded(l->in) * l->out);
    }
    work->d[0] = CARVE(m * widest);
    work->d[1] = CARVE(m * widest);
    work->grad = CARVE(net->params);
    work->index = (uint32_t *)CARVE(order);
#undef CARVE
    return 0;
}

void neap_work_free(neap_work *work) {
    free(work->block);
    memset(work, 0, sizeof *work);
}
