/* redis_server_test.c: the private redis-server: start, join, refuse, survive, end. The test program is its own guard. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "host/err.h"
#include "host/redis_private.h"
#include "host/redis_server.h"
#include "spec/c/test.h"

static char base[64];
static uv_loop_t loop;

struct up {
    int done, status;
    char text[1024];
};

static void on_up(void *ud, int status, const char *text) {
    struct up *u = ud;
    u->done++;
    u->status = status;
    snprintf(u->text, sizeof u->text, "%s", text);
}

static const char *guard_exe = "/proc/self/exe"; /* NULL: the guard is a fork */
static char lines[4096];
static void on_log(void *ud, int level, const char *line) {
    size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, "%s\n", line);
}

static void pause_ms(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

static neap_redis_server *enter(const char *dir, neap_redis_server_opts o, struct up *u) {
    neap_redis_server *s = NULL;
    *u = (struct up){0};
    o.dir = dir;
    o.guard_exe = guard_exe;
    o.on_log = on_log;
    CHECK(!neap_redis_server_open(&loop, &o, on_up, u, &s));
    CHECK(!u->done, "called back from inside the starting call");
    while (!u->done && uv_run(&loop, UV_RUN_ONCE)) {}
    return s;
}

static void leave(neap_redis_server *s) {
    neap_redis_server_close(s);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static void on_tick(uv_timer_t *t) {}

/* Turns the loop until the server answers (or, with up = false, until nobody does). */
static bool until_server(const char *sock, bool up) {
    uv_timer_t tick;
    bool ok = false;
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 1, 5);
    for (uint64_t end = uv_hrtime() + 10000000000ull; !ok && uv_hrtime() < end;) {
        uv_run(&loop, UV_RUN_ONCE);
        ok = (redis_probe(sock, 100) == PROBE_UP) == up;
    }
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    return ok;
}

static bool alive(const char *dir) {
    char path[256];
    snprintf(path, sizeof path, "%s/redis/redis.lock", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    bool is = redis_lock_taken(fd, LOCK_ALIVE, 1);
    close(fd);
    return is;
}

static bool until_ended(const char *dir) {
    for (int i = 0; i < 2000 && alive(dir); i++) pause_ms(5);
    return !alive(dir);
}

static pid_t pid_of(const char *dir) {
    char path[256];
    int pid = 0;
    snprintf(path, sizeof path, "%s/redis/redis.pid", dir);
    for (int i = 0; i < 1000 && pid < 2; i++, pause_ms(2)) {
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%d", &pid) != 1) pid = 0;
        if (f) fclose(f);
    }
    return pid;
}

static pid_t parent_of(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')');
    int parent = 0;
    return p && sscanf(p + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static void test_start_join_end(const char *dir) {
    struct up a, b, c;
    struct stat st;
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){.serve = true}, &a);
    CHECK(a.status == 0, "%s", a.text);
    CHECK(redis_probe(a.text, 1000) == PROBE_UP && !neap_redis_server_joined(s));
    char path[256];
    snprintf(path, sizeof path, "%s/redis", dir);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0700, "%o", st.st_mode);
    CHECK(!stat(a.text, &st) && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0700, "%o", st.st_mode);
    neap_redis_server *t = enter(dir, (neap_redis_server_opts){0}, &b);
    CHECK(b.status == 0 && neap_redis_server_joined(t) && !strcmp(a.text, b.text), "%s", b.text);
    neap_redis_server *u = enter(dir, (neap_redis_server_opts){.serve = true}, &c);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    CHECK(c.status == NEAP_ERR_FULL && strstr(c.text, "another `neap serve`") && strstr(c.text, pid), "%s", c.text);
    leave(u);
    leave(s);
    CHECK(redis_probe(b.text, 1000) == PROBE_UP, "the starter's leaving does not end it");
    u = enter(dir, (neap_redis_server_opts){.serve = true}, &c);
    CHECK(c.status == 0 && neap_redis_server_joined(u), "now a serve may come: %s", c.text);
    leave(u);
    leave(t);
    CHECK(!alive(dir) && redis_probe(b.text, 100) == PROBE_NOBODY, "the last one ends it");
    CHECK(stat(b.text, &st) && errno == ENOENT, "the socket is gone");
}

