/* tensor.h: arrays of numbers with shape and strides over shared storage. A neap_tensor is a small value: copy it after neap_tensor_ref, drop it with
   neap_tensor_unref. Views (narrow, transpose, unfold, ...) share storage and copy nothing. Here dimensions and indices count from 0; the Lua
   binding counts from 1. Storage counts references atomically, so that a compute thread may hold one; the numbers themselves are not locked.

   Functions that make a tensor fill *out with a new reference and return 0, NEAP_ERR_MEMORY, NEAP_ERR_SHAPE (shapes or dtypes do not fit) or
   NEAP_ERR_INVALID (an index or argument out of range); on failure *out holds nothing. */
#ifndef NEAP_TENSOR_H
#define NEAP_TENSOR_H
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include "host/err.h"
#include "kernels/device.h"
#include "kernels/kernels.h"

typedef struct neap_storage {
    atomic_int refs;
    size_t bytes;
    void *data;                            /* 64-byte aligned when ours */
    void (*release)(void *data, void *ud); /* foreign memory: how to give it back; NULL: ours */
    void *ud;
    const neap_device *device; /* NULL: the cpu; else data is that device's, and only its functions touch it */
} neap_storage;

typedef struct neap_tensor {
    neap_storage *storage; /* NULL: an empty handle */
    neap_dtype dtype;
    int dims;                                            /* 0: a single number */
    int64_t shape[NEAP_MAX_DIMS], stride[NEAP_MAX_DIMS]; /* strides in elements */
    int64_t offset;                                      /* first element */
} neap_tensor;

const char *neap_dtype_name(neap_dtype t); /* "u8", "i64", "f32", "f64" */
int neap_dtype_parse(const char *name);    /* the dtype (also "float32", "float", ...), or -1 */
size_t neap_dtype_size(neap_dtype t);

/* ---- making ---- */
int neap_tensor_new(neap_tensor *out, neap_dtype t, int dims, const int64_t *shape); /* zeroed */
int neap_tensor_new_on(neap_tensor *out, const neap_device *device, neap_dtype t, int dims, const int64_t *shape);
/* The same, unfilled on the cpu: for results that are written whole before anyone reads them. */
int neap_tensor_bare(neap_tensor *out, const neap_device *device, neap_dtype t, int dims, const int64_t *shape);
/* Around memory that stays the caller's until release(data, ud); contiguous. */
int neap_tensor_wrap(neap_tensor *out, neap_dtype t, int dims, const int64_t *shape, void *data, void (*release)(void *, void *), void *ud);
neap_tensor neap_tensor_ref(const neap_tensor *t);
void neap_tensor_unref(neap_tensor *t);                                                /* clears the handle; harmless on an empty one */
int neap_tensor_clone(neap_tensor *out, const neap_tensor *t);                         /* a contiguous copy */
int neap_tensor_cast(neap_tensor *out, const neap_tensor *t, neap_dtype dtype);        /* contiguous, converted; a reference if nothing changes */
int neap_tensor_contiguous(neap_tensor *out, const neap_tensor *t);                    /* itself (a reference) if it is already */
int neap_tensor_to(neap_tensor *out, const neap_tensor *t, const neap_device *device); /* contiguous on that device; itself if it is there already */
int neap_tensor_rand(neap_tensor *t, uint64_t seed, int normal);                       /* fills t: uniform [0,1) or standard normal */

/* ---- devices (tensor_device.c): operands of one operation lie on one device; a single number (0 dimensions) may stay on the cpu ---- */
const neap_device *neap_tensor_device(const neap_tensor *t);
const char *neap_tensor_device_name(const neap_tensor *t); /* "cpu", "cuda" */
/* The device of an operation on n operands into *device. NEAP_ERR_INVALID: they lie on different ones. */
int neap_tensor_device_of(const neap_tensor *const *t, int n, const neap_device **device);
int neap_tensor_device_map(int kind, int op, const neap_tensor *out, const neap_tensor *a, const neap_tensor *b, const neap_tensor *c);
int neap_tensor_device_take(const neap_tensor *out, const neap_tensor *t, const neap_tensor *index); /* all on one device, index checked */
int neap_tensor_device_copy(const neap_tensor *to, const neap_tensor *from);                   /* of one shape, at least one of them on a device */
int neap_tensor_device_reduce(const neap_tensor *out, int red, const neap_tensor *t, int dim); /* dim -1: everything, t contiguous */
int neap_tensor_device_product(const neap_tensor *out, const neap_tensor *a, const neap_tensor *b, int64_t m, int64_t n, int64_t k);

