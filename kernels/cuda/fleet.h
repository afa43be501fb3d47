/* fleet.h: the device code: a thread block trains one model through all its epochs. Weights, activations and deltas live in shared memory, moments in
   the registers of the threads that own the parameters; windows are gathered from the raw series. Element by element it computes the chains that
   kernels.h defines, in their order, hence the CPU's bits. Runs under nvcc and, as plain C, under the fiber shim. */
#ifndef NEAP_FLEET_H
#define NEAP_FLEET_H
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/plan.h"
#include "kernels/formulas.h"
#include "kernels/perm.h"

typedef struct block { /* what every thread knows */
    const neap_plan *p;
    float *sh, *w; /* shared memory; weights: shared, or global if they do not fit */
    int t;
} block;

/* ---- samples ---- */

GPU_FN float fleet_input(const neap_net *net, const neap_data *d, int64_t i, int c) {
    if (c >= net->in) return 0.0f;
    if (d->x) return d->x[i * d->ldx + c];
    int64_t start = d->starts ? d->starts[i] : d->first + i * d->stride;
    int64_t end = start + (int64_t)(d->window - 1) * d->dilation;
    if (c < d->window) {
        float v = d->series[start + c * d->dilation];
        if (d->norm == NEAP_NORM_NONE) return v;
        return v_mul(v_sub(v, d->norm == NEAP_NORM_DELTA ? d->series[end] : d->loc), d->inv);
    }
    if (d->level && c == d->window) return v_mul(v_sub(d->series[end], d->loc), d->level_inv);
    return d->extra[end * d->ldextra + (c - d->window - (d->level != 0))];
}

GPU_FN float fleet_target(const neap_data *d, int64_t i, int o) {
    if (d->x) return d->y[i * d->ldy + o];
    int64_t start = d->starts ? d->starts[i] : d->first + i * d->stride;
    int64_t end = start + (int64_t)(d->window - 1) * d->dilation;
    float v = (d->target ? d->target : d->series)[end + d->horizon + o];
    if (d->norm == NEAP_NORM_NONE) return v;
    return v_mul(v_sub(v, d->norm == NEAP_NORM_DELTA ? d->series[end] : d->loc), d->inv);
}

/* Samples first.. (through the permutation if perm) into x and y. Ends with a barrier. */
GPU_FN void fleet_gather(const block *b, const neap_data *d, const neap_perm *perm, int64_t first, int n, int targets) {
    const neap_plan *p = b->p;
    uint32_t *index = (uint32_t *)(b->sh + p->index);
    for (int r = b->t; r < n; r += FLEET_THREADS) index[r] = perm ? perm_walk(perm, (uint32_t)(first + r)) : 0;
    gpu_sync(1);
    int rows = plan_pad(n, FLEET_TILE), width = (int)p->net.ldx; /* rows up to a whole tile are zero: tiles need no guard */
    for (int e = b->t; e < rows * width; e += FLEET_THREADS) {
        int r = e / width, c = e % width;
        b->sh[p->x + r * p->ldx + c] = r < n ? fleet_input(&p->net, d, perm ? (int64_t)index[r] : first + r, c) : 0.0f;
    }
    for (int e = b->t; targets && e < n * p->net.out; e += FLEET_THREADS) {
        int r = e / p->net.out;
        b->sh[p->y + e] = fleet_target(d, perm ? (int64_t)index[r] : first + r, e % p->net.out);
    }
    gpu_sync(2);
}

/* ---- tiles: a thread computes FLEET_TILE rows of 4 columns; which ones, FLEET_LAYOUT says. Neither changes a bit, only speed (spec/gpu.sh tries
   them): 0 numbers the tiles row by row, so a warp covers 2 x 16 of them; 1 gives a warp 4 x 8, which read half the weights for twice the rows. ----
 */

#ifndef FLEET_LAYOUT
#define FLEET_LAYOUT 0
#endif

