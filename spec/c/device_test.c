/* device_test.c: the CUDA backend through its two tables, as the host uses it, without Lua or any library: on a GPU if there is one, else on the shim
   (the same sources as C). Weights of random networks must have the cpu's bits, tensors the cpu's numbers; memory comes back; a failure is told.
   spec/gpu.sh builds it on machines that have a compiler and nothing else, and runs it ("small") under compute-sanitizer. */
#include "host/cuda.h"
#include "host/tensor.h"
#include "spec/c/test.h"
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t seed = 1;
static int draw(int lo, int hi) { return lo + (int)(neap_random_bits(11, 0, seed++) % (uint64_t)(hi - lo + 1)); }

static float *floats(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof *p + 127) / 64 * 64);
    memset(p, 0, n * sizeof *p);
    return p;
}

/* ---- models ---- */

static float series[900];

typedef struct model {
    neap_net net;
    neap_hyper hyper;
    neap_data train, val;
    neap_state state;
    float *params, *best, *out;
    double train_loss[4], val_loss[4], loss;
} model;

static void model_init(model *m, uint64_t from, int usual) {
    static const int acts[] = {NEAP_ACT_RELU, NEAP_ACT_GELU, NEAP_ACT_TANH, NEAP_ACT_LEAKY_RELU};
    seed = from;
    int layers = usual ? 3 : draw(1, 3), sizes[4] = {usual ? 32 : draw(3, 40)};
    for (int i = 1; i <= layers; i++) sizes[i] = i == layers ? (usual ? 1 : draw(1, 3)) : usual ? 64 : draw(4, 70);
    CHECK(!neap_net_init(&m->net, sizes, layers, usual ? NEAP_ACT_RELU : acts[draw(0, 3)], 0.02f));
    m->hyper = (neap_hyper){.opt = draw(0, 2),
                            .loss = draw(0, 2),
                            .lr = 3e-3f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .momentum = 0.8f,
                            .decay = draw(0, 1) ? 0.01f : 0.0f,
                            .clip = draw(0, 2) ? 0.0f : 0.1f,
                            .huber = 0.3f};
    m->train = (neap_data){.n = draw(5, 150),
                           .series = series,
                           .length = 900,
                           .stride = draw(1, 3),
                           .window = sizes[0],
                           .horizon = draw(1, 4),
                           .dilation = draw(1, 2),
                           .norm = draw(0, 2),
                           .loc = 0.1f,
                           .inv = 1.3f};
    m->val = m->train;
    m->val.first = 40, m->val.n = draw(1, 90);
    size_t p = m->net.params;
    m->params = floats(3 * p), m->best = floats(p), m->out = floats((size_t)m->val.n * (size_t)m->net.out);
    m->state = (neap_state){m->params, m->params + p, m->params + 2 * p, 0};
    neap_net_seed(&m->net, m->params, from);
}

static void model_free(model *m) { free(m->params), free(m->best), free(m->out); }

static void learn(const neap_kernels *k, model *m, int n) {
    neap_train_job *jobs = calloc((size_t)n, sizeof *jobs);
    neap_predict_job *scores = calloc((size_t)n, sizeof *scores);
    for (int round = 0; round < 2; round++) { /* the second from moments that are not zero */
        for (int i = 0; i < n; i++)
            jobs[i] = (neap_train_job){.net = &m[i].net,
                                       .hyper = &m[i].hyper,
                                       .state = &m[i].state,
                                       .train = &m[i].train,
                                       .val = &m[i].val,
                                       .batch = 7 + 30 * (i % 4),
                                       .epochs = 1 + i % 3,
                                       .patience = i % 2,
                                       .shuffle = i % 5 != 0,
                                       .seed = 3,
                                       .epoch0 = round,
                                       .best = m[i].best,
                                       .train_loss = m[i].train_loss,
                                       .val_loss = m[i].val_loss};
        CHECK(!k->train(k, jobs, (size_t)n, 2, NULL), "%s", neap_cuda_error());
    }
    for (int i = 0; i < n; i++)
        scores[i] =
            (neap_predict_job){.net = &m[i].net, .w = m[i].params, .data = &m[i].val, .out = m[i].out, .hyper = &m[i].hyper, .loss = &m[i].loss};
    CHECK(!k->predict(k, scores, (size_t)n, 2, NULL), "%s", neap_cuda_error());
    free(jobs), free(scores);
}

