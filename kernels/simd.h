/* simd.h: the fused trainer for vector CPUs, one source compiled for 8 lanes (mlp_avx2.c) and for 16 (mlp_avx512.c). A chunk of samples goes
   forward and back while its activations are in L2; bias, activation, gate and optimiser run in the tiles' ends. Same definitions as scalar.c, same
   bits. With a team, members cut forward and delta work over samples and gradient work over weight rows (never over a sum), meeting at barriers. */
#include "kernels/formulas.h"
#include "kernels/gather.h"
#include "kernels/perm.h"
#include "kernels/clip.h"
#include "kernels/drive.h"
#include "kernels/team.h"
#include "kernels/ops.h"
#include "kernels/tile.h"
#include "kernels/transpose.h"
#include "kernels/matmul.h"
#include <time.h>

/* sum of a[i]*b[i], n a multiple of 16: 16 lanes, then the tree */
LANE_FN float dot(const float *a, const float *b, long n) {
    V acc[16 / LANE];
    for (int c = 0; c < 16 / LANE; c++) acc[c] = v_set1(0.0f);
    for (long i = 0; i < n; i += 16)
        for (int c = 0; c < 16 / LANE; c++) acc[c] = v_fma(v_load(a + i + c * LANE), v_load(b + i + c * LANE), acc[c]);
    return v_tree(acc);
}

/* The activations that are too long for a tile's end: in place over h[n], n a multiple of 16. */
static __attribute__((noinline)) void act_pass(int act, float leak, float *h, float *g, long n) {
    for (long i = 0; i < n; i += LANE) {
        V gate = v_set1(0.0f);
        v_store(h + i, f_act(act, v_load(h + i), leak, &gate));
        if (g) v_store(g + i, gate);
    }
}

static __attribute__((noinline)) void gate_pass(int act, float leak, float *d, const float *h, const float *g, long n) {
    for (long i = 0; i < n; i += LANE) v_store(d + i, f_gate(act, v_load(d + i), v_load(h + i), g ? v_load(g + i) : v_set1(0.0f), leak));
}

/* The dot products of V_ROWS rows of x with w, each as dot() would make it. */
LANE_FN void dot_rows(const float *x, long ldx, const float *w, long n, float *sums) {
    V acc[V_ROWS][16 / LANE];
#pragma GCC unroll 16
    for (int r = 0; r < V_ROWS; r++)
        for (int c = 0; c < 16 / LANE; c++) acc[r][c] = v_set1(0.0f);
    for (long i = 0; i < n; i += 16)
#pragma GCC unroll 16
        for (int r = 0; r < V_ROWS; r++)
            for (int c = 0; c < 16 / LANE; c++) acc[r][c] = v_fma(v_load(x + r * ldx + i + c * LANE), v_load(w + i + c * LANE), acc[r][c]);
    v_tree_rows(acc, sums);
}

/* A narrow layer's outputs, one dot product each. */
static void narrow_forward(const neap_layer *l, const float *w, float leak, const float *x, long ldx, int n, float *h, float *g) {
    for (int o = 0; o < l->out; o++) {
        const float *wo = w + l->w + o * l->ld;
        float bias = w[l->b + o], sums[V_ROWS];
        int r = 0;
        for (; r + V_ROWS <= n; r += V_ROWS) {
            dot_rows(x + r * ldx, ldx, wo, l->ld, sums);
            for (int q = 0; q < V_ROWS; q++) h[(r + q) * l->ldh + o] = sums[q] + bias;
        }
        for (; r < n; r++) h[r * l->ldh + o] = dot(x + r * ldx, wo, l->ld) + bias;
    }
    if (l->act != NEAP_ACT_LINEAR) act_pass(l->act, leak, h, g, n * l->ldh);
}

