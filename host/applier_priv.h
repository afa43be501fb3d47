/* applier_priv.h: what applier.c (the state machine), applier_lanes.c (positions, whose turn it is), applier_life.c (start and stop), applier_unit.c
   (records to entries), applier_step.c (entries to one script call), applier_cluster.c (to one a stream) and applier_store.c (knowing the store,
   letting go of segments) share. */
#ifndef NEAP_APPLIER_PRIV_H
#define NEAP_APPLIER_PRIV_H
#include "host/applier.h"
#include "host/chunk.h"
#include "host/record.h"
#include "host/wake.h"

enum {
    APPLIER_FLIGHTS = 2,            /* steps under way: the next is built while Redis runs one. The positions chain them */
    APPLIER_STEP_BYTES = 4 << 20,   /* of journal for a step, .. */
    APPLIER_READ_BYTES = 128 << 10, /* .. read in pieces of this size */
    APPLIER_STEP_READINGS = 160000, /* held, whether they are for this step or for a later one */
    APPLIER_STEP_ARGS = 900000,     /* so many a step may have before its last record: a Redis before 7.0 takes 1,048,576 in all */
    APPLIER_HURRY = 3000,           /* bytes a millisecond (about 140,000 readings a second in batches) from which on readings are gathered .. */
    APPLIER_DENSE = 50,             /* .. until about so many of one sensor share an entry: */
    APPLIER_GATHER_MIN_MS = 8,      /* not longer, as a step of many milliseconds would hold up Redis and the processor, .. */
    APPLIER_LAG_MS = 160,           /* .. and not so long that gathering and the step take more together: readings are to be visible within 200 ms,
                                       also when a step takes longer than those before it, as while Redis rewrites its log */
    APPLIER_MEASURE_MS = 50,        /* the load is measured over so long at least */
    APPLIER_CALLS = 1000,           /* on a cluster a step costs by its streams: from so many on a tenth of APPLIER_HURRY will do */
    APPLIER_ENTRY_READINGS = 128,   /* in one stream entry at most */
    APPLIER_ENTRY_BYTES = 1800,     /* of text from which on an entry is full: two fit into a stream's node of 4 KiB (Redis' default) */
    APPLIER_TRIM_EVERY = 100,       /* entries of a stream between two trims */
    APPLIER_BLOCK = 256,            /* pieces of text */
    APPLIER_LANES = 8,              /* see applier_lanes.c; their number and applier_stream's choice are part of what Redis has stored */
    APPLIER_ALL = (1 << APPLIER_LANES) - 1,
    APPLIER_TURN_MS = 4, /* between two turns at least: a step has costs of its own */
    APPLIER_POSITION_TEXT = (APPLIER_LANES + 1) * 21,
    APPLIER_DURABLE_MAX = 4096,
    APPLIER_LATE_MS = 3000, /* an entry that came so long ago gets the time of its arrival for an ID, not that of now; .. */
    APPLIER_SAME_MS = 1000, /* .. what came within so long may share it */
    APPLIER_TICK_MS = 500
};

extern const char applier_script[], applier_cluster_script[];

typedef struct stream {  /* one Redis stream that this applier has met */
    uint32_t entries;    /* since its last trim */
    uint32_t registered; /* == applier->generation: its sensor's name has been sent */
    uint32_t lane;       /* 1-based */
    uint32_t group;
    uint64_t seen; /* == its lane's unit.number: it is in the unit being built */
    /* on a cluster, where it has a position of its own: */
    uint32_t known; /* == applier->generation: what follows is what Redis has */
    uint32_t log;   /* 1-based in applier->met; 0: no position */
    uint64_t pos;
} stream;

typedef struct piece { /* of an entry's text */
    struct piece *next;
    uint8_t len;
    char text[119];
} piece;

typedef struct piece_block { /* they are made by the thousand, and reused */
    struct piece_block *next;
    piece at[APPLIER_BLOCK];
} piece_block;

typedef struct entry { /* a stream entry in the making: one field, readings as chunk.h has them */
    int64_t first_us;
    int64_t late_ms; /* when it came, milliseconds since 1970; 0: just now */
    piece *first;
    uint32_t next; /* of its group, place in step->entries + 1; 0: the last */
} entry;