static int same(const model *a, const model *b) {
    size_t bytes = a->net.params * sizeof(float);
    return !memcmp(a->params, b->params, 3 * bytes) && !memcmp(a->best, b->best, bytes) && a->loss == b->loss &&
           !memcmp(a->out, b->out, (size_t)a->val.n * (size_t)a->net.out * sizeof(float)) &&
           !memcmp(a->train_loss, b->train_loss, sizeof a->train_loss) && !memcmp(a->val_loss, b->val_loss, sizeof a->val_loss);
}

static void models_have_the_cpus_bits(const neap_kernels *gpu) {
    enum { N = 24 };
    static model here[N], there[N];
    for (int i = 0; i < N; i++) model_init(&here[i], 100 + 50 * (uint64_t)i, i % 6 == 0), model_init(&there[i], 100 + 50 * (uint64_t)i, i % 6 == 0);
    learn(neap_kernels_cpu(), here, N);
    learn(gpu, there, N);
    for (int i = 0; i < N; i++) CHECK(same(&here[i], &there[i]), "model %d", i);
    for (int i = 0; i < N; i++) model_free(&here[i]), model_free(&there[i]);
}

/* ---- tensors ---- */

static void close_to(const neap_tensor *want, const neap_tensor *got, const char *what, int op) {
    neap_tensor here, flat, other;
    CHECK(neap_tensor_device(got) && got->dtype == want->dtype && neap_tensor_same_shape(want, got), "%s %d", what, op);
    int rc = neap_tensor_to(&here, got, NULL);
    CHECK(!rc, "%s %d: %s", what, op, neap_cuda_error());
    if (rc) return;
    neap_tensor_contiguous(&flat, &here), neap_tensor_contiguous(&other, want);
    double most = 1e-30, worst = 0.0;
    for (int64_t i = 0; i < neap_tensor_count(want); i++) {
        double x = neap_tensor_get(&other, other.offset + i), y = neap_tensor_get(&flat, flat.offset + i);
        if (fabs(x) < INFINITY && fabs(x) > most) most = fabs(x);
        double off = x == y || (x != x && y != y) ? 0.0 : fabs(x - y);
        if (!(off <= worst)) worst = off;
    }
    CHECK(worst <= 2e-6 * most, "%s %d: off by %g of %g", what, op, worst, most);
    neap_tensor_unref(&flat), neap_tensor_unref(&other), neap_tensor_unref(&here);
}

