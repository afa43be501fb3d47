/* tensor_reduce.c: sums, extremes, order statistics. Sums run in double whatever the dtype; NaN in gives NaN out, also for min and max. */
#include "host/tensor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* n values from a tensor's run as double, into a caller's buffer */
static void load(const neap_tensor *t, int64_t at, int64_t step, int64_t n, double *to) {
    const float *f = t->dtype == NEAP_F32 ? (const float *)t->storage->data + at : NULL;
    if (f) {
        for (int64_t i = 0; i < n; i++) to[i] = (double)f[i * step];
        return;
    }
    for (int64_t i = 0; i < n; i++) to[i] = neap_tensor_get(t, at + i * step);
}

static int compare_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The q-quantile of v[n], which is reordered; NaN for no values or a NaN among them. */
static double quantile_of(double *v, int64_t n, double q) {
    if (n == 0) return NAN;
    for (int64_t i = 0; i < n; i++)
        if (v[i] != v[i]) return NAN;
    qsort(v, (size_t)n, sizeof *v, compare_double);
    double place = q * (double)(n - 1);
    int64_t low = (int64_t)floor(place), high = low + 1 < n ? low + 1 : low;
    return v[low] + (v[high] - v[low]) * (place - (double)low);
}

/* The sum of n values, or of their squared distances from `mean`: eight sums that do not wait for one another. */
static double sum_of(const double *v, int64_t n) {
    double s[8] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += v[i + k];
    for (; i < n; i++) rest += v[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])) + rest;
}

static double squares_of(const double *v, int64_t n, double mean) {
    double s[8] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += (v[i + k] - mean) * (v[i + k] - mean);
    for (; i < n; i++) rest += (v[i] - mean) * (v[i] - mean);
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])) + rest;
}

/* One reduction of n values; v may be reordered. */
static double reduce_run(int red, double *v, int64_t n) {
    double best = n ? v[0] : NAN, squares;
    int64_t at = 0;
    switch (red) {
    case NEAP_SUM:
    case NEAP_MEAN: return red == NEAP_SUM ? sum_of(v, n) : sum_of(v, n) / (double)n;
    case NEAP_NORM: return sqrt(squares_of(v, n, 0.0));
    case NEAP_VAR:
    case NEAP_STD:
        squares = n > 1 ? squares_of(v, n, sum_of(v, n) / (double)n) / (double)(n - 1) : NAN;
        return red == NEAP_VAR ? squares : sqrt(squares);
    case NEAP_MIN:
    case NEAP_MAX:
    case NEAP_ARGMIN:
    case NEAP_ARGMAX:
        for (int64_t i = 0; i < n; i++)
            if (v[i] != v[i] ? best == best : (red == NEAP_MIN || red == NEAP_ARGMIN) ? v[i] < best : v[i] > best) best = v[i], at = i;
        return red == NEAP_MIN || red == NEAP_MAX ? best : (double)at;
    case NEAP_MEDIAN: return quantile_of(v, n, 0.5);
    case NEAP_ANY:
        for (int64_t i = 0; i < n; i++)
            if (v[i] != 0.0) return 1;
        return 0;
    default:
        for (int64_t i = 0; i < n; i++)
            if (v[i] == 0.0) return 0;
        return 1;
    }
}

/* All elements in row order as double; the caller frees. NULL: no memory. */
static double *all_values(const neap_tensor *t, int64_t *n) {
    neap_tensor here, flat;
    *n = neap_tensor_count(t);
    if (neap_tensor_to(&here, t, NULL)) return NULL;
    double *v = malloc((size_t)(*n ? *n : 1) * sizeof *v);
    int rc = v ? neap_tensor_contiguous(&flat, &here) : -1;
    neap_tensor_unref(&here);
    if (rc) {
        free(v);
        return NULL;
    }
    load(&flat, flat.offset, 1, *n, v);
    neap_tensor_unref(&flat);
    return v;
}

/* Over everything on the device; the one number comes back. */
static int reduce_there(double *out, int red, const neap_tensor *t) {
    neap_tensor flat, one;
    int rc = neap_tensor_contiguous(&flat, t);
    if (rc) return rc;
    rc = neap_tensor_new_on(&one, neap_tensor_device(t), NEAP_F64, 0, NULL);
    if (!rc) {
        rc = neap_tensor_device_reduce(&one, red, &flat, -1);
        if (!rc) rc = neap_tensor_device(t)->get(out, neap_tensor_data(&one), sizeof *out);
        neap_tensor_unref(&one);
    }
    neap_tensor_unref(&flat);
    return rc;
}

