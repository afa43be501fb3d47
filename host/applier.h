/* applier.h: moves the journal into Redis: in order, each record exactly once, as far as it is durable; gives segments back when Redis
   has them safely.

   Each step is one server-side script: it runs only if Redis still is the store we know (a UUID in the state hash) and the stored
   position of this log (in a flood one of each lane: applier_lanes.c) equals the one the step starts from; it checks the types of all keys before it
   writes, skips batches whose idempotency key was seen, and writes readings and the new position together. A step that timed out is simply tried
   again from the stored position: it either ran whole or not at all. Readings that Redis will not take (a key of another type) go to the dead-letter
   stream, counted.

   On a Redis Cluster a step is one script call for each of its streams, with a position of their own (see applier_cluster.c).

   Runs on one loop with a connection of its own; one applier a journal. */
#ifndef NEAP_APPLIER_H
#define NEAP_APPLIER_H
#include "host/journal.h"
#include "host/redis.h"

typedef struct neap_applier neap_applier;

enum neap_applier_state {
    NEAP_APPLIER_STARTING, /* has not spoken with Redis yet */
    NEAP_APPLIER_RUNNING,
    NEAP_APPLIER_AWAY,   /* Redis is away, full or refuses writes: tried again */
    NEAP_APPLIER_STOPPED /* journal and Redis contradict each other: a person has to look (text says at what) */
};

enum neap_applier_class { NEAP_DURABLE_UNKNOWN, NEAP_DURABLE_ALWAYS, NEAP_DURABLE_EVERYSEC, NEAP_DURABLE_RDB, NEAP_DURABLE_NONE };

typedef struct neap_applier_opts {
    const neap_redis_addr *addr;
    /* Key names: a sensor's stream is prefix + name + suffix. All copied. On a cluster position_suffix, dead_suffix and once_suffix make the names of
       a sensor's position, of its dead letters, and of its idempotency keys; dead_key and once_prefix are for a single Redis. */
    const char *stream_prefix, *stream_suffix, *synthetic_suffix, *quarantine_suffix, *position_suffix, *dead_suffix, *once_suffix;
    const char *sensors_key, *state_key, *dead_key, *once_prefix;
    uint64_t keep;       /* entries a stream keeps, about (trimmed now and then); 0: all */
    uint32_t once_s;     /* how long an idempotency key is known; 0: 3,600 */
    uint32_t timeout_ms; /* of a step; 0: 5,000 */
    /* Called on the loop after each change of state, and when something was lost or replayed; text is for the log. May be NULL. */
    void (*report)(void *ud, enum neap_applier_state state, const char *text);
    void *ud;
} neap_applier_opts;

/* 0, NEAP_ERR_MEMORY, NEAP_ERR_INVALID (no address, no key names), NEAP_ERR_FULL (the journal has an applier already). */
int neap_applier_start(uv_loop_t *loop, neap_journal *j, const neap_applier_opts *o, neap_applier **out);
/* Ends it at once; what was not applied stays in the journal. Memory goes when the loop has run. */
void neap_applier_stop(neap_applier *a);

typedef struct neap_applier_status {
    enum neap_applier_state state;
    enum neap_applier_class durability;
    char text[480]; /* why it is not RUNNING, or "" */
    uint64_t steps, readings, duplicates, dead, rewinds, replays, damaged_bytes;
    char store[37]; /* the store's UUID, or "" */
    bool old_copy;  /* Redis was put back to a state before what the journal has let go of: that is missing */
    bool unsaved;   /* Redis cannot write its append-only file: what it took since stays in the journal */
} neap_applier_status;
void neap_applier_get_status(neap_applier *a, neap_applier_status *out);
const char *neap_applier_class_name(enum neap_applier_class c); /* "always", "everysec", "rdb", "none", "unknown" */
#endif
