/* redis_fixture.h: for the C tests of the Redis client: a redis-server of one's own, and requests that are waited for. */
#ifndef REDIS_FIXTURE_H
#define REDIS_FIXTURE_H
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "host/redis.h"
#include "spec/c/test.h"

static char dir[64], sock[96];
static uv_loop_t loop;

/* ---- a server ------------------------------------------------------------------------------------------------------ */

static inline pid_t server_start(int port, const char *password) {
    char p[16];
    snprintf(p, sizeof p, "%d", port);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("redis-server", "redis-server", "--port", p, "--bind", "127.0.0.1", "--unixsocket", sock, "--dir", dir, "--save", "",
               "--enable-debug-command", "yes", password ? "--requirepass" : "--maxclients", password ? password : "200", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        struct stat st;
        if (!stat(sock, &st)) break;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return pid;
}

static inline void server_kill(pid_t pid, int sig) {
    kill(pid, sig);
    waitpid(pid, NULL, 0);
    if (sig == SIGKILL) unlink(sock);
}

static inline int free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, n) || getsockname(fd, (struct sockaddr *)&a, &n)) return 0;
    close(fd);
    return ntohs(a.sin_port);
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

struct answer {
    int done, status;
    neap_reply *reply;
};

static inline void on_answer(void *ud, int status, neap_reply *reply) {
    struct answer *a = ud;
    neap_reply_free(a->reply);
    a->done++;
    a->status = status;
    a->reply = reply;
}

static inline void wait_for(struct answer *a) {
    while (!a->done && uv_run(&loop, UV_RUN_ONCE)) {}
}

static inline void on_tick(uv_timer_t *t) {}

/* One turn of a loop that has nothing pending: an idle connection alone does not make it poll. */
static inline void idle_turn(void) {
    uv_timer_t tick;
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 1, 0);
    uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static inline void clear(struct answer *a) {
    neap_reply_free(a->reply);
    *a = (struct answer){0};
}

#define ARGV(...)                                                                                                                                    \
    (const char *const[]) { __VA_ARGS__ }
#define CMD(r, a, flags, ...) neap_redis_command(r, sizeof(ARGV(__VA_ARGS__)) / sizeof(char *), ARGV(__VA_ARGS__), NULL, flags, on_answer, a)

static inline int ask(neap_redis *r, struct answer *a, uint32_t flags, int argc, const char *const *argv) {
    clear(a);
    int e = neap_redis_command(r, argc, argv, NULL, flags, on_answer, a);
    if (e) return e;
    if (a->done) CHECK(0, "a callback came from inside the starting call");
    wait_for(a);
    return a->status;
}
#define ASK(r, a, ...) ask(r, a, 0, sizeof(ARGV(__VA_ARGS__)) / sizeof(char *), ARGV(__VA_ARGS__))

static inline neap_redis *client(const char *url, neap_redis_opts o) {
    neap_redis *r = NULL;
    char err[256];
    o.self_turn = true;
    CHECK(!neap_redis_addr_parse(url, &o.addr, err, sizeof err), "%s: %s", url, err);
    CHECK(!neap_redis_open(&loop, &o, &r));
    neap_redis_addr_free(&o.addr);
    return r;
}

static inline void finish(neap_redis *r) {
    neap_redis_close(r);
    uv_run(&loop, UV_RUN_DEFAULT);
}

/* A temporary directory, a loop; and their end, which must find nothing left over. */
static inline void begin(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof dir, "/tmp/neap-redis-test-XXXXXX");
    if (!mkdtemp(dir)) exit(1);
    snprintf(sock, sizeof sock, "%s/redis.sock", dir);
    uv_loop_init(&loop);
}

static inline void end(void) {
    CHECK(uv_loop_close(&loop) == 0, "handles are left over");
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    CHECK(system(cmd) == 0);
}
#endif
