/* fetch.c: libcurl's multi interface driven by libuv: curl says which sockets and which timeout it wants, we tell it what happened. Callbacks of
   requests are called when curl's own functions have returned, so that a callback may start or cancel requests. */
#include "host/fetch.h"
#include "host/fetch_curl.h"

#define MAX_BODY (64u << 20)

struct neap_fetch_op {
    neap_fetch *f;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    size_t max_body;
    int full, starved; /* starved: its socket cannot be watched, it ends in the next turn */
    neap_fetch_cb cb;
    void *ud;
    neap_fetch_result res;
    char curl_message[CURL_ERROR_SIZE];
    neap_fetch_op *prev, *next;
};

struct neap_fetch {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t *timer;
    neap_fetch_op *ops;
    int handles, closed;
};

typedef struct watch {
    uv_poll_t poll;
    neap_fetch *f;
    curl_socket_t fd;
} watch;

static void maybe_free(neap_fetch *f) {
    if (f->closed && !f->handles) free(f);
}

static void on_closed(uv_handle_t *h) {
    neap_fetch *f = h->data;
    free(h);
    f->handles--;
    maybe_free(f);
}

static void close_handle(neap_fetch *f, uv_handle_t *h) {
    h->data = f;
    uv_close(h, on_closed);
}

static void op_free(neap_fetch_op *op) {
    neap_fetch *f = op->f;
    if (op->easy) {
        curl.multi_remove_handle(f->multi, op->easy);
        curl.easy_cleanup(op->easy);
    }
    curl.slist_free_all(op->headers);
    if (op->prev) op->prev->next = op->next;
    else f->ops = op->next;
    if (op->next) op->next->prev = op->prev;
    free(op->body);
    buf_free(&op->res.head);
    buf_free(&op->res.body);
    free(op);
}

static int code_of(const neap_fetch_op *op, CURLcode c) {
    if (op->full) return NEAP_ERR_FULL;
    switch (c) {
    case CURLE_OK: return 0;
    case CURLE_OPERATION_TIMEDOUT: return NEAP_ERR_TIMEOUT;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS: return NEAP_ERR_INVALID;
    case CURLE_OUT_OF_MEMORY: return NEAP_ERR_MEMORY;
    default: return NEAP_ERR_CONNECTION;
    }
}

static void finish(neap_fetch_op *op, int err) {
    neap_fetch_cb cb = op->cb;
    if (cb) cb(err, &op->res, op->ud);
    op_free(op);
}

/* Hands out what curl finished. One at a time: a callback may change the list. */
static void collect(neap_fetch *f) {
    CURLMsg *m;
    int left;
    while (!f->closed && (m = curl.multi_info_read(f->multi, &left))) {
        if (m->msg != CURLMSG_DONE) continue;
        neap_fetch_op *op = NULL;
        CURLcode c = m->data.result;
        CURL *easy = m->easy_handle;
        curl.easy_getinfo(easy, CURLINFO_PRIVATE, &op);
        long status = 0, size = 0;
        double t = 0;
        const char *url = NULL;
        curl.easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl.easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &size);
        curl.easy_getinfo(easy, CURLINFO_TOTAL_TIME, &t);
        curl.easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
        op->res.status = (int)status;
        op->res.sent = size > 0;
        op->res.seconds = t;
        snprintf(op->res.url, sizeof op->res.url, "%s", url ? url : "");
        int err = code_of(op, c);
        if (err == NEAP_ERR_FULL) snprintf(op->res.message, sizeof op->res.message, "the answer is larger than %zu bytes", op->max_body);
        else if (err) snprintf(op->res.message, sizeof op->res.message, "%.255s", op->curl_message[0] ? op->curl_message : curl.easy_strerror(c));
        finish(op, err);
    }
}

/* ---- curl asks, libuv answers ------------------------------------------------------------------------------------------ */

static void on_socket(uv_poll_t *p, int status, int events) {
    watch *w = (watch *)p;
    neap_fetch *f = w->f;
    int flags = status < 0 ? CURL_CSELECT_ERR : (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    int running;
    curl.multi_socket_action(f->multi, w->fd, flags, &running);
    collect(f);
}

static void on_timer(uv_timer_t *t);

/* An error here would make the whole of `multi` unusable: only the request whose socket it is ends, once curl has returned. */
static void starve(neap_fetch *f, CURL *easy) {
    neap_fetch_op *op = NULL;
    curl.easy_getinfo(easy, CURLINFO_PRIVATE, &op);
    if (op) op->starved = 1;
    uv_timer_start(f->timer, on_timer, 0, 0);
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *ud, void *assigned) {
    neap_fetch *f = ud;
    watch *w = assigned;
    if (what == CURL_POLL_REMOVE) {
        if (w) {
            curl.multi_assign(f->multi, fd, NULL);
            close_handle(f, (uv_handle_t *)&w->poll);
        }
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w || uv_poll_init_socket(f->loop, &w->poll, fd)) {
            free(w);
            starve(f, easy);
            return 0;
        }
        w->f = f;
        w->fd = fd;
        f->handles++;
        curl.multi_assign(f->multi, fd, w);
    }
    uv_poll_start(&w->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0), on_socket);
    return 0;
}

static void on_timer(uv_timer_t *t) {
    neap_fetch *f = t->data;
    int running;
    curl.multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(f);
    for (neap_fetch_op *op = f->closed ? NULL : f->ops; op; op = op->next)
        if (op->starved) {
            finish(op, NEAP_ERR_MEMORY);
            if (!f->closed) uv_timer_start(t, on_timer, 0, 0); /* the callback may have changed the list: look again */
            break;
        }
}

