/* http.c: the server object: opening, running inside the loop's turn, draining, closing.

   MHD runs without threads of its own. Its epoll descriptor sits under a uv_poll, which only notes that it should run; neap_http_turn runs it
   before the next poll, so that everything a turn produced (answers, resumed requests) leaves in that run. MHD wakes nobody when a request is
   resumed from outside, hence need_run; and its own timeout must be asked for after every run, or connections hang. Loop thread only. */
#include "host/http_impl.h"
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#define RUNS_A_TURN   8   /* then other handles get their share */
#define DRAIN_IDLE_MS 300 /* how long a drain waits for a request that may be on its way on an idle connection */

/* ---- uv handles: each is a block of its own, freed in its close callback, and the server outlives them all ------------- */

static void maybe_free(neap_http *s) {
    if (s->handles || s->refs || !s->closed) return;
    while (s->free_reqs) {
        neap_http_req *r = s->free_reqs;
        s->free_reqs = r->next;
        buf_free(&r->body);
        buf_free(&r->target);
        free(r);
    }
    free((char *)s->c.tls_cert);
    free((char *)s->c.tls_key);
    free(s->by_fd);
    free(s);
}

void http_server_unref(neap_http *s) {
    s->refs--;
    maybe_free(s);
}

void *http_handle(neap_http *s, size_t size) {
    uv_handle_t *h = calloc(1, size);
    if (!h) return NULL;
    h->data = s;
    s->handles++;
    return h;
}

static void on_closed(uv_handle_t *h) {
    neap_http *s = h->data;
    free(h);
    s->handles--;
    maybe_free(s);
}

void http_close_handle(neap_http *s, void *handle_pp) {
    uv_handle_t **h = handle_pp;
    if (!*h) return;
    (*h)->data = s;
    uv_close(*h, on_closed);
    *h = NULL;
}

static uv_timer_t *timer(neap_http *s) {
    uv_timer_t *t = http_handle(s, sizeof *t);
    if (t) uv_timer_init(s->loop, t); /* cannot fail */
    return t;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

static void on_epoll(uv_poll_t *p, int status, int events) { ((neap_http *)p->data)->need_run = 1; }
static void on_run_timer(uv_timer_t *t) { ((neap_http *)t->data)->need_run = 1; }

/* MHD's timeout into our timer. Immediately: need_run again if the last run moved something, a millisecond later if not (lazily waiting
   requests make MHD ask for an immediate run all the time). */
static void arm(neap_http *s, int moved) {
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(s->mhd, &ms) != MHD_YES) {
        s->spins = 0;
        s->spin_since = 0;
        uv_timer_stop(s->run_timer);
        return;
    }
    if (ms) {
        s->spins = 0;
        s->spin_since = 0;
        uv_timer_start(s->run_timer, on_run_timer, ms, 0);
        return;
    }
    if (moved) s->spins = 0;
    else s->spins++;
    if (moved || (s->spins < 4 && !s->pending)) s->need_run = 1;
    else uv_timer_start(s->run_timer, on_run_timer, 1, 0);
    if (!s->pending) http_spin_check(s);
}

int neap_http_turn(neap_http *s) {
    if (!s->need_run || s->closed || s->running) return 0;
    uint64_t before = s->progress;
    s->running = 1;
    for (int i = 0; s->need_run && i < (s->pending ? 1 : RUNS_A_TURN); i++) {
        uint64_t p = s->progress;
        s->need_run = 0;
        neap_http *other = http_filter_for(s);
        MHD_run(s->mhd);
        http_filter_for(other);
        if (s->close_wanted) break;
        arm(s, s->progress != p);
    }
    s->running = 0;
    if (s->close_wanted) {
        neap_http_close(s);
        return 1;
    }
    if (s->need_run) uv_timer_start(s->run_timer, on_run_timer, 0, 0); /* the coming poll must not block */
    return s->progress != before;
}

void neap_http_swap(neap_http *s, const neap_http_app *app) { s->c.app = *app; }
int neap_http_port(const neap_http *s) { return s->port; }
int neap_http_listen_fd(const neap_http *s) { return s->listen_fd; }

uint64_t neap_http_answers(const neap_http *s, int status) { return status >= 100 && status < 600 ? s->answers[status - 100] : 0; }

