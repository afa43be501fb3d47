/* scalar.c: the reference backend, plain loops that follow the definitions in kernels.h word by word. It is the root of trust (checked against
   float64 and numeric gradients) and what runs on a CPU without AVX2. Every faster backend must give its bits. */
#include "kernels/lane_scalar.h"
#include "kernels/formulas.h"
#include "kernels/gather.h"
#include "kernels/perm.h"
#include "kernels/clip.h"
#include "kernels/drive.h"
#include "kernels/ops.h"

/* sum of a[i]*b[i], in 16 lanes that are added as a tree: 8, 4, 2, 1 apart */
static float dot(const float *a, const float *b, long n) {
    float acc[16] = {0};
    for (long i = 0; i < n; i++) acc[i % 16] = fmaf(a[i], b[i], acc[i % 16]);
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) acc[i] += acc[i + step];
    return acc[0];
}

/* h[n][ldh] = act(x[n][ldx] W + b); gelu's derivative to g */
static void layer_forward(const neap_layer *l, const float *w, float leak, const float *x, long ldx, int n, float *h, float *g) {
    const float *weight = w + l->w, *bias = w + l->b;
    for (int r = 0; r < n; r++) {
        for (int o = 0; o < l->out; o++) {
            float acc = bias[o], gate = 0.0f;
            if (l->narrow) acc = dot(x + r * ldx, weight + o * l->ld, l->ld) + bias[o];
            else
                for (int i = 0; i < l->in; i++) acc = fmaf(x[r * ldx + i], weight[i * l->ld + o], acc);
            h[r * l->ldh + o] = f_act(l->act, acc, leak, &gate);
            if (g) g[r * l->ldh + o] = gate;
        }
    }
}

static const float *net_forward(const neap_net *net, const float *w, const float *x, long ldx, int n, neap_work *work) {
    for (int i = 0; i < net->layers; i++) {
        layer_forward(&net->layer[i], w, net->leak, x, ldx, n, work->h[i], work->g[i]);
        x = work->h[i];
        ldx = net->layer[i].ldh;
    }
    return x;
}

/* grad += the gradient of these n samples; work->d[0] holds the output's delta */
static void net_backward(const neap_net *net, const float *w, const float *x, long ldx, int n, neap_work *work) {
    float *d = work->d[0], *below = work->d[1];
    for (int k = net->layers - 1; k >= 0; k--) {
        const neap_layer *l = &net->layer[k], *b = k ? l - 1 : NULL;
        const float *in = k ? work->h[k - 1] : x, *weight = w + l->w;
        long ldin = k ? b->ldh : ldx;
        for (int r = 0; k && r < n; r++) {
            for (int i = 0; i < l->in; i++) {
                float acc = 0.0f;
                for (int o = 0; o < l->out; o++) acc = fmaf(d[r * l->ldh + o], weight[l->narrow ? o * l->ld + i : i * l->ld + o], acc);
                long at = r * b->ldh + i;
                below[at] = f_gate(b->act, acc, in[at], work->g[k - 1] ? work->g[k - 1][at] : 0.0f, net->leak);
            }
        }
        for (int i = 0; i < l->in; i++) {
            for (int o = 0; o < l->out; o++) {
                float *grad = work->grad + l->w + (l->narrow ? o * l->ld + i : i * l->ld + o);
                for (int r = 0; r < n; r++) *grad = fmaf(in[r * ldin + i], d[r * l->ldh + o], *grad);
            }
        }
        for (int o = 0; o < l->out; o++)
            for (int r = 0; r < n; r++) work->grad[l->b + o] += d[r * l->ldh + o];
        float *t = d;
        d = below;
        below = t;
    }
}

static double scalar_step(const neap_net *net, const neap_hyper *h, neap_state *s, const float *x, long ldx, const float *y, int n, neap_work *work) {
    f_rule rule = f_rule_make(h, ++s->t);
    float scale = 1.0f / (float)((int64_t)n * net->out);
    double loss = 0.0;
    memset(work->grad, 0, net->params * sizeof(float));
    for (int at = 0; at < n; at += NEAP_CHUNK) {
        int rows = n - at < NEAP_CHUNK ? n - at : NEAP_CHUNK;
        long ldz = net->layer[net->layers - 1].ldh;
        const float *z = net_forward(net, s->w, x + at * ldx, ldx, rows, work);
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < net->out; o++)
                loss += (double)f_loss(h->loss, z[r * ldz + o], y[(long)(at + r) * net->out + o], h->huber, scale, &work->d[0][r * ldz + o]);
        net_backward(net, s->w, x + at * ldx, ldx, rows, work);
    }
    if (h->clip > 0.0f) rule.scale = clip_scale(work->grad, net->params, h->clip);
    for (size_t i = 0; i < net->params; i++) f_update(&rule, work->grad[i], &s->w[i], &s->m[i], &s->v[i]);
    return loss;
}

static void scalar_forward(const neap_net *net, const float *w, const float *x, long ldx, int n, float *out, neap_work *work) {
    long ldz = net->layer[net->layers - 1].ldh;
    for (int at = 0; at < n; at += NEAP_CHUNK) {
        int rows = n - at < NEAP_CHUNK ? n - at : NEAP_CHUNK;
        const float *z = net_forward(net, w, x + at * ldx, ldx, rows, work);
        for (int r = 0; r < rows; r++) memcpy(out + (long)(at + r) * net->out, z + r * ldz, (size_t)net->out * sizeof(float));
    }
}

static int scalar_gemm(int m, int n, int k, const float *a, long a_row, long a_col, const float *b, long b_row, long b_col, float *c, long ldc,
                       int threads) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float acc = 0.0f;
            for (int p = 0; p < k; p++) acc = fmaf(a[i * a_row + p * a_col], b[p * b_row + j * b_col], acc);
            c[(long)i * ldc + j] = acc;
        }
    return 0;
}

const neap_kernels neap_kernels_scalar = {
    .abi = NEAP_KERNELS_ABI,
    .name = "scalar",
    .train = drive_train,
    .predict = drive_predict,
    .gather = gather_rows,
    .shuffle = perm_fill,
    .step = scalar_step,
    .forward = scalar_forward,
    .unary = ops_unary,
    .binary = ops_binary,
    .reduce = ops_reduce,
    .gemm = scalar_gemm,
};