static void tensors_have_the_cpus_numbers(const neap_device *device, int64_t side) {
    neap_tensor a, b, at, da, db, x, y, view, dview;
    CHECK(!neap_tensor_new(&a, NEAP_F32, 2, (int64_t[]){side, side + 37}) && !neap_tensor_new(&b, NEAP_F32, 2, (int64_t[]){side, side + 37}));
    neap_tensor_rand(&a, 1, 1), neap_tensor_rand(&b, 2, 0);
    CHECK(!neap_tensor_to(&da, &a, device) && !neap_tensor_to(&db, &b, device), "%s", neap_cuda_error());
    for (int op = 0; op < NEAP_OP_BINARY_COUNT; op++) {
        CHECK(!neap_tensor_binary(&x, op, &b, &a) && !neap_tensor_binary(&y, op, &db, &da), "%s", neap_cuda_error());
        close_to(&x, &y, "binary", op);
        neap_tensor_unref(&x), neap_tensor_unref(&y);
    }
    for (int op = 0; op < NEAP_OP_UNARY_COUNT; op++) {
        CHECK(!neap_tensor_unary(&x, op, &b) && !neap_tensor_unary(&y, op, &db), "%s", neap_cuda_error());
        close_to(&x, &y, "unary", op);
        neap_tensor_unref(&x), neap_tensor_unref(&y);
    }
    CHECK(!neap_tensor_slice(&view, &a, 1, 1, side / 2, 2) && !neap_tensor_slice(&dview, &da, 1, 1, side / 2, 2));
    for (int red = NEAP_SUM; red <= NEAP_ALL; red++) {
        for (int dim = 0; dim < 2; dim++) {
            CHECK(!neap_tensor_reduce(&x, red, &view, dim, 0) && !neap_tensor_reduce(&y, red, &dview, dim, 0), "%s", neap_cuda_error());
            close_to(&x, &y, "reduce", red);
            neap_tensor_unref(&x), neap_tensor_unref(&y);
        }
        double p = 0, q = 0;
        CHECK(!neap_tensor_reduce_all(&p, red, &a) && !neap_tensor_reduce_all(&q, red, &da), "%s", neap_cuda_error());
        CHECK(fabs(p - q) <= 1e-5 * (fabs(p) + 1), "all %d: %g, expected %g", red, q, p);
    }
    CHECK(!neap_tensor_transpose(&at, &da, 0, 1));
    neap_tensor back;
    CHECK(!neap_tensor_transpose(&back, &a, 0, 1) && !neap_tensor_matmul(&x, &a, &back, 2) && !neap_tensor_matmul(&y, &da, &at, 2), "%s",
          neap_cuda_error());
    close_to(&x, &y, "matmul", 0);
    neap_tensor_unref(&x), neap_tensor_unref(&y), neap_tensor_unref(&at), neap_tensor_unref(&back), neap_tensor_unref(&view),
        neap_tensor_unref(&dview);
    neap_tensor_unref(&a), neap_tensor_unref(&b), neap_tensor_unref(&da), neap_tensor_unref(&db);
}

static void memory_comes_back_and_its_lack_is_told(const neap_device *device) {
    neap_memory_use use, later;
    neap_tensor t;
    device->memory(&use);
    CHECK(use.used == 0 && use.cached > 0 && use.total >= use.free, "%zu bytes in use", use.used);
    CHECK(neap_tensor_new_on(&t, device, NEAP_F32, 1, (int64_t[]){(int64_t)use.total}) == NEAP_ERR_MEMORY);
    CHECK(strstr(neap_cuda_error(), "bytes asked for") && strstr(neap_cuda_error(), "free"), "%s", neap_cuda_error());
    for (int i = 0; i < 100; i++) {
        CHECK(!neap_tensor_new_on(&t, device, NEAP_F32, 1, (int64_t[]){1 + i * 300}), "%s", neap_cuda_error());
        CHECK(neap_tensor_get(&t, 0) == 0.0);
        neap_tensor_unref(&t);
    }
    device->memory(&later);
    CHECK(later.used == 0, "%zu bytes in use", later.used);
}

int main(int argc, char **argv) {
    const char *shim = getenv("NEAP_CUDA_SHIM");
#ifdef __SANITIZE_THREAD__
    printf("device: skipped under TSan, which cannot follow the shim's fibers\n");
    return test_end("device");
#endif
    if (!neap_kernels_cpu() || argc < 1) return 1;
    if (access("/dev/nvidiactl", F_OK) && !shim) { /* no GPU: the shim lies beside the tests' folder */
        char path[4096], self[4096];
        snprintf(self, sizeof self, "%s", argv[0]);
        snprintf(path, sizeof path, "%s/../neap_cuda_shim.so", dirname(self));
        setenv("NEAP_CUDA_SHIM", path, 1);
    }
    for (int i = 0; i < 900; i++) series[i] = sinf((float)i * 0.1f) + 0.2f * cosf((float)i * 1.9f);
    const neap_kernels *k = neap_cuda_kernels();
    const neap_device *device = neap_cuda_device();
    CHECK(k && device, "%s", neap_cuda_error());
    if (k) {
        tensors_have_the_cpus_numbers(device, 40);
        if (argc == 1 && !strstr(device->model(), "shim")) tensors_have_the_cpus_numbers(device, 1500);
        models_have_the_cpus_bits(k);
        memory_comes_back_and_its_lack_is_told(device);
        printf("device: %s, matrix products by %s\n", device->model(), device->gemm_name());
    }
    return test_end("device");
}