static int want_timer(CURLM *multi, long ms, void *ud) {
    neap_fetch *f = ud;
    if (!f->timer) return 0;
    for (neap_fetch_op *op = f->ops; op; op = op->next)
        if (op->starved) ms = 0;
    if (ms < 0) uv_timer_stop(f->timer);
    else {
        uv_update_time(f->loop);
        uv_timer_start(f->timer, on_timer, (uint64_t)ms, 0);
    }
    return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *ud) {
    neap_fetch_op *op = ud;
    if (op->res.body.len + n > op->max_body) {
        op->full = 1;
        return 0;
    }
    return buf_add(&op->res.body, p, n) ? 0 : n;
}

static size_t on_header(char *p, size_t size, size_t n, void *ud) {
    neap_fetch_op *op = ud;
    size_t len = n;
    while (len && (p[len - 1] == '\n' || p[len - 1] == '\r')) len--;
    if (len > 5 && !memcmp(p, "HTTP/", 5)) { /* another answer begins: 100, a redirect */
        buf_clear(&op->res.head);
        return n;
    }
    if (len && (buf_add(&op->res.head, p, len) || buf_putc(&op->res.head, '\n'))) return 0;
    return n;
}

/* ---- the interface --------------------------------------------------------------------------------------------------------- */

neap_fetch *neap_fetch_new(uv_loop_t *loop) {
    if (!curl_load()) return NULL;
    neap_fetch *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->loop = loop;
    f->multi = curl.multi_init();
    f->timer = calloc(1, sizeof *f->timer);
    if (!f->multi || !f->timer) {
        if (f->multi) curl.multi_cleanup(f->multi);
        free(f->timer);
        free(f);
        return NULL;
    }
    uv_timer_init(loop, f->timer);
    f->timer->data = f;
    f->handles = 1;
    curl.multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl.multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
    curl.multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl.multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
    curl.multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, 16L);
    return f;
}

void neap_fetch_free(neap_fetch *f) {
    if (!f || f->closed) return;
    f->closed = 1;
    f->handles++; /* callbacks below must not free f */
    while (f->ops) {
        snprintf(f->ops->res.message, sizeof f->ops->res.message, "the client was closed");
        finish(f->ops, NEAP_ERR_CLOSED);
    }
    curl.multi_cleanup(f->multi);
    uv_handle_t *t = (uv_handle_t *)f->timer;
    f->timer = NULL;
    close_handle(f, t);
    f->handles--;
    maybe_free(f);
}

int neap_fetch_start(neap_fetch *f, const neap_fetch_request *q, neap_fetch_cb cb, void *ud, neap_fetch_op **out) {
    if (f->closed) return NEAP_ERR_CLOSED;
    neap_fetch_op *op = calloc(1, sizeof *op);
    if (!op) return NEAP_ERR_MEMORY;
    op->f = f;
    op->cb = cb;
    op->ud = ud;
    op->max_body = q->max_body ? q->max_body : MAX_BODY;
    op->next = f->ops;
    if (f->ops) f->ops->prev = op;
    f->ops = op;
    CURL *e = op->easy = curl.easy_init();
    int bad = !e;
    for (int i = 0; i < q->nheaders && !bad; i++) {
        struct curl_slist *l = curl.slist_append(op->headers, q->headers[i]);
        if (l) op->headers = l;
        else bad = 1;
    }
    /* No "Expect: 100-continue": it costs a round trip. */
    struct curl_slist *l = bad ? NULL : curl.slist_append(op->headers, "Expect:");
    if (l) op->headers = l;
    else bad = 1;
    if (!bad && q->body && !(op->body = malloc(q->body_len + 1))) bad = 1;
    if (bad) {
        op_free(op);
        return NEAP_ERR_MEMORY;
    }
    if (q->body) {
        memcpy(op->body, q->body, q->body_len);
        curl.easy_setopt(e, CURLOPT_POSTFIELDS, op->body);
        curl.easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
    }
    if (!strcmp(q->method, "HEAD")) curl.easy_setopt(e, CURLOPT_NOBODY, 1L);
    else if (q->body || strcmp(q->method, "GET")) curl.easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method);
    curl.easy_setopt(e, CURLOPT_URL, q->url);
    curl.easy_setopt(e, CURLOPT_HTTPHEADER, op->headers);
    curl.easy_setopt(e, CURLOPT_PRIVATE, op);
    curl.easy_setopt(e, CURLOPT_ERRORBUFFER, op->curl_message);
    curl.easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl.easy_setopt(e, CURLOPT_WRITEDATA, op);
    curl.easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl.easy_setopt(e, CURLOPT_HEADERDATA, op);
    curl.easy_setopt(e, CURLOPT_TIMEOUT_MS, q->timeout_ms ? q->timeout_ms : 30000L);
    curl.easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, q->connect_ms ? q->connect_ms : 10000L);
    curl.easy_setopt(e, CURLOPT_ACCEPT_ENCODING, ""); /* all that curl can undo */
    curl.easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl.easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#endif
    if (q->unix_path) curl.easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, q->unix_path);
    if (q->follow > 0) {
        curl.easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
        curl.easy_setopt(e, CURLOPT_MAXREDIRS, (long)q->follow);
    }
    if (q->insecure) {
        curl.easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        curl.easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (q->ca_file) curl.easy_setopt(e, CURLOPT_CAINFO, q->ca_file);
    if (curl.multi_add_handle(f->multi, e)) {
        curl.easy_cleanup(e);
        op->easy = NULL;
        op_free(op);
        return NEAP_ERR_MEMORY;
    }
    if (out) *out = op;
    return 0;
}

void neap_fetch_cancel(neap_fetch_op *op) {
    op->cb = NULL;
    op_free(op);
}
