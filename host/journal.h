/* journal.h: what was accepted, on disk, before anybody is told so.

   One journal a data directory, shared by all threads of the process (opening it again in the process gives the same one). Each
   opening makes a log of its own, a directory <sequence>-<random UUID> of segment files; logs that earlier processes left behind are
   found, locked and offered for reading first. A log that another living process holds is left alone.

   A record is any bytes. Its position is the number of bytes before it in its log; its CRC covers the log's UUID, the position, the
   length and the bytes, so a record of another log, or a moved one, is not taken for one of this log.

   Appending copies the record and returns; one writer thread puts everything that came in the meantime into one write and one
   fdatasync (group commit), and the callback comes on the appender's loop afterwards: status 0 = on disk. A failed write or sync is
   reported to every record in the group (NEAP_ERR_FULL when there is no room, else NEAP_ERR_IO); the segment is then given up
   at its last good position and the next group starts a new one, so the journal recovers by itself. Why not the libuv pool: a
   slow disk would hold its four threads, and workers' loops would have to be tied to one owner.

   Reading is for one reader (the applier), in order, from any thread but one at a time. What it has done with is handed back by
   neap_journal_release, which lets go of whole segments: some files are written over by later segments, the others deleted. */
#ifndef NEAP_JOURNAL_H
#define NEAP_JOURNAL_H
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "host/buf.h"

typedef struct neap_journal neap_journal;
typedef struct neap_journal_client neap_journal_client; /* a loop's end of it; all its calls on that loop's thread */

enum { NEAP_JOURNAL_RECORD_MAX = 64 << 20 };

typedef struct neap_journal_opts {
    const char *dir;        /* made if missing (0700) */
    uint64_t max_bytes;     /* bound on everything retained, older logs included; 0: 1 GiB */
    uint64_t segment_bytes; /* a new file from this size on; 0: 16 MiB */
    uint64_t max_age_ms;    /* bound on how long the oldest record of the own log may wait to be applied; 0: 24 hours */
    bool loose;             /* appended is written, not synced: it survives the process, but a power cut costs up to the last second or so */
} neap_journal_opts;

/* 0, or NEAP_ERR_* with a sentence in why. The options of the first opener in the process count. */
int neap_journal_open(const neap_journal_opts *o, neap_journal **out, char *why, size_t why_size);
/* Drops one opening, whose clients must be detached before. The last one waits for what is pending, and deletes the log if all of it was released. */
void neap_journal_close(neap_journal *j);

/* ---- appending ------------------------------------------------------------------------------------------------------ */

int neap_journal_attach(neap_journal *j, uv_loop_t *loop, neap_journal_client **out);
/* Calls every callback that is still owed (NEAP_ERR_CLOSED; the record may yet be written), then frees once the loop has run. */
void neap_journal_detach(neap_journal_client *c);

/* end: the position behind the record in this process' log. */
typedef void (*neap_journal_cb)(void *ud, int status, uint64_t end);

/* 0 and one callback later, or NEAP_ERR_FULL (a bound reached: of bytes, or of age), NEAP_ERR_INVALID (empty or too long), NEAP_ERR_MEMORY,
 * NEAP_ERR_CLOSED and none. */
int neap_journal_append(neap_journal_client *c, const void *data, size_t n, neap_journal_cb cb, void *ud);

/* From now on what is appended in a turn of the loop is given to the disk by neap_journal_turn at its end: one sync for all of it, unless it is much.
   Nonzero: there was something. The loop's thread. */
void neap_journal_by_turn(neap_journal_client *c);
int neap_journal_turn(neap_journal_client *c);

/* Calls back once the applier has got to `end` in this process' log (at once, in the next turn, if it has), or the client is detached.
   cb's `end` is the applied position. */
int neap_journal_wait_applied(neap_journal_client *c, uint64_t end, neap_journal_cb cb, void *ud);
/* Forgets the first wait with this ud, if it is still there: no callback. */
void neap_journal_unwait(neap_journal_client *c, void *ud);

/* ---- reading -------------------------------------------------------------------------------------------------------- */

