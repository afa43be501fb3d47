/* http_request.c: a request from its first byte to its hand-over: MHD's callbacks, the body, the caps, and the ends a request can have.

   MHD calls on_uri (request line seen), on_access once when the head is complete, once for each piece of body, and again when all is there: then
   the request is dispatched. Until it is answered the connection is suspended, or, lazily, just left without an answer for a few more calls (it saves
   two epoll_ctl and an empty recv a request; http_selftest.c checks that this MHD allows it). Loop thread only. */
#include "host/http_impl.h"
#include <arpa/inet.h>
#include <strings.h>

#define POOL_MAX   256
#define KEEP_BYTES 16384 /* a pooled request keeps a body buffer up to this size */
#define SMALL_BODY 65536 /* such bodies may use the reserve above max_bodies */
#define RECALLS    32    /* lazy answers MHD may ask for before the request is suspended */

neap_http_req *neap_http_ref(neap_http_req *r) {
    r->refs++;
    return r;
}

static void uncharge(neap_http_req *r) {
    if (!r->s) return;
    r->s->st.body_bytes -= r->charged;
    r->charged = 0;
}

void neap_http_unref(neap_http_req *r) {
    if (--r->refs) return;
    neap_http *s = r->s;
    uncharge(r);
    buf_free(&r->out);
    if (r->fake) http_fake_free(r);
    if (s && s->nfree < POOL_MAX && !s->closed) {
        neap_buf body = r->body, target = r->target;
        if (body.cap > KEEP_BYTES) buf_free(&body);
        memset(r, 0, sizeof *r);
        r->body = body;
        r->target = target;
        r->next = s->free_reqs;
        s->free_reqs = r;
        s->nfree++;
    } else {
        buf_free(&r->body);
        buf_free(&r->target);
        free(r);
    }
    if (s) http_server_unref(s);
}

static neap_http_req *request_new(neap_http *s) {
    neap_http_req *r = s->free_reqs;
    if (r) {
        s->free_reqs = r->next;
        s->nfree--;
        r->next = NULL;
    } else if (!(r = calloc(1, sizeof *r))) return NULL;
    r->s = s;
    s->refs++;
    r->refs = 1;
    r->id = ++s->next_id;
    r->max_body = s->c.max_body;
    buf_clear(&r->body);
    buf_clear(&r->target);
    return r;
}

void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *c) {
    neap_http *s = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_conn *k = info ? info->socket_context : NULL;
    neap_http_req *r = k ? request_new(s) : NULL;
    s->progress++;
    if (!r) return NULL;
    r->conn = k;
    r->mhd = c;
    k->req = r;
    k->touched = http_now(s);
    if (!uri || buf_puts(&r->target, uri)) r->bad = 1;
    r->raw = uri;
    r->raw_len = r->target.len;
    if (k->used && k->phase != HTTP_HEAD) http_phase(k, HTTP_HEAD, s->c.head_ms);
    k->used = 1;
    return r;
}

/* ---- in flight: dispatched, not answered ------------------------------------------------------------------------------ */

static void flight_begin(neap_http_req *r) {
    neap_http *s = r->s;
    r->in_flight = 1;
    r->started = http_now(s);
    r->prev = s->flight_tail;
    if (s->flight_tail) s->flight_tail->next = r;
    else s->flight_head = r;
    s->flight_tail = r;
    if (!s->flight_new) s->flight_new = r;
    s->st.in_flight++;
    neap_http_ref(r);
    http_watch_soon(s);
}

void http_flight_end(neap_http_req *r) {
    neap_http *s = r->s;
    if (!r->in_flight) return;
    r->in_flight = 0;
    if (r->prev) r->prev->next = r->next;
    else s->flight_head = r->next;
    if (r->next) r->next->prev = r->prev;
    else s->flight_tail = r->prev;
    if (s->flight_new == r) s->flight_new = r->next;
    r->prev = r->next = NULL;
    s->st.in_flight--;
    if (r->pending) {
        r->pending = 0;
        s->pending--;
    }
    neap_http_unref(r);
}

/* The request ends without (the rest of) its answer. The caller holds a reference. */
void http_lost(neap_http_req *r, int why) {
    r->bad = 1;
    if (r->dispatched && !r->told && (!r->answered || (r->streaming && !r->ended))) {
        r->told = 1;
        r->s->st.gone++;
        r->app.gone(r, why, r->app.ud);
    }
    r->answered = 1;
    http_flight_end(r);
}

