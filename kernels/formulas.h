/* formulas.h: every formula of the network, once, for every backend. The includer has chosen a lane type first (lane_*.h: V is float, 8 floats, 16
   floats, or a CUDA thread's float), so scalar, AVX2, AVX-512 and CUDA perform the same operations in the same order: one seed, one result.

   Rules here: only v_* operations (each one IEEE operation, rounded to nearest); never libm; comparisons are false for NaN, so NaN stays NaN.
   Coefficients: minimax fits made with spec/oracles/fit_formulas.py; relative errors are given at each function. */
#ifndef NEAP_FORMULAS_H
#define NEAP_FORMULAS_H
#include "kernels/kernels.h"
#include <math.h>

/* exp(x) for x clamped to [-87, 88]; relative error 1e-7. Splits x = n ln2 + r; 2^n is built from the bits of the rounded n. */
LANE_FN V f_exp(V x) {
    x = v_sel(v_lt(x, v_set1(-87.0f)), v_set1(-87.0f), x);
    x = v_sel(v_lt(v_set1(88.0f), x), v_set1(88.0f), x);
    V t = v_fma(x, v_set1(1.44269504f), v_set1(12582912.0f)); /* 1.5 * 2^23: the low mantissa bits are now round(x / ln2) */
    V n = v_sub(t, v_set1(12582912.0f));
    V r = v_nfma(n, v_set1(0.693145751953125f), x); /* ln2 in two parts, the first exact in 17 bits */
    r = v_nfma(n, v_set1(1.42860677e-06f), r);
    V p = v_set1(0.00139457406f);
    p = v_fma(p, r, v_set1(0.0083335033f));
    p = v_fma(p, r, v_set1(0.0416662805f));
    p = v_fma(p, r, v_set1(0.166666657f));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(v_mul(r, r), p, r);
    return v_mul(v_add(p, v_set1(1.0f)), v_pow2(t));
}

/* exp(x) for any x, for tensors: infinity above 88.73, 0 below -87. */
LANE_FN V f_exp_wide(V x) {
    V e = f_exp(x), over = v_set1(INFINITY);
    e = v_sel(v_lt(v_set1(88.0f), x), v_mul(f_exp(v_set1(88.0f)), f_exp(v_sub(x, v_set1(88.0f)))), e);
    e = v_sel(v_lt(v_set1(88.73f), x), over, e);
    return v_sel(v_lt(x, v_set1(-87.0f)), v_set1(0.0f), e);
}

/* tanh(x); relative error 2e-7. Odd polynomial below 0.65, above it 1 - 2 / (exp(2|x|) + 1). */
LANE_FN V f_tanh(V x) {
    V a = v_abs(x), z = v_mul(x, x);
    V p = v_set1(0.00202315836f);
    p = v_fma(p, z, v_set1(-0.00804324169f));
    p = v_fma(p, z, v_set1(0.0216451958f));
    p = v_fma(p, z, v_set1(-0.0539364256f));
    p = v_fma(p, z, v_set1(0.133331224f));
    p = v_fma(p, z, v_set1(-0.333333284f));
    V small = v_fma(v_mul(x, z), p, x);
    V big = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(f_exp(v_add(a, a)), v_set1(1.0f))));
    return v_sel(v_lt(a, v_set1(0.65f)), small, v_copysign(big, x));
}

/* gelu(x) = x Phi(x), the exact form (torch's default), and its derivative Phi(x) + x phi(x); relative error 1e-6, 6e-6 below -5 (where x*x rounds).
   Phi's tail is exp(-x^2/2) t P(t) with t = 1 / (1 + 0.3 |x|). */
LANE_FN V f_gelu(V x, V *derivative) {
    V a = v_abs(x);
    V q = f_exp(v_mul(v_mul(x, v_set1(-0.5f)), x));
    V t = v_div(v_set1(1.0f), v_fma(a, v_set1(0.3f), v_set1(1.0f)));
    V p = v_set1(0.0361948088f);
    p = v_fma(p, t, v_set1(-0.159378126f));
    p = v_fma(p, t, v_set1(0.210118100f));
    p = v_fma(p, t, v_set1(-0.0571671128f));
    p = v_fma(p, t, v_set1(0.130416334f));
    p = v_fma(p, t, v_set1(0.0993471593f));
    p = v_fma(p, t, v_set1(0.120845526f));
    p = v_fma(p, t, v_set1(0.119623266f));
    V tail = v_mul(q, v_mul(p, t));
    V phi = v_sel(v_lt(v_set1(0.0f), x), v_sub(v_set1(1.0f), tail), tail);
    *derivative = v_fma(v_mul(x, v_set1(0.398942280f)), q, phi);
    return v_mul(x, phi);
}

/* The activation of z; gelu also gives its derivative in *gate (untouched otherwise). */
LANE_FN V f_act(int act, V z, float leak, V *gate) {
    switch (act) {
    case NEAP_ACT_RELU: return v_max0(z);
    case NEAP_ACT_LEAKY_RELU: return v_sel(v_lt(z, v_set1(0.0f)), v_mul(z, v_set1(leak)), z);
    case NEAP_ACT_TANH: return f_tanh(z);
    case NEAP_ACT_GELU: return f_gelu(z, gate);
    default: return z;
    }
}

