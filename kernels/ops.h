/* ops.h: float32 tensor loops, included by each CPU backend so that its compiler vectorises them for its lanes. Here 1e-6 relative is promised, not
   bits: exp, tanh, gelu come from formulas.h (exp flushes below 1e-38); log, sin and their kin are here, and leave vectors that hold an argument
   out of their range (NaN too) to libm. Coefficients: spec/oracles/fit_formulas.py. */
#ifndef NEAP_OPS_H
#define NEAP_OPS_H
#include <math.h>

#define OPS_MAP(expr)                                                                                                                                \
    for (size_t i = 0; i < n; i++) {                                                                                                                 \
        float x = a[i];                                                                                                                              \
        c[i] = (expr);                                                                                                                               \
    }                                                                                                                                                \
    break

/* Applies a lane function to n floats; the ragged end goes through a small buffer, filled up with `fill`. */
#define OPS_EACH(fill, body)                                                                                                                         \
    for (size_t i = 0; i < n; i += LANE) {                                                                                                           \
        float tail[LANE], *to = c + i;                                                                                                               \
        const float *from = a + i;                                                                                                                   \
        if (n - i < LANE) {                                                                                                                          \
            for (size_t q = 0; q < LANE; q++) tail[q] = q < n - i ? from[q] : fill;                                                                  \
            from = to = tail;                                                                                                                        \
        }                                                                                                                                            \
        V x = v_load(from), gate;                                                                                                                    \
        (void)gate;                                                                                                                                  \
        body;                                                                                                                                        \
        if (to == tail) memcpy(c + i, tail, (n - i) * sizeof(float));                                                                                \
    }                                                                                                                                                \
    break
#define OPS_LANES(expr) OPS_EACH(0.0f, v_store(to, (expr)))

/* As OPS_LANES where all lanes satisfy `low < x < high` (0.5 does); else number by number through libm. */
#define OPS_LANES_OR(low, high, expr, exact)                                                                                                         \
    OPS_EACH(0.5f, if (ops_within(x, low, high)) v_store(to, (expr)); else for (int q = 0; q < LANE; q++) to[q] = exact(from[q]))

LANE_FN int ops_within(V x, float low, float high) {
    V outside = v_sel(v_lt(v_set1(low), x), v_sel(v_lt(x, v_set1(high)), v_set1(0.0f), v_set1(1.0f)), v_set1(1.0f));
    return !v_any(v_lt(v_set1(0.0f), outside));
}

LANE_FN V ops_exp(V x) {
    V e = f_exp(x), over = v_set1(INFINITY);
    e = v_sel(v_lt(v_set1(88.0f), x), v_mul(f_exp(v_set1(88.0f)), f_exp(v_sub(x, v_set1(88.0f)))), e);
    e = v_sel(v_lt(v_set1(88.73f), x), over, e);
    return v_sel(v_lt(x, v_set1(-87.0f)), v_set1(0.0f), e);
}

/* log(x) of normal x > 0: x = m 2^e, log(1 + f) = f - f^2/2 + f^3 P(f) with f = m - 1 */
LANE_FN V ops_log(V x) {
    V e, f = v_sub(v_split(x, &e), v_set1(1.0f)), z = v_mul(f, f);
    V p = v_set1(0.0674660131f);
    p = v_fma(p, f, v_set1(-0.116756417f));
    p = v_fma(p, f, v_set1(0.118881747f));
    p = v_fma(p, f, v_set1(-0.124055915f));
    p = v_fma(p, f, v_set1(0.142195508f));
    p = v_fma(p, f, v_set1(-0.166679963f));
    p = v_fma(p, f, v_set1(0.200021192f));
    p = v_fma(p, f, v_set1(-0.250000089f));
    p = v_fma(p, f, v_set1(0.333333135f));
    p = v_mul(p, v_mul(f, z));
    p = v_fma(e, v_set1(1.42860677e-06f), p); /* ln2 in two parts */
    p = v_nfma(v_set1(0.5f), z, p);
    return v_fma(e, v_set1(0.693145751953125f), v_add(f, p));
}

/* log(1 + x): log of the rounded u = 1 + x, corrected by what rounding did */
LANE_FN V ops_log1p(V x) {
    V u = v_add(v_set1(1.0f), x), d = v_sub(u, v_set1(1.0f));
    M none = v_lt(v_mul(d, d), v_set1(1e-30f)); /* u is 1 */
    return v_sel(none, x, v_mul(ops_log(u), v_div(x, v_sel(none, v_set1(1.0f), d))));
}

/* exp(x) - 1 for -17 < x < 88, by the same trick */
LANE_FN V ops_expm1(V x) {
    V u = f_exp(x), d = v_sub(u, v_set1(1.0f));
    M none = v_lt(v_mul(d, d), v_set1(1e-30f));
    V near = v_mul(d, v_div(x, v_sel(none, v_set1(1.0f), ops_log(u))));
    return v_sel(none, x, v_sel(v_lt(v_mul(x, x), v_set1(1.0f)), near, d));
}

/* asinh(x) = sign(x) log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))) */
LANE_FN V ops_asinh(V x) {
    V a = v_abs(x), z = v_mul(x, x), one = v_set1(1.0f);
    return v_copysign(ops_log1p(v_add(a, v_div(z, v_add(one, v_sqrt(v_add(z, one)))))), x);
}

