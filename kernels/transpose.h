/* transpose.h: a matrix turned, 8 x 8 at a time in registers: weights for the deltas, blocks of a general product. */
#ifndef NEAP_TRANSPOSE_H
#define NEAP_TRANSPOSE_H
#include <immintrin.h>

/* wt[out][in padded] = w[in][ld] transposed, 8 x 8 at a time; columns of the padding stay zero. */
static inline __attribute__((unused)) void transpose(const float *w, int in, long ld, int out, float *wt, long ldt) {
    for (int i = 0; i < in; i += 8)
        for (int o = 0; o < out; o += 8) {
            __m256 a[8], t[8];
            for (int r = 0; r < 8; r++) a[r] = i + r < in ? _mm256_loadu_ps(w + (i + r) * ld + o) : _mm256_setzero_ps();
            for (int r = 0; r < 8; r += 2) t[r] = _mm256_unpacklo_ps(a[r], a[r + 1]), t[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
            for (int r = 0; r < 8; r += 4)
                for (int q = 0; q < 2; q++) {
                    a[r + 2 * q] = _mm256_shuffle_ps(t[r + q], t[r + q + 2], 0x44);
                    a[r + 2 * q + 1] = _mm256_shuffle_ps(t[r + q], t[r + q + 2], 0xEE);
                }
            for (int r = 0; r < 4; r++) {
                t[r] = _mm256_permute2f128_ps(a[r], a[r + 4], 0x20);
                t[r + 4] = _mm256_permute2f128_ps(a[r], a[r + 4], 0x31);
            }
            for (int r = 0; r < 8 && o + r < out; r++) _mm256_storeu_ps(wt + (o + r) * ldt + i, t[r]);
        }
}
#endif
