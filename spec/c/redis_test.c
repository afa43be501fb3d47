/* redis_test.c: the Redis client core against a real redis-server (private to the test, in a temporary directory). */
#include "spec/c/redis_fixture.h"

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void test_addresses(void) {
    static const struct {
        const char *url, *path, *host, *user, *password;
        int port, db;
    } good[] = {
        {"redis://localhost", NULL, "localhost", NULL, NULL, 6379, 0},
        {"redis://u:p%40s%2Fs@10.0.0.1:7000/3", NULL, "10.0.0.1", "u", "p@s/s", 7000, 3},
        {"redis://:secret@[::1]:7001", NULL, "::1", NULL, "secret", 7001, 0},
        {"redis://:a/b@h/2", NULL, "h", NULL, "a/b", 6379, 2},
        {"unix:///run/x.sock?db=4&password=q", "/run/x.sock", NULL, NULL, "q", 6379, 4},
        {"/tmp/a b.sock", "/tmp/a b.sock", NULL, NULL, NULL, 6379, 0},
        {"h:12", NULL, "h", NULL, NULL, 12, 0},
    };
    char err[256];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        neap_redis_addr a = {0};
        CHECK(!neap_redis_addr_parse(good[i].url, &a, err, sizeof err), "%s: %s", good[i].url, err);
#define SAME(x) CHECK((!a.x && !good[i].x) || (a.x && good[i].x && !strcmp(a.x, good[i].x)), "%s: " #x " is %s", good[i].url, a.x ? a.x : "NULL")
        SAME(path);
        SAME(host);
        SAME(user);
        SAME(password);
        CHECK(a.port == good[i].port && a.db == good[i].db, "%s: %d/%d", good[i].url, a.port, a.db);
        neap_redis_addr_free(&a);
    }
    const char *bad[] = {
        "", "http://x", "redis://h:0", "redis://h:99999", "redis://h/x", "redis://[::1", "unix://relative", "redis://h?foo=1", "rediss://h"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        neap_redis_addr a = {0};
        CHECK(neap_redis_addr_parse(bad[i], &a, err, sizeof err) && *err, "%s was taken", bad[i]);
    }
}

static void test_wire(void) {
    neap_buf b = {0};
    neap_resp_begin(&b, 5);
    neap_resp_str(&b, "a\0b", 3);
    neap_resp_int(&b, INT64_MIN);
    neap_resp_num(&b, 0.1);
    neap_resp_num(&b, 3.0);
    neap_resp_num(&b, 0.1 + 0.2);
    const char want[] = "*5\r\n$3\r\na\0b\r\n$20\r\n-9223372036854775808\r\n$3\r\n0.1\r\n$1\r\n3\r\n$19\r\n0.30000000000000004\r\n";
    CHECK(b.len == sizeof want - 1 && !memcmp(b.data, want, b.len), "%s", b.data);
    buf_free(&b);
}

