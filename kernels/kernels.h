/* kernels.h: the compute engine's one interface. A backend (scalar, AVX2, AVX-512, CUDA) is one table of functions; nothing above this line of
   the tree knows which one runs.

   The promise: for `mlp` functions every backend gives the same bits for the same input, with any number of threads. It holds because every output
   element is ONE chain of fused multiply-adds in a written order (over inputs forward, over samples for weight gradients, over outputs for input
   gradients), lanes and threads split over outputs only, and transcendentals come from formulas.h. Tensor functions promise 1e-6 relative, not bits.

   Memory: all pointers are host pointers, also for CUDA jobs (weights are a few KB; series travel once a job). Scratch comes from the caller.
   Threads: functions are reentrant; one neap_work belongs to one call at a time. */
#ifndef NEAP_KERNELS_H
#define NEAP_KERNELS_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NEAP_KERNELS_ABI 1
#define NEAP_MAX_LAYERS  32
#define NEAP_LANES       16   /* rows are padded to this many floats with zeros; also the lane count of dot products and sums */
#define NEAP_ORDER       1024 /* the shuffled order of small batches is made for as many samples at once */
#define NEAP_CHUNK       64   /* samples that go through forward and backward together: activations stay in L2 */

/* What functions here return: 0, or these. Same numbers as NEAP_ERR_* above in host/, which host/mlp.c checks while compiling. */
enum { NEAP_KERN_MEMORY = -1, NEAP_KERN_INVALID = -2, NEAP_KERN_IO = -3, NEAP_KERN_CANCELLED = -6, NEAP_KERN_UNSUPPORTED = -13 };

enum { NEAP_ACT_LINEAR, NEAP_ACT_RELU, NEAP_ACT_LEAKY_RELU, NEAP_ACT_TANH, NEAP_ACT_GELU, NEAP_ACT_COUNT };
enum { NEAP_LOSS_MSE, NEAP_LOSS_MAE, NEAP_LOSS_HUBER, NEAP_LOSS_COUNT };
enum { NEAP_OPT_ADAM, NEAP_OPT_ADAMW, NEAP_OPT_SGD, NEAP_OPT_COUNT };
enum { NEAP_NORM_NONE, NEAP_NORM_AFFINE, NEAP_NORM_DELTA, NEAP_NORM_COUNT };

/* One dense layer. Wide layers store W as [in][ld] (ld = outputs padded), narrow ones (under 8 outputs) as [out][ld] (ld = inputs padded). */
typedef struct neap_layer {
    int in, out; /* true sizes */
    int act;     /* NEAP_ACT_* */
    int narrow;  /* 1: output-major weights, forward by 16-lane dot products */
    long ld;     /* floats from one weight row to the next */
    long ldh;    /* floats from one sample's activations to the next */
    size_t w, b; /* where weights and bias start in the parameter array */
    size_t nw;   /* floats of the weight block, padding included */
} neap_layer;

typedef struct neap_net {
    int layers, in, out;
    long ldx;      /* row stride of an input batch: inputs padded */
    float leak;    /* slope of leaky_relu below zero */
    size_t params; /* floats in the parameter array, padding included */
    neap_layer layer[NEAP_MAX_LAYERS];
} neap_net;

/* Optimiser and loss. Adam: weight decay joins the gradient (L2, as torch.optim.Adam); adamw: decoupled (as torch.optim.AdamW). */
typedef struct neap_hyper {
    int opt, loss;
    float lr, beta1, beta2, eps; /* adam, adamw */
    float momentum;              /* sgd */
    float decay;                 /* weight decay, 0 = none; biases decay too, as in torch */
    float clip;                  /* largest gradient norm, 0 = no clipping */
    float huber;                 /* the delta where Huber turns linear */
} neap_hyper;

/* What training changes: flat arrays of net->params floats in the padded layout. Padding stays zero. */
typedef struct neap_state {
    float *w, *m, *v;
    int64_t t; /* optimiser steps done */
} neap_state;

/* Samples, formed on the fly. Rows: x and y point to explicit rows. Windows (x == NULL): sample i reads `window` readings from
   series[starts[i] + j*dilation]; its target is horizon steps after the last one. Normalisation, with last = the window's last reading:
     none    inputs v, target y        affine  (v - loc) * inv, target likewise        delta  (v - last) * inv, target (y - last) * inv
   With `level` (last - loc) * level_inv is appended; then the `extras` floats of row (index of the last reading) of `extra`. */
