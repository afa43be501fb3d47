/* detect.c: see detect.h. */
#include "host/detect.h"
#include <math.h>
#include <zlib.h>
#include "host/detect_calib.h"
#include "host/detect_clock.h"
#include "host/detect_io.h"
#include "host/detect_past.h"
#include "host/detect_tail.h"
#include "host/detect_window.h"

enum { PARTS = NEAP_DETECT_PARTS, FORECASTS = NEAP_DETECT_FORECASTS, MOST_BRIDGED = 2, ROUGH_ROWS = 48 };
enum { ERROR_1, ERROR_12, DOWN_1, LEVEL_1, LEVEL_12, LEVEL_48, RANGE, DAY_1, DAY_48, ROUGH_48 };
const char *const neap_detect_part_name[PARTS] = {"error_1",  "error_12", "down_1", "level_1", "level_12",
                                                  "level_48", "range",    "day_1",  "day_48",  "rough_48"};

struct neap_detect {
    neap_detect_config config;
    uint64_t random;
    uint32_t missing;          /* missing readings since the last real one */
    neap_detect_window errors; /* of recent forecasts, in units */
    neap_detect_clock clock;
    neap_detect_past past;
    neap_detect_ahead ahead[FORECASTS];
    neap_detect_scale rough; /* of the roughness */
    neap_detect_tail tail[PARTS];
    neap_detect_calib own; /* a's past */
};

static void clear(neap_detect *d) {
    neap_detect_config config = d->config;
    memset(d, 0, sizeof *d);
    d->config = config;
    d->random = config.seed * 0x9e3779b97f4a7c15u + 1;
    for (int f = 0; f < FORECASTS; f++) neap_detect_ahead_init(&d->ahead[f], f, neap_detect_random(&d->random));
}

neap_detect *neap_detect_new(const neap_detect_config *config) {
    neap_detect *d = malloc(sizeof *d);
    if (!d) return NULL;
    d->config = *config;
    clear(d);
    return d;
}

void neap_detect_free(neap_detect *d) { free(d); }
size_t neap_detect_size(void) { return sizeof(neap_detect); }
double neap_detect_interval(const neap_detect *d) { return d->clock.interval; }
uint64_t neap_detect_rows(const neap_detect *d) { return d->past.rows; }

double neap_detect_next(const neap_detect *d) {
    double value = NAN;
    neap_detect_ahead_get(&d->ahead[0], &d->past, d->past.rows, &value);
    return value;
}

/* Mean step of the last 48 rows; no step counts above three spreads, so that one spike is not a rough hour. */
static float roughness(const neap_detect_past *p) {
    double sum = 0, most = 3 * p->spread[0];
    for (uint64_t i = 0; i < ROUGH_ROWS; i++) sum += fmin(most, fabs(neap_detect_past_back(p, i) - neap_detect_past_back(p, i + 1)));
    return (float)(sum / ROUGH_ROWS);
}

/* The statistics of the newest row, each >= 0 or NaN when there is none yet, in the series' own unit: a spread still
 being learnt would make early rows look larger than anything later. lo, hi: the range before it. given: another model's
 forecast of it, or
 * NaN. Also learns roughness. */
static void measure(neap_detect *d, float lo, float hi, double given, float stat[PARTS]) {
    const neap_detect_past *p = &d->past;
    uint64_t t = p->rows - 1;
    int day_rows = neap_detect_clock_day_rows(&d->clock);
    for (int i = 0; i < PARTS; i++) stat[i] = NAN;
    for (int f = 0; f < FORECASTS; f++) {
        double ahead;
        if (!neap_detect_past_whole(p, f, t) || !neap_detect_ahead_get(&d->ahead[f], p, t, &ahead)) continue;
        if (f == 0 && isfinite(given)) ahead = given;
        float e = (float)(p->origin + p->y[f] - ahead);
        float slack = d->config.slack * p->spread[f];
        stat[ERROR_1 + f] = fmaxf(0, fabsf(e) - slack);
        if (f == 0) stat[DOWN_1] = fmaxf(0, -e - slack);
    }
    for (int k = 0; k < NEAP_DETECT_SPANS; k++) stat[LEVEL_1 + k] = fabsf(p->y[k] - p->loc[k]);
    float over = fmaxf(p->y[0] - hi, lo - p->y[0]) / fmaxf(hi - lo, p->spread[0]);
    if (t > 0) stat[RANGE] = fmaxf(0, over - d->config.range_margin);
    for (int i = 0; i < 2; i++) {
        int span = i ? 2 : 0; /* 1 and 48 rows */
        if (!neap_detect_past_has_day(p, span, day_rows)) continue;
        stat[DAY_1 + i] = fabsf(p->y[span] - (float)neap_detect_past_days(p, span, day_rows, 0));
    }
    if (t < ROUGH_ROWS) return;
    /* as a logarithm: twice as rough and half as rough are equally far; steps below 2% of the spread are no roughness */
    float rough = roughness(p), usual = neap_detect_scale_quantile(&d->rough, 0.5), least = 0.02f * p->spread[0];
    if (d->rough.n) stat[ROUGH_48] = fabsf(logf((rough + least) / (usual + least)));
    neap_detect_scale_add(&d->rough, rough);
}

