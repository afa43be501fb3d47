/* tensor_math.c: element-wise arithmetic with broadcasting, copies, comparisons and matrix products. Everything goes through `walk`: it merges
   dimensions that are laid out alike and hands over runs, so that contiguous float32 reaches the vector kernels as one call. */
#include "host/tensor.h"
#include "kernels/elementwise.h"
#include <math.h>
#include <string.h>

/* One run: n elements of each operand, from position at[k] in steps of step[k] (elements). */
typedef void (*run_fn)(void *ud, int64_t n, const int64_t *at, const int64_t *step);

/* Visits `ops` operands of one shape together. */
static void walk(int ops, const neap_tensor *const *t, run_fn fn, void *ud) {
    int64_t shape[NEAP_MAX_DIMS + 1], stride[4][NEAP_MAX_DIMS + 1], at[4], count[NEAP_MAX_DIMS + 1] = {0};
    int dims = 0;
    for (int i = 0; i < t[0]->dims; i++) {
        int64_t n = t[0]->shape[i];
        int merges = dims > 0;
        if (n == 0) return;
        if (n == 1) continue;
        for (int k = 0; k < ops; k++) merges = merges && stride[k][dims - 1] == t[k]->stride[i] * n;
        if (!merges) shape[dims++] = 1;
        shape[dims - 1] *= n;
        for (int k = 0; k < ops; k++) stride[k][dims - 1] = t[k]->stride[i];
    }
    if (dims == 0) {
        shape[dims++] = 1;
        for (int k = 0; k < ops; k++) stride[k][0] = 1;
    }
    int64_t step[4];
    for (int k = 0; k < ops; k++) at[k] = t[k]->offset, step[k] = stride[k][dims - 1];
    for (;;) {
        int d = dims - 2;
        fn(ud, shape[dims - 1], at, step);
        for (; d >= 0; d--) { /* the next run: count up from the inside */
            for (int k = 0; k < ops; k++) at[k] += stride[k][d];
            if (++count[d] < shape[d]) break;
            for (int k = 0; k < ops; k++) at[k] -= stride[k][d] * shape[d];
            count[d] = 0;
        }
        if (d < 0) return;
    }
}

typedef struct math_job {
    const neap_tensor *out, *a, *b, *c;
    int op;
} math_job;

static void copy_run(void *ud, int64_t n, const int64_t *at, const int64_t *step) {
    const math_job *j = ud;
    size_t size = neap_dtype_size(j->out->dtype);
    if (j->out->dtype == j->a->dtype && step[0] == 1 && step[1] == 1) {
        memmove((char *)j->out->storage->data + at[0] * size, (char *)j->a->storage->data + at[1] * size, (size_t)n * size);
    } else if (j->out->dtype == NEAP_F32 && j->a->dtype == NEAP_F32) {
        float *out = (float *)j->out->storage->data + at[0], *a = (float *)j->a->storage->data + at[1];
        for (int64_t i = 0; i < n; i++) out[i * step[0]] = a[i * step[1]];
    } else if (j->out->dtype == NEAP_I64 && j->a->dtype <= NEAP_I64) {
        for (int64_t i = 0; i < n; i++) neap_tensor_put_int(j->out, at[0] + i * step[0], neap_tensor_get_int(j->a, at[1] + i * step[1]));
    } else {
        for (int64_t i = 0; i < n; i++) neap_tensor_put(j->out, at[0] + i * step[0], neap_tensor_get(j->a, at[1] + i * step[1]));
    }
}

int neap_tensor_copy(const neap_tensor *to, const neap_tensor *from) {
    neap_tensor wide;
    int rc = neap_tensor_expand(&wide, from, to->dims, to->shape);
    if (rc) return rc;
    math_job j = {.out = to, .a = &wide};
    if (neap_tensor_device(to) || neap_tensor_device(from)) rc = neap_tensor_device_copy(to, &wide);
    else walk(2, (const neap_tensor *[]){to, &wide}, copy_run, &j);
    neap_tensor_unref(&wide);
    return rc;
}

int neap_tensor_fill(const neap_tensor *t, double v) {
    neap_tensor one;
    int rc = neap_tensor_new(&one, t->dtype == NEAP_I64 ? NEAP_I64 : NEAP_F64, 0, NULL);
    if (rc) return rc;
    neap_tensor_put(&one, 0, v);
    rc = neap_tensor_copy(t, &one);
    neap_tensor_unref(&one);
    return rc;
}