typedef struct neap_journal_log {
    char uuid[37];
    uint64_t first, end; /* positions: the oldest byte retained, the first byte not yet durable */
    bool own;            /* this process', which still grows */
    bool loose;          /* it was written without waiting for the disk: a power cut may have taken what Redis already has */
} neap_journal_log;

/* Copies up to max logs, oldest first, own last; returns how many there are. */
size_t neap_journal_logs(neap_journal *j, neap_journal_log *out, size_t max);

/* Calls each(ud, end, data, n) for whole records from pos on, until about max_bytes were read, the end, or each returns nonzero.
   *next: where to go on. *skipped: bytes that were damaged and had to be passed over to get to *next (their records are lost: report it).
   0; NEAP_ERR_INVALID: pos lies before the first retained byte or beyond the end; NEAP_ERR_CLOSED: no such log; NEAP_ERR_IO; NEAP_ERR_MEMORY. */
typedef int (*neap_journal_each)(void *ud, uint64_t end, const char *data, size_t n);
int neap_journal_read(neap_journal *j, const char *uuid, uint64_t pos, size_t max_bytes, neap_journal_each each, void *ud, uint64_t *next,
                      uint64_t *skipped);

/* May a reader begin at pos? 0; NEAP_ERR_CORRUPT: a sound record goes across it, so whoever has this position did not get it from this log.
   (Where the bytes around pos are damaged nobody can tell: 0.) Else as neap_journal_read. */
int neap_journal_check(neap_journal *j, const char *uuid, uint64_t pos);

/* Nothing before `upto` is needed any more: deletes the segments that end there or earlier, and an older log as a whole at its end. */
void neap_journal_release(neap_journal *j, const char *uuid, uint64_t upto);

/* The last log that was let go of as a whole, by this process or one before, and where it ended: Redis had all of it. False: none is known. */
bool neap_journal_last_done(const neap_journal *j, char uuid[37], uint64_t *end);

/* The applier's progress in a log; in the own log it wakes those who wait for it. It may go back, if Redis did. Any thread. */
void neap_journal_set_applied(neap_journal *j, const char *uuid, uint64_t end);
/* How far any log is applied is not known any more, until it is told anew: all that is retained counts as behind. Any thread. */
void neap_journal_doubt(neap_journal *j);

/* The applier tells whether waiting for it makes sense now (it runs, and Redis answers); false at first. Any thread. */
void neap_journal_set_live(neap_journal *j, bool live);
bool neap_journal_is_live(neap_journal *j);
/* The applier tells that so much comes in that it gathers readings for some tens of milliseconds before it moves them: who waits for them to be
   applied would wait as long each time. Any thread. */
void neap_journal_set_hurry(neap_journal *j, bool hurry);
bool neap_journal_in_hurry(neap_journal *j);

/* Calls wake (from the writer's thread: use neap_wake_send) whenever the own log has grown. For the one reader: NEAP_ERR_FULL if there is
   one already. NULL gives the place up. */
int neap_journal_on_grow(neap_journal *j, void (*wake)(void *ud), void *ud);

/* The journal's directory; lives as long as the journal. */
const char *neap_journal_dir(const neap_journal *j);

/* The first of n microsecond times that nobody else in the process got or will get from this journal: now, or just after the last one.
   For readings that carry no time of their own. Any thread. */
int64_t neap_journal_stamp(neap_journal *j, uint32_t n);

typedef struct neap_journal_stats {
    uint64_t records, bytes, commits, failures, refused; /* since the opening; refused: turned away at a bound */
    uint64_t refused_old;                                /* of them, so many because the oldest record waits for too long */
    uint64_t age_ms, max_age_ms;                         /* for how long the oldest record has waited to be applied, to 20 ms or a fortieth */
    bool loose;
    uint64_t retained, max_bytes;
    uint64_t durable, applied; /* positions in the own log. applied: the furthest that Redis ever had */
    uint64_t behind;           /* bytes of all logs that Redis does not have, as far as the applier knows now */
    int last_errno;            /* of the last failed write or sync; 0 when the one after it worked */
} neap_journal_stats;
void neap_journal_get_stats(neap_journal *j, neap_journal_stats *out);
#endif