void http_wake(neap_http_req *r) {
    r->s->need_run = 1;
    if (r->suspended && r->mhd) {
        r->suspended = 0;
        MHD_resume_connection(r->mhd);
    }
}

/* MHD has done with the request, sent or not. */
void http_over(neap_http_req *r, int sent) {
    http_conn *k = r->conn;
    r->s->progress++;
    r->conn = NULL;
    r->mhd = NULL;
    r->suspended = 0;
    if (k) {
        k->req = NULL;
        k->heard = 0;
        http_unwatch(k);
        http_phase(k, HTTP_IDLE, r->s->c.idle_ms);
    }
    if (r->streaming && sent) r->ended = 1;
    http_lost(r, NEAP_ERR_CLOSED);
    neap_http_unref(r);
}

void http_on_completed(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode code) {
    if (*ctx) http_over(*ctx, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    *ctx = NULL;
}

/* ---- head and body ------------------------------------------------------------------------------------------------------ */

static enum MHD_Result first_call(neap_http *s, neap_http_req *r, const char *url, const char *method, const char *version) {
    http_conn *k = r->conn;
    k->heard = 0;
    const char *why = "the request line cannot be read";
    int status = r->bad ? 400 : http_guard(s, r, url, method, version, &why);
    if (status) {
        s->st.refused_bad++;
        return http_refuse(r, status, why);
    }
    r->app = s->c.app;
    if (r->app.head && (status = r->app.head(r, r->app.ud))) return http_refuse(r, status, "");
    uint64_t n = r->body_len;
    if (n > r->max_body) {
        s->st.refused_big++;
        return http_refuse(r, 413, "the body is larger than this server takes");
    }
    size_t cap = s->c.max_bodies + (n <= SMALL_BODY ? s->c.max_bodies / 4 : 0);
    if ((n || k->chunked) && s->st.body_bytes + n > cap) {
        s->st.refused_full++;
        return http_refuse(r, 503, "too many bodies are in flight, try again");
    }
    if (n || k->chunked) http_phase(k, HTTP_BODY, s->c.body_ms);
    return MHD_YES;
}

static enum MHD_Result body_piece(neap_http *s, neap_http_req *r, const char *data, size_t n) {
    int status = 0;
    if (r->body.len + n > r->max_body) {
        s->st.refused_big++;
        status = 413;
    } else if (s->st.body_bytes + n > s->c.max_bodies + (r->body.len + n <= SMALL_BODY ? s->c.max_bodies / 4 : 0) || buf_add(&r->body, data, n)) {
        s->st.refused_full++;
        status = 503;
    }
    if (status) { /* MHD cannot answer in the middle of an upload: the answer goes out by hand, then the connection is cut */
        http_cut(r->conn, status);
        return MHD_NO;
    }
    r->slow_bytes += n; /* honest slow links get time for what they did send: 4 KiB are worth a second */
    r->conn->limit += r->slow_bytes / 4;
    r->slow_bytes %= 4;
    r->charged += n;
    s->st.body_bytes += n;
    s->st.bytes_in += n;
    return MHD_YES;
}

enum MHD_Result http_on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data,
                               size_t *size, void **ctx) {
    neap_http *s = cls;
    neap_http_req *r = *ctx;
    if (!r || s->closed) return MHD_NO;
    http_conn *k = r->conn;
    k->touched = http_now(s);
    if (!r->checked) {
        r->checked = 1;
        s->progress++;
        return first_call(s, r, url, method, version);
    }
    if (r->bad) return MHD_NO;
    if (*size) {
        enum MHD_Result ok = body_piece(s, r, data, *size);
        *size = 0;
        s->progress++;
        return ok;
    }
    if (!r->dispatched) {
        r->dispatched = 1;
        r->app = s->c.app; /* it may have been exchanged while the body came */
        s->progress++;
        s->st.requests++;
        int ms = r->handler_ms ? r->handler_ms : (int)s->c.handler_ms;
        http_phase(k, HTTP_HANDLER, ms > 0 ? (unsigned)ms : 0);
        flight_begin(r);
        r->app.dispatch(r, r->app.ud);
        if (r->answered) return MHD_YES;
        if (s->lazy) {
            r->pending = 1;
            s->pending++;
        }
    }
    if (r->answered) return MHD_YES;
    if (s->lazy && r->recalls++ < RECALLS) return MHD_YES;
    if (r->pending) {
        r->pending = 0;
        s->pending--;
    }
    r->suspended = 1;
    MHD_suspend_connection(c);
    return MHD_YES;
}

