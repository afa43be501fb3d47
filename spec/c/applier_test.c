/* applier_test.c: journal to Redis, against a real redis-server: order, exactly once, duplicates, dead letters, restarts, kill -9 and SIGSTOP of
   Redis under load, memory full, a command that is not allowed, a store that was emptied, positions that contradict each other. */
#include "spec/c/applier_fixture.h"

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
    CHECK(ask("SCARD neap:sensors") == sensors);
    CHECK(until(&h, released), "the older log is gone, and most of this one");
    CHECK(ask("HLEN neap:journal") == 3, "store and both logs' positions: they stay, a copy of a log may turn up");

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

static void copy_journal(const char *from, const char *to) {
    char cmd[400];
    snprintf(cmd, sizeof cmd, "rm -rf '%s/%s' && cp -r '%s/%s' '%s/%s'", dir, to, dir, from, dir, to);
    if (system(cmd)) exit(2);
}

/* A copy of the journal turns up: beside the one that is in use, and, as a backup that is put back, after it. Nothing is applied twice. */
static void test_copied(void) {
    host a, b;
    char own[sizeof journal_dir];
    memcpy(own, journal_dir, sizeof own);
    server_start("yes", "always");
    host_start(&a, true);
    append(&a, 0, 70, NULL);
    CHECK(until(&a, all_applied));
    copy_journal("journal", "copy");
    copy_journal("journal", "backup");
    snprintf(journal_dir, sizeof journal_dir, "%s/copy", dir);
    host_start(&b, true);
    wanted_acks = 0;
    CHECK(until(&b, all_applied) && until(&b, released));
    host_stop(&b);
    append(&a, 70, 70, NULL);
    CHECK(until(&a, all_applied));
    CHECK(status_of(&a).rewinds == 0 && status_of(&a).readings == 140, "%llu", (unsigned long long)status_of(&a).readings);
    verify(140, "beside a copy");
    host_stop(&a);
    snprintf(journal_dir, sizeof journal_dir, "%s/backup", dir);
    host_start(&b, true);
    wanted_acks = 0;
    CHECK(until(&b, all_applied) && b.reports > 0);
    verify(140, "after the backup was put back");
    append(&b, 140, 70, NULL);
    CHECK(until(&b, all_applied));
    verify(210, "and goes on");
    host_stop(&b);
    memcpy(journal_dir, own, sizeof own);
    server_kill();
    wipe();
}

static long long last_id_ms(void) {
    redisReply *r = redisCommand(cli, "XREVRANGE neap:{s0}:readings + - COUNT 1");
    long long ms = r && r->type == REDIS_REPLY_ARRAY && r->elements ? atoll(r->element[0]->element[0]->str) : -1;
    if (r) freeReplyObject(r);
    return ms;
}

/* What waited gets the time of its arrival for an ID, as far as the stream's order and Redis' clock let it. */
static void test_arrival(void) {
    host h;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t now = t.tv_sec * 1000LL + t.tv_nsec / 1000000;
    struct {
        int64_t arrived, id; /* id 0: that of now */
    } in[] = {{now - 600000, now - 600000},
              {now - 500000, now - 500000},
              {now - 499000, now - 499000},
              {now - 550000, 0},
              {now - 10000, 0},
              {0, 0},
              {now + 900000, 0}};
    server_start("yes", "everysec");
    host_start(&h, true);
    for (int i = 0; i < 7; i++) {
        if (i == 5) ask("DEL neap:{s0}:readings");
        arrival_us = in[i].arrived * 1000;
        append(&h, i * 7, 7, i == 1 ? "with a key" : NULL);
        CHECK(until(&h, all_applied));
        long long ms = last_id_ms();
        CHECK(in[i].id ? ms == in[i].id : ms >= now && ms < now + 100000, "%d: %lld, now %lld", i, ms, (long long)now);
    }
    host_stop(&h);
    ask("DEL neap:{s0}:readings");
    host_start(&h, false); /* what is applied in one step is an entry for each second in which it came */
    for (int i = 0; i < 6; i++) {
        arrival_us = (now - 60000 + i * 300) * 1000;
        append(&h, 49 + i * 7, 7, NULL);
        until(&h, all_acked);
    }
    host_stop(&h);
    host_start(&h, true);
    wanted_acks = 0;
    CHECK(until(&h, all_applied));
    CHECK(ask("XLEN neap:{s0}:readings") == 2 && last_id_ms() == now - 60000 + 1200, "%lld entries, %lld", ask("XLEN neap:{s0}:readings"),
          last_id_ms() - now);
    arrival_us = 0;
    CHECK(status_of(&h).dead == 0);
    host_stop(&h);
    server_kill();
    wipe();
}

/* A user who may write streams but not the set of sensors: nothing is written before the set has the sensor's name, or it would never get there. */
static void test_not_allowed(void) {
    host h;
    server_start("yes", "everysec");
    ask("ACL SETUSER default -sadd");
    host_start(&h, true);
    append(&h, 0, 100, NULL);
    CHECK(until(&h, all_acked) && until(&h, is_stopped), "acknowledged, and waits for a person");
    CHECK(strstr(status_of(&h).text, "NOPERM") != NULL, "%s", status_of(&h).text);
    CHECK(ask("EXISTS neap:{s0}:readings neap:sensors neap:dead") == 0, "nothing was written");
    ask("ACL SETUSER default +sadd");
    CHECK(until(&h, all_applied));
    verify(100, "allowed");
    CHECK(ask("SCARD neap:sensors") == sensors && status_of(&h).dead == 0);
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
    neap_record_opts o = {.key = "k", .key_len = 1, .source = NEAP_SYNTHETIC};
    CHECK(neap_record_write(&out, &b, &o, 1000) == 3);
    neap_record r;
    CHECK(neap_record_open(&r, out.data, out.len) == 0 && r.count == 3 && r.key_len == 1 && r.source == NEAP_SYNTHETIC);
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
    fixture_begin();
    test_record();
    test_apply();
    test_one_step();
    test_full_and_frozen();
    test_not_allowed();
    test_arrival();
    test_copied();
    test_killed();
    test_replay();
    fixture_end();
    return test_end("applier");
}
