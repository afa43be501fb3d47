/* fleet_gpu.c: the fleet bench without Lua and without any library: for GPU machines that have a compiler and nothing else.
     fleet_gpu prepare DIR MODELS WINDOWS BATCH EPOCHS     writes the job that fleet_peer.py describes
     fleet_gpu cuda|cpu [THREADS] DIR                      runs it and prints one JSON object
   The rate is that of whole epochs: the time of EPOCHS + 1 less that of one, so that copies and start-up, which do not grow, fall out;
   call_samples_per_s has everything in it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <time.h>
#include "host/cuda.h"
#include "kernels/kernels.h"

static const int sizes[] = {32, 64, 64, 1};

static void die(const char *what) {
    fprintf(stderr, "fleet_gpu: %s\n", what);
    exit(1);
}

static void *room(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) die("no memory");
    memset(p, 0, bytes);
    return p;
}

static FILE *file(const char *dir, const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, mode);
    if (!f) die(path);
    return f;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void prepare(const char *dir, int models, int windows, int batch, int epochs) {
    neap_net net;
    neap_net_init(&net, sizes, 3, NEAP_ACT_RELU, 0.01f);
    FILE *f = file(dir, "job.txt", "w");
    fprintf(f, "%d %d %d %d\n", models, windows, batch, epochs);
    fclose(f);
    f = file(dir, "base.f32", "wb");
    for (int i = 0; i < models + windows + 32; i++) {
        double noise = (double)(neap_random_bits(7, 1, (uint64_t)i) >> 11) * 0x1p-53 - 0.5;
        float v = (float)(sin(i * 0.05) + 0.2 * noise);
        fwrite(&v, sizeof v, 1, f);
    }
    fclose(f);
    f = file(dir, "init.f32", "wb");
    float *w = room(net.params * sizeof *w), weight[64 * 64], bias[64];
    for (int i = 0; i < models; i++) {
        neap_net_seed(&net, w, (uint64_t)i + 1);
        for (int k = 0; k < 3; k++) {
            neap_net_export(&net, w, k, weight, bias);
            fwrite(weight, sizeof *weight, (size_t)sizes[k] * (size_t)sizes[k + 1], f);
            fwrite(bias, sizeof *bias, (size_t)sizes[k + 1], f);
        }
    }
    fclose(f);
    f = file(dir, "order.i32", "wb");
    uint32_t *order = room((size_t)windows * sizeof *order);
    for (int e = 0; e < epochs; e++) {
        neap_perm p;
        neap_perm_init(&p, (uint32_t)windows, 1, (uint64_t)e);
        neap_kernels_cpu()->shuffle(&p, 0, windows, order);
        fwrite(order, sizeof *order, (size_t)windows, f);
    }
    fclose(f);
    free(w), free(order);
}

typedef struct fleet {
    neap_net net;
    neap_hyper hyper;
    int models, windows, batch, epochs;
    float *series, *params;
    neap_data *data;
    neap_state *state;
    neap_train_job *jobs;
    double *loss;
} fleet;

static void fleet_open(fleet *f, const char *dir) {
    FILE *in = file(dir, "job.txt", "r");
    if (fscanf(in, "%d %d %d %d", &f->models, &f->windows, &f->batch, &f->epochs) != 4) die("job.txt");
    fclose(in);
    neap_net_init(&f->net, sizes, 3, NEAP_ACT_RELU, 0.01f);
    f->hyper = (neap_hyper){.opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_MSE, .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 1.0f};
    size_t length = (size_t)f->windows + 32, m = (size_t)f->models;
    float *base = room((m + length) * sizeof *base);
    in = file(dir, "base.f32", "rb");
    if (fread(base, sizeof *base, m + length, in) != m + length) die("base.f32");
    fclose(in);
    f->series = room(m * length * sizeof(float));
    f->params = room(3 * m * f->net.params * sizeof(float));
    f->data = room(m * sizeof *f->data), f->state = room(m * sizeof *f->state), f->jobs = room(m * sizeof *f->jobs);
    f->loss = room(m * (size_t)(f->epochs + 1) * sizeof(double));
    for (size_t i = 0; i < m; i++) {
        memcpy(f->series + i * length, base + i, length * sizeof(float));
        f->data[i] = (neap_data){.n = f->windows,
                                 .series = f->series + i * length,
                                 .length = (int64_t)length,
                                 .stride = 1,
                                 .window = 32,
                                 .horizon = 1,
                                 .dilation = 1,
                                 .norm = NEAP_NORM_DELTA,
                                 .inv = 1.0f};
    }
    free(base);
}

/* From the initial weights, `epochs` epochs; seconds. */
static double fleet_run(fleet *f, const neap_kernels *k, int threads, int epochs) {
    size_t p = f->net.params;
    memset(f->params, 0, 3 * (size_t)f->models * p * sizeof(float));
    for (int i = 0; i < f->models; i++) {
        float *w = f->params + 3 * (size_t)i * p;
        neap_net_seed(&f->net, w, (uint64_t)i + 1);
        f->state[i] = (neap_state){w, w + p, w + 2 * p, 0};
        f->jobs[i] = (neap_train_job){.net = &f->net,
                                      .hyper = &f->hyper,
                                      .state = &f->state[i],
                                      .train = &f->data[i],
                                      .batch = f->batch,
                                      .epochs = epochs,
                                      .shuffle = 1,
                                      .seed = 1,
                                      .train_loss = f->loss + (size_t)i * (size_t)(f->epochs + 1)};
    }
    double start = now();
    if (k->train(k, f->jobs, (size_t)f->models, threads, NULL)) die(strcmp(k->name, "cuda") ? "training failed" : neap_cuda_error());
    return now() - start;
}

int main(int argc, char **argv) {
    fleet f = {.models = 0};
    if (argc == 7 && !strcmp(argv[1], "prepare")) return prepare(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6])), 0;
    if (argc < 3 || argc > 4) die("prepare DIR MODELS WINDOWS BATCH EPOCHS | cuda|cpu [THREADS] DIR");
    const neap_kernels *k = strcmp(argv[1], "cuda") ? neap_kernels_cpu() : neap_cuda_kernels();
    int threads = argc == 4 ? atoi(argv[2]) : 1;
    if (!k) die(neap_cuda_error());
    fleet_open(&f, argv[argc - 1]);
    fleet_run(&f, k, threads, 1); /* memory, driver, caches */
    double one = fleet_run(&f, k, threads, 1), more = fleet_run(&f, k, threads, f.epochs + 1), samples = (double)f.models * f.windows, loss = 0.0;
    for (int i = 0; i < f.models; i++) loss += f.loss[(size_t)i * (size_t)(f.epochs + 1) + (size_t)f.epochs - 1] / f.models;
    uint64_t sum = 14695981039346656037u; /* FNV over all weights: equal on every device */
    const unsigned char *bytes = (const unsigned char *)f.params;
    for (size_t i = 0; i < 3 * (size_t)f.models * f.net.params * sizeof(float); i++) sum = (sum ^ bytes[i]) * 1099511628211u;
    printf("{\"samples_per_s\": %.6g, \"call_samples_per_s\": %.6g, \"first_epoch_s\": %.4f, \"loss\": %.9g, \"device\": \"%s\", \"weights\": "
           "\"%016llx\"}\n",
           samples * f.epochs / (more - one), samples * (f.epochs + 1) / more, one, loss, k->name, (unsigned long long)sum);
    return 0;
}