typedef struct neap_data {
    int64_t n;
    const float *x, *y; /* rows: [n][ldx], [n][ldy]; y may be NULL for scoring */
    long ldx, ldy;
    const float *series;   /* windows: the base series */
    int64_t length;        /* its readings */
    const float *target;   /* where targets are read; NULL: the series itself */
    const int64_t *starts; /* first reading of each window; NULL: window i starts at first + i*stride */
    int64_t first, stride;
    int window, horizon, norm, level, extras;
    int64_t dilation;
    float loc, inv, level_inv;
    const float *extra;
    long ldextra;
} neap_data;

/* A keyed permutation of 0..n-1 (Feistel, 24 hashed rounds, cycle walking): any position in O(1), the same on every backend. */
#define NEAP_PERM_ROUNDS 24
typedef struct neap_perm {
    uint32_t n, mask_lo, mask_hi;
    int bits_lo;
    uint32_t key[NEAP_PERM_ROUNDS];
} neap_perm;

typedef struct neap_team neap_team; /* helper threads for one large batch, see team.h */

/* Scratch for one call at a time: one aligned block, carved by neap_work_init. */
typedef struct neap_work {
    void *block;
    size_t bytes;
    int rows;                   /* samples that x, y, z and index hold */
    int indices;                /* sample numbers that index holds: rows, or NEAP_ORDER for small batches */
    int deep;                   /* samples that activations and deltas hold: a chunk */
    float *x;                   /* [rows][ldx] */
    float *y, *z;               /* [rows][out] targets, outputs */
    float *h[NEAP_MAX_LAYERS];  /* [deep][ldh] activations */
    float *g[NEAP_MAX_LAYERS];  /* [deep][ldh] gelu's derivative, else NULL */
    float *d[2];                /* [deep][widest] deltas, two layers at a time */
    float *wt[NEAP_MAX_LAYERS]; /* [out][in padded] transposed weights, wide layers after the first */
    float *grad;                /* [params] */
    uint32_t *index;            /* [indices] sample numbers */
    neap_team *team;            /* NULL: this thread alone */
} neap_work;

/* One model's training: `epochs` passes over `train`. With `val`, the loss on it after each epoch decides early stopping: after `patience` epochs
   without a new best (0 = never stop) training ends, and the best weights are kept if `best` is given. */
typedef struct neap_train_job {
    const neap_net *net;
    const neap_hyper *hyper;
    neap_state *state;
    const neap_data *train, *val; /* val may be NULL */
    neap_work *work;              /* scratch to use, or NULL; ignored if it is too small, and on CUDA */
    int batch, epochs, patience, shuffle;
    uint64_t seed;
    int64_t epoch0;                /* number of the first epoch: chooses its shuffle */
    float *best;                   /* [net->params] room for the best weights, or NULL */
    double *train_loss, *val_loss; /* [epochs], or NULL */
    double best_loss;              /* out: best validation loss */
    int epochs_done, best_epoch;   /* out; best_epoch counts from 1, 0 = none */
    int status;                    /* out: 0, NEAP_KERN_CANCELLED, or NEAP_KERN_INVALID for an empty data set */
} neap_train_job;

/* One model's scoring: out[n][net->out]; with `loss` also the mean loss of the job's data (hyper chooses which). */
typedef struct neap_predict_job {
    const neap_net *net;
    const float *w;
    const neap_data *data;
    float *out;              /* [data->n][net->out], or NULL when only the loss is wanted */
    const neap_hyper *hyper; /* needed for loss */
    double *loss;            /* out, or NULL */
    neap_work *work;         /* as in neap_train_job */
    int status;
} neap_predict_job;

/* Called between batches (training) or blocks (scoring), from any compute thread; nonzero ends the work with NEAP_KERN_CANCELLED. */
typedef struct neap_progress {
    int (*poll)(void *ud);
    void *ud;
} neap_progress;

enum { NEAP_OP_ADD, NEAP_OP_SUB, NEAP_OP_MUL, NEAP_OP_DIV, NEAP_OP_MIN, NEAP_OP_MAX, NEAP_OP_POW, NEAP_OP_BINARY_COUNT };
enum {
    NEAP_OP_NEG,
    NEAP_OP_ABS,
    NEAP_OP_SQRT,
    NEAP_OP_SQUARE,
    NEAP_OP_EXP,
    NEAP_OP_LOG,
    NEAP_OP_TANH,
    NEAP_OP_SIGMOID,
    NEAP_OP_RELU,
    NEAP_OP_GELU,
    NEAP_OP_SIN,
    NEAP_OP_COS,
    NEAP_OP_FLOOR,
    NEAP_OP_CEIL,
    NEAP_OP_ROUND,
    NEAP_OP_ASINH,
    NEAP_OP_SIGN,
    NEAP_OP_LOG1P,
    NEAP_OP_EXPM1,
    NEAP_OP_UNARY_COUNT
};
enum { NEAP_RED_SUM, NEAP_RED_MIN, NEAP_RED_MAX, NEAP_RED_SUMSQ, NEAP_RED_COUNT };

