/* redis_cluster_test.c: a cluster of three local masters behind one client: routing, split pipelines, MOVED, ASK, a lost node. */
#include "spec/c/redis_fixture.h"
#include "host/redis_priv.h"

static struct {
    int port;
    pid_t pid;
    neap_redis *r; /* a plain connection to this node, for arranging things */
} node[3];

static pid_t start_node(int i) {
    char p[16], home[128];
    snprintf(p, sizeof p, "%d", node[i].port);
    snprintf(home, sizeof home, "%s/%d", dir, i);
    mkdir(home, 0700);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("redis-server", "redis-server", "--port", p, "--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "yes",
               "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no", (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Asks one node itself, without routing. */
static int ask_node(int i, struct answer *a, int argc, const char *const *argv) {
    neap_buf b = {0};
    clear(a);
    neap_resp_begin(&b, (size_t)argc);
    for (int k = 0; k < argc; k++) neap_resp_str(&b, argv[k], strlen(argv[k]));
    int e = redis_send_here(node[i].r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = 1, .cb = on_answer, .ud = a});
    buf_free(&b);
    if (e) return e;
    wait_for(a);
    return a->status;
}
#define ASK_NODE(i, a, ...) ask_node(i, a, sizeof(ARGV(__VA_ARGS__)) / sizeof(char *), ARGV(__VA_ARGS__))

static bool port_free(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    bool ok = !bind(fd, (struct sockaddr *)&a, sizeof a);
    close(fd);
    return ok;
}

static void make_cluster(void) {
    struct answer a = {0};
    char url[64], port[16], from[16], to[16];
    for (int i = 0; i < 3; i++) {
        do node[i].port = 20000 + (free_port() + i) % 25000; /* the cluster bus takes port + 10000 */
        while (!port_free(node[i].port) || !port_free(node[i].port + 10000));
        node[i].pid = start_node(i);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(url, sizeof url, "127.0.0.1:%d", node[i].port);
        while (1) { /* until it listens */
            node[i].r = client(url, (neap_redis_opts){0});
            neap_redis_connect(node[i].r);
            if (ASK_NODE(i, &a, "PING") == 0) break;
            finish(node[i].r);
        }
        snprintf(from, sizeof from, "%d", i * 5461);
        snprintf(to, sizeof to, "%d", i == 2 ? 16383 : (i + 1) * 5461 - 1);
        CHECK(ASK_NODE(i, &a, "CLUSTER", "ADDSLOTSRANGE", from, to) == 0, "%s", a.reply->str);
        snprintf(port, sizeof port, "%d", node[0].port);
        if (i) CHECK(ASK_NODE(i, &a, "CLUSTER", "MEET", "127.0.0.1", port) == 0);
    }
    for (int i = 0; i < 3; i++) do { /* until all know of all */
            CHECK(ASK_NODE(i, &a, "CLUSTER", "SLOTS") == 0);
            if (a.reply->len < 3) idle_turn();
        } while (a.reply->len < 3);
    for (int i = 0; i < 3; i++) /* a master that has just started waits two seconds before it serves */
        while (ASK_NODE(i, &a, "CLUSTER", "INFO") == 0 && !strstr(a.reply->str, "cluster_state:ok")) idle_turn();
    clear(&a);
}

static void test_slots(void) {
    CHECK(redis_key_slot("123456789", 9) == 12739); /* the CRC's published check value, 0x31c3 */
    CHECK(redis_key_slot("a{tag}b", 7) == redis_key_slot("tag", 3));
    CHECK(redis_key_slot("x{tag}{other}", 13) == redis_key_slot("tag", 3) && redis_key_slot("{}{tag}", 7) != redis_key_slot("tag", 3),
          "only the first braces, if not empty");
}

static void test_routing(neap_redis *r) {
    struct answer a = {0};
    char key[32], text[32];
    int wrong = 0;
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k%d", i);
        snprintf(text, sizeof text, "%d", i);
        wrong += ASK(r, &a, "SET", key, text) != 0;
    }
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k%d", i);
        wrong += ASK(r, &a, "GET", key) != 0 || a.reply->type != NEAP_REPLY_STRING || atoi(a.reply->str) != i;
    }
    CHECK(wrong == 0, "%d", wrong);
    for (int i = 0; i < 3; i++) CHECK(ASK_NODE(i, &a, "DBSIZE") == 0 && a.reply->integer > 20, "every node has its share");
    CHECK(ASK(r, &a, "MGET", "k1", "k2") == NEAP_ERR_REPLY && !strncmp(a.reply->str, "CROSSSLOT", 9));
    CHECK(ASK(r, &a, "MSET", "{t}1", "a", "{t}2", "b") == 0);
    CHECK(ASK(r, &a, "EVAL", "return redis.call('GET', KEYS[1])", "1", "{t}2") == 0 && !strcmp(a.reply->str, "b"));
    CHECK(ASK(r, &a, "XADD", "stream", "1-1", "f", "v") == 0 && ASK(r, &a, "XREAD", "COUNT", "1", "STREAMS", "stream", "0") == 0 &&
          a.reply->len == 1);
    clear(&a);
}

