/* applier_priv.h: what applier.c (the state machine), applier_step.c (records to one script call) and applier_store.c (knowing the
   store, letting go of segments) share. */
#ifndef NEAP_APPLIER_PRIV_H
#define NEAP_APPLIER_PRIV_H
#include "host/applier.h"
#include "host/record.h"
#include "host/wake.h"

enum {
    APPLIER_FLIGHTS = 2,            /* steps under way: the next is built while Redis runs one. The positions chain them */
    APPLIER_STEP_BYTES = 2 << 20,   /* of journal for a step, .. */
    APPLIER_READ_BYTES = 128 << 10, /* .. read in pieces of this size */
    APPLIER_STEP_READINGS = 96000,
    APPLIER_HURRY = 3000,         /* bytes a millisecond (about 140,000 readings a second in batches) from which on readings are gathered .. */
    APPLIER_DENSE = 50,           /* .. until about so many of one sensor share an entry: */
    APPLIER_GATHER_MIN_MS = 8,    /* not longer, as a step of many milliseconds would hold up Redis and the processor, .. */
    APPLIER_LAG_MS = 100,         /* .. and not so long that gathering and the step take more together: readings are to be visible within 200 ms */
    APPLIER_MEASURE_MS = 50,      /* the load is measured over so long at least */
    APPLIER_ENTRY_READINGS = 128, /* in one stream entry at most */
    APPLIER_ENTRY_BYTES = 1800,   /* of text from which on an entry is full: two fit into a stream's node of 4 KiB (Redis' default) */
    APPLIER_TRIM_EVERY = 100,     /* entries of a stream between two trims */
    APPLIER_DURABLE_MAX = 4096
};

extern const char applier_script[];

typedef struct stream {  /* one Redis stream that this applier has met */
    uint32_t entries;    /* since its last trim */
    uint32_t registered; /* == applier->generation: its sensor's name has been sent */
    uint32_t seen;       /* == step->unit: it is in the unit being built */
    uint32_t group;
} stream;

typedef struct item { /* one reading: small, as there are tens of thousands */
    int64_t time_us;
    uint32_t text;      /* where it begins in step->raw */
    uint32_t next : 24; /* place in step->items + 1; 0: last of its group. A record of 64 MiB has 3 million readings */
    uint32_t text_len : 8;
} item;

typedef struct group { /* the readings of one stream in a unit */
    uint32_t place;    /* of the stream, 1-based */
    uint32_t first, last, count;
    const char *name;
    size_t name_len;
} group;

typedef struct step { /* the builder's memory, reused */
    neap_buf raw;     /* the records' bytes: names and texts point into it */
    neap_buf args, keys, chunk, wire;
    size_t argc, keyc;
    uint32_t *key_of; /* place -> index in KEYS of this step */
    size_t key_cap, key_used;
    uint32_t *used; /* the places in use, to clear key_of */
    size_t used_cap;
    item *items;
    size_t item_count, item_cap;
    group *groups;
    size_t group_count, group_cap;
    uint32_t unit; /* number of the unit being built; never 0 */
    size_t readings, entries;
    char block_op; /* of the block of entries that is open, 0: none; where its count stands in args, and the count */
    uint32_t block_count;
    size_t block_at;
} step;

typedef struct flight {
    struct neap_applier *a;
    char uuid[37];
    bool own;
    uint64_t from, to, sent_ms;
    size_t readings;
} flight;

typedef struct applied { /* applied, but maybe not yet durable in Redis */
    char uuid[37];
    uint64_t to;
    uint64_t at_ms, saves; /* loop clock; count of RDB saves seen by then */
} applied;

struct neap_applier {
    uv_loop_t *loop;
    neap_journal *j;
    neap_redis *redis;
    neap_wake grown;
    uv_timer_t tick, gather;
    int handles; /* to be closed before the memory may go */
    bool stopped, greeted, greeting, probing, drain;
    char *stream_prefix, *stream_suffix, *synthetic_suffix, *sensors_key, *state_key, *dead_key, *once_prefix;
    uint64_t keep;
    uint32_t once_s;
    void (*report)(void *ud, enum neap_applier_state state, const char *text);
    void *ud;
    neap_applier_status status;
    char sha[41], store[37];
    char store_file[4096];
    bool store_lost; /* since the last start: what is retained is replayed */
    char uuid[37];   /* the log being applied */
    bool own, have_log;
    uint64_t pos; /* where the next step starts */
    bool stored;  /* Redis has a position for this log */
    flight flights[APPLIER_FLIGHTS];
    int flying, first_flight;
    uint64_t grown_ms, grown_to, sent_ms; /* loop clock. grown_: when and where growth was last measured; sent_ms: of the last step */
    bool hurry;
    uint64_t wait_ms, took_ms; /* between two steps in a hurry; of the last one, until its answer came */
    neap_sensors *names;       /* streams' sensors to places */
    stream *streams;
    size_t stream_cap;
    uint32_t generation;
    step step;
    applied *applied; /* ring */
    size_t applied_first, applied_count;
    uint64_t saves, last_save, probe_ms; /* probe_ms: when durability was last asked for */
};

/* applier.c */
void applier_say(neap_applier *a, enum neap_applier_state s, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void applier_pump(neap_applier *a);
void applier_later(neap_applier *a); /* back to the greeting after a pause */
/* applier_step.c */
int applier_build(neap_applier *a, uint64_t from, uint64_t *to, uint64_t *damaged, size_t *readings); /* step.wire; *to == from: nothing there */
void applier_free_step(step *s);
/* applier_store.c */
void applier_greet(neap_applier *a);
void applier_applied(neap_applier *a, const char *uuid, uint64_t to);
void applier_probe(neap_applier *a); /* asks how durable Redis is by now, and releases */
void applier_distrust(neap_applier *a);
bool applier_pick_log(neap_applier *a);
#endif
