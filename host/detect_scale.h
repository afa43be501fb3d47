/* detect_scale.h: quantiles of everything seen so far, in bounded memory. Every stride-th value is kept; when the room
   is full every second one is dropped and the stride doubles, so the sample always spans the whole past evenly. A
   reservoir was dropped: it needs randomness for the same quality. Exact up to CAP values. Plain data, no allocation;
   one thread at a time. */
#ifndef NEAP_DETECT_SCALE_H
#define NEAP_DETECT_SCALE_H
#include <stdint.h>
#include "host/detect_io.h"

enum { NEAP_DETECT_SCALE_CAP = 1024 };

typedef struct neap_detect_scale {
    uint64_t seen;                       /* values added */
    uint32_t stride;                     /* one in `stride` is kept; a power of two, 0 before the first value */
    uint32_t n;                          /* kept values */
    float lo, hi;                        /* range of all values, kept or not */
    float kept[NEAP_DETECT_SCALE_CAP];   /* in order of arrival */
    float sorted[NEAP_DETECT_SCALE_CAP]; /* the same, ascending */
} neap_detect_scale;

/* Adds a finite value. */
void neap_detect_scale_add(neap_detect_scale *s, float x);
/* The q-quantile (0..1), interpolated; 0 when empty. */
float neap_detect_scale_quantile(const neap_detect_scale *s, double q);
/* How many kept values lie below x. */
uint32_t neap_detect_scale_below(const neap_detect_scale *s, float x);
/* Median, and a spread that equals the standard deviation for Gaussian data: max((q90 - q10) / 2.56, floor * range, a
 * trifle above 0). */
void neap_detect_scale_get(const neap_detect_scale *s, float floor, float *loc, float *spread);
void neap_detect_scale_io(neap_detect_io *io, neap_detect_scale *s);
#endif
