/* applier_lanes_test.c: a flood of many sensors, whose streams take turns in lanes: everything is there once and in order, whatever happens while
   some lanes are ahead of others. */
#include "spec/c/applier_fixture.h"
#include "host/applier_priv.h"

enum { WIDE = 6000, DISTURBANCES = 12 };

static void test_positions(void) {
    positions p, q;
    char text[APPLIER_POSITION_TEXT];
    applier_position_all(&p, 12);
    applier_position_text(&p, text);
    CHECK(!strcmp(text, "12"), "%s", text);
    for (int i = 0; i < APPLIER_LANES; i++) p.lane[i] = UINT64_MAX - (uint64_t)i;
    applier_position_text(&p, text);
    CHECK(strlen(text) == (APPLIER_LANES + 1) * 21 - 1, "the longest text fits");
    CHECK(applier_position_read(&q, text) && memcmp(&p, &q, sizeof p) == 0, "%s", text);
    CHECK(applier_least(&q) == UINT64_MAX - APPLIER_LANES + 1 && applier_most(&q) == UINT64_MAX);
    static const char *const good[] = {"0", "17", "3 3 4 5 6 7 8 9 10", "3 10 9 8 7 6 5 4 3"};
    static const char *const bad[] = {"",
                                      " ",
                                      "x",
                                      "-1",
                                      "1 ",
                                      "1 2",
                                      "3 4 4 5 6 7 8 9 10",
                                      "3 3 4 5 6 7 8 9 10 ",
                                      "3 3 4 5 6 7 8 9 10 11",
                                      "3 3 2 5 6 7 8 9 10",
                                      "3  3 4 5 6 7 8 9 10",
                                      "3 3 4 5 6 7 8 9 x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(applier_position_read(&p, good[i]), "%s", good[i]);
        applier_position_text(&p, text);
        CHECK(!strcmp(text, good[i]), "%s", text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!applier_position_read(&p, bad[i]), "'%s'", bad[i]);
    int many[APPLIER_LANES] = {0};
    for (int i = 0; i < 8000; i++) many[applier_lane_of(text, (size_t)snprintf(text, sizeof text, "s%d", i)) - 1]++;
    for (int i = 0; i < APPLIER_LANES; i++) CHECK(many[i] > 800 && many[i] < 1200, "lane %d has %d of 8000", i, many[i]);
    CHECK(applier_lane_of("s1", 2) == 7 && applier_lane_of("oven", 4) == 8, "a stored position means what it meant: %u %u", applier_lane_of("s1", 2),
          applier_lane_of("oven", 4));
}

/* Is some lane ahead, as Redis has it? */
static bool uneven(host *h) {
    neap_journal_log logs[8];
    size_t n = neap_journal_logs(h->j, logs, 8);
    redisReply *r = n ? redisCommand(cli, "HGET neap:journal %s", logs[n - 1].uuid) : NULL;
    bool is = r && r->type == REDIS_REPLY_STRING && strchr(r->str, ' ');
    if (r) freeReplyObject(r);
    return is;
}

static char once[64]; /* the key of a batch's idempotency key */
static bool has_once(host *h) { return ask("EXISTS %s", once) == 1; }
static bool one_log(host *h) {
    neap_journal_log logs[8];
    return neap_journal_logs(h->j, logs, 8) == 1;
}

/* Readings, as fast as they are acknowledged, until some lane is ahead. */
static int flood(host *h, int next) {
    bool ahead = false;
    for (int i = 0; i < 2000 && !ahead; i++) {
        append(h, next, WIDE, NULL);
        next += WIDE;
        until(h, all_acked);
        ahead = i % 4 == 3 && uneven(h);
    }
    CHECK(ahead, "no lane got ahead of the others");
    return next;
}

static void test_disturbed(void) {
    host h;
    int next = 0, restarts = 0;
    sensors = WIDE;
    segment_bytes = 1 << 20;
    server_start("yes", "everysec");
    host_start(&h, true);
    for (int i = 0; i < DISTURBANCES; i++) {
        next = flood(&h, next);
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        switch (i % 6) {
        case 0: /* Redis is killed */
            server_kill();
            append(&h, next, 300, NULL);
            next += 300;
            until(&h, all_acked);
            server_start("yes", "everysec");
            break;
        case 1: /* the host is */
            host_stop(&h);
            host_start(&h, true);
            restarts++;
            break;
        case 2: /* a batch with a key comes, the host is killed as soon as Redis has it, and it comes again */
            append(&h, next, 500, key);
            snprintf(once, sizeof once, "neap:once:%s", key);
            CHECK(until(&h, has_once));
            host_stop(&h);
            host_start(&h, true);
            restarts++;
            append(&h, next, 500, key);
            until(&h, all_acked);
            next += 500;
            break;
        case 3: /* both are */
            server_kill();
            host_stop(&h);
            server_start("yes", "everysec");
            host_start(&h, true);
            restarts++;
            break;
        case 4: /* Redis is frozen for longer than a step may take */
            kill(server, SIGSTOP);
            append(&h, next, 300, NULL);
            next += 300;
            CHECK(until(&h, is_away));
            kill(server, SIGCONT);
            break;
        case 5: /* Redis is full */
            ask("CONFIG SET maxmemory 1");
            append(&h, next, 300, NULL);
            next += 300;
            CHECK(until(&h, is_away));
            ask("CONFIG SET maxmemory 0");
        }
    }
    CHECK(until(&h, all_applied));
    CHECK(!uneven(&h), "level once nothing is left");
    verify(next, "disturbed floods");
    CHECK(status_of(&h).dead == 0 && restarts == DISTURBANCES / 2);
    CHECK(until(&h, one_log));
    host_stop(&h);
    server_kill();
    wipe();
}

int main(void) {
    fixture_begin();
    test_positions();
    test_disturbed();
    fixture_end();
    return test_end("applier_lanes");
}