int neap_tensor_reduce_all(double *out, int red, const neap_tensor *t) {
    int64_t n = neap_tensor_count(t);
    if (n == 0 && (red == NEAP_ARGMIN || red == NEAP_ARGMAX)) return NEAP_ERR_SHAPE;
    if (neap_tensor_device(t) && n && red != NEAP_MEDIAN) return reduce_there(out, red, t);
    if (t->dtype == NEAP_F32 && n && neap_tensor_is_contiguous(t) &&
        (red == NEAP_SUM || red == NEAP_MEAN || red == NEAP_NORM || red == NEAP_MIN || red == NEAP_MAX)) {
        int op = red == NEAP_MIN ? NEAP_RED_MIN : red == NEAP_MAX ? NEAP_RED_MAX : red == NEAP_NORM ? NEAP_RED_SUMSQ : NEAP_RED_SUM;
        double r = neap_kernels_cpu()->reduce(op, neap_tensor_data(t), (size_t)n);
        *out = red == NEAP_MEAN ? r / (double)n : red == NEAP_NORM ? sqrt(r) : r;
        return 0;
    }
    double *v = all_values(t, &n);
    if (!v) return NEAP_ERR_MEMORY;
    *out = reduce_run(red, v, n);
    free(v);
    return 0;
}

/* What the device's table lacks: on a copy here, the result goes back. */
static int reduce_here(neap_tensor *out, int red, const neap_tensor *t, int dim, int keep) {
    neap_tensor here, result;
    int rc = neap_tensor_to(&here, t, NULL);
    if (rc) return rc;
    rc = neap_tensor_reduce(&result, red, &here, dim, keep);
    neap_tensor_unref(&here);
    if (rc) return rc;
    rc = neap_tensor_to(out, &result, neap_tensor_device(t));
    neap_tensor_unref(&result);
    return rc;
}

/* Sums or means of contiguous floats along dim into c: rows through the kernels, else row after row onto sums of double. */
static int sum_floats(const neap_tensor *c, const neap_tensor *t, int dim, int mean) {
    int64_t n = t->shape[dim], outer = 1, inner = 1;
    const float *from = neap_tensor_data(t);
    float *to = neap_tensor_data(c);
    for (int i = 0; i < dim; i++) outer *= t->shape[i];
    for (int i = dim + 1; i < t->dims; i++) inner *= t->shape[i];
    double *sum = malloc((size_t)(inner ? inner : 1) * sizeof *sum), share = mean ? (double)n : 1.0;
    if (!sum) return NEAP_ERR_MEMORY;
    for (int64_t o = 0; o < outer; o++, from += n * inner) {
        if (inner == 1) {
            to[o] = (float)(neap_kernels_cpu()->reduce(NEAP_RED_SUM, from, (size_t)n) / share);
            continue;
        }
        for (int64_t k = 0; k < inner; k++) sum[k] = 0.0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < inner; k++) sum[k] += (double)from[i * inner + k];
        for (int64_t k = 0; k < inner; k++) to[o * inner + k] = (float)(sum[k] / share);
    }
    free(sum);
    return 0;
}

int neap_tensor_reduce(neap_tensor *out, int red, const neap_tensor *t, int dim, int keep) {
    const neap_device *device = neap_tensor_device(t);
    if (dim < 0 || dim >= t->dims) return NEAP_ERR_INVALID;
    if (device && (red == NEAP_MEDIAN || t->shape[dim] == 0)) return reduce_here(out, red, t, dim, keep);
    int64_t shape[NEAP_MAX_DIMS], n = t->shape[dim], count[NEAP_MAX_DIMS] = {0};
    int arg = red == NEAP_ARGMIN || red == NEAP_ARGMAX, logic = red == NEAP_ANY || red == NEAP_ALL;
    int integral = t->dtype <= NEAP_I64 && (red == NEAP_SUM || red == NEAP_MIN || red == NEAP_MAX);
    if (n == 0 && arg) return NEAP_ERR_SHAPE;
    memcpy(shape, t->shape, sizeof shape);
    shape[dim] = 1;
    neap_tensor c;
    neap_dtype dtype = arg || integral ? NEAP_I64 : logic ? NEAP_U8 : t->dtype < NEAP_F32 ? NEAP_F32 : t->dtype;
    int rc = neap_tensor_new_on(&c, device, dtype, t->dims, shape);
    double *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    if (rc || !v) {
        if (!rc) neap_tensor_unref(&c);
        free(v);
        return rc ? rc : NEAP_ERR_MEMORY;
    }
    int64_t total = neap_tensor_count(&c), at = t->offset;
    if (device && (rc = neap_tensor_device_reduce(&c, red, t, dim))) {
        neap_tensor_unref(&c);
        free(v);
        return rc;
    }
    int rows = !device && t->dtype == NEAP_F32 && n > 0 && neap_tensor_is_contiguous(t) && (red == NEAP_SUM || red == NEAP_MEAN);
    if (rows && sum_floats(&c, t, dim, red == NEAP_MEAN)) rows = 0; /* no memory for it: the general way needs none */
    for (int64_t k = 0; !device && !rows && k < total; k++) {
        load(t, at, t->stride[dim], n, v);
        neap_tensor_put(&c, k, reduce_run(red, v, n));
        for (int d = t->dims - 1; d >= 0; d--) {
            if (d == dim) continue;
            at += t->stride[d];
            if (++count[d] < t->shape[d]) break;
            at -= t->stride[d] * t->shape[d];
            count[d] = 0;
        }
    }
    free(v);
    if (!keep) {
        for (int i = dim; i + 1 < c.dims; i++) c.shape[i] = c.shape[i + 1], c.stride[i] = c.stride[i + 1];
        c.dims--;
    }
    *out = c;
    return 0;
}