typedef struct group { /* the readings of one stream in a unit */
    uint32_t place;    /* of the stream, 1-based */
    uint32_t count, first;
    uint32_t entry; /* the one that is being written, as in entry.next: 0 none; what follows is about it */
    uint32_t len;
    int64_t late_ms;
    piece *piece; /* its last */
    neap_chunk chunk;
} group;

typedef struct unit { /* readings of one lane that are not sent yet (applier_unit.c) */
    uint64_t number;  /* never 0 */
    group *groups;
    size_t group_count, group_cap;
    entry *entries;
    size_t entry_count, entry_cap, readings;
    piece_block *blocks, *block;
    size_t block_used;
} unit;

typedef struct positions { /* of the lanes in a log: each has all readings up to there */
    uint64_t lane[APPLIER_LANES];
} positions;

typedef struct program { /* arguments of a script, in wire form, and how many */
    neap_buf text;
    size_t n;
} program;

typedef struct part { /* of a step on a cluster: the script call of one stream */
    uint32_t place;
    enum neap_source source;
    bool asks; /* asks: the stream's position is not known */
    program args;
} part;

typedef struct step { /* the builder's memory, reused */
    neap_buf keys, chunk, wire;
    program args, *out; /* out: what is being written: args, or a part's */
    program names;      /* on a cluster: of sensors, to be registered */
    part *parts;
    size_t part_count, part_cap;
    uint32_t commands; /* in bytes */
    const char *bytes; /* the step as it is sent */
    size_t len, room;  /* room: left before the program */
    size_t keyc;
    uint32_t *part_of; /* on a cluster: place -> index in parts, 1-based */
    size_t part_of_cap;
    int64_t built_ms;         /* when it was begun, milliseconds since 1970 */
    size_t readings, entered; /* entered: in so many entries */
    char block_op;            /* of the run of entries that is open, 0: none; where its count stands in args, and the count */
    uint32_t block_count;
    size_t block_at;
    unit units[APPLIER_LANES];
    uint64_t unit_number; /* the last one given */
    uint32_t place;       /* of the stream that was met last */
    piece_block *spare;
    uint32_t lanes; /* whose readings it takes along, a bit each */
    positions next; /* what the lanes have after it */
    char next_text[APPLIER_POSITION_TEXT];
} step;

typedef struct flight {
    struct neap_applier *a;
    char uuid[37];
    uint64_t from, to, sent_ms;
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
    char *stream_prefix, *suffix[NEAP_SOURCES] /* of streams */, *position_suffix, *dead_suffix, *once_suffix, *sensors_key, *state_key, *dead_key,
        *once_prefix;
    uint64_t keep;
    uint32_t once_s;
    void (*report)(void *ud, enum neap_applier_state state, const char *text);
    void *ud;
    neap_applier_status status;
    char sha[41], store[37];
    bool cluster;
    uint64_t masters;         /* a sum over the run IDs of a cluster's masters: another one means that one of them is another process */
    char id[37];              /* the journal's own, which names its positions on a cluster */
    struct met *met;          /* the logs that streams' positions lie in */
    uint32_t met_count, here; /* here: the log being applied, 1-based */
    size_t met_cap;
    bool store_lost;     /* since the last start: what is retained is replayed */
    uint64_t done_to;    /* Redis should have the last log that was let go of up to here; 0: there is none */
    bool told_lost;      /* on a cluster: a node's loss was told of already, before the greeting */
    char told_ahead[37]; /* the log of which was told that Redis is ahead of it */
    char uuid[37];       /* the log being applied */
    bool own, have_log;
    uint64_t pos;                         /* where reading the log goes on */
    positions sent;                       /* what the lanes have with the steps under way */
    char expected[APPLIER_POSITION_TEXT]; /* the same as Redis has it; "": nothing is stored for this log yet */
    flight flights[APPLIER_FLIGHTS];
    int flying, first_flight;
    uint64_t grown_ms, grown_to, sent_ms; /* loop clock. grown_: when and where growth was last measured; sent_ms: of the last step */
    bool hurry;
    uint64_t wait_ms, took_ms; /* in a hurry, between two steps, or two turns of a lane; of the last step, until its answer came */
    uint32_t due, next_lane;   /* whose turn it is, a bit each; who comes after them */
    uint64_t turn_ms;          /* when the last turn was due */
    neap_sensors *names;       /* streams' sensors to places */
    stream *streams;
    size_t stream_cap;
    uint32_t generation;
    step step;
    applied *applied; /* ring */
    size_t applied_first, applied_count;
    uint64_t saves, last_save, probe_ms; /* probe_ms: when durability was last asked for */
    char probe_uuid[37];                 /* .. and of which log the position, .. */
    uint64_t probe_to;                   /* .. which is here at least */
};

