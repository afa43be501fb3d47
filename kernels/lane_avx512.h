/* lane_avx512.h: sixteen floats as a lane type; same meaning as lane_scalar.h, operation by operation. */
#ifndef NEAP_LANE_H
#define NEAP_LANE_H
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

typedef __m512 V;
typedef __mmask16 M;
#define LANE           16
#define LANE_FN        static inline __attribute__((always_inline, unused))
#define LANE_SCALAR_FN static inline __attribute__((unused))

LANE_FN V v_set1(float a) { return _mm512_set1_ps(a); }
LANE_FN V v_load(const float *p) { return _mm512_loadu_ps(p); }
LANE_FN void v_store(float *p, V a) { _mm512_storeu_ps(p, a); }
LANE_FN V v_add(V a, V b) { return _mm512_add_ps(a, b); }
LANE_FN V v_sub(V a, V b) { return _mm512_sub_ps(a, b); }
LANE_FN V v_mul(V a, V b) { return _mm512_mul_ps(a, b); }
LANE_FN V v_div(V a, V b) { return _mm512_div_ps(a, b); }
LANE_FN V v_sqrt(V a) { return _mm512_sqrt_ps(a); }
LANE_FN V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
LANE_FN V v_nfma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
LANE_FN M v_lt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LANE_FN V v_sel(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
LANE_FN V v_max0(V a) { return _mm512_max_ps(_mm512_setzero_ps(), a); } /* the second operand where equal or NaN */
LANE_FN V v_abs(V a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
#define V_SETTLE
/* a, or 0 where |size| < tiny (NaN stays). On bits: compares would take the multipliers' ports. */
LANE_FN V v_settle(V a, V size, V tiny) {
    __m512i d = _mm512_sub_epi32(_mm512_castps_si512(v_abs(size)), _mm512_castps_si512(tiny));
    return _mm512_castsi512_ps(_mm512_andnot_si512(_mm512_srai_epi32(d, 31), _mm512_castps_si512(a)));
}
LANE_FN V v_copysign(V a, V sign) {
    __m512 s = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(s, a), _mm512_and_ps(s, sign));
}
LANE_FN V v_pow2(V t) {
    __m512i u = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(u, _mm512_set1_epi32(0x3F800000)));
}
#define V_ROWS 16 /* rows that v_tree_rows adds up together */
/* v_tree of sixteen rows at once, sums in row order: the same additions, two rows sharing a vector after each. */
LANE_FN void v_tree_rows(V a[V_ROWS][1], float *sums) {
    __m512 b[8], c[4], d[2];
    for (int i = 0; i < 8; i++) {
        __m512 p = a[2 * i][0], q = a[2 * i + 1][0];
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x44), _mm512_shuffle_f32x4(p, q, 0xEE));
    }
    for (int i = 0; i < 4; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xDD));
    for (int i = 0; i < 2; i++)
        d[i] = _mm512_add_ps(_mm512_shuffle_ps(c[2 * i], c[2 * i + 1], 0x44), _mm512_shuffle_ps(c[2 * i], c[2 * i + 1], 0xEE));
    __m512 e = _mm512_add_ps(_mm512_shuffle_ps(d[0], d[1], 0x88), _mm512_shuffle_ps(d[0], d[1], 0xDD));
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_ps(sums, _mm512_permutexvar_ps(order, e));
}
/* The 16-lane tree of a dot product: lanes l and l+8, then l+4, l+2, l+1. */
LANE_FN float v_tree(const V acc[16 / LANE]) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(acc[0]), _mm512_extractf32x8_ps(acc[0], 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}
/* For tensor functions (ops.h). v_split: x = m 2^e with m in [sqrt(1/2), sqrt(2)), x normal and positive. v_odd, v_flip: of the whole number in the
   low bits of t: is it odd; a with its sign changed where bit 1 is set. */
LANE_FN int v_any(M m) { return m != 0; }
LANE_FN V v_split(V x, V *e) {
    __m512i i = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x3F3504F3));
    *e = _mm512_cvtepi32_ps(_mm512_srai_epi32(i, 23));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_and_si512(i, _mm512_set1_epi32(0x7FFFFF)), _mm512_set1_epi32(0x3F3504F3)));
}
LANE_FN M v_odd(V t) { return _mm512_test_epi32_mask(_mm512_castps_si512(t), _mm512_set1_epi32(1)); }
LANE_FN V v_flip(V a, V t) {
    __m512i s = _mm512_slli_epi32(_mm512_and_si512(_mm512_castps_si512(t), _mm512_set1_epi32(2)), 30);
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), s));
}
LANE_SCALAR_FN double d_mul(double a, double b) { return a * b; }
LANE_SCALAR_FN double d_sub(double a, double b) { return a - b; }
LANE_SCALAR_FN double d_div(double a, double b) { return a / b; }
LANE_SCALAR_FN double d_sqrt(double a) { return sqrt(a); }
#endif