/* ---- looking; a device's numbers come one by one, each after waiting for it: take neap_tensor_to for many ---- */
int64_t neap_tensor_count(const neap_tensor *t);
int neap_tensor_is_contiguous(const neap_tensor *t);
int neap_tensor_same_shape(const neap_tensor *a, const neap_tensor *b);
void *neap_tensor_data(const neap_tensor *t);             /* address of the first element */
double neap_tensor_get(const neap_tensor *t, int64_t at); /* element by position in storage (offset included) */
void neap_tensor_put(const neap_tensor *t, int64_t at, double v);
int64_t neap_tensor_get_int(const neap_tensor *t, int64_t at);
void neap_tensor_put_int(const neap_tensor *t, int64_t at, int64_t v);
/* "[64 x 24]" into buf; returns buf. */
const char *neap_tensor_shape_text(const neap_tensor *t, char *buf, size_t size);

/* ---- views ---- */
int neap_tensor_select(neap_tensor *out, const neap_tensor *t, int dim, int64_t index);
int neap_tensor_slice(neap_tensor *out, const neap_tensor *t, int dim, int64_t start, int64_t length, int64_t step);
int neap_tensor_transpose(neap_tensor *out, const neap_tensor *t, int a, int b);
int neap_tensor_permute(neap_tensor *out, const neap_tensor *t, const int *order);
int neap_tensor_unfold(neap_tensor *out, const neap_tensor *t, int dim, int64_t size, int64_t step); /* windows in a new last dimension */
int neap_tensor_view(neap_tensor *out, const neap_tensor *t, int dims,
                     const int64_t *shape); /* NEAP_ERR_INVALID: not contiguous; one -1 is inferred */
int neap_tensor_reshape(neap_tensor *out, const neap_tensor *t, int dims, const int64_t *shape); /* a view, or a copy */
int neap_tensor_expand(neap_tensor *out, const neap_tensor *t, int dims, const int64_t *shape);  /* broadcast: stride 0 */

/* ---- arithmetic (tensor_math.c) ---- */
int neap_tensor_copy(const neap_tensor *to, const neap_tensor *from); /* broadcasts, converts */
int neap_tensor_fill(const neap_tensor *t, double v);
int neap_tensor_broadcast(const neap_tensor *a, const neap_tensor *b, int *dims, int64_t *shape); /* 0 or NEAP_ERR_SHAPE */
int neap_tensor_binary(neap_tensor *out, int op, const neap_tensor *a, const neap_tensor *b);
int neap_tensor_binary_into(const neap_tensor *to, int op, const neap_tensor *a, const neap_tensor *b); /* to may be a itself */
int neap_tensor_unary(neap_tensor *out, int op, const neap_tensor *a);
int neap_tensor_unary_into(const neap_tensor *to, int op, const neap_tensor *a);
int neap_tensor_compare(neap_tensor *out, int cmp, const neap_tensor *a, const neap_tensor *b); /* u8: 0 or 1 */
int neap_tensor_where(neap_tensor *out, const neap_tensor *cond, const neap_tensor *a, const neap_tensor *b);
int neap_tensor_cat(neap_tensor *out, const neap_tensor *list, int n, int dim);
int neap_tensor_take(neap_tensor *out, const neap_tensor *t, const neap_tensor *index);            /* rows of dimension 0, by i64 index from 0 */
int neap_tensor_matmul(neap_tensor *out, const neap_tensor *a, const neap_tensor *b, int threads); /* [m x k][k x n], or with vectors */

/* ---- reductions (tensor_reduce.c) ---- */
/* Over everything. Empty input: sum 0, others NaN (arg*: NEAP_ERR_SHAPE). var and std divide by n-1, as torch. */
int neap_tensor_reduce_all(double *out, int red, const neap_tensor *t);
int neap_tensor_reduce(neap_tensor *out, int red, const neap_tensor *t, int dim, int keep);
int neap_tensor_quantile(double *out, const neap_tensor *t, double q); /* linear interpolation, as numpy; NaN if empty or a NaN is in it */
int neap_tensor_sort(neap_tensor *out, neap_tensor *index, const neap_tensor *t, int descending); /* 1-d; index (i64 from 0) may be NULL; stable */
int neap_tensor_cumsum(neap_tensor *out, const neap_tensor *t, int dim);
#endif
