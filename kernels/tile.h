/* tile.h: the one matrix product of the network, in register tiles, with what follows it fused into the end of each tile.

     c[m][n] = start + sum over k, in order, of a(m, k) * b[k][n]         a: any strides (broadcast)   b: rows of vectors

   Every element is a sequential chain of fused multiply-adds, so neither the tile's shape nor the lane width changes a bit. All five products of a
   training step have this form: forward (a = inputs, b = W), deltas (a = deltas, b = W transposed), weight gradients (k runs over samples).
   The includer defines TILE_R x TILE_C: accumulators that fill the registers, and TILE_U: rows of a tile that also updates. */
#ifndef NEAP_TILE_H
#define NEAP_TILE_H

enum { T_FORWARD, T_DELTA, T_GRAD, T_UPDATE };

typedef struct tile_job {
    const float *a;
    long a_row, a_k;
    const float *b;
    long ldb;
    int k;
    float *c; /* result; T_UPDATE: the gradient so far, read if `resume` */
    long ldc;
    int resume;         /* T_GRAD, T_UPDATE: chains go on from c */
    const float *bias;  /* T_FORWARD: where chains start */
    int relu;           /* T_FORWARD: clip at zero.  T_DELTA: pass only where h > 0 */
    const float *h;     /* T_DELTA: activations, laid out as c */
    const f_rule *rule; /* T_UPDATE: the optimiser, and its arrays, laid out as c */
    float *w, *m, *v;
    float *sum; /* T_GRAD, T_UPDATE: the sums over k of b's columns are added here (the bias gradient); NULL: not wanted */
} tile_job;

/* Gradients of one tile on their way to the optimiser. Square roots and divisions are slow but use a unit of their own, so the update of a tile runs
   inside the multiply loop of the next one, a vector every few steps, and costs almost nothing. */
typedef struct tile_pending {
    float g[TILE_R * TILE_C * LANE];
    long at[TILE_R * TILE_C]; /* where each vector belongs */
    int n;                    /* vectors */
    int plain;                /* Adam or AdamW, without L2 decay or clipping: constants below */
    int keep;                 /* decoupled decay */
    float k[8][LANE];         /* b1, 1-b1, b2, 1-b2, unbias2, eps, step, keep in all lanes */
} tile_pending;

LANE_FN void tile_pending_init(tile_pending *p, const f_rule *r) {
    const float k[8] = {r->b1, r->b1c, r->b2, r->b2c, r->unbias2, r->eps, r->step, r->keep};
    p->n = 0;
    p->plain = r->opt != NEAP_OPT_SGD && r->decay == 0.0f && r->scale == 1.0f;
    p->keep = r->opt == NEAP_OPT_ADAMW;
    for (int i = 0; i < 8; i++) v_store(p->k[i], v_set1(k[i]));
}

/* The optimiser on vector i of the pending tile; the plain case spells f_update out with its constants at hand. */
LANE_FN void tile_pending_one(const tile_job *j, const tile_pending *p, int i) {
    long at = p->at[i];
    V g = v_load(p->g + i * LANE), w = v_load(j->w + at), m = v_load(j->m + at), v = v_load(j->v + at);
    if (p->plain) {
        if (p->keep) w = v_mul(w, v_load(p->k[7]));
        m = v_fma(v_load(p->k[0]), m, v_mul(v_load(p->k[1]), g));
        v = v_fma(v_load(p->k[2]), v, v_mul(v_mul(v_load(p->k[3]), g), g));
        m = f_settle(m, v_abs(m), F_TINY_M);
        v = f_settle(v, v, F_TINY_V);
        V d = v_fma(v_sqrt(v), v_load(p->k[4]), v_load(p->k[5]));
        w = v_nfma(v_load(p->k[6]), v_div(m, d), w);
    } else {
        f_update(j->rule, g, &w, &m, &v);
    }
    v_store(j->w + at, w), v_store(j->m + at, m), v_store(j->v + at, v);
}

