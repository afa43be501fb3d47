/* journal_priv.h: what journal.c (opening, clients), journal_write.c (the writer), journal_read.c (reading, recovery),
   journal_release.c (letting go) and journal_spare.c (files to write over) share. */
#ifndef NEAP_JOURNAL_PRIV_H
#define NEAP_JOURNAL_PRIV_H
#include <pthread.h>
#include "host/journal.h"

enum {
    JOURNAL_HEAD = 64,        /* a segment begins with: magic, UUID, start position, CRC, zeros */
    JOURNAL_RECORD_HEAD = 12, /* a record with: magic, length, CRC */
    JOURNAL_PENDING_MAX = 64 << 20,
    JOURNAL_MARKS = 512,
    JOURNAL_SPARES = 4
};
#define JOURNAL_RECORD_MAGIC  0x314A524Eu /* "NRJ1" */
#define JOURNAL_SEGMENT_MAGIC "NEAPJRN1"

typedef struct jsegment {
    uint64_t start, end; /* positions; end: of its last durable byte */
    int fd;
} jsegment;

typedef struct jlog {
    char *dir, uuid[37];
    uint8_t id[16];
    uint32_t sequence;
    int lock_fd;
    jsegment *segs;
    size_t seg_count, seg_cap;
    uint64_t end, released;    /* released: nothing before it is needed */
    uint64_t applied;          /* as the applier says; 0: not known */
    bool loose;                /* its lock file says so: it is not empty */
    bool own, broken;          /* broken: the last segment must not be written to any more */
    int spare[JOURNAL_SPARES]; /* the own log's: files to write the next segments into; -1: none */
    int ahead;                 /* the writer's: one that is being made, -1: none; .. */
    uint64_t ahead_len;        /* .. how much of it is there, .. */
    uint64_t ahead_for;        /* .. and the start of the segment that it, or the last one, is to follow */
} jlog;

typedef struct jappend {                        /* one append on its way */
    struct jappend *next, *prev_out, *next_out; /* next: in the writer's or the done list; _out: among the client's outstanding */
    neap_journal_client *client;
    neap_journal_cb cb;
    void *ud;
    size_t len;
    uint64_t end;
    int status;
    bool over, orphan; /* under the client's mutex. over: the writer is done with it. orphan: the client has gone, the writer frees it */
} jappend;

typedef struct jmark { /* what lies behind `pos` came at `ms` or later */
    uint64_t pos, ms;
} jmark;

struct neap_journal {
    struct neap_journal *next; /* in the process' list of open journals */
    char *path;
    int openings;
    uint64_t max_bytes, segment_bytes, max_age_ms;
    bool loose;
    pthread_t writer;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t work;
    jlog **logs; /* older ones in order, own last */
    size_t log_count;
    neap_buf pending; /* records with heads not yet filled in */
    jappend *first, **last;
    bool closing, live, hurry;
    neap_journal_client *clients;
    void (*wake)(void *ud);
    void *wake_ud;
    int64_t last_stamp;
    jmark marks[JOURNAL_MARKS]; /* from the oldest record that is not applied on; see journal_mark */
    size_t mark_count;
    neap_journal_stats stats;
};

static inline jlog *journal_own(neap_journal *j) { return j->logs[j->log_count - 1]; }

/* journal_write.c */
void *journal_writer(void *j);
void journal_deliver(jappend *list); /* hands finished appends to their clients' loops */
/* journal_read.c */
uint32_t journal_crc(const jlog *g, uint64_t pos, const char *data, uint32_t n);
int journal_recover(jlog *g); /* finds an older log's segments and its true end */
int journal_add_segment(jlog *g, uint64_t start, uint64_t end, int fd);
void journal_segment_path(const jlog *g, uint64_t start, char *out, size_t size);
uint64_t journal_log_bytes(const jlog *g);
void journal_mark(neap_journal *j, uint64_t pos); /* a record begins at pos; mutex held */
uint64_t journal_age_ms(neap_journal *j);         /* mutex held */
/* journal_release.c */
void journal_free_log(jlog *g, bool delete_files);
void journal_let_go(const neap_journal *j, jlog *g); /* the same with its files, and remembers that Redis had all of it */
/* journal_spare.c */
bool journal_keep_spare(neap_journal *j, jlog *g, const jsegment *s);      /* its file is a spare now; false: the file is still the caller's */
int journal_take_spare(neap_journal *j, jlog *g, char *path, size_t size); /* its descriptor and name, now the caller's; -1: there is none */
void journal_prepare_spare(neap_journal *j, jlog *g);                      /* the writer's thread, after a group: a piece of work ahead, if any */
void journal_drop_ahead(jlog *g);                                          /* the same thread, when the disk is full, say: gives its blocks back */
void journal_free_spares(jlog *g, bool delete_files);                      /* files: also those that an earlier process left */
/* journal.c */
void journal_client_done(neap_journal_client *c, jappend *a);
#endif
