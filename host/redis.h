/* redis.h: the Redis client of the core. One neap_redis is one multiplexed, pipelined connection that any number of
   callers share: commands given in a loop turn leave in one write (neap_redis_turn), replies come back in order.

   Life of a connection: nothing is opened until the first command. A lost connection is reopened by itself, after 50 ms,
   doubling up to 2 s. Meanwhile commands queue, up to max_queue and each until its own deadline. When a connection is lost,
   requests sent with NEAP_REDIS_RETRY (idempotent reads) are sent again; any other that had left fails with `sent` set: it
   may have run. While no connection has ever worked, three failed attempts fail what is queued (a wrong address should not
   cost a timeout), and refused credentials fail it at once.

   Errors: a starting call returns 0 or NEAP_ERR_* (then there is no callback). Otherwise the callback comes exactly once,
   on the loop thread, never from inside the starting call (neap_redis_close may call back the pending ones itself).
   Threads: everything on the loop's thread. A pending request keeps the loop alive, an idle connection does not. */
#ifndef NEAP_REDIS_H
#define NEAP_REDIS_H
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "host/buf.h"
#include "host/redis_reply.h"

typedef struct neap_redis neap_redis;

/* ---- where and how to connect -------------------------------------------------------------------------------------- */

/* Zero-initialise, fill by hand or from a URL, release with neap_redis_addr_free. Strings are owned (malloc). */
typedef struct neap_redis_addr {
    char *path; /* unix socket; NULL: host and port */
    char *host;
    int port;
    char *user, *password; /* NULL: none */
    int db;
} neap_redis_addr;

/* redis://[[user]:password@]host[:port][/db], unix:///path[?db=N&password=..], a bare /path, or host:port. Percent
   escapes in user, password and path are decoded. 0; NEAP_ERR_INVALID with a sentence in err (of size errlen), which
   never repeats the password; NEAP_ERR_UNSUPPORTED for rediss://. */
int neap_redis_addr_parse(const char *url, neap_redis_addr *out, char *err, size_t errlen);
int neap_redis_addr_copy(const neap_redis_addr *from, neap_redis_addr *to); /* 0 or NEAP_ERR_MEMORY */
void neap_redis_addr_free(neap_redis_addr *a);
/* "127.0.0.1:6379" or the socket's path, for messages. Returns buf. */
const char *neap_redis_addr_text(const neap_redis_addr *a, char *buf, size_t len);

enum neap_redis_state { NEAP_REDIS_IDLE, NEAP_REDIS_CONNECTING, NEAP_REDIS_READY, NEAP_REDIS_WAITING, NEAP_REDIS_CLOSED };

typedef struct neap_redis_opts {
    neap_redis_addr addr; /* copied */
    const char *name;     /* CLIENT SETNAME; NULL: none. Copied. */
    uint32_t timeout_ms;  /* a request's deadline, connecting included; 0: 5,000 */
    uint32_t connect_ms;  /* for one attempt to connect and log in; 0: 5,000 */
    uint32_t dead_ms;     /* silence with requests waiting after which a connection counts as dead; 0: 15,000 */
    uint32_t max_queue;   /* requests kept while there is no connection; 0: 1,000 */
    bool once;            /* no reconnecting: after a loss every request fails (WATCH, blocking and the like) */
    bool self_turn;       /* flush from a uv_prepare handle of its own: for loops without neap's runtime */
    /* Tells of changes of state; message is why (a lost connection's reason), or "". May be NULL. */
    void (*on_state)(void *ud, enum neap_redis_state state, const char *message);
    void *ud;
} neap_redis_opts;

/* Makes a client; no I/O yet. 0, NEAP_ERR_MEMORY, or NEAP_ERR_INVALID for an empty address. */
int neap_redis_open(uv_loop_t *loop, const neap_redis_opts *opts, neap_redis **out);

/* Ends the client: pending requests fail with NEAP_ERR_CLOSED before it returns. May be called from callbacks; the memory goes
   once libuv has closed the handles, so the loop has to run once more. The pointer is dead from here. */
void neap_redis_close(neap_redis *r);

/* Sends what was queued in this turn, in one write. Call it before each poll. True if something was sent. */
bool neap_redis_turn(neap_redis *r);

enum neap_redis_state neap_redis_state(const neap_redis *r);
const neap_redis_addr *neap_redis_address(const neap_redis *r);
/* Why there is no connection (the last failure), or "". */
const char *neap_redis_last_error(const neap_redis *r);
/* Asks for a connection now, ahead of the first command. */
void neap_redis_connect(neap_redis *r);

typedef struct neap_redis_stats {
    uint64_t commands, replies, errors, retries, connects, timeouts, bytes_out;
    uint32_t queued, in_flight;
} neap_redis_stats;
void neap_redis_get_stats(const neap_redis *r, neap_redis_stats *out);

/* ---- requests ------------------------------------------------------------------------------------------------------ */

/* status 0: the reply. NEAP_ERR_REPLY: the server's error text as an ERROR node. Anything else: an ERROR node with a
   sentence that says what happened and what to do; neap_reply_sent tells whether the command may have run. The callee
   owns the reply (neap_reply_free); it is NULL only when memory ran out. */
typedef void (*neap_redis_cb)(void *ud, int status, neap_reply *reply);

enum {
    NEAP_REDIS_RETRY = 1,  /* idempotent: send again on a new connection */
    NEAP_REDIS_BATCH = 2,  /* the reply is an array with one item for each command, errors inside; status 0 */
    NEAP_REDIS_MASTERS = 4 /* with BATCH, on a Redis Cluster: the whole batch to each master that has slots; one master's answers after another's */
};

typedef struct neap_redis_req {
    const char *bytes; /* one or more commands in wire form; copied or sent before the call returns */
    size_t len;
    uint32_t count;              /* how many commands: 1 unless NEAP_REDIS_BATCH */
    uint32_t flags;              /* NEAP_REDIS_* */
    uint32_t timeout_ms;         /* 0: the client's; UINT32_MAX: none */
    const neap_reply_sink *sink; /* takes the array reply of a single command; valid until the callback */
    neap_redis_cb cb;            /* NULL: nobody cares */
    void *ud;
} neap_redis_req;

/* Starts a request. 0; NEAP_ERR_FULL (max_queue reached while down: nothing was sent), NEAP_ERR_CLOSED, NEAP_ERR_MEMORY,
   NEAP_ERR_INVALID. SUBSCRIBE and MONITOR do not belong here: see redis_sub.h. */
int neap_redis_send(neap_redis *r, const neap_redis_req *req);

/* The same for one command from C strings; lens may be NULL. */
int neap_redis_command(neap_redis *r, int argc, const char *const *argv, const size_t *lens, uint32_t flags, neap_redis_cb cb, void *ud);

/* ---- wire form: "*argc" once, then each argument. 0 or NEAP_ERR_MEMORY ---------------------------------------------- */
int neap_resp_begin(neap_buf *b, size_t argc);
int neap_resp_str(neap_buf *b, const char *s, size_t len);
int neap_resp_int(neap_buf *b, int64_t n);
int neap_resp_num(neap_buf *b, double x); /* shortest text that reads back as x */
#endif
