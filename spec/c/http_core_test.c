/* http_core_test.c: the HTTP server core over real loopback sockets: guard, splits, pipelining, deadlines, caps, leaving clients, streams, drain.
   The server runs on a plain uv loop in a thread of its own; the clients are blocking sockets in the main thread. */
#include "spec/c/test.h"
#include "host/http.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- the server ---------------------------------------------------------------------------------------------------- */

struct server {
    pthread_t thread;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_async_t async;
    neap_http *http;
    neap_http_config c;
    int port;
    atomic_int gone, gone_timeout, drained, want; /* want: 1 drain, 2 close, 3 swap */
    neap_http_req *held[64];
    int nheld;
    int streams_left;
    char err[200];
};

struct later {
    uv_timer_t t;
    neap_http_req *r;
    int left;
};

static void later_closed(uv_handle_t *h) { free(h); }

static void later_fire(uv_timer_t *t) {
    struct later *l = (struct later *)t;
    neap_http_header_kv h = {"X-Late", "yes"};
    neap_http_respond(l->r, 200, &h, 1, "later", 5, NEAP_HTTP_STATIC);
    neap_http_unref(l->r);
    uv_close((uv_handle_t *)t, later_closed);
}

static void stream_more(neap_http_req *r, void *ud) {
    struct server *s = ud;
    static char block[10000];
    memset(block, 'x', sizeof block);
    int e = 0;
    while (s->streams_left > 0 && !e) {
        s->streams_left--;
        e = neap_http_stream_write(r, block, sizeof block);
    }
    if (s->streams_left == 0 && !e) {
        s->streams_left = -1;
        neap_http_stream_end(r);
        neap_http_unref(r);
    }
}

static int path_is(neap_http_req *r, const char *want) {
    size_t n;
    const char *p = neap_http_path(r, &n);
    return n == strlen(want) && !memcmp(p, want, n);
}

static void dispatch(neap_http_req *r, void *ud) {
    struct server *s = ud;
    size_t n;
    size_t path_len;
    const char *path = neap_http_path(r, &path_len), *body = neap_http_body(r, &n);
    if (path_is(r, "/later")) {
        struct later *l = calloc(1, sizeof *l);
        uv_timer_init(&s->loop, &l->t);
        l->r = neap_http_ref(r);
        size_t qn;
        const char *q = neap_http_query(r, &qn);
        uv_timer_start(&l->t, later_fire, qn ? (uint64_t)atoi(q) : 1, 0);
    } else if (path_is(r, "/echo")) neap_http_respond(r, 200, NULL, 0, body, n, NEAP_HTTP_COPY);
    else if (path_is(r, "/hold")) {
        neap_http_set_data(r, s);
        s->held[s->nheld++] = neap_http_ref(r);
    } else if (path_is(r, "/stream")) {
        neap_http_header_kv h = {"Content-Type", "text/plain"};
        s->streams_left = 100;
        neap_http_ref(r);
        neap_http_stream(r, 200, &h, 1, stream_more, s);
        stream_more(r, s);
    } else if (path_is(r, "/sse")) {
        s->held[s->nheld++] = neap_http_ref(r);
        neap_http_stream(r, 200, NULL, 0, NULL, NULL);
        neap_http_stream_write(r, "data: hello\n\n", 13);
    } else if (path_is(r, "/stats")) {
        neap_http_stats st;
        char text[300];
        neap_http_get_stats(s->http, &st);
        snprintf(text, sizeof text, "open=%u in_flight=%u body_bytes=%zu bad=%d gone=%d requests=%d full=%d\n", st.open, st.in_flight, st.body_bytes,
                 (int)st.refused_bad, (int)st.gone, (int)st.requests, (int)st.refused_full);
        neap_http_respond(r, 200, NULL, 0, text, strlen(text), NEAP_HTTP_COPY);
    } else if (path_is(r, "/path") || memchr(path, NEAP_HTTP_SLASH, path_len)) {
        neap_http_respond(r, 200, NULL, 0, path, path_len, NEAP_HTTP_COPY);
    } else if (path_is(r, "/bad-header")) {
        neap_http_header_kv h = {"X-A", "one\r\nX-B: two"};
        int e = neap_http_respond(r, 200, &h, 1, "", 0, NEAP_HTTP_STATIC);
        neap_http_respond(r, e == NEAP_ERR_INVALID ? 200 : 500, NULL, 0, "refused", 7, NEAP_HTTP_STATIC);
    } else {
        int loopback = 0;
        const char *peer = neap_http_peer(r, &loopback);
        neap_http_header_kv h[] = {{"X-Peer", peer}, {"X-Agent", neap_http_header(r, "user-agent") ? neap_http_header(r, "user-agent") : ""}};
        neap_http_respond(r, loopback ? 200 : 500, h, 2, "hello", 5, NEAP_HTTP_STATIC);
    }
}

