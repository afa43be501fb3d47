/* redis_push_test.c: subscriptions and columns: what arrives without being asked for one by one. */
#include "host/redis_columns.h"
#include "host/redis_sub.h"
#include "spec/c/redis_fixture.h"

struct heard {
    int on, lost, failed, messages;
    char last[200];
};

static void on_event(void *ud, const neap_redis_event *e) {
    struct heard *h = ud;
    h->on += e->kind == NEAP_SUB_ON;
    h->lost += e->kind == NEAP_SUB_LOST;
    h->failed += e->kind == NEAP_SUB_FAILED;
    if (e->kind != NEAP_SUB_MESSAGE) return;
    h->messages++;
    snprintf(h->last, sizeof h->last, "%.*s|%.*s|%.*s", (int)e->pattern_len, e->pattern ? e->pattern : "", (int)e->channel_len, e->channel,
             (int)e->data_len, e->data);
}

#define UNTIL(cond)                                                                                                                                  \
    while (!(cond) && uv_run(&loop, UV_RUN_ONCE)) {}

static void test_subscribe(const char *url) {
    struct heard h = {0};
    struct answer a = {0};
    neap_redis *r = client(url, (neap_redis_opts){0});
    neap_redis_sub *s;
    neap_redis_opts o = {.self_turn = true};
    char err[200];
    CHECK(!neap_redis_addr_parse(url, &o.addr, err, sizeof err));
    CHECK(!neap_redis_sub_open(&loop, &o, on_event, &h, &s));
    neap_redis_addr_free(&o.addr);
    CHECK(!neap_redis_sub_add(s, false, "news", 4) && !neap_redis_sub_add(s, true, "n*", 2) && !neap_redis_sub_add(s, false, "news", 4));
    neap_redis_sub_hold(s, true);
    UNTIL(h.on == 2);
    CHECK(ASK(r, &a, "PUBLISH", "news", "hello") == 0 && a.reply->integer == 2);
    UNTIL(h.messages == 2);
    CHECK(!strcmp(h.last, "n*|news|hello"), "%s", h.last);
    neap_redis_sub_remove(s, true, "n*", 2);
    do CHECK(ASK(r, &a, "PUBSUB", "NUMPAT") == 0);
    while (a.reply->integer);
    CHECK(ASK(r, &a, "PUBLISH", "news", "again") == 0 && a.reply->integer == 1);
    UNTIL(h.messages == 3);
    CHECK(!strcmp(h.last, "|news|again"), "%s", h.last);
    /* a lost connection comes back, and so do its channels */
    CHECK(ASK(r, &a, "CLIENT", "KILL", "TYPE", "pubsub") == 0 && a.reply->integer == 1);
    UNTIL(h.lost == 1 && h.on == 3);
    CHECK(ASK(r, &a, "PUBLISH", "news", "back") == 0 && a.reply->integer == 1);
    UNTIL(h.messages == 4);
    neap_redis_sub_close(s);
    clear(&a);
    finish(r);
}

static void test_subscribe_nowhere(void) {
    struct heard h = {0};
    neap_redis_sub *s;
    CHECK(!neap_redis_sub_open(&loop, &(neap_redis_opts){.addr = {.path = (char *)"/nonexistent/x"}, .self_turn = true}, on_event, &h, &s));
    CHECK(!neap_redis_sub_add(s, false, "x", 1));
    neap_redis_sub_hold(s, true);
    UNTIL(h.failed);
    CHECK(h.failed == 1 && h.on == 0);
    neap_redis_sub_close(s);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static neap_redis_columns read_columns(neap_redis *r, struct answer *a, bool reverse) {
    static neap_redis_columns c;
    neap_buf b = {0};
    neap_redis_columns_init(&c);
    c.reverse = reverse;
    neap_resp_begin(&b, 4);
    neap_resp_str(&b, reverse ? "XREVRANGE" : "XRANGE", reverse ? 9 : 6);
    neap_resp_str(&b, "s", 1);
    neap_resp_str(&b, reverse ? "+" : "-", 1);
    neap_resp_str(&b, reverse ? "-" : "+", 1);
    clear(a);
    CHECK(!neap_redis_send(r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = 1, .sink = &c.sink, .cb = on_answer, .ud = a}));
    buf_free(&b);
    wait_for(a);
    neap_redis_columns_finish(&c);
    return c;
}

static void test_columns(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){0});
    struct answer a = {0};
    CHECK(ASK(r, &a, "XADD", "s", "1-0", "1000", "1.5", "junk", "1", "900", "x", "950", "-2e3") == 0);
    CHECK(ASK(r, &a, "XADD", "s", "2-0", "950", "7", "9007199254740993", "0.1") == 0);
    for (int reverse = 0; reverse < 2; reverse++) {
        neap_redis_columns c = read_columns(r, &a, reverse);
        CHECK(a.status == 0 && c.n == 4 && c.skipped == 2 && c.entries == 2 && !strcmp(c.last_id, "2-0"), "%d %zu %zu %s", a.status, c.n, c.skipped,
              c.last_id);
        CHECK(c.time[0] == 1000 && c.time[1] == 950 && c.value[1] == -2000 && c.value[2] == 7 && c.time[3] == 9007199254740993 && c.value[3] == 0.1,
              "order of arrival");
        CHECK(!neap_redis_columns_sort(&c) && c.time[0] == 950 && c.value[0] == -2000 && c.value[1] == 7 && c.time[2] == 1000);
        CHECK(neap_redis_columns_unique(&c) == 1 && c.n == 3 && c.value[0] == 7);
        free(c.time);
        free(c.value);
    }
    CHECK(ASK(r, &a, "SET", "text", "x") == 0 && ASK(r, &a, "DEL", "s") == 0 && ASK(r, &a, "SET", "s", "x") == 0);
    neap_redis_columns c = read_columns(r, &a, false);
    CHECK(a.status == NEAP_ERR_REPLY && c.n == 0 && !strncmp(a.reply->str, "WRONGTYPE", 9));
    clear(&a);
    finish(r);
}

/* Any disorder sorts as a stable sort would, on both of the sorting paths. */
static void test_sort(void) {
    for (int spread = 2; spread <= 20000; spread *= 10) {
        enum { N = 5000 };
        neap_redis_columns c;
        neap_redis_columns_init(&c);
        c.n = c.cap = N;
        c.time = malloc(N * sizeof *c.time);
        c.value = malloc(N * sizeof *c.value);
        uint32_t x = 1;
        for (int i = 0; i < N; i++) {
            x = x * 1664525 + 1013904223;
            c.time[i] = i + (int64_t)(x >> 16) % spread;
            c.value[i] = i;
        }
        CHECK(!neap_redis_columns_sort(&c));
        int wrong = 0;
        double sum = 0;
        for (int i = 0; i < N; i++) sum += c.value[i];
        for (int i = 1; i < N; i++) wrong += c.time[i - 1] > c.time[i] || (c.time[i - 1] == c.time[i] && c.value[i - 1] > c.value[i]);
        CHECK(wrong == 0 && sum == N * (N - 1) / 2.0, "spread %d: %d wrong", spread, wrong);
        neap_redis_columns_free(&c);
    }
}

int main(void) {
    begin();
    test_subscribe_nowhere();
    test_sort();
    pid_t pid = server_start(free_port(), NULL);
    test_subscribe(sock);
    test_columns(sock);
    server_kill(pid, SIGKILL);
    end();
    return test_end("redis_push");
}
