/* detect_past.h: the recent rows of one series as a forecaster needs them: raw values in a ring, and beside each row
   its moving means in units of the series' own spread. A row's columns never change once written, except that all are
   rewritten while the spread is still being learnt (rows 8, 12, 16, 24, ... ), so a training sample of any age is a few
   look-ups. Plain data; one thread at a time. */
#ifndef NEAP_DETECT_PAST_H
#define NEAP_DETECT_PAST_H
#include <stdint.h>
#include "host/detect_io.h"
#include "host/detect_net.h"
#include "host/detect_scale.h"

enum {
    NEAP_DETECT_ROWS = 3200,  /* the ring */
    NEAP_DETECT_LAGS = 12,    /* lags of each forecast, k rows apart */
    NEAP_DETECT_LONG = 288,   /* the longest mean, rows */
    NEAP_DETECT_SPANS = 3,    /* y_k is the mean of the last k values, k = 1, 12, 48 */
    NEAP_DETECT_FORECASTS = 2 /* forecasts at k = 1 and 12 */
};
extern const int neap_detect_span[NEAP_DETECT_SPANS];

/* Columns of a row. z: in units, 3 asinh((mean - loc) / (3 spread)) with loc and spread of y_1 (Z1...) or y_12
 * (Z12...). */
enum { Z1_1, Z1_12, Z1_48, Z1_288, Z12_1, Z12_12, Z12_48, Z12_288, DAY_SIN, DAY_COS, NEAP_DETECT_COLS };

typedef struct neap_detect_past {
    uint64_t rows;                                           /* rows added so far; row r lives at r % ROWS */
    double origin;                                           /* the first value; everything else is kept relative to it, so floats suffice */
    float loc[NEAP_DETECT_SPANS], spread[NEAP_DETECT_SPANS]; /* from the rows before the newest */
    float y[4];                                              /* means of the last 1, 12, 48, 288 values, newest row included */
    neap_detect_scale scale[NEAP_DETECT_SPANS];
    double value[NEAP_DETECT_ROWS]; /* minus origin */
    uint16_t run[NEAP_DETECT_ROWS]; /* rows since the last gap, stops at 32767; the top bit marks a row that was made up */
    float col[NEAP_DETECT_ROWS][NEAP_DETECT_COLS];
} neap_detect_past;

/* Adds a row. made_up: the value stands in for a missing one (kept for the lags, learnt from by nobody). gap: time was
   lost just before it. day: time of day as a part of 1, or < 0 when there is no time. floor: see neap_detect_scale_get.
 */
void neap_detect_past_add(neap_detect_past *p, double value, double day, int made_up, int gap, float floor);
/* The inputs of forecast f (0: k = 1, 1: k = 12) as they stood after row r. */
void neap_detect_past_inputs(const neap_detect_past *p, int f, uint64_t r, float x[NEAP_DETECT_NIN]);
/* y_k of row r in units. */
float neap_detect_past_z(const neap_detect_past *p, int f, uint64_t r);
/* The means of 1, 12, 48, 288 values at row r, in the units of forecast f. */
const float *neap_detect_past_means(const neap_detect_past *p, int f, uint64_t r);
/* The value `back` rows before the newest (0), relative to origin. */
double neap_detect_past_back(const neap_detect_past *p, uint64_t back);
/* y_k (k = neap_detect_span[span]) as it was at this time of day, moved on by `ahead` rows: its mean over up to seven
   days before, as far as the ring reaches; y_k now when it reaches no day, or a day is too few rows. Relative to
   origin. */
double neap_detect_past_days(const neap_detect_past *p, int span, int day_rows, int ahead);
/* 1 when there is such a day. */
int neap_detect_past_has_day(const neap_detect_past *p, int span, int day_rows);
/* A value of the series in units, and back. */
float neap_detect_past_units(const neap_detect_past *p, int f, double value);
double neap_detect_past_value(const neap_detect_past *p, int f, float z);
/* 1 when the step from row r - k to row r crosses no gap and ends on a real value. */
int neap_detect_past_whole(const neap_detect_past *p, int f, uint64_t r);
void neap_detect_past_io(neap_detect_io *io, neap_detect_past *p);
#endif
