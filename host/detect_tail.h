/* detect_tail.h: how rare is a number, from a stream's own past. Keeps the largest values seen (a fixed room,
   ascending) and the count of all; beyond the list's inner threshold a generalised Pareto tail is fitted by
   probability-weighted moments (Hosking and Wallis 1987: closed form, no iteration that could fail). For statistics
   that are >= 0. Ask first, add after: the answer never includes the value itself. Plain data. */
#ifndef NEAP_DETECT_TAIL_H
#define NEAP_DETECT_TAIL_H
#include <stdint.h>
#include "host/detect_io.h"

/* CARRIED: exceedances that make a tail a probability. 10, 12 and 20 were tried: on labelled series 12 finds most at the same false alarms, and on
   clean ones the promise holds with each. */
enum { NEAP_DETECT_TAIL_CAP = 256, NEAP_DETECT_TAIL_CARRIED = 12 };

typedef struct neap_detect_tail {
    uint64_t seen; /* values added */
    uint32_t n;    /* kept: the n largest */
    float top[NEAP_DETECT_TAIL_CAP];
    /* the fit, refreshed when the list or the number of exceedances changes */
    uint32_t fit_m;        /* exceedances used; 0 = no fit */
    float u, shape, scale; /* threshold; xi; sigma */
    uint8_t stale;
} neap_detect_tail;

/* -log10 of the probability that a value of this stream is at least x: by the fit beyond its threshold; by rank within
   the largest sixteenth, whatever the list holds more, so that the measure is the same at every age; below that in
   proportion, from 0 at 0. An empty list says 0. */
float neap_detect_tail_surprise(neap_detect_tail *t, float x);
/* The same by the fit alone: 0 and nothing set unless x lies beyond the threshold of a fit that at least `fewest`
   exceedances carry. The least probability it claims is 1 / (n + 1), a tenth of that with 12 exceedances: a tail may be
   trusted a little past its data, not without end. */
int neap_detect_tail_fitted(neap_detect_tail *t, float x, uint32_t fewest, float *surprise);
/* The same by rank alone, (1 + rarer or equal) / (1 + seen): 0 and nothing set where the list does not reach. */
int neap_detect_tail_ranked(const neap_detect_tail *t, float x, float *surprise);
void neap_detect_tail_add(neap_detect_tail *t, float x);
void neap_detect_tail_io(neap_detect_io *io, neap_detect_tail *t);
#endif
