/* kernels_test.c: the network kernels against the written definition: numeric gradients in double, every backend bit-equal to the scalar one over
   shapes, activations, losses and optimisers, alone and in teams. That these tests can fail: spec/mutate_kernels.sh. */
#include "kernels/kernels.h"
#include "kernels/team.h"
#include "host/err.h"
#include "spec/c/test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const backends[] = {"scalar", "avx2", "avx512"};
static uint64_t counter;
static float noise(void) { return (float)(neap_random_bits(7, 1, counter++) >> 40) * 0x1p-23f - 1.0f; }

typedef struct setup {
    neap_net net;
    neap_hyper h;
    neap_state s;
    neap_work work;
    float *x, *y;
    int n;
} setup;

static float *floats(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    memset(p, 0, n * sizeof(float));
    return p;
}

static void setup_init(setup *t, const int *sizes, int layers, int act, int n, const neap_hyper *h) {
    memset(t, 0, sizeof *t);
    CHECK(neap_net_init(&t->net, sizes, layers, act, 0.01f) == 0);
    t->h = *h;
    t->n = n;
    t->s.w = floats(t->net.params), t->s.m = floats(t->net.params), t->s.v = floats(t->net.params);
    neap_net_seed(&t->net, t->s.w, 42);
    t->x = floats((size_t)n * t->net.ldx), t->y = floats((size_t)n * t->net.out);
    counter = 0;
    for (int r = 0; r < n; r++) {
        for (int i = 0; i < t->net.in; i++) t->x[r * t->net.ldx + i] = noise();
        for (int o = 0; o < t->net.out; o++) t->y[r * t->net.out + o] = noise();
    }
    CHECK(neap_work_init(&t->work, &t->net, n, n) == 0);
}

static void setup_free(setup *t) {
    free(t->s.w), free(t->s.m), free(t->s.v), free(t->x), free(t->y);
    neap_work_free(&t->work);
}

static const neap_hyper adam = {
    .opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_MSE, .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 1.0f};

/* ---- the root of trust: loss in double, gradient by central differences ---- */

static double act_exact(int act, double z) {
    switch (act) {
    case NEAP_ACT_RELU: return z > 0 ? z : 0;
    case NEAP_ACT_LEAKY_RELU: return z > 0 ? z : 0.01 * z;
    case NEAP_ACT_TANH: return tanh(z);
    case NEAP_ACT_GELU: return z * 0.5 * erfc(-z / sqrt(2.0));
    default: return z;
    }
}

static double loss_exact(const setup *t, const double *w) {
    double sum = 0;
    for (int r = 0; r < t->n; r++) {
        double a[128], b[128];
        for (int i = 0; i < t->net.in; i++) a[i] = t->x[r * t->net.ldx + i];
        for (int k = 0; k < t->net.layers; k++) {
            const neap_layer *l = &t->net.layer[k];
            for (int o = 0; o < l->out; o++) {
                double z = w[l->b + o];
                for (int i = 0; i < l->in; i++) z += a[i] * w[l->w + (l->narrow ? o * l->ld + i : i * l->ld + o)];
                b[o] = act_exact(l->act, z);
            }
            memcpy(a, b, sizeof a);
        }
        for (int o = 0; o < t->net.out; o++) {
            double e = a[o] - t->y[r * t->net.out + o], d = t->h.huber;
            sum += t->h.loss == NEAP_LOSS_MSE ? e * e : t->h.loss == NEAP_LOSS_MAE ? fabs(e) : fabs(e) > d ? d * (fabs(e) - d / 2) : e * e / 2;
        }
    }
    return sum / (t->n * t->net.out);
}

