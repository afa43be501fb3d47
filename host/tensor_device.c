/* tensor_device.c: tensors in a device's memory: moving them, and handing operations to the device's table (kernels/device.h). tensor_math.c and
   tensor_reduce.c come here when their operands are not the cpu's; what the table lacks (sorting, quantiles, running sums) they do on a copy. */
#include "host/tensor.h"
#include <string.h>

const neap_device *neap_tensor_device(const neap_tensor *t) { return t->storage ? t->storage->device : NULL; }

const char *neap_tensor_device_name(const neap_tensor *t) {
    const neap_device *d = neap_tensor_device(t);
    return d ? d->name : "cpu";
}

int neap_tensor_device_of(const neap_tensor *const *t, int n, const neap_device **device) {
    int placed = 0;
    *device = NULL;
    for (int i = 0; i < n; i++) {
        const neap_device *d = neap_tensor_device(t[i]);
        if (!d && t[i]->dims == 0) continue;
        if (placed && d != *device) return NEAP_ERR_INVALID;
        *device = d, placed = 1;
    }
    for (int i = 0; !placed && i < n; i++)
        if (neap_tensor_device(t[i])) *device = neap_tensor_device(t[i]);
    return 0;
}

int neap_tensor_to(neap_tensor *out, const neap_tensor *t, const neap_device *device) {
    const neap_device *from = neap_tensor_device(t);
    neap_tensor flat, c;
    if (from == device) return *out = neap_tensor_ref(t), 0;
    int rc = neap_tensor_contiguous(&flat, t);
    if (rc) return rc;
    size_t bytes = (size_t)neap_tensor_count(t) * neap_dtype_size(t->dtype);
    rc = neap_tensor_new_on(&c, device, t->dtype, t->dims, t->shape);
    if (!rc && bytes) {
        if (device) rc = device->put(neap_tensor_data(&c), neap_tensor_data(&flat), bytes);
        else rc = from->get(neap_tensor_data(&c), neap_tensor_data(&flat), bytes);
        if (rc) neap_tensor_unref(&c);
    }
    neap_tensor_unref(&flat);
    if (!rc) *out = c;
    return rc;
}

/* Does every step of the view stay on one element? */
static int is_one(const neap_tensor *t) {
    for (int i = 0; i < t->dims; i++)
        if (t->shape[i] != 1 && t->stride[i] != 0) return 0;
    return 1;
}

static int fill_operand(neap_operand *o, const neap_tensor *t, const neap_device *device) {
    memset(o, 0, sizeof *o);
    o->dtype = NEAP_F32;
    if (!t) return 0;
    o->dtype = t->dtype;
    if (neap_tensor_device(t) == device) {
        o->data = neap_tensor_data(t);
        return 0;
    }
    if (neap_tensor_device(t) || !is_one(t)) return NEAP_ERR_INVALID;
    o->value = neap_tensor_get(t, t->offset);
    o->whole = neap_tensor_get_int(t, t->offset);
    return 0;
}

/* Shape and strides, with dimensions merged where all operands allow it. */
static void fill_layout(neap_map *m, const neap_tensor *const *t, neap_operand *const *o) {
    m->count = 1;
    for (int i = 0; i < t[0]->dims; i++) {
        int64_t n = t[0]->shape[i];
        m->count *= n;
        if (n == 1) continue;
        int merges = m->dims > 0;
        for (int k = 0; k < 4; k++) merges = merges && (!t[k] || !o[k]->data || o[k]->stride[m->dims - 1] == t[k]->stride[i] * n);
        if (!merges) m->shape[m->dims++] = 1;
        m->shape[m->dims - 1] *= n;
        for (int k = 0; k < 4; k++) o[k]->stride[m->dims - 1] = t[k] && o[k]->data ? t[k]->stride[i] : 0;
    }
    if (m->dims == 0) m->shape[m->dims++] = 1;
}

