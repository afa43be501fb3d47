/* http_conn.c: connections: phases with absolute deadlines, and noticing peers that leave.

   MHD's own timeout counts inactivity, so a client that drips a byte a second lives for ever; and a suspended connection gets neither timeout
   nor notice of disconnect. So every connection has a phase with an absolute end, swept by one timer that sleeps until the earliest one; and
   requests that take longer than WATCH_MS get a uv_poll for the peer's FIN. Ending is shutdown(): MHD sees it at once in every state and frees
   the connection itself. Loop thread only. */
#include "host/http_impl.h"
#include <sys/socket.h>

#define SWEEP_MIN_MS 100
#define WATCH_MS     20
#define SPIN_RUNS    64 /* runs without progress before we look for the connection that keeps MHD busy */
#define SPIN_MS      250
#define PEEK_MS      250
#define CUT_AGAIN_MS 500

/* Notes the connection under its descriptor. 0, or NEAP_ERR_MEMORY. */
static int place(neap_http *s, int fd, http_conn *k) {
    if (fd >= s->fd_cap) {
        int cap = fd + 64;
        http_conn **p = realloc(s->by_fd, (size_t)cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        memset(p + s->fd_cap, 0, (size_t)(cap - s->fd_cap) * sizeof *p);
        s->by_fd = p;
        s->fd_cap = cap;
    }
    s->by_fd[fd] = k;
    return 0;
}

void http_on_connection(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_ConnectionNotificationCode code) {
    neap_http *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        http_conn *k = calloc(1, sizeof *k);
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (!k || !info || place(s, info->connect_fd, k)) { /* no way to refuse here: on_access sees the missing context and closes */
            free(k);
            return;
        }
        k->s = s;
        k->mhd = c;
        k->fd = info->connect_fd;
        info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        if (info && info->client_addr) {
            sa_family_t family = info->client_addr->sa_family;
            memcpy(&k->addr, info->client_addr,
                   family == AF_INET    ? sizeof(struct sockaddr_in)
                   : family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                        : sizeof family);
        }
        k->next = s->conns;
        if (s->conns) s->conns->prev = k;
        s->conns = k;
        s->nconn++;
        *ctx = k;
        http_phase(k, HTTP_HEAD, s->c.head_ms);
        return;
    }
    http_conn *k = *ctx;
    *ctx = NULL;
    if (!k) return;
    if (k->req) http_over(k->req, 0);
    http_unwatch(k);
    s->by_fd[k->fd] = NULL;
    /* MHD answers some malformed heads by itself, and closes: a request was being read, and neither the peer nor we ended it. */
    if (k->phase <= HTTP_HEAD && k->heard && !k->ended && !k->cut && !s->closed) s->st.refused_bad++;
    if (k->linger && !s->tls && !s->closed) http_linger(s, k->fd);
    if (k->prev) k->prev->next = k->next;
    else s->conns = k->next;
    if (k->next) k->next->prev = k->prev;
    s->nconn--;
    s->progress++;
    free(k);
    if (s->draining) http_drain_check(s);
}

/* ---- deadlines ------------------------------------------------------------------------------------------------------- */

static void sweep_by(neap_http *s, uint64_t due) {
    if (!due || (s->sweep_at && s->sweep_at <= due)) return;
    s->sweep_at = due;
    uv_timer_start(s->sweep_timer, http_sweep, due - http_now(s), 0);
}

void http_phase(http_conn *k, enum http_phase p, unsigned ms) {
    k->phase = p;
    k->since = http_now(k->s);
    if (k->cut) return; /* http_cut has set when it is looked at again */
    k->limit = k->due = ms ? k->since + ms : 0;
    if (p <= HTTP_BODY && ms > PEEK_MS) k->due = k->since + PEEK_MS;
    sweep_by(k->s, k->due);
}

void http_stirs(http_conn *k, int head) {
    if (head) {
        http_phase(k, HTTP_HEAD, k->s->c.head_ms);
    } else if (!k->cut) {
        uint64_t due = http_now(k->s) + PEEK_MS;
        k->due = k->limit && k->limit < due ? k->limit : due;
        sweep_by(k->s, k->due);
    }
}