static void test_commands(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){.name = "test"});
    struct answer a = {0}, b = {0};
    CHECK(ASK(r, &a, "FLUSHALL") == 0 && a.reply->type == NEAP_REPLY_STATUS);
    CHECK(ASK(r, &a, "GET", "nothing") == 0 && a.reply->type == NEAP_REPLY_NIL);
    clear(&a);
    const char *argv[] = {"SET", "bin", "x\0\r\ny"};
    size_t lens[] = {3, 3, 5};
    CHECK(!neap_redis_command(r, 3, argv, lens, 0, on_answer, &a));
    wait_for(&a);
    CHECK(ASK(r, &a, "GET", "bin") == 0 && a.reply->len == 5 && !memcmp(a.reply->str, "x\0\r\ny", 6), "binary value");
    CHECK(ASK(r, &a, "INCR", "bin") == NEAP_ERR_REPLY && a.reply->type == NEAP_REPLY_ERROR && strstr(a.reply->str, "not an integer"));
    CHECK(ASK(r, &a, "LPUSH", "bin", "1") == NEAP_ERR_REPLY && !strncmp(a.reply->str, "WRONGTYPE", 9));
    CHECK(ASK(r, &a, "CLIENT", "GETNAME") == 0 && !strcmp(a.reply->str, "test"));
    CHECK(ASK(r, &a, "DEBUG", "PROTOCOL", "array") == 0 && a.reply->type == NEAP_REPLY_ARRAY && a.reply->len == 3 && a.reply->item[2].integer == 2);
    CHECK(ASK(r, &a, "DEBUG", "PROTOCOL", "double") == 0 && a.reply->type == NEAP_REPLY_STRING && !strcmp(a.reply->str, "3.141"), "%s", a.reply->str);
    CHECK(ASK(r, &a, "DEBUG", "PROTOCOL", "map") == 0 && a.reply->type == NEAP_REPLY_ARRAY && a.reply->len == 6);
    CHECK(ASK(r, &a, "DEBUG", "PROTOCOL", "null") == 0 && a.reply->type == NEAP_REPLY_NIL);
    CHECK(ASK(r, &a, "EVAL", "return {1,{'a',{2,false}},'b'}", "0") == 0 && a.reply->item[1].item[1].item[0].integer == 2 &&
          a.reply->item[1].item[1].item[1].type == NEAP_REPLY_NIL && !strcmp(a.reply->item[2].str, "b"));
    /* a long reply crosses many reads and many chunks */
    CHECK(ASK(r, &a, "EVAL", "local t={} for i=1,50000 do t[i]=tostring(i) end return t", "0") == 0 && a.reply->len == 50000, "%d %u %s", a.status,
          a.reply->len, a.reply->type == NEAP_REPLY_ERROR ? a.reply->str : "");
    int wrong = 0;
    for (int i = 0; i < 50000; i++) wrong += atoi(a.reply->item[i].str) != i + 1;
    CHECK(wrong == 0);
    CHECK(ASK(r, &a, "EVAL", "return string.rep('x', 3000000)", "0") == 0 && a.reply->len == 3000000 && a.reply->str[2999999] == 'x');
    clear(&a);
    /* two in one turn: one write */
    CHECK(!CMD(r, &a, 0, "SET", "k", "1") && !CMD(r, &b, NEAP_REDIS_RETRY, "GET", "k"));
    wait_for(&b);
    CHECK(a.done && b.done && !strcmp(b.reply->str, "1"));
    clear(&a);
    clear(&b);
    finish(r);
}

static void test_batch(const char *url, int n) {
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 60000});
    struct answer a = {0};
    neap_buf b = {0};
    for (int i = 0; i < n; i++) {
        neap_resp_begin(&b, 3);
        neap_resp_str(&b, i % 10 ? "RPUSH" : "INCRBY", i % 10 ? 5 : 6);
        neap_resp_str(&b, "list", 4);
        neap_resp_int(&b, i);
    }
    CHECK(ASK(r, &a, "DEL", "list") == 0);
    CHECK(ASK(r, &a, "RPUSH", "list", "first") == 0);
    clear(&a);
    CHECK(!neap_redis_send(
        r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = (uint32_t)n, .flags = NEAP_REDIS_BATCH, .cb = on_answer, .ud = &a}));
    buf_free(&b);
    wait_for(&a);
    CHECK(a.status == 0 && a.reply->len == (uint32_t)n);
    int64_t len = 1;
    int wrong = 0;
    for (int i = 0; i < n; i++)
        if (i % 10) wrong += a.reply->item[i].type != NEAP_REPLY_INTEGER || a.reply->item[i].integer != ++len;
        else wrong += a.reply->item[i].type != NEAP_REPLY_ERROR;
    CHECK(wrong == 0, "%d of %d", wrong, n);
    CHECK(ASK(r, &a, "DEL", "list") == 0 && a.reply->integer == 1);
    clear(&a);
    finish(r);
}