void neap_http_get_stats(const neap_http *s, neap_http_stats *out) {
    *out = s->st;
    out->open = s->nconn;
}

/* ---- draining and closing ------------------------------------------------------------------------------------------------ */

static void drained(neap_http *s) {
    void (*f)(neap_http *, void *) = s->drained;
    s->drained = NULL;
    http_close_handle(s, &s->drain_timer);
    if (f) f(s, s->drained_ud);
}

static void on_drain_timer(uv_timer_t *t);

void http_drain_check(neap_http *s) {
    /* not from inside MHD_run: the callback may close the server */
    if (s->draining == 1 && !s->nconn && s->drain_timer) uv_timer_start(s->drain_timer, on_drain_timer, 0, 0);
}

static void on_drain_timer(uv_timer_t *t) {
    neap_http *s = t->data;
    uint64_t now = http_now(s);
    for (http_conn *k = s->conns; k; k = k->next)
        if (k->phase <= HTTP_HEAD && k->since + DRAIN_IDLE_MS <= now) http_cut(k, 0); /* whose head is not complete is owed no answer */
    if (!s->nconn || now >= s->drain_until) {
        s->draining = 2;
        drained(s);
        return;
    }
    uint64_t left = s->drain_until - now;
    uv_timer_start(t, on_drain_timer, left < 50 ? left : 50, 0);
}

void neap_http_drain(neap_http *s, unsigned ms, void (*done)(neap_http *s, void *ud), void *ud) {
    if (s->draining || s->closed) return;
    s->draining = 1;
    s->drained = done;
    s->drained_ud = ud;
    http_accept_stop(s);
    s->drain_until = http_now(s) + ms;
    uv_timer_start(s->drain_timer, on_drain_timer, 0, 0);
}

