/* mlp.h: a multi-layer perceptron with its optimiser state, its data sets, its checkpoint. Thin above kernels/: here are ownership, checks and files.
   Models and data sets count references (atomically: a compute thread may hold one). A model is used by one thread at a time; its owner keeps
   `busy` for that. Small steps are cheap (a batch of 8 on a small network is a few microseconds) and callable from any C code. */
#ifndef NEAP_MLP_H
#define NEAP_MLP_H
#include "host/tensor.h"
#include "host/safetensors.h"
#include "kernels/kernels.h"

typedef struct neap_mlp {
    atomic_int refs;
    int busy; /* a job on another thread is using it */
    neap_net net;
    neap_state state;
    neap_hyper hyper; /* used where a call gives none */
    int act;
    uint64_t seed;
    int64_t epochs; /* epochs done: numbers the next shuffle */
    neap_work work; /* for steps and small predictions; grows */
    const neap_kernels *kernels;
} neap_mlp;

/* Adam with torch's defaults (lr 1e-3, betas 0.9 and 0.999, eps 1e-8), MSE, no decay, no clipping, Huber delta 1. */
neap_hyper neap_hyper_default(void);

/* sizes[0..layers]: inputs, hidden sizes, outputs. One reference. 0, NEAP_ERR_INVALID, NEAP_ERR_MEMORY. */
int neap_mlp_new(neap_mlp **out, const int *sizes, int layers, int act, float leak, uint64_t seed);
neap_mlp *neap_mlp_ref(neap_mlp *m);
void neap_mlp_unref(neap_mlp *m); /* NULL is fine */
int neap_mlp_clone(neap_mlp **out, const neap_mlp *m);

/* One optimiser step on n rows (x: [n][ldx], y: [n][out] contiguous); *loss gets the mean loss before the step. 0, NEAP_ERR_INVALID (n < 1),
   NEAP_ERR_MEMORY. */
int neap_mlp_step(neap_mlp *m, const neap_hyper *h, const float *x, long ldx, const float *y, int n, double *loss);

/* Makes m->work hold batches of `rows`. 0 or NEAP_ERR_MEMORY. */
int neap_mlp_room(neap_mlp *m, int rows);

/* Outputs of n rows, on this thread. */
int neap_mlp_predict(neap_mlp *m, const float *x, long ldx, int64_t n, float *out);

/* 64 hex digits over all weights and biases in torch's order: equal exactly if the weights are. */
void neap_mlp_hash(const neap_mlp *m, char out[65]);

/* Names of activations, losses, optimisers; NULL beyond the last. */
extern const char *const neap_act_names[], *const neap_loss_names[], *const neap_opt_names[], *const neap_norm_names[];

/* ---- checkpoints: tensors "layer1.weight" [out x in], "layer1.bias", ... as torch's Linear, and metadata ---- */
/* Adds the model to a container; with `optimizer` also its moments, so that training can go on exactly. */
int neap_mlp_to_safe(const neap_mlp *m, neap_safe *s, int optimizer);
/* The model in a container. NEAP_ERR_CORRUPT when tensors or metadata are missing, disagree, or ours without a valid checksum; s->error says what. */
int neap_mlp_from_safe(neap_mlp **out, neap_safe *s);

/* ---- data sets (mlp_data.c) ---- */
typedef struct neap_mlp_data {
    atomic_int refs;
    neap_data d;
    int outputs;                                     /* numbers per target; 0: none */
    neap_tensor series, target, starts, extra, x, y; /* what d points into; empty handles where unused */
} neap_mlp_data;

/* Rows: x [n x in], y [n x out] or empty for scoring. Float32; other dtypes and layouts are converted (a copy). 0, NEAP_ERR_SHAPE, NEAP_ERR_MEMORY.
 */
int neap_mlp_rows(neap_mlp_data **out, const neap_tensor *x, const neap_tensor *y);

/* Windows over a float series. *spec gives window, horizon, stride, dilation, norm, loc, inv, level, level_inv (pointers and counts in it are
   ignored); starts (i64, from 0) may be empty: every stride-th possible start; target empty: the series; extra: [length x extras] or empty.
   `outputs` values from the horizon on are the target; every window and target must lie inside the series. NEAP_ERR_INVALID with a sentence in why.
 */
int neap_mlp_windows(neap_mlp_data **out, const neap_data *spec, int outputs, const neap_tensor *series, const neap_tensor *target,
                     const neap_tensor *starts, const neap_tensor *extra, char *why, size_t size);
void neap_mlp_data_unref(neap_mlp_data *d); /* NULL is fine */
neap_mlp_data *neap_mlp_data_ref(neap_mlp_data *d);
int neap_mlp_data_inputs(const neap_mlp_data *d); /* numbers per sample */
#endif
