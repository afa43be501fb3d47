/* detect_past.c: see detect_past.h. */
#include "host/detect_past.h"
#include <math.h>

const int neap_detect_span[NEAP_DETECT_SPANS] = {1, 12, 48};
enum { DAYS = 7 };
enum { RUN = 0x7fff, MADE_UP = 0x8000 }; /* the two parts of `run` */
static const int mean_len[4] = {1, 12, 48, NEAP_DETECT_LONG};

static size_t at(uint64_t r) { return (size_t)(r % NEAP_DETECT_ROWS); }

static float in_units(double v, float loc, float spread) {
    float z = 3.0f * asinhf((float)(v - loc) / (3.0f * spread));
    return fmaxf(-30.0f, fminf(30.0f, z));
}

/* Means of the last 1, 12, 48, 288 values at row r (of fewer at the start). Summed afresh: a running sum would drift,
 * and never forgets a huge value. */
static void means_at(const neap_detect_past *p, uint64_t r, double mean[4]) {
    double sum = 0;
    int n = 0;
    for (int m = 0; m < 4; m++) {
        for (; n < mean_len[m] && (uint64_t)n <= r; n++) sum += p->value[at(r - n)];
        mean[m] = sum / n;
    }
}

static void write_columns(neap_detect_past *p, uint64_t r, const double mean[4]) {
    float *c = p->col[at(r)];
    for (int m = 0; m < 4; m++) {
        c[Z1_1 + m] = in_units(mean[m], p->loc[0], p->spread[0]);
        c[Z12_1 + m] = in_units(mean[m], p->loc[1], p->spread[1]);
    }
}

/* 8, 12, 16, 24, 32, 48, ... */
static int rewrite_now(uint64_t rows) {
    if (rows < 8) return 0;
    while (rows % 2 == 0 && rows > 3) rows /= 2;
    return rows == 1 || rows == 3;
}

static void rewrite(neap_detect_past *p) {
    double mean[4];
    uint64_t first = p->rows > NEAP_DETECT_ROWS ? p->rows - NEAP_DETECT_ROWS + NEAP_DETECT_LONG : 0;
    for (uint64_t r = first; r < p->rows; r++) {
        means_at(p, r, mean);
        write_columns(p, r, mean);
    }
}

void neap_detect_past_add(neap_detect_past *p, double value, double day, int made_up, int gap, float floor) {
    uint64_t r = p->rows;
    if (r == 0) p->origin = value;
    p->value[at(r)] = value - p->origin;
    uint16_t before = r ? p->run[at(r - 1)] & RUN : 0;
    p->run[at(r)] = (uint16_t)((gap ? 1 : before < RUN ? before + 1 : before) | (made_up ? MADE_UP : 0));
    double mean[4];
    means_at(p, r, mean);
    for (int k = 0; k < NEAP_DETECT_SPANS; k++) {
        p->y[k] = (float)mean[k];
        if (r == 0) neap_detect_scale_add(&p->scale[k], p->y[k]);
        neap_detect_scale_get(&p->scale[k], floor, &p->loc[k], &p->spread[k]);
        if (r != 0 && !made_up) neap_detect_scale_add(&p->scale[k], p->y[k]);
    }
    p->y[3] = (float)mean[3];
    write_columns(p, r, mean);
    float *c = p->col[at(r)];
    c[DAY_SIN] = day < 0 ? 0 : (float)sin(day * 6.283185307179586);
    c[DAY_COS] = day < 0 ? 0 : (float)cos(day * 6.283185307179586);
    p->rows++;
    if (rewrite_now(p->rows)) rewrite(p);
}

void neap_detect_past_inputs(const neap_detect_past *p, int f, uint64_t r, float x[NEAP_DETECT_NIN]) {
    const int k = neap_detect_span[f], z = f ? Z12_12 : Z1_1, mean = f ? Z12_1 : Z1_1;
    const float *c = p->col[at(r)];
    float last = c[z];
    int i = 0;
    x[i++] = 1;
    x[i++] = fmaxf(-4, fminf(4, last)) * 0.3f;
    for (int lag = 1; lag < NEAP_DETECT_LAGS; lag++) {
        uint64_t back = (uint64_t)lag * k;
        float v = back <= r ? p->col[at(r - back)][z] : p->col[at(0)][z];
        x[i++] = v - last;
    }
    for (int m = 0; m < 4; m++)
        if (mean + m != z) x[i++] = c[mean + m] - last;
    x[i++] = c[DAY_SIN];
    x[i++] = c[DAY_COS];
    x[i++] = 2 * c[DAY_SIN] * c[DAY_COS];
    x[i++] = c[DAY_COS] * c[DAY_COS] - c[DAY_SIN] * c[DAY_SIN];
    _Static_assert(1 + NEAP_DETECT_LAGS + 3 + 4 == NEAP_DETECT_NIN, "inputs");
}

float neap_detect_past_units(const neap_detect_past *p, int f, double value) { return in_units(value - p->origin, p->loc[f], p->spread[f]); }

const float *neap_detect_past_means(const neap_detect_past *p, int f, uint64_t r) { return &p->col[at(r)][f ? Z12_1 : Z1_1]; }

double neap_detect_past_back(const neap_detect_past *p, uint64_t back) { return p->value[at(p->rows - 1 - back)]; }

int neap_detect_past_has_day(const neap_detect_past *p, int span, int day_rows) {
    int k = neap_detect_span[span], reach = day_rows + k;
    return day_rows > 2 * k && reach <= NEAP_DETECT_ROWS && (uint64_t)reach <= p->rows;
}

double neap_detect_past_days(const neap_detect_past *p, int span, int day_rows, int ahead) {
    int k = neap_detect_span[span], days = 0;
    double sum = 0;
    for (int64_t back = day_rows - ahead; day_rows > 2 * k && days < DAYS; back += day_rows, days++) {
        if (back + k > (int64_t)p->rows || back + k > NEAP_DETECT_ROWS) break;
        double mean = 0;
        for (int i = 0; i < k; i++) mean += neap_detect_past_back(p, (uint64_t)(back + i));
        sum += mean / k;
    }
    return days ? sum / days : p->y[span];
}

float neap_detect_past_z(const neap_detect_past *p, int f, uint64_t r) { return p->col[at(r)][f ? Z12_12 : Z1_1]; }

double neap_detect_past_value(const neap_detect_past *p, int f, float z) { return p->origin + p->loc[f] + 3.0 * p->spread[f] * sinh(z / 3.0); }

int neap_detect_past_whole(const neap_detect_past *p, int f, uint64_t r) {
    uint16_t run = p->run[at(r)];
    return !(run & MADE_UP) && run > neap_detect_span[f];
}

void neap_detect_past_io(neap_detect_io *io, neap_detect_past *p) {
    detect_io(io, &p->rows, sizeof p->rows);
    detect_io(io, &p->origin, sizeof p->origin);
    detect_io(io, p->loc, sizeof p->loc);
    detect_io(io, p->spread, sizeof p->spread);
    detect_io(io, p->y, sizeof p->y);
    for (int k = 0; k < NEAP_DETECT_SPANS; k++) neap_detect_scale_io(io, &p->scale[k]);
    size_t n = p->rows < NEAP_DETECT_ROWS ? (size_t)p->rows : NEAP_DETECT_ROWS;
    detect_io(io, p->value, n * sizeof p->value[0]);
    detect_io(io, p->run, n * sizeof p->run[0]);
    detect_io(io, p->col, n * sizeof p->col[0]);
}