static void layer_forward(const neap_layer *l, const float *w, float leak, const float *x, long ldx, int n, float *h, float *g) {
    if (l->narrow) {
        narrow_forward(l, w, leak, x, ldx, n, h, g);
        return;
    }
    tile_job j = {.a = x,
                  .a_row = ldx,
                  .a_k = 1,
                  .b = w + l->w,
                  .ldb = l->ld,
                  .k = l->in,
                  .c = h,
                  .ldc = l->ldh,
                  .bias = w + l->b,
                  .relu = l->act == NEAP_ACT_RELU};
    tile_forward(&j, n, l->ld);
    if (l->act > NEAP_ACT_RELU) act_pass(l->act, leak, h, g, n * l->ldh);
}

/* One training step as its members see it. */
typedef struct step_job {
    const neap_net *net;
    const neap_hyper *h;
    neap_state *s;
    neap_work *work;
    const float *x, *y;
    long ldx;
    int n;
    f_rule rule;
} step_job;

/* Loss and output delta of samples lo..hi-1 (positions in the chunk); losses go to work->z. */
static void output_delta(const step_job *s, const float *y, float *losses, int lo, int hi) {
    const neap_layer *l = &s->net->layer[s->net->layers - 1];
    const float *z = s->work->h[s->net->layers - 1];
    float scale = 1.0f / (float)((int64_t)s->n * l->out), *d = s->work->d[0];
    int packed = l->ldh == l->out; /* one long row, or padded rows */
    long width = packed ? (long)(hi - lo) * l->out : l->out;
    for (int r = lo; r < (packed ? lo + 1 : hi); r++) {
        for (long i = 0; i < width; i += LANE) {
            float zt[LANE] = {0}, yt[LANE] = {0}, lt[LANE], dt[LANE];
            long at = r * l->ldh + i, aty = (long)r * l->out + i, m = width - i < LANE ? width - i : LANE;
            V dv;
            if (m == LANE) {
                v_store(losses + aty, f_loss(s->h->loss, v_load(z + at), v_load(y + aty), s->h->huber, scale, &dv));
                v_store(d + at, dv);
                continue;
            }
            memcpy(zt, z + at, (size_t)m * sizeof(float));
            memcpy(yt, y + aty, (size_t)m * sizeof(float));
            v_store(lt, f_loss(s->h->loss, v_load(zt), v_load(yt), s->h->huber, scale, &dv));
            v_store(dt, dv);
            memcpy(losses + aty, lt, (size_t)m * sizeof(float));
            memcpy(d + at, dt, (size_t)m * sizeof(float));
        }
        if (!packed && l->out < l->ldh) memset(d + r * l->ldh + l->out, 0, (size_t)(l->ldh - l->out) * sizeof(float));
    }
}

/* below[lo..hi) = (d W) gated by the activations of the layer below */
static void layer_delta(const step_job *s, int k, const float *d, float *below, int lo, int hi) {
    const neap_layer *l = &s->net->layer[k], *b = l - 1;
    const float *w = s->s->w + l->w, *h = s->work->h[k - 1] + lo * b->ldh, *g = s->work->g[k - 1];
    tile_job j = {.a = d + lo * l->ldh,
                  .a_row = l->ldh,
                  .a_k = 1,
                  .b = l->narrow ? w : s->work->wt[k],
                  .ldb = l->narrow ? l->ld : b->ldh,
                  .k = l->out,
                  .c = below + lo * b->ldh,
                  .ldc = b->ldh,
                  .h = h,
                  .relu = b->act == NEAP_ACT_RELU};
    tile_delta(&j, hi - lo, b->ldh);
    if (b->act > NEAP_ACT_RELU) gate_pass(b->act, s->net->leak, below + lo * b->ldh, h, g ? g + lo * b->ldh : NULL, (hi - lo) * b->ldh);
}