static void many_done(void *ud, int status, neap_reply *reply) {
    int *left = ud;
    if (status == 0 && reply->type == NEAP_REPLY_STRING) --*left;
    neap_reply_free(reply);
}

/* More bytes than hiredis' buffer is allowed to hold: the rest waits in our queue. */
static void test_backlog(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 60000});
    struct answer a = {0};
    static char value[5000];
    memset(value, 'v', sizeof value - 1);
    CHECK(ASK(r, &a, "PING") == 0);
    int left = 2000;
    for (int i = 0; i < 2000; i++) CHECK(!neap_redis_command(r, 2, ARGV("ECHO", value), NULL, 0, many_done, &left));
    while (left && uv_run(&loop, UV_RUN_ONCE)) {}
    CHECK(left == 0);
    neap_redis_stats s;
    neap_redis_get_stats(r, &s);
    CHECK(s.in_flight == 0 && s.queued == 0 && s.commands == 2001 && s.replies >= 2001);
    clear(&a);
    finish(r);
}

static void test_refused(void) {
    char url[64], err[1];
    (void)err;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", free_port());
    neap_redis *r = client(url, (neap_redis_opts){0});
    struct answer a = {0};
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_CONNECTION && strstr(a.reply->str, "refused") && !neap_reply_sent(a.reply), "%s", a.reply->str);
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_CONNECTION, "a second try fails as well");
    clear(&a);
    finish(r);
    r = client("/nonexistent/redis.sock", (neap_redis_opts){0});
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_CONNECTION && strstr(a.reply->str, "No such file"), "%s", a.reply->str);
    clear(&a);
    finish(r);
    r = client("redis://no-such-host.invalid", (neap_redis_opts){0});
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_CONNECTION && strstr(a.reply->str, "host name"), "%s", a.reply->str);
    clear(&a);
    finish(r);
}

static void test_password(int port) {
    char url[96];
    struct answer a = {0};
    pid_t pid = server_start(port, "s3cret");
    snprintf(url, sizeof url, "redis://localhost:%d", port);
    neap_redis *r = client(url, (neap_redis_opts){0});
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_AUTH && strstr(a.reply->str, "password"), "%s", a.reply->str);
    finish(r);
    snprintf(url, sizeof url, "redis://:wrong@127.0.0.1:%d", port);
    r = client(url, (neap_redis_opts){0});
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_AUTH && strstr(a.reply->str, "WRONGPASS") && !strstr(a.reply->str, "wrong@"), "%s", a.reply->str);
    finish(r);
    snprintf(url, sizeof url, "redis://default:s3cret@127.0.0.1:%d/5", port);
    r = client(url, (neap_redis_opts){0});
    CHECK(ASK(r, &a, "CLIENT", "INFO") == 0 && strstr(a.reply->str, "db=5"), "%s", a.reply->str);
    finish(r);
    snprintf(url, sizeof url, "redis://:s3cret@127.0.0.1:%d/500", port);
    r = client(url, (neap_redis_opts){0});
    CHECK(ASK(r, &a, "PING") == NEAP_ERR_REPLY && strstr(a.reply->str, "DB index"), "%d %s", a.status, a.reply->str);
    clear(&a);
    finish(r);
    server_kill(pid, SIGKILL);
}