typedef struct neap_kernels {
    uint32_t abi;
    const char *name; /* "scalar", "avx2", "avx512", "cuda" */

    /* mlp, whole jobs: n models over `threads` threads (CPU) or one launch (CUDA). Returns 0 or the first job's NEAP_KERN_*; each job has its status.
     */
    int (*train)(const struct neap_kernels *k, neap_train_job *jobs, size_t n, int threads, const neap_progress *p);
    int (*predict)(const struct neap_kernels *k, neap_predict_job *jobs, size_t n, int threads, const neap_progress *p);

    /* mlp, one batch (CPU backends; NULL on CUDA). x: [n][ldx], columns in..ldx-1 zero; y: [n][out]. */
    void (*gather)(const neap_net *net, const neap_data *d, const uint32_t *index, int64_t first, int n, float *x, float *y);
    void (*shuffle)(const neap_perm *p, uint32_t first, int n, uint32_t *index);
    double (*step)(const neap_net *net, const neap_hyper *h, neap_state *s, const float *x, long ldx, const float *y, int n, neap_work *work);
    void (*forward)(const neap_net *net, const float *w, const float *x, long ldx, int n, float *out, neap_work *work);

    /* tensors, float32, contiguous. a_step and b_step are 0 (one value) or 1. gemm: c[m][n] = a[m][k] b[k][n] (+ c if accumulate), any strides for a.
     */
    void (*unary)(int op, const float *a, float *c, size_t n);
    void (*binary)(int op, const float *a, int a_step, const float *b, int b_step, float *c, size_t n);
    double (*reduce)(int op, const float *a, size_t n);
    int (*gemm)(int m, int n, int k, const float *a, long a_row, long a_col, const float *b, long b_row, long b_col, float *c, long ldc, int threads);
} neap_kernels;

/* The fastest CPU backend of this machine; NEAP_ISA=scalar|avx2|avx512 overrides. Never NULL. */
const neap_kernels *neap_kernels_cpu(void);

/* A CPU backend by name; NULL if it is unknown, not compiled in, or this CPU cannot run it. */
const neap_kernels *neap_kernels_named(const char *name);

/* The multiply-add ceiling of one core with this backend's vectors, GFLOP/s, measured for `seconds`; 0: not known. */
double neap_kernels_peak(const neap_kernels *k, double seconds);

/* ---- net.c: layout ---- */

/* Lays out a network of `layers` dense layers; sizes[0] inputs, sizes[layers] outputs; the last layer is linear. Returns 0 or NEAP_KERN_INVALID. */
int neap_net_init(neap_net *net, const int *sizes, int layers, int act, float leak);

/* Fills w with PyTorch's default: uniform in +-1/sqrt(inputs) for weights and biases, from a counter-based generator; padding zero. */
void neap_net_seed(const neap_net *net, float *w, uint64_t seed);

/* Between the padded layout and plain arrays as PyTorch's Linear keeps them: weight [out][in], bias [out]. Either may be NULL. */
void neap_net_export(const neap_net *net, const float *w, int layer, float *weight, float *bias);
void neap_net_import(const neap_net *net, float *w, int layer, const float *weight, const float *bias);

/* Carves scratch (zeroed) for batches of `rows` samples, of which `deep` pass through the layers together (at least NEAP_CHUNK or all). Returns 0 or
   NEAP_KERN_MEMORY; free with neap_work_free. */
int neap_work_init(neap_work *work, const neap_net *net, int rows, int deep);
void neap_work_free(neap_work *work);

/* ---- perm.c ---- */
void neap_perm_init(neap_perm *p, uint32_t n, uint64_t seed, uint64_t epoch);

/* 64 well-mixed bits from a seed, a stream number and a counter: the only source of randomness in kernels/. */
uint64_t neap_random_bits(uint64_t seed, uint64_t stream, uint64_t counter);

#ifdef __cplusplus
}
#endif
#endif