GPU_FN void fleet_tile(int tile, int across, int down, int *r, int *c) {
    *r = tile / across, *c = tile % across;
    if (FLEET_LAYOUT == 1 && across % 8 == 0 && down % 4 == 0) {
        int warp = tile / 32, lane = tile % 32;
        *r = warp / (across / 8) * 4 + lane / 8, *c = warp % (across / 8) * 8 + lane % 8;
    }
}

/* ---- forward ---- */

GPU_FN void fleet_forward_wide(const block *b, int k, const float *x, int ldx, int n) {
    const neap_plan *p = b->p;
    const neap_layer *l = &p->net.layer[k];
    int across = (int)l->ld / 4, down = plan_pad(n, FLEET_TILE) / FLEET_TILE, ldw = p->ldw[k], ldh = p->ldh[k];
    for (int tile = b->t; tile < down * across; tile += FLEET_THREADS) {
        int r0, c0;
        fleet_tile(tile, across, down, &r0, &c0);
        r0 *= FLEET_TILE, c0 *= 4;
        const float *a = x + r0 * ldx, *w = b->w + p->w[k] + c0;
        float acc[FLEET_TILE][4];
        GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) { GPU_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = b->w[p->b[k] + c0 + c]; }
        for (int i = 0; i < l->in; i++, w += ldw) {
            float wv[4];
            GPU_UNROLL for (int c = 0; c < 4; c++) wv[c] = w[c];
            GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) {
                float av = a[r * ldx + i];
                GPU_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = v_fma(av, wv[c], acc[r][c]);
            }
        }
        float *h = b->sh + p->h[k] + r0 * ldh + c0;
        GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) {
            GPU_UNROLL for (int c = 0; c < 4; c++) h[r * ldh + c] = l->act == NEAP_ACT_RELU ? v_max0(acc[r][c]) : acc[r][c];
        }
        if (l->act <= NEAP_ACT_RELU) continue;
        for (int e = 0; e < 4 * FLEET_TILE; e++) { /* the long formulas once, not for every element: through this thread's own elements */
            float gate = 0.0f, *z = h + e / 4 * ldh + e % 4;
            *z = f_act(l->act, *z, p->net.leak, &gate);
            if (l->act == NEAP_ACT_GELU) b->sh[p->g[k] + (z - (b->sh + p->h[k]))] = gate;
        }
    }
}

GPU_FN void fleet_forward_narrow(const block *b, int k, const float *x, int ldx, int n) {
    const neap_plan *p = b->p;
    const neap_layer *l = &p->net.layer[k];
    int width = p->width[k]; /* the padding is written as zero: a following layer reads it */
    for (int e = b->t; e < plan_pad(n, FLEET_TILE) * width; e += FLEET_THREADS) {
        int r = e / width, o = e % width, at = r * p->ldh[k] + o;
        float z = 0.0f, gate = 0.0f, acc[16];
        if (o < l->out) {
            const float *w = b->w + p->w[k] + o * p->ldw[k];
            GPU_UNROLL for (int q = 0; q < 16; q++) acc[q] = 0.0f;
            for (int i = 0; i < (int)l->ld; i += 16) { GPU_UNROLL for (int q = 0; q < 16; q++) acc[q] = v_fma(x[r * ldx + i + q], w[i + q], acc[q]); }
            GPU_UNROLL for (int q = 0; q < 8; q++) acc[q] = v_add(acc[q], acc[q + 8]);
            GPU_UNROLL for (int q = 0; q < 4; q++) acc[q] = v_add(acc[q], acc[q + 4]);
            GPU_UNROLL for (int q = 0; q < 2; q++) acc[q] = v_add(acc[q], acc[q + 2]);
            z = f_act(l->act, v_add(v_add(acc[0], acc[1]), b->w[p->b[k] + o]), p->net.leak, &gate);
        }
        b->sh[p->h[k] + at] = z;
        if (l->act == NEAP_ACT_GELU) b->sh[p->g[k] + at] = gate;
    }
}