static void test_timeout(const char *url, pid_t pid) {
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 50});
    struct answer a = {0}, b = {0};
    CHECK(ASK(r, &a, "SET", "slow", "0") == 0);
    kill(pid, SIGSTOP);
    CHECK(ASK(r, &a, "INCR", "slow") == NEAP_ERR_TIMEOUT && neap_reply_sent(a.reply), "%d", a.status);
    kill(pid, SIGCONT);
    /* the late reply is swallowed; the next answers are the right ones */
    int e;
    while ((e = ask(r, &b, NEAP_REDIS_RETRY, 2, ARGV("GET", "slow"))) == NEAP_ERR_TIMEOUT) {}
    CHECK(e == 0 && !strcmp(b.reply->str, "1"), "%s", b.reply->str);
    clear(&a);
    clear(&b);
    finish(r);
    /* a server that stays silent is given up, and reads get another chance on a new connection */
    r = client(url, (neap_redis_opts){.timeout_ms = 5000, .dead_ms = 60});
    CHECK(ASK(r, &a, "PING") == 0);
    kill(pid, SIGSTOP);
    clear(&a);
    CHECK(!neap_redis_send(
        r, &(neap_redis_req){.bytes = "*2\r\n$4\r\nINCR\r\n$4\r\nslow\r\n", .len = 24, .count = 1, .timeout_ms = 30, .cb = on_answer, .ud = &a}));
    CHECK(!CMD(r, &b, NEAP_REDIS_RETRY, "GET", "bin"));
    while (neap_redis_state(r) == NEAP_REDIS_READY) idle_turn();
    CHECK(a.done == 1 && a.status == NEAP_ERR_TIMEOUT && !b.done);
    kill(pid, SIGCONT);
    wait_for(&b);
    CHECK(b.status == 0, "%d", b.status);
    clear(&a);
    clear(&b);
    finish(r);
}

static pid_t test_killed(const char *url, pid_t pid, int port) {
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 10000});
    struct answer write = {0}, read = {0}, later = {0};
    CHECK(ASK(r, &read, "PING") == 0);
    clear(&read);
    kill(pid, SIGSTOP);
    CHECK(!CMD(r, &write, 0, "INCR", "n") && !CMD(r, &read, NEAP_REDIS_RETRY, "GET", "n"));
    neap_redis_stats s = {0};
    while (s.bytes_out == 0) {
        uv_run(&loop, UV_RUN_NOWAIT);
        neap_redis_get_stats(r, &s);
    }
    server_kill(pid, SIGKILL);
    wait_for(&write);
    CHECK(write.status == NEAP_ERR_CONNECTION && neap_reply_sent(write.reply) && strstr(write.reply->str, "may have run"), "%s", write.reply->str);
    CHECK(!read.done, "a read waits for the new connection");
    CHECK(!CMD(r, &later, 0, "SET", "later", "1"), "commands queue while Redis is away");
    for (int i = 0; i < 20; i++) uv_run(&loop, UV_RUN_NOWAIT);
    pid = server_start(port, NULL);
    wait_for(&read);
    wait_for(&later);
    CHECK(read.status == 0 && read.reply->type == NEAP_REPLY_NIL, "%d", read.status);
    CHECK(later.status == 0 && later.reply->type == NEAP_REPLY_STATUS, "%d", later.status);
    neap_redis_get_stats(r, &s);
    CHECK(s.connects == 2 && s.retries == 1);
    clear(&write);
    clear(&read);
    clear(&later);
    finish(r);
    return pid;
}

/* Writing to a server that has just gone raises no signal. */
static void test_write_to_the_gone(const char *url, pid_t *pid, int port) {
    neap_redis *r = client(url, (neap_redis_opts){0});
    struct answer a = {0};
    CHECK(ASK(r, &a, "PING") == 0);
    server_kill(*pid, SIGKILL);
    clear(&a);
    CHECK(!CMD(r, &a, 0, "INCR", "x"));
    neap_redis_turn(r); /* before the loop has seen the end of the connection */
    wait_for(&a);
    CHECK(a.status == NEAP_ERR_CONNECTION && neap_reply_sent(a.reply));
    clear(&a);
    finish(r);
    *pid = server_start(port, NULL);
}

static void test_queue_full(const char *url, pid_t *pid, int port) {
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 300, .max_queue = 3});
    struct answer a = {0};
    CHECK(ASK(r, &a, "PING") == 0);
    server_kill(*pid, SIGKILL);
    while (neap_redis_state(r) == NEAP_REDIS_READY) idle_turn();
    struct answer q[3] = {{0}};
    for (int i = 0; i < 3; i++) CHECK(!CMD(r, &q[i], 0, "INCR", "x"));
    clear(&a);
    CHECK(CMD(r, &a, 0, "INCR", "x") == NEAP_ERR_FULL);
    for (int i = 0; i < 3; i++) {
        wait_for(&q[i]);
        CHECK(q[i].status == NEAP_ERR_CONNECTION && !neap_reply_sent(q[i].reply), "%d", q[i].status);
        clear(&q[i]);
    }
    finish(r);
    *pid = server_start(port, NULL);
}

