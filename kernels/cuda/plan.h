/* plan.h: how one network is laid out for a thread block: offsets in shared memory, and the slots of work of the optimiser. Made on the host, read by
   the device. A slot is 16 parameters that one thread owns for the whole run (a 4x4 tile of a wide layer, 16 of a row of a narrow one, 16 biases), so
   that gradient, moments and weight meet in one thread without a barrier.

   Rows of weights, activations and deltas are skewed by 4 floats: threads that walk rows then hit different shared-memory banks. */
#ifndef NEAP_PLAN_H
#define NEAP_PLAN_H
#include <string.h>
#include "kernels/kernels.h"

#ifndef FLEET_THREADS
#define FLEET_THREADS 256 /* threads of a block; 128 suits a tile of 8 rows */
#endif
#ifndef FLEET_TILE
#define FLEET_TILE 4 /* rows of a thread's tile: 4 or 8 */
#endif

enum { PLAN_WIDE, PLAN_NARROW, PLAN_BIAS };

typedef struct plan_run {            /* consecutive slots of one kind */
    int first, kind, layer, per_row; /* per_row: slots in one row of tiles */
} plan_run;

typedef struct neap_plan {
    neap_net net;
    int rows, threads, slots, runs, owned; /* owned: slots a thread keeps in registers (2 or 4), 0: moments stay in memory */
    int weights_shared;                    /* 0: too large, weights stay in global memory */
    plan_run run[2 * NEAP_MAX_LAYERS];
    /* offsets in floats */
    int w[NEAP_MAX_LAYERS], b[NEAP_MAX_LAYERS], ldw[NEAP_MAX_LAYERS];
    int x, ldx, y, index, loss, flags;
    int h[NEAP_MAX_LAYERS], g[NEAP_MAX_LAYERS], d[NEAP_MAX_LAYERS], ldh[NEAP_MAX_LAYERS], width[NEAP_MAX_LAYERS]; /* width: columns in use, padded */
    size_t shared_bytes;
} neap_plan;

#ifdef __CUDACC__
__host__ __device__
#endif
    static inline int
    plan_pad(int n, int to) {
    return (n + to - 1) / to * to;
}

/* Lays out for `rows` samples at a time; returns the shared memory it takes. */
static inline size_t plan_layout(neap_plan *p, int rows, int weights_shared) {
    int at = 0;
    p->rows = rows;
    p->weights_shared = weights_shared;
    for (int i = 0; i < p->net.layers; i++) {
        const neap_layer *l = &p->net.layer[i];
        p->ldw[i] = (int)l->ld + (weights_shared ? 4 : 0);
        p->w[i] = weights_shared ? at : (int)l->w;
        if (weights_shared) at += p->ldw[i] * (l->narrow ? l->out : plan_pad(l->in, 4));
        p->b[i] = weights_shared ? at : (int)l->b;
        if (weights_shared) at += plan_pad(l->out, 16);
    }
    p->ldx = (int)p->net.ldx + 4;
    p->x = at, at += rows * p->ldx;
    for (int i = 0; i < p->net.layers; i++) {
        int end = i == p->net.layers - 1 && p->net.layer[i].narrow; /* nothing reads these in full lanes */
        p->width[i] = plan_pad(p->net.layer[i].out, end ? 4 : 16);
        p->ldh[i] = p->width[i] + (end ? 0 : 4);
        p->h[i] = at, at += rows * p->ldh[i];
        p->d[i] = at, at += rows * p->ldh[i];
        p->g[i] = at;
        if (p->net.layer[i].act == NEAP_ACT_GELU) at += rows * p->ldh[i];
    }
    p->y = at, at += plan_pad(rows * p->net.out, 4);
    p->loss = at, at += plan_pad(rows * p->net.out, 4);
    p->index = at, at += plan_pad(rows, 4);
    p->flags = plan_pad(at, 4), at = p->flags + 48; /* 2 flags, 8 doubles from 8, an f_rule from 24, a fleet_tally from 36 */
    return p->shared_bytes = (size_t)at * sizeof(float);
}

/* The plan of a network on a device with `limit` bytes of shared memory a block. 0, or -1 if even four rows do not fit. */
static inline int plan_make(neap_plan *p, const neap_net *net, size_t limit) {
    memset(p, 0, sizeof *p);
    p->net = *net;
    p->threads = FLEET_THREADS;
    if (net->params > INT32_MAX / 4) return -1;
    int rows = NEAP_CHUNK, fits = 0;
    for (int shared = 1; shared >= 0 && !fits; shared--)
        for (rows = NEAP_CHUNK; rows >= FLEET_TILE && !(fits = plan_layout(p, rows, shared) <= limit);) rows /= 2;
    if (!fits) return -1;
    for (int i = 0; i < net->layers; i++) {
        const neap_layer *l = &net->layer[i];
        int per_row = (int)l->ld / (l->narrow ? 16 : 4);
        p->run[p->runs++] = (plan_run){p->slots, l->narrow ? PLAN_NARROW : PLAN_WIDE, i, per_row};
        p->slots += per_row * (l->narrow ? l->out : plan_pad(l->in, 4) / 4);
        p->run[p->runs++] = (plan_run){p->slots, PLAN_BIAS, i, plan_pad(l->out, 16) / 16};
        p->slots += plan_pad(l->out, 16) / 16;
    }
    p->owned = !p->weights_shared ? 0 : p->slots <= 2 * p->threads ? 2 : p->slots <= 4 * p->threads ? 4 : 0;
    return 0;
}

/* What a block gets: pointers are device memory (under the shim: ordinary memory). */
typedef struct fleet_job {
    const neap_plan *plan;
    neap_hyper hyper;
    neap_data train, val;           /* val.n == 0: none */
    float *w, *m, *v, *grad, *best; /* [params]; grad only if batch > rows or clip; best may be NULL */
    int64_t t, epoch0;
    uint64_t seed;
    int batch, epochs, patience, shuffle;
    const neap_perm *perms;             /* [epochs], keys hashed on the host */
    double *train_loss, *val_loss;      /* [epochs] */
    double best_loss;                   /* in and out, as the three below: a job runs in several launches */
    int epochs_done, best_epoch, ended; /* ended: early stopping has decided */
} fleet_job;

/* Arguments of the kernels. */
typedef struct fleet_launch {
    fleet_job *jobs;
    int from, to; /* epochs */
} fleet_launch;

typedef struct fleet_score {
    const neap_plan *plan;
    neap_hyper hyper;
    neap_data data;
    const float *w;
    float *out;
    double *loss;
} fleet_score;

typedef struct fleet_scoring {
    fleet_score *jobs;
} fleet_scoring;
#endif
