/* detect_clock.h: the sampling interval of a sensor, learnt as the median of its last 33 time steps, and what follows
   from it: was time lost before this row, how many rows make a day, where in the day are we. Plain data. */
#ifndef NEAP_DETECT_CLOCK_H
#define NEAP_DETECT_CLOCK_H
#include <stdint.h>
#include "host/detect_io.h"

enum { NEAP_DETECT_STEPS = 33 };

typedef struct neap_detect_clock {
    int timed;       /* a time was seen */
    double last;     /* the newest time, seconds */
    uint64_t steps;  /* positive steps seen */
    double interval; /* 0 until a step is known */
    double step[NEAP_DETECT_STEPS];
} neap_detect_clock;

/* The time of the next row (NaN: unknown, changes nothing). Returns 1 when more than `gap` intervals have passed since
   the last. Times that stand still or run backwards are rows like others and teach nothing. */
int neap_detect_clock_tick(neap_detect_clock *c, double time, double gap);
/* Rows in a day, 0 when unknown or out of an int's range. */
int neap_detect_clock_day_rows(const neap_detect_clock *c);
/* The part of the day (UTC) that has passed, 0..1; < 0 without a time. */
double neap_detect_clock_day(double time);
void neap_detect_clock_io(neap_detect_io *io, neap_detect_clock *c);
#endif
