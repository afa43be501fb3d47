/* redis_server.c: the private redis-server as an object of the loop: runs redis_private.c on libuv's pool, listens to the guard's
   reports, and looks every two seconds whether there still is a guard (its starter may be another process). */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host/err.h"
#include "host/redis_private.h"
#include "host/redis_server.h"

enum { LOOK_MS = 2000 };

struct neap_redis_server {
    neap_redis_server_opts o;
    char *data_dir, *guard_exe, *fsync;
    redis_private p; /* the pool thread's while `working` */
    uv_loop_t *loop;
    uv_timer_t look;
    uv_poll_t report;
    uv_work_t work;
    bool up, closed, reporting, pending; /* pending: uv still has `work` */
    bool working;                        /* under mutex: the pool thread is in redis_private_enter */
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    int status, handles;
    void (*on_up)(void *ud, int status, const char *text);
    void *ud;
};

static void say(neap_redis_server *s, int level, const char *line) {
    if (s->o.on_log && !s->closed) s->o.on_log(s->o.ud, level, line);
}

static void maybe_free(neap_redis_server *s) {
    if (!s->closed || s->pending || s->handles) return;
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->idle);
    free(s->data_dir);
    free(s->guard_exe);
    free(s->fsync);
    free(s);
}

static void on_handle_closed(uv_handle_t *h) {
    neap_redis_server *s = h->data;
    s->handles--;
    maybe_free(s);
}

static void stop_reports(neap_redis_server *s) {
    if (!s->reporting) return;
    s->reporting = false;
    uv_close((uv_handle_t *)&s->report, on_handle_closed);
}

/* "exit 1", "signal 9": redis-server died and the guard starts it again. End of file: the guard itself is gone. */
static void on_report(uv_poll_t *h, int status, int events) {
    neap_redis_server *s = h->data;
    char text[64], line[160];
    ssize_t n = read(s->p.report, text, sizeof text - 1);
    if (n > 0) {
        text[n] = 0;
        text[strcspn(text, "\n")] = 0;
        snprintf(line, sizeof line, "redis-server ended (%s); it is being started again", text);
        say(s, 1, line);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        stop_reports(s);
        close(s->p.report);
        s->p.report = -1;
        say(s, 1, "the guard of redis-server is gone; starting both again");
        neap_redis_server_check(s);
    }
}

static void listen_to_guard(neap_redis_server *s) {
    if (s->p.report < 0 || s->reporting || s->handles > 1) return; /* the old handle may still be closing: next time then */
    if (uv_poll_init(s->loop, &s->report, s->p.report)) return;
    s->report.data = s;
    s->handles++;
    s->reporting = true;
    uv_unref((uv_handle_t *)&s->report);
    uv_poll_start(&s->report, UV_READABLE, on_report);
}

static void enter(uv_work_t *w) {
    neap_redis_server *s = w->data;
    s->status = redis_private_enter(&s->p, s->data_dir);
    pthread_mutex_lock(&s->mutex);
    s->working = false;
    pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->mutex);
}

static void on_look(uv_timer_t *t) { neap_redis_server_check(t->data); }

static void entered(uv_work_t *w, int cancelled) {
    neap_redis_server *s = w->data;
    s->pending = false;
    if (s->closed) {
        maybe_free(s);
        return;
    }
    bool first = !s->up && s->on_up;
    if (s->status == 0) {
        char line[PATH_MAX + 64];
        listen_to_guard(s);
        snprintf(line, sizeof line, "%s redis-server at %s", s->p.joined ? "joined the" : first ? "started" : "started again", s->p.socket);
        say(s, 0, line);
        s->up = true;
        uv_timer_start(&s->look, on_look, LOOK_MS, LOOK_MS);
    } else {
        if (!first) say(s, 1, s->p.error);
    }
    if (first) {
        void (*on_up)(void *, int, const char *) = s->on_up;
        s->on_up = NULL;
        on_up(s->ud, s->status, s->status ? s->p.error : s->p.socket);
    }
}

static void queue(neap_redis_server *s) {
    s->pending = s->working = true;
    s->work.data = s;
    if (uv_queue_work(s->loop, &s->work, enter, entered)) s->pending = s->working = false;
}

void neap_redis_server_check(neap_redis_server *s) {
    if (s->closed || s->pending || !s->up) return;
    if (redis_lock_taken(s->p.lock, LOCK_ALIVE, 1)) { /* it lives: the guard sees to the rest */
        listen_to_guard(s);
        return;
    }
    stop_reports(s);
    queue(s);
}

void neap_redis_server_close(neap_redis_server *s) {
    if (s->closed) return;
    s->closed = true;
    s->p.stop = true;
    pthread_mutex_lock(&s->mutex);
    while (s->working) pthread_cond_wait(&s->idle, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
    stop_reports(s);
    uv_close((uv_handle_t *)&s->look, on_handle_closed);
    int report = s->p.report; /* stays open until libuv has let go of it */
    s->p.report = -1;
    redis_private_leave(&s->p);
    if (report >= 0) close(report);
}

int neap_redis_server_open(uv_loop_t *loop, const neap_redis_server_opts *o, void (*on_up)(void *, int, const char *), void *ud,
                           neap_redis_server **out) {
    neap_redis_server *s = calloc(1, sizeof *s);
    if (!s) return NEAP_ERR_MEMORY;
    s->o = *o;
    s->data_dir = strdup(o->dir);
    s->guard_exe = o->guard_exe ? strdup(o->guard_exe) : NULL;
    s->fsync = o->fsync ? strdup(o->fsync) : NULL;
    s->loop = loop;
    s->on_up = on_up;
    s->ud = ud;
    s->p.serve = o->serve;
    s->p.guard_exe = s->guard_exe;
    s->p.fsync = s->fsync;
    s->p.lock = s->p.slot = s->p.report = -1;
    if (o->redis_exe) snprintf(s->p.redis_exe, sizeof s->p.redis_exe, "%s", o->redis_exe);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (!s->data_dir || (o->guard_exe && !s->guard_exe) || (o->fsync && !s->fsync)) {
        s->closed = true;
        maybe_free(s);
        return NEAP_ERR_MEMORY;
    }
    uv_timer_init(loop, &s->look);
    uv_unref((uv_handle_t *)&s->look);
    s->look.data = s;
    s->handles = 1;
    queue(s);
    if (!s->pending) { /* libuv refuses work only for nonsense */
        neap_redis_server_close(s);
        return NEAP_ERR_MEMORY;
    }
    *out = s;
    return 0;
}

const char *neap_redis_server_socket(const neap_redis_server *s) { return s->up ? s->p.socket : ""; }
bool neap_redis_server_joined(const neap_redis_server *s) { return s->p.joined; }
