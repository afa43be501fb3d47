/* fleet.cu: whole training and scoring jobs on the GPU, host pointers in, host pointers out. Series travel once a call; windows are formed on the
   device. A call launches a few epochs at a time, so that it can be cancelled between launches. */
#include "kernels/cuda/call.h"
#include "kernels/cuda/fleet.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int order_by_plan(const void *a, const void *b) {
    const int *x = (const int *)a, *y = (const int *)b; /* pairs: plan, job */
    return x[0] != y[0] ? x[0] - y[0] : x[1] - y[1];
}

/* Launches epochs from..to-1 of all jobs, plan by plan. */
static void launch(call *c, const int *order, int n, fleet_job *dev, int from, int to) {
    for (int i = 0; i < n && !c->rc;) {
        int plan = order[2 * i], k = i;
        const neap_plan *p = &c->host_plans[plan];
        const void *kernel = p->owned == 2 ? (const void *)neap_fleet_train_2 : p->owned == 4 ? (const void *)neap_fleet_train_4 : (const void *)neap_fleet_train_0;
        while (k < n && order[2 * k] == plan) k++;
        fleet_launch a = {dev + i, from, to};
        call_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p->shared_bytes), "shared memory");
        if (c->rc) return;
        if (p->owned == 2) GPU_LAUNCH(neap_fleet_train_2, k - i, p->threads, p->shared_bytes, c->stream, a);
        else if (p->owned == 4) GPU_LAUNCH(neap_fleet_train_4, k - i, p->threads, p->shared_bytes, c->stream, a);
        else GPU_LAUNCH(neap_fleet_train_0, k - i, p->threads, p->shared_bytes, c->stream, a);
        call_check(c, cudaGetLastError(), "launch");
        (void)kernel;
        i = k;
    }
}

/* Everything a job needs, to the device. `perms` has room for its epochs. */
static void send_job(call *c, const neap_train_job *j, int plan, fleet_job *f, neap_perm *perms) {
    const neap_plan *p = &c->host_plans[plan];
    size_t bytes = j->net->params * sizeof(float), curve = (size_t)j->epochs * sizeof(double);
    memset(f, 0, sizeof *f);
    f->plan = c->plans[plan], f->hyper = *j->hyper;
    f->train = call_data(c, j->net, j->train);
    if (j->val) f->val = call_data(c, j->net, j->val);
    f->w = (float *)call_take(c, &c->state, bytes);
    f->m = (float *)call_take(c, &c->moments, 2 * bytes);
    if (j->batch > p->rows || j->hyper->clip > 0.0f) f->grad = (float *)call_take(c, &c->scratch, bytes);
    if (j->best) f->best = (float *)call_take(c, &c->scratch, bytes);
    f->train_loss = (double *)call_take(c, &c->scratch, 2 * curve);
    f->perms = (neap_perm *)call_take(c, &c->in, (size_t)j->epochs * sizeof *perms);
    if (c->rc) return;
    f->v = f->m + j->net->params;
    f->val_loss = f->train_loss + j->epochs;
    call_put(c, f->w, j->state->w, bytes);
    if (j->state->t == 0) call_zero(c, f->m, 2 * bytes); /* before the first step both are zero */
    else call_put(c, f->m, j->state->m, bytes), call_put(c, f->v, j->state->v, bytes);
    f->t = j->state->t, f->epoch0 = j->epoch0, f->seed = j->seed, f->best_loss = INFINITY;
    f->batch = j->batch, f->epochs = j->epochs, f->patience = j->patience, f->shuffle = j->shuffle;
    for (int e = 0; e < j->epochs; e++) neap_perm_init(&perms[e], (uint32_t)j->train->n, j->seed, (uint64_t)(j->epoch0 + e));
    call_put(c, (void *)f->perms, perms, (size_t)j->epochs * sizeof *perms);
}

