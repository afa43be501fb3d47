/* redis_server.h: neap's private redis-server: a child on a unix socket in <data>/redis (0700, no TCP), AOF on, shared by every
   neap process that uses the same data directory, ended with the last of them, never left behind.

   Who does what. <data>/redis/redis.lock holds only locks, each of which the kernel drops when its holder dies, however it dies:
     byte 0            the one `serve`
     bytes 1..1022     one for each other user
     byte 2048         "a server lives": held by the guard and inherited by redis-server
     byte 2049         the door: held while a server is being started, joined or ended
   A guard (a small process in a session of its own) is redis-server's parent: it starts it again when it dies, and ends it as soon as it can lock
   bytes 0..1023, that is, when no user is left, be it by exit or by kill -9. Should the guard be killed, the kernel ends
   redis-server (PDEATHSIG; the guard has one main thread, so its per-thread rule does no harm) and the next user that looks starts both again. A
   server that some accident left alone is joined (adopted) by the next start, or ended if it does not answer.

   Threads: everything on the loop's thread; what blocks (locks, waiting for the socket) runs on libuv's pool. */
#ifndef NEAP_REDIS_SERVER_H
#define NEAP_REDIS_SERVER_H
#include <stdbool.h>
#include <uv.h>

typedef struct neap_redis_server neap_redis_server;

typedef struct neap_redis_server_opts { /* strings are copied */
    const char *dir;                    /* the data directory; made (0700) if missing */
    bool serve;                         /* take the place of which a directory has one: a second one is refused with NEAP_ERR_FULL */
    const char *guard_exe;              /* program that runs neap_redis_guard_main for "--redis-guard"; NULL: a fork of this process, which
                                           then keeps a copy of its memory: fine for tests, poor for a large host */
    const char *redis_exe;              /* NULL: redis-server from PATH and the usual places */
    const char *fsync;                  /* appendfsync: "always" (NULL), "everysec", "no" */
    void (*on_log)(void *ud, int level, const char *line); /* level 0 info, 1 warning; may be NULL */
    void *ud;
} neap_redis_server_opts;

/* Starts or joins the server. `on_up(ud, 0, socket path)` or (ud, NEAP_ERR_*, sentence that says what to do), once, on the loop
   thread, not from inside the call. On failure the object still wants neap_redis_server_close. 0 or NEAP_ERR_MEMORY. */
int neap_redis_server_open(uv_loop_t *loop, const neap_redis_server_opts *o, void (*on_up)(void *ud, int status, const char *text), void *ud,
                           neap_redis_server **out);

/* Leaves. If this was the last user it waits (blocking, up to some seconds, usually milliseconds) until the server is gone. No callbacks from
   here on; the memory goes when the loop has run the close callbacks. */
void neap_redis_server_close(neap_redis_server *s);

/* Looks whether the server still lives, and starts it if not: for a client that lost its connection. Cheap; also done every
   2 s by itself. on_log tells what was found. */
void neap_redis_server_check(neap_redis_server *s);

const char *neap_redis_server_socket(const neap_redis_server *s); /* "" before it is up */
bool neap_redis_server_joined(const neap_redis_server *s);        /* true: somebody else had started it */

/* The guard's main function: argv = {.., "--redis-guard", dir, socket, redis-server, report fd}. */
int neap_redis_guard_main(int argc, char **argv);
#endif
