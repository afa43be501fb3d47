/* detect_window.c: see detect_window.h. */
#include "host/detect_window.h"

enum { CAP = NEAP_DETECT_WINDOW_CAP, FEWEST = 20 };

/* First index whose value is not below x. */
static size_t place(const float *v, size_t n, float x) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (v[mid] < x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

void neap_detect_window_add(neap_detect_window *w, float x) {
    size_t n = w->seen < CAP ? (size_t)w->seen : CAP;
    float *slot = &w->ring[w->seen++ % CAP];
    if (n == CAP) {
        size_t old = place(w->sorted, n, *slot);
        memmove(w->sorted + old, w->sorted + old + 1, (n - old - 1) * sizeof(float));
        n--;
    }
    size_t at = place(w->sorted, n, x);
    memmove(w->sorted + at + 1, w->sorted + at, (n - at) * sizeof(float));
    w->sorted[at] = *slot = x;
}

int neap_detect_window_edge(const neap_detect_window *w, double tail, int upper, float *value) {
    size_t n = w->seen < CAP ? (size_t)w->seen : CAP;
    if (n < FEWEST) return 0;
    size_t rank = (size_t)((double)(n + 1) * tail); /* 1-based from the end */
    if (rank > 0) rank--;
    *value = w->sorted[upper ? n - 1 - rank : rank];
    return 1;
}

void neap_detect_window_io(neap_detect_io *io, neap_detect_window *w) {
    detect_io(io, &w->seen, sizeof w->seen);
    size_t n = w->seen < CAP ? (size_t)w->seen : CAP;
    detect_io(io, w->ring, n * sizeof(float));
    detect_io(io, w->sorted, n * sizeof(float));
}
