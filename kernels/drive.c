/* drive.c: whole training and scoring jobs on the CPU, from a backend's batch functions. Jobs (models) are handed to threads by an atomic counter; a
   job never leaves its thread, so a model trained in a fleet has the bits of one trained alone. A single large job may instead split each batch over
   a team (team.h). Threads live for one call: starting one costs 20 us, a fleet takes seconds. */
#include "kernels/lane_scalar.h"
#include "kernels/formulas.h"
#include "kernels/drive.h"
#include "kernels/team.h"
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Sum of the losses of `count` outputs. One order: sample by sample, output by output. */
static double loss_of(const neap_hyper *h, const float *z, const float *y, int64_t count) {
    double sum = 0.0;
    float unused;
    for (int64_t i = 0; i < count; i++) sum += (double)f_loss(h->loss, z[i], y[i], h->huber, 1.0f, &unused);
    return sum;
}

static int polled(const neap_progress *p) { return p && p->poll && p->poll(p->ud); }

static int predict_one(const neap_kernels *k, neap_predict_job *j, neap_work *work, const neap_progress *p) {
    const neap_net *net = j->net;
    int direct =
        j->data->x && !j->loss && net->ldx == j->data->ldx && !(net->layer[0].narrow && net->in < net->ldx); /* rows already laid out: no copy */
    double sum = 0.0;
    if (j->loss && j->data->x && !j->data->y) return NEAP_KERN_INVALID;
    for (int64_t at = 0; at < j->data->n; at += work->rows) {
        int rows = j->data->n - at < work->rows ? (int)(j->data->n - at) : work->rows;
        const float *x = work->x;
        long ldx = net->ldx;
        float *out = j->out ? j->out + at * net->out : work->z;
        if (direct) x = j->data->x + at * ldx;
        else k->gather(net, j->data, NULL, at, rows, work->x, j->loss ? work->y : NULL);
        k->forward(net, j->w, x, ldx, rows, out, work);
        if (j->loss) sum += loss_of(j->hyper, out, work->y, (int64_t)rows * net->out);
        if ((at / work->rows) % 64 == 63 && polled(p)) return NEAP_KERN_CANCELLED;
    }
    if (j->loss) *j->loss = j->data->n ? sum / ((double)j->data->n * net->out) : NAN;
    return 0;
}

static int train_one(const neap_kernels *k, neap_train_job *j, neap_work *work, const neap_progress *p) {
    const neap_net *net = j->net;
    int64_t n = j->train->n;
    j->best_loss = INFINITY;
    j->best_epoch = j->epochs_done = 0;
    if (n < 1 || n >= UINT32_MAX || j->batch < 1 || (j->train->x && !j->train->y)) return NEAP_KERN_INVALID;
    for (int e = 0; e < j->epochs; e++) {
        neap_perm perm;
        neap_perm_init(&perm, (uint32_t)n, j->seed, (uint64_t)(j->epoch0 + e));
        double sum = 0.0;
        int64_t ahead = work->indices / j->batch * j->batch; /* samples whose order is made at once */
        for (int64_t at = 0, step = 0; at < n; at += j->batch, step++) {
            int rows = n - at < j->batch ? (int)(n - at) : j->batch;
            if (j->shuffle && at % ahead == 0) k->shuffle(&perm, (uint32_t)at, (int)(n - at < ahead ? n - at : ahead), work->index);
            k->gather(net, j->train, j->shuffle ? work->index + at % ahead : NULL, at, rows, work->x, work->y);
            sum += k->step(net, j->hyper, j->state, work->x, net->ldx, work->y, rows, work);
            if (step % 64 == 63 && polled(p)) return NEAP_KERN_CANCELLED;
        }
        if (j->train_loss) j->train_loss[e] = sum / ((double)n * net->out);
        j->epochs_done = e + 1;
        if (j->val && j->val->n > 0) {
            double loss;
            neap_predict_job v = {.net = net, .w = j->state->w, .data = j->val, .hyper = j->hyper, .loss = &loss};
            int rc = predict_one(k, &v, work, p);
            if (rc) return rc;
            if (j->val_loss) j->val_loss[e] = loss;
            if (loss < j->best_loss) {
                j->best_loss = loss;
                j->best_epoch = e + 1;
                if (j->best) memcpy(j->best, j->state->w, net->params * sizeof(float));
            } else if (j->patience > 0 && e + 1 - j->best_epoch >= j->patience) {
                break;
            }
        }
        if (polled(p)) return NEAP_KERN_CANCELLED;
    }
    return 0;
}

/* A job and its work: floating-point operations, roughly. */
typedef struct turn {
    double work;
    size_t job;
} turn;

/* What one call's threads share. */
typedef struct crew {
    const neap_kernels *k;
    neap_train_job *train;
    neap_predict_job *predict;
    size_t n;
    struct turn *order; /* largest first, so that no thread ends on a long one alone; NULL: as they come */
    atomic_size_t next;
    atomic_int stop;
    const neap_progress *p;
} crew;

static int crew_poll(void *ud) {
    crew *c = ud;
    if (!atomic_load_explicit(&c->stop, memory_order_relaxed) && polled(c->p)) atomic_store(&c->stop, 1);
    return atomic_load_explicit(&c->stop, memory_order_relaxed);
}

