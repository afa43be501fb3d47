/* tensor.h: the device code of tensors: element by element, reductions, matrix products. Runs under nvcc and, as plain C, under the fiber shim.
   Float32 promises 1e-6 relative to the exact result, as on the cpu (tensors are outside the bit-for-bit promise). */
#ifndef NEAP_CUDA_TENSOR_H
#define NEAP_CUDA_TENSOR_H
#ifdef __CUDACC__
#define ELEMENT_FN __device__ static inline
#endif
#include "kernels/cuda/gpu.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/formulas.h"

/* ---- one element ---- */

GPU_FN double tensor_load(const void *p, int dtype, int64_t at) {
    switch (dtype) {
    case NEAP_U8: return ((const uint8_t *)p)[at];
    case NEAP_I64: return (double)((const int64_t *)p)[at];
    case NEAP_F32: return ((const float *)p)[at];
    default: return ((const double *)p)[at];
    }
}

GPU_FN void tensor_store(void *p, int dtype, int64_t at, double v) {
    switch (dtype) {
    case NEAP_U8: ((uint8_t *)p)[at] = (uint8_t)to_int(v, 0, 255, 255); break;
    case NEAP_I64: ((int64_t *)p)[at] = to_int(v, -9223372036854775808.0, 9223372036854775808.0, INT64_MAX); break;
    case NEAP_F32: ((float *)p)[at] = (float)v; break;
    default: ((double *)p)[at] = v; break;
    }
}

GPU_FN double tensor_value(const neap_operand *o, int64_t at) { return o->data ? tensor_load(o->data, o->dtype, at) : o->value; }

GPU_FN int64_t tensor_whole(const neap_operand *o, int64_t at) {
    if (!o->data) return o->whole;
    if (o->dtype == NEAP_I64) return ((const int64_t *)o->data)[at];
    if (o->dtype == NEAP_U8) return ((const uint8_t *)o->data)[at];
    return to_int(tensor_value(o, at), -9223372036854775808.0, 9223372036854775808.0, INT64_MAX);
}

GPU_FN float tensor_unary(int op, float x) {
    float gate;
    switch (op) {
    case NEAP_OP_NEG: return -x;
    case NEAP_OP_ABS: return fabsf(x);
    case NEAP_OP_SQRT: return v_sqrt(x);
    case NEAP_OP_SQUARE: return v_mul(x, x);
    case NEAP_OP_EXP: return f_exp_wide(x);
    case NEAP_OP_LOG: return logf(x);
    case NEAP_OP_TANH: return f_tanh(x);
    case NEAP_OP_SIGMOID: return v_div(1.0f, v_add(1.0f, f_exp_wide(-x)));
    case NEAP_OP_RELU: return v_max0(x);
    case NEAP_OP_GELU: return f_gelu(x, &gate);
    case NEAP_OP_SIN: return sinf(x);
    case NEAP_OP_COS: return cosf(x);
    case NEAP_OP_FLOOR: return floorf(x);
    case NEAP_OP_CEIL: return ceilf(x);
    case NEAP_OP_ROUND: return rintf(x);
    case NEAP_OP_ASINH: return asinhf(x);
    case NEAP_OP_SIGN: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
    case NEAP_OP_LOG1P: return log1pf(x);
    default: return expm1f(x);
    }
}

GPU_FN float tensor_binary(int op, float x, float y) {
    switch (op) {
    case NEAP_OP_ADD: return v_add(x, y);
    case NEAP_OP_SUB: return v_sub(x, y);
    case NEAP_OP_MUL: return v_mul(x, y);
    case NEAP_OP_DIV: return v_div(x, y);
    case NEAP_OP_MIN: return y < x || y != y ? y : x; /* NaN wins */
    case NEAP_OP_MAX: return y > x || y != y ? y : x;
    default: return y == 2.0f ? v_mul(x, x) : powf(x, y);
    }
}

GPU_FN int tensor_compare(int op, double x, double y) {
    switch (op) {
    case NEAP_CMP_EQ: return x == y;
    case NEAP_CMP_NE: return x != y;
    case NEAP_CMP_LT: return x < y;
    case NEAP_CMP_LE: return x <= y;
    case NEAP_CMP_GT: return x > y;
    default: return x >= y;
    }
}

/* Element i's place in each operand: at[0] out, at[1..3] a, b, c. */
GPU_FN void tensor_places(const neap_map *m, int64_t i, int64_t *at) {
    at[0] = at[1] = at[2] = at[3] = 0;
    for (int d = m->dims - 1; d >= 0; d--) {
        int64_t n = m->shape[d], k = d ? i % n : i;
        if (d) i /= n;
        at[0] += k * m->out.stride[d], at[1] += k * m->a.stride[d], at[2] += k * m->b.stride[d], at[3] += k * m->c.stride[d];
    }
}