int neap_tensor_quantile(double *out, const neap_tensor *t, double q) {
    int64_t n;
    if (!(q >= 0 && q <= 1)) return NEAP_ERR_INVALID;
    double *v = all_values(t, &n);
    if (!v) return NEAP_ERR_MEMORY;
    *out = quantile_of(v, n, q);
    free(v);
    return 0;
}

typedef struct keyed {
    double v;
    int64_t at;
} keyed;

/* NaN last, equal values in their old order */
static int compare_keyed(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    int nx = x->v != x->v, ny = y->v != y->v, c = nx || ny ? nx - ny : (x->v > y->v) - (x->v < y->v);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

static int compare_keyed_down(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    int nx = x->v != x->v, ny = y->v != y->v, c = nx || ny ? nx - ny : (x->v < y->v) - (x->v > y->v);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Moves a result to where its operand lies. */
static int send_back(neap_tensor *t, const neap_device *device) {
    neap_tensor there;
    int rc = neap_tensor_to(&there, t, device);
    neap_tensor_unref(t);
    if (!rc) *t = there;
    return rc;
}

static int sort_here(neap_tensor *out, neap_tensor *index, const neap_tensor *t, int descending) {
    neap_tensor here;
    int rc = neap_tensor_to(&here, t, NULL);
    if (rc) return rc;
    rc = neap_tensor_sort(out, index, &here, descending);
    neap_tensor_unref(&here);
    if (rc) return rc;
    rc = send_back(out, neap_tensor_device(t));
    if (index && rc) neap_tensor_unref(index);
    else if (index && (rc = send_back(index, neap_tensor_device(t)))) neap_tensor_unref(out);
    return rc;
}

int neap_tensor_sort(neap_tensor *out, neap_tensor *index, const neap_tensor *t, int descending) {
    if (t->dims != 1) return NEAP_ERR_SHAPE;
    if (neap_tensor_device(t)) return sort_here(out, index, t, descending);
    int64_t n = t->shape[0];
    neap_tensor c, order = {0};
    keyed *k = malloc((size_t)(n ? n : 1) * sizeof *k);
    int rc = k ? neap_tensor_new(&c, t->dtype, 1, t->shape) : NEAP_ERR_MEMORY;
    if (!rc && index && (rc = neap_tensor_new(&order, NEAP_I64, 1, t->shape))) neap_tensor_unref(&c);
    if (rc) {
        free(k);
        return rc;
    }
    for (int64_t i = 0; i < n; i++) k[i] = (keyed){neap_tensor_get(t, t->offset + i * t->stride[0]), i};
    qsort(k, (size_t)n, sizeof *k, descending ? compare_keyed_down : compare_keyed);
    for (int64_t i = 0; i < n; i++) {
        int64_t from = t->offset + k[i].at * t->stride[0];
        if (t->dtype == NEAP_I64) neap_tensor_put_int(&c, i, neap_tensor_get_int(t, from));
        else neap_tensor_put(&c, i, k[i].v);
        if (index) neap_tensor_put_int(&order, i, k[i].at);
    }
    free(k);
    *out = c;
    if (index) *index = order;
    return 0;
}

int neap_tensor_cumsum(neap_tensor *out, const neap_tensor *t, int dim) {
    if (dim < 0 || dim >= t->dims) return NEAP_ERR_INVALID;
    neap_tensor c, here;
    if (neap_tensor_device(t)) {
        int failed = neap_tensor_to(&here, t, NULL);
        if (failed) return failed;
        failed = neap_tensor_cumsum(out, &here, dim);
        neap_tensor_unref(&here);
        return failed ? failed : send_back(out, neap_tensor_device(t));
    }
    int rc = t->dtype == NEAP_U8 ? neap_tensor_cast(&c, t, NEAP_I64) : neap_tensor_clone(&c, t);
    if (rc) return rc;
    int64_t n = c.shape[dim], inner = c.stride[dim], outer = n ? neap_tensor_count(&c) / n : 0;
    for (int64_t k = 0; k < outer; k++) {
        int64_t at = k / inner * inner * n + k % inner;
        double sum = 0;
        int64_t whole = 0;
        for (int64_t i = 0; i < n; i++, at += inner) {
            if (c.dtype == NEAP_I64) neap_tensor_put_int(&c, at, whole += neap_tensor_get_int(&c, at));
            else neap_tensor_put(&c, at, sum += neap_tensor_get(&c, at));
        }
    }
    *out = c;
    return 0;
}