static const neap_net *job_net(const crew *c, size_t i) { return c->train ? c->train[i].net : c->predict[i].net; }

static int job_rows(const crew *c, size_t i) { return c->train && c->train[i].batch > NEAP_CHUNK ? c->train[i].batch : NEAP_CHUNK; }

/* Takes jobs until none is left. Scratch is the job's own, or ours, kept while shape and rows repeat, as they do in a fleet. */
static void crew_run(crew *c, neap_team *team) {
    neap_work ours = {0};
    const neap_net *carved = NULL;
    neap_progress p = {crew_poll, c};
    size_t at;
    while ((at = atomic_fetch_add(&c->next, 1)) < c->n) {
        size_t i = c->order ? c->order[at].job : at;
        int *status = c->train ? &c->train[i].status : &c->predict[i].status, rows = job_rows(c, i), rc = 0;
        neap_work *work = c->train ? c->train[i].work : c->predict[i].work;
        if (crew_poll(c)) rc = NEAP_KERN_CANCELLED;
        if (!rc && (!work || work->rows < rows || team)) {
            work = &ours;
            if (carved != job_net(c, i) || ours.rows < rows) {
                neap_work_free(&ours);
                carved = job_net(c, i);
                rc = neap_work_init(&ours, carved, rows, team ? NEAP_TEAM_CHUNK : NEAP_CHUNK);
                if (rc) carved = NULL;
                ours.team = team;
            }
        }
        if (!rc) rc = c->train ? train_one(c->k, &c->train[i], work, &p) : predict_one(c->k, &c->predict[i], work, &p);
        *status = rc;
    }
    neap_work_free(&ours);
}

static void *crew_thread(void *arg) {
    crew_run(arg, NULL);
    return NULL;
}

static int larger_first(const void *a, const void *b) {
    const turn *x = a, *y = b;
    return x->work != y->work ? (x->work < y->work) - (x->work > y->work) : (x->job > y->job) - (x->job < y->job);
}

static turn *crew_order(const crew *c) {
    turn *order = malloc(c->n * sizeof *order);
    for (size_t i = 0; order && i < c->n; i++) {
        const neap_train_job *t = c->train ? &c->train[i] : NULL;
        double samples = t ? (double)(t->train->n + (t->val ? t->val->n / 3 : 0)) * t->epochs : (double)c->predict[i].data->n;
        order[i] = (turn){samples * (double)job_net(c, i)->params, i};
    }
    if (order) qsort(order, c->n, sizeof *order, larger_first);
    return order;
}

static int crew_start(crew *c, int threads) {
    pthread_t thread[64];
    int extra = 0;
    if (threads > 64) threads = 64;
    if (c->n == 1 && threads > 1 && c->train && c->train[0].batch >= NEAP_TEAM_ROWS) {
        neap_team *team = neap_team_new(threads);
        crew_run(c, team);
        neap_team_free(team);
    } else {
        if (threads > 1 && c->n > 1) c->order = crew_order(c);
        while (extra < threads - 1 && (size_t)extra + 1 < c->n && !pthread_create(&thread[extra], NULL, crew_thread, c)) extra++;
        crew_run(c, NULL);
        for (int i = 0; i < extra; i++) pthread_join(thread[i], NULL);
        free(c->order);
    }
    for (size_t i = 0; i < c->n; i++) {
        int rc = c->train ? c->train[i].status : c->predict[i].status;
        if (rc) return rc;
    }
    return 0;
}

int drive_train(const neap_kernels *k, neap_train_job *jobs, size_t n, int threads, const neap_progress *p) {
    crew c = {.k = k, .train = jobs, .n = n, .p = p};
    return crew_start(&c, threads);
}

/* One big scoring job becomes a job per thread: rows are independent, so the cut changes no bits. */
static int predict_split(const neap_kernels *k, const neap_predict_job *job, int threads, const neap_progress *p) {
    neap_predict_job part[64];
    neap_data data[64];
    int n = threads > 64 ? 64 : threads;
    for (int i = 0; i < n; i++) {
        int64_t lo = job->data->n * i / n, hi = job->data->n * (i + 1) / n;
        data[i] = *job->data;
        data[i].n = hi - lo;
        if (data[i].x) data[i].x += lo * data[i].ldx;
        else if (data[i].starts) data[i].starts += lo;
        else data[i].first += lo * data[i].stride;
        part[i] = *job;
        part[i].data = &data[i];
        part[i].work = NULL;
        part[i].out = job->out + lo * job->net->out;
    }
    crew c = {.k = k, .predict = part, .n = (size_t)n, .p = p};
    return crew_start(&c, n);
}

int drive_predict(const neap_kernels *k, neap_predict_job *jobs, size_t n, int threads, const neap_progress *p) {
    if (n == 1 && threads > 1 && !jobs->loss && jobs->data->n >= 8192) return jobs->status = predict_split(k, jobs, threads, p);
    crew c = {.k = k, .predict = jobs, .n = n, .p = p};
    return crew_start(&c, threads);
}
