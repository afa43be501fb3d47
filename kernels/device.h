/* device.h: tensors in another memory than the host's, as one table of functions (kernels/cuda fills it; NULL stands for the cpu everywhere above).
   Work is put into one stream of the device in the order of the calls, from any thread, and runs later; only `get` waits. A released block may be
   handed out again at once: its next user's work comes later in the stream. Functions return 0 or NEAP_KERN_*; `error` then has the sentence. */
#ifndef NEAP_DEVICE_H
#define NEAP_DEVICE_H
#include <stddef.h>
#include <stdint.h>

#define NEAP_DEVICE_ABI 1
#define NEAP_MAX_DIMS   8

typedef enum neap_dtype { NEAP_U8, NEAP_I64, NEAP_F32, NEAP_F64, NEAP_DTYPES } neap_dtype; /* in order of promotion */

enum { NEAP_CMP_EQ, NEAP_CMP_NE, NEAP_CMP_LT, NEAP_CMP_LE, NEAP_CMP_GT, NEAP_CMP_GE };
enum { NEAP_SUM, NEAP_MEAN, NEAP_MIN, NEAP_MAX, NEAP_VAR, NEAP_STD, NEAP_NORM, NEAP_ARGMIN, NEAP_ARGMAX, NEAP_MEDIAN, NEAP_ANY, NEAP_ALL };

/* One operand of an element-wise operation: where its first element lies, its steps in elements; or, without data, one number. */
typedef struct neap_operand {
    void *data;
    int dtype; /* NEAP_* */
    int64_t stride[NEAP_MAX_DIMS];
    double value;  /* data == NULL: the number, */
    int64_t whole; /* and as an integer */
} neap_operand;

/* out = f(a[, b[, c]]) element by element. take: c, i64, gives the row of a (from 0, checked by the caller), b.whole a's row stride. */
enum { NEAP_MAP_COPY, NEAP_MAP_UNARY, NEAP_MAP_BINARY, NEAP_MAP_COMPARE, NEAP_MAP_WHERE, NEAP_MAP_TAKE };

typedef struct neap_map {
    int kind, op, dims; /* op: NEAP_OP_* or NEAP_CMP_* */
    int64_t count, shape[NEAP_MAX_DIMS];
    neap_operand out, a, b, c; /* where: c chooses a or b */
} neap_map;

/* out[k] = the reduction of n elements, `step` apart, from each position that the other dimensions give. n > 0, except for sum, any, all. */
typedef struct neap_reduction {
    int red, dims; /* dims: those that are kept */
    int64_t shape[NEAP_MAX_DIMS], stride[NEAP_MAX_DIMS], count, n, step;
    const void *data;
    int dtype, out_dtype;
    void *out; /* contiguous */
} neap_reduction;

/* c[m][n] = a[m][k] b[k][n], steps in elements; c contiguous, of out_dtype (f32 or f64). */
typedef struct neap_product {
    int64_t m, n, k, a_row, a_col, b_row, b_col;
    const void *a, *b;
    void *c;
    int a_dtype, b_dtype, out_dtype;
} neap_product;

typedef struct neap_memory_use {
    size_t used, cached, free, total; /* bytes: handed out, kept for reuse, and what the device itself says */
} neap_memory_use;

typedef struct neap_device {
    uint32_t abi;
    const char *name; /* "cuda" */
    int (*alloc)(void **out, size_t bytes);
    void (*release)(void *p);
    int (*zero)(void *p, size_t bytes);
    int (*put)(void *to, const void *from, size_t bytes); /* from host memory, which may change as soon as this returns */
    int (*get)(void *to, const void *from, size_t bytes); /* to host memory; waits for what was put into the stream before */
    int (*map)(const neap_map *m);
    int (*reduce)(const neap_reduction *r);
    int (*gemm)(const neap_product *p);
    const char *(*gemm_name)(void); /* "cublas", or "neap" where no libcublas opens */
    void (*memory)(neap_memory_use *use);
    const char *(*error)(void);
    const char *(*model)(void); /* "NVIDIA H200" */
} neap_device;
#endif