/* Float32 throughout. One dimension, the usual case, takes no division. */
GPU_KERNEL(neap_tensor_float, neap_map, 256, 4) {
    int64_t at[4], step = (int64_t)gpu_blocks() * gpu_threads();
    float *out = (float *)a.out.data;
    const float *pa = (const float *)a.a.data, *pb = (const float *)a.b.data;
    for (int64_t i = (int64_t)gpu_block() * gpu_threads() + gpu_thread(); i < a.count; i += step) {
        if (a.dims == 1) at[0] = i * a.out.stride[0], at[1] = i * a.a.stride[0], at[2] = i * a.b.stride[0];
        else tensor_places(&a, i, at);
        float x = pa ? pa[at[1]] : (float)a.a.value;
        if (a.kind == NEAP_MAP_UNARY) x = tensor_unary(a.op, x);
        else if (a.kind == NEAP_MAP_BINARY) x = tensor_binary(a.op, x, pb ? pb[at[2]] : (float)a.b.value);
        out[at[0]] = x;
    }
}

/* Whole numbers stay whole; the rest goes through double. */
GPU_KERNEL(neap_tensor_any, neap_map, 256, 2) {
    int64_t at[4], step = (int64_t)gpu_blocks() * gpu_threads();
    int whole_a = a.a.dtype <= NEAP_I64, whole_b = a.b.dtype <= NEAP_I64, whole_out = a.out.dtype <= NEAP_I64;
    for (int64_t i = (int64_t)gpu_block() * gpu_threads() + gpu_thread(); i < a.count; i += step) {
        double v;
        tensor_places(&a, i, at);
        if (a.kind == NEAP_MAP_TAKE) at[1] += ((const int64_t *)a.c.data)[at[3]] * a.b.whole; /* b.whole: a's row stride */
        int exact = 0;
        int64_t w = 0;
        switch (a.kind) {
        case NEAP_MAP_COPY:
        case NEAP_MAP_TAKE:
            exact = whole_a && a.out.dtype == NEAP_I64;
            if (exact) w = tensor_whole(&a.a, at[1]);
            else v = tensor_value(&a.a, at[1]);
            break;
        case NEAP_MAP_UNARY: v = unary_double(a.op, tensor_value(&a.a, at[1])); break;
        case NEAP_MAP_BINARY:
            exact = whole_a && whole_b && whole_out && a.op != NEAP_OP_DIV && a.op != NEAP_OP_POW;
            if (exact) w = binary_int(a.op, tensor_whole(&a.a, at[1]), tensor_whole(&a.b, at[2]));
            else v = binary_double(a.op, tensor_value(&a.a, at[1]), tensor_value(&a.b, at[2]));
            break;
        case NEAP_MAP_COMPARE:
            if (whole_a && whole_b) {
                int64_t x = tensor_whole(&a.a, at[1]), y = tensor_whole(&a.b, at[2]);
                v = tensor_compare(a.op, (x > y) - (x < y), 0);
            } else v = tensor_compare(a.op, tensor_value(&a.a, at[1]), tensor_value(&a.b, at[2]));
            break;
        default: { /* where */
            int yes = tensor_value(&a.c, at[3]) != 0.0;
            const neap_operand *from = yes ? &a.a : &a.b;
            exact = from->dtype <= NEAP_I64 && a.out.dtype == NEAP_I64;
            if (exact) w = tensor_whole(from, at[yes ? 1 : 2]);
            else v = tensor_value(from, at[yes ? 1 : 2]);
            break;
        }
        }
        if (exact && a.out.dtype == NEAP_I64) ((int64_t *)a.out.data)[at[0]] = w;
        else tensor_store(a.out.data, a.out.dtype, at[0], exact ? (double)w : v);
    }
}

/* ---- reductions ---- */

/* What is known of some elements: sum, any, all: a; norm: a = sum of squares; var, std: a = mean, b = squared deviations; the rest: a = best one,
   which was number `at`. n: how many. */
typedef struct tensor_part {
    double a, b;
    int64_t n, at;
} tensor_part;

typedef struct tensor_reducing {
    neap_reduction r;
    int64_t pieces; /* of each reduction */
    tensor_part *parts;
} tensor_reducing;

GPU_FN tensor_part part_one(int red, double v, int64_t at) {
    tensor_part p;
    p.a = red == NEAP_NORM ? d_mul(v, v) : red == NEAP_ANY || red == NEAP_ALL ? v != 0.0 : v;
    p.b = 0.0, p.n = 1, p.at = at;
    return p;
}