/* All layers over the gathered rows. Ends with a barrier. */
GPU_FN void fleet_forward(const block *b, int n) {
    const neap_plan *p = b->p;
    const float *x = b->sh + p->x;
    int ldx = p->ldx;
    for (int k = 0; k < p->net.layers; k++) {
        if (p->net.layer[k].narrow) fleet_forward_narrow(b, k, x, ldx, n);
        else fleet_forward_wide(b, k, x, ldx, n);
        gpu_sync(3);
        x = b->sh + p->h[k];
        ldx = p->ldh[k];
    }
}

/* Losses of the outputs, and with `delta` the output's delta (padding and spare rows zero). Ends with a barrier. */
GPU_FN void fleet_loss(const block *b, const neap_hyper *h, int n, float scale, int delta) {
    const neap_plan *p = b->p;
    int last = p->net.layers - 1, out = p->net.out, width = p->width[last], ld = p->ldh[last];
    for (int e = b->t; e < plan_pad(n, FLEET_TILE) * width; e += FLEET_THREADS) {
        int r = e / width, o = e % width;
        float d = 0.0f;
        if (r < n && o < out)
            b->sh[p->loss + r * out + o] = f_loss(h->loss, b->sh[p->h[last] + r * ld + o], b->sh[p->y + r * out + o], h->huber, scale, &d);
        if (delta) b->sh[p->d[last] + r * ld + o] = d;
    }
    gpu_sync(4);
}

/* What only thread 0 reads and writes between epochs: kept out of the registers that every thread would pay for it. */
typedef struct fleet_tally {
    double sum, best_loss;
    int64_t t;
    int best_epoch;
} fleet_tally;

GPU_FN fleet_tally *fleet_tally_of(const block *b) { return (fleet_tally *)(b->sh + b->p->flags + 36); }

/* Adds the losses in order. Thread 0 only. */
GPU_FN void fleet_sum(const block *b, int n) {
    fleet_tally *tally = fleet_tally_of(b);
    double sum = tally->sum;
    const float *loss = b->sh + b->p->loss;
    GPU_UNROLL8 for (int e = 0; e < n * b->p->net.out; e++) sum = d_add(sum, (double)loss[e]); /* loads run ahead of the chain of sums */
    tally->sum = sum;
}

/* ---- backward ---- */

/* Delta of the layer below k. A thread's four columns lie `across` apart: neighbours then read neighbouring weight rows, other banks. */
GPU_FN void fleet_delta(const block *b, int k, int n) {
    const neap_plan *p = b->p;
    const neap_layer *l = &p->net.layer[k], *under = l - 1;
    int width = plan_pad(under->out, 16), across = width / 4, down = plan_pad(n, FLEET_TILE) / FLEET_TILE, ldd = p->ldh[k], ldb = p->ldh[k - 1];
    for (int tile = b->t; tile < down * across; tile += FLEET_THREADS) {
        int r0, c0;
        fleet_tile(tile, across, down, &r0, &c0);
        r0 *= FLEET_TILE;
        const float *d = b->sh + p->d[k] + r0 * ldd, *w = b->w + p->w[k];
        float acc[FLEET_TILE][4];
        GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) { GPU_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = 0.0f; }
        for (int o = 0; o < l->out; o++) {
            float wv[4];
            GPU_UNROLL for (int c = 0; c < 4; c++) {
                int i = c0 + c * across;
                wv[c] = l->narrow ? w[o * p->ldw[k] + i] : i < l->in ? w[i * p->ldw[k] + o] : 0.0f;
            }
            GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) {
                GPU_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = v_fma(d[r * ldd + o], wv[c], acc[r][c]);
            }
        }
        GPU_UNROLL for (int r = 0; r < FLEET_TILE; r++) {
            GPU_UNROLL for (int c = 0; c < 4; c++) {
                int at = (r0 + r) * ldb + c0 + c * across;
                float gate = under->act == NEAP_ACT_GELU ? b->sh[p->g[k - 1] + at] : 0.0f;
                b->sh[p->d[k - 1] + at] = f_gate(under->act, acc[r][c], b->sh[p->h[k - 1] + at], gate, p->net.leak);
            }
        }
    }
}

