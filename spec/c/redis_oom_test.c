/* redis_oom_test.c: every allocation of the Redis client fails once, in turn: no crash, each callback exactly once, nothing leaked. Allocations
   inside hiredis and libuv succeed (libuv ends the process when some of its own fail). */
#include "host/redis_columns.h"
#include "host/redis_sub.h"
#include "spec/c/redis_fixture.h"

#ifdef __SANITIZE_ADDRESS__
int main(void) { return test_end("redis_oom"); } /* the sanitizer has malloc for itself; the plain build runs this */
#elif defined __SANITIZE_THREAD__
int main(void) { return test_end("redis_oom"); }
#else

/* ---- malloc, with a counter and a list of what is ours --------------------------------------------------------------- */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
extern char __executable_start, etext;

static long countdown = -1; /* allocations until one fails; -1: none does */
static bool failed;
static void *live[1 << 14];
static int nlive;

static bool from_us(void *caller) { return (char *)caller >= &__executable_start && (char *)caller < &etext; }
static bool fails(void *caller) {
    if (!from_us(caller) || countdown < 0 || countdown-- > 0) return false;
    return failed = true;
}

static void *note(void *p, void *caller) {
    if (p && from_us(caller) && nlive < 1 << 14) live[nlive++] = p;
    return p;
}

static void forget(void *p) {
    for (int i = nlive - 1; p && i >= 0; i--)
        if (live[i] == p) {
            live[i] = live[--nlive];
            return;
        }
}

void *malloc(size_t n) { return fails(__builtin_return_address(0)) ? NULL : note(__libc_malloc(n), __builtin_return_address(0)); }
void *calloc(size_t n, size_t m) { return fails(__builtin_return_address(0)) ? NULL : note(__libc_calloc(n, m), __builtin_return_address(0)); }
void free(void *p) {
    forget(p);
    __libc_free(p);
}
void *realloc(void *p, size_t n) {
    if (fails(__builtin_return_address(0))) return NULL;
    forget(p);
    return note(__libc_realloc(p, n), __builtin_return_address(0));
}

/* ---- the scenario ----------------------------------------------------------------------------------------------------- */
static int expected, came;

static void on_any(void *ud, int status, neap_reply *reply) {
    came++;
    neap_reply_free(reply);
}

static void on_event(void *ud, const neap_redis_event *e) {}

static void expect(int e) { expected += !e; }

static void scenario(const neap_redis_addr *addr) {
    neap_redis *r = NULL;
    neap_redis_sub *s = NULL;
    neap_buf b = {0};
    neap_redis_columns c;
    neap_redis_columns_init(&c);
    expected = came = 0;
    if (!neap_redis_open(&loop, &(neap_redis_opts){.addr = *addr, .name = "oom", .self_turn = true, .timeout_ms = 2000}, &r)) {
        expect(neap_redis_command(r, 3, ARGV("SET", "k", "v"), NULL, 0, on_any, NULL));
        expect(neap_redis_command(r, 2, ARGV("GET", "k"), NULL, NEAP_REDIS_RETRY, on_any, NULL));
        expect(neap_redis_command(r, 3, ARGV("EVAL", "local t = {} for i = 1, 300 do t[i] = 'item ' .. i end return {t, {1, t}}", "0"), NULL, 0,
                                  on_any, NULL));
        int e = 0;
        for (int i = 0; i < 10 && !e; i++)
            if (!(e = neap_resp_begin(&b, 2)) && !(e = neap_resp_str(&b, "INCR", 4))) e = neap_resp_int(&b, i);
        if (!e) expect(neap_redis_send(r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = 10, .flags = NEAP_REDIS_BATCH, .cb = on_any}));
        buf_clear(&b);
        if (!(e = neap_resp_begin(&b, 4)) && !(e = neap_resp_str(&b, "XRANGE", 6)) && !(e = neap_resp_str(&b, "s", 1)) &&
            !(e = neap_resp_str(&b, "-", 1)) && !(e = neap_resp_str(&b, "+", 1)))
            expect(neap_redis_send(r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = 1, .sink = &c.sink, .cb = on_any}));
    }
    if (r && !neap_redis_sub_open(&loop, &(neap_redis_opts){.addr = *addr, .self_turn = true}, on_event, NULL, &s))
        neap_redis_sub_add(s, false, "ch", 2);
    while (came < expected && uv_run(&loop, UV_RUN_ONCE)) {}
    if (s) neap_redis_sub_close(s);
    if (r) neap_redis_close(r);
    countdown = -1;
    uv_run(&loop, UV_RUN_DEFAULT);
    neap_redis_columns_free(&c);
    buf_free(&b);
}

int main(void) {
    begin();
    pid_t pid = server_start(free_port(), NULL);
    neap_redis_addr addr = {.path = sock};
    struct answer a = {0};
    neap_redis *r = client(sock, (neap_redis_opts){0});
    for (int i = 1; i < 500; i++) {
        char id[24];
        snprintf(id, sizeof id, "%d-1", i);
        if (ASK(r, &a, "XADD", "s", id, id, "1.5") != 0) break;
    }
    clear(&a);
    finish(r);
    scenario(&addr); /* without a failure: what is allocated once and for all is there now */
    CHECK(came == expected && expected == 5, "%d of %d", came, expected);
    int before = nlive, wrong = 0, leaks = 0;
    long n = 0;
    do {
        failed = false;
        countdown = n++;
        scenario(&addr);
        wrong += came != expected;
        leaks += nlive > before;
        before = nlive;
    } while (failed);
    CHECK(n > 30, "only %ld allocations were tried", n);
    CHECK(wrong == 0, "%d of %ld", wrong, n);
    CHECK(leaks == 0, "%d of %ld", leaks, n);
    server_kill(pid, SIGKILL);
    end();
    return test_end("redis_oom");
}
#endif