static void combine(neap_detect *d, const float stat[PARTS], neap_detect_row *row) {
    const neap_detect_config *c = &d->config;
    double sum = 0, weight = 0;
    for (int i = 0; i < PARTS; i++) {
        if (isnan(stat[i])) continue;
        row->part[i] = neap_detect_tail_surprise(&d->tail[i], stat[i]);
        neap_detect_tail_add(&d->tail[i], stat[i]);
        sum += c->weight[i] * pow(fminf(row->part[i], c->cap), c->power);
        weight += c->weight[i];
    }
    row->a = weight > 0 ? (float)pow(sum / weight, 1.0 / c->power) : 0;
    row->p = neap_detect_calib_p(&d->own, row->a);
    neap_detect_calib_add(&d->own, row->a);
    row->s = (1 - c->mix) * row->a + c->mix * fminf((float)-log10(row->p), c->cap);
}

/* The band: the forecast and the edges of its recent errors, made before the row. Readings rarer than one in a thousand
   teach it nothing, or an open fault would widen it until it looks normal. */
static void band(neap_detect *d, double forecast, neap_detect_row *row) {
    const neap_detect_past *p = &d->past;
    float centre = neap_detect_past_units(p, 0, forecast), edge, e = neap_detect_past_z(p, 0, p->rows - 1) - centre;
    double half = d->config.band / 2;
    if (neap_detect_window_edge(&d->errors, half, 0, &edge)) row->lower = neap_detect_past_value(p, 0, centre + edge);
    if (neap_detect_window_edge(&d->errors, half, 1, &edge)) row->upper = neap_detect_past_value(p, 0, centre + edge);
    if (!row->gap && row->part[ERROR_1] < 3) neap_detect_window_add(&d->errors, e);
}

static void move_on(neap_detect *d) {
    int day_rows = neap_detect_clock_day_rows(&d->clock);
    for (int f = 0; f < FORECASTS; f++) neap_detect_ahead_step(&d->ahead[f], &d->config.ahead, &d->past, day_rows, &d->random);
}

int neap_detect_update(neap_detect *d, double time, double value, double forecast, neap_detect_row *row) {
    neap_detect_past *p = &d->past;
    memset(row, 0, sizeof *row);
    row->forecast = row->lower = row->upper = row->ahead12 = row->mean12 = row->p = NAN;
    double ours = row->forecast = neap_detect_next(d), day = neap_detect_clock_day(time);
    if (isfinite(forecast)) row->forecast = forecast;
    if (!isfinite(value) || fabs(value) > 1e30) {
        if (p->rows == 0 || ++d->missing > MOST_BRIDGED) return 0;
        neap_detect_clock_tick(&d->clock, time, INFINITY);
        neap_detect_past_add(p, p->origin + neap_detect_past_back(p, 0), day, 1, 0, d->config.spread_floor);
        move_on(d);
        return 0;
    }
    row->gap = neap_detect_clock_tick(&d->clock, time, d->config.gap) || d->missing > MOST_BRIDGED;
    d->missing = 0;
    neap_detect_ahead_get(&d->ahead[1], p, p->rows, &row->ahead12);
    float lo = p->scale[0].lo, hi = p->scale[0].hi, stat[PARTS];
    neap_detect_past_add(p, value, day, 0, row->gap, d->config.spread_floor);
    row->mean12 = p->origin + p->y[1];
    measure(d, lo, hi, forecast, stat);
    combine(d, stat, row);
    if (isfinite(ours)) band(d, row->forecast, row);
    move_on(d);
    return 1;
}

/* ---- snapshot: magic, size, crc32 of what follows, then the state --------------------------------------------------
 */
typedef struct head {
    char magic[8];
    uint32_t size, crc;
} head;
static const char magic[8] = "neapdet2";

static void walk(neap_detect_io *io, neap_detect *d) {
    detect_io(io, &d->config, sizeof d->config);
    detect_io(io, &d->random, sizeof d->random);
    detect_io(io, &d->missing, sizeof d->missing);
    neap_detect_window_io(io, &d->errors);
    neap_detect_clock_io(io, &d->clock);
    neap_detect_past_io(io, &d->past);
    for (int f = 0; f < FORECASTS; f++) neap_detect_ahead_io(io, &d->ahead[f]);
    neap_detect_scale_io(io, &d->rough);
    for (int i = 0; i < PARTS; i++) neap_detect_tail_io(io, &d->tail[i]);
    neap_detect_calib_io(io, &d->own);
}

int neap_detect_save(neap_detect *d, neap_buf *b) {
    size_t start = b->len;
    head h = {.size = 0};
    neap_detect_io io = {.out = b};
    detect_io(&io, &h, sizeof h);
    walk(&io, d);
    if (io.err) {
        b->len = start;
        return io.err;
    }
    memcpy(h.magic, magic, sizeof magic);
    h.size = (uint32_t)(b->len - start - sizeof h);
    h.crc = (uint32_t)crc32(0, (const unsigned char *)b->data + start + sizeof h, h.size);
    memcpy(b->data + start, &h, sizeof h);
    return 0;
}

int neap_detect_load(neap_detect *d, const void *bytes, size_t n) {
    neap_detect_config config = d->config;
    head h;
    if (n < sizeof h) return NEAP_ERR_CORRUPT;
    memcpy(&h, bytes, sizeof h);
    const char *body = (const char *)bytes + sizeof h;
    if (memcmp(h.magic, magic, sizeof magic) || h.size != n - sizeof h || h.crc != (uint32_t)crc32(0, (const unsigned char *)body, h.size))
        return NEAP_ERR_CORRUPT;
    clear(d);
    neap_detect_io io = {.in = body, .left = h.size};
    walk(&io, d);
    if (!io.err && io.left == 0) return 0;
    d->config = config;
    clear(d);
    return NEAP_ERR_CORRUPT;
}
