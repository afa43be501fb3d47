/* http_server.h: what the C tests of the HTTP server share: a server on a plain uv loop in a thread of its own, and blocking clients. */
#ifndef NEAP_TEST_HTTP_SERVER_H
#define NEAP_TEST_HTTP_SERVER_H
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

static int __attribute__((unused)) say(int fd, const char *text) { return put(fd, text, strlen(text)); }

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

static int __attribute__((unused)) count_answers(void) {
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

static int __attribute__((unused)) test_files(rlim_t most) {
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max < most ? rl.rlim_max : most;
    return setrlimit(RLIMIT_NOFILE, &rl);
}
#endif
