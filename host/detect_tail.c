/* detect_tail.c: see detect_tail.h. */
#include "host/detect_tail.h"
#include <math.h>

enum { CARRIED = NEAP_DETECT_TAIL_CARRIED, FEWEST = 10, FEWEST_RANKED = 16, REACH = 10 };

/* Fits the tail to the list's m largest values: the sample moments a0 = mean(e), a1 = mean((1 - rank) e) give shape and
 * scale. */
static void fit(neap_detect_tail *t) {
    uint32_t m = t->n / 2;
    double share = 0.02 * (double)t->seen;
    if (m > share) m = (uint32_t)share;
    t->stale = 0;
    t->fit_m = 0;
    if (m < 10) {
        m = t->n / 2;
        if (m > 10) m = 10;
        if (m < 5) return;
    }
    const float *top = t->top + t->n - m; /* ascending, m values above u */
    float u = t->top[t->n - m - 1];
    double a0 = 0, a1 = 0;
    for (uint32_t i = 0; i < m; i++) {
        double e = top[i] - u;
        a0 += e;
        a1 += e * (double)(m - 1 - i) / (m - 1);
    }
    a0 /= m;
    a1 /= m;
    if (!(a0 > 1e-9 * (1 + fabs(u))) || !(a0 - 2 * a1 > 1e-12 * a0)) return;
    double shape = 2 - a0 / (a0 - 2 * a1);
    if (shape < -0.4) shape = -0.4;
    if (shape > 0.6) shape = 0.6;
    t->shape = (float)shape;
    t->scale = (float)(a0 * (1 - shape)); /* the scale that keeps the mean, given the bounded shape */
    t->u = u;
    t->fit_m = m;
}

int neap_detect_tail_fitted(neap_detect_tail *t, float x, uint32_t fewest, float *surprise) {
    if (t->stale) fit(t);
    if (t->fit_m < fewest || t->fit_m == 0 || x <= t->u) return 0;
    double most = log10((double)(t->seen + 1) * (t->fit_m >= CARRIED ? REACH : 1)), z = (x - t->u) / t->scale, s;
    if (fabs(t->shape) < 1e-4) {
        s = z * 0.4342944819;
    } else {
        double base = 1 + t->shape * z;
        s = base <= 0 ? most : log10(base) / t->shape;
    }
    s -= log10((double)t->fit_m / (double)t->seen);
    *surprise = (float)(s < most ? s : most);
    return 1;
}

/* First index from `from` on whose value is not below x. */
static uint32_t place(const neap_detect_tail *t, uint32_t from, float x) {
    uint32_t lo = from, hi = t->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (t->top[mid] < x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static float by_rank(const neap_detect_tail *t, uint32_t at) { return (float)-log10((1.0 + t->n - at) / (double)(t->seen + 1)); }

int neap_detect_tail_ranked(const neap_detect_tail *t, float x, float *surprise) {
    uint32_t at = place(t, 0, x);
    if (t->n == 0 || (at == 0 && t->n < t->seen)) return 0;
    *surprise = by_rank(t, at);
    return 1;
}

float neap_detect_tail_surprise(neap_detect_tail *t, float x) {
    float s;
    if (t->n == 0) return 0;
    if (neap_detect_tail_fitted(t, x, FEWEST, &s)) return s;
    uint64_t share = t->seen / 16 < FEWEST_RANKED ? FEWEST_RANKED : t->seen / 16;
    uint32_t from = t->n > share ? t->n - (uint32_t)share : 0, at = place(t, from, x);
    if (at > from || (from == 0 && t->n == t->seen)) return by_rank(t, at);
    return t->top[from] > 0 && x > 0 ? by_rank(t, from) * x / t->top[from] : 0;
}

void neap_detect_tail_add(neap_detect_tail *t, float x) {
    t->seen++;
    if (t->n == NEAP_DETECT_TAIL_CAP) {
        if (x <= t->top[0]) return;
        memmove(t->top, t->top + 1, (t->n - 1) * sizeof(float));
        t->n--;
    }
    uint32_t i = t->n++;
    for (; i > 0 && t->top[i - 1] > x; i--) t->top[i] = t->top[i - 1];
    t->top[i] = x;
    t->stale = 1;
}

void neap_detect_tail_io(neap_detect_io *io, neap_detect_tail *t) {
    detect_io(io, &t->seen, sizeof t->seen);
    detect_io(io, &t->n, sizeof t->n);
    detect_io_check(io, t->n <= NEAP_DETECT_TAIL_CAP && t->n <= t->seen);
    if (io->err) return;
    detect_io(io, t->top, t->n * sizeof(float));
    detect_io(io, &t->fit_m, sizeof t->fit_m);
    detect_io(io, &t->u, sizeof t->u);
    detect_io(io, &t->shape, sizeof t->shape);
    detect_io(io, &t->scale, sizeof t->scale);
    detect_io(io, &t->stale, sizeof t->stale);
}
