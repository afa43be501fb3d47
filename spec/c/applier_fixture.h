/* applier_fixture.h: a redis-server, a host with journal and applier, and readings that can be told apart: what the applier's tests share. */
#ifndef NEAP_APPLIER_FIXTURE_H
#define NEAP_APPLIER_FIXTURE_H
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "host/applier.h"
#include "host/chunk.h"
#include "host/err.h"
#include "host/record.h"
#include "spec/c/test.h"

static int sensors = 7;             /* reading i belongs to sensor i % sensors */
static size_t segment_bytes = 4096; /* of the journal */
static char dir[64], journal_dir[80], sock[80];
static pid_t server;
static redisContext *cli;

/* ---- the server --------------------------------------------------------------------------------------------------------- */

static void server_start(const char *aof, const char *mode) {
    if ((server = fork()) == 0) {
        char log[80];
        snprintf(log, sizeof log, "%s/redis.log", dir);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir, "--appendonly", aof, "--appendfsync", mode,
               "--save", "", "--logfile", log, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 3000; i++) {
        if (cli) redisFree(cli);
        cli = redisConnectUnix(sock);
        redisReply *r = cli && !cli->err ? redisCommand(cli, "PING") : NULL;
        bool up = r && r->type == REDIS_REPLY_STATUS;
        if (r) freeReplyObject(r);
        if (up) return;
        usleep(10000); /* the wait is for the condition above */
    }
    printf("redis-server does not start\n");
    exit(2);
}

static void server_kill(void) {
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

static long long ask(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    redisReply *r = redisvCommand(cli, fmt, ap);
    va_end(ap);
    long long n = !r || r->type == REDIS_REPLY_ERROR ? -1
                  : r->type == REDIS_REPLY_INTEGER   ? r->integer
                  : r->type == REDIS_REPLY_STRING    ? atoll(r->str)
                                                     : 0;
    if (r && r->type == REDIS_REPLY_ERROR) printf("redis: %s\n", r->str);
    if (r) freeReplyObject(r);
    return n;
}

/* ---- the host ----------------------------------------------------------------------------------------------------------- */
typedef struct host {
    uv_loop_t loop;
    neap_journal *j;
    neap_journal_client *c;
    neap_applier *a;
    int acked, failed, reports;
    uint64_t last_end;
    uv_timer_t limit;
    bool late;
} host;

static void on_ack(void *ud, int status, uint64_t end) {
    host *h = ud;
    if (status) h->failed++;
    else h->acked++;
    if (!status) h->last_end = end;
}

static void on_report(void *ud, enum neap_applier_state s, const char *text) { ((host *)ud)->reports++; }
static void on_limit(uv_timer_t *t) { ((host *)t->data)->late = true; }

static void host_start(host *h, bool applier) {
    char why[300];
    memset(h, 0, sizeof *h);
    uv_loop_init(&h->loop);
    uv_timer_init(&h->loop, &h->limit);
    h->limit.data = h;
    CHECK(neap_journal_open(&(neap_journal_opts){.dir = journal_dir, .segment_bytes = segment_bytes}, &h->j, why, sizeof why) == 0, "%s", why);
    CHECK(neap_journal_attach(h->j, &h->loop, &h->c) == 0);
    if (!applier) return;
    neap_redis_addr addr = {.path = sock};
    neap_applier_opts o = {.addr = &addr,
                           .stream_prefix = "neap:{",
                           .stream_suffix = "}:readings",
                           .synthetic_suffix = "}:synthetic",
                           .quarantine_suffix = "}:quarantine",
                           .position_suffix = "}:journal",
                           .dead_suffix = "}:dead",
                           .once_suffix = "}:once:",
                           .sensors_key = "neap:sensors",
                           .state_key = "neap:journal",
                           .dead_key = "neap:dead",
                           .once_prefix = "neap:once:",
                           .keep = 1000000,
                           .timeout_ms = 400,
                           .report = on_report,
                           .ud = h};
    CHECK(neap_applier_start(&h->loop, h->j, &o, &h->a) == 0);
    neap_applier *second = NULL;
    CHECK(neap_applier_start(&h->loop, h->j, &o, &second) == NEAP_ERR_FULL && !second, "one applier a journal");
}

static void host_stop(host *h) {
    neap_applier_stop(h->a);
    neap_journal_detach(h->c);
    uv_close((uv_handle_t *)&h->limit, NULL);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&h->loop) == 0);
    neap_journal_close(h->j);
}

