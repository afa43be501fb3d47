/* kernels_test.c: the network kernels against the written definition: numeric gradients in double, every backend bit-equal to the scalar one over
   shapes, activations, losses and optimisers, teams and fleets of any size, and the shuffle's uniformity. */
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
static void gradient_matches_differences(int act, int loss) {
    neap_hyper h = {.opt = NEAP_OPT_SGD, .loss = loss, .lr = 1.0f, .huber = 0.3f};
    setup t;
    setup_init(&t, (int[]){5, 12, 3, 9, 2}, 4, act, 11, &h);
    double *w = malloc(t.net.params * sizeof *w), worst = 0;
    float *before = floats(t.net.params);
    memcpy(before, t.s.w, t.net.params * sizeof(float));
    for (size_t i = 0; i < t.net.params; i++) w[i] = before[i];
    double exact = loss_exact(&t, w);
    double loss_sum = neap_kernels_named("scalar")->step(&t.net, &h, &t.s, t.x, t.net.ldx, t.y, t.n, &t.work);
    CHECK(fabs(loss_sum / (t.n * t.net.out) - exact) < 1e-6, "act %d loss %d: %g %g", act, loss, loss_sum / (t.n * t.net.out), exact);
    for (int k = 0; k < t.net.layers; k++) {
        const neap_layer *l = &t.net.layer[k];
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
    CHECK(worst < 2e-6, "act %d loss %d: gradient off by %g", act, loss, worst);
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

/* ---- whole jobs ---- */

static void jobs_are_reproducible(void) {
    enum { LEN = 3000, MODELS = 7 };
    static float series[MODELS][LEN];
    for (int m = 0; m < MODELS; m++)
        for (int i = 0; i < LEN; i++) series[m][i] = sinf(i * 0.05f * (m + 1)) + 0.1f * noise();
    neap_net net;
    CHECK(neap_net_init(&net, (int[]){17, 32, 1}, 2, NEAP_ACT_RELU, 0.01f) == 0);
    float *want[MODELS] = {0};
    for (int pass = 0; pass < 6; pass++) { /* alone on each backend, then in fleets of 1, 2, 3 threads */
        const neap_kernels *k = pass < 3 ? neap_kernels_named(backends[pass]) : neap_kernels_cpu();
        if (!k) continue;
        neap_train_job job[MODELS];
        neap_state s[MODELS];
        neap_data train[MODELS], val[MODELS];
        double vloss[MODELS][3];
        float *best[MODELS];
        for (int m = 0; m < MODELS; m++) {
            s[m] = (neap_state){floats(net.params), floats(net.params), floats(net.params), 0};
            best[m] = floats(net.params);
            neap_net_seed(&net, s[m].w, (uint64_t)m);
            train[m] = (neap_data){.n = 900 + 100 * m,
                                   .series = series[m],
                                   .length = LEN,
                                   .stride = 1,
                                   .window = 16,
                                   .horizon = 1,
                                   .dilation = 1,
                                   .norm = NEAP_NORM_DELTA,
                                   .inv = 0.7f,
                                   .level = 1,
                                   .level_inv = 0.5f};
            val[m] = train[m];
            val[m].first = 1700, val[m].n = 500;
            job[m] = (neap_train_job){.net = &net,
                                      .hyper = &adam,
                                      .state = &s[m],
                                      .train = &train[m],
                                      .val = &val[m],
                                      .batch = 50,
                                      .epochs = 3,
                                      .shuffle = 1,
                                      .seed = (uint64_t)m,
                                      .best = best[m],
                                      .val_loss = vloss[m]};
        }
        if (pass < 3)
            for (int m = 0; m < MODELS; m++) CHECK(k->train(k, &job[m], 1, 1, NULL) == 0);
        else CHECK(k->train(k, job, MODELS, pass - 2, NULL) == 0);
        for (int m = 0; m < MODELS; m++) {
            CHECK(job[m].epochs_done == 3 && job[m].best_epoch >= 1);
            CHECK(vloss[m][2] < vloss[m][0], "model %d does not learn: %g %g", m, vloss[m][0], vloss[m][2]);
            if (!want[m]) want[m] = memcpy(floats(net.params), s[m].w, net.params * sizeof(float));
            CHECK(!memcmp(want[m], s[m].w, net.params * sizeof(float)), "model %d differs in pass %d", m, pass);
            float *out = floats(500), one = 0;
            double loss;
            neap_predict_job p = {.net = &net, .w = s[m].w, .data = &val[m], .out = out, .hyper = &adam, .loss = &loss};
            CHECK(k->predict(k, &p, 1, 2, NULL) == 0 && loss == vloss[m][2]);
            neap_data single = val[m];
            single.first += 123, single.n = 1;
            neap_predict_job q = {.net = &net, .w = s[m].w, .data = &single, .out = &one};
            CHECK(k->predict(k, &q, 1, 1, NULL) == 0 && one == out[123]);
            free(out), free(s[m].w), free(s[m].m), free(s[m].v), free(best[m]);
        }
    }
    for (int m = 0; m < MODELS; m++) free(want[m]);
}

static int stop_at_once(void *ud) { return 1; }

static void jobs_stop_and_refuse(void) {
    neap_net net;
    float series[40] = {0};
    CHECK(neap_net_init(&net, (int[]){4, 8, 1}, 2, NEAP_ACT_RELU, 0.01f) == 0);
    neap_state s = {floats(net.params), floats(net.params), floats(net.params), 0};
    neap_data d = {.n = 30, .series = series, .length = 40, .stride = 1, .window = 4, .horizon = 1, .dilation = 1, .inv = 1};
    neap_train_job j = {.net = &net, .hyper = &adam, .state = &s, .train = &d, .batch = 8, .epochs = 2};
    const neap_kernels *k = neap_kernels_cpu();
    CHECK(k->train(k, &j, 1, 1, &(neap_progress){stop_at_once, NULL}) == NEAP_ERR_CANCELLED);
    d.n = 0;
    CHECK(k->train(k, &j, 1, 1, NULL) == NEAP_ERR_INVALID);
    CHECK(neap_net_init(&net, (int[]){4, 0, 1}, 2, NEAP_ACT_RELU, 0) == NEAP_ERR_INVALID);
    CHECK(neap_net_init(&net, (int[]){4, 1}, 0, NEAP_ACT_RELU, 0) == NEAP_ERR_INVALID);
    free(s.w), free(s.m), free(s.v);
}

/* ---- the shuffle ---- */

static void shuffle_is_a_uniform_permutation(void) {
    static uint32_t out[5000];
    static int seen[100][100];
    for (int b = 0; b < 3; b++) {
        const neap_kernels *k = neap_kernels_named(backends[b]);
        if (!k) continue;
        for (uint32_t n = 1; n < 5000; n = n * 3 + 1) {
            neap_perm p;
            uint64_t sum = 0;
            neap_perm_init(&p, n, 3, n);
            for (uint32_t at = 0; at < n; at += 77) k->shuffle(&p, at, n - at < 77 ? (int)(n - at) : 77, out + at);
            for (uint32_t i = 0; i < n; i++) sum += out[i];
            CHECK(sum == (uint64_t)n * (n - 1) / 2, "n %u on %s", n, k->name);
            if (b == 0 && n == 364) CHECK(out[0] != out[1] && out[0] < 364);
        }
    }
    for (int epoch = 0; epoch < 20000; epoch++) {
        neap_perm p;
        neap_perm_init(&p, 100, 5, (uint64_t)epoch);
        neap_kernels_cpu()->shuffle(&p, 0, 100, out);
        for (int i = 0; i < 100; i++) seen[i][out[i]]++;
    }
    double chi = 0;
    for (int i = 0; i < 100; i++)
        for (int j = 0; j < 100; j++) chi += (seen[i][j] - 200.0) * (seen[i][j] - 200.0) / 200.0;
    CHECK(fabs(chi - 9801) < 5 * sqrt(2 * 9801.0), "chi-square %g for 9801 degrees of freedom", chi);
}

int main(void) {
    for (int act = 0; act < NEAP_ACT_COUNT; act++)
        for (int loss = 0; loss < NEAP_LOSS_COUNT; loss++)
            if (loss != NEAP_LOSS_MAE || act == NEAP_ACT_TANH) gradient_matches_differences(act, loss);
    float_follows_double();
    backends_agree();
    nan_stays_in_its_sample();
    jobs_are_reproducible();
    jobs_stop_and_refuse();
    shuffle_is_a_uniform_permutation();
    return test_end("kernels");
}
