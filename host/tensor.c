/* tensor.c: storage, views and element access of neap_tensor. Arithmetic is in tensor_math.c, reductions in tensor_reduce.c. */
#include "host/tensor.h"
#include "kernels/elementwise.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *other, *third;
    size_t size;
} types[NEAP_DTYPES] = {{"u8", "uint8", "bool", 1}, {"i64", "int64", "long", 8}, {"f32", "float32", "float", 4}, {"f64", "float64", "double", 8}};

const char *neap_dtype_name(neap_dtype t) { return types[t].name; }
size_t neap_dtype_size(neap_dtype t) { return types[t].size; }

int neap_dtype_parse(const char *name) {
    for (int i = 0; i < NEAP_DTYPES; i++)
        if (!strcmp(name, types[i].name) || !strcmp(name, types[i].other) || !strcmp(name, types[i].third)) return i;
    return -1;
}

/* Fills dims, shape and contiguous strides; the element count, or -1 for a negative or absurd size. */
static int64_t layout(neap_tensor *t, int dims, const int64_t *shape) {
    int64_t count = 1;
    if (dims < 0 || dims > NEAP_MAX_DIMS) return -1;
    t->dims = dims;
    for (int i = dims - 1; i >= 0; i--) {
        if (shape[i] < 0) return -1;
        t->shape[i] = shape[i];
        t->stride[i] = count;
        if (shape[i] && count > ((int64_t)1 << 46) / shape[i]) return -1;
        count *= shape[i];
    }
    return count;
}

int neap_tensor_wrap(neap_tensor *out, neap_dtype t, int dims, const int64_t *shape, void *data, void (*release)(void *, void *), void *ud) {
    memset(out, 0, sizeof *out);
    int64_t count = layout(out, dims, shape);
    if (count < 0) return NEAP_ERR_INVALID;
    neap_storage *s = malloc(sizeof *s);
    if (!s) return NEAP_ERR_MEMORY;
    atomic_init(&s->refs, 1);
    s->bytes = (size_t)count * types[t].size;
    s->data = data;
    s->release = release;
    s->ud = ud;
    s->device = NULL;
    out->storage = s;
    out->dtype = t;
    return 0;
}

int neap_tensor_new(neap_tensor *out, neap_dtype t, int dims, const int64_t *shape) { return neap_tensor_new_on(out, NULL, t, dims, shape); }

int neap_tensor_new_on(neap_tensor *out, const neap_device *device, neap_dtype t, int dims, const int64_t *shape) {
    int rc = neap_tensor_bare(out, device, t, dims, shape);
    if (!rc && !device) memset(out->storage->data, 0, out->storage->bytes);
    return rc;
}

int neap_tensor_bare(neap_tensor *out, const neap_device *device, neap_dtype t, int dims, const int64_t *shape) {
    memset(out, 0, sizeof *out);
    int64_t count = layout(out, dims, shape);
    if (count < 0) return NEAP_ERR_INVALID;
    size_t size = (size_t)count * types[t].size, bytes = (size + 127) / 64 * 64; /* a spare line: lanes may read past the end */
    void *data = NULL;
    int rc = 0;
    if (device) {
        rc = device->alloc(&data, bytes);
        if (!rc) rc = device->zero(data, bytes);
    } else {
        data = aligned_alloc(64, bytes);
        if (!data) return NEAP_ERR_MEMORY;
        memset((char *)data + size, 0, bytes - size);
    }
    if (!rc) rc = neap_tensor_wrap(out, t, dims, shape, data, NULL, NULL);
    if (!rc) out->storage->device = device;
    else if (device) device->release(data);
    else free(data);
    return rc;
}

neap_tensor neap_tensor_ref(const neap_tensor *t) {
    if (t->storage) atomic_fetch_add(&t->storage->refs, 1);
    return *t;
}

void neap_tensor_unref(neap_tensor *t) {
    neap_storage *s = t->storage;
    t->storage = NULL;
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    if (s->device) s->device->release(s->data);
    else if (s->release) s->release(s->data, s->ud);
    else free(s->data);
    free(s);
}