LANE_FN void tile(const int kind, const int sum, const int R, const int C, const tile_job *j, int row, int col, tile_pending *pending) {
    V acc[12][TILE_C], total[TILE_C];
    const float *a = j->a + row * j->a_row, *b = j->b + col;
    const long a_row = j->a_row, a_k = j->a_k, ldb = j->ldb;
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 12
        for (int c = 0; c < C; c++) {
            if (kind == T_FORWARD) acc[r][c] = v_load(j->bias + col + c * LANE);
            else acc[r][c] = v_set1(0.0f);
        }
    if ((kind == T_GRAD || kind == T_UPDATE) && j->resume)
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 12
            for (int c = 0; c < C; c++) acc[r][c] = v_load(j->c + (row + r) * j->ldc + col + c * LANE);

    if (sum)
#pragma GCC unroll 12
        for (int c = 0; c < C; c++) total[c] = v_load(j->sum + col + c * LANE);

#define TILE_STEP                                                                                                                                    \
    do {                                                                                                                                             \
        V bv[TILE_C];                                                                                                                                \
        _Pragma("GCC unroll 12") for (int c = 0; c < C; c++) bv[c] = v_load(b + c * LANE);                                                           \
        if (sum) _Pragma("GCC unroll 12") for (int c = 0; c < C; c++) total[c] = v_add(total[c], bv[c]);                                             \
        _Pragma("GCC unroll 12") for (int r = 0; r < R; r++) {                                                                                       \
            V av = v_set1(a[r * a_row]);                                                                                                             \
            _Pragma("GCC unroll 12") for (int c = 0; c < C; c++) acc[r][c] = v_fma(av, bv[c], acc[r][c]);                                            \
        }                                                                                                                                            \
        a += a_k;                                                                                                                                    \
        b += ldb;                                                                                                                                    \
    } while (0)

    int k = j->k;
    if (kind == T_UPDATE) {
        int i = 0, each = pending->n ? k / pending->n : 0;
        for (; each > 0 && i < pending->n; i++) {
            for (int s = 0; s < each; s++) TILE_STEP;
            k -= each;
            tile_pending_one(j, pending, i);
        }
        for (; i < pending->n; i++) tile_pending_one(j, pending, i);
    }
    for (; k > 0; k--) TILE_STEP;
#undef TILE_STEP
    if (sum)
#pragma GCC unroll 12
        for (int c = 0; c < C; c++) v_store(j->sum + col + c * LANE, total[c]);

#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 12
        for (int c = 0; c < C; c++) {
            long at = (row + r) * j->ldc + col + c * LANE;
            if (kind == T_UPDATE) {
                v_store(pending->g + (r * C + c) * LANE, acc[r][c]);
                pending->at[r * C + c] = at;
            } else if (kind == T_FORWARD) {
                v_store(j->c + at, j->relu ? v_max0(acc[r][c]) : acc[r][c]);
            } else if (kind == T_DELTA) {
                V gated = v_sel(v_lt(v_set1(0.0f), v_load(j->h + at)), acc[r][c], v_set1(0.0f));
                v_store(j->c + at, j->relu ? gated : acc[r][c]);
            } else {
                v_store(j->c + at, acc[r][c]);
            }
        }
    if (kind == T_UPDATE) pending->n = R * C;
}

/* Rows lo..hi-1 of a tile column of C vectors. */
LANE_FN void tile_column(const int kind, const int C, const tile_job *j, int lo, int hi, int col, tile_pending *pending) {
    const int full = kind == T_UPDATE ? TILE_U : TILE_R; /* the optimiser needs registers, too */
    int row = lo;
    if ((kind == T_GRAD || kind == T_UPDATE) && j->sum && lo < hi) { /* the first rows take the sums along */
        if (lo + full <= hi) tile(kind, 1, full, C, j, row, col, pending), row += full;
        else tile(kind, 1, 1, C, j, row, col, pending), row++;
    }
    for (; row + full <= hi; row += full) tile(kind, 0, full, C, j, row, col, pending);
#if TILE_R > 4
    if (row + 4 <= hi) tile(kind, 0, 4, C, j, row, col, pending), row += 4;
#endif
    if (row + 2 <= hi) tile(kind, 0, 2, C, j, row, col, pending), row += 2;
    if (row < hi) tile(kind, 0, 1, C, j, row, col, pending);
}

/* Rows lo..hi-1, all n columns (a multiple of 16). */
LANE_FN void tile_rows(const int kind, const tile_job *j, int lo, int hi, long n, tile_pending *pending) {
    int col = 0;
    for (; col + TILE_C * LANE <= n; col += TILE_C * LANE) tile_column(kind, TILE_C, j, lo, hi, col, pending);
#if TILE_C > 2
    if (col + 2 * LANE <= n) tile_column(kind, 2, j, lo, hi, col, pending), col += 2 * LANE;
#endif
#if LANE == 16
    if (col + LANE <= n) tile_column(kind, 1, j, lo, hi, col, pending);
#endif
}

static __attribute__((noinline)) void tile_forward(const tile_job *j, int rows, long n) { tile_rows(T_FORWARD, j, 0, rows, n, NULL); }
static __attribute__((noinline)) void tile_delta(const tile_job *j, int rows, long n) { tile_rows(T_DELTA, j, 0, rows, n, NULL); }
static __attribute__((noinline)) void tile_grad(const tile_job *j, int lo, int hi, long n) { tile_rows(T_GRAD, j, lo, hi, n, NULL); }
/* Products without an end of their own, for matmul.h: tall tiles of two vectors, which load b least. */
static __attribute__((noinline)) void tile_tall(const tile_job *j, int rows) {
    int row = 0;
    for (; row + TILE_TALL <= rows; row += TILE_TALL) tile(T_GRAD, 0, TILE_TALL, 2, j, row, 0, NULL);
    for (; row + 4 <= rows; row += 4) tile(T_GRAD, 0, 4, 2, j, row, 0, NULL);
    for (; row < rows; row++) tile(T_GRAD, 0, 1, 2, j, row, 0, NULL);
}
static __attribute__((noinline)) void tile_update(const tile_job *j, int lo, int hi, long n) {
    tile_pending pending;
    tile_pending_init(&pending, j->rule);
    tile_rows(T_UPDATE, j, lo, hi, n, &pending);
    for (int i = 0; i < pending.n; i++) tile_pending_one(j, &pending, i);
}
#endif
