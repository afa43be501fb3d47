/* redis_columns.h: a stream's entries straight into two columns of numbers: no tree, no Lua table. An entry's fields are event
   times in microseconds, each with the value of one reading or of several (chunk.h). Used as the sink of an XRANGE or XREVRANGE request. */
#ifndef NEAP_REDIS_COLUMNS_H
#define NEAP_REDIS_COLUMNS_H
#include <stdbool.h>
#include <stdint.h>
#include "host/redis_reply.h"

typedef struct neap_redis_columns {
    int64_t *time; /* event times, microseconds; owned (malloc) */
    double *value; /* owned */
    size_t n, cap;
    size_t entries;       /* stream entries seen */
    size_t skipped;       /* fields whose time or value is not a number: not in the columns, a value from there on */
    char last_id[48];     /* of the newest entry, to go on from; "" if there was none */
    char first_id[48];    /* of the oldest one */
    bool reverse;         /* the request is XREVRANGE: set it before; neap_redis_columns_finish then restores the order of arrival */
    size_t entry;         /* where the readings of the entry being read begin */
    bool memory;          /* memory ran out: the columns end where it did */
    bool bad;             /* the time of the field being read was no number */
    int64_t first_us;     /* that time */
    neap_reply_sink sink; /* give its address to the request */
} neap_redis_columns;

/* Prepares an empty object (its address must then stay). */
void neap_redis_columns_init(neap_redis_columns *c);
void neap_redis_columns_free(neap_redis_columns *c);

/* To be called once when the reply is complete, before anything below. */
void neap_redis_columns_finish(neap_redis_columns *c);

/* Sorts by event time, stably: of two readings with the same time the one that arrived later comes later. Columns that are in order already,
   or nearly so, cost one pass. 0 or NEAP_ERR_MEMORY. */
int neap_redis_columns_sort(neap_redis_columns *c);
/* Of readings with the same event time keeps the last accepted. Needs sorted columns; returns how many were dropped. */
size_t neap_redis_columns_unique(neap_redis_columns *c);
#endif