int neap_tensor_clone(neap_tensor *out, const neap_tensor *t) {
    neap_tensor c;
    int rc = neap_tensor_new_on(&c, neap_tensor_device(t), t->dtype, t->dims, t->shape);
    if (rc) return rc;
    rc = neap_tensor_copy(&c, t);
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

int neap_tensor_cast(neap_tensor *out, const neap_tensor *t, neap_dtype dtype) {
    neap_tensor c;
    if (dtype == t->dtype) return neap_tensor_contiguous(out, t);
    int rc = neap_tensor_new_on(&c, neap_tensor_device(t), dtype, t->dims, t->shape);
    if (rc) return rc;
    rc = neap_tensor_copy(&c, t);
    if (rc) neap_tensor_unref(&c);
    else *out = c;
    return rc;
}

int neap_tensor_contiguous(neap_tensor *out, const neap_tensor *t) {
    if (!neap_tensor_is_contiguous(t)) return neap_tensor_clone(out, t);
    *out = neap_tensor_ref(t);
    return 0;
}

/* Two normals from two uniforms (Box and Muller); each element depends on seed and position only. */
int neap_tensor_rand(neap_tensor *t, uint64_t seed, int normal) {
    int64_t n = neap_tensor_count(t);
    if (!neap_tensor_is_contiguous(t) || t->dtype < NEAP_F32) return NEAP_ERR_SHAPE;
    for (int64_t i = 0; i < n; i++) {
        double u = (double)(neap_random_bits(seed, 0x52u, (uint64_t)i) >> 11) * 0x1p-53, v = u;
        if (normal) {
            double w = (double)(neap_random_bits(seed, 0x53u, (uint64_t)i) >> 11) * 0x1p-53;
            v = sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * w);
        } else if (t->dtype == NEAP_F32) {
            v = floor(u * 0x1p24) * 0x1p-24; /* stays below 1 as a float */
        }
        neap_tensor_put(t, t->offset + i, v);
    }
    return 0;
}

int64_t neap_tensor_count(const neap_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->dims; i++) n *= t->shape[i];
    return n;
}

int neap_tensor_is_contiguous(const neap_tensor *t) {
    int64_t want = 1;
    for (int i = t->dims - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != want) return neap_tensor_count(t) == 0;
        want *= t->shape[i];
    }
    return 1;
}

int neap_tensor_same_shape(const neap_tensor *a, const neap_tensor *b) {
    return a->dims == b->dims && !memcmp(a->shape, b->shape, (size_t)a->dims * sizeof a->shape[0]);
}

void *neap_tensor_data(const neap_tensor *t) { return (char *)t->storage->data + t->offset * (int64_t)types[t->dtype].size; }

static double get(neap_dtype dtype, const void *p, int64_t at) {
    switch (dtype) {
    case NEAP_U8: return ((const uint8_t *)p)[at];
    case NEAP_I64: return (double)((const int64_t *)p)[at];
    case NEAP_F32: return ((const float *)p)[at];
    default: return ((const double *)p)[at];
    }
}

static void put(neap_dtype dtype, void *p, int64_t at, double v) {
    switch (dtype) {
    case NEAP_U8: ((uint8_t *)p)[at] = (uint8_t)to_int(v, 0, 255, 255); break;
    case NEAP_I64: ((int64_t *)p)[at] = to_int(v, -0x1p63, 0x1p63, INT64_MAX); break;
    case NEAP_F32: ((float *)p)[at] = (float)v; break;
    default: ((double *)p)[at] = v; break;
    }
}

/* One element of a device tensor, to or from a small buffer; a failed device reads as zero. */
static void *fetch(const neap_tensor *t, int64_t at, int64_t *room) {
    *room = 0;
    t->storage->device->get(room, (const char *)t->storage->data + at * (int64_t)types[t->dtype].size, types[t->dtype].size);
    return room;
}

static void send(const neap_tensor *t, int64_t at, const int64_t *room) {
    t->storage->device->put((char *)t->storage->data + at * (int64_t)types[t->dtype].size, room, types[t->dtype].size);
}

double neap_tensor_get(const neap_tensor *t, int64_t at) {
    int64_t room;
    if (t->storage->device) return get(t->dtype, fetch(t, at, &room), 0);
    return get(t->dtype, t->storage->data, at);
}

void neap_tensor_put(const neap_tensor *t, int64_t at, double v) {
    int64_t room = 0;
    if (!t->storage->device) {
        put(t->dtype, t->storage->data, at, v);
        return;
    }
    put(t->dtype, &room, 0, v);
    send(t, at, &room);
}

int64_t neap_tensor_get_int(const neap_tensor *t, int64_t at) {
    int64_t room;
    if (t->dtype != NEAP_I64) return to_int(neap_tensor_get(t, at), -0x1p63, 0x1p63, INT64_MAX);
    return t->storage->device ? *(int64_t *)fetch(t, at, &room) : ((const int64_t *)t->storage->data)[at];
}

void neap_tensor_put_int(const neap_tensor *t, int64_t at, int64_t v) {
    if (t->dtype != NEAP_I64) neap_tensor_put(t, at, (double)v);
    else if (t->storage->device) send(t, at, &v);
    else ((int64_t *)t->storage->data)[at] = v;
}

const char *neap_tensor_shape_text(const neap_tensor *t, char *buf, size_t size) {
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < t->dims && n < size; i++) n += (size_t)snprintf(buf + n, size - n, "%s%lld", i ? " x " : "", (long long)t->shape[i]);
    if (n < size) snprintf(buf + n, size - n, "]");
    return buf;
}

/* ---- views ---- */

static void drop_dim(neap_tensor *t, int dim) {
    t->dims--;
    for (int i = dim; i < t->dims; i++) t->shape[i] = t->shape[i + 1], t->stride[i] = t->stride[i + 1];
}