static neap_applier_status status_of(host *h) {
    neap_applier_status s;
    neap_applier_get_status(h->a, &s);
    return s;
}

/* Turns the loop until cond(h), 15 s at most. */
static bool until(host *h, bool (*cond)(host *)) {
    h->late = false;
    uv_timer_start(&h->limit, on_limit, 15000, 0);
    while (!cond(h) && !h->late) uv_run(&h->loop, UV_RUN_ONCE);
    uv_timer_stop(&h->limit);
    if (h->late) printf("  still: state %d '%s'\n", status_of(h).state, status_of(h).text);
    return !h->late;
}

static int wanted_acks;
static bool all_acked(host *h) { return h->acked >= wanted_acks; }
static bool all_applied(host *h) {
    neap_journal_stats s;
    neap_journal_get_stats(h->j, &s);
    return status_of(h).state == NEAP_APPLIER_RUNNING && s.behind == 0 && all_acked(h);
}
__attribute__((unused)) static bool is_stopped(host *h) { return status_of(h).state == NEAP_APPLIER_STOPPED; }
static bool is_away(host *h) { return status_of(h).state == NEAP_APPLIER_AWAY; }
__attribute__((unused)) static bool released(host *h) {
    neap_journal_log logs[8];
    size_t n = neap_journal_logs(h->j, logs, 8);
    return n == 1 && logs[0].end - logs[0].first < 8192;
}

static int64_t arrival_us; /* of the records that are appended */

/* Appends one record of `n` readings numbered from `from`: reading i belongs to sensor i % sensors, its time and value are i. */
static void append(host *h, int from, int n, const char *key) {
    neap_buf b = {0};
    neap_record_writer w;
    neap_record_opts o = {.key = key, .key_len = key ? strlen(key) : 0, .arrival_us = arrival_us};
    neap_record_begin(&w, &b, &o);
    for (int i = from; i < from + n; i++) {
        char name[16], text[16];
        snprintf(name, sizeof name, "s%d", i % sensors);
        neap_record_add(&w, name, strlen(name), i, text, (size_t)snprintf(text, sizeof text, "%d", i));
    }
    neap_record_end(&w);
    CHECK(neap_journal_append(h->c, b.data, b.len, on_ack, h) == 0);
    wanted_acks = h->acked + h->failed + 1;
    buf_free(&b);
}

/* Every reading below n is in Redis exactly once, each sensor's in order. */
static void verify(int n, const char *what) {
    int seen = 0, wrong = 0;
    for (int s = 0; s < sensors; s++) {
        redisReply *r = redisCommand(cli, "XRANGE neap:{s%d}:readings - +", s);
        int next = s;
        for (size_t e = 0; r && r->type == REDIS_REPLY_ARRAY && e < r->elements; e++) {
            redisReply *f = r->element[e]->element[1];
            for (size_t i = 0; i + 1 < f->elements; i += 2) {
                neap_chunk_reader c;
                for (neap_chunk_read(&c, atoi(f->element[i]->str), f->element[i + 1]->str, f->element[i + 1]->len); neap_chunk_next(&c);
                     next += sensors, seen++)
                    wrong += c.time_us != next || atoi(c.text) != next;
            }
        }
        if (r) freeReplyObject(r);
    }
    CHECK(seen == n && wrong == 0, "%s: %d of %d readings, %d out of place", what, seen, n, wrong);
}

static void wipe(void) {
    char cmd[200];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'/*", dir);
    if (system(cmd)) exit(2);
}

static void fixture_begin(void) {
    snprintf(dir, sizeof dir, "/tmp/neap-applier-%d", (int)getpid());
    snprintf(journal_dir, sizeof journal_dir, "%s/journal", dir);
    snprintf(sock, sizeof sock, "%s/r.sock", dir);
    mkdir(dir, 0700);
    signal(SIGPIPE, SIG_IGN);
}

static void fixture_end(void) {
    if (cli) redisFree(cli);
    wipe();
    rmdir(dir);
}
#endif
