/* detect_calib.h: a score becomes a probability by its rank among earlier scores: p = (1 + number of earlier scores >=
   s) / (n + 1), the split conformal rule, so no shape is assumed. Above the 98th percentile, once 12 scores lie there,
   a generalised Pareto tail carries p below 1 / (n + 1), by a factor of 10 at most: never below what the tail supports.
   Exact for up to 1,024 scores and for the 256 largest of any number; between, the rank comes from an even sample of
   512 to 1,024. Plain data, no allocation. */
#ifndef NEAP_DETECT_CALIB_H
#define NEAP_DETECT_CALIB_H
#include "host/detect_scale.h"
#include "host/detect_tail.h"

typedef struct neap_detect_calib {
    neap_detect_scale body;
    neap_detect_tail tail;
} neap_detect_calib;

/* Adds a score; scores are finite and >= 0. */
void neap_detect_calib_add(neap_detect_calib *c, float score);
/* The probability that a score of this stream is at least `score`; 1 when nothing was added. */
double neap_detect_calib_p(neap_detect_calib *c, float score);
void neap_detect_calib_io(neap_detect_io *io, neap_detect_calib *c);
#endif