/* applier.c */
void applier_say(neap_applier *a, enum neap_applier_state s, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void applier_pump(neap_applier *a);
uint64_t applier_applied_to(const neap_applier *a);
void applier_tick(uv_timer_t *t);    /* every APPLIER_TICK_MS: what waits is begun again, and what Redis has safely is let go of */
void applier_later(neap_applier *a); /* back to the greeting after a pause */
void applier_again(neap_applier *a); /* what Redis has is to be asked for again, as soon as no step is under way */
/* applier_lanes.c */
uint64_t applier_least(const positions *p); /* up to there every lane has everything */
uint64_t applier_most(const positions *p);  /* behind it none has anything */
void applier_position_all(positions *p, uint64_t at);
void applier_position_text(const positions *p, char out[APPLIER_POSITION_TEXT]);
bool applier_position_read(positions *p, const char *text);                     /* false: it is none */
void applier_begin_at(neap_applier *a, const positions *p, const char *stored); /* nothing is held, and Redis has this position, as `stored` */
uint32_t applier_lane_of(const char *name, size_t n);                           /* 1-based */
uint64_t applier_turn(neap_applier *a, uint64_t now);                           /* 0: a->due is set; else so many ms until the next turn */
void applier_turn_taken(neap_applier *a, uint64_t now);                         /* step.lanes are on their way */
/* applier_step.c */
/* The next step of these lanes, in step.bytes; step.lanes says which they became. *to: how far the log was read. If step.next is what was sent
   before there is nothing to do. */
int applier_build(neap_applier *a, uint32_t lanes, uint64_t *to, uint64_t *damaged);
void applier_free_step(step *s);
bool applier_grow(void **p, size_t *cap, size_t need, size_t size); /* an array, by doubling; what is new is zero */
/* applier_unit.c */
uint32_t applier_stream(neap_applier *a, const neap_record *r); /* finds or makes the stream of its sensor: the place; 0 without memory */
const char *applier_stream_name(const neap_applier *a, uint32_t place, size_t *n); /* its sensor's */
void applier_unit_begin(step *s, int lane);                                        /* its next one, without readings */
int applier_unit_add(neap_applier *a, const neap_record *r, uint32_t place);       /* the reading that r stands at. 0 or NEAP_ERR_MEMORY */
void applier_unit_free(step *s);
/* applier_cluster.c */
enum applier_outcome { APPLIER_DONE, APPLIER_REBUILD, APPLIER_AGAIN, APPLIER_REFUSED };
bool applier_cluster_has(const neap_applier *a, const stream *st, uint64_t end);      /* the record that ends there is in the stream already */
int applier_cluster_begin(neap_applier *a);                                           /* a step of the present log is to be built */
part *applier_cluster_part(neap_applier *a, const group *g, enum neap_source source); /* NULL without memory */
int applier_cluster_wire(neap_applier *a, uint64_t from, uint64_t to);
enum applier_outcome applier_cluster_done(neap_applier *a, const flight *f, const neap_reply *r, const neap_reply **refusal);
int applier_cluster_ask(neap_applier *a, neap_redis_cb cb);                    /* all masters, for .. */
const neap_reply *applier_cluster_learn(neap_applier *a, const neap_reply *r); /* .. scripts, class, run IDs. NULL, or the error */
uint64_t applier_cluster_masters(const neap_reply *r, uint32_t stride, uint32_t at, bool *aof_ok); /* from their INFO texts */
/* applier_store.c */
void applier_greet(neap_applier *a);
void applier_applied(neap_applier *a, const char *uuid, uint64_t to);
void applier_probe(neap_applier *a); /* asks how durable Redis is by now, and releases */
void applier_distrust(neap_applier *a);
long long applier_info(const neap_reply *r, const char *name, long long missing);
bool applier_pick_log(neap_applier *a);
#endif