/* sin(x + turns * pi/2), |x| < 8192: x = n pi/2 + r with pi/2 in three parts, then sine or cosine of r by n's low bits */
LANE_FN V ops_sin(V x, float turns) {
    V t = v_fma(x, v_set1(0.636619772f), v_set1(12582912.0f)), n = v_sub(t, v_set1(12582912.0f));
    V r = v_nfma(n, v_set1(1.57079637f), x);
    r = v_nfma(n, v_set1(-4.37113883e-08f), r);
    r = v_nfma(n, v_set1(-1.71512489e-15f), r);
    t = v_add(t, v_set1(turns));
    V z = v_mul(r, r);
    V s = v_fma(v_fma(v_set1(-0.000195129716f), z, v_set1(0.00833214447f)), z, v_set1(-0.166666538f));
    s = v_fma(v_mul(r, z), s, r);
    V k = v_fma(v_fma(v_set1(2.44305138e-05f), z, v_set1(-0.00138872932f)), z, v_set1(0.0416666456f));
    k = v_fma(v_mul(z, z), k, v_nfma(v_set1(0.5f), z, v_set1(1.0f)));
    return v_flip(v_sel(v_odd(t), k, s), t);
}

static void ops_unary(int op, const float *a, float *c, size_t n) {
    switch (op) {
    case NEAP_OP_NEG: OPS_MAP(-x);
    case NEAP_OP_ABS: OPS_MAP(fabsf(x));
    case NEAP_OP_SQRT: OPS_LANES(v_sqrt(x));
    case NEAP_OP_SQUARE: OPS_MAP(x * x);
    case NEAP_OP_EXP: OPS_LANES(f_exp_wide(x));
    case NEAP_OP_LOG: OPS_LANES_OR(1.2e-38f, 3e38f, ops_log(x), logf);
    case NEAP_OP_TANH: OPS_LANES(f_tanh(x));
    case NEAP_OP_SIGMOID: OPS_LANES(v_div(v_set1(1.0f), v_add(v_set1(1.0f), f_exp_wide(v_sub(v_set1(0.0f), x)))));
    case NEAP_OP_RELU: OPS_LANES(v_max0(x));
    case NEAP_OP_GELU: OPS_LANES(f_gelu(x, &gate));
    case NEAP_OP_SIN: OPS_LANES_OR(-8192.0f, 8192.0f, ops_sin(x, 0.0f), sinf);
    case NEAP_OP_COS: OPS_LANES_OR(-8192.0f, 8192.0f, ops_sin(x, 1.0f), cosf);
    case NEAP_OP_FLOOR: OPS_MAP(floorf(x));
    case NEAP_OP_CEIL: OPS_MAP(ceilf(x));
    case NEAP_OP_ROUND: OPS_MAP(rintf(x));
    case NEAP_OP_ASINH: OPS_LANES_OR(-1e15f, 1e15f, ops_asinh(x), asinhf);
    case NEAP_OP_SIGN: OPS_MAP(x > 0 ? 1.0f : x < 0 ? -1.0f : x);
    case NEAP_OP_LOG1P: OPS_LANES_OR(-0.9999f, 1e30f, ops_log1p(x), log1pf);
    case NEAP_OP_EXPM1: OPS_LANES_OR(-17.0f, 88.0f, ops_expm1(x), expm1f);
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
        float best = a[0], lanes[LANE], poison[LANE];
        V some[4], bad[4]; /* bad: 0, or the NaN that was seen */
        for (int q = 0; q < 4; q++) some[q] = v_set1(best), bad[q] = v_set1(0.0f);
        for (; i + 4 * LANE <= n; i += 4 * LANE)
            for (int q = 0; q < 4; q++) {
                V x = v_load(a + i + q * LANE);
                some[q] = op == NEAP_RED_MIN ? v_sel(v_lt(x, some[q]), x, some[q]) : v_sel(v_lt(some[q], x), x, some[q]);
                bad[q] = v_sel(v_lt(x, v_set1(INFINITY)), bad[q], v_sel(v_lt(v_set1(0.0f), x), bad[q], x)); /* not below infinity, nor it: NaN */
            }
        int nan = best != best;
        for (int q = 0; q < 4; q++) {
            v_store(lanes, some[q]), v_store(poison, bad[q]);
            for (int l = 0; l < LANE; l++)
                best = op == NEAP_RED_MIN ? (lanes[l] < best ? lanes[l] : best) : lanes[l] > best ? lanes[l] : best, nan |= poison[l] != poison[l];
        }
        for (; i < n; i++) best = op == NEAP_RED_MIN ? (a[i] < best ? a[i] : best) : a[i] > best ? a[i] : best, nan |= a[i] != a[i];
        return nan ? (double)NAN : (double)best;
    }
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) acc[j] += op == NEAP_RED_SUMSQ ? (double)a[i + j] * a[i + j] : (double)a[i + j];
    for (; i < n; i++) sum += op == NEAP_RED_SUMSQ ? (double)a[i] * a[i] : (double)a[i];
    for (int j = 0; j < 16; j++) sum += acc[j];
    return sum;
}
#endif
