/* detect_window.h: quantiles of the last 512 numbers, exact. For the forecast band: a rolling window keeps its promise
   when the noise changes, where quantiles of the whole past go stale. Plain data. */
#ifndef NEAP_DETECT_WINDOW_H
#define NEAP_DETECT_WINDOW_H
#include <stdint.h>
#include "host/detect_io.h"

enum { NEAP_DETECT_WINDOW_CAP = 512 };

typedef struct neap_detect_window {
    uint64_t seen;
    float ring[NEAP_DETECT_WINDOW_CAP];   /* number i at i % CAP */
    float sorted[NEAP_DETECT_WINDOW_CAP]; /* the same, ascending */
} neap_detect_window;

/* Adds a finite number; the oldest leaves when the window is full. */
void neap_detect_window_add(neap_detect_window *w, float x);
/* The edge that a part `tail` (0..0.5) of the numbers lies beyond, below (upper = 0) or above (upper = 1): the (n + 1)
   * tail-th from that end, rounded outwards (the conformal rule), the outermost while the window is small. Returns 0
   and sets nothing below 20 numbers. */
int neap_detect_window_edge(const neap_detect_window *w, double tail, int upper, float *value);
void neap_detect_window_io(neap_detect_io *io, neap_detect_window *w);
#endif
