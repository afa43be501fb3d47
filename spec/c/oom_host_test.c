/* oom_host_test.c: no binding crashes, hangs or keeps anything when memory runs out. Each script in spec/oom/ is run in hosts of its own again and
   again: once with the n-th growth of Lua's memory refused (twice in a row: Lua collects garbage and asks again), once with the n-th allocation of
   our own C refused (the linker's --wrap: libraries keep theirs; libuv ends the process when some of its own fail). A script may end with an error;
   its first run, in which nothing fails, may not. Afterwards no block of Lua's, and no descriptor, is left; make SANITIZER=address finds C's.

   NEAP_OOM_LIVES: how many places a script and kind of memory are tried (12; 0: all, `make check-oom`). NEAP_OOM_AT=lua:1723 or c:112: only that one.
   Arguments: only these scripts. */
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <neap.h>
#include "spec/c/test.h"

/* ---- memory that runs out ---------------------------------------------------------------------------------------------- */
static atomic_long c_asked, c_fail_at; /* threads allocate too */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

static int refused(void) { return atomic_fetch_add(&c_asked, 1) + 1 == atomic_load(&c_fail_at); }
void *__wrap_malloc(size_t n) { return refused() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { return refused() ? NULL : __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { return refused() ? NULL : __real_realloc(p, n); }
char *__wrap_strdup(const char *s) { return refused() ? NULL : __real_strdup(s); }
char *__wrap_strndup(const char *s, size_t n) { return refused() ? NULL : __real_strndup(s, n); }

static long lua_asked, lua_fail_at, lua_blocks;
static void *lua_memory(void *ud, void *ptr, size_t old_size, size_t new_size) {
    if (new_size == 0) {
        lua_blocks -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (!ptr || new_size > old_size) {
        long n = ++lua_asked;
        if (lua_fail_at && (n == lua_fail_at || n == lua_fail_at + 1)) return NULL;
    }
    lua_blocks += ptr == NULL;
    return __real_realloc(ptr, new_size);
}

/* ---- one life ------------------------------------------------------------------------------------------------------------ */
static char dir[64], sock[96];
static const char *script;
static int runs;
static char said[300], reported[1000]; /* the script's error; the last one that nobody took */

static void hangs(int sig) {
    char line[1400];
    int n = snprintf(line, sizeof line, "oom: %s hangs: Lua's allocation %ld, C's %ld %s\n", script, lua_fail_at, (long)c_fail_at, reported);
    if (write(1, line, (size_t)n) < 0) {}
    abort();
}

static void dies(int sig) {
    char line[300];
    int n = snprintf(line, sizeof line, "oom: %s dies: Lua's allocation %ld, C's %ld\n", script, lua_fail_at, (long)c_fail_at);
    if (write(1, line, (size_t)n) < 0) {}
    signal(sig, SIG_DFL);
    raise(sig);
}

static void on_error(void *ud, const char *message) { snprintf(reported, sizeof reported, "%s", message); }

static int descriptors(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

/* Runs the script; `arg` is {its own directory, the socket of a redis-server}. Returns neap's code. */
static int live(long fail_lua, long fail_c) {
    char own[96];
    snprintf(own, sizeof own, "%s/%d", dir, ++runs);
    mkdir(own, 0700);
    char *arguments[] = {own, sock};
    neap_options o;
    neap_options_init(&o);
    o.alloc = lua_memory;
    o.on_error = on_error;
    o.argc = 2;
    o.argv = arguments;
    lua_asked = 0;
    lua_fail_at = fail_lua;
    atomic_store(&c_asked, 0);
    atomic_store(&c_fail_at, fail_c);
    *reported = 0;
    alarm(10);
    neap *h = NULL;
    int err = neap_create(&h, &o);
    if (!err) {
        err = neap_run_file(h, script);
        snprintf(said, sizeof said, "%s", neap_error(h));
        neap_close(h);
    }
    alarm(0);
    atomic_store(&c_fail_at, 0);
    return err;
}

static void try_all(long total, int of_lua, long lives) {
    const char *at = getenv("NEAP_OOM_AT");
    long step = lives > 0 && total > lives ? total / lives : 1, before = descriptors();
    for (long n = 1 + (lives > 0 ? runs % step : 0); n <= total; n += step) {
        if (at) {
            if (strncmp(at, of_lua ? "lua:" : "c:", of_lua ? 4 : 2)) return;
            n = atol(at + (of_lua ? 4 : 2));
            step = total;
        }
        live(of_lua ? n : 0, of_lua ? 0 : n);
        int fds = descriptors();
        CHECK(lua_blocks == 0 && fds <= before, "%s, %s allocation %ld: %ld blocks and %ld descriptors are left", script, of_lua ? "Lua's" : "C's", n,
              lua_blocks, fds - before);
        lua_blocks = 0;
        before = fds;
    }
}

static void try_script(const char *path, long lives) {
    script = path;
    live(0, 0); /* threads, and what is opened once */
    int err = live(0, 0);
    CHECK(err == 0, "%s: %s", path, said);
    if (err) return;
    long of_lua = lua_asked, of_c = c_asked;
    try_all(of_lua, 1, lives);
    try_all(of_c, 0, lives);
}

/* ---- a redis-server for those that want one ------------------------------------------------------------------------------- */
static pid_t start_redis(void) {
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir, "--save", "", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        if (access(sock, F_OK) == 0) break;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return pid;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, hangs);
    signal(SIGABRT, dies);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    signal(SIGSEGV, dies);
#endif
    snprintf(dir, sizeof dir, "/tmp/neap-oom-XXXXXX");
    if (!mkdtemp(dir)) return 1;
    snprintf(sock, sizeof sock, "%s/redis.sock", dir);
    pid_t redis = start_redis();
    const char *wanted = getenv("NEAP_OOM_LIVES");
    long lives = wanted ? atol(wanted) : 12;
    glob_t g = {0};
    if (argc < 2) glob("spec/oom/*.lua", 0, NULL, &g);
    for (size_t i = 0; i < g.gl_pathc; i++) try_script(g.gl_pathv[i], lives);
    for (int i = 1; i < argc; i++) try_script(argv[i], lives);
    CHECK(argc > 1 || g.gl_pathc > 5, "the scripts in spec/oom were not found");
    globfree(&g);
    kill(redis, SIGKILL);
    waitpid(redis, NULL, 0);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
    return test_end("oom");
}