static void gone(neap_http_req *r, int why, void *ud) {
    struct server *s = ud;
    if (why == NEAP_ERR_TIMEOUT) s->gone_timeout++;
    else s->gone++;
    if (path_is(r, "/stream")) neap_http_unref(r);
    for (int i = 0; i < s->nheld; i++)
        if (s->held[i] == r) {
            s->held[i] = s->held[--s->nheld];
            neap_http_unref(r);
            break;
        }
}

static void turn(uv_prepare_t *p) {
    struct server *s = p->data;
    for (int i = 0; i < 10 && neap_http_turn(s->http); i++) {}
}

static void on_drained(neap_http *h, void *ud) { ((struct server *)ud)->drained = 1; }

static void on_async(uv_async_t *a) {
    struct server *s = a->data;
    int want = s->want;
    s->want = 0;
    if (want == 1) neap_http_drain(s->http, 3000, on_drained, s);
    if (want == 2) {
        neap_http_close(s->http);
        while (s->nheld) neap_http_unref(s->held[--s->nheld]);
        uv_close((uv_handle_t *)a, NULL);
        uv_close((uv_handle_t *)&s->prepare, NULL);
    }
    if (want == 4)
        for (int i = 0; i < s->nheld; i++) neap_http_stream_write(s->held[i], "data: more\n\n", 12);
}

static void ask(struct server *s, int what) {
    s->want = what;
    uv_async_send(&s->async);
}

