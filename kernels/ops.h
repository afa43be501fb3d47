/* ops.h: float32 tensor loops, included by each CPU backend so that its compiler vectorises them for its lanes. Here 1e-6 relative is promised, not
   bits: exp, tanh, gelu come from formulas.h (exp flushes below 1e-38), other transcendentals from libm. */
#ifndef NEAP_OPS_H
#define NEAP_OPS_H
#include <math.h>

#define OPS_MAP(expr)                                                                                                                                \
    for (size_t i = 0; i < n; i++) {                                                                                                                 \
        float x = a[i];                                                                                                                              \
        c[i] = (expr);                                                                                                                               \
    }                                                                                                                                                \
    break

/* Applies a lane function to n floats; the ragged end goes through a small buffer. */
#define OPS_LANES(expr)                                                                                                                              \
    for (size_t i = 0; i < n; i += LANE) {                                                                                                           \
        float tail[LANE] = {0};                                                                                                                      \
        size_t m = n - i < LANE ? n - i : LANE;                                                                                                      \
        if (m < LANE) memcpy(tail, a + i, m * sizeof(float));                                                                                        \
        V x = v_load(m < LANE ? tail : a + i), gate;                                                                                                 \
        (void)gate;                                                                                                                                  \
        v_store(tail, (expr));                                                                                                                       \
        memcpy(c + i, tail, m * sizeof(float));                                                                                                      \
    }                                                                                                                                                \
    break

static void ops_unary(int op, const float *a, float *c, size_t n) {
    switch (op) {
    case NEAP_OP_NEG: OPS_MAP(-x);
    case NEAP_OP_ABS: OPS_MAP(fabsf(x));
    case NEAP_OP_SQRT: OPS_MAP(sqrtf(x));
    case NEAP_OP_SQUARE: OPS_MAP(x * x);
    case NEAP_OP_EXP: OPS_LANES(f_exp_wide(x));
    case NEAP_OP_LOG: OPS_MAP(logf(x));
    case NEAP_OP_TANH: OPS_LANES(f_tanh(x));
    case NEAP_OP_SIGMOID: OPS_LANES(v_div(v_set1(1.0f), v_add(v_set1(1.0f), f_exp_wide(v_sub(v_set1(0.0f), x)))));
    case NEAP_OP_RELU: OPS_LANES(v_max0(x));
    case NEAP_OP_GELU: OPS_LANES(f_gelu(x, &gate));
    case NEAP_OP_SIN: OPS_MAP(sinf(x));
    case NEAP_OP_COS: OPS_MAP(cosf(x));
    case NEAP_OP_FLOOR: OPS_MAP(floorf(x));
    case NEAP_OP_CEIL: OPS_MAP(ceilf(x));
    case NEAP_OP_ROUND: OPS_MAP(rintf(x));
    case NEAP_OP_ASINH: OPS_MAP(asinhf(x));
    case NEAP_OP_SIGN: OPS_MAP(x > 0 ? 1.0f : x < 0 ? -1.0f : x);
    case NEAP_OP_LOG1P: OPS_MAP(log1pf(x));
    case NEAP_OP_EXPM1: OPS_MAP(expm1f(x));
    default: break;
    }
}

#define OPS_ZIP(expr)                                                                                                                                \
    if (a_step && b_step)                                                                                                                            \
        for (size_t i = 0; i < n; i++) {                                                                                                             \
            float x = a[i], y = b[i];                                                                                                                \
            c[i] = (expr);                                                                                                                           \
        }                                                                                                                                            \
    else                                                                                                                                             \
        for (size_t i = 0; i < n; i++) {                                                                                                             \
            float x = a[a_step ? i : 0], y = b[b_step ? i : 0];                                                                                      \
            c[i] = (expr);                                                                                                                           \
        }                                                                                                                                            \
    break

static void ops_binary(int op, const float *a, int a_step, const float *b, int b_step, float *c, size_t n) {
    switch (op) {
    case NEAP_OP_ADD: OPS_ZIP(x + y);
    case NEAP_OP_SUB: OPS_ZIP(x - y);
    case NEAP_OP_MUL: OPS_ZIP(x * y);
    case NEAP_OP_DIV: OPS_ZIP(x / y);
    case NEAP_OP_MIN: OPS_ZIP(y < x || y != y ? y : x); /* NaN wins, as in torch */
    case NEAP_OP_MAX: OPS_ZIP(y > x || y != y ? y : x);
    case NEAP_OP_POW: OPS_ZIP(y == 2.0f ? x * x : powf(x, y));
    default: break;
    }
}

/* Sums in double (a long float sum loses digits), minimum and maximum exactly; NaN anywhere gives NaN. n > 0 for min and max. */
static double ops_reduce(int op, const float *a, size_t n) {
    double acc[16] = {0}, sum = 0.0;
    size_t i = 0;
    if (op == NEAP_RED_MIN || op == NEAP_RED_MAX) {
        float best = a[0];
        int nan = 0;
        if (op == NEAP_RED_MIN)
            for (i = 0; i < n; i++) best = a[i] < best ? a[i] : best, nan |= a[i] != a[i];
        else
            for (i = 0; i < n; i++) best = a[i] > best ? a[i] : best, nan |= a[i] != a[i];
        return nan ? (double)NAN : (double)best;
    }
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) acc[j] += op == NEAP_RED_SUMSQ ? (double)a[i + j] * a[i + j] : (double)a[i + j];
    for (; i < n; i++) sum += op == NEAP_RED_SUMSQ ? (double)a[i] * a[i] : (double)a[i];
    for (int j = 0; j < 16; j++) sum += acc[j];
    return sum;
}
#endif
