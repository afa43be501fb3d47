/* redis_private.h: the blocking half of the private redis-server: directory, locks, starting, joining, leaving. For redis_server.c and
   redis_guard.c only. No libuv here; every function may run on any thread, one at a time for an object. */
#ifndef NEAP_REDIS_PRIVATE_H
#define NEAP_REDIS_PRIVATE_H
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

enum { LOCK_SERVE = 0, LOCK_USERS = 1022, LOCK_RANGE = 1024, LOCK_ALIVE = 2048, LOCK_DOOR = 2049 };

/* Open-file-description locks on redis.lock (fcntl F_OFD_*): they belong to the descriptor, survive fork and exec with it, and go with
   its last copy. 0 if locked, else errno (EAGAIN: someone has it). */
int redis_lock_try(int fd, off_t at, off_t len);
int redis_lock_wait(int fd, off_t at, off_t len);
void redis_lock_drop(int fd, off_t at, off_t len);
bool redis_lock_taken(int fd, off_t at, off_t len); /* by anybody but fd */

/* Asks the server behind a socket: PING. */
enum redis_probe { PROBE_NOBODY, PROBE_SILENT, PROBE_LOADING, PROBE_UP };
enum redis_probe redis_probe(const char *path, int wait_ms);
void redis_ask_shutdown(const char *path); /* SHUTDOWN NOSAVE: the AOF is written and synced anyway */

/* For the guard, of the append-only file in the working directory (redis_aof.c). The file that grows: of Redis 7 the increment with the highest
   number, before that the only one. A descriptor, or -1: there is none. */
int neap_redis_aof_open(int flags);
/* Before redis-server reads it: cuts it in front of a MULTI block that is not complete. Returns how many bytes went. */
long long neap_redis_aof_mend(void);
/* For the guard: from now on a thread gives the append-only file in the working directory to the disk as it grows (redis_writeback.c). */
void redis_write_back(void);

typedef struct redis_private {
    char dir[PATH_MAX]; /* <data>/redis */
    char socket[PATH_MAX];
    char redis_exe[PATH_MAX];
    const char *guard_exe, *fsync;
    bool serve, joined;
    int lock;         /* redis.lock: our slot (and the door for a while); -1 */
    int slot;         /* the byte that is ours; -1 */
    int report;       /* the guard's reports, if we started it; -1 */
    atomic_bool stop; /* set from another thread: give up waiting */
    char error[768];
} redis_private;

/* Makes the directory and takes a slot, then joins or starts the server. 0, or NEAP_ERR_* with p->error saying what to do. May be called again
   after the server died. Keeps its slot until redis_private_leave, also after an error. */
int redis_private_enter(redis_private *p, const char *data_dir);
/* Gives the slot back; the last one waits until the server is gone. */
void redis_private_leave(redis_private *p);
#endif