int neap_tensor_broadcast(const neap_tensor *a, const neap_tensor *b, int *dims, int64_t *shape) {
    int n = a->dims > b->dims ? a->dims : b->dims;
    for (int i = 0; i < n; i++) {
        int64_t x = i < n - a->dims ? 1 : a->shape[i - (n - a->dims)], y = i < n - b->dims ? 1 : b->shape[i - (n - b->dims)];
        if (x != y && x != 1 && y != 1) return NEAP_ERR_SHAPE;
        shape[i] = x == 1 ? y : x;
    }
    *dims = n;
    return 0;
}

/* ---- binary ---- */

static void binary_run(void *ud, int64_t n, const int64_t *at, const int64_t *step) {
    const math_job *j = ud;
    if (j->a->dtype == NEAP_F32 && j->b->dtype == NEAP_F32 && j->out->dtype == NEAP_F32) {
        float *out = (float *)j->out->storage->data + at[0], *a = (float *)j->a->storage->data + at[1], *b = (float *)j->b->storage->data + at[2];
        if (step[0] == 1 && step[1] >= 0 && step[1] <= 1 && step[2] >= 0 && step[2] <= 1) {
            neap_kernels_cpu()->binary(j->op, a, (int)step[1], b, (int)step[2], out, (size_t)n);
            return;
        }
        for (int64_t i = 0; i < n; i += 256) { /* strided: through small buffers */
            float ta[256], tb[256], to[256];
            int m = n - i < 256 ? (int)(n - i) : 256;
            for (int k = 0; k < m; k++) ta[k] = a[(i + k) * step[1]], tb[k] = b[(i + k) * step[2]];
            neap_kernels_cpu()->binary(j->op, ta, 1, tb, 1, to, (size_t)m);
            for (int k = 0; k < m; k++) out[(i + k) * step[0]] = to[k];
        }
    } else if (j->out->dtype <= NEAP_I64 && j->a->dtype <= NEAP_I64 && j->b->dtype <= NEAP_I64 && j->op != NEAP_OP_DIV && j->op != NEAP_OP_POW) {
        for (int64_t i = 0; i < n; i++)
            neap_tensor_put_int(j->out, at[0] + i * step[0],
                                binary_int(j->op, neap_tensor_get_int(j->a, at[1] + i * step[1]), neap_tensor_get_int(j->b, at[2] + i * step[2])));
    } else {
        for (int64_t i = 0; i < n; i++)
            neap_tensor_put(j->out, at[0] + i * step[0],
                            binary_double(j->op, neap_tensor_get(j->a, at[1] + i * step[1]), neap_tensor_get(j->b, at[2] + i * step[2])));
    }
}

#define COMPARE(sign)                                                                                                                                \
    for (int64_t i = 0; i < n; i++) out[i] = a[i * sa] sign b[i * sb];                                                                               \
    break

static void compare_floats(int op, uint8_t *out, const float *a, int64_t sa, const float *b, int64_t sb, int64_t n) {
    switch (op) {
    case NEAP_CMP_EQ: COMPARE(==);
    case NEAP_CMP_NE: COMPARE(!=);
    case NEAP_CMP_LT: COMPARE(<);
    case NEAP_CMP_LE: COMPARE(<=);
    case NEAP_CMP_GT: COMPARE(>);
    default: COMPARE(>=);
    }
}

