/* cuda.c: finding and opening neap_cuda.so: NEAP_CUDA names the file, else beside the executable, in ../lib/neap, or where the loader looks. It is
   tried only if libcuda.so.1 opens, so that a machine without a driver pays one failed dlopen, once. NEAP_CUDA_SHIM names the specs' stand-in, which
   needs no driver. */
#include "host/cuda.h"
#include "kernels/cuda/entry.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static neap_cuda_entry entry; /* set once, then read only */
static char why[256] = "not tried";
static atomic_int started; /* the device is up */

static void *open_backend(void) {
    char path[4096], exe[4000];
    const char *wish = getenv("NEAP_CUDA");
    if (wish && *wish) return dlopen(wish, RTLD_NOW | RTLD_LOCAL);
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) *slash = 0;
        static const char *const places[] = {"%s/neap_cuda.so", "%s/../lib/neap/neap_cuda.so"};
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, places[i], exe);
            if (!access(path, R_OK)) return dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
    }
    return dlopen("neap_cuda.so", RTLD_NOW | RTLD_LOCAL);
}

/* A few steps of a tiny network must give the CPU's bits, or the GPU is not used. */
static int self_check(const neap_kernels *gpu) {
    neap_net net;
    float series[200], *w[6];
    int rc = neap_net_init(&net, (int[]){9, 24, 20, 1}, 3, NEAP_ACT_GELU, 0.01f), same = 0;
    for (int i = 0; i < 200; i++) series[i] = (float)((i * i) % 37) * 0.1f;
    for (int i = 0; i < 6; i++)
        if (!(w[i] = calloc(net.params, sizeof(float)))) rc = -1;
    if (!rc) {
        neap_hyper h = {.opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_HUBER, .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 0.5f};
        neap_data d = {
            .n = 150, .series = series, .length = 200, .stride = 1, .window = 9, .horizon = 1, .dilation = 1, .norm = NEAP_NORM_DELTA, .inv = 0.3f};
        neap_state s[2] = {{w[0], w[1], w[2], 0}, {w[3], w[4], w[5], 0}};
        neap_train_job j = {.net = &net, .hyper = &h, .train = &d, .batch = 32, .epochs = 2, .shuffle = 1, .seed = 3};
        for (int i = 0; i < 2 && !rc; i++) {
            const neap_kernels *k = i ? gpu : neap_kernels_cpu();
            neap_net_seed(&net, s[i].w, 1);
            j.state = &s[i];
            rc = k->train(k, &j, 1, 1, NULL);
        }
        same = !rc && !memcmp(w[0], w[3], net.params * sizeof(float));
    }
    for (int i = 0; i < 6; i++) free(w[i]);
    return same;
}

static void find(void) {
    const char *off = getenv("NEAP_CUDA");
    if (off && !strcmp(off, "off")) {
        snprintf(why, sizeof why, "switched off by NEAP_CUDA=off");
        return;
    }
    const char *shim = getenv("NEAP_CUDA_SHIM");
    void *so = NULL;
    if (shim && *shim) {
        so = dlopen(shim, RTLD_NOW | RTLD_LOCAL);
    } else {
        if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
            snprintf(why, sizeof why, "there is no NVIDIA driver here (libcuda.so.1 does not open)");
            return;
        }
        so = open_backend();
    }
    if (!so) {
        snprintf(why, sizeof why, "neap_cuda.so does not open: %s", dlerror());
        return;
    }
    int (*start)(uint32_t, neap_cuda_entry *) = (int (*)(uint32_t, neap_cuda_entry *))dlsym(so, "neap_cuda_open");
    if (!start) snprintf(why, sizeof why, "neap_cuda.so is of another kind: it has no entry point");
    else if (start(NEAP_CUDA_ABI, &entry)) {
        snprintf(why, sizeof why, "%s", entry.error ? entry.error() : "neap_cuda.so does not start");
        entry.kernels = NULL;
    } else if (!self_check(entry.kernels)) {
        snprintf(why, sizeof why, "the GPU does not give the CPU's bits (%s): it is not used", entry.error());
        entry.kernels = NULL;
    }
    if (!entry.kernels) entry.device = NULL;
    atomic_store(&started, entry.kernels != NULL);
}

const neap_kernels *neap_cuda_kernels(void) {
    pthread_once(&once, find);
    return entry.kernels;
}

const neap_device *neap_cuda_device(void) {
    pthread_once(&once, find);
    return entry.device;
}

const char *neap_cuda_error(void) { return entry.kernels && entry.error ? entry.error() : why; }

/* A context costs about 0.4 s and one small model gains little, so a first job must be large: 2e11 operations (a few seconds of one core) over at
   least 16 models, or 4e12 for fewer, which leave most of the chip idle. With the context up, a hundredth of that: then a call costs its copies only.
 */
int neap_cuda_worth(double flop, size_t models) {
    double enough = models < 16 ? 4e12 : 2e11;
    return flop >= (atomic_load(&started) ? enough / 100 : enough) && neap_cuda_kernels() != NULL;
}