void http_cut(http_conn *k, int status) {
    if (k->cut) return;
    k->cut = 1;
    if (status && !k->s->tls && (k->phase == HTTP_HEAD || k->phase == HTTP_BODY)) {
        char text[2 * NEAP_HTTP_PROBLEM];
        int n = http_raw_error(text, sizeof text, status, status == 413 && k->req ? k->req->max_body : 0);
        if (send(k->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n) {
            k->s->st.answered++;
            k->s->answers[status - 100]++;
        }
        k->linger = 1;
    }
    /* With lingering the peer may still be writing: only our side ends, and the socket is read empty after MHD let go of it. From here on MHD reads
       nothing but the end (http_filter.c); should it miss that, it is told again. */
    shutdown(k->fd, k->linger ? SHUT_RD : SHUT_RDWR);
    k->s->need_run = 1;
    k->limit = k->due = http_now(k->s) + CUT_AGAIN_MS;
    sweep_by(k->s, k->due);
}

static void cut_again(http_conn *k, uint64_t now) {
    shutdown(k->fd, SHUT_RDWR);
    k->s->need_run = 1;
    k->limit = k->due = now + CUT_AGAIN_MS;
}

static void overdue(http_conn *k) {
    neap_http *s = k->s;
    neap_http_req *r = k->req;
    switch (k->phase) {
    case HTTP_IDLE: http_cut(k, 0); return;
    case HTTP_HEAD:
    case HTTP_BODY:
        s->st.timeouts++;
        http_cut(k, 408);
        return;
    case HTTP_HANDLER:
        s->st.timeouts++;
        if (!r) return;
        neap_http_ref(r);
        k->due = 0;
        if (!r->told) {
            r->told = 1;
            r->app.gone(r, NEAP_ERR_TIMEOUT, r->app.ud);
        }
        if (!r->answered) http_refuse(r, 503, "the handler took longer than its time limit");
        neap_http_unref(r);
        return;
    case HTTP_WRITE:
    case HTTP_STREAM:
        s->st.timeouts++;
        if (r) http_lost(r, NEAP_ERR_CLOSED);
        http_cut(k, 0);
        if (r) http_wake(r);
        return;
    }
}

/* Data and FIN that arrive together: 0.9.75 reads the data, takes a short read for "nothing more", and misses the end. So connections on which we
   wait are looked at: idle ones once, others about each second. */
static void peek(http_conn *k, uint64_t now) {
    char c;
    if (recv(k->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0) http_cut(k, 0);
    k->due = k->phase == HTTP_IDLE || k->limit < now + 1000 ? k->limit : now + 1000;
}

/* One pass over all connections: ends what is overdue, finds the next deadline. Ten thousand connections take ~0.1 ms. */
void http_sweep(uv_timer_t *t) {
    neap_http *s = t->data;
    uint64_t now = http_now(s), next = 0;
    for (http_conn *k = s->conns, *after; k; k = after) {
        after = k->next; /* http_cut frees nothing: MHD does in its next run */
        if (k->due && k->due <= now) {
            if (k->cut) cut_again(k, now);
            else if (k->limit <= now) {
                k->due = 0;
                overdue(k);
            } else peek(k, now);
        }
        if (k->due && (!next || k->due < next)) next = k->due;
    }
    http_linger_sweep(s, now);
    if (s->nlinger && (!next || next > now + 500)) next = now + 500;
    s->sweep_at = next;
    if (next) uv_timer_start(t, http_sweep, next < now + SWEEP_MIN_MS ? SWEEP_MIN_MS : next - now, 0);
}

/* A chunk-size line as long as the read buffer makes 0.9.75 ask to run again for ever without ever calling us. Found by its symptom: the daemon
   keeps wanting to run, nothing moves, and a chunked upload has had no call since. */
void http_spin_check(neap_http *s) {
    if (s->spins < SPIN_RUNS) return;
    uint64_t now = http_now(s);
    if (!s->spin_since) s->spin_since = now;
    if (now - s->spin_since < SPIN_MS) return;
    for (http_conn *k = s->conns; k; k = k->next)
        if (k->phase == HTTP_BODY && k->chunked && k->touched <= s->spin_since) {
            s->st.refused_bad++;
            http_cut(k, 400);
            shutdown(k->fd, SHUT_RDWR); /* its buffer is full: MHD would never read the end */
        }
    s->spins = 0;
    s->spin_since = 0;
}

/* ---- the peer leaves ------------------------------------------------------------------------------------------------- */

static void on_leave(uv_poll_t *p, int status, int events) {
    http_conn *k = p->data;
    neap_http_req *r = k->req;
    http_unwatch(k);
    if (!r) return;
    neap_http_ref(r);
    http_lost(r, NEAP_ERR_CLOSED);
    http_cut(k, 0);
    http_wake(r);
    neap_http_unref(r);
}

void http_watch(http_conn *k) {
    neap_http *s = k->s;
    if (k->watch || k->cut) return;
    k->watch = http_handle(s, sizeof *k->watch);
    if (!k->watch) return; /* the handler's deadline still ends it */
    if (uv_poll_init(s->loop, k->watch, k->fd)) {
        free(k->watch);
        k->watch = NULL;
        s->handles--;
        return;
    }
    k->watch->data = k;
    uv_poll_start(k->watch, UV_DISCONNECT, on_leave);
}

void http_unwatch(http_conn *k) {
    if (k->watch) http_close_handle(k->s, &k->watch);
}

static void on_watch_timer(uv_timer_t *t) {
    neap_http *s = t->data;
    uint64_t now = http_now(s);
    neap_http_req *r = s->flight_new; /* parked streams are behind us */
    for (; r && r->started + WATCH_MS <= now; r = r->next)
        if (r->conn) http_watch(r->conn);
    s->flight_new = r;
    if (r) uv_timer_start(t, on_watch_timer, WATCH_MS, 0);
}

/* Called when a request enters flight: fast ones never pay for a watcher. */
void http_watch_soon(neap_http *s) {
    if (!uv_is_active((uv_handle_t *)s->watch_timer)) uv_timer_start(s->watch_timer, on_watch_timer, WATCH_MS, 0);
}