/* A slot decoded: where its 16 parameters lie, as 4 rows of 4 (wide) or 1 of 16. */
typedef struct slot {
    int layer, kind, row, col, rows; /* rows: valid ones of a wide tile's four */
    int w, ldw;                      /* in the block's weights */
    int p, ldp;                      /* in the parameter arrays */
} slot;

GPU_FN slot fleet_slot(const neap_plan *p, int s) {
    slot q;
    int r = 0;
    while (r + 1 < p->runs && s >= p->run[r + 1].first) r++;
    const plan_run *run = &p->run[r];
    const neap_layer *l = &p->net.layer[run->layer];
    int e = s - run->first;
    q.layer = run->layer, q.kind = run->kind, q.rows = 4;
    q.row = e / run->per_row, q.col = e % run->per_row * 16;
    if (q.kind == PLAN_WIDE) {
        q.row *= 4, q.col /= 4;
        if (l->in - q.row < 4) q.rows = l->in - q.row;
    }
    if (q.kind == PLAN_BIAS) {
        q.w = p->b[q.layer] + q.col, q.p = (int)l->b + q.col;
        q.ldw = 4, q.ldp = 4;
    } else {
        q.ldw = q.kind == PLAN_WIDE ? p->ldw[q.layer] : 4, q.ldp = q.kind == PLAN_WIDE ? (int)l->ld : 4;
        q.w = p->w[q.layer] + q.row * p->ldw[q.layer] + q.col, q.p = (int)l->w + q.row * (int)l->ld + q.col;
    }
    return q;
}

/* acc[16] += the gradient of a slot over n rows, in order of the rows. Element e lies at row e/4, column e%4 of its tile, or at column e. */
GPU_FN void fleet_grad(const block *b, const slot *q, int n, float *acc) {
    const neap_plan *p = b->p;
    int ldd = p->ldh[q->layer], ldin = q->layer ? p->ldh[q->layer - 1] : p->ldx;
    const float *d = b->sh + p->d[q->layer], *in = b->sh + (q->layer ? p->h[q->layer - 1] : p->x);
    if (q->kind == PLAN_WIDE) {
        in += q->row, d += q->col;
        for (int r = 0; r < n; r++, in += ldin, d += ldd) {
            GPU_UNROLL for (int i = 0; i < 4; i++) { GPU_UNROLL for (int c = 0; c < 4; c++) acc[4 * i + c] = v_fma(in[i], d[c], acc[4 * i + c]); }
        }
    } else if (q->kind == PLAN_NARROW) {
        in += q->col, d += q->row;
        for (int r = 0; r < n; r++, in += ldin, d += ldd) { GPU_UNROLL for (int c = 0; c < 16; c++) acc[c] = v_fma(*d, in[c], acc[c]); }
    } else {
        int width = p->width[q->layer] - q->col;
        d += q->col;
        for (int r = 0; r < n; r++, d += ldd) {
            GPU_UNROLL for (int c = 0; c < 16; c++) {
                if (c < width) acc[c] = v_add(acc[c], d[c]);
            }
        }
    }
}

/* The optimiser on a slot; m and v are the thread's own (registers, or loaded). */
GPU_FN void fleet_update(const block *b, const slot *q, const f_rule *rule, const float *grad, float *m, float *v) {
    GPU_UNROLL for (int e = 0; e < 16; e++) {
        if (e / 4 >= q->rows) continue;
        float *w = b->w + q->w + e / 4 * q->ldw + e % 4;
        float value = *w;
        f_update(rule, grad[e], &value, &m[e], &v[e]);
        *w = value;
    }
}

/* min(1, clip / (norm + 1e-6)), as clip.h: eight sums in double, then a tree. All threads return it. */
GPU_FN float fleet_clip(const block *b, const float *grad, float clip) {
    double *lane = (double *)(b->sh + b->p->flags + 8);
    gpu_sync(5);
    if (b->t < 8) {
        double sum = 0.0;
        for (size_t i = (size_t)b->t; i < b->p->net.params; i += 8) sum = d_fma((double)grad[i], (double)grad[i], sum);
        lane[b->t] = sum;
    }
    gpu_sync(6);
    double s[8];
    for (int i = 0; i < 8; i++) s[i] = lane[i];
    for (int step = 4; step; step /= 2)
        for (int i = 0; i < step; i++) s[i] = d_add(s[i], s[i + step]);
    double scale = d_div((double)clip, d_add(d_sqrt(s[0]), 1e-6));
    return scale < 1.0 ? (float)scale : 1.0f;
}