/* Both together; x comes first. NaN wins over numbers, the first of equals over later ones. */
GPU_FN tensor_part part_join(int red, tensor_part x, tensor_part y) {
    if (y.n == 0) return x;
    if (x.n == 0) return y;
    double delta, total = (double)(x.n + y.n);
    int worse = 0;
    switch (red) {
    case NEAP_VAR:
    case NEAP_STD:
        delta = d_sub(y.a, x.a);
        x.b = d_add(d_add(x.b, y.b), d_mul(d_mul(delta, delta), d_div(d_mul((double)x.n, (double)y.n), total)));
        x.a = d_add(x.a, d_mul(delta, d_div((double)y.n, total)));
        break;
    case NEAP_MIN:
    case NEAP_ARGMIN: worse = y.a < x.a || (y.a != y.a && x.a == x.a) || (!(x.a < y.a) && y.at < x.at && (x.a != x.a) == (y.a != y.a)); break;
    case NEAP_MAX:
    case NEAP_ARGMAX: worse = y.a > x.a || (y.a != y.a && x.a == x.a) || (!(x.a > y.a) && y.at < x.at && (x.a != x.a) == (y.a != y.a)); break;
    case NEAP_ANY: x.a = x.a != 0.0 || y.a != 0.0; break;
    case NEAP_ALL: x.a = x.a != 0.0 && y.a != 0.0; break;
    default: x.a = d_add(x.a, y.a); break;
    }
    if (worse) x.a = y.a, x.at = y.at;
    x.n += y.n;
    return x;
}

GPU_FN void part_finish(const neap_reduction *r, int64_t k, tensor_part p) {
    double v = p.a;
    switch (r->red) {
    case NEAP_MEAN: v = d_div(p.a, (double)p.n); break;
    case NEAP_NORM: v = d_sqrt(p.a); break;
    case NEAP_VAR:
    case NEAP_STD:
        v = p.n > 1 ? d_div(p.b, (double)(p.n - 1)) : NAN;
        if (r->red == NEAP_STD) v = d_sqrt(v);
        break;
    case NEAP_ARGMIN:
    case NEAP_ARGMAX: v = (double)p.at; break;
    case NEAP_ALL: v = p.n ? p.a : 1.0; break;
    default: break;
    }
    tensor_store(r->out, r->out_dtype, k, v);
}

GPU_FN tensor_part part_none(void) {
    tensor_part p;
    p.a = p.b = 0.0, p.n = 0, p.at = 0;
    return p;
}

GPU_FN int64_t reduce_start(const neap_reduction *r, int64_t k) {
    int64_t at = 0;
    for (int d = r->dims - 1; d >= 0; d--) at += k % r->shape[d] * r->stride[d], k /= r->shape[d];
    return at;
}

/* The threads' parts to one, in shared memory; thread 0 returns it. Every thread of the block must come. */
GPU_FN tensor_part reduce_block(int red, tensor_part mine) {
    tensor_part *shared = (tensor_part *)gpu_shared();
    int t = gpu_thread();
    shared[t] = mine;
    gpu_sync(9);
    for (int half = gpu_threads() / 2; half > 0; half /= 2) {
        if (t < half) shared[t] = part_join(red, shared[t], shared[t + half]);
        gpu_sync(10); /* after the last one too: the next round writes here */
    }
    return t ? mine : shared[0];
}

/* Few elements each: a thread for every reduction. */
GPU_KERNEL(neap_tensor_reduce_short, tensor_reducing, 256, 2) {
    const neap_reduction *r = &a.r;
    int64_t step = (int64_t)gpu_blocks() * gpu_threads();
    for (int64_t k = (int64_t)gpu_block() * gpu_threads() + gpu_thread(); k < r->count; k += step) {
        int64_t at = reduce_start(r, k);
        tensor_part p = part_none();
        for (int64_t i = 0; i < r->n; i++, at += r->step) p = part_join(r->red, p, part_one(r->red, tensor_load(r->data, r->dtype, at), i));
        part_finish(r, k, p);
    }
}

/* Many elements each: a block for every piece of a reduction; with one piece it is finished here, else by the next kernel. */
GPU_KERNEL(neap_tensor_reduce_long, tensor_reducing, 256, 2) {
    const neap_reduction *r = &a.r;
    for (int64_t job = gpu_block(); job < r->count * a.pieces; job += gpu_blocks()) {
        int64_t k = job / a.pieces, piece = job % a.pieces, lo = r->n / a.pieces * piece, hi = piece + 1 == a.pieces ? r->n : lo + r->n / a.pieces;
        int64_t start = reduce_start(r, k);
        tensor_part p = part_none();
        for (int64_t i = lo + gpu_thread(); i < hi; i += gpu_threads())
            p = part_join(r->red, p, part_one(r->red, tensor_load(r->data, r->dtype, start + i * r->step), i));
        p = reduce_block(r->red, p);
        if (gpu_thread()) continue;
        if (a.pieces == 1) part_finish(r, k, p);
        else a.parts[job] = p;
    }
}

