/* tensor_test.c: views, broadcasting, arithmetic on every dtype and layout against plain loops in double; matmul against the definition. */
#include "host/tensor.h"
#include "spec/c/test.h"
#include <math.h>
#include <string.h>

static neap_tensor make(neap_dtype t, int dims, const int64_t *shape, double start, double step) {
    neap_tensor x;
    CHECK(!neap_tensor_new(&x, t, dims, shape));
    for (int64_t i = 0; i < neap_tensor_count(&x); i++) neap_tensor_put(&x, i, start + step * (double)i);
    return x;
}

static double at2(const neap_tensor *t, int64_t i, int64_t j) { return neap_tensor_get(t, t->offset + i * t->stride[0] + j * t->stride[1]); }

static void views_share_memory(void) {
    neap_tensor a = make(NEAP_F32, 2, (int64_t[]){4, 6}, 0, 1), v, w, u;
    CHECK(!neap_tensor_slice(&v, &a, 1, 1, 3, 2) && at2(&v, 2, 1) == 15 && v.shape[1] == 3);
    CHECK(!neap_tensor_transpose(&w, &v, 0, 1) && at2(&w, 1, 2) == 15 && !neap_tensor_is_contiguous(&w));
    neap_tensor_put(&a, 15, -1);
    CHECK(at2(&w, 1, 2) == -1);
    CHECK(neap_tensor_view(&u, &w, 1, (int64_t[]){12}) == NEAP_ERR_INVALID);
    CHECK(!neap_tensor_reshape(&u, &w, 1, (int64_t[]){-1}) && u.shape[0] == 12 && neap_tensor_get(&u, 6) == -1);
    neap_tensor_unref(&u);
    CHECK(neap_tensor_reshape(&u, &w, 2, (int64_t[]){5, -1}) == NEAP_ERR_SHAPE);
    CHECK(neap_tensor_slice(&u, &a, 0, 2, 3, 1) == NEAP_ERR_INVALID && neap_tensor_slice(&u, &a, 0, 4, 1, 1) == NEAP_ERR_INVALID);
    CHECK(neap_tensor_select(&u, &a, 0, 4) == NEAP_ERR_INVALID && neap_tensor_select(&u, &a, 2, 0) == NEAP_ERR_INVALID);
    neap_tensor flat;
    CHECK(!neap_tensor_view(&flat, &a, 1, (int64_t[]){24}) && !neap_tensor_unfold(&u, &flat, 0, 5, 3));
    CHECK(u.shape[0] == 7 && u.shape[1] == 5 && at2(&u, 3, 2) == 11);
    neap_tensor_unref(&u), neap_tensor_unref(&flat), neap_tensor_unref(&v), neap_tensor_unref(&w), neap_tensor_unref(&a);
    CHECK(neap_tensor_new(&u, NEAP_F32, 2, (int64_t[]){1LL << 40, 1LL << 40}) == NEAP_ERR_INVALID);
    CHECK(neap_tensor_new(&u, NEAP_F32, 1, (int64_t[]){-1}) == NEAP_ERR_INVALID);
}

