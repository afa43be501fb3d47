/* cuda_test.c: the CUDA device code without a GPU: the same sources, compiled as C, run thread by thread through shim.h. Weights, moments, losses and
   scores must equal the CPU backends' to the last bit in three thread orders, and leaving out any one barrier must be noticed. */
#include "spec/c/shim.h"
#include "kernels/cuda/fleet.h"
#include "kernels/cuda/tensor.h"
#include "spec/c/test.h"
#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static float series[700], extra[700][3], other[700];
static int64_t starts[500];

static float *floats(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    memset(p, 0, n * sizeof(float));
    return p;
}

static int launch; /* its first epoch; two epochs a launch */

static void run_train(void *arg) {
    fleet_launch a = {arg, launch, launch + 2};
    if (a.jobs->plan->owned == 2) neap_fleet_train_2(a);
    else if (a.jobs->plan->owned == 4) neap_fleet_train_4(a);
    else neap_fleet_train_0(a);
}

static void run_predict(void *arg) { neap_fleet_predict((fleet_scoring){arg}); }

typedef struct result {
    float *w, *m, *v, *best, *out;
    double train[4], val[4], loss;
    int epochs, best_epoch;
} result;

typedef struct setup {
    neap_net net;
    neap_hyper h;
    neap_data train, val;
    int batch, epochs, patience, shuffle;
    size_t limit; /* shared memory of the device */
} setup;

static void result_init(result *r, const setup *s) {
    memset(r, 0, sizeof *r);
    r->w = floats(s->net.params), r->m = floats(s->net.params), r->v = floats(s->net.params), r->best = floats(s->net.params);
    r->out = floats((size_t)(s->val.n + 1) * s->net.out);
    neap_net_seed(&s->net, r->w, 5);
}

static void result_free(result *r) { free(r->w), free(r->m), free(r->v), free(r->best), free(r->out); }

static void on_cpu(const setup *s, result *r) {
    const neap_kernels *k = neap_kernels_cpu();
    neap_state state = {r->w, r->m, r->v, 0};
    neap_train_job j = {.net = &s->net,
                        .hyper = &s->h,
                        .state = &state,
                        .train = &s->train,
                        .val = &s->val,
                        .batch = s->batch,
                        .epochs = s->epochs,
                        .patience = s->patience,
                        .shuffle = s->shuffle,
                        .seed = 9,
                        .epoch0 = 3,
                        .best = r->best,
                        .train_loss = r->train,
                        .val_loss = r->val};
    CHECK(k->train(k, &j, 1, 1, NULL) == 0);
    neap_predict_job p = {.net = &s->net, .w = r->w, .data = &s->val, .out = r->out, .hyper = &s->h, .loss = &r->loss};
    CHECK(k->predict(k, &p, 1, 1, NULL) == 0);
    r->epochs = j.epochs_done, r->best_epoch = j.best_epoch;
}

static void on_shim(const setup *s, result *r, int order, neap_plan *plan) {
    static neap_perm perms[4];
    CHECK(plan_make(plan, &s->net, s->limit) == 0);
    fleet_job j = {.plan = plan,
                   .hyper = s->h,
                   .train = s->train,
                   .val = s->val,
                   .w = r->w,
                   .m = r->m,
                   .v = r->v,
                   .best = r->best,
                   .epoch0 = 3,
                   .seed = 9,
                   .batch = s->batch,
                   .epochs = s->epochs,
                   .patience = s->patience,
                   .shuffle = s->shuffle,
                   .perms = perms,
                   .train_loss = r->train,
                   .val_loss = r->val,
                   .grad = floats(s->net.params),
                   .best_loss = INFINITY};
    for (int e = 0; e < s->epochs; e++) neap_perm_init(&perms[e], (uint32_t)s->train.n, 9, (uint64_t)(3 + e));
    for (launch = 0; launch < s->epochs; launch += 2) shim_run_block(run_train, &j, 0, plan->threads, plan->shared_bytes, order);
    fleet_score p = {.plan = plan, .hyper = s->h, .data = s->val, .w = r->w, .out = r->out, .loss = &r->loss};
    shim_run_block(run_predict, &p, 0, plan->threads, plan->shared_bytes, order);
    r->epochs = j.epochs_done, r->best_epoch = j.best_epoch;
    free(j.grad);
}

static int same(const setup *s, const result *a, const result *b) {
    size_t bytes = s->net.params * sizeof(float);
    return !memcmp(a->w, b->w, bytes) && !memcmp(a->m, b->m, bytes) && !memcmp(a->v, b->v, bytes) && !memcmp(a->best, b->best, bytes) &&
           !memcmp(a->out, b->out, (size_t)s->val.n * s->net.out * sizeof(float)) &&
           !memcmp(a->train, b->train, (size_t)a->epochs * sizeof(double)) && !memcmp(a->val, b->val, (size_t)a->epochs * sizeof(double)) &&
           a->epochs == b->epochs && a->best_epoch == b->best_epoch && a->loss == b->loss;
}

