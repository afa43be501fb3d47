/* http_guard_test.c: what the server refuses, and that nothing hostile hangs it, smuggles past it or makes it fail: the list of reference cases,
   mutated and split pipelines, and running out of descriptors. */
#include "spec/c/http_server.h"
#include <netinet/tcp.h>

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
        BAD("Host port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        BAD("Host port 65536", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
        BAD("Host two ports", "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
        BAD("Host open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        BAD("Host name in brackets", "GET / HTTP/1.1\r\nHost: [a.b]\r\n\r\n"),
        BAD("Host behind brackets", "GET / HTTP/1.1\r\nHost: [::1]a.b\r\n\r\n"),
        BAD("Host escape", "GET / HTTP/1.1\r\nHost: a%41\r\n\r\n"),
        BAD("another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("no host in the target", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
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
#define CHUNKED(name, text) BAD(name, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" text)
        CHUNKED("NUL in a trailer", "1\r\na\r\n0\r\nX-T: a\0b\r\n\r\n"),
        CHUNKED("NUL in a trailer's name", "1\r\na\r\n0\r\nX\0T: a\r\n\r\n"),
        CHUNKED("control in a trailer", "1\r\na\r\n0\r\nX-T: a\x01\r\n\r\n"),
        CHUNKED("bare CR in a trailer", "1\r\na\r\n0\r\nX-T: a\rb\r\n\r\n"),
        CHUNKED("bare LF in a trailer", "1\r\na\r\n0\r\nX-T: a\n\r\n"),
        CHUNKED("folded trailer", "1\r\na\r\n0\r\nX-T: a\r\n b\r\n\r\n"),
        CHUNKED("trailer without a colon", "1\r\na\r\n0\r\nnonsense\r\n\r\n"),
        CHUNKED("trailer without a name", "1\r\na\r\n0\r\n: b\r\n\r\n"),
        CHUNKED("space before a trailer's colon", "1\r\na\r\n0\r\nX-T : b\r\n\r\n"),
        CHUNKED("bare LF behind the last chunk", "1\r\na\r\n0\r\n\n"),
        CHUNKED("NUL in an extension", "1;a\0b\r\na\r\n0\r\n\r\n"),
        CHUNKED("control in an extension", "1;a=\x01\r\na\r\n0\r\n\r\n"),
        CHUNKED("control in a quoted extension", "1;a=\"\x02\"\r\na\r\n0\r\n\r\n"),
        CHUNKED("bare CR in an extension", "1;a\rb\r\na\r\n0\r\n\r\n"),
        CHUNKED("bare LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n"),
        CHUNKED("bare LF behind an extension", "1;a\na\r\n0\r\n\r\n"),
        CHUNKED("bare LF behind a size", "1\na\r\n0\r\n\r\n"),
        CHUNKED("an extension without a name", "1;=b\r\na\r\n0\r\n\r\n"),
        CHUNKED("an open quote", "1;a=\"b\r\na\r\n0\r\n\r\n"),
        CHUNKED("words behind a size", "1 a\r\na\r\n0\r\n\r\n"),
        CHUNKED("size +1", "+1\r\na\r\n0\r\n\r\n"),
        CHUNKED("size -1", "-1\r\na\r\n0\r\n\r\n"),
        CHUNKED("size 0x1", "0x1\r\na\r\n0\r\n\r\n"),
        CHUNKED("size with a space before", " 1\r\na\r\n0\r\n\r\n"),
        CHUNKED("no size", "\r\na\r\n0\r\n\r\n"),
        CHUNKED("a size that wraps", "10000000000000001\r\na\r\n0\r\n\r\n"),
        CHUNKED("a size of ones", "ffffffffffffffff\r\na\r\n0\r\n\r\n"),
        CHUNKED("a chunk that is too long", "1\r\nab\r\n0\r\n\r\n"),
        CHUNKED("a bare LF behind a chunk", "1\r\na\n0\r\n\r\n"),
        BAD("a length out of sight", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: "
                                     "                                                                                     5\r\nTransfer-Encoding:"
                                     "                                                                        chunked\r\n\r\n0\r\n\r\n"),
    };
    static const char good[] =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=\"y;\\\"\" ; z\r\nfine\r\n000\r\nX-T: v\r\n\r\n";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int form = 0; form < 4; form++) { /* whole; in pieces of one byte; behind a good request; both */
            /* A second request rides along: it must not be answered. */
            char text[2048];
            size_t lead = form & 2 ? sizeof good - 1 : 0, n = lead + bad[i].n;
            memcpy(text, good, lead);
            memcpy(text + lead, bad[i].text, bad[i].n);
            n += (size_t)sprintf(text + n, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            int fd = dial(s);
            if (form & 1) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
                for (size_t at = 0; at < n && put(fd, text + at, 1); at++) {}
            } else put(fd, text, n);
            int got = read_all(fd);
            CHECK(got >= 0, "%s, form %d: hangs", bad[i].name, form);
            char *answer = answer_buf;
            if (lead) {
                CHECK(got > 0 && code_of() == 200 && strstr(answer_buf, "fine"), "%s, form %d: the good request before it: %.60s", bad[i].name, form,
                      answer_buf);
                char *body = got > 0 ? strstr(answer_buf, "\r\n\r\nfine") : NULL;
                answer = body ? body + 8 : answer_buf;
            }
            CHECK(got > 0 && !strncmp(answer, "HTTP/1.1 400", 12), "%s, form %d: %.60s", bad[i].name, form, answer);
            CHECK(!strstr(answer, "HTTP/1.1 2") && !strstr(answer, "hello"), "%s, form %d: the smuggled request ran", bad[i].name, form);
            CHECK(got <= 0 || strcasestr(answer, "connection: close"), "%s, form %d: says close", bad[i].name, form);
            close(fd);
        }
    CHECK(ONCE(s, "GET / HTTP/1.1\r\nHost: a\r\nX-A:b\r\nX-C:\t d \r\nX-D:\r\n\r\n") == 200, "odd but valid spacing is served");
    CHECK(ONCE(s, "GET / HTTP/1.1\r\nHost: [::1]:80\r\nX-A: \xc3\xa4\r\n\r\n") == 200, "8-bit values are served");
    CHECK(ONCE(s, "GET / HTTP/1.0\r\n\r\n") == 200, "HTTP/1.0 without headers is served");
    CHECK(ONCE(s, "GET /x?a=b%20c&d HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=d\r\n\r\n") == 200);
    CHECK(ONCE(s, "\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1;a;b=c;d=\"e \\\" f\"\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n") ==
          200);
    CHECK(ONCE(s, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") == 200);
    CHECK(ONCE(s, "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\nHost: a\r\n\r\n") == 501);
}

/* ---- mutated pipelines ------------------------------------------------------------------------------------------------ */

static unsigned rnd_state = 20261123;
static unsigned rnd(unsigned n) {
    rnd_state = rnd_state * 1664525u + 1013904223u;
    return (rnd_state >> 8) % n;
}

static void check_mutants(struct server *s, int rounds) {
    static const char *const seeds[] = {
        "GET /x?a=b HTTP/1.1\r\nHost: a\r\nUser-Agent: c/1\r\nAccept: */*\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a:80\r\nContent-Length: 12\r\nContent-Type: text/plain\r\n\r\nhello, world",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-T: v\r\n\r\n",
        "GET /later?1 HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\n\r\n",
    };
    static const char nasty[] = "\0\r\n\t :;,0%\x7f\xff/";
    int fives = 0, hangs = 0, answered = 0;
    for (int round = 0; round < rounds; round++) {
        char text[4096];
        size_t n = 0;
        for (unsigned k = 1 + rnd(3); k; k--) {
            const char *seed = seeds[rnd(4)];
            memcpy(text + n, seed, strlen(seed));
            n += strlen(seed);
        }
        for (unsigned k = rnd(4); k; k--) {
            size_t at = rnd((unsigned)n), len = 1 + rnd(12);
            switch (rnd(4)) {
            case 0: text[at] = nasty[rnd(sizeof nasty - 1)]; break;
            case 1: text[at] = (char)rnd(256); break;
            case 2: /* a piece goes */
                if (at + len < n) memmove(text + at, text + at + len, n - at - len), n -= len;
                break;
            default: /* a piece is doubled */
                if (at + len < n && n + len < sizeof text) {
                    memmove(text + at + len, text + at, n - at);
                    n += len;
                }
                break;
            }
        }
        int fd = dial(s);
        for (size_t at = 0; at < n;) {
            size_t piece = round % 3 ? n - at : 1 + rnd(60);
            if (piece > n - at) piece = n - at;
            if (!put(fd, text + at, piece)) break;
            at += piece;
        }
        if (round % 50) nap(1); /* now and then the end arrives together with the data */
        shutdown(fd, SHUT_WR);
        int got = read_all(fd);
        if (got < 0) hangs++;
        answered += got > 0;
        for (char *p = answer_buf; (p = memmem(p, (size_t)(answer_buf + (got > 0 ? got : 0) - p), "HTTP/1.1 5", 10)); p += 10)
            fives += strncmp(p + 9, "501", 3) && strncmp(p + 9, "505", 3);
        close(fd);
    }
    CHECK(hangs == 0, "%d of %d hang", hangs, rounds);
    CHECK(fives == 0, "%d answers are the server's fault", fives);
    CHECK(answered > rounds / 4, "%d answered", answered);
    CHECK(ONCE(s, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n") == 200, "the server lives");
    EVENTUALLY(stat_of(s, "open") == 1);
    EVENTUALLY(stat_of(s, "body_bytes") == 0);
}

/* ---- no descriptors left ------------------------------------------------------------------------------------------------- */

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void check_descriptors(struct server *s) {
    int fd[200], n = 0, probe = dup(0);
    close(probe);
    /* room for about twenty connections, both ends of which are in this process */
    test_files((rlim_t)probe + 40);
    while (n < 200 && (fd[n] = dial(s)) >= 0) n++;
    CHECK(n >= 15 && n < 41, "%d connections until the descriptors were used up", n);
    double before = cpu_seconds();
    nap(500);
    CHECK(cpu_seconds() - before < 0.15, "%.3f s of CPU in half a second without descriptors", cpu_seconds() - before);
    while (n) close(fd[--n]);
    test_files(8192);
    EVENTUALLY(ONCE(s, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n") == 200);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_files(8192);
    const char *rounds = getenv("NEAP_HTTP_MUTANTS"); /* `make soak` asks for many */
    for (int lazy = -1; lazy <= 1; lazy += 2) {
        struct server *s = calloc(1, sizeof *s);
        s->c.lazy = lazy;
        s->c.head_ms = s->c.body_ms = 5000;
        CHECK(start(s) == 0, "%s", s->err);
        check_guard(s);
        check_mutants(s, rounds ? atoi(rounds) : 600);
        check_descriptors(s);
        stop(s);
        free(s);
    }
    return test_end("http_guard");
}
