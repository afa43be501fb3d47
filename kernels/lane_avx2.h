/* lane_avx2.h: eight floats as a lane type; same meaning as lane_scalar.h, operation by operation. */
#ifndef NEAP_LANE_H
#define NEAP_LANE_H
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

typedef __m256 V;
typedef __m256 M;
#define LANE           8
#define LANE_FN        static inline __attribute__((always_inline, unused))
#define LANE_SCALAR_FN static inline __attribute__((unused))

LANE_FN V v_set1(float a) { return _mm256_set1_ps(a); }
LANE_FN V v_load(const float *p) { return _mm256_loadu_ps(p); }
LANE_FN void v_store(float *p, V a) { _mm256_storeu_ps(p, a); }
LANE_FN V v_add(V a, V b) { return _mm256_add_ps(a, b); }
LANE_FN V v_sub(V a, V b) { return _mm256_sub_ps(a, b); }
LANE_FN V v_mul(V a, V b) { return _mm256_mul_ps(a, b); }
LANE_FN V v_div(V a, V b) { return _mm256_div_ps(a, b); }
LANE_FN V v_sqrt(V a) { return _mm256_sqrt_ps(a); }
LANE_FN V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
LANE_FN V v_nfma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
LANE_FN M v_lt(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
LANE_FN V v_sel(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
LANE_FN V v_max0(V a) { return _mm256_max_ps(_mm256_setzero_ps(), a); } /* the second operand where equal or NaN */
LANE_FN V v_abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
#define V_SETTLE
/* a, or 0 where |size| < tiny (NaN stays). On bits: compares would take the multipliers' ports. */
LANE_FN V v_settle(V a, V size, V tiny) {
    __m256i d = _mm256_sub_epi32(_mm256_castps_si256(v_abs(size)), _mm256_castps_si256(tiny));
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_srai_epi32(d, 31), _mm256_castps_si256(a)));
}
LANE_FN V v_copysign(V a, V sign) {
    __m256 s = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(s, a), _mm256_and_ps(s, sign));
}
LANE_FN V v_pow2(V t) {
    __m256i u = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(u, _mm256_set1_epi32(0x3F800000)));
}
#define V_ROWS 4 /* rows that v_tree_rows adds up together */
/* v_tree of four rows at once, sums in row order: the same additions, two rows sharing a vector after each. */
LANE_FN void v_tree_rows(V a[V_ROWS][2], float *sums) {
    __m256 b[4], c[2];
    for (int i = 0; i < 4; i++) b[i] = _mm256_add_ps(a[i][0], a[i][1]);
    for (int i = 0; i < 2; i++)
        c[i] = _mm256_add_ps(_mm256_permute2f128_ps(b[2 * i], b[2 * i + 1], 0x20), _mm256_permute2f128_ps(b[2 * i], b[2 * i + 1], 0x31));
    __m256 d = _mm256_add_ps(_mm256_shuffle_ps(c[0], c[1], 0x44), _mm256_shuffle_ps(c[0], c[1], 0xEE));
    __m256 e = _mm256_add_ps(_mm256_shuffle_ps(d, d, 0x88), _mm256_shuffle_ps(d, d, 0xDD)); /* rows 0 2 0 2, 1 3 1 3 */
    _mm_storeu_ps(sums, _mm_unpacklo_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1)));
}
/* The 16-lane tree of a dot product: lanes l and l+8, then l+4, l+2, l+1. */
LANE_FN float v_tree(const V acc[16 / LANE]) {
    __m256 a = _mm256_add_ps(acc[0], acc[1]);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}
/* For tensor functions (ops.h), see lane_avx512.h. v_odd's lanes are read by their sign bit only, as v_sel does. */
LANE_FN int v_any(M m) { return _mm256_movemask_ps(m) != 0; }
LANE_FN V v_split(V x, V *e) {
    __m256i i = _mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x3F3504F3));
    *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(i, 23));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_and_si256(i, _mm256_set1_epi32(0x7FFFFF)), _mm256_set1_epi32(0x3F3504F3)));
}
LANE_FN M v_odd(V t) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 31)); }
LANE_FN V v_flip(V a, V t) {
    __m256i s = _mm256_slli_epi32(_mm256_and_si256(_mm256_castps_si256(t), _mm256_set1_epi32(2)), 30);
    return _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(a), s));
}
LANE_SCALAR_FN double d_mul(double a, double b) { return a * b; }
LANE_SCALAR_FN double d_sub(double a, double b) { return a - b; }
LANE_SCALAR_FN double d_div(double a, double b) { return a / b; }
LANE_SCALAR_FN double d_sqrt(double a) { return sqrt(a); }
#endif
