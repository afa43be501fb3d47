/* detect.h: the online detector of one sensor: feed it readings in order, get for each one a forecast made before it,
   how surprising it is, and why. Strictly online: what is returned for a row depends on that row and earlier ones only.
   One set of constants serves every series.

   A row passes through: past (moving means in units of the series' spread) -> two forecasters that look 1 and 12 rows
   ahead and learn as they go -> ten statistics -> the surprise (-log10 tail probability) of each against its own past
   -> their power mean `a` -> s = a mixed with a's own surprise. Which statistics count how much, and the alarm stage
   that turns s into alarms, are lua/neap/detector.lua's.

   One allocation of a fixed size (neap_detect_size), no globals; any thread, one at a time. The same seed and rows give
   the same bits. */
#ifndef NEAP_DETECT_H
#define NEAP_DETECT_H
#include <stdint.h>
#include "host/buf.h"
#include "host/detect_ahead.h"

enum { NEAP_DETECT_PARTS = 10 };
/* The statistics, in order: error at k = 1 and 12; downward error at k = 1; distance of the mean of the last 1, 12, 48
   from its median; out of the past range; distance of the mean of 1 and 48 from that at this time on the days before;
   roughness (mean step of the last 48) against its median. */
extern const char *const neap_detect_part_name[NEAP_DETECT_PARTS];

typedef struct neap_detect_config {
    uint64_t seed;
    neap_detect_ahead_config ahead;
    float spread_floor; /* the spread is at least this part of the range so far */
    float slack;        /* a forecast error below this part of the spread is none */
    float range_margin; /* out of range begins this part of the range outside it */
    float power, cap;   /* the power mean's exponent; a surprise counts up to cap */
    float mix;          /* s = (1 - mix) a + mix * a's own surprise */
    float gap;          /* a step longer than this many intervals is a gap */
    float band;         /* the band leaves out this part of the readings, half on each side */
    float weight[NEAP_DETECT_PARTS];
} neap_detect_config;

typedef struct neap_detect_row {
    double forecast;               /* made before the row, by us or given; NaN when there was none */
    double lower, upper;           /* the band around it; NaN until it is learnt */
    double ahead12;                /* our forecast of mean12, made 12 rows before; NaN when there was none */
    double mean12;                 /* the mean of the last 12 values */
    float part[NEAP_DETECT_PARTS]; /* each statistic's surprise */
    float a, s;                    /* combined surprise; with a's own mixed in */
    double p;                      /* false-alarm probability of a: see detect_calib.h */
    int gap;                       /* time was lost before this row */
} neap_detect_row;

typedef struct neap_detect neap_detect;

/* A new detector, or NULL when memory is short. The config is copied. */
neap_detect *neap_detect_new(const neap_detect_config *config);
void neap_detect_free(neap_detect *d);
/* Bytes of one detector. */
size_t neap_detect_size(void);
/* The next reading: time in seconds (NaN: unknown), value (NaN, infinite or beyond 1e30: missing), forecast of it by
   another model (NaN: use ours). Returns 1 when the row was scored; 0 for a missing value: then a and s are 0 and p is
   NaN, and the forecast is there. Up to two missing values in a row are bridged with the last one; more make a gap. */
int neap_detect_update(neap_detect *d, double time, double value, double forecast, neap_detect_row *row);
/* The forecast of the next row, as update will report it; NaN before the first. */
double neap_detect_next(const neap_detect *d);
/* The learnt interval in seconds, 0 when unknown; rows scored so far. */
double neap_detect_interval(const neap_detect *d);
uint64_t neap_detect_rows(const neap_detect *d);
/* Appends the complete state to b: 0 or NEAP_ERR_MEMORY. */
int neap_detect_save(neap_detect *d, neap_buf *b);
/* Reads it back into d, config included: 0, or NEAP_ERR_CORRUPT (bad checksum, another version): then d is as new, with
 * its own config. */
int neap_detect_load(neap_detect *d, const void *bytes, size_t n);
#endif