/* Copies parameters between the padded arrays and the block's weights (to: 1 = into shared memory). No-op if weights stay in global memory. */
GPU_FN void fleet_copy(const block *b, float *params, int to) {
    const neap_plan *p = b->p;
    for (int s = b->t; p->weights_shared && s < p->slots; s += FLEET_THREADS) {
        slot q = fleet_slot(p, s);
        for (int e = 0; e < 16; e++) {
            if (e / 4 >= q.rows) {
                if (to) b->w[q.w + e / 4 * q.ldw + e % 4] = 0.0f;
                continue;
            }
            if (to) b->w[q.w + e / 4 * q.ldw + e % 4] = params[q.p + e / 4 * q.ldp + e % 4];
            else params[q.p + e / 4 * q.ldp + e % 4] = b->w[q.w + e / 4 * q.ldw + e % 4];
        }
    }
}

/* Sum of the losses over a data set, into thread 0's tally. */
GPU_FN void fleet_total_loss(const block *b, const neap_hyper *h, const neap_data *d) {
    if (b->t == 0) fleet_tally_of(b)->sum = 0.0;
    for (int64_t at = 0; at < d->n; at += b->p->rows) {
        int n = d->n - at < b->p->rows ? (int)(d->n - at) : b->p->rows;
        fleet_gather(b, d, (const neap_perm *)0, at, n, 1);
        fleet_forward(b, n);
        fleet_loss(b, h, n, 1.0f, 0);
        if (b->t == 0) fleet_sum(b, n);
    }
}

/* That sum as a mean. Thread 0 only. */
GPU_FN double fleet_mean(const block *b, int64_t n) { return d_div(fleet_tally_of(b)->sum, d_mul((double)n, (double)b->p->net.out)); }

GPU_FN block fleet_block(const neap_plan *p, float *global_weights) {
    block b;
    b.p = p;
    b.sh = gpu_shared();
    b.w = p->weights_shared ? b.sh : global_weights;
    b.t = gpu_thread();
    return b;
}

/* The training kernels: one block a job, FLEET_THREADS threads, plan->shared_bytes of shared memory; jobs with that plan->owned. */
#define OWN 2
#include "kernels/cuda/fleet_train.h"
#undef OWN
#define OWN 4
#include "kernels/cuda/fleet_train.h"
#undef OWN
#define OWN 0
#include "kernels/cuda/fleet_train.h"
#undef OWN

/* Scoring: one block a job. */
GPU_KERNEL(neap_fleet_predict, fleet_scoring, FLEET_THREADS, 2) {
    fleet_score *j = &a.jobs[gpu_block()];
    block b = fleet_block(j->plan, (float *)j->w);
    const neap_plan *p = b.p;
    int last = p->net.layers - 1;
    if (b.t == 0) fleet_tally_of(&b)->sum = 0.0;
    fleet_copy(&b, (float *)j->w, 1);
    for (int64_t at = 0; at < j->data.n; at += p->rows) {
        int n = j->data.n - at < p->rows ? (int)(j->data.n - at) : p->rows;
        fleet_gather(&b, &j->data, (const neap_perm *)0, at, n, j->loss != 0);
        fleet_forward(&b, n);
        for (int e = b.t; j->out && e < n * p->net.out; e += FLEET_THREADS)
            j->out[at * p->net.out + e] = b.sh[p->h[last] + e / p->net.out * p->ldh[last] + e % p->net.out];
        if (j->loss) {
            fleet_loss(&b, &j->hyper, n, 1.0f, 0);
            if (b.t == 0) fleet_sum(&b, n);
        }
    }
    if (j->loss && b.t == 0) *j->loss = fleet_mean(&b, j->data.n);
}
#endif