/* SGD with lr 1 and no momentum moves each weight by minus its gradient. */
static void gradient_matches_differences(const int *sizes, int layers, int act, int loss, int n, const char *backend) {
    neap_hyper h = {.opt = NEAP_OPT_SGD, .loss = loss, .lr = 1.0f, .huber = 0.3f};
    const neap_kernels *k = neap_kernels_named(backend);
    setup t;
    if (!k) return;
    setup_init(&t, sizes, layers, act, n, &h);
    double *w = malloc(t.net.params * sizeof *w), worst = 0;
    float *before = floats(t.net.params);
    memcpy(before, t.s.w, t.net.params * sizeof(float));
    for (size_t i = 0; i < t.net.params; i++) w[i] = before[i];
    double exact = loss_exact(&t, w);
    double loss_sum = k->step(&t.net, &h, &t.s, t.x, t.net.ldx, t.y, t.n, &t.work);
    CHECK(fabs(loss_sum / (t.n * t.net.out) - exact) < 1e-6, "act %d loss %d: %g %g", act, loss, loss_sum / (t.n * t.net.out), exact);
    for (int at_layer = 0; at_layer < t.net.layers; at_layer++) {
        const neap_layer *l = &t.net.layer[at_layer];
        for (int o = 0; o < l->out; o++)
            for (int i = 0; i <= l->in; i++) {
                size_t at = i == l->in ? l->b + o : l->w + (size_t)(l->narrow ? o * l->ld + i : i * l->ld + o);
                double keep = w[at], e = 1e-6;
                w[at] = keep + e;
                double up = loss_exact(&t, w);
                w[at] = keep - e;
                double down = loss_exact(&t, w);
                w[at] = keep;
                double err = fabs((up - down) / (2 * e) - ((double)before[at] - t.s.w[at]));
                if (err > worst) worst = err;
            }
    }
    CHECK(worst < 2e-6, "%s, %d layers from %d inputs, act %d loss %d, %d rows: gradient off by %g", backend, layers, sizes[0], act, loss, n, worst);
    free(w), free(before);
    setup_free(&t);
}

/* ---- 300 steps beside a trainer in double ---- */

enum { D_IN = 16, D_HID = 32, D_ROWS = 32, D_STEPS = 300 };

typedef struct exact { /* 16 -> 32 -> 32 -> 1, ReLU, MSE, Adam; weights as [out][in] */
    double w1[D_HID][D_IN], b1[D_HID], w2[D_HID][D_HID], b2[D_HID], w3[1][D_HID], b3[1];
} exact;

static double exact_step(exact *p, exact *m, exact *v, const setup *t, int step) {
    static exact g;
    double loss = 0;
    memset(&g, 0, sizeof g);
    for (int r = 0; r < D_ROWS; r++) {
        double h1[D_HID], h2[D_HID], d1[D_HID] = {0}, z = p->b3[0];
        const float *x = t->x + r * t->net.ldx;
        for (int o = 0; o < D_HID; o++) {
            h1[o] = p->b1[o];
            for (int i = 0; i < D_IN; i++) h1[o] += x[i] * p->w1[o][i];
            h1[o] = h1[o] > 0 ? h1[o] : 0;
        }
        for (int o = 0; o < D_HID; o++) {
            h2[o] = p->b2[o];
            for (int i = 0; i < D_HID; i++) h2[o] += h1[i] * p->w2[o][i];
            h2[o] = h2[o] > 0 ? h2[o] : 0;
            z += h2[o] * p->w3[0][o];
        }
        double e = z - t->y[r], d = 2 * e / D_ROWS;
        loss += e * e / D_ROWS;
        g.b3[0] += d;
        for (int o = 0; o < D_HID; o++) {
            g.w3[0][o] += d * h2[o];
            double d2 = h2[o] > 0 ? d * p->w3[0][o] : 0;
            g.b2[o] += d2;
            for (int i = 0; i < D_HID; i++) g.w2[o][i] += d2 * h1[i], d1[i] += d2 * p->w2[o][i];
        }
        for (int o = 0; o < D_HID; o++) {
            double dd = h1[o] > 0 ? d1[o] : 0;
            g.b1[o] += dd;
            for (int i = 0; i < D_IN; i++) g.w1[o][i] += dd * x[i];
        }
    }
    double *pw = (double *)p, *pm = (double *)m, *pv = (double *)v, *pg = (double *)&g, lr = (double)1e-3f, b1 = (double)0.9f, b2 = (double)0.999f;
    for (size_t i = 0; i < sizeof g / sizeof(double); i++) {
        pm[i] = b1 * pm[i] + (1 - b1) * pg[i];
        pv[i] = b2 * pv[i] + (1 - b2) * pg[i] * pg[i];
        pw[i] -= lr / (1 - pow(b1, step)) * pm[i] / (sqrt(pv[i] / (1 - pow(b2, step))) + (double)1e-8f);
    }
    return loss;
}