/* A narrow layer's bias gradient: a chain of additions per output. A wide one's is summed by the tiles, which hold the deltas anyway. */
static void bias_grad(const neap_layer *l, const float *d, int rows, float *grad) {
    for (int o = 0; o < l->out; o++) {
        float acc = grad[o];
        for (int r = 0; r < rows; r++) acc += d[r * l->ldh + o];
        grad[o] = acc;
    }
}

static void bias_update(const step_job *s, const neap_layer *l) {
    float *grad = s->work->grad + l->b, *w = s->s->w + l->b, *m = s->s->m + l->b, *v = s->s->v + l->b;
    for (long i = 0; i < l->out; i += LANE) {
        V wv = v_load(w + i), mv = v_load(m + i), vv = v_load(v + i);
        f_update(&s->rule, v_load(grad + i), &wv, &mv, &vv);
        v_store(w + i, wv), v_store(m + i, mv), v_store(v + i, vv);
    }
}

/* Weight gradient of layer k over the chunk, rows of this member only; fused with the update when `last`. */
static void layer_grad(const step_job *s, int k, const float *in, long ldin, const float *d, int rows, int resume, int last, int member, int size) {
    const neap_layer *l = &s->net->layer[k];
    float *grad = s->work->grad + l->w;
    const float *a = l->narrow ? d : in, *b = l->narrow ? in : d;
    long lda = l->narrow ? l->ldh : ldin, ldb = l->narrow ? ldin : l->ldh;
    int count = l->narrow ? l->out : l->in, lo = (int)((long)count * member / size), hi = (int)((long)count * (member + 1) / size);
    tile_job j = {.a = a,
                  .a_row = 1,
                  .a_k = lda,
                  .b = b,
                  .ldb = ldb,
                  .k = rows,
                  .c = grad,
                  .ldc = l->ld,
                  .resume = resume,
                  .rule = &s->rule,
                  .w = s->s->w + l->w,
                  .m = s->s->m + l->w,
                  .v = s->s->v + l->w};
    if (member == size - 1) { /* the bias, too: this member's part is never empty */
        float *sum = s->work->grad + l->b;
        if (!resume) memset(sum, 0, (size_t)((l->out + 15) / 16 * 16) * sizeof *sum);
        if (l->narrow) bias_grad(l, d, rows, sum);
        else j.sum = sum;
    }
    if (last) tile_update(&j, lo, hi, l->ld);
    else tile_grad(&j, lo, hi, l->ld);
    if (member == size - 1 && last) bias_update(s, l);
}

#define MEET                                                                                                                                         \
    if (size > 1) neap_team_barrier(s->work->team)

static void step_part(void *arg, int member, int size) {
    const step_job *s = arg;
    const neap_net *net = s->net;
    neap_work *work = s->work;
    int chunk = size > 1 ? NEAP_TEAM_CHUNK : NEAP_CHUNK;
    for (int k = 1 + member; k < net->layers; k += size)
        if (work->wt[k])
            transpose(s->s->w + net->layer[k].w, net->layer[k].in, net->layer[k].ld, net->layer[k].out, work->wt[k], net->layer[k - 1].ldh);
    for (int at = 0; at < s->n; at += chunk) {
        int rows = s->n - at < chunk ? s->n - at : chunk, resume = at > 0, last = at + rows == s->n && s->h->clip <= 0.0f;
        int lo = (int)((long)rows * member / size), hi = (int)((long)rows * (member + 1) / size);
        const float *x = s->x + at * s->ldx;
        for (int sub = lo; sub < hi; sub += NEAP_CHUNK) {
            int n = hi - sub < NEAP_CHUNK ? hi - sub : NEAP_CHUNK;
            const float *in = x + sub * s->ldx;
            long ldin = s->ldx;
            for (int k = 0; k < net->layers; k++) {
                long off = sub * net->layer[k].ldh;
                layer_forward(&net->layer[k], s->s->w, net->leak, in, ldin, n, work->h[k] + off, work->g[k] ? work->g[k] + off : NULL);
                in = work->h[k] + off;
                ldin = net->layer[k].ldh;
            }
        }
        output_delta(s, s->y + (long)at * net->out, work->z + (long)at * net->out, lo, hi);
        float *d = work->d[0], *below = work->d[1];
        for (int k = net->layers - 1; k >= 0; k--) {
            MEET; /* all deltas of layer k are there */
            if (k > 0) layer_delta(s, k, d, below, lo, hi);
            MEET; /* nobody needs the old weights of layer k any more */
            layer_grad(s, k, k ? work->h[k - 1] : x, k ? net->layer[k - 1].ldh : s->ldx, d, rows, resume, last, member, size);
            float *t = d;
            d = below;
            below = t;
        }
        MEET; /* the chunk's buffers are free */
    }
}