int neap_tensor_select(neap_tensor *out, const neap_tensor *t, int dim, int64_t index) {
    if (dim < 0 || dim >= t->dims || index < 0 || index >= t->shape[dim]) return NEAP_ERR_INVALID;
    neap_tensor v = neap_tensor_ref(t);
    v.offset += index * v.stride[dim];
    drop_dim(&v, dim);
    *out = v;
    return 0;
}

int neap_tensor_slice(neap_tensor *out, const neap_tensor *t, int dim, int64_t start, int64_t length, int64_t step) {
    if (dim < 0 || dim >= t->dims || length < 0 || step < 1 || start < 0) return NEAP_ERR_INVALID;
    if (start > t->shape[dim] || (length > 0 && (length - 1 > (t->shape[dim] - 1 - start) / step || start >= t->shape[dim]))) return NEAP_ERR_INVALID;
    neap_tensor v = neap_tensor_ref(t);
    v.offset += start * v.stride[dim];
    v.shape[dim] = length;
    v.stride[dim] *= step;
    *out = v;
    return 0;
}

int neap_tensor_transpose(neap_tensor *out, const neap_tensor *t, int a, int b) {
    int order[NEAP_MAX_DIMS];
    if (a < 0 || a >= t->dims || b < 0 || b >= t->dims) return NEAP_ERR_INVALID;
    for (int i = 0; i < t->dims; i++) order[i] = i == a ? b : i == b ? a : i;
    return neap_tensor_permute(out, t, order);
}

int neap_tensor_permute(neap_tensor *out, const neap_tensor *t, const int *order) {
    int seen = 0;
    for (int i = 0; i < t->dims; i++) {
        if (order[i] < 0 || order[i] >= t->dims) return NEAP_ERR_INVALID;
        seen |= 1 << order[i];
    }
    if (seen != (1 << t->dims) - 1) return NEAP_ERR_INVALID;
    neap_tensor v = neap_tensor_ref(t);
    for (int i = 0; i < t->dims; i++) v.shape[i] = t->shape[order[i]], v.stride[i] = t->stride[order[i]];
    *out = v;
    return 0;
}

int neap_tensor_unfold(neap_tensor *out, const neap_tensor *t, int dim, int64_t size, int64_t step) {
    if (dim < 0 || dim >= t->dims || size < 1 || step < 1 || size > t->shape[dim] || t->dims == NEAP_MAX_DIMS) return NEAP_ERR_INVALID;
    neap_tensor v = neap_tensor_ref(t);
    v.shape[dim] = (t->shape[dim] - size) / step + 1;
    v.stride[dim] = t->stride[dim] * step;
    v.shape[v.dims] = size;
    v.stride[v.dims++] = t->stride[dim];
    *out = v;
    return 0;
}

int neap_tensor_view(neap_tensor *out, const neap_tensor *t, int dims, const int64_t *shape) {
    neap_tensor v = *t;
    int64_t full[NEAP_MAX_DIMS], known = 1, count = neap_tensor_count(t);
    int open = -1;
    if (dims < 0 || dims > NEAP_MAX_DIMS) return NEAP_ERR_INVALID;
    for (int i = 0; i < dims; i++) {
        full[i] = shape[i];
        if (shape[i] == -1 && open < 0) open = i;
        else if (shape[i] < 0 || (shape[i] && known > ((int64_t)1 << 46) / shape[i])) return NEAP_ERR_SHAPE;
        else known *= shape[i];
    }
    if (open >= 0) {
        if (known == 0 || count % known) return NEAP_ERR_SHAPE;
        full[open] = count / known;
    }
    if (layout(&v, dims, full) != count) return NEAP_ERR_SHAPE;
    if (!neap_tensor_is_contiguous(t)) return NEAP_ERR_INVALID;
    *out = neap_tensor_ref(&v);
    return 0;
}

int neap_tensor_reshape(neap_tensor *out, const neap_tensor *t, int dims, const int64_t *shape) {
    neap_tensor c, v;
    int rc = neap_tensor_contiguous(&c, t);
    if (rc) return rc;
    rc = neap_tensor_view(&v, &c, dims, shape);
    neap_tensor_unref(&c);
    if (!rc) *out = v;
    return rc;
}

int neap_tensor_expand(neap_tensor *out, const neap_tensor *t, int dims, const int64_t *shape) {
    neap_tensor v = *t;
    int lead = dims - t->dims;
    if (lead < 0 || dims > NEAP_MAX_DIMS) return NEAP_ERR_SHAPE;
    for (int i = dims - 1; i >= 0; i--) {
        int64_t have = i < lead ? 1 : t->shape[i - lead];
        if (have != shape[i] && have != 1) return NEAP_ERR_SHAPE;
        v.stride[i] = have == shape[i] && i >= lead ? t->stride[i - lead] : 0;
        v.shape[i] = shape[i];
    }
    v.dims = dims;
    *out = neap_tensor_ref(&v);
    return 0;
}
