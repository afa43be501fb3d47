/* record.h: a batch of accepted readings as one journal record: names in runs, event time and value text of each reading, the batch's
   idempotency key. Written once at acceptance, when every reading has a time; read by the applier. */
#ifndef NEAP_RECORD_H
#define NEAP_RECORD_H
#include "host/journal.h"
#include "host/readings.h"

enum { NEAP_RECORD_KEY_MAX = 255 };

/* Whose readings: each kind of a sensor has a stream of its own. The numbers are in the journal. */
enum neap_source { NEAP_REAL, NEAP_SYNTHETIC, NEAP_QUARANTINE, NEAP_SOURCES }; /* quarantine: real, of a clock that is not believed */

typedef struct neap_record_opts {
    const char *key; /* idempotency key: a batch with one that was applied before is not applied again; NULL: none */
    size_t key_len;
    enum neap_source source;
    int64_t arrival_us; /* when it came, microseconds since 1970; 0: not known */
} neap_record_opts;

/* Appends the batch's readings (without the refused ones) to out. Untimed readings get stamp_us, stamp_us + 1, .. in their order.
   Returns how many readings, or NEAP_ERR_INVALID (key too long) or NEAP_ERR_MEMORY. 0: there are none, nothing was written. */
long neap_record_write(neap_buf *out, const neap_readings *b, const neap_record_opts *o, int64_t stamp_us);

/* The same, one reading at a time. Zero-initialise; a run of one name costs the name once. */
typedef struct neap_record_writer {
    neap_buf *out;
    size_t start, run; /* offsets of the head and of the current run */
    long count;
    size_t name_len; /* of the current run */
} neap_record_writer;
int neap_record_begin(neap_record_writer *w, neap_buf *out, const neap_record_opts *o);
int neap_record_add(neap_record_writer *w, const char *name, size_t name_len, int64_t time_us, const char *text, size_t text_len);
void neap_record_end(neap_record_writer *w);

/* ---- reading ---- */
typedef struct neap_record {
    const char *key;
    size_t key_len;
    enum neap_source source;
    int64_t arrival_us;
    uint32_t count;
    /* the reading that neap_record_next moved to */
    const char *name, *text;
    size_t name_len, text_len;
    int64_t time_us;
    /* private */
    const char *p, *end;
    uint32_t left;
} neap_record;

/* 0, or NEAP_ERR_CORRUPT if the bytes are no record of a version we know. */
int neap_record_open(neap_record *r, const char *data, size_t n);
bool neap_record_next(neap_record *r);
#endif