static void add(neap_buf *b, const char *verb, const char *key, const char *value) {
    neap_resp_begin(b, value ? 3 : key ? 2 : 1);
    neap_resp_str(b, verb, strlen(verb));
    if (key) neap_resp_str(b, key, strlen(key));
    if (value) neap_resp_str(b, value, strlen(value));
}

static int flagged(neap_redis *r, struct answer *a, neap_buf *b, uint32_t n, uint32_t flags) {
    neap_redis_req q = {.bytes = b->data, .len = b->len, .count = n, .flags = NEAP_REDIS_BATCH | flags, .cb = on_answer, .ud = a};
    clear(a);
    int e = neap_redis_send(r, &q);
    buf_free(b);
    if (e) return e;
    CHECK(!a->done, "called back from inside the call");
    wait_for(a);
    return a->status;
}

static int batch(neap_redis *r, struct answer *a, neap_buf *b, uint32_t n) { return flagged(r, a, b, n, 0); }

static void test_batches(neap_redis *r) {
    struct answer a = {0};
    neap_buf b = {0};
    char key[32], text[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "b%d", i % 500);
        snprintf(text, sizeof text, "%d", i);
        add(&b, i < 500 ? "SET" : "GET", key, i < 500 ? text : NULL);
    }
    CHECK(batch(r, &a, &b, 1000) == 0 && a.reply->len == 1000);
    int wrong = 0;
    for (int i = 500; i < 1000; i++) wrong += a.reply->item[i].type != NEAP_REPLY_STRING || atoi(a.reply->item[i].str) != i - 500;
    CHECK(wrong == 0, "%d", wrong);
    add(&b, "PING", NULL, NULL);
    add(&b, "CLUSTER", "MYID", NULL);
    CHECK(flagged(r, &a, &b, 2, NEAP_REDIS_MASTERS) == 0 && a.reply->len == 6, "each master answers the whole batch");
    for (uint32_t i = 0; i < 6; i++) CHECK(a.reply->item[i].len == (i % 2 ? 40 : 4));
    for (uint32_t i = 1; i < 6; i += 2) CHECK(strcmp(a.reply->item[i].str, a.reply->item[(i + 2) % 6].str) != 0);
    add(&b, "MULTI", NULL, NULL);
    add(&b, "INCR", "{m}1", NULL);
    add(&b, "INCR", "{m}2", NULL);
    add(&b, "EXEC", NULL, NULL);
    CHECK(batch(r, &a, &b, 4) == 0 && a.reply->item[3].type == NEAP_REPLY_ARRAY && a.reply->item[3].item[1].integer == 1);
    clear(&a);
}

static void id_of(int i, char id[48]) {
    struct answer a = {0};
    CHECK(ASK_NODE(i, &a, "CLUSTER", "MYID") == 0);
    snprintf(id, 48, "%s", a.reply->str);
    clear(&a);
}

/* Moves the slot of "mover" by hand from its owner to the next node, step by step, as a resharding tool does. */
static void test_moving(neap_redis *r) {
    struct answer a = {0};
    neap_buf b = {0};
    char slot[16], from_id[48], to_id[48], port[16];
    int s = redis_key_slot("mover", 5), from = s / 5461 > 2 ? 2 : s / 5461, to = (from + 1) % 3;
    snprintf(slot, sizeof slot, "%d", s);
    snprintf(port, sizeof port, "%d", node[to].port);
    id_of(from, from_id);
    id_of(to, to_id);
    CHECK(ASK(r, &a, "SET", "mover", "here") == 0);
    CHECK(ASK_NODE(to, &a, "CLUSTER", "SETSLOT", slot, "IMPORTING", from_id) == 0);
    CHECK(ASK_NODE(from, &a, "CLUSTER", "SETSLOT", slot, "MIGRATING", to_id) == 0);
    CHECK(ASK(r, &a, "GET", "mover") == 0 && !strcmp(a.reply->str, "here"));
    CHECK(ASK_NODE(from, &a, "MIGRATE", "127.0.0.1", port, "mover", "0", "1000") == 0);
    CHECK(ASK(r, &a, "GET", "mover") == 0 && a.reply->type == NEAP_REPLY_STRING && !strcmp(a.reply->str, "here"), "ASK is followed");
    add(&b, "GET", "mover", NULL);
    add(&b, "GET", "k1", NULL);
    CHECK(batch(r, &a, &b, 2) == 0 && a.reply->item[0].type == NEAP_REPLY_STRING && !strcmp(a.reply->item[0].str, "here") &&
              !strcmp(a.reply->item[1].str, "1"),
          "in a batch too");
    for (int i = 0; i < 3; i++) CHECK(ASK_NODE(i, &a, "CLUSTER", "SETSLOT", slot, "NODE", to_id) == 0);
    CHECK(ASK(r, &a, "APPEND", "mover", "!") == 0 && a.reply->integer == 5, "MOVED is followed");
    add(&b, "MULTI", NULL, NULL);
    add(&b, "GET", "mover", NULL);
    add(&b, "EXEC", NULL, NULL);
    CHECK(batch(r, &a, &b, 3) == 0 && a.reply->item[2].type == NEAP_REPLY_ARRAY && !strcmp(a.reply->item[2].item[0].str, "here!"));
    clear(&a);
}