GPU_KERNEL(neap_tensor_reduce_join, tensor_reducing, 256, 2) {
    for (int64_t k = gpu_block(); k < a.r.count; k += gpu_blocks()) {
        tensor_part p = part_none();
        for (int64_t i = gpu_thread(); i < a.pieces; i += gpu_threads()) p = part_join(a.r.red, p, a.parts[k * a.pieces + i]);
        p = reduce_block(a.r.red, p);
        if (gpu_thread() == 0) part_finish(&a.r, k, p);
    }
}

/* ---- matrix product: blocks of 64 x 64, depth 16, a thread computes 4 x 4 of them ---- */

#define MM_SIDE  64
#define MM_DEPTH 16
#define MM_PITCH (MM_SIDE + 4) /* skewed, so that a column's elements lie in different banks */

GPU_KERNEL(neap_tensor_gemm, neap_product, 256, 2) {
    float *as = gpu_shared(), *bs = as + MM_DEPTH * MM_PITCH; /* [depth][side] of a (transposed) and b */
    const float *pa = (const float *)a.a, *pb = (const float *)a.b;
    int64_t across = (a.n + MM_SIDE - 1) / MM_SIDE, r0 = gpu_block() / across * MM_SIDE, c0 = gpu_block() % across * MM_SIDE;
    int t = gpu_thread(), row = t / 16 * 4, col = t % 16 * 4;
    float acc[4][4];
    GPU_UNROLL for (int i = 0; i < 4; i++) { GPU_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = 0.0f; }
    for (int64_t k0 = 0; k0 < a.k; k0 += MM_DEPTH) {
        gpu_sync(11);                                       /* the last panels have been read */
        for (int e = t; e < MM_SIDE * MM_DEPTH; e += 256) { /* neighbouring threads read neighbouring memory */
            int i = a.a_col == 1 ? e / MM_DEPTH : e % MM_SIDE, k = a.a_col == 1 ? e % MM_DEPTH : e / MM_SIDE;
            as[k * MM_PITCH + i] = r0 + i < a.m && k0 + k < a.k ? pa[(r0 + i) * a.a_row + (k0 + k) * a.a_col] : 0.0f;
            int j = a.b_col == 1 ? e % MM_SIDE : e / MM_DEPTH;
            k = a.b_col == 1 ? e / MM_SIDE : e % MM_DEPTH;
            bs[k * MM_PITCH + j] = c0 + j < a.n && k0 + k < a.k ? pb[(k0 + k) * a.b_row + (c0 + j) * a.b_col] : 0.0f;
        }
        gpu_sync(12);
        for (int k = 0; k < MM_DEPTH; k++) {
            float av[4], bv[4];
            GPU_UNROLL for (int i = 0; i < 4; i++) av[i] = as[k * MM_PITCH + row + i], bv[i] = bs[k * MM_PITCH + col + i];
            GPU_UNROLL for (int i = 0; i < 4; i++) { GPU_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = v_fma(av[i], bv[j], acc[i][j]); }
        }
    }
    GPU_UNROLL for (int i = 0; i < 4; i++) {
        GPU_UNROLL for (int j = 0; j < 4; j++) {
            if (r0 + row + i < a.m && c0 + col + j < a.n) ((float *)a.c)[(r0 + row + i) * a.n + c0 + col + j] = acc[i][j];
        }
    }
}

/* Other dtypes: an element a thread, in double. */
GPU_KERNEL(neap_tensor_gemm_any, neap_product, 256, 2) {
    int64_t step = (int64_t)gpu_blocks() * gpu_threads();
    for (int64_t e = (int64_t)gpu_block() * gpu_threads() + gpu_thread(); e < a.m * a.n; e += step) {
        int64_t i = e / a.n, j = e % a.n;
        double sum = 0.0;
        for (int64_t k = 0; k < a.k; k++) {
            double x = tensor_load(a.a, a.a_dtype, i * a.a_row + k * a.a_col), y = tensor_load(a.b, a.b_dtype, k * a.b_row + j * a.b_col);
            sum = d_add(sum, d_mul(x, y));
        }
        tensor_store(a.c, a.out_dtype, e, sum);
    }
}
#endif
