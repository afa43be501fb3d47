/* matmul.h: general matrix product for tensors, built on the tiles: both operands are packed into panels that fit L1 and L2 (any strides, so a
   transposed view costs nothing), threads take blocks of rows. The depth is cut into blocks, so this is not the written order of the network's
   products. */
#ifndef NEAP_MATMUL_H
#define NEAP_MATMUL_H
#include <pthread.h>
#include <stdlib.h>

#define MM_K 256        /* depth of a panel */
#define MM_M 96         /* rows of a packed block of a */
#define MM_N (2 * LANE) /* columns of a strip of b */

typedef struct mm_job {
    int m, n, k, lo, hi; /* lo..hi: this thread's rows */
    const float *a, *b;
    long a_row, a_col, b_row, b_col, ldc;
    float *c;
    int status;
} mm_job;

/* b's rows k0.. as strips of MM_N columns, zero padded; a's block row by row within depth order [k][MM_M] */
static void mm_pack_b(const mm_job *j, int k0, int depth, float *bp) {
    for (int n0 = 0; n0 < j->n; n0 += MM_N, bp += (long)depth * MM_N) {
        const float *src = j->b + k0 * j->b_row + n0 * j->b_col;
        int w = j->n - n0 < MM_N ? j->n - n0 : MM_N, done = 0;
        if (w == MM_N && j->b_col == 1)
            for (; done < depth; done++)
                for (int i = 0; i < MM_N; i += LANE) v_store(bp + done * MM_N + i, v_load(src + done * j->b_row + i));
        else if (w == MM_N && j->b_row == 1) transpose(src, MM_N, j->b_col, done = depth / 8 * 8, bp, MM_N);
        for (int k = done; k < depth; k++)
            for (int i = 0; i < MM_N; i++) bp[k * MM_N + i] = i < w ? src[k * j->b_row + i * j->b_col] : 0.0f;
    }
}

static void mm_pack_a(const mm_job *j, int m0, int rows, int k0, int depth, float *ap) {
    int done = 0; /* of the depth */
    if (j->a_col == 1 && rows % 8 == 0) {
        done = depth / 8 * 8;
        transpose(j->a + m0 * j->a_row + k0, rows, j->a_row, done, ap, MM_M);
    } else if (j->a_row == 1) {
        done = depth;
        for (int k = 0; k < depth; k++) memcpy(ap + (long)k * MM_M, j->a + m0 + (k0 + k) * j->a_col, (size_t)rows * sizeof(float));
    }
    for (int i = 0; i < rows; i++) {
        const float *src = j->a + (m0 + i) * j->a_row + k0 * j->a_col;
        for (int k = done; k < depth; k++) ap[(long)k * MM_M + i] = src[k * j->a_col];
    }
}

static void *mm_part(void *arg) {
    mm_job *j = arg;
    int strips = (j->n + MM_N - 1) / MM_N;
    float *bp = aligned_alloc(64, (size_t)strips * MM_N * MM_K * sizeof(float)), *ap = aligned_alloc(64, MM_M * MM_K * sizeof(float));
    float *cp = aligned_alloc(64, MM_M * MM_N * sizeof(float));
    j->status = bp && ap && cp ? 0 : NEAP_KERN_MEMORY;
    for (int k0 = 0; !j->status && k0 < j->k; k0 += MM_K) {
        int depth = j->k - k0 < MM_K ? j->k - k0 : MM_K;
        mm_pack_b(j, k0, depth, bp);
        for (int m0 = j->lo; m0 < j->hi; m0 += MM_M) {
            int rows = j->hi - m0 < MM_M ? j->hi - m0 : MM_M;
            mm_pack_a(j, m0, rows, k0, depth, ap);
            for (int s = 0; s < strips; s++) {
                int n0 = s * MM_N, w = j->n - n0 < MM_N ? j->n - n0 : MM_N;
                float *c = j->c + (long)m0 * j->ldc + n0;
                tile_job t = {.a = ap, .a_row = 1, .a_k = MM_M, .b = bp + (long)s * depth * MM_N, .ldb = MM_N, .k = depth, .resume = k0 > 0};
                if (w == MM_N) {
                    t.c = c, t.ldc = j->ldc;
                    tile_tall(&t, rows);
                    continue;
                }
                t.c = cp, t.ldc = MM_N;
                for (int i = 0; k0 && i < rows; i++) memcpy(cp + i * MM_N, c + i * j->ldc, (size_t)w * sizeof(float));
                tile_tall(&t, rows);
                for (int i = 0; i < rows; i++) memcpy(c + i * j->ldc, cp + i * MM_N, (size_t)w * sizeof(float));
            }
        }
    }
    free(bp), free(ap), free(cp);
    return NULL;
}

/* k may be 0: c becomes zero. Returns 0 or NEAP_KERN_MEMORY. */
static int simd_gemm(int m, int n, int k, const float *a, long a_row, long a_col, const float *b, long b_row, long b_col, float *c, long ldc,
                     int threads) {
    if (b_col == 1 && n % 16 == 0 && k > 0 && k <= 128 && n <= 128 && (double)m * n * k < 1e7) { /* all in L2 as it lies */
        tile_job t = {.a = a, .a_row = a_row, .a_k = a_col, .b = b, .ldb = b_row, .k = k, .c = c, .ldc = ldc};
        tile_grad(&t, 0, m, n);
        return 0;
    }
    mm_job part[64];
    pthread_t thread[64];
    int count = threads > 64 ? 64 : threads, started = 0, rc = 0;
    if ((double)m * n * k < 1e7 || count < 1) count = 1;
    if (count > (m + 31) / 32) count = (m + 31) / 32;
    if (k == 0)
        for (int i = 0; i < m; i++) memset(c + (long)i * ldc, 0, (size_t)n * sizeof(float));
    for (int i = 0; i < count; i++)
        part[i] = (mm_job){m, n, k, (int)((long)m * i / count), (int)((long)m * (i + 1) / count), a, b, a_row, a_col, b_row, b_col, ldc, c, 0};
    for (int i = 1; i < count; i++, started++)
        if (pthread_create(&thread[i], NULL, mm_part, &part[i])) break;
    for (int i = started + 1; i < count; i++) mm_part(&part[i]);
    if (count) mm_part(&part[0]);
    for (int i = 1; i <= started; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < count; i++) rc = part[i].status ? part[i].status : rc;
    return rc;
}
#endif