/* A client that began before the move finds out in the middle of a pipeline. */
static void test_moved_batch(neap_redis *stale) {
    struct answer a = {0};
    neap_buf b = {0};
    for (int i = 0; i < 50; i++) add(&b, i % 2 ? "GET" : "STRLEN", i % 5 ? "mover" : "k1", NULL);
    CHECK(batch(stale, &a, &b, 50) == 0);
    int wrong = 0;
    for (int i = 0; i < 50; i++) wrong += i % 2 ? a.reply->item[i].type != NEAP_REPLY_STRING : a.reply->item[i].integer != (i % 5 ? 5 : 1);
    CHECK(wrong == 0, "%d", wrong);
    clear(&a);
}

/* One node dies: the other slots go on; its own wait, and are served when it is back. */
static void test_lost_node(neap_redis *r) {
    struct answer a = {0}, waits = {0};
    int lost = redis_key_slot("k1", 2) / 5461, other = -1;
    char key[32];
    for (int i = 2; other < 0; i++) {
        snprintf(key, sizeof key, "k%d", i);
        if (redis_key_slot(key, strlen(key)) / 5461 != lost) other = i;
    }
    finish(node[lost].r);
    server_kill(node[lost].pid, SIGKILL);
    int e;
    while ((e = ask(r, &a, NEAP_REDIS_RETRY, 2, ARGV("GET", key))) == NEAP_ERR_CONNECTION) {}
    CHECK(e == 0 && a.reply->type == NEAP_REPLY_STRING, "%d", e);
    CHECK(!CMD(r, &waits, NEAP_REDIS_RETRY, "GET", "k1"));
    for (int i = 0; i < 5; i++) uv_run(&loop, UV_RUN_NOWAIT);
    CHECK(!waits.done);
    node[lost].pid = start_node(lost);
    wait_for(&waits);
    while (waits.status == NEAP_ERR_REPLY && strstr(waits.reply->str, "CLUSTERDOWN"))
        ask(r, &waits, NEAP_REDIS_RETRY, 2, ARGV("GET", "k1")); /* its two seconds again */
    CHECK(waits.status == 0 && waits.reply->type == NEAP_REPLY_STRING && !strcmp(waits.reply->str, "1"), "%d %s", waits.status, waits.reply->str);
    clear(&a);
    clear(&waits);
    node[lost].r = NULL;
}

int main(void) {
    begin();
    test_slots();
    make_cluster();
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", node[1].port);
    neap_redis *r = client(url, (neap_redis_opts){.timeout_ms = 20000}), *stale = client(url, (neap_redis_opts){0});
    struct answer a = {0};
    CHECK(ASK(stale, &a, "GET", "k1") == 0);
    test_routing(r);
    test_batches(r);
    test_moving(r);
    test_moved_batch(stale);
    neap_redis_close(stale);
    test_lost_node(r);
    /* closing with requests on their way to several nodes answers each once */
    struct answer left[8] = {{0}};
    char key[8];
    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "x%d", i);
        CHECK(!CMD(r, &left[i], 0, "GET", key));
    }
    neap_redis_close(r);
    for (int i = 0; i < 8; i++) {
        CHECK(left[i].done == 1 && left[i].status == NEAP_ERR_CLOSED, "%d", left[i].status);
        clear(&left[i]);
    }
    clear(&a);
    for (int i = 0; i < 3; i++) {
        if (node[i].r) neap_redis_close(node[i].r);
        server_kill(node[i].pid, SIGKILL);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    end();
    return test_end("redis_cluster");
}