/* MHD must not be stopped with suspended connections: end and resume them, let it run, then stop. */
void neap_http_close(neap_http *s) {
    if (s->closed) return;
    if (s->running) {
        s->close_wanted = 1;
        return;
    }
    s->running = 1;
    if (s->listen_fd >= 0) {
        http_close_handle(s, &s->accept_poll);
        close(s->listen_fd);
        s->listen_fd = -1;
    }
    for (http_conn *k = s->conns; k; k = k->next) {
        http_unwatch(k);
        neap_http_req *r = k->req;
        k->linger = 0;
        if (r) {
            neap_http_ref(r);
            http_lost(r, NEAP_ERR_CLOSED);
            http_cut(k, 0);
            http_wake(r);
            neap_http_unref(r);
        } else http_cut(k, 0);
    }
    s->closed = 1;
    for (int i = 0; i < 4 && s->conns; i++) MHD_run(s->mhd);
    MHD_stop_daemon(s->mhd);
    s->mhd = NULL;
    http_linger_close(s);
    http_close_handle(s, &s->mhd_poll);
    http_close_handle(s, &s->run_timer);
    http_close_handle(s, &s->sweep_timer);
    http_close_handle(s, &s->accept_timer);
    http_close_handle(s, &s->watch_timer);
    http_close_handle(s, &s->drain_timer);
    http_server_unref(s);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

/* MHD must neither decode nor cut the target: we do, in http_guard.c. */
static size_t no_unescape(void *cls, struct MHD_Connection *c, char *text) { return strlen(text); }

static void on_log(void *cls, const char *fmt, va_list ap) {
    neap_http *s = cls;
    char line[512];
    if (!s->c.log) return;
    int n = vsnprintf(line, sizeof line, fmt, ap);
    if (n > (int)sizeof line - 1) n = sizeof line - 1;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    s->c.log(s->c.log_ud, line);
}

static int sigpipe_ignored(void) {
    struct sigaction sa;
    return !sigaction(SIGPIPE, NULL, &sa) && !(sa.sa_flags & SA_SIGINFO) && sa.sa_handler == SIG_IGN;
}

static void defaults(neap_http_config *c) {
    if (!c->max_head) c->max_head = 8192;
    if (!c->max_body) c->max_body = 1 << 20;
    if (!c->max_bodies) c->max_bodies = 64 << 20;
    if (!c->max_connections) c->max_connections = 10000;
    if (!c->head_ms) c->head_ms = 10000;
    if (!c->body_ms) c->body_ms = 15000;
    if (!c->handler_ms) c->handler_ms = 30000;
    if (!c->idle_ms) c->idle_ms = 75000;
    if (!c->write_ms) c->write_ms = 30000;
}

static struct MHD_Daemon *start_daemon(neap_http *s) {
    unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (s->tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem more[8];
    int n = 0;
    if (s->c.max_per_ip) more[n++] = (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT, (intptr_t)s->c.max_per_ip, NULL};
    if (s->tls) {
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)s->c.tls_cert};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)s->c.tls_key};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"}; /* RFC 8996 */
    }
    if (sigpipe_ignored()) more[n++] = (struct MHD_OptionItem){MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL};
    more[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    return MHD_start_daemon(flags, 0, NULL, NULL, http_on_access, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s, MHD_OPTION_URI_LOG_CALLBACK, http_on_uri,
                            s, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, s, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, s,
                            MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, s->c.max_head,
                            MHD_OPTION_CONNECTION_LIMIT, s->c.max_connections, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
}

static int failed(neap_http *s, int code, const char *why, char *err, size_t errlen) {
    if (errlen) snprintf(err, errlen, "http: %s", why);
    if (s->mhd) {
        neap_http_close(s);
        return code;
    }
    close(s->listen_fd);
    free((char *)s->c.tls_cert);
    free((char *)s->c.tls_key);
    free(s);
    return code;
}

int neap_http_open(uv_loop_t *loop, const neap_http_config *c, neap_http **out, char *err, size_t errlen) {
    neap_http *s = calloc(1, sizeof *s);
    if (!s) {
        close(c->listen_fd);
        return NEAP_ERR_MEMORY;
    }
    uint32_t salt = 0;
    s->c = *c;
    s->c.tls_cert = c->tls_cert ? strdup(c->tls_cert) : NULL;
    s->c.tls_key = c->tls_key ? strdup(c->tls_key) : NULL;
    s->tls = c->tls_cert != NULL;
    s->loop = loop;
    s->listen_fd = c->listen_fd;
    s->refs = 1;
    defaults(&s->c);
    if (getrandom(&salt, sizeof salt, GRND_NONBLOCK) < 0) salt = (uint32_t)(uintptr_t)s;
    s->next_id = (uint64_t)(salt & 0xffffff) << 40;
    if ((c->tls_cert || c->tls_key) && !(s->c.tls_cert && s->c.tls_key && *s->c.tls_cert && *s->c.tls_key))
        return failed(s, NEAP_ERR_INVALID, "TLS needs a certificate and its key, both as PEM", err, errlen);
    int lazy = 0;
    http_selftest(&s->layout, &lazy, &s->filter);
    if (!s->filter && !s->tls && s->c.log) s->c.log(s->c.log_ud, "another recv() comes before neap's: trailers and chunk lines are not checked");
    s->lazy = s->c.lazy > 0 || (s->c.lazy == 0 && lazy);
    s->mhd = start_daemon(s);
    if (!s->mhd)
        return failed(s, NEAP_ERR_INVALID,
                      s->tls ? "cannot start with this certificate and key: check that they are PEM and belong together"
                             : "libmicrohttpd does not start",
                      err, errlen);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    s->run_timer = timer(s);
    s->sweep_timer = timer(s);
    s->accept_timer = timer(s);
    s->watch_timer = timer(s);
    s->drain_timer = timer(s);
    uv_poll_t *poll = http_handle(s, sizeof *poll); /* s's own only once libuv knows it */
    int rc = poll && info ? uv_poll_init(loop, poll, info->epoll_fd) : UV_ENOMEM;
    if (rc) {
        s->handles -= poll != NULL;
        free(poll);
        poll = NULL;
    }
    s->mhd_poll = poll;
    if (!s->run_timer || !s->sweep_timer || !s->accept_timer || !s->watch_timer || !s->drain_timer || rc == UV_ENOMEM)
        return failed(s, NEAP_ERR_MEMORY, "out of memory", err, errlen);
    if (rc) return failed(s, NEAP_ERR_IO, "the loop cannot watch libmicrohttpd", err, errlen);
    s->mhd_poll->data = s;
    uv_poll_start(s->mhd_poll, UV_READABLE, on_epoll);
    if (http_accept_start(s)) return failed(s, NEAP_ERR_IO, "the loop cannot watch the listening socket", err, errlen);
    s->port = http_port_of(s->listen_fd);
    *out = s;
    return 0;
}