static void exact_copy(exact *p, const neap_net *net, const float *w) {
    static float weight[D_HID * D_HID], bias[D_HID];
    double *to[] = {p->w1[0], p->b1, p->w2[0], p->b2, p->w3[0], p->b3};
    for (int k = 0; k < 3; k++) {
        neap_net_export(net, w, k, weight, bias);
        for (int i = 0; i < net->layer[k].in * net->layer[k].out; i++) to[2 * k][i] = weight[i];
        for (int i = 0; i < net->layer[k].out; i++) to[2 * k + 1][i] = bias[i];
    }
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* Single trajectories are chaotic (one flipped gate is amplified), hence the median of five. */
static void float_follows_double(void) {
    double off_weight[5], off_loss[5];
    for (int seed = 0; seed < 5; seed++) {
        static exact p, m, v, got;
        setup t;
        setup_init(&t, (int[]){D_IN, D_HID, D_HID, 1}, 3, NEAP_ACT_RELU, D_ROWS, &adam);
        neap_net_seed(&t.net, t.s.w, (uint64_t)(100 + seed));
        exact_copy(&p, &t.net, t.s.w);
        memset(&m, 0, sizeof m), memset(&v, 0, sizeof v);
        off_weight[seed] = off_loss[seed] = 0;
        for (int step = 1; step <= D_STEPS; step++) {
            double want = exact_step(&p, &m, &v, &t, step);
            double loss = neap_kernels_cpu()->step(&t.net, &adam, &t.s, t.x, t.net.ldx, t.y, D_ROWS, &t.work) / D_ROWS;
            off_loss[seed] = fmax(off_loss[seed], fabs(loss - want));
        }
        exact_copy(&got, &t.net, t.s.w);
        for (size_t i = 0; i < sizeof p / sizeof(double); i++)
            off_weight[seed] = fmax(off_weight[seed], fabs(((double *)&p)[i] - ((double *)&got)[i]));
        setup_free(&t);
    }
    qsort(off_weight, 5, sizeof(double), ascending), qsort(off_loss, 5, sizeof(double), ascending);
    CHECK(off_loss[2] <= 1e-6 && off_weight[2] <= 2e-6, "loss off by %g, weights by %g (medians)", off_loss[2], off_weight[2]);
}

/* ---- every backend gives the scalar one's bits ---- */

static void same_bits(const int *sizes, int layers, int act, int n, const neap_hyper *h, int steps, int threads, const char *what) {
    float *want = NULL, *want_out = NULL;
    double want_loss = 0;
    for (int b = 0; b < 3; b++) {
        const neap_kernels *k = neap_kernels_named(backends[b]);
        if (!k) continue;
        setup t;
        setup_init(&t, sizes, layers, act, n, h);
        if (threads > 1 && b > 0) t.work.team = neap_team_new(threads);
        double loss = 0;
        for (int i = 0; i < steps; i++) loss = k->step(&t.net, h, &t.s, t.x, t.net.ldx, t.y, n, &t.work);
        float *out = floats((size_t)n * t.net.out);
        k->forward(&t.net, t.s.w, t.x, t.net.ldx, n, out, &t.work);
        if (!want) {
            want = floats(t.net.params), want_out = floats((size_t)n * t.net.out), want_loss = loss;
            memcpy(want, t.s.w, t.net.params * sizeof(float));
            memcpy(want_out, out, (size_t)n * t.net.out * sizeof(float));
        }
        CHECK(!memcmp(want, t.s.w, t.net.params * sizeof(float)), "%s: weights differ on %s", what, k->name);
        CHECK(!memcmp(want_out, out, (size_t)n * t.net.out * sizeof(float)), "%s: outputs differ on %s", what, k->name);
        CHECK(want_loss == loss, "%s: loss differs on %s: %.17g %.17g", what, k->name, want_loss, loss);
        neap_team_free(t.work.team);
        free(out);
        setup_free(&t);
    }
    free(want), free(want_out);
}

static void backends_agree(void) {
    neap_hyper h = adam;
    for (int act = 0; act < NEAP_ACT_COUNT; act++)
        for (int loss = 0; loss < NEAP_LOSS_COUNT; loss++) {
            char what[64];
            snprintf(what, sizeof what, "act %d loss %d", act, loss);
            h.loss = loss;
            same_bits((int[]){7, 20, 5, 33, 2}, 4, act, 13, &h, 5, 1, what);
        }
    h = adam;
    same_bits((int[]){32, 64, 64, 1}, 3, NEAP_ACT_RELU, 64, &h, 12, 1, "the usual model");
    same_bits((int[]){32, 64, 64, 1}, 3, NEAP_ACT_RELU, 1, &h, 3, 1, "batch of one");
    same_bits((int[]){35, 64, 32, 1}, 3, NEAP_ACT_GELU, 200, &h, 2, 1, "several chunks");
    same_bits((int[]){9, 1}, 1, NEAP_ACT_RELU, 70, &h, 3, 1, "a linear model");
    same_bits((int[]){3, 8, 17}, 2, NEAP_ACT_TANH, 66, &h, 3, 1, "wide output");
    same_bits((int[]){1, 1, 1}, 2, NEAP_ACT_LEAKY_RELU, 5, &h, 3, 1, "the smallest");
    same_bits((int[]){16, 100, 130, 3}, 3, NEAP_ACT_RELU, 65, &h, 2, 1, "ragged widths");
    h.decay = 0.01f, h.clip = 0.05f;
    same_bits((int[]){12, 40, 24, 2}, 3, NEAP_ACT_TANH, 130, &h, 4, 1, "decay and clipping");
    h.opt = NEAP_OPT_ADAMW;
    same_bits((int[]){12, 40, 24, 2}, 3, NEAP_ACT_RELU, 30, &h, 4, 1, "adamw");
    h.opt = NEAP_OPT_SGD, h.momentum = 0.9f, h.lr = 0.01f;
    same_bits((int[]){12, 40, 24, 2}, 3, NEAP_ACT_RELU, 30, &h, 4, 1, "sgd with momentum");
    h = adam;
    same_bits((int[]){20, 64, 33, 40, 12}, 4, NEAP_ACT_GELU, 150, &h, 3, 1, "wide output, chunks");
    for (int threads = 2; threads <= 5; threads++) same_bits((int[]){32, 64, 48, 1}, 3, NEAP_ACT_RELU, 1100, &h, 2, threads, "a team");
    same_bits((int[]){20, 64, 33, 12}, 3, NEAP_ACT_GELU, 2100, &h, 1, 3, "a team, wide output");
}

/* ---- any shape: drawn at random, the draw fixed by its number ---- */

static int draw(int number, int which, int lo, int hi) {
    return lo + (int)(neap_random_bits(99, (uint64_t)number, (uint64_t)which) % (uint64_t)(hi - lo + 1));
}

static void random_nets(void) {
    for (int i = 0; i < 60; i++) {
        int sizes[6], layers = draw(i, 0, 1, 5), act = draw(i, 1, 0, NEAP_ACT_COUNT - 1), loss = draw(i, 2, 0, NEAP_LOSS_COUNT - 1);
        int wide = draw(i, 3, 0, 3) == 0 ? 150 : 40, rows = draw(i, 4, 1, i % 4 ? 70 : 300), threads = i % 5 == 4 ? draw(i, 5, 2, 4) : 1;
        neap_hyper h = adam;
        char what[64];
        for (int k = 0; k <= layers; k++) sizes[k] = draw(i, 10 + k, 1, k == layers ? 12 : wide);
        h.loss = loss, h.huber = 0.2f;
        h.opt = draw(i, 6, 0, NEAP_OPT_COUNT - 1);
        if (h.opt == NEAP_OPT_SGD) h.lr = 0.01f, h.momentum = i % 2 ? 0.9f : 0.0f;
        if (draw(i, 7, 0, 2) == 0) h.decay = 0.02f;
        if (draw(i, 8, 0, 2) == 0) h.clip = 0.1f;
        if (threads > 1) rows = 1024 + draw(i, 9, 0, 300);
        snprintf(what, sizeof what, "random net %d", i);
        same_bits(sizes, layers, act, rows, &h, threads > 1 ? 1 : 3, threads, what);
        /* differences step across a kink of ReLU or |e| now and then, hence smooth ones here; the kinks have their own test above */
        if (act == NEAP_ACT_RELU || act == NEAP_ACT_LEAKY_RELU || loss == NEAP_LOSS_MAE) continue;
        for (int k = 0; k <= layers; k++) sizes[k] = 1 + sizes[k] % 20;
        gradient_matches_differences(sizes, layers, act, loss, 1 + rows % 80, backends[i % 3]);
    }
}

/* ---- what the definitions above do not reach ---- */

static void tiny_moments_become_zero(void) {
    for (int b = 0; b < 3; b++) {
        const neap_kernels *k = neap_kernels_named(backends[b]);
        if (!k) continue;
        setup t;
        setup_init(&t, (int[]){20, 48, 1}, 2, NEAP_ACT_RELU, 64, &adam);
        const neap_layer *l = &t.net.layer[0];
        memset(t.x, 0, (size_t)t.n * t.net.ldx * sizeof(float)); /* no gradient for the first layer's weights: its moments only decay */
        for (int i = 0; i < l->in; i++)
            for (int o = 0; o < l->out; o++) { /* one in four is just above its limit and falls below, the others stay */
                t.s.m[l->w + i * l->ld + o] = o % 4 ? -3e-30f : 1.05e-30f;
                t.s.v[l->w + i * l->ld + o] = o % 4 ? 3e-36f : 1.0005e-36f;
            }
        k->step(&t.net, &adam, &t.s, t.x, t.net.ldx, t.y, t.n, &t.work);
        for (int i = 0; i < l->in; i++)
            for (int o = 0; o < l->out; o++) {
                float m = t.s.m[l->w + i * l->ld + o], v = t.s.v[l->w + i * l->ld + o];
                CHECK(o % 4 ? m == 0.9f * -3e-30f && v > 2.9e-36f : m == 0.0f && v == 0.0f, "%s: %d %d: %g %g", k->name, i, o, m, v);
            }
        setup_free(&t);
    }
}

/* SGD with lr 1 moves the weights by the gradient, whose norm the clip decides. */
static void clipping_sets_the_norm(void) {
    neap_hyper h = {.opt = NEAP_OPT_SGD, .loss = NEAP_LOSS_MSE, .lr = 1.0f, .clip = 0.01f};
    for (int b = 0; b < 3; b++) {
        const neap_kernels *k = neap_kernels_named(backends[b]);
        if (!k) continue;
        setup t;
        setup_init(&t, (int[]){9, 21, 2}, 2, NEAP_ACT_TANH, 30, &h);
        float *before = memcpy(floats(t.net.params), t.s.w, t.net.params * sizeof(float));
        k->step(&t.net, &h, &t.s, t.x, t.net.ldx, t.y, t.n, &t.work);
        double norm = 0;
        for (size_t i = 0; i < t.net.params; i++) norm += ((double)before[i] - t.s.w[i]) * ((double)before[i] - t.s.w[i]);
        CHECK(fabs(sqrt(norm) - 0.01) < 1e-5, "%s: moved by %g", k->name, sqrt(norm));
        free(before);
        setup_free(&t);
    }
}

/* torch.nn.Linear's default: uniform within 1 / sqrt(inputs), weights and biases */
static void first_weights_are_torchs(void) {
    neap_net net;
    CHECK(neap_net_init(&net, (int[]){25, 400, 3}, 2, NEAP_ACT_RELU, 0) == 0);
    float *w = floats(net.params);
    neap_net_seed(&net, w, 5);
    for (int k = 0; k < 2; k++) {
        const neap_layer *l = &net.layer[k];
        double most = 0, sum = 0, squares = 0, bound = 1 / sqrt(l->in), n = (double)l->in * l->out;
        float *weight = floats((size_t)l->in * l->out), *bias = floats((size_t)l->out);
        neap_net_export(&net, w, k, weight, bias);
        for (int i = 0; i < l->in * l->out; i++) most = fmax(most, fabs(weight[i])), sum += weight[i], squares += (double)weight[i] * weight[i];
        for (int i = 0; i < l->out; i++) CHECK(fabs(bias[i]) <= bound && bias[i] != 0);
        CHECK(most <= bound && most > 0.97 * bound, "layer %d: %g of %g", k, most, bound);
        CHECK(fabs(sum / n) < 4 * bound / sqrt(3 * n) && fabs(squares / n * 3 / bound / bound - 1) < 0.1);
        free(weight), free(bias);
    }
    free(w);
}

static void nan_stays_in_its_sample(void) {
    neap_hyper h = adam;
    for (int b = 0; b < 3; b++) {
        const neap_kernels *k = neap_kernels_named(backends[b]);
        if (!k) continue;
        setup t;
        setup_init(&t, (int[]){8, 24, 1}, 2, NEAP_ACT_RELU, 10, &h);
        t.x[3 * t.net.ldx + 2] = NAN;
        float out[10];
        k->forward(&t.net, t.s.w, t.x, t.net.ldx, 10, out, &t.work);
        for (int i = 0; i < 10; i++) CHECK(isnan(out[i]) == (i == 3), "%s: row %d is %g", k->name, i, out[i]);
        CHECK(isnan(k->step(&t.net, &h, &t.s, t.x, t.net.ldx, t.y, 10, &t.work)));
        setup_free(&t);
    }
}

int main(void) {
    for (int act = 0; act < NEAP_ACT_COUNT; act++)
        for (int loss = 0; loss < NEAP_LOSS_COUNT; loss++)
            if (loss != NEAP_LOSS_MAE || act == NEAP_ACT_TANH)
                for (int b = 0; b < 3; b++) gradient_matches_differences((int[]){5, 12, 3, 9, 2}, 4, act, loss, 11, backends[b]);
    random_nets();
    float_follows_double();
    backends_agree();
    tiny_moments_become_zero();
    clipping_sets_the_norm();
    first_weights_are_torchs();
    nan_stays_in_its_sample();
    return test_end("kernels");
}