static void test_killed(const char *dir) {
    struct up a;
    lines[0] = 0;
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){0}, &a);
    pid_t redis = pid_of(dir), guard = parent_of(redis);
    CHECK(redis > 1 && guard > 1);
    kill(redis, SIGKILL);
    CHECK(until_server(a.text, false) && until_server(a.text, true), "back after the server was killed");
    CHECK(strstr(lines, "signal 9"), "%s", lines);
    redis = pid_of(dir);
    kill(guard, SIGKILL);
    CHECK(until_server(a.text, false), "goes with its guard");
    neap_redis_server_check(s);
    CHECK(until_server(a.text, true), "back after the guard was killed: %s", lines);
    CHECK(strstr(lines, "started again"), "%s", lines);
    leave(s);
    CHECK(!alive(dir));
}

/* A host that is killed with -9 leaves nothing; with another user present the server stays. */
static void test_host_killed(const char *dir) {
    for (int with_other = 0; with_other < 2; with_other++) {
        int ready[2];
        char c;
        CHECK(!pipe(ready));
        pid_t host = fork();
        if (host == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            uv_loop_t own;
            uv_loop_init(&own);
            struct up u = {0};
            neap_redis_server *s;
            neap_redis_server_open(&own, &(neap_redis_server_opts){.dir = dir, .serve = true, .guard_exe = "/proc/self/exe"}, on_up, &u, &s);
            while (!u.done) uv_run(&own, UV_RUN_ONCE);
            if (write(ready[1], u.status ? "n" : "y", 1) != 1) _exit(1);
            for (;;) pause();
        }
        CHECK(read(ready[0], &c, 1) == 1 && c == 'y');
        close(ready[0]);
        close(ready[1]);
        struct up a;
        neap_redis_server *s = with_other ? enter(dir, (neap_redis_server_opts){0}, &a) : NULL;
        pid_t redis = pid_of(dir);
        kill(host, SIGKILL);
        waitpid(host, NULL, 0);
        if (s) {
            struct up b;
            neap_redis_server *t = enter(dir, (neap_redis_server_opts){.serve = true}, &b);
            CHECK(b.status == 0 && neap_redis_server_joined(t) && pid_of(dir) == redis, "the next serve adopts it: %s", b.text);
            leave(t);
            leave(s);
        }
        CHECK(until_ended(dir), "an orphan is left");
        CHECK(kill(redis, 0) && errno == ESRCH, "an orphan is left");
    }
}

static void test_long_path(void) {
    char dir[512];
    struct up a, b;
    snprintf(dir, sizeof dir, "%s/%0120d", base, 7);
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){0}, &a);
    CHECK(a.status == 0 && strlen(a.text) < sizeof((struct sockaddr_un *)0)->sun_path && redis_probe(a.text, 1000) == PROBE_UP, "%s", a.text);
    neap_redis_server *t = enter(dir, (neap_redis_server_opts){0}, &b);
    CHECK(b.status == 0 && !strcmp(a.text, b.text), "%s", b.text);
    leave(s);
    leave(t);
}

static void test_cannot(const char *dir) {
    struct up a;
    char path[256];
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){.redis_exe = "/nonexistent/redis-server"}, &a);
    CHECK(a.status == NEAP_ERR_IO && strstr(a.text, "cannot run"), "%s", a.text);
    leave(s);
    snprintf(path, sizeof path, "%s/file", base);
    FILE *f = fopen(path, "w");
    fclose(f);
    s = enter(path, (neap_redis_server_opts){0}, &a);
    CHECK(a.status == NEAP_ERR_IO && strstr(a.text, "--data"), "%s", a.text);
    leave(s);
}