static void *serve(void *arg) {
    struct server *s = arg;
    uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int start(struct server *s) {
    int port = 0;
    if (neap_http_listen("127.0.0.1", &port, 0, 0, &s->c.listen_fd, s->err, sizeof s->err)) return -1;
    uv_loop_init(&s->loop);
    s->c.app = (neap_http_app){dispatch, gone, NULL, s};
    if (neap_http_open(&s->loop, &s->c, &s->http, s->err, sizeof s->err)) return -1;
    s->port = neap_http_port(s->http);
    s->prepare.data = s->async.data = s;
    uv_prepare_init(&s->loop, &s->prepare);
    uv_prepare_start(&s->prepare, turn);
    uv_async_init(&s->loop, &s->async, on_async);
    return pthread_create(&s->thread, NULL, serve, s);
}

static void stop(struct server *s) {
    ask(s, 2);
    pthread_join(s->thread, NULL);
    CHECK(uv_loop_close(&s->loop) == 0, "every handle of the server is closed");
}

/* ---- clients --------------------------------------------------------------------------------------------------------- */

static int dial(struct server *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int put(int fd, const char *p, size_t n) { return send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n; }

static int say(int fd, const char *text) { return put(fd, text, strlen(text)); }

/* Reads until the peer closes or `answers` bodies ended (by counting "HTTP/1.1 " and Content-Length). Returns the length, -1 on timeout. */
static char answer_buf[4 << 20];
static int read_all(int fd) {
    int n = 0;
    for (;;) {
        ssize_t k = recv(fd, answer_buf + n, sizeof answer_buf - 1 - (size_t)n, 0);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -1;
        if (k <= 0) break;
        n += (int)k;
    }
    answer_buf[n] = 0;
    return n;
}

static int read_answer(int fd) { /* one answer with a Content-Length */
    int n = 0;
    answer_buf[0] = 0;
    for (;;) {
        char *end = strstr(answer_buf, "\r\n\r\n");
        if (end) {
            char *cl = strcasestr(answer_buf, "content-length:");
            int want = (int)(end - answer_buf) + 4 + (cl && cl < end ? atoi(cl + 15) : 0);
            if (n >= want) return n;
        }
        ssize_t k = recv(fd, answer_buf + n, sizeof answer_buf - 1 - (size_t)n, 0);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? -1 : n;
        n += (int)k;
        answer_buf[n] = 0;
    }
}

static int code_of(void) { return !strncmp(answer_buf, "HTTP/1.1 ", 9) ? atoi(answer_buf + 9) : 0; }

static int count_answers(void) {
    int n = 0;
    for (char *p = answer_buf; (p = strstr(p, "HTTP/1.1 ")); p += 9) n++;
    return n;
}

/* One request on a connection of its own; returns the status, 0 if closed without one, -1 on a hang. */
static int once(struct server *s, const char *text, size_t n) {
    int fd = dial(s);
    if (fd < 0) return -2;
    put(fd, text, n);
    int k = read_answer(fd);
    close(fd);
    return k < 0 ? -1 : code_of();
}
#define ONCE(s, lit) once(s, lit, sizeof(lit) - 1)

static long stat_of(struct server *s, const char *name) {
    char key[32];
    if (ONCE(s, "GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") != 200) return -1;
    snprintf(key, sizeof key, "%s=", name);
    char *p = strstr(answer_buf, key);
    return p ? atol(p + strlen(key)) : -1;
}

static void nap(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }
#define EVENTUALLY(cond)                                                                                                                             \
    do {                                                                                                                                             \
        for (int i_ = 0; i_ < 1000 && !(cond); i_++) nap(10);                                                                                        \
        CHECK(cond);                                                                                                                                 \
    } while (0)

/* ---- the checks ------------------------------------------------------------------------------------------------------ */

static void check_basics(struct server *s) {
    CHECK(ONCE(s, "GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n") == 200);
    CHECK(strstr(answer_buf, "X-Peer: 127.0.0.1\r\n") && strstr(answer_buf, "X-Agent: me\r\n"));
    CHECK(ONCE(s, "GET /later?30 HTTP/1.1\r\nHost: a\r\n\r\n") == 200 && strstr(answer_buf, "X-Late: yes"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde") == 200 && strstr(answer_buf, "\r\n\r\nabcde"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == 200 &&
          strstr(answer_buf, "\r\n\r\nabcde"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") == 200);
    CHECK(ONCE(s, "GET http://other/path HTTP/1.1\r\nHost: a\r\n\r\n") == 200 && strstr(answer_buf, "\r\n\r\n/path"));
    CHECK(ONCE(s, "GET /a%2Fb%41 HTTP/1.1\r\nHost: a\r\n\r\n") == 200 && strstr(answer_buf, "\r\n\r\n/a\xff"
                                                                                            "bA"));
    CHECK(ONCE(s, "GET /bad-header HTTP/1.1\r\nHost: a\r\n\r\n") == 200 && strstr(answer_buf, "refused"),
          "an answer header with a line break is refused");
    CHECK(ONCE(s, "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") == 200);
    int fd = dial(s);
    say(fd, "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    int n = read_all(fd), xs = 0;
    for (int i = 0; i < n; i++) xs += answer_buf[i] == 'x';
    CHECK(xs >= 1000000 && xs < 1000010, "the stream came whole (%d)", xs);
    close(fd);
}

static void check_guard(struct server *s) {
    static const struct {
        const char *name, *text;
        size_t n;
        int also;
    } bad[] = {
#define BAD(name, text) {name, text, sizeof(text) - 1, 0}
        BAD("CL+TE", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("TE+CL", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        BAD("two CL", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
        BAD("two equal CL", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
        BAD("CL list", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nabcde"),
        BAD("CL +5", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde"),
        BAD("CL -5", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nabcde"),
        BAD("CL 0x5", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nabcde"),
        BAD("CL empty", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        BAD("CL NUL", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\0\r\n\r\nabcde"),
        BAD("TE gzip", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        BAD("TE xchunked", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        BAD("TE gzip, chunked", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        BAD("TE chunked, identity", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        BAD("TE empty", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
        BAD("TE twice", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("TE folded name", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Enc: chunked\r\n oding\r\n\r\n0\r\n\r\n"),
        BAD("TE in 1.0", "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        BAD("no Host", "GET / HTTP/1.1\r\nAccept: a\r\n\r\n"),
        BAD("Host a b", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        BAD("Host a/b", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        BAD("Host a@b", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        BAD("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        BAD("space before colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n"),
        BAD("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        BAD("8-bit name", "GET / HTTP/1.1\r\nHost: a\r\nX-\xe4: b\r\n\r\n"),
        BAD("DEL in name", "GET / HTTP/1.1\r\nHost: a\r\nX-\x7f: b\r\n\r\n"),
        BAD("bracket in name", "GET / HTTP/1.1\r\nHost: a\r\nX(a): b\r\n\r\n"),
        BAD("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
        BAD("NUL in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n"),
        BAD("NUL in name", "GET / HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n"),
        BAD("bare CR in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n"),
        BAD("control in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x01\r\n\r\n"),
        BAD("DEL in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x7f\r\n\r\n"),
        BAD("folded value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\nX-B: d\r\n\r\n"),
        BAD("folded last value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"),
        BAD("leading space", "GET / HTTP/1.1\r\n Host: a\r\nX-B: d\r\n\r\n"),
        BAD("bare LF", "GET / HTTP/1.1\r\nHost: a\nX-B: d\r\n\r\n"),
        BAD("bare LF at last", "GET / HTTP/1.1\r\nHost: a\r\nX-B: d\n\r\n"),
        BAD("bare LF line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        BAD("%00", "GET /health%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("%00 in query", "GET /x?a=%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("%zz", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("% at the end", "GET /a% HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("%4 at the end", "GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("two spaces", "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("tab in target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("NUL in target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("NUL in method", "GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("method (", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("star", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        /* A second request rides along: it must not be answered. */
        char text[1024];
        memcpy(text, bad[i].text, bad[i].n);
        size_t n = bad[i].n + (size_t)sprintf(text + bad[i].n, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        int fd = dial(s);
        put(fd, text, n);
        int got = read_all(fd);
        CHECK(got >= 0, "%s: hangs", bad[i].name);
        CHECK(got > 0 && code_of() == 400, "%s: %.60s", bad[i].name, answer_buf);
        CHECK(!strstr(answer_buf, "HTTP/1.1 2") && !strstr(answer_buf, "hello"), "%s: the smuggled request ran", bad[i].name);
        CHECK(got <= 0 || strcasestr(answer_buf, "connection: close"), "%s: says close", bad[i].name);
        close(fd);
    }
    CHECK(ONCE(s, "GET / HTTP/1.1\r\nHost: a\r\nX-A:b\r\nX-C:\t d \r\nX-D:\r\n\r\n") == 200, "odd but valid spacing is served");
    CHECK(ONCE(s, "GET / HTTP/1.1\r\nHost: [::1]:80\r\nX-A: \xc3\xa4\r\n\r\n") == 200, "8-bit values are served");
    CHECK(ONCE(s, "GET / HTTP/1.0\r\n\r\n") == 200, "HTTP/1.0 without headers is served");
    CHECK(ONCE(s, "GET /x?a=b%20c&d HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=d\r\n\r\n") == 200);
    CHECK(ONCE(s, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") == 200);
    CHECK(ONCE(s, "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\nHost: a\r\n\r\n") == 501);
}

static void check_splits(struct server *s) {
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: example:80\r\nAccept: */*\r\nCookie: a=b\r\nContent-Type: "
                               "application/json\r\nContent-Length: 10\r\n\r\n0123456789"
                               "POST /echo?x=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n"
                               "GET /later?1 HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    unsigned seed = 12345;
    for (int round = 0; round < 60; round++) {
        int fd = dial(s), cuts = round % 6;
        size_t at = 0, n = sizeof text - 1;
        for (int i = 0; i <= cuts; i++) {
            seed = seed * 1103515245u + 12345u;
            size_t to = i == cuts ? n : at + (seed >> 8) % (n - at);
            if (to > at) put(fd, text + at, to - at);
            at = to;
            if (i < cuts) nap(1);
        }
        int got = read_all(fd);
        CHECK(got > 0 && count_answers() == 4, "round %d: %d answers", round, count_answers());
        CHECK(strstr(answer_buf, "0123456789") && strstr(answer_buf, "abcde") && strstr(answer_buf, "later") && strstr(answer_buf, "hello"));
        close(fd);
    }
}

static void check_bodies(struct server *s) {
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n") == 413, "early 413");
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n") >= 400);
    /* chunked and too long: the answer arrives although the client is still sending */
    int fd = dial(s);
    say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    static char chunk[4200];
    int head = sprintf(chunk, "1000\r\n");
    memset(chunk + head, 'y', 4096);
    memcpy(chunk + head + 4096, "\r\n", 2);
    for (int i = 0; i < 100; i++)
        if (!put(fd, chunk, (size_t)head + 4098)) break;
    CHECK(read_answer(fd) > 0 && code_of() == 413, "413 in the middle of an upload: %.40s", answer_buf);
    close(fd);
    EVENTUALLY(stat_of(s, "body_bytes") == 0);
    /* held bodies fill the cap (1 MiB in this server): the next large one is refused, a small one is not */
    int held[40], n = 0;
    static char part[60000];
    memset(part, 'z', sizeof part);
    for (; n < 17; n++) {
        held[n] = dial(s);
        say(held[n], "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        put(held[n], part, sizeof part);
    }
    EVENTUALLY(stat_of(s, "body_bytes") >= 1000000);
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n") == 503 && strstr(answer_buf, "Retry-After"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde") == 200);
    while (n) close(held[--n]);
    EVENTUALLY(stat_of(s, "body_bytes") == 0);
    /* a chunk-size line as long as the read buffer neither hangs nor burns */
    fd = dial(s);
    say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;");
    for (int i = 0; i < 20; i++)
        if (!put(fd, part, 1000)) break;
    CHECK(read_all(fd) >= 0, "an endless chunk line is cut");
    close(fd);
    /* a head as long as the memory limit */
    fd = dial(s);
    say(fd, "GET / HTTP/1.1\r\nHost: a\r\nX-A: ");
    for (int i = 0; i < 30; i++)
        if (!put(fd, part, 1000)) break;
    CHECK(read_all(fd) >= 0 && (code_of() == 431 || code_of() == 413 || code_of() == 0), "%.40s", answer_buf);
    close(fd);
}

static void check_leaving(struct server *s) {
    int before = s->gone;
    int fd[20];
    for (int i = 0; i < 20; i++) {
        fd[i] = dial(s);
        say(fd[i], "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    EVENTUALLY(stat_of(s, "in_flight") == 21);
    for (int i = 0; i < 20; i++) close(fd[i]);
    EVENTUALLY(s->gone == before + 20);
    EVENTUALLY(stat_of(s, "open") == 1);
    /* a stream whose client leaves */
    int f = dial(s);
    say(f, "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n");
    char c[400] = {0};
    for (int n = 0; !strstr(c, "hello") && n < 399;) {
        ssize_t k = recv(f, c + n, 399 - (size_t)n, 0);
        if (k <= 0) break;
        n += (int)k;
    }
    CHECK(strstr(c, "data: hello") != NULL);
    ask(s, 4);
    memset(c, 0, sizeof c);
    for (int n = 0; !strstr(c, "more") && n < 399;) {
        ssize_t k = recv(f, c + n, 399 - (size_t)n, 0);
        if (k <= 0) break;
        n += (int)k;
    }
    CHECK(strstr(c, "data: more") != NULL, "a parked stream wakes");
    close(f);
    EVENTUALLY(s->gone == before + 21);
}

static void check_deadlines(struct server *s) {
    /* a drip of the head, a drip of the body, silence: each cut by its absolute deadline (400 ms and 600 ms in this server) */
    int drip = dial(s), body = dial(s), silent = dial(s), late = dial(s);
    say(late, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    say(body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
    int drip_open = 1, body_open = 1;
    for (int i = 0; i < 400 && (drip_open || body_open); i++) {
        char c;
        nap(10);
        if (drip_open && (!say(drip, "G") || recv(drip, &c, 1, MSG_DONTWAIT) >= 0)) drip_open = 0;
        if (body_open && (!say(body, "b") || recv(body, &c, 1, MSG_DONTWAIT) >= 0)) body_open = 0;
    }
    CHECK(!drip_open, "a dripped head is cut");
    CHECK(!body_open, "a dripped body is cut");
    CHECK(read_all(silent) >= 0, "a silent connection is cut");
    CHECK(read_answer(late) > 0 && code_of() == 503, "a late handler is answered 503: %.40s", answer_buf);
    EVENTUALLY(s->gone_timeout == 1);
    close(drip), close(body), close(silent), close(late);
}

static void check_many(struct server *s) {
    enum { N = 1000 };
    static int fd[N];
    int open = 0;
    for (int i = 0; i < N; i++) {
        fd[i] = dial(s);
        if (fd[i] >= 0) open++, say(fd[i], "GET /slow HTTP/1.1\r\nHo");
    }
    CHECK(open == N);
    CHECK(ONCE(s, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n") == 200, "others are served beside 1,000 slow clients");
    int ok = 0;
    for (int i = 0; i < N; i++) say(fd[i], "st: a\r\n\r\n");
    for (int i = 0; i < N; i++) ok += read_answer(fd[i]) > 0 && code_of() == 200;
    CHECK(ok == N, "%d of 1,000 answered", ok);
    for (int i = 0; i < N; i++) close(fd[i]);
    EVENTUALLY(stat_of(s, "open") == 1);
}

static void check_drain(struct server *s) {
    int idle = dial(s), busy = dial(s);
    say(idle, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(read_answer(idle) > 0);
    say(busy, "GET /later?300 HTTP/1.1\r\nHost: a\r\n\r\n");
    EVENTUALLY(stat_of(s, "in_flight") == 2);
    ask(s, 1);
    EVENTUALLY(dial(s) < 0);
    CHECK(read_all(busy) > 0 && code_of() == 200 && strcasestr(answer_buf, "connection: close"), "the request under way is answered: %.60s",
          answer_buf);
    CHECK(read_all(idle) == 0, "the idle connection is closed");
    EVENTUALLY(s->drained == 1);
    close(idle), close(busy);
}

static void check_listen(void) {
    char err[200];
    int port = 0, first, second, other = 0;
    CHECK(neap_http_listen("127.0.0.1", &port, 0, 1, &first, err, sizeof err) == 0 && port > 0, "%s", err);
    CHECK(neap_http_listen("127.0.0.1", &port, 0, 1, &second, err, sizeof err) == NEAP_ERR_IO && strstr(err, "another program"), "%s", err);
    CHECK(neap_http_listen("127.0.0.1", &port, 0, 0, &second, err, sizeof err) == NEAP_ERR_IO && strstr(err, "another program"), "%s", err);
    CHECK(neap_http_listen_join("127.0.0.1", port, 0, &second, err, sizeof err) == 0, "%s", err);
    close(first), close(second);
    CHECK(neap_http_listen("no.such.host.invalid", &other, 0, 0, &first, err, sizeof err) == NEAP_ERR_INVALID && strstr(err, "127.0.0.1"), "%s", err);
    CHECK(neap_http_listen("192.0.2.1", &other, 0, 0, &first, err, sizeof err) == NEAP_ERR_IO && strstr(err, "not an address of this machine"), "%s",
          err);
    CHECK(neap_http_equal("abc", 3, "abc", 3) && !neap_http_equal("abc", 3, "abd", 3) && !neap_http_equal("abc", 3, "ab", 2) &&
          neap_http_equal("", 0, "", 0) && !neap_http_equal("a", 1, "", 0));
}

static void run(int lazy) {
    struct server *s = calloc(1, sizeof *s);
    s->c.lazy = lazy;
    s->c.max_body = 150000;
    s->c.max_bodies = 1 << 20;
    CHECK(start(s) == 0, "%s", s->err);
    check_basics(s);
    check_guard(s);
    check_splits(s);
    check_bodies(s);
    check_leaving(s);
    check_many(s);
    check_drain(s);
    stop(s);
    free(s);
    s = calloc(1, sizeof *s);
    s->c.lazy = lazy;
    s->c.head_ms = 400;
    s->c.body_ms = 600;
    s->c.handler_ms = 500;
    CHECK(start(s) == 0, "%s", s->err);
    check_deadlines(s);
    stop(s);
    free(s);
}

int main(void) {
    struct rlimit rl;
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max < 8192 ? rl.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &rl);
    check_listen();
    run(-1);
    run(1);
    run(0);
    return test_end("http_core");
}