static void compare_run(void *ud, int64_t n, const int64_t *at, const int64_t *step) {
    const math_job *j = ud;
    uint8_t *out = (uint8_t *)j->out->storage->data + at[0];
    int ints = j->a->dtype <= NEAP_I64 && j->b->dtype <= NEAP_I64;
    if (j->a->dtype == NEAP_F32 && j->b->dtype == NEAP_F32 && step[0] == 1) {
        compare_floats(j->op, out, (float *)j->a->storage->data + at[1], step[1], (float *)j->b->storage->data + at[2], step[2], n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t pa = at[1] + i * step[1], pb = at[2] + i * step[2];
        double x = 0, y = 0;
        if (ints) {
            int64_t xi = neap_tensor_get_int(j->a, pa), yi = neap_tensor_get_int(j->b, pb);
            x = (xi > yi) - (xi < yi);
        } else {
            x = neap_tensor_get(j->a, pa), y = neap_tensor_get(j->b, pb);
        }
        uint8_t r = 0;
        switch (j->op) {
        case NEAP_CMP_EQ: r = x == y; break;
        case NEAP_CMP_NE: r = x != y; break;
        case NEAP_CMP_LT: r = x < y; break;
        case NEAP_CMP_LE: r = x <= y; break;
        case NEAP_CMP_GT: r = x > y; break;
        default: r = x >= y; break;
        }
        out[i * step[0]] = r;
    }
}

/* Runs fn over `to` and a, b broadcast to its shape. If an operand shares memory with `to` in another layout, it is copied first. */
static int zip_into(const neap_tensor *to, int op, const neap_tensor *a, const neap_tensor *b, run_fn fn) {
    const neap_tensor *in[2] = {a, b};
    const neap_device *device;
    neap_tensor wide[2] = {{0}, {0}};
    int rc = neap_tensor_device_of((const neap_tensor *[]){to, a, b}, 3, &device);
    if (!rc && device != neap_tensor_device(to)) rc = NEAP_ERR_INVALID; /* a single number on the cpu cannot take a device's result */
    for (int k = 0; k < 2 && !rc; k++) {
        rc = neap_tensor_expand(&wide[k], in[k], to->dims, to->shape);
        int same = in[k]->offset == to->offset && !rc && !memcmp(wide[k].stride, to->stride, (size_t)to->dims * sizeof to->stride[0]);
        if (!rc && in[k]->storage == to->storage && !same) {
            neap_tensor copy;
            rc = neap_tensor_clone(&copy, &wide[k]);
            neap_tensor_unref(&wide[k]);
            if (!rc) wide[k] = copy;
        }
    }
    if (!rc) {
        math_job j = {.out = to, .a = &wide[0], .b = &wide[1], .op = op};
        if (device) rc = neap_tensor_device_map(fn == compare_run ? NEAP_MAP_COMPARE : NEAP_MAP_BINARY, op, to, &wide[0], &wide[1], NULL);
        else walk(3, (const neap_tensor *[]){to, &wide[0], &wide[1]}, fn, &j);
    }
    neap_tensor_unref(&wide[0]);
    neap_tensor_unref(&wide[1]);
    return rc;
}

static int zip(neap_tensor *out, neap_dtype dtype, int op, const neap_tensor *a, const neap_tensor *b, run_fn fn) {
    int64_t shape[NEAP_MAX_DIMS];
    const neap_device *device;
    int dims, rc = neap_tensor_broadcast(a, b, &dims, shape);
    neap_tensor c;
    if (!rc) rc = neap_tensor_device_of((const neap_tensor *[]){a, b}, 2, &device);
    if (!rc) rc = neap_tensor_bare(&c, device, dtype, dims, shape);
    if (rc) return rc;
    rc = zip_into(&c, op, a, b, fn);
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

int neap_tensor_binary_into(const neap_tensor *to, int op, const neap_tensor *a, const neap_tensor *b) { return zip_into(to, op, a, b, binary_run); }

int neap_tensor_binary(neap_tensor *out, int op, const neap_tensor *a, const neap_tensor *b) {
    neap_dtype t = a->dtype > b->dtype ? a->dtype : b->dtype;
    if (t < NEAP_F32 && (op == NEAP_OP_DIV || op == NEAP_OP_POW)) t = NEAP_F32;
    return zip(out, t, op, a, b, binary_run);
}

int neap_tensor_compare(neap_tensor *out, int cmp, const neap_tensor *a, const neap_tensor *b) { return zip(out, NEAP_U8, cmp, a, b, compare_run); }

/* ---- unary ---- */

static void unary_run(void *ud, int64_t n, const int64_t *at, const int64_t *step) {
    const math_job *j = ud;
    if (j->a->dtype == NEAP_F32 && j->out->dtype == NEAP_F32 && step[0] == 1 && step[1] == 1) {
        neap_kernels_cpu()->unary(j->op, (float *)j->a->storage->data + at[1], (float *)j->out->storage->data + at[0], (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) neap_tensor_put(j->out, at[0] + i * step[0], unary_double(j->op, neap_tensor_get(j->a, at[1] + i * step[1])));
}

int neap_tensor_unary_into(const neap_tensor *to, int op, const neap_tensor *a) {
    math_job j = {.out = to, .a = a, .op = op};
    if (!neap_tensor_same_shape(to, a)) return NEAP_ERR_SHAPE;
    if (neap_tensor_device(to) != neap_tensor_device(a)) return NEAP_ERR_INVALID;
    if (neap_tensor_device(to)) return neap_tensor_device_map(NEAP_MAP_UNARY, op, to, a, NULL, NULL);
    walk(2, (const neap_tensor *[]){to, a}, unary_run, &j);
    return 0;
}

int neap_tensor_unary(neap_tensor *out, int op, const neap_tensor *a) {
    int keeps = op == NEAP_OP_NEG || op == NEAP_OP_ABS || op == NEAP_OP_SQUARE || op == NEAP_OP_SIGN || op == NEAP_OP_RELU || op == NEAP_OP_FLOOR ||
                op == NEAP_OP_CEIL || op == NEAP_OP_ROUND;
    neap_tensor c;
    int rc = neap_tensor_bare(&c, neap_tensor_device(a), a->dtype >= NEAP_F32 || keeps ? a->dtype : NEAP_F32, a->dims, a->shape);
    if (rc) return rc;
    rc = neap_tensor_unary_into(&c, op, a);
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

/* ---- choosing and joining ---- */

static void where_run(void *ud, int64_t n, const int64_t *at, const int64_t *step) {
    const math_job *j = ud;
    for (int64_t i = 0; i < n; i++) {
        int yes = neap_tensor_get(j->c, at[3] + i * step[3]) != 0.0;
        const neap_tensor *from = yes ? j->a : j->b;
        int64_t p = yes ? at[1] + i * step[1] : at[2] + i * step[2];
        if (j->out->dtype == NEAP_I64) neap_tensor_put_int(j->out, at[0] + i * step[0], neap_tensor_get_int(from, p));
        else neap_tensor_put(j->out, at[0] + i * step[0], neap_tensor_get(from, p));
    }
}

int neap_tensor_where(neap_tensor *out, const neap_tensor *cond, const neap_tensor *a, const neap_tensor *b) {
    neap_tensor both = {0}, c, wide[3] = {{0}, {0}, {0}};
    const neap_tensor *in[3] = {a, b, cond};
    int64_t shape[NEAP_MAX_DIMS];
    const neap_device *device;
    int dims, rc = neap_tensor_broadcast(a, b, &both.dims, both.shape);
    if (!rc) rc = neap_tensor_broadcast(&both, cond, &dims, shape);
    if (!rc) rc = neap_tensor_device_of(in, 3, &device);
    if (!rc) rc = neap_tensor_new_on(&c, device, a->dtype > b->dtype ? a->dtype : b->dtype, dims, shape);
    if (rc) return rc;
    for (int k = 0; k < 3 && !rc; k++) rc = neap_tensor_expand(&wide[k], in[k], dims, shape);
    if (!rc) {
        math_job j = {.out = &c, .a = &wide[0], .b = &wide[1], .c = &wide[2]};
        if (device) rc = neap_tensor_device_map(NEAP_MAP_WHERE, 0, &c, &wide[0], &wide[1], &wide[2]);
        else walk(4, (const neap_tensor *[]){&c, &wide[0], &wide[1], &wide[2]}, where_run, &j);
    }
    for (int k = 0; k < 3; k++) neap_tensor_unref(&wide[k]);
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

int neap_tensor_cat(neap_tensor *out, const neap_tensor *list, int n, int dim) {
    neap_tensor c, part;
    neap_dtype dtype = NEAP_U8;
    int64_t shape[NEAP_MAX_DIMS], at = 0;
    if (n < 1 || dim < 0 || dim >= list[0].dims) return NEAP_ERR_INVALID;
    memcpy(shape, list[0].shape, sizeof shape);
    shape[dim] = 0;
    for (int i = 0; i < n; i++) {
        if (list[i].dims != list[0].dims) return NEAP_ERR_SHAPE;
        if (neap_tensor_device(&list[i]) != neap_tensor_device(&list[0])) return NEAP_ERR_INVALID;
        for (int k = 0; k < list[0].dims; k++)
            if (k != dim && list[i].shape[k] != shape[k]) return NEAP_ERR_SHAPE;
        shape[dim] += list[i].shape[dim];
        if (list[i].dtype > dtype) dtype = list[i].dtype;
    }
    int rc = neap_tensor_new_on(&c, neap_tensor_device(&list[0]), dtype, list[0].dims, shape);
    if (rc) return rc;
    for (int i = 0; i < n && !rc; i++) {
        rc = neap_tensor_slice(&part, &c, dim, at, list[i].shape[dim], 1);
        if (rc) break;
        rc = neap_tensor_copy(&part, &list[i]);
        neap_tensor_unref(&part);
        at += list[i].shape[dim];
    }
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

/* The index, checked, as the cpu sees it, and where t lies. */
static int take_index(neap_tensor *index, neap_tensor *there, const neap_tensor *given, const neap_tensor *t) {
    if (given->dims != 1 || t->dims < 1) return NEAP_ERR_SHAPE;
    int rc = neap_tensor_to(index, given, NULL);
    for (int64_t i = 0; !rc && i < given->shape[0]; i++) {
        int64_t at = neap_tensor_get_int(index, index->offset + i * index->stride[0]);
        if (at < 0 || at >= t->shape[0]) rc = NEAP_ERR_INVALID, neap_tensor_unref(index);
    }
    if (!rc && (rc = neap_tensor_to(there, index, neap_tensor_device(t)))) neap_tensor_unref(index);
    return rc;
}

int neap_tensor_take(neap_tensor *out, const neap_tensor *t, const neap_tensor *given) {
    neap_tensor c, from, to, index, there;
    int64_t shape[NEAP_MAX_DIMS], n = given->dims == 1 ? given->shape[0] : 0;
    int rc = take_index(&index, &there, given, t);
    if (rc) return rc;
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = n;
    rc = neap_tensor_new_on(&c, neap_tensor_device(t), t->dtype, t->dims, shape);
    if (!rc && neap_tensor_device(t)) {
        rc = neap_tensor_device_take(&c, t, &there);
    } else if (!rc) {
        for (int64_t i = 0; i < n; i++) {
            neap_tensor_select(&from, t, 0, neap_tensor_get_int(&index, index.offset + i * index.stride[0]));
            neap_tensor_select(&to, &c, 0, i);
            neap_tensor_copy(&to, &from);
            neap_tensor_unref(&from);
            neap_tensor_unref(&to);
        }
    }
    neap_tensor_unref(&index);
    neap_tensor_unref(&there);
    if (!rc) *out = c;
    return rc;
}

/* ---- matrix product ---- */

int neap_tensor_matmul(neap_tensor *out, const neap_tensor *a, const neap_tensor *b, int threads) {
    if (a->dims < 1 || a->dims > 2 || b->dims < 1 || b->dims > 2) return NEAP_ERR_SHAPE;
    int64_t m = a->dims == 2 ? a->shape[0] : 1, k = a->shape[a->dims - 1], n = b->dims == 2 ? b->shape[1] : 1, shape[2];
    const neap_device *device = neap_tensor_device(a);
    if (b->shape[0] != k) return NEAP_ERR_SHAPE;
    if (device != neap_tensor_device(b)) return NEAP_ERR_INVALID;
    if (m > INT32_MAX || n > INT32_MAX || k > INT32_MAX) return NEAP_ERR_INVALID;
    neap_dtype dtype = a->dtype > b->dtype ? a->dtype : b->dtype;
    int dims = 0;
    if (a->dims == 2) shape[dims++] = m;
    if (b->dims == 2) shape[dims++] = n;
    neap_tensor c;
    int rc = neap_tensor_bare(&c, device, dtype < NEAP_F32 ? NEAP_F32 : dtype, dims, shape);
    if (rc) return rc;
    int64_t ar = a->dims == 2 ? a->stride[0] : 0, ac = a->stride[a->dims - 1], br = b->stride[0], bc = b->dims == 2 ? b->stride[1] : 0;
    if (device) {
        rc = neap_tensor_device_product(&c, a, b, m, n, k);
    } else if (c.dtype == NEAP_F32 && a->dtype == NEAP_F32 && b->dtype == NEAP_F32) {
        rc = neap_kernels_cpu()->gemm((int)m, (int)n, (int)k, neap_tensor_data(a), ar, ac, neap_tensor_data(b), br, bc, neap_tensor_data(&c), n,
                                      threads);
    } else {
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t p = 0; p < k; p++)
                    sum += neap_tensor_get(a, a->offset + i * ar + p * ac) * neap_tensor_get(b, b->offset + p * br + j * bc);
                neap_tensor_put(&c, i * n + j, sum);
            }
    }
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}
