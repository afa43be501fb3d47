/* gather.h: samples are formed where they are needed, from the raw series; there is no window matrix. Included by each backend, after its lanes.
   Subtraction and multiplication stay separate operations (-ffp-contract=off), so every backend forms the same bits. */
#ifndef NEAP_GATHER_H
#define NEAP_GATHER_H
#include "kernels/kernels.h"
#include <string.h>

/* One sample: x[ldx], y[out] (y may be NULL). The bounds were checked when the data set was made. */
LANE_FN void gather_one(const neap_net *net, const neap_data *d, int64_t i, float *restrict x, float *restrict y) {
    int in = net->in, out = net->out;
    if (d->x) {
        memcpy(x, d->x + i * d->ldx, (size_t)in * sizeof *x);
        if (y) memcpy(y, d->y + i * d->ldy, (size_t)out * sizeof *y);
    } else {
        int64_t start = d->starts ? d->starts[i] : d->first + i * d->stride, step = d->dilation;
        int w = d->window;
        int64_t end = start + (int64_t)(w - 1) * step;
        const float *s = d->series + start;
        float last = s[(int64_t)(w - 1) * step];
        float centre = d->norm == NEAP_NORM_DELTA ? last : d->loc, inv = d->inv;
        if (d->norm == NEAP_NORM_NONE) {
            for (int j = 0; j < w; j++) x[j] = s[j * step];
        } else if (step == 1) {
            int j = 0;
            for (V c = v_set1(centre), scale = v_set1(inv); j + LANE <= w; j += LANE) v_store(x + j, v_mul(v_sub(v_load(s + j), c), scale));
            for (; j < w; j++) x[j] = (s[j] - centre) * inv;
        } else {
            for (int j = 0; j < w; j++) x[j] = (s[j * step] - centre) * inv;
        }
        if (d->level) x[w++] = (last - d->loc) * d->level_inv;
        for (int j = 0; j < d->extras; j++) x[w + j] = d->extra[end * d->ldextra + j];
        if (y) {
            const float *t = (d->target ? d->target : d->series) + end + d->horizon;
            for (int o = 0; o < out; o++) y[o] = d->norm == NEAP_NORM_NONE ? t[o] : (t[o] - centre) * inv;
        }
    }
    for (long j = in; j < net->ldx; j++) x[j] = 0.0f;
}

/* Samples index[0..n-1], or first..first+n-1 where index is NULL. */
static void gather_rows(const neap_net *net, const neap_data *data, const uint32_t *index, int64_t first, int n, float *x, float *y) {
    const neap_data d = *data; /* a copy of our own: no store to x or y can change it, so its fields stay in registers */
    for (int r = 0; r < n; r++) gather_one(net, &d, index ? (int64_t)index[r] : first + r, x + r * net->ldx, y ? y + (long)r * net->out : NULL);
}
#endif
