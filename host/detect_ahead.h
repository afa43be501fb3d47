/* detect_ahead.h: the forecaster: what will y_k (the mean of the last k rows) be k rows from now? Five opinions (the
   network, the linear model, "as now", "as the longer mean", "as at this time on the days before") are blended by how
   well each did lately, so that after a change the simple ones take over at once while the learners catch up. A
   forecast is made when row t is known and kept until row t + k judges it. Plain data. */
#ifndef NEAP_DETECT_AHEAD_H
#define NEAP_DETECT_AHEAD_H
#include "host/detect_line.h"
#include "host/detect_net.h"
#include "host/detect_past.h"

enum { NEAP_DETECT_OPINIONS = 5, NEAP_DETECT_PENDING = 12 };

typedef struct neap_detect_ahead_config {
    float learn_rate[NEAP_DETECT_FORECASTS], decay; /* Adam, for k = 1 and 12 */
    uint32_t steps, early_steps, early_rows;        /* Adam steps a row; more of them in the first rows, at a rate that falls as 1/row */
    uint32_t replay;                                /* rows that training samples are drawn from */
    float forget;                                   /* the linear model's memory */
    float sharp[NEAP_DETECT_FORECASTS], discount;   /* blending: weight = exp(-sharp * relative error), the error's memory is 1 / discount rows */
    float over;                                     /* forecasts stay within the past range and this part of it */
} neap_detect_ahead_config;

typedef struct neap_detect_ahead {
    int f;                             /* which forecast: k = neap_detect_span[f] */
    double blend[NEAP_DETECT_PENDING]; /* the forecast made after row r, at r % 12, as a value relative to the past's
                                          origin */
    double said[NEAP_DETECT_PENDING][NEAP_DETECT_OPINIONS];
    double inputs[NEAP_DETECT_PENDING][NEAP_DETECT_LINE_IN];
    double err[NEAP_DETECT_OPINIONS]; /* recent mean absolute error of each opinion */
    neap_detect_net net;
    neap_detect_line line;
} neap_detect_ahead;

void neap_detect_ahead_init(neap_detect_ahead *a, int f, uint64_t seed);
/* The forecast of the newest row made k rows before it, as a value of the series; 0 when the series is too short or a
 * gap lies between. */
int neap_detect_ahead_get(const neap_detect_ahead *a, const neap_detect_past *p, uint64_t row, double *value);
/* After the newest row: judges the forecast of it, learns, and makes the next. day_rows: rows in a day, 0 when unknown.
 * random: the caller's stream. */
void neap_detect_ahead_step(neap_detect_ahead *a, const neap_detect_ahead_config *c, const neap_detect_past *p, int day_rows, uint64_t *random);
void neap_detect_ahead_io(neap_detect_io *io, neap_detect_ahead *a);
#endif