int neap_tensor_device_map(int kind, int op, const neap_tensor *out, const neap_tensor *a, const neap_tensor *b, const neap_tensor *c) {
    const neap_device *device = neap_tensor_device(out);
    neap_map m = {.kind = kind, .op = op};
    neap_operand *o[4] = {&m.out, &m.a, &m.b, &m.c};
    const neap_tensor *t[4] = {out, a, b, c};
    for (int i = 0; i < 4; i++)
        if (fill_operand(o[i], t[i], device)) return NEAP_ERR_INVALID;
    fill_layout(&m, t, o);
    if (m.count == 0) return 0;
    return device->map(&m);
}

int neap_tensor_device_take(const neap_tensor *out, const neap_tensor *t, const neap_tensor *index) {
    neap_map m = {.kind = NEAP_MAP_TAKE, .dims = out->dims, .count = neap_tensor_count(out)};
    neap_operand *o[3] = {&m.out, &m.a, &m.c};
    const neap_tensor *in[3] = {out, t, index};
    for (int i = 0; i < 3; i++) o[i]->data = neap_tensor_data(in[i]), o[i]->dtype = in[i]->dtype;
    memcpy(m.shape, out->shape, sizeof m.shape);
    memcpy(m.out.stride, out->stride, sizeof m.out.stride);
    memcpy(m.a.stride, t->stride, sizeof m.a.stride);
    m.a.stride[0] = 0, m.b.whole = t->stride[0]; /* the row comes from the index */
    m.c.stride[0] = index->stride[0];
    return m.count ? neap_tensor_device(out)->map(&m) : 0;
}

int neap_tensor_device_copy(const neap_tensor *to, const neap_tensor *from) {
    const neap_device *there = neap_tensor_device(to), *here = neap_tensor_device(from);
    neap_tensor moved;
    if (there == here || (!here && is_one(from))) return neap_tensor_device_map(NEAP_MAP_COPY, 0, to, from, NULL, NULL);
    if (there && neap_tensor_is_contiguous(to) && neap_tensor_is_contiguous(from) && to->dtype == from->dtype)
        return there->put(neap_tensor_data(to), neap_tensor_data(from), (size_t)neap_tensor_count(to) * neap_dtype_size(to->dtype));
    int rc = neap_tensor_to(&moved, from, there);
    if (rc) return rc;
    rc = neap_tensor_copy(to, &moved);
    neap_tensor_unref(&moved);
    return rc;
}

int neap_tensor_device_reduce(const neap_tensor *out, int red, const neap_tensor *t, int dim) {
    neap_reduction r = {.red = red, .dtype = t->dtype, .out_dtype = out->dtype, .count = 1, .n = neap_tensor_count(t), .step = 1};
    r.data = neap_tensor_data(t);
    r.out = neap_tensor_data(out);
    if (dim >= 0) r.n = t->shape[dim], r.step = t->stride[dim];
    for (int i = 0; i < t->dims && dim >= 0; i++) {
        if (i == dim) continue;
        r.shape[r.dims] = t->shape[i], r.stride[r.dims++] = t->stride[i];
        r.count *= t->shape[i];
    }
    return neap_tensor_device(t)->reduce(&r);
}

int neap_tensor_device_product(const neap_tensor *out, const neap_tensor *a, const neap_tensor *b, int64_t m, int64_t n, int64_t k) {
    neap_product p = {.m = m, .n = n, .k = k, .a_dtype = a->dtype, .b_dtype = b->dtype, .out_dtype = out->dtype};
    p.a_row = a->dims == 2 ? a->stride[0] : 0, p.a_col = a->stride[a->dims - 1];
    p.b_row = b->stride[0], p.b_col = b->dims == 2 ? b->stride[1] : 0;
    if (a->dims == 1) p.a_row = p.a_col * k; /* one row, one column: any step is right, this one suits cuBLAS */
    if (b->dims == 1) p.b_col = p.b_row * k;
    p.a = neap_tensor_data(a), p.b = neap_tensor_data(b), p.c = neap_tensor_data(out);
    return neap_tensor_device(out)->gemm(&p);
}