static setup usual(const int *sizes, int layers, int act) {
    setup s = {.h = {.opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_HUBER, .lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 0.5f},
               .batch = 48,
               .epochs = 2,
               .shuffle = 1,
               .limit = 227 << 10};
    CHECK(neap_net_init(&s.net, sizes, layers, act, 0.01f) == 0);
    int w = sizes[0] - 4;
    s.train = (neap_data){.n = 150,
                          .series = series,
                          .length = 700,
                          .starts = starts,
                          .window = w,
                          .horizon = 1,
                          .dilation = 1,
                          .norm = NEAP_NORM_DELTA,
                          .loc = 0.1f,
                          .inv = 1.7f,
                          .level = 1,
                          .level_inv = 0.6f,
                          .extra = extra[0],
                          .extras = 3,
                          .ldextra = 3};
    s.val = s.train;
    s.val.starts = starts + 150, s.val.n = 70;
    return s;
}

static void check_case(const setup *s, const char *what, int owned) {
    result want;
    result_init(&want, s);
    on_cpu(s, &want);
    for (int order = SHIM_FORWARD; order <= SHIM_RANDOM; order++) {
        result got;
        neap_plan plan;
        result_init(&got, s);
        on_shim(s, &got, order, &plan);
        CHECK(plan.owned == owned, "%s: %d slots, owned %d", what, plan.slots, plan.owned);
        CHECK(same(s, &want, &got), "%s: differs from the CPU in order %d", what, order);
        result_free(&got);
    }
    result_free(&want);
}

static void device_code_has_the_cpus_bits(void) {
    setup s = usual((int[]){32, 64, 64, 1}, 3, NEAP_ACT_RELU);
    s.batch = 64, s.epochs = 1, s.train.n = 128;
    check_case(&s, "the usual model", 2);
    s = usual((int[]){10, 16, 24, 2}, 3, NEAP_ACT_GELU);
    check_case(&s, "gelu, two outputs", 2);
    s = usual((int[]){7, 5, 19, 12}, 3, NEAP_ACT_TANH);
    s.h.opt = NEAP_OPT_SGD, s.h.momentum = 0.9f, s.h.loss = NEAP_LOSS_MAE, s.train.norm = s.val.norm = NEAP_NORM_AFFINE;
    check_case(&s, "a narrow hidden layer, sgd", 2);
    s = usual((int[]){12, 40, 1}, 2, NEAP_ACT_LEAKY_RELU);
    s.batch = 130, s.h.clip = 0.02f, s.h.decay = 0.01f;
    check_case(&s, "chunks, clipping, decay", 2);
    s = usual((int[]){12, 40, 1}, 2, NEAP_ACT_RELU);
    s.h.opt = NEAP_OPT_ADAMW, s.h.decay = 0.1f, s.shuffle = 0, s.epochs = 4, s.patience = 1, s.h.lr = 0.3f, s.h.loss = NEAP_LOSS_MSE;
    s.train.target = s.val.target = other;
    check_case(&s, "early stop, another target", 2);
    s = usual((int[]){64, 96, 64, 1}, 3, NEAP_ACT_RELU);
    s.train.n = 40, s.epochs = 1;
    check_case(&s, "four slots a thread", 4);
    s = usual((int[]){12, 64, 64, 1}, 3, NEAP_ACT_RELU);
    s.limit = 20 << 10, s.train.n = 40, s.epochs = 1; /* weights do not fit: global memory, few rows */
    check_case(&s, "a small device", 0);
    s = usual((int[]){9, 1}, 1, NEAP_ACT_RELU);
    check_case(&s, "a linear model", 2);
}

/* There under a sanitizer only: where its reports go. */
extern void __sanitizer_set_report_path(const char *path) __attribute__((weak));

/* In a process of its own: without a barrier the code may well follow a wild index. */
static int differs_in_a_child(const setup *s, const result *want, int order) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        result got;
        neap_plan plan;
        int quiet = open("/dev/null", O_WRONLY);
        dup2(quiet, 2);
        if (__sanitizer_set_report_path) __sanitizer_set_report_path("/dev/null");
        result_init(&got, s);
        on_shim(s, &got, order, &plan);
        _exit(!same(s, want, &got));
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status != 0;
}