static void test_close_pending(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){0});
    struct answer a = {0}, b = {0};
    CHECK(!CMD(r, &a, 0, "PING"));
    neap_redis_close(r);
    CHECK(a.done == 1 && a.status == NEAP_ERR_CLOSED);
    uv_run(&loop, UV_RUN_DEFAULT);
    r = client(url, (neap_redis_opts){0});
    clear(&a);
    CHECK(ASK(r, &a, "PING") == 0);
    CHECK(!CMD(r, &b, 0, "BLPOP", "empty", "0"));
    uv_run(&loop, UV_RUN_NOWAIT);
    neap_redis_close(r);
    CHECK(b.done == 1 && b.status == NEAP_ERR_CLOSED);
    uv_run(&loop, UV_RUN_DEFAULT);
    clear(&a);
    clear(&b);
}

static void closes_itself(void *ud, int status, neap_reply *reply) {
    neap_redis_close(ud);
    neap_reply_free(reply);
}

/* An idle connection does not keep the loop alive; closing from inside a callback is safe. */
static void test_idle(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){0});
    struct answer a = {0}, b = {0};
    CHECK(ASK(r, &a, "PING") == 0);
    CHECK(uv_run(&loop, UV_RUN_DEFAULT) == 0, "the loop ends with an idle connection");
    CHECK(neap_redis_state(r) == NEAP_REDIS_READY);
    CHECK(!neap_redis_command(r, 1, ARGV("PING"), NULL, 0, closes_itself, r));
    CHECK(!CMD(r, &b, 0, "PING"));
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(b.done == 1 && b.status == NEAP_ERR_CLOSED);
    clear(&a);
    clear(&b);
}

static void test_once(const char *url) {
    neap_redis *r = client(url, (neap_redis_opts){.once = true});
    neap_redis *other = client(url, (neap_redis_opts){0});
    struct answer a = {0}, b = {0};
    CHECK(ASK(r, &a, "CLIENT", "ID") == 0);
    char id[24];
    snprintf(id, sizeof id, "%lld", (long long)a.reply->integer);
    clear(&a);
    CHECK(!CMD(r, &a, 0, "BLPOP", "empty", "0"));
    CHECK(ASK(other, &b, "CLIENT", "KILL", "ID", id) == 0);
    wait_for(&a);
    CHECK(a.status == NEAP_ERR_CONNECTION && neap_reply_sent(a.reply));
    clear(&a);
    CHECK(CMD(r, &a, 0, "PING") == NEAP_ERR_CONNECTION, "its state is gone: it does not come back");
    clear(&b);
    neap_redis_close(other);
    finish(r);
}

int main(void) {
    begin();
    int port = free_port();
    char tcp[64];
    snprintf(tcp, sizeof tcp, "redis://127.0.0.1:%d", port);
    test_addresses();
    test_wire();
    test_refused();
    test_password(port);
    pid_t pid = server_start(port, NULL);
    test_commands(sock);
    test_commands(tcp);
    test_batch(sock, 1);
    test_batch(sock, 100000);
    test_backlog(sock);
    test_idle(sock);
    test_once(sock);
    test_close_pending(tcp);
    test_timeout(sock, pid);
    pid = test_killed(sock, pid, port);
    signal(SIGPIPE, SIG_DFL); /* as in a program that embeds neap and does not care about signals */
    test_write_to_the_gone(sock, &pid, port);
    test_queue_full(sock, &pid, port);
    server_kill(pid, SIGKILL);
    end();
    return test_end("redis");
}
