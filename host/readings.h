/* readings.h: the one normal form of everything that clients send: a batch of (sensor, value, event time) plus what was refused and why.
   Decoders (readings_json.c, lineproto.c, collectd.c) fill a batch from a body; names and raw values are slices of that body (or
   of the batch's arena), so the body must outlive the batch. The arrays double, so there is no allocation per reading, and none
   at all for a few readings. Not thread-safe; zero-initialise or neap_readings_init, then neap_readings_free. */
#ifndef NEAP_READINGS_H
#define NEAP_READINGS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "host/num.h"

#define NEAP_NO_TIME INT64_MIN
enum { NEAP_NAME_MAX = 500, NEAP_READINGS_INLINE = 4, NEAP_REFUSALS_KEPT = 1000 };

enum {                            /* neap_reading.flags */
       NEAP_READING_BAD_TIME = 1, /* the item carried a time that nobody can read: it counts as untimed */
       NEAP_READING_UNKNOWN = 2,  /* set by neap_sensors_check: not in the table */
       NEAP_READING_LOW = 4,
       NEAP_READING_HIGH = 8,
       NEAP_READING_REFUSED = 16 /* set by neap_readings_drop: everybody passes it over */
};

typedef struct neap_reading {
    const char *name;
    const char *raw; /* the value as written, if it was in JSON's number grammar; else NULL */
    double value;    /* finite */
    int64_t time_us; /* event time, microseconds since 1970; NEAP_NO_TIME: none */
    uint32_t item;   /* 1-based item or line of the body */
    uint16_t name_len, raw_len;
    uint32_t sensor; /* 1-based place in the table given to neap_sensors_check, 0 = unknown */
    uint32_t flags;
} neap_reading;

typedef struct neap_refusal {
    uint32_t item;
    uint32_t name_len;
    const char *name;   /* what it was called, or NULL */
    const char *reason; /* text for people, lives as long as the batch */
} neap_refusal;

typedef struct neap_readings {
    neap_reading *at;
    size_t count, cap, dropped; /* of count, so many were refused later by neap_readings_drop */
    neap_refusal *refused;      /* the first NEAP_REFUSALS_KEPT */
    size_t refused_kept, refused_cap, refused_count;
    size_t items;      /* items (or lines) seen, good and bad */
    size_t skipped;    /* values that are no readings and no faults: texts, switches, nulls */
    const char *shape; /* "array", "object", "lines", "telemetry", "line protocol", "collectd" */
    char error[200];   /* why the whole body was refused, after NEAP_ERR_INVALID */
    uint32_t error_line;
    bool memory; /* an allocation failed: the batch is not to be used */
    struct neap_readings_chunk *arena;
    neap_reading few[NEAP_READINGS_INLINE];
} neap_readings;

void neap_readings_init(neap_readings *b);
void neap_readings_free(neap_readings *b);

/* For decoders. All note lack of memory in b->memory instead of returning it. */
neap_reading *neap_readings_add(neap_readings *b, const char *name, size_t name_len, double value, uint32_t item);
void neap_readings_refuse(neap_readings *b, uint32_t item, const char *name, size_t name_len, const char *reason);
/* Refuses an accepted reading after all (a policy said no); reason is copied. Once only for each. */
void neap_readings_drop(neap_readings *b, size_t i, const char *reason);
char *neap_readings_alloc(neap_readings *b, size_t n); /* from the arena; NULL after a failure */
char *neap_readings_copy(neap_readings *b, const char *s, size_t n);
/* NULL if the name may be a sensor's, else the reason why not. */
const char *neap_readings_bad_name(const char *name, size_t n);
/* The value in a text ("21.5", " 7 ") as a number; else the reason ("NaN" has one of its own). */
#define NEAP_TOO_LARGE "the value is too large for a double"
const char *neap_readings_number(const char *s, size_t n, neap_num *out);
bool neap_readings_nan(const char *s, size_t n); /* "nan", in any case and with a sign: the sensor has no value now */

/* ---- decoders: 0, NEAP_ERR_INVALID (whole body refused: b->error says why, nothing is in the batch) or NEAP_ERR_MEMORY ---- */
typedef struct neap_decode_opts {
    const char *prefix; /* put before every sensor name; NULL = nothing */
    size_t prefix_len;
    bool named;      /* JSON: in a list only items that name their sensor count, as in the starter kit */
    int64_t unit_ns; /* line protocol: nanoseconds in one unit of its timestamps; 0 = 1 (ns) */
} neap_decode_opts;

/* Any of: the kit's array, one object, flat objects, {ts,values}, one level of nesting, sensor.community, arrays of these, NDJSON. */
int neap_readings_json(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o);
/* One item a line; a bad line is refused by its number and the others are kept. */
int neap_readings_ndjson(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o);
int neap_readings_lines(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o);
int neap_readings_collectd(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o);
int neap_readings_putval(neap_readings *b, const char *s, size_t n, const neap_decode_opts *o);

/* ---- times ----------------------------------------------------------------------------------------------------------- */
/* A JSON time as microseconds, its unit told by magnitude: below 1e11 s, 1e14 ms, 1e17 us, else ns. False if not representable. */
bool neap_time_number(const neap_num *v, int64_t *us);
/* ISO 8601 / RFC 3339, "T" or blank between date and time, fraction, "Z" or +hh:mm; without a zone it is taken as UTC. */
bool neap_time_iso(const char *s, size_t n, int64_t *us);

/* ---- known sensors: names to limits, built once from what Lua hands down --------------------------------------------- */
typedef struct neap_sensors neap_sensors;
neap_sensors *neap_sensors_new(void);
void neap_sensors_free(neap_sensors *t);
/* Adds a sensor with its limits (-INFINITY, INFINITY = none). Returns its 1-based place (the old one if it is there already, with
   new limits), 0 without memory. */
uint32_t neap_sensors_add(neap_sensors *t, const char *name, size_t n, double min, double max);
/* A special sensor's readings need more than limits (a scale, an offset): neap_sensors_plain says no to them. */
void neap_sensors_set_special(neap_sensors *t, uint32_t place, bool special);
uint32_t neap_sensors_find(const neap_sensors *t, const char *name, size_t n);
/* The same for the sensor that follows on the one at place `before` (0: none) in a batch: batches name sensors in the order in which these came
   first, more often than not, and then nothing is to be searched for. */
uint32_t neap_sensors_find_after(const neap_sensors *t, uint32_t before, const char *name, size_t n);
const char *neap_sensors_name(const neap_sensors *t, uint32_t place, size_t *n); /* lives as long as the table */
/* Which sensors have had news since they were last asked for. Of a batch: the sensors that the last neap_sensors_check (or _plain) found. */
int neap_sensors_touch(neap_sensors *t, uint32_t place); /* 0 or NEAP_ERR_MEMORY */
int neap_sensors_touch_all(neap_sensors *t, const neap_readings *b);
/* The next of them, which is then no longer one of them; NULL: that was all. The name lives as long as the table. */
const char *neap_sensors_next_touched(neap_sensors *t, size_t *len);
/* Sets .sensor and the UNKNOWN, LOW, HIGH flags of every reading; returns how many have any of the flags. */
size_t neap_sensors_check(const neap_sensors *t, neap_readings *b);
/* The same, and true if nobody has to look closer: every reading is of a known, not special sensor, within its limits, untimed or with a time
   from `oldest_us` to `newest_us`. */
bool neap_sensors_plain(const neap_sensors *t, neap_readings *b, int64_t oldest_us, int64_t newest_us);
#endif
