/* chunk.h: readings of one sensor that share a field of a stream entry. The field's name is the event time of the first in microseconds,
   its value the readings in order, with a blank between two: VALUE or VALUE@STEP, where STEP is the microseconds since the reading before.
   Without a STEP it is the one before it (0 at first), so a sensor that reports every second costs its values:
     1763900000000000  21.5 21.75@1000000 22 22.25@998000
   A lone reading is therefore plain time and value. Why text: it can be read in redis-cli, and Redis stores and logs it as one string, where
   a time and a value each as an object of its own cost it five times the work and half as much memory again. */
#ifndef NEAP_CHUNK_H
#define NEAP_CHUNK_H
#include <stdbool.h>
#include <stdint.h>
#include "host/buf.h"

typedef struct neap_chunk { /* being written: set time_us to the first reading's time and the rest to 0 */
    int64_t time_us, step;
    uint32_t count;
} neap_chunk;

/* Adds a reading; its text is a number. 0 or NEAP_ERR_MEMORY. */
int neap_chunk_put(neap_chunk *c, neap_buf *out, int64_t time_us, const char *text, size_t n);

typedef struct neap_chunk_reader {
    const char *p, *end;
    int64_t time_us, step;
    const char *text; /* the reading that neap_chunk_next moved to; whether it is a number is for the caller to see */
    size_t text_len;
    uint32_t count;
} neap_chunk_reader;

void neap_chunk_read(neap_chunk_reader *r, int64_t time_us, const char *s, size_t n);
/* False at the end, and at a step that is no number: what follows has no time. */
bool neap_chunk_next(neap_chunk_reader *r);
/* A whole number of microseconds. */
bool neap_chunk_time(const char *s, size_t n, int64_t *out);
#endif