static void arithmetic_broadcasts(void) {
    for (int ta = 0; ta < NEAP_DTYPES; ta++)
        for (int tb = 0; tb < NEAP_DTYPES; tb++)
            for (int layout = 0; layout < 3; layout++) {
                neap_tensor a = make((neap_dtype)ta, 2, (int64_t[]){7, 37}, 1, 1), b = make((neap_dtype)tb, 1, (int64_t[]){37}, 3, 2), c, at;
                if (layout == 1) { /* a transposed view of another array */
                    neap_tensor t = make((neap_dtype)ta, 2, (int64_t[]){37, 7}, 1, 1);
                    CHECK(!neap_tensor_transpose(&at, &t, 0, 1));
                    neap_tensor_unref(&a), neap_tensor_unref(&t);
                    a = at;
                } else if (layout == 2) { /* a column */
                    neap_tensor_unref(&b);
                    b = make((neap_dtype)tb, 2, (int64_t[]){7, 1}, 3, 2);
                }
                for (int op = NEAP_OP_ADD; op <= NEAP_OP_MAX; op++) {
                    CHECK(!neap_tensor_binary(&c, op, &a, &b));
                    double worst = 0;
                    for (int64_t i = 0; i < 7; i++)
                        for (int64_t j = 0; j < 37; j++) {
                            double x = at2(&a, i, j), y = layout == 2 ? neap_tensor_get(&b, i) : neap_tensor_get(&b, j);
                            double want = op == NEAP_OP_ADD   ? x + y
                                          : op == NEAP_OP_SUB ? x - y
                                          : op == NEAP_OP_MUL ? x * y
                                          : op == NEAP_OP_DIV ? x / y
                                          : op == NEAP_OP_MIN ? fmin(x, y)
                                                              : fmax(x, y);
                            if (c.dtype == NEAP_U8) want = (double)(want < 0 ? 0 : want > 255 ? 255 : want);
                            double err = fabs(want - at2(&c, i, j)) / (1 + fabs(want));
                            if (err > worst) worst = err;
                        }
                    CHECK(worst < 1e-7, "types %d %d layout %d op %d: %g", ta, tb, layout, op, worst);
                    neap_tensor_unref(&c);
                }
                neap_tensor_unref(&a), neap_tensor_unref(&b);
            }
    neap_tensor a = make(NEAP_F32, 2, (int64_t[]){2, 3}, 0, 1), b = make(NEAP_F32, 1, (int64_t[]){2}, 0, 1), c, t;
    CHECK(neap_tensor_binary(&c, NEAP_OP_ADD, &a, &b) == NEAP_ERR_SHAPE);
    neap_tensor sq = make(NEAP_F32, 2, (int64_t[]){3, 3}, 0, 1);
    CHECK(!neap_tensor_transpose(&t, &sq, 0, 1) && !neap_tensor_binary_into(&sq, NEAP_OP_ADD, &sq, &t)); /* overlapping operand */
    CHECK(at2(&sq, 0, 1) == 4 && at2(&sq, 1, 0) == 4 && at2(&sq, 2, 1) == 12);
    neap_tensor_unref(&a), neap_tensor_unref(&b), neap_tensor_unref(&t), neap_tensor_unref(&sq);
}

static void unary_functions_are_accurate(void) {
    static double (*const exact[])(double) = {[NEAP_OP_EXP] = exp,     [NEAP_OP_LOG] = log,     [NEAP_OP_TANH] = tanh,   [NEAP_OP_SIN] = sin,
                                              [NEAP_OP_ASINH] = asinh, [NEAP_OP_EXPM1] = expm1, [NEAP_OP_FLOOR] = floor, [NEAP_OP_SQRT] = sqrt};
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    float x[1003], y[1003];
    for (int k = 0; k < 3; k++) {
        const neap_kernels *kern = neap_kernels_named(names[k]);
        if (!kern) continue;
        for (size_t op = 0; op < sizeof exact / sizeof *exact; op++) {
            if (!exact[op]) continue;
            double worst = 0;
            for (int i = 0; i < 1003; i++) x[i] = op == NEAP_OP_LOG || op == NEAP_OP_SQRT ? (float)i * 0.37f + 0.01f : (float)(i - 501) * 0.17f;
            kern->unary((int)op, x, y, 1003);
            for (int i = 0; i < 1003; i++) {
                double want = exact[op](x[i]), err = fabs(y[i] - want) / (fabs(want) + 1e-30);
                if (fabs(want) < 1e-37) err = fabs(y[i]) > 1e-37;
                if (err > worst) worst = err;
            }
            CHECK(worst < 1e-6, "%s op %d: relative error %g", kern->name, (int)op, worst);
        }
        float edge[5] = {INFINITY, -INFINITY, NAN, 100, -100}, e[5];
        kern->unary(NEAP_OP_EXP, edge, e, 5);
        CHECK(isinf(e[0]) && e[1] == 0 && isnan(e[2]) && isinf(e[3]) && e[4] < 1e-37f, "%s exp: %g %g %g %g %g", kern->name, e[0], e[1], e[2], e[3],
              e[4]);
        kern->unary(NEAP_OP_GELU, x, y, 1003);
        for (int i = 0; i < 1003; i++) {
            double want = x[i] * 0.5 * erfc(-x[i] / sqrt(2.0));
            CHECK(fabs(y[i] - want) <= (x[i] > -5 ? 1e-6 : 6e-6) * fabs(want) + 1e-35, "%s gelu(%g): %g %g", kern->name, x[i], y[i], want);
        }
    }
}

