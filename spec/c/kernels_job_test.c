/* kernels_job_test.c: whole training and scoring jobs: the same bits alone, on each backend and in fleets on any number of threads; empty and stopped
   jobs; and the shuffle, which is a uniform permutation. */
#include "kernels/kernels.h"
#include "host/err.h"
#include "spec/c/test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const backends[] = {"scalar", "avx2", "avx512"};
static uint64_t counter;
static float noise(void) { return (float)(neap_random_bits(7, 1, counter++) >> 40) * 0x1p-23f - 1.0f; }

static float *floats(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    memset(p, 0, n * sizeof(float));
    return p;
}

static const neap_hyper adam = {
    .opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_MSE, .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 1.0f};

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
    jobs_are_reproducible();
    jobs_stop_and_refuse();
    shuffle_is_a_uniform_permutation();
    return test_end("kernel jobs");
}