/* To the directory's server; 0 would be this whole process group. */
static void send_signal(const char *dir, int number) {
    pid_t pid = pid_of(dir);
    CHECK(pid > 0 && kill(pid, number) == 0);
}

static void test_corrupt(const char *dir) {
    struct up a;
    char cmd[4096];
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){0}, &a);
    snprintf(cmd, sizeof cmd, "redis-cli -s %s set a 1 >/dev/null && redis-cli -s %s set b 2 >/dev/null", a.text, a.text);
    CHECK(system(cmd) == 0);
    leave(s);
    s = enter(dir, (neap_redis_server_opts){0}, &a);
    snprintf(cmd, sizeof cmd, "test $(redis-cli -s %s get b) = 2", a.text);
    CHECK(a.status == 0 && system(cmd) == 0, "what was written is there after a restart");
    leave(s);
    snprintf(cmd, sizeof cmd, "f=$(echo %s/redis/appendonlydir/*.incr.aof) && printf 'x' | dd of=$f bs=1 seek=8 conv=notrunc 2>/dev/null", dir);
    CHECK(system(cmd) == 0);
    s = enter(dir, (neap_redis_server_opts){0}, &a);
    CHECK(a.status == NEAP_ERR_CORRUPT && strstr(a.text, "redis-check-aof"), "%s", a.text);
    leave(s);
    CHECK(until_ended(dir));
}

/* Embedded in a program that cannot be its own guard; and a directory whose name needs care in redis.conf. */
static void test_forked_guard(void) {
    struct up a;
    char dir[256];
    snprintf(dir, sizeof dir, "%s/a \"quoted\" back\\slash", base);
    guard_exe = NULL;
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){0}, &a);
    CHECK(a.status == 0 && redis_probe(a.text, 1000) == PROBE_UP, "%s", a.text);
    send_signal(dir, SIGKILL);
    CHECK(until_server(a.text, false) && until_server(a.text, true));
    leave(s);
    CHECK(!alive(dir));
    guard_exe = "/proc/self/exe";
}

/* A frozen server does not hold the host up for long when it leaves. */
static void test_frozen(const char *dir) {
    struct up a;
    neap_redis_server *s = enter(dir, (neap_redis_server_opts){0}, &a);
    CHECK(a.status == 0, "%s", a.text);
    send_signal(dir, SIGSTOP);
    uint64_t t = uv_hrtime();
    leave(s);
    CHECK(!alive(dir) && uv_hrtime() - t < 20000000000ull);
}

/* Closing while it is still starting. */
static void test_give_up(const char *dir) {
    struct up a = {0};
    neap_redis_server *s;
    CHECK(!neap_redis_server_open(&loop, &(neap_redis_server_opts){.dir = dir, .guard_exe = "/proc/self/exe"}, on_up, &a, &s));
    leave(s);
    CHECK(!a.done && !alive(dir));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--redis-guard")) return neap_redis_guard_main(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    snprintf(base, sizeof base, "/tmp/neap-server-test-XXXXXX");
    if (!mkdtemp(base)) return 1;
    uv_loop_init(&loop);
    char dir[96];
    snprintf(dir, sizeof dir, "%s/data", base);
    test_start_join_end(dir);
    test_killed(dir);
    test_host_killed(dir);
    test_long_path();
    test_cannot(dir);
    test_corrupt(dir);
    snprintf(dir, sizeof dir, "%s/other", base);
    test_give_up(dir);
#ifndef __SANITIZE_THREAD__ /* which cannot follow a fork of a program with threads */
    test_forked_guard();
#else
    (void)test_forked_guard;
#endif
    test_frozen(dir);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0, "handles are left over");
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    CHECK(system(cmd) == 0);
    return test_end("redis_server");
}