/* Two blocks of the usual model share a multiprocessor (228 KB less 1 KB a block on sm_90); smaller devices take fewer rows at a time. */
static void the_usual_model_fits(void) {
    static const size_t limits[] = {227 << 10, 99 << 10, 64 << 10};
    setup s = usual((int[]){32, 64, 64, 1}, 3, NEAP_ACT_RELU);
    for (int i = 0; i < 3; i++) {
        neap_plan p;
        CHECK(plan_make(&p, &s.net, limits[i]) == 0 && p.shared_bytes <= limits[i] && p.owned == 2 && p.weights_shared);
        if (i == 0) CHECK(p.rows == 64 && p.shared_bytes <= 113 << 10, "%zu bytes", p.shared_bytes);
    }
}

/* Without any one barrier some thread order must give other results. */
static void every_barrier_is_needed(void) {
    setup s = usual((int[]){12, 20, 20, 1}, 3, NEAP_ACT_RELU);
    s.h.clip = 0.05f, s.epochs = 3, s.batch = 130, s.patience = 1;
    result want;
    result_init(&want, &s);
    on_cpu(&s, &want);
    shim_met = 0;
    result all;
    neap_plan plan;
    result_init(&all, &s);
    on_shim(&s, &all, SHIM_FORWARD, &plan);
    CHECK(same(&s, &want, &all));
    result_free(&all);
    unsigned met = shim_met;
    CHECK(met == 0x1FE, "barriers reached: %x", met);
    for (shim_skip = 1; shim_skip <= 8; shim_skip++) {
        int noticed = 0;
        for (int order = SHIM_FORWARD; order <= SHIM_RANDOM && !noticed; order++) noticed = differs_in_a_child(&s, &want, order);
        CHECK(noticed, "barrier %d can be left out unnoticed", shim_skip);
    }
    shim_skip = 0;
    result_free(&want);
}

/* ---- tensors ---- */

static void run_product(void *arg) { neap_tensor_gemm(*(const neap_product *)arg); }
static void run_reduce(void *arg) { neap_tensor_reduce_long(*(const tensor_reducing *)arg); }

/* A 64 x 64 product of depth 40, and three sums of 700 by one block, against double. How many of the results are off. */
static int tensors_off(int order) {
    static float a[64 * 40], b[40 * 64], c[64 * 64];
    double sums[3];
    int off = 0;
    for (int i = 0; i < 64 * 40; i++) a[i] = series[i % 700] + (float)i * 1e-3f, b[i] = other[i % 640] - (float)i * 1e-3f;
    neap_product p = {.m = 64, .n = 64, .k = 40, .a_row = 40, .a_col = 1, .b_row = 64, .b_col = 1, .a = a, .b = b, .c = c};
    shim_run_block(run_product, &p, 0, 256, 2 * MM_DEPTH * MM_PITCH * sizeof(float), order);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            double want = 0.0, size = 0.0;
            for (int k = 0; k < 40; k++) want += (double)a[i * 40 + k] * b[k * 64 + j], size += fabs((double)a[i * 40 + k] * b[k * 64 + j]);
            off += !(fabs(want - c[i * 64 + j]) <= 1e-6 * size);
        }
    tensor_reducing r = {.r = {.red = NEAP_SUM,
                               .dims = 1,
                               .shape = {3},
                               .stride = {800},
                               .count = 3,
                               .n = 700,
                               .step = 1,
                               .data = a,
                               .dtype = NEAP_F32,
                               .out_dtype = NEAP_F64,
                               .out = sums},
                         .pieces = 1};
    shim_run_block(run_reduce, &r, 0, 256, 256 * sizeof(tensor_part), order);
    for (int k = 0; k < 3; k++) {
        double want = 0.0;
        for (int i = 0; i < 700; i++) want += a[800 * k + i];
        off += !(fabs(want - sums[k]) <= 1e-9 * 700 * 3);
    }
    return off;
}

static void tensor_kernels_need_their_barriers(void) {
    for (int order = SHIM_FORWARD; order <= SHIM_RANDOM; order++)
        CHECK(tensors_off(order) == 0, "order %d: %d results are off", order, tensors_off(order));
    for (shim_skip = 9; shim_skip <= 12; shim_skip++) {
        int noticed = 0;
        for (int order = SHIM_FORWARD; order <= SHIM_RANDOM; order++) noticed += tensors_off(order) > 0;
        CHECK(noticed, "barrier %d can be left out unnoticed", shim_skip);
    }
    shim_skip = 0;
}

int main(void) {
    for (int i = 0; i < 700; i++) {
        series[i] = sinf((float)i * 0.11f) + 0.3f * cosf((float)i * 1.7f);
        other[i] = cosf((float)i * 0.11f);
        for (int k = 0; k < 3; k++) extra[i][k] = sinf((float)(i * (k + 2)) * 0.03f);
    }
    for (int i = 0; i < 500; i++) starts[i] = (i * 7) % 500;
    device_code_has_the_cpus_bits();
    the_usual_model_fits();
    every_barrier_is_needed();
    tensor_kernels_need_their_barriers();
    free(shim_stacks);
    return test_end("cuda");
}
