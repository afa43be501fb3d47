/* embed_host_test.c: libneap from outside: calls both ways, asynchronous functions completed from another thread, two
   hosts in one process, a foreign loop, memory limits, closing from a callback, and every n-th allocation failing. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <neap.h>
#include "host/err.h"
#include "spec/c/test.h"

static neap_value integer(int64_t i) { return (neap_value){.type = NEAP_INTEGER, .as.integer = i}; }

static neap *make(neap_options *o) {
    neap_options def;
    if (!o) {
        neap_options_init(&def);
        o = &def;
    }
    neap *h = NULL;
    CHECK(neap_create(&h, o) == 0);
    return h;
}

/* ---- calls both ways
 * -------------------------------------------------------------------------------------------------- */
static void add(neap *h, neap_args *a, void *ud) {
    int64_t sum = *(int64_t *)ud;
    for (int i = 1; i <= neap_arg_count(a); i++) {
        if (neap_arg(a, i).type != NEAP_INTEGER) {
            neap_fail(a, "add: integers only");
            return;
        }
        sum += neap_arg(a, i).as.integer;
    }
    neap_value v = integer(sum);
    neap_return(a, &v);
}

typedef struct outcome {
    int called, status, n;
    neap_value first;
    char text[200];
} outcome;

static void take(neap *h, int status, const neap_value *values, int n, void *ud) {
    outcome *r = ud;
    r->called++;
    r->status = status;
    r->n = n;
    if (n) r->first = values[0];
    if (n && values[0].type == NEAP_STRING) snprintf(r->text, sizeof r->text, "%.*s", (int)values[0].as.string.len, values[0].as.string.data);
}

static void test_calls(void) {
    neap *h = make(NULL);
    int64_t base = 100;
    CHECK(neap_register(h, "host.math.add", add, &base) == 0);
    CHECK(neap_run_string(h,
                          "assert(host.math.add(1, 2) == 103) local ok, e = pcall(host.math.add, 'x') assert(e:find "
                          "'integers only', e)",
                          "=t") == 0,
          "%s", neap_error(h));
    CHECK(neap_run_string(h,
                          "function twice(x) require 'neap.task'.sleep(0.001) return x * 2, 'two' end function fail() "
                          "error 'oh no' end",
                          "=t") == 0);
    outcome r = {0}, e = {0};
    neap_value v = integer(21);
    CHECK(neap_call(h, "twice", &v, 1, take, &r) == 0);
    CHECK(r.called == 0); /* never inside the call */
    CHECK(neap_call(h, "fail", NULL, 0, take, &e) == 0);
    CHECK(neap_call(h, "nothing.there", NULL, 0, take, &e) == NEAP_ERR_INVALID);
    neap_loop(h);
    CHECK(r.called == 1 && r.status == 0 && r.n == 2 && r.first.as.integer == 42);
    CHECK(e.called == 1 && e.status == NEAP_ERR_INVALID && strstr(e.text, "oh no"), "%s", e.text);
    CHECK(neap_call(h, "neap.json:encode", &v, 1, take, &r) == 0);
    neap_loop(h);
    CHECK(strcmp(r.text, "21") == 0);
    CHECK(neap_run_string(h, "syntax error here", "=t") == NEAP_ERR_INVALID && *neap_error(h));
    CHECK(neap_run_file(h, "/nowhere/x.lua") == NEAP_ERR_IO);
    CHECK(neap_run_string(h, "os.exit(3)", "=t") == NEAP_ERR_INVALID && strstr(neap_error(h), "os.exit"), "%s", neap_error(h));
    neap_close(h);
}

/* ---- answers from another thread
 * -------------------------------------------------------------------------------------- */
typedef struct job {
    neap *h;
    neap_ticket t;
    int64_t x;
} job;

static void *work(void *ud) {
    job *j = ud;
    neap_value v = integer(j->x * j->x);
    neap_complete(j->h, j->t, &v, 1, j->x < 0 ? "negative" : NULL);
    free(j);
    return NULL;
}

static pthread_t threads[64];
static int nthreads;

static void square(neap *h, neap_ticket t, neap_args *a, void *ud) {
    job *j = malloc(sizeof *j);
    *j = (job){h, t, neap_arg(a, 1).as.integer};
    if (neap_arg(a, 1).type != NEAP_INTEGER) {
        free(j);
        neap_fail(a, "square: an integer");
        return;
    }
    pthread_create(&threads[nthreads++], NULL, work, j);
}

static neap_ticket held;
static void hold(neap *h, neap_ticket t, neap_args *a, void *ud) { held = t; }

static void test_async(void) {
    neap *h = make(NULL);
    CHECK(neap_register_async(h, "hold", hold, NULL) == 0);
    CHECK(neap_register_async(h, "square", square, NULL) == 0);
    CHECK(neap_run_string(h,
                          "local task = require 'neap.task'\n"
                          "assert(square(7) == 49)\n"
                          "local r = task.map({1, 2, 3, 4, 5, 6, 7, 8}, function(x) return square(x) end)\n"
                          "for i = 1, 8 do assert(r[i] == i * i) end\n"
                          "local ok, e = pcall(square, -1) assert(not ok and e:find 'negative')\n"
                          "ok, e = pcall(square, 'x') assert(not ok and e:find 'an integer')\n"
                          "local t = task.spawn(hold):quiet() task.yield() t:cancel() assert(not t:wait())",
                          "=async") == 0,
          "%s", neap_error(h));
    CHECK(neap_complete(h, held, NULL, 0, NULL) == 0); /* the cancelled call's answer comes late and is dropped */
    neap_loop(h);
    for (int i = 0; i < nthreads; i++) pthread_join(threads[i], NULL);
    nthreads = 0;
    neap_close(h);
}

