/* redis_uv.c: hiredis' async context on a uv_poll handle.
   Why not hiredis' own adapter: Debian's drops poll callbacks with a negative status, so a refused TCP connection never
   calls back, and it asks for POLLOUT at every command. Here
     - a poll error becomes a read event: hiredis reads, sees the socket's error and ends the context;
     - a write request only marks the context dirty; the owner flushes once a loop turn, so all commands of a turn leave
       in one write; POLLOUT is asked for only while connecting and after a partial write;
     - the handle is unreferenced until the owner has something pending.
   Loop thread only. The adapter is freed in the handle's close callback, after hiredis has gone. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include "host/hiredis_compat.h"
#include "host/redis_uv.h"

struct neap_redis_uv {
    uv_poll_t poll;
    redisAsyncContext *ac; /* NULL once hiredis has let go */
    int events;
    bool dirty;   /* hiredis has output that nobody flushed yet */
    bool writing; /* inside redisAsyncHandleWrite: a write request then means "partial" */
    void (*on_gone)(void *owner);
    void *owner;
    uint64_t last_read;
    double usual; /* bytes of a turn's commands, lately */
};

enum { ROOM_LEAST = 512, ROOM_MOST = 64 * 1024 };

/* hiredis writes with write(2): in a program that does not ignore SIGPIPE (neap embedded) a server that is gone would end it. */
static void write_out(neap_redis_uv *a) {
    struct sigaction sa;
    sigset_t pipe, before;
    bool guard = sigaction(SIGPIPE, NULL, &sa) || sa.sa_handler != SIG_IGN;
    if (guard) {
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe, &before);
    }
    a->writing = true;
    redisAsyncHandleWrite(a->ac);
    a->writing = false; /* the adapter is freed only in a later loop turn, so still ours */
    if (guard) {
        if (!sigismember(&before, SIGPIPE)) sigtimedwait(&pipe, NULL, &(struct timespec){0}); /* the one that our write raised, if any */
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}

static void on_poll(uv_poll_t *h, int status, int events) {
    neap_redis_uv *a = h->data;
    if (status < 0) events = UV_READABLE;
    if (a->ac && (events & UV_READABLE)) {
        a->last_read = uv_now(h->loop);
        redisAsyncHandleRead(a->ac);
    }
    if (a->ac && status < 0) { /* libuv has stopped watching, and hiredis saw nothing wrong: such a socket is of no use */
        redisAsyncFree(a->ac);
        return;
    }
    if (a->ac && (events & UV_WRITABLE)) write_out(a); /* reading may have ended the context */
}

static void watch(neap_redis_uv *a, int events) {
    if (!a->ac || events == a->events) return;
    a->events = events;
    if (events) uv_poll_start(&a->poll, events, on_poll);
    else uv_poll_stop(&a->poll);
}

static void add_read(void *p) {
    neap_redis_uv *a = p;
    watch(a, a->events | UV_READABLE);
}

static void del_read(void *p) {
    neap_redis_uv *a = p;
    watch(a, a->events & ~UV_READABLE);
}

static void add_write(void *p) {
    neap_redis_uv *a = p;
    if (a->ac && (a->writing || !(a->ac->c.flags & REDIS_CONNECTED))) watch(a, a->events | UV_WRITABLE);
    else a->dirty = true;
}

static void del_write(void *p) {
    neap_redis_uv *a = p;
    watch(a, a->events & ~UV_WRITABLE);
}

static void on_closed(uv_handle_t *h) { free(h->data); }

static void cleanup(void *p) {
    neap_redis_uv *a = p;
    if (!a->ac) return;
    a->ac = NULL;
    uv_close((uv_handle_t *)&a->poll, on_closed);
    if (a->on_gone) a->on_gone(a->owner);
}

neap_redis_uv *neap_redis_uv_attach(uv_loop_t *loop, redisAsyncContext *ac, void (*on_gone)(void *), void *owner) {
    neap_redis_uv *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    if (uv_poll_init(loop, &a->poll, ac->c.fd)) {
        free(a);
        return NULL;
    }
    a->poll.data = a;
    a->ac = ac;
    a->on_gone = on_gone;
    a->owner = owner;
    a->last_read = uv_now(loop);
    uv_unref((uv_handle_t *)&a->poll);
    ac->ev.data = a;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = cleanup;
    return a;
}

void neap_redis_uv_detach(neap_redis_uv *a) { a->on_gone = NULL; }

void neap_redis_uv_ref(neap_redis_uv *a, bool on) {
    if (on) uv_ref((uv_handle_t *)&a->poll);
    else uv_unref((uv_handle_t *)&a->poll);
}

bool neap_redis_uv_flush(neap_redis_uv *a) {
    if (!a->dirty || !a->ac || (a->events & UV_WRITABLE)) return false;
    a->dirty = false;
    size_t out = neap_hiredis_unsent(a->ac);
    write_out(a);
    if (a->ac && !neap_hiredis_unsent(a->ac)) { /* the next turn's commands will be about as many */
        a->usual += ((out < ROOM_MOST ? out : ROOM_MOST) - a->usual) / 8;
        if (a->usual > ROOM_LEAST) neap_hiredis_room(a->ac, (size_t)a->usual);
    }
    return true;
}

uint64_t neap_redis_uv_last_read(const neap_redis_uv *a) { return a->last_read; }