/* ---- what the dispatcher asks ------------------------------------------------------------------------------------------- */

neap_http *neap_http_server(neap_http_req *r) { return r->s; }
const char *neap_http_method(const neap_http_req *r) { return r->method_copy; }
uint64_t neap_http_id(const neap_http_req *r) { return r->id; }
void *neap_http_data(neap_http_req *r) { return r->data; }
void neap_http_set_data(neap_http_req *r, void *data) { r->data = data; }

const char *neap_http_path(const neap_http_req *r, size_t *len) {
    *len = r->path_len;
    return r->target.data + r->path_off;
}

const char *neap_http_query(const neap_http_req *r, size_t *len) {
    *len = r->query_len;
    return r->query_len ? r->target.data + r->query_off : "";
}

int neap_http_answered(const neap_http_req *r) { return r->answered; }
int neap_http_streaming(const neap_http_req *r) { return r->streaming && !r->ended && !r->bad; }

const char *neap_http_header(neap_http_req *r, const char *name) {
    if (r->fake) return http_fake_lookup(r, name);
    if (!r->mhd || !(r->names & http_name_bit(name, strlen(name)))) return NULL;
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

struct each {
    void (*f)(void *ud, const char *name, const char *value);
    void *ud;
};

static enum MHD_Result each_one(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
    struct each *e = cls;
    e->f(e->ud, key, value ? value : "");
    return MHD_YES;
}

void neap_http_each_header(neap_http_req *r, void (*f)(void *ud, const char *name, const char *value), void *ud) {
    struct each e = {f, ud};
    if (r->fake) http_fake_each(r, f, ud);
    if (r->mhd) MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, each_one, &e);
}

const char *neap_http_body(neap_http_req *r, size_t *len) {
    *len = r->body.len;
    return r->body.data ? r->body.data : "";
}

void neap_http_drop_body(neap_http_req *r) {
    uncharge(r);
    if (r->lent) return;
    if (r->body.cap > KEEP_BYTES) buf_free(&r->body);
    else buf_clear(&r->body);
}

void neap_http_lend_body(neap_http_req *r) {
    uncharge(r);
    r->lent++;
    neap_http_ref(r);
}

void neap_http_return_body(neap_http_req *r) {
    r->lent--;
    neap_http_unref(r);
}

const char *neap_http_peer(neap_http_req *r, int *loopback) {
    if (!r->peer[0] && r->conn) {
        const struct sockaddr_storage *a = &r->conn->addr;
        const unsigned char *v4 = NULL;
        if (a->ss_family == AF_INET) v4 = (const void *)&((const struct sockaddr_in *)a)->sin_addr;
        else if (a->ss_family == AF_INET6) {
            const struct in6_addr *v6 = &((const struct sockaddr_in6 *)a)->sin6_addr;
            if (IN6_IS_ADDR_V4MAPPED(v6)) v4 = v6->s6_addr + 12;
            else {
                inet_ntop(AF_INET6, v6, r->peer, sizeof r->peer - 1);
                r->loopback = IN6_IS_ADDR_LOOPBACK(v6);
            }
        } else {
            strcpy(r->peer, "unix");
            r->loopback = 1;
        }
        if (v4) {
            inet_ntop(AF_INET, v4, r->peer, sizeof r->peer - 1);
            r->loopback = v4[0] == 127;
        }
    }
    if (loopback) *loopback = r->loopback;
    return r->peer;
}

void neap_http_limit(neap_http_req *r, size_t max_body, int handler_ms) {
    if (max_body) r->max_body = max_body;
    if (handler_ms) {
        r->handler_ms = handler_ms;
        if (r->conn && r->conn->phase == HTTP_HANDLER) http_phase(r->conn, HTTP_HANDLER, handler_ms > 0 ? (unsigned)handler_ms : 0);
    }
}