/* ---- two hosts, two threads
 * ------------------------------------------------------------------------------------------- */
static void count_post(neap *h, void *ud) { ++*(int *)ud; }

static void *other_host(void *ud) {
    neap_options o;
    neap_options_init(&o);
    neap *h = NULL;
    if (neap_create(&h, &o)) return (void *)1;
    int err = neap_run_string(h, "local t = require 'neap.task' for i = 1, 50 do t.sleep(0) end x = (x or 0) + 1 assert(x == 1)", "=other");
    neap_close(h);
    return (void *)(intptr_t)err;
}

typedef struct poster {
    neap *h;
    int *count;
} poster;

static void *post_many(void *ud) {
    poster *p = ud;
    for (int i = 0; i < 1000; i++) neap_post(p->h, count_post, p->count);
    neap_stop(p->h);
    return NULL;
}

static void test_threads(void) {
    pthread_t t[4], p;
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, other_host, NULL);
    neap *h = make(NULL);
    int count = 0;
    poster ps = {h, &count};
    CHECK(neap_run_string(h, "require 'neap.task'.every(3600, print)", "=t") == 0); /* keeps the loop alive until neap_stop */
    pthread_create(&p, NULL, post_many, &ps);
    neap_loop(h);
    pthread_join(p, NULL);
    while (neap_step(h, 0) && count < 1000) {}
    CHECK(count == 1000, "%d", count);
    neap_close(h);
    for (int i = 0; i < 4; i++) {
        void *err;
        pthread_join(t[i], &err);
        CHECK(err == NULL);
    }
}

/* ---- the caller's loop; closing inside a callback; limits
 * ---------------------------------------------------------------- */
static void close_me(neap *h, neap_args *a, void *ud) { neap_close(h); }

static void test_foreign_loop(void) {
    uv_loop_t loop;
    uv_loop_init(&loop);
    neap_options o;
    neap_options_init(&o);
    o.loop = &loop;
    neap *h = make(&o);
    outcome r = {0};
    CHECK(neap_run_string(h, "function f() require 'neap.task'.sleep(0.002) return 1 end", "=t") == 0);
    CHECK(neap_call(h, "f", NULL, 0, take, &r) == 0);
    while (!r.called) uv_run(&loop, UV_RUN_ONCE);
    CHECK(r.first.as.integer == 1);
    CHECK(neap_fd(h) >= 0);
    neap_close(h);
    CHECK(uv_loop_close(&loop) == 0);

    h = make(NULL);
    neap_register(h, "close_me", close_me, NULL);
    CHECK(neap_run_string(h, "close_me()", "=t") == 0); /* the host is gone now; ASan would tell */
}

static int reports;
static void on_error(void *ud, const char *message) { reports += strstr(message, "lonely") != NULL; }

static void test_limits(void) {
    neap_options o;
    neap_options_init(&o);
    o.memory_limit = 8 << 20;
    o.on_error = on_error;
    neap *h = make(&o);
    CHECK(neap_run_string(h, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end", "=t") == NEAP_ERR_MEMORY);
    CHECK(strstr(neap_error(h), "not enough memory") != NULL, "%s", neap_error(h));
    CHECK(neap_run_string(h, "collectgarbage() local ok = pcall(string.rep, 'x', 1 << 24) assert(not ok) usable = true", "=t") == 0, "%s",
          neap_error(h));
    CHECK(neap_run_string(h, "require 'neap.task'.spawn(function() error 'lonely' end)", "=t") == 0);
    neap_loop(h);
    CHECK(reports == 1);
    neap_close(h);
}

/* ---- every n-th allocation fails
 * -------------------------------------------------------------------------------------------- */
typedef struct failing {
    long left; /* allocations until two in a row fail: Lua collects garbage after the first and asks again */
    long blocks;
} failing;

static void *failing_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    failing *f = ud;
    if (nsize == 0) {
        if (ptr) f->blocks--;
        free(ptr);
        return NULL;
    }
    if ((!ptr || nsize > osize) && f->left >= -1 && f->left-- <= 0) return NULL;
    if (!ptr) f->blocks++;
    return realloc(ptr, nsize);
}

static void test_failing_allocator(void) {
    long n;
    int done = 0, failures = 0;
    for (n = 0; n < 100000 && !done; n += n < 200 ? 1 : 37) {
        failing f = {.left = n};
        neap_options o;
        neap_options_init(&o);
        o.alloc = failing_alloc;
        o.alloc_ud = &f;
        o.on_error = on_error;
        neap *h = NULL;
        int64_t base = 0;
        int err = NEAP_ERR_MEMORY;
        outcome r = {0};
        if (neap_create(&h, &o) == 0) {
            err = neap_register(h, "add", add, &base);
            if (!err) err = neap_run_string(h, "local t = require 'neap.task' function go(x) t.sleep(0) return add(x, 1), ('s'):rep(100) end", "=t");
            neap_value v = integer(1);
            if (!err) err = neap_call(h, "go", &v, 1, take, &r);
            if (!err) {
                neap_loop(h);
                CHECK(r.called == 1);
            }
            if (f.left >= 0) done = 1; /* so late that nothing failed */
            neap_close(h);
        }
        failures += err != 0;
        CHECK(f.blocks == 0, "allocation %ld failed: %ld blocks left", n, f.blocks);
    }
    CHECK(done, "%ld", n);
    CHECK(failures > 200, "%d", failures); /* and they did fail */
}

int main(void) {
    test_calls();
    test_async();
    test_threads();
    test_foreign_loop();
    test_limits();
    test_failing_allocator();
    return test_end("embed");
}
