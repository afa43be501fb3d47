/* lane_scalar.h: one float as a lane, for the reference backend and for scalar code that must agree with it. fmaf is exact everywhere: an instruction
   where the CPU has one, glibc's correctly rounded function otherwise. */
#ifndef NEAP_LANE_H
#define NEAP_LANE_H
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float V;
typedef int M;
#define LANE           1
#define LANE_FN        static inline __attribute__((unused))
#define LANE_SCALAR_FN static inline __attribute__((unused))

LANE_FN V v_set1(float a) { return a; }
LANE_FN V v_load(const float *p) { return *p; }
LANE_FN void v_store(float *p, V a) { *p = a; }
LANE_FN V v_add(V a, V b) { return a + b; }
LANE_FN V v_sub(V a, V b) { return a - b; }
LANE_FN V v_mul(V a, V b) { return a * b; }
LANE_FN V v_div(V a, V b) { return a / b; }
LANE_FN V v_sqrt(V a) { return sqrtf(a); }
LANE_FN V v_fma(V a, V b, V c) { return fmaf(a, b, c); }
LANE_FN V v_nfma(V a, V b, V c) { return fmaf(-a, b, c); }
LANE_FN M v_lt(V a, V b) { return a < b; }
LANE_FN V v_sel(M m, V a, V b) { return m ? a : b; }
LANE_FN V v_max0(V a) { return 0.0f > a ? 0.0f : a; }
LANE_FN V v_abs(V a) { return fabsf(a); }
LANE_FN V v_copysign(V a, V sign) { return copysignf(a, sign); }
/* 2^n, where t = 1.5 * 2^23 + n: shifts n from the low mantissa bits into the exponent */
LANE_FN V v_pow2(V t) {
    uint32_t u;
    memcpy(&u, &t, 4);
    u = (u << 23) + 0x3F800000u;
    memcpy(&t, &u, 4);
    return t;
}
/* For tensor functions (ops.h), see lane_avx512.h. */
LANE_FN int v_any(M m) { return m; }
LANE_FN V v_split(V x, V *e) {
    int32_t i;
    memcpy(&i, &x, 4);
    i -= 0x3F3504F3;
    *e = (float)(i >> 23);
    i = (i & 0x7FFFFF) + 0x3F3504F3;
    memcpy(&x, &i, 4);
    return x;
}
LANE_FN M v_odd(V t) {
    uint32_t u;
    memcpy(&u, &t, 4);
    return (int)(u & 1);
}
LANE_FN V v_flip(V a, V t) {
    uint32_t u;
    memcpy(&u, &t, 4);
    return u & 2 ? -a : a;
}
LANE_SCALAR_FN double d_mul(double a, double b) { return a * b; }
LANE_SCALAR_FN double d_sub(double a, double b) { return a - b; }
LANE_SCALAR_FN double d_div(double a, double b) { return a / b; }
LANE_SCALAR_FN double d_sqrt(double a) { return sqrt(a); }
#endif
