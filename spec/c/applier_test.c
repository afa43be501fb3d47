/* applier_test.c: journal to Redis, against a real redis-server: order, exactly once, duplicates, dead letters, restarts, kill -9 and SIGSTOP of
   Redis under load, memory full, a store that was emptied, positions that contradict each other. */
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

enum { SENSORS = 7 };
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
    CHECK(neap_journal_open(&(neap_journal_opts){.dir = journal_dir, .segment_bytes = 4096}, &h->j, why, sizeof why) == 0, "%s", why);
    CHECK(neap_journal_attach(h->j, &h->loop, &h->c) == 0);
    if (!applier) return;
    neap_redis_addr addr = {.path = sock};
    neap_applier_opts o = {.addr = &addr,
                           .stream_prefix = "neap:{",
                           .stream_suffix = "}:readings",
                           .synthetic_suffix = "}:synthetic",
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
static bool all_applied(host *h) { return status_of(h).state == NEAP_APPLIER_RUNNING && status_of(h).behind == 0 && all_acked(h); }
static bool is_stopped(host *h) { return status_of(h).state == NEAP_APPLIER_STOPPED; }
static bool is_away(host *h) { return status_of(h).state == NEAP_APPLIER_AWAY; }
static bool released(host *h) {
    neap_journal_log logs[8];
    size_t n = neap_journal_logs(h->j, logs, 8);
    return n == 1 && logs[0].end - logs[0].first < 8192;
}

/* Appends one record of `n` readings numbered from `from`: reading i belongs to sensor i % SENSORS, its time and value are i. */
static void append(host *h, int from, int n, const char *key) {
    neap_buf b = {0};
    neap_record_writer w;
    neap_record_opts o = {.key = key, .key_len = key ? strlen(key) : 0};
    neap_record_begin(&w, &b, &o);
    for (int i = from; i < from + n; i++) {
        char name[8], text[16];
        snprintf(name, sizeof name, "s%d", i % SENSORS);
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
    for (int s = 0; s < SENSORS; s++) {
        redisReply *r = redisCommand(cli, "XRANGE neap:{s%d}:readings - +", s);
        int next = s;
        for (size_t e = 0; r && r->type == REDIS_REPLY_ARRAY && e < r->elements; e++) {
            redisReply *f = r->element[e]->element[1];
            for (size_t i = 0; i + 1 < f->elements; i += 2) {
                neap_chunk_reader c;
                for (neap_chunk_read(&c, atoi(f->element[i]->str), f->element[i + 1]->str, f->element[i + 1]->len); neap_chunk_next(&c);
                     next += SENSORS, seen++)
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

/* ---- tests ---------------------------------------------------------------------------------------------------------------- */

static void test_apply(void) {
    host h;
    host_start(&h, false); /* an earlier process that never got to Redis */
    for (int i = 0; i < 500; i += 10) {
        append(&h, i, 10, NULL);
        until(&h, all_acked);
    }
    host_stop(&h);
    server_start("yes", "always");
    host_start(&h, true);
    for (int i = 500; i < 1000; i += 50) {
        append(&h, i, 50, NULL);
        until(&h, all_acked);
    }
    CHECK(until(&h, all_applied));
    verify(1000, "two logs");
    neap_applier_status s = status_of(&h);
    CHECK(s.readings == 1000 && s.durability == NEAP_DURABLE_ALWAYS && s.dead == 0 && s.store[0], "%llu", (unsigned long long)s.readings);
    CHECK(ask("SCARD neap:sensors") == SENSORS);
    CHECK(until(&h, released), "the older log is gone, and most of this one");
    CHECK(ask("HLEN neap:journal") == 2, "store and one position");

    append(&h, 1000, 10, "batch-7");
    append(&h, 1000, 10, "batch-7");
    append(&h, 1010, 10, "batch-8");
    wanted_acks = 13;
    CHECK(until(&h, all_applied));
    append(&h, 1000, 10, "batch-7");
    wanted_acks = 14;
    CHECK(until(&h, all_applied));
    verify(1020, "retried batches count once");
    CHECK(status_of(&h).duplicates == 20);
    CHECK(ask("TTL neap:once:batch-7") > 3000);

    ask("DEL neap:{s3}:readings");
    ask("SET neap:{s3}:readings mine");
    append(&h, 1020, 14, NULL);
    wanted_acks = 15;
    CHECK(until(&h, all_applied));
    CHECK(status_of(&h).dead == 2 && ask("XLEN neap:dead") == 1);
    CHECK(ask("DEL neap:{s3}:readings") == 1);
    host_stop(&h);
    server_kill();
    wipe();
}

/* What waited is applied in one step: sensors with many entries each, batches that are alone in their unit, one that is left out as it came before.
 */
static void test_one_step(void) {
    host h;
    host_start(&h, false);
    for (int i = 0; i < 70000; i += 7000) append(&h, i, 7000, NULL);
    append(&h, 70000, 21, "once");
    append(&h, 70000, 21, "once");
    append(&h, 70021, 3, NULL);
    append(&h, 70024, 2000, "alone");
    append(&h, 72024, 5, NULL);
    wanted_acks = 15;
    until(&h, all_acked);
    host_stop(&h);
    server_start("yes", "always");
    host_start(&h, true);
    wanted_acks = 0;
    CHECK(until(&h, all_applied));
    verify(72029, "one step");
    neap_applier_status s = status_of(&h);
    CHECK(s.steps == 1 && s.readings == 72029 && s.duplicates == 21 && s.dead == 0, "%llu steps, %llu readings", (unsigned long long)s.steps,
          (unsigned long long)s.readings);
    long long entries = ask("XLEN neap:{s0}:readings");
    CHECK(entries >= 80 && entries <= 90, "entries are full: %lld", entries);
    host_stop(&h);
    server_kill();
    wipe();
}

static void test_full_and_frozen(void) {
    host h;
    server_start("yes", "everysec");
    host_start(&h, true);
    append(&h, 0, 100, NULL);
    CHECK(until(&h, all_applied));
    CHECK(status_of(&h).durability == NEAP_DURABLE_EVERYSEC);
    ask("CONFIG SET maxmemory 1");
    append(&h, 100, 100, NULL);
    CHECK(until(&h, all_acked) && until(&h, is_away), "acknowledged although Redis is full");
    CHECK(strstr(status_of(&h).text, "OOM") != NULL, "%s", status_of(&h).text);
    ask("CONFIG SET maxmemory 0");
    CHECK(until(&h, all_applied));
    verify(200, "memory full");
    kill(server, SIGSTOP);
    for (int i = 200; i < 1000; i += 100) {
        append(&h, i, 100, NULL);
        until(&h, all_acked); /* one by one: a group is never split over segments */
    }
    CHECK(until(&h, all_acked) && until(&h, is_away), "acknowledged although Redis is frozen");
    kill(server, SIGCONT);
    CHECK(until(&h, all_applied));
    verify(1000, "frozen");
    CHECK(until(&h, released), "released some seconds later");
    ask("DEL neap:dead");
    ask("SET neap:dead x"); /* nowhere to put a dead letter: nothing may be written */
    append(&h, 1000, 7, NULL);
    CHECK(until(&h, is_stopped));
    ask("DEL neap:dead");
    CHECK(until(&h, all_applied));
    verify(1007, "after a person has put it right");
    host_stop(&h);
    server_kill();
    wipe();
}

/* kill -9 of Redis under load, several times: everything acknowledged arrives, once, in order. */
static void test_killed(void) {
    host h;
    int next = 0, kills = 0;
    server_start("yes", "everysec");
    host_start(&h, true);
    while (next < 60000) {
        append(&h, next, 20, next % 300 == 0 ? "" : NULL);
        next += 20;
        if (next % 200 == 0) uv_run(&h.loop, UV_RUN_NOWAIT);
        if (next % 15000 == 0 && kills < 3) {
            server_kill();
            kills++;
            append(&h, next, 20, NULL);
            next += 20;
            until(&h, all_acked);
            server_start("yes", "everysec");
        }
    }
    wanted_acks = next / 20;
    CHECK(until(&h, all_applied));
    CHECK(h.failed == 0 && kills == 3);
    verify(next, "kill -9 of Redis");
    host_stop(&h);
    server_kill();
    wipe();
}

/* Redis without persistence: the journal keeps what fits, and an emptied store is filled again from it. */
static void test_replay(void) {
    host h;
    server_start("no", "no");
    host_start(&h, true);
    for (int i = 0; i < 2000; i += 100) append(&h, i, 100, NULL);
    CHECK(until(&h, all_applied));
    CHECK(status_of(&h).durability == NEAP_DURABLE_NONE);
    server_kill();
    server_start("no", "no");
    append(&h, 2000, 100, NULL);
    wanted_acks = 21;
    CHECK(until(&h, all_applied));
    verify(2100, "replayed");
    CHECK(status_of(&h).replays == 1 && h.reports > 0);
    char key[64];
    neap_journal_log log;
    neap_journal_logs(h.j, &log, 1);
    snprintf(key, sizeof key, "%llu", (unsigned long long)log.end + 1000000);
    ask("HSET neap:journal %s %s", log.uuid, key);
    append(&h, 2100, 10, NULL);
    CHECK(until(&h, is_stopped), "a position beyond the end is a contradiction");
    CHECK(strstr(status_of(&h).text, "old copy") != NULL, "%s", status_of(&h).text);
    snprintf(key, sizeof key, "%llu", (unsigned long long)log.end);
    ask("HSET neap:journal %s %s", log.uuid, key);
    wanted_acks = 22;
    CHECK(until(&h, all_applied));
    verify(2110, "put right");
    neap_journal_logs(h.j, &log, 1);
    snprintf(key, sizeof key, "%llu", (unsigned long long)log.end - 20);
    ask("HSET neap:journal %s %s", log.uuid, key);
    append(&h, 2110, 10, NULL);
    CHECK(until(&h, is_stopped), "a position in the middle of a record is one too");
    CHECK(strstr(status_of(&h).text, "in the middle of a record") != NULL, "%s", status_of(&h).text);
    CHECK(status_of(&h).damaged_bytes == 0, "nothing was passed over");
    snprintf(key, sizeof key, "%llu", (unsigned long long)log.end);
    ask("HSET neap:journal %s %s", log.uuid, key);
    wanted_acks = 23;
    CHECK(until(&h, all_applied));
    verify(2120, "put right again");
    host_stop(&h);
    server_kill();
    wipe();
}

static void test_record(void) {
    neap_readings b;
    neap_readings_init(&b);
    const char *body = "[{\"sensor_name\":\"a\",\"sensor_output\":1.50,\"ts\":7},{\"sensor_name\":\"a\",\"sensor_output\":\" 2 "
                       "\"},{\"sensor_name\":\"b\",\"sensor_output\":3}]";
    neap_buf out = {0};
    CHECK(neap_readings_json(&b, body, strlen(body), NULL) == 0);
    neap_record_opts o = {.key = "k", .key_len = 1, .synthetic = true};
    CHECK(neap_record_write(&out, &b, &o, 1000) == 3);
    neap_record r;
    CHECK(neap_record_open(&r, out.data, out.len) == 0 && r.count == 3 && r.key_len == 1 && r.synthetic);
    static const char *const want[] = {"a 7000000 1.50", "a 1000 2", "b 1001 3"};
    int n = 0;
    for (char text[64]; neap_record_next(&r); n++) {
        snprintf(text, sizeof text, "%.*s %lld %.*s", (int)r.name_len, r.name, (long long)r.time_us, (int)r.text_len, r.text);
        CHECK(n < 3 && !strcmp(text, want[n]), "%s", text);
    }
    CHECK(n == 3);
    for (size_t cut = 0; cut < out.len; cut++) { /* never past the end */
        char *copy = malloc(cut ? cut : 1);
        memcpy(copy, out.data, cut);
        if (neap_record_open(&r, copy, cut) == 0)
            while (neap_record_next(&r)) {}
        free(copy);
    }
    for (size_t i = 0; i < b.count; i++) neap_readings_drop(&b, i, "no");
    size_t len = out.len;
    CHECK(neap_record_write(&out, &b, NULL, 0) == 0 && out.len == len);
    buf_free(&out);
    neap_readings_free(&b);
}

int main(void) {
    snprintf(dir, sizeof dir, "/tmp/neap-applier-%d", (int)getpid());
    snprintf(journal_dir, sizeof journal_dir, "%s/journal", dir);
    snprintf(sock, sizeof sock, "%s/r.sock", dir);
    mkdir(dir, 0700);
    signal(SIGPIPE, SIG_IGN);
    test_record();
    test_apply();
    test_one_step();
    test_full_and_frozen();
    test_killed();
    test_replay();
    if (cli) redisFree(cli);
    wipe();
    rmdir(dir);
    return test_end("applier");
}
