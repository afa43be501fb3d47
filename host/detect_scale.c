/* detect_scale.c: see detect_scale.h. */
#include "host/detect_scale.h"
#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* First index whose value is above x. */
static uint32_t upper_bound(const float *v, uint32_t n, float x) {
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (v[mid] <= x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

uint32_t neap_detect_scale_below(const neap_detect_scale *s, float x) {
    uint32_t lo = 0, hi = s->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (s->sorted[mid] < x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void halve(neap_detect_scale *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i += 2) s->kept[n++] = s->kept[i];
    s->n = n;
    s->stride *= 2;
    memcpy(s->sorted, s->kept, n * sizeof(float));
    qsort(s->sorted, n, sizeof(float), by_value);
}

void neap_detect_scale_add(neap_detect_scale *s, float x) {
    if (s->seen == 0) {
        s->stride = 1;
        s->lo = s->hi = x;
    }
    if (x < s->lo) s->lo = x;
    if (x > s->hi) s->hi = x;
    if (s->seen++ % s->stride) return;
    if (s->n == NEAP_DETECT_SCALE_CAP) {
        halve(s);
        if ((s->seen - 1) % s->stride) return;
    }
    s->kept[s->n] = x;
    uint32_t at = upper_bound(s->sorted, s->n, x);
    memmove(s->sorted + at + 1, s->sorted + at, (s->n - at) * sizeof(float));
    s->sorted[at] = x;
    s->n++;
}

float neap_detect_scale_quantile(const neap_detect_scale *s, double q) {
    if (s->n == 0) return 0;
    double at = q * (s->n - 1);
    uint32_t i = (uint32_t)at;
    if (i + 1 >= s->n) return s->sorted[s->n - 1];
    float part = (float)(at - i);
    return s->sorted[i] + part * (s->sorted[i + 1] - s->sorted[i]);
}

void neap_detect_scale_get(const neap_detect_scale *s, float floor, float *loc, float *spread) {
    *loc = neap_detect_scale_quantile(s, 0.5);
    float wide = (neap_detect_scale_quantile(s, 0.9) - neap_detect_scale_quantile(s, 0.1)) / 2.56f;
    *spread = fmaxf(fmaxf(wide, floor * (s->hi - s->lo)), 1e-6f * fabsf(*loc) + 1e-12f);
}

void neap_detect_scale_io(neap_detect_io *io, neap_detect_scale *s) {
    detect_io(io, &s->seen, sizeof s->seen);
    detect_io(io, &s->stride, sizeof s->stride);
    detect_io(io, &s->n, sizeof s->n);
    detect_io(io, &s->lo, sizeof s->lo);
    detect_io(io, &s->hi, sizeof s->hi);
    detect_io_check(io, s->n <= NEAP_DETECT_SCALE_CAP && (s->seen == 0) == (s->stride == 0) && (s->stride & (s->stride - 1)) == 0);
    if (io->err) return;
    detect_io(io, s->kept, s->n * sizeof(float));
    detect_io(io, s->sorted, s->n * sizeof(float));
}
