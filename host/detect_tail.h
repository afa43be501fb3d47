/* detect_tail.h: how rare is a number, from a stream's own past. Keeps the largest values seen (a fixed room,
   ascending) and the count of all; beyond the list's inner threshold a generalised Pareto tail is fitted by
   probability-weighted moments (Hosking and Wallis 1987: closed form, no iteration that could fail). For statistics
   that are >= 0. Ask first, add after: the answer never includes the value itself. Plain data. */
#ifndef NEAP_DETECT_TAIL_H
#define NEAP_DETECT_TAIL_H
#include <stdint.h>
#include "host/detect_io.h"

enum { NEAP_DETECT_TAIL_CAP = 256 };

typedef struct neap_detect_tail {
    uint64_t seen; /* values added */
    uint32_t n;    /* kept: the n largest */
    float top[NEAP_DETECT_TAIL_CAP];
    /* the fit, refreshed when the list or the number of exceedances changes */
    uint32_t fit_m;        /* exceedances used; 0 = no fit */
    float u, shape, scale; /* threshold; xi; sigma */
    uint8_t stale;
} neap_detect_tail;

/* -log10 of the probability that a value of this stream is at least x. Above the threshold by the fit when at least
   `fewest` exceedances carry it (1 / (n + 1) is the least it says, a tenth of that with 50 exceedances: a tail may be
   trusted a little past its data, not without end); else by rank, (1 + rarer) / (1 + seen). Below the list: in
   proportion, from 0 at 0. An empty list says 0. */
float neap_detect_tail_surprise(neap_detect_tail *t, float x, uint32_t fewest);
/* 1 when x lies in or above the list, so that the surprise is more than a proportion. */
int neap_detect_tail_knows(const neap_detect_tail *t, float x);
void neap_detect_tail_add(neap_detect_tail *t, float x);
void neap_detect_tail_io(neap_detect_io *io, neap_detect_tail *t);
#endif
