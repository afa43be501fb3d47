/* http_core_test.c: the HTTP server core over real loopback sockets: answers, splits, pipelining, deadlines, caps, leaving clients, streams, drain.
 */
#include "spec/c/http_server.h"

/* ---- the checks ------------------------------------------------------------------------------------------------------ */

static void check_basics(struct server *s) {
    CHECK(ONCE(s, "GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n") == 200);
    CHECK(strstr(answer_buf, "X-Peer: 127.0.0.1\r\n") && strstr(answer_buf, "X-Agent: me\r\n"));
    CHECK(ONCE(s, "GET /later?30 HTTP/1.1\r\nHost: a\r\n\r\n") == 200 && strstr(answer_buf, "X-Late: yes"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde") == 200 && strstr(answer_buf, "\r\n\r\nabcde"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == 200 &&
          strstr(answer_buf, "\r\n\r\nabcde"));
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") == 200);
    CHECK(ONCE(s, "GET http://a:80/path HTTP/1.1\r\nHost: A:80\r\n\r\n") == 200 && strstr(answer_buf, "\r\n\r\n/path"));
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

/* A request waits for its answer in two forms: offered again and again (lazily, at first), then suspended. The client leaves at every point of it,
   before and after the answer; and requests queue behind one that waits. */
static void check_pending(struct server *s) {
    char text[400];
    for (int i = 0; i < 120; i++) {
        int fd = dial(s);
        snprintf(text, sizeof text, "GET /later?%d HTTP/1.1\r\nHost: a\r\n\r\n", i % 12);
        say(fd, text);
        if (i % 3) nap(i % 7);
        if (i % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)); /* a reset instead of an end */
        close(fd);
    }
    EVENTUALLY(stat_of(s, "in_flight") == 1);
    EVENTUALLY(stat_of(s, "open") == 1);
    for (int i = 0; i < 20; i++) {
        int fd = dial(s), answers = 0;
        snprintf(text, sizeof text,
                 "GET /later?%d HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
                 "GET /later?%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                 i % 5, (i + 3) % 5);
        say(fd, text);
        read_all(fd);
        for (const char *p = answer_buf; (p = strstr(p, "HTTP/1.1 200")); p++) answers++;
        CHECK(answers == 3 && strstr(answer_buf, "abcde"), "%d of 3 queued requests answered", answers);
        close(fd);
    }
    /* the client leaves while requests are queued behind the one that waits */
    int fd = dial(s);
    say(fd, "GET /later?20 HTTP/1.1\r\nHost: a\r\n\r\nGET /later?1 HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    nap(2);
    close(fd);
    EVENTUALLY(stat_of(s, "in_flight") == 1);
    EVENTUALLY(stat_of(s, "open") == 1);
}

/* The server closes while requests wait, some of them not yet suspended. */
static void check_stop_pending(struct server *s) {
    int fd[8];
    for (int i = 0; i < 8; i++) {
        fd[i] = dial(s);
        say(fd[i], i % 2 ? "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n" : "GET /later?1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    EVENTUALLY(stat_of(s, "in_flight") == 9); /* with the one that asks */
    stop(s);
    for (int i = 0; i < 8; i++) {
        int n = read_all(fd[i]);
        CHECK(n == 0, "a waiting client is cut when the server closes: %d, %.60s", n, n > 0 ? answer_buf : "");
        close(fd[i]);
    }
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

/* The deadline is kept however the drips fall: many connections, whose last drip and cut often meet in one turn of the loop. */
static void check_drips(struct server *s) {
    static const char *const begin[] = {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;",
                                        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nX: ",
                                        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "};
    enum { MANY = 300 };
    static int fd[MANY], open[MANY];
    int left = MANY;
    for (int i = 0; i < MANY; i++) {
        fd[i] = dial(s);
        open[i] = say(fd[i], begin[i % 4]) != 0;
    }
    for (int round = 0; round < 2000 && left; round++) {
        nap(3);
        for (int i = left = 0; i < MANY; i++) {
            if (open[i] && !(round % 5 == i % 5 ? say(fd[i], "a") : 1)) open[i] = 0;
            char c[512];
            if (open[i] && recv(fd[i], c, sizeof c, MSG_DONTWAIT) == 0) open[i] = 0;
            left += open[i];
        }
    }
    CHECK(left == 0, "%d of %d are still there", left, MANY);
    EVENTUALLY(stat_of(s, "open") == 1);
    for (int i = 0; i < MANY; i++) close(fd[i]);
}

/* What libmicrohttpd answers by itself is counted too, and what we refuse of a head has one head of its own. */
static void check_counted(struct server *s) {
    int before = stat_of(s, "bad");
    CHECK(ONCE(s, "GET / HTTP/3.1\r\nHost: a\r\n\r\n") == 505);
    CHECK(ONCE(s, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n") == 400);
    char *again = strstr(answer_buf + 5, "HTTP/1.1");
    CHECK(!again && strstr(answer_buf, "\"code\":\"invalid\""), "%.200s", answer_buf);
    EVENTUALLY(stat_of(s, "bad") == before + 2);
    CHECK(ONCE(s, "GET / HTTP/1.0\r\n\r\n") == 200);
    int fd = dial(s);
    say(fd, "GET / HTT"); /* and leaves: not refused */
    close(fd);
    EVENTUALLY(stat_of(s, "open") == 1);
    CHECK(stat_of(s, "bad") == before + 2);
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
    check_splits(s);
    check_bodies(s);
    check_leaving(s);
    check_pending(s);
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
    check_drips(s);
    check_counted(s);
    stop(s);
    free(s);
    s = calloc(1, sizeof *s);
    s->c.lazy = lazy;
    CHECK(start(s) == 0, "%s", s->err);
    check_stop_pending(s);
    free(s);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_files(8192);
    check_listen();
    run(-1);
    run(1);
    run(0);
    return test_end("http_core");
}