static void take_back(call *c, neap_train_job *j, const fleet_job *f, int cancelled) {
    size_t bytes = j->net->params * sizeof(float), curve = (size_t)f->epochs_done * sizeof(double);
    call_fetch_later(c, j->state->w, f->w, bytes), call_fetch_later(c, j->state->m, f->m, bytes), call_fetch_later(c, j->state->v, f->v, bytes);
    if (j->best && f->best_epoch) call_fetch_later(c, j->best, f->best, bytes);
    if (j->train_loss) call_fetch_later(c, j->train_loss, f->train_loss, curve);
    if (j->val_loss && j->val) call_fetch_later(c, j->val_loss, f->val_loss, curve);
    j->state->t = f->t, j->epochs_done = f->epochs_done, j->best_epoch = f->best_epoch, j->best_loss = f->best_loss;
    j->status = cancelled ? NEAP_KERN_CANCELLED : 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Epochs in launches of about a tenth of a second: one epoch, then as many as its time allows. Returns 1 if cancelled. */
static int run_epochs(call *c, const int *order, int n, fleet_job *dev, int most, const neap_progress *progress) {
    for (int from = 0, slice = 1; from < most && !c->rc;) {
        double start = now();
        int to = most - from > slice ? from + slice : most;
        launch(c, order, n, dev, from, to);
        call_wait(c, "training");
        double each = (now() - start) / slice;
        from = to;
        slice = each > 0.1 ? 1 : (int)(0.1 / (each + 1e-6));
        if (progress && progress->poll && progress->poll(progress->ud)) return 1;
    }
    return 0;
}

int gpu_train(const neap_kernels *k, neap_train_job *jobs, size_t count, int threads, const neap_progress *progress) {
    call c;
    int n = 0, most = 0, cancelled = 0;
    int *order = (int *)malloc((count + 1) * 2 * sizeof *order);
    fleet_job *host = (fleet_job *)calloc(count + 1, sizeof *host);
    call_open(&c);
    if (!order || !host) c.rc = NEAP_KERN_MEMORY;
    for (size_t i = 0; i < count && !c.rc; i++) {
        neap_train_job *j = &jobs[i];
        j->status = j->train->n < 1 || j->train->n >= UINT32_MAX || j->batch < 1 || (j->train->x && !j->train->y) ? NEAP_KERN_INVALID : 0;
        j->epochs_done = j->best_epoch = 0, j->best_loss = INFINITY;
        if (j->status || j->epochs < 1) continue;
        order[2 * n] = call_plan(&c, j->net);
        order[2 * n++ + 1] = (int)i;
        if (j->epochs > most) most = j->epochs;
    }
    neap_perm *perms = (neap_perm *)malloc((size_t)(most + 1) * sizeof *perms);
    if (!perms) c.rc = NEAP_KERN_MEMORY;
    if (!c.rc) qsort(order, (size_t)n, 2 * sizeof *order, order_by_plan);
    for (int i = 0; i < n && !c.rc; i++) send_job(&c, &jobs[order[2 * i + 1]], order[2 * i], &host[i], perms);
    fleet_job *dev = (fleet_job *)call_take(&c, &c.in, (size_t)n * sizeof *dev);
    call_put(&c, dev, host, (size_t)n * sizeof *dev);
    call_wait(&c, "copy to the GPU");
    if (!c.rc) cancelled = run_epochs(&c, order, n, dev, most, progress);
    if (n) call_fetch_later(&c, host, dev, (size_t)n * sizeof *dev);
    call_fetch_all(&c);
    for (int i = 0; i < n && !c.rc; i++) take_back(&c, &jobs[order[2 * i + 1]], &host[i], cancelled);
    call_fetch_all(&c);
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

/* The pieces of one job, each for a thread block, to `list`; without a list only their number. A loss is one ordered sum: one piece. */
static int64_t cut(const neap_predict_job *j, const neap_plan *dev_plan, const neap_data *d, const float *w, float *out, double *loss, fleet_score *list) {
    int64_t n = j->data->n, pieces = j->loss ? 1 : (n + 4095) / 4096;
    if (pieces > 8 * gpu.processors) pieces = 8 * gpu.processors;
    for (int64_t s = 0; list && s < pieces; s++) {
        int64_t lo = n * s / pieces, hi = n * (s + 1) / pieces;
        fleet_score *f = &list[s];
        memset(f, 0, sizeof *f);
        f->plan = dev_plan, f->data = *d, f->w = w, f->out = out ? out + lo * j->net->out : NULL, f->loss = loss;
        if (j->hyper) f->hyper = *j->hyper;
        f->data.n = hi - lo;
        if (d->x) f->data.x += lo * d->ldx, f->data.y = d->y ? d->y + lo * d->ldy : NULL;
        else if (d->starts) f->data.starts += lo;
        else f->data.first += lo * d->stride;
    }
    return pieces;
}

int gpu_predict(const neap_kernels *k, neap_predict_job *jobs, size_t count, int threads, const neap_progress *progress) {
    call c;
    size_t n = 0, at = 0;
    int *order = (int *)malloc((count + 1) * 2 * sizeof *order);
    fleet_score *host = NULL;
    call_open(&c);
    if (!order) c.rc = NEAP_KERN_MEMORY;
    for (size_t i = 0; i < count && !c.rc; i++) {
        neap_predict_job *j = &jobs[i];
        if (j->loss) *j->loss = NAN;
        if ((j->status = j->loss && j->data->x && !j->data->y ? NEAP_KERN_INVALID : 0) || j->data->n < 1) continue;
        order[2 * n] = call_plan(&c, j->net);
        order[2 * n++ + 1] = (int)i;
        at += (size_t)cut(j, NULL, NULL, NULL, NULL, NULL, NULL);
    }
    if (!c.rc) qsort(order, n, 2 * sizeof *order, order_by_plan);
    if (!c.rc && !(host = (fleet_score *)calloc(at + 1, sizeof *host))) c.rc = NEAP_KERN_MEMORY;
    fleet_score *dev = (fleet_score *)call_take(&c, &c.scratch, at * sizeof *dev);
    at = 0;
    for (size_t i = 0, first; i < n && !c.rc;) { /* all jobs of one plan in one launch */
        int plan = order[2 * i];
        const neap_plan *p = &c.host_plans[plan];
        for (first = at; i < n && order[2 * i] == plan && !c.rc; i++) {
            neap_predict_job *j = &jobs[order[2 * i + 1]];
            size_t bytes = (size_t)j->data->n * j->net->out * sizeof(float);
            const float *w = (const float *)call_share(&c, j->w, j->net->params * sizeof(float));
            float *out = j->out ? (float *)call_take(&c, &c.scratch, bytes) : NULL;
            double *loss = j->loss ? (double *)call_take(&c, &c.scratch, sizeof *loss) : NULL;
            neap_data d = call_data(&c, j->net, j->data);
            if (c.rc) break;
            at += (size_t)cut(j, c.plans[plan], &d, w, out, loss, host + at);
            if (out) call_fetch_later(&c, j->out, out, bytes);
            if (loss) call_fetch_later(&c, j->loss, loss, sizeof *loss);
        }
        call_put(&c, dev + first, host + first, (at - first) * sizeof *dev);
        if (!c.rc) c.rc = gpu_stage_flush(&c.stage);
        call_check(&c, cudaFuncSetAttribute((const void *)neap_fleet_predict, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p->shared_bytes), "shared memory");
        fleet_scoring a = {dev + first};
        if (!c.rc) GPU_LAUNCH(neap_fleet_predict, at - first, p->threads, p->shared_bytes, c.stream, a);
        call_check(&c, cudaGetLastError(), "launch");
        if (progress && progress->poll && progress->poll(progress->ud)) c.rc = c.rc ? c.rc : NEAP_KERN_CANCELLED;
    }
    call_wait(&c, "scoring");
    call_fetch_all(&c);
    int rc = c.rc;
    for (size_t i = 0; i < count; i++) {
        if (c.rc) jobs[i].status = c.rc;
        if (!rc) rc = jobs[i].status;
    }
    call_close(&c);
    free(order), free(host);
    return rc;
}