/* The delta behind an activation: d times act'(z), told from the activation h (gelu: from the stored derivative). */
LANE_FN V f_gate(int act, V d, V h, V gate, float leak) {
    switch (act) {
    case NEAP_ACT_RELU: return v_sel(v_lt(v_set1(0.0f), h), d, v_set1(0.0f));
    case NEAP_ACT_LEAKY_RELU: return v_sel(v_lt(h, v_set1(0.0f)), v_mul(d, v_set1(leak)), d);
    case NEAP_ACT_TANH: return v_mul(d, v_nfma(h, h, v_set1(1.0f)));
    case NEAP_ACT_GELU: return v_mul(d, gate);
    default: return d;
    }
}

/* Loss of one output, and its derivative times `scale` (= 1 / (samples * outputs)). */
LANE_FN V f_loss(int loss, V z, V y, float huber, float scale, V *d) {
    V e = v_sub(z, y), a = v_abs(e), s = v_set1(scale), zero = v_set1(0.0f);
    V sign = v_sel(v_lt(e, zero), v_set1(-1.0f), v_sel(v_lt(zero, e), v_set1(1.0f), e)); /* 0 and NaN stay themselves */
    if (loss == NEAP_LOSS_MSE) {
        *d = v_mul(v_add(e, e), s);
        return v_mul(e, e);
    }
    if (loss == NEAP_LOSS_MAE) {
        *d = v_mul(sign, s);
        return a;
    }
    V k = v_set1(huber), outside = v_mul(k, v_nfma(v_set1(0.5f), k, a));
    V inside = v_mul(v_mul(v_set1(0.5f), e), e);
    V linear = v_mul(v_mul(sign, k), s);
    *d = v_sel(v_lt(k, a), linear, v_mul(e, s));
    return v_sel(v_lt(k, a), outside, inside);
}

/* The optimiser's numbers for one step, rounded once from double. */
typedef struct f_rule {
    int opt;
    float decay, keep;        /* L2: g += decay w.  Decoupled: w *= keep */
    float b1, b1c, b2, b2c;   /* betas and 1 - betas; b1 is the momentum of sgd */
    float unbias2, eps, step; /* 1 / sqrt(1 - b2^t), eps, lr / (1 - b1^t) */
    float scale;              /* gradient scale from clipping, 1 = none */
} f_rule;

/* base^n by squaring: multiplications only, hence the same double everywhere. */
LANE_SCALAR_FN double f_power(double base, int64_t n) {
    double r = 1.0;
    for (; n > 0; n >>= 1) {
        if (n & 1) r = d_mul(r, base);
        base = d_mul(base, base);
    }
    return r;
}

/* t counts from 1. */
LANE_SCALAR_FN f_rule f_rule_make(const neap_hyper *h, int64_t t) {
    f_rule r;
    r.opt = h->opt;
    r.scale = 1.0f;
    r.decay = h->opt == NEAP_OPT_ADAMW ? 0.0f : h->decay;
    r.keep = h->opt == NEAP_OPT_ADAMW ? (float)d_sub(1.0, d_mul((double)h->lr, (double)h->decay)) : 1.0f;
    if (h->opt == NEAP_OPT_SGD) {
        r.b1 = h->momentum;
        r.step = h->lr;
        r.b1c = r.b2 = r.b2c = r.unbias2 = r.eps = 0.0f;
        return r;
    }
    r.b1 = h->beta1, r.b1c = (float)d_sub(1.0, (double)h->beta1);
    r.b2 = h->beta2, r.b2c = (float)d_sub(1.0, (double)h->beta2);
    r.eps = h->eps;
    r.unbias2 = (float)d_div(1.0, d_sqrt(d_sub(1.0, f_power((double)h->beta2, t))));
    r.step = (float)d_div((double)h->lr, d_sub(1.0, f_power((double)h->beta1, t)));
    return r;
}

/* Moments below these become zero. They decay for ever towards denormal numbers, which cost a CPU tenfold and change no weight (an update of
   1e-30 / eps is far below half a unit of any weight that matters). */
#define F_TINY_M 1e-30f
#define F_TINY_V 1e-36f

LANE_FN V f_settle(V a, V size, float tiny) {
#ifdef V_SETTLE /* the lane has a cheaper form of it */
    return v_settle(a, size, v_set1(tiny));
#else
    return v_sel(v_lt(size, v_set1(tiny)), v_set1(0.0f), a);
#endif
}

/* One step of the optimiser on one weight per lane. */
LANE_FN void f_update(const f_rule *r, V g, V *w, V *m, V *v) {
    if (r->scale != 1.0f) g = v_mul(g, v_set1(r->scale));
    if (r->decay != 0.0f) g = v_fma(v_set1(r->decay), *w, g);
    if (r->opt == NEAP_OPT_SGD) {
        if (r->b1 != 0.0f) g = *m = v_fma(v_set1(r->b1), *m, g);
        *w = v_nfma(v_set1(r->step), g, *w);
        return;
    }
    if (r->opt == NEAP_OPT_ADAMW) *w = v_mul(*w, v_set1(r->keep));
    *m = v_fma(v_set1(r->b1), *m, v_mul(v_set1(r->b1c), g));
    *m = f_settle(*m, v_abs(*m), F_TINY_M);
    *v = v_fma(v_set1(r->b2), *v, v_mul(v_mul(v_set1(r->b2c), g), g));
    *v = f_settle(*v, *v, F_TINY_V);
    V d = v_fma(v_sqrt(*v), v_set1(r->unbias2), v_set1(r->eps));
    *w = v_nfma(v_set1(r->step), v_div(*m, d), *w);
}
#endif