static double simd_step(const neap_net *net, const neap_hyper *h, neap_state *s, const float *x, long ldx, const float *y, int n, neap_work *work) {
    step_job job = {.net = net, .h = h, .s = s, .work = work, .x = x, .y = y, .ldx = ldx, .n = n, .rule = f_rule_make(h, ++s->t)};
    if (work->team && n >= NEAP_TEAM_ROWS && work->deep >= (n < NEAP_TEAM_CHUNK ? n : NEAP_TEAM_CHUNK)) neap_team_run(work->team, step_part, &job);
    else step_part(&job, 0, 1);
    if (h->clip > 0.0f) {
        job.rule.scale = clip_scale(work->grad, net->params, h->clip);
        for (size_t i = 0; i < net->params; i += LANE) {
            V w = v_load(s->w + i), m = v_load(s->m + i), v = v_load(s->v + i);
            f_update(&job.rule, v_load(work->grad + i), &w, &m, &v);
            v_store(s->w + i, w), v_store(s->m + i, m), v_store(s->v + i, v);
        }
    }
    double loss = 0.0;
    for (long i = 0; i < (long)n * net->out; i++) loss += (double)work->z[i];
    return loss;
}

static void simd_forward(const neap_net *net, const float *w, const float *x, long ldx, int n, float *out, neap_work *work) {
    const neap_layer *last = &net->layer[net->layers - 1];
    for (int at = 0; at < n; at += NEAP_CHUNK) {
        int rows = n - at < NEAP_CHUNK ? n - at : NEAP_CHUNK;
        const float *in = x + at * ldx;
        long ldin = ldx;
        for (const neap_layer *l = net->layer; l <= last; l++) {
            float *h = l == last && l->narrow ? out + (long)at * net->out : work->h[l - net->layer];
            layer_forward(l, w, net->leak, in, ldin, rows, h, work->g[l - net->layer]);
            in = h;
            ldin = l->ldh;
        }
        for (int r = 0; !last->narrow && r < rows; r++) memcpy(out + (long)(at + r) * net->out, in + r * ldin, (size_t)net->out * sizeof(float));
    }
}

/* Multiply-adds of full vectors in registers for about `seconds` of this thread's time, in GFLOP/s: the ceiling that benches measure against. */
double PEAK(double seconds) {
    V acc[12], a = v_set1(0.999f), b = v_set1(1e-3f);
    double best = 0.0, spent = 0.0;
    for (int i = 0; i < 12; i++) acc[i] = v_set1((float)i);
    while (spent < seconds) {
        struct timespec t0, t1;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
        for (int k = 0; k < 400000; k++)
#pragma GCC unroll 12
            for (int i = 0; i < 12; i++) acc[i] = v_fma(acc[i], a, b);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
        double s = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec), rate = 400000.0 * 12 * 2 * LANE / s * 1e-9;
        spent += s;
        if (rate > best) best = rate;
    }
    volatile float keep; /* or the compiler drops the work */
    for (int i = 0; i < 12; i++) {
        float out[LANE];
        v_store(out, acc[i]);
        keep = out[0];
    }
    (void)keep;
    return best;
}