static void reductions_reduce(void) {
    neap_tensor a = make(NEAP_F32, 3, (int64_t[]){3, 4, 5}, 0, 1), t, r;
    double v;
    CHECK(!neap_tensor_reduce_all(&v, NEAP_SUM, &a) && v == 1770);
    CHECK(!neap_tensor_reduce_all(&v, NEAP_STD, &a) && fabs(v - 17.464249196572982) < 1e-12);
    CHECK(!neap_tensor_reduce(&r, NEAP_SUM, &a, 1, 0) && r.dims == 2 && r.shape[1] == 5 && at2(&r, 1, 2) == 22 + 27 + 32 + 37);
    neap_tensor_unref(&r);
    CHECK(!neap_tensor_transpose(&t, &a, 0, 2) && !neap_tensor_reduce(&r, NEAP_ARGMAX, &t, 0, 1) && r.dtype == NEAP_I64 &&
          neap_tensor_get_int(&r, 3) == 4);
    neap_tensor_unref(&r), neap_tensor_unref(&t);
    CHECK(!neap_tensor_quantile(&v, &a, 0.25) && v == 14.75 && neap_tensor_quantile(&v, &a, 1.5) == NEAP_ERR_INVALID);
    neap_tensor_put(&a, 7, NAN);
    CHECK(!neap_tensor_reduce_all(&v, NEAP_MAX, &a) && isnan(v));
    CHECK(!neap_tensor_reduce_all(&v, NEAP_MEDIAN, &a) && isnan(v));
    neap_tensor e = make(NEAP_F32, 2, (int64_t[]){0, 3}, 0, 1);
    CHECK(!neap_tensor_reduce_all(&v, NEAP_SUM, &e) && v == 0 && neap_tensor_reduce_all(&v, NEAP_ARGMIN, &e) == NEAP_ERR_SHAPE);
    CHECK(!neap_tensor_reduce_all(&v, NEAP_MEAN, &e) && isnan(v));
    CHECK(!neap_tensor_reduce(&r, NEAP_SUM, &e, 0, 0) && r.shape[0] == 3 && neap_tensor_get(&r, 1) == 0);
    neap_tensor_unref(&r);
    neap_tensor s = make(NEAP_F64, 1, (int64_t[]){6}, 5, -2), order;
    neap_tensor_put(&s, 2, NAN), neap_tensor_put(&s, 4, 5);
    CHECK(!neap_tensor_sort(&r, &order, &s, 0) && neap_tensor_get(&r, 0) == -5 && isnan(neap_tensor_get(&r, 5)));
    CHECK(neap_tensor_get_int(&order, 3) == 0 && neap_tensor_get_int(&order, 4) == 4); /* equal values keep their order */
    neap_tensor_unref(&r), neap_tensor_unref(&order), neap_tensor_unref(&s), neap_tensor_unref(&e);
    CHECK(!neap_tensor_slice(&s, &a, 2, 0, 2, 1) && !neap_tensor_cumsum(&r, &s, 2) && r.shape[2] == 2 && neap_tensor_get(&r, 5) == 21);
    neap_tensor_unref(&r), neap_tensor_unref(&s), neap_tensor_unref(&a);
}

static void products_match_their_definition(void) {
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    static const int sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {64, 64, 64}, {97, 130, 300}, {33, 65, 513}, {2, 3, 0}, {300, 17, 40}};
    static float a[300 * 600], b[600 * 300], c[300 * 300];
    for (size_t i = 0; i < 300 * 600; i++) a[i] = sinf((float)i), b[i] = cosf((float)i * 0.7f);
    for (int k = 0; k < 3; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int turned = 0; turned < 2; turned++) {
                const neap_kernels *kern = neap_kernels_named(names[k]);
                int m = sizes[s][0], n = sizes[s][1], d = sizes[s][2];
                double worst = 0;
                if (!kern) continue;
                long ar = turned ? 1 : d, ac = turned ? m : 1, br = turned ? 1 : n, bc = turned ? d : 1;
                memset(c, 1, sizeof c);
                CHECK(!kern->gemm(m, n, d, a, ar, ac, b, br, bc, c, n, 3));
                for (int i = 0; i < m; i++)
                    for (int j = 0; j < n; j++) {
                        double want = 0;
                        for (int p = 0; p < d; p++) want += (double)a[i * ar + p * ac] * b[p * br + j * bc];
                        double err = fabs(want - c[i * n + j]);
                        if (err > worst) worst = err;
                    }
                CHECK(worst < 1e-4, "%s %d x %d x %d turned %d: off by %g", kern->name, m, n, d, turned, worst);
            }
    neap_tensor x = make(NEAP_F32, 2, (int64_t[]){2, 3}, 0, 1), y = make(NEAP_I64, 1, (int64_t[]){3}, 1, 1), z;
    CHECK(!neap_tensor_matmul(&z, &x, &y, 1) && z.dims == 1 && neap_tensor_get(&z, 1) == 26 && neap_tensor_matmul(&z, &y, &x, 1) == NEAP_ERR_SHAPE);
    neap_tensor_unref(&z), neap_tensor_unref(&x), neap_tensor_unref(&y);
}

int main(void) {
    views_share_memory();
    arithmetic_broadcasts();
    unary_functions_are_accurate();
    reductions_reduce();
    products_match_their_definition();
    return test_end("tensor");
}
