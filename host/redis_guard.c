/* redis_guard.c: the process between neap and its redis-server (see redis_server.h): starts redis-server, starts it again when it
   dies, ends it when no user is left, and takes it along when killed. Apart from the host because users come and go while the
   server stays: PDEATHSIG of the process that happened to start it would end it under the others.
   Three threads: main forks and waits for redis-server, one waits for the users' locks, one keeps the disk at work (redis_writeback.c). */
#include <limits.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "host/redis_private.h"
#include "host/redis_server.h"

enum { ALIVE_FD = 3, REPORT_FD = 4, RESTART_MIN_MS = 50, RESTART_MAX_MS = 2000, STEADY_S = 10, TERM_AFTER_MS = 500, KILL_AFTER_MS = 3000 };

#ifdef __SANITIZE_THREAD__
/* The sanitizer's own thread makes the fork below "multi-threaded"; the child's start of a thread is fine all the same. */
const char *__tsan_default_options(void);
__attribute__((weak)) const char *__tsan_default_options(void) { return "die_after_fork=0"; }
#endif

static struct {
    const char *dir, *socket, *exe;
    pthread_mutex_t mutex;
    pid_t child; /* 0: none */
    bool ending;
    int users; /* redis.lock, for waiting */
} guard = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void pause_ms(long ms) { nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL); }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool child_lives(void) {
    pthread_mutex_lock(&guard.mutex);
    bool lives = guard.child != 0;
    pthread_mutex_unlock(&guard.mutex);
    return lives;
}

static void child_signal(int sig) {
    pthread_mutex_lock(&guard.mutex);
    if (guard.child) kill(guard.child, sig);
    pthread_mutex_unlock(&guard.mutex);
}

/* Gets the users' locks once the last user has gone, then sees to it that redis-server ends: asked, told, killed. */
static void *wait_for_users(void *unused) {
    redis_lock_wait(guard.users, 0, LOCK_RANGE);
    pthread_mutex_lock(&guard.mutex);
    guard.ending = true;
    pthread_mutex_unlock(&guard.mutex);
    redis_ask_shutdown(guard.socket);
    for (long ms = 0; child_lives(); ms += 2) {
        if (ms == TERM_AFTER_MS) child_signal(SIGTERM);
        if (ms == KILL_AFTER_MS) child_signal(SIGKILL);
        pause_ms(2);
    }
    return NULL;
}

static pid_t spawn(void) {
    neap_redis_aof_mend();
    pid_t me = getpid(), pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != me) _exit(0);
    fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);
    signal(SIGPIPE, SIG_DFL);
    execl(guard.exe, "redis-server", "redis.conf", (char *)NULL);
    dprintf(2, "neap: cannot run %s: %s\n", guard.exe, strerror(errno));
    _exit(127);
}

/* Runs redis-server until no user is left. */
static void supervise(void) {
    long delay = RESTART_MIN_MS;
    for (;;) {
        pthread_mutex_lock(&guard.mutex);
        if (!guard.ending) guard.child = spawn();
        bool ending = guard.ending;
        pthread_mutex_unlock(&guard.mutex);
        if (ending) return;
        double began = now_s();
        int status = 0;
        if (guard.child > 0) {
            /* leave the zombie until the pid is forgotten: it must not be signalled after it has been reused */
            siginfo_t info;
            while (waitid(P_PID, (id_t)guard.child, &info, WEXITED | WNOWAIT) && errno == EINTR) {}
            pthread_mutex_lock(&guard.mutex);
            waitpid(guard.child, &status, 0);
            guard.child = 0;
            ending = guard.ending;
            pthread_mutex_unlock(&guard.mutex);
        } else {
            guard.child = 0; /* fork failed: try again later */
        }
        if (ending) return;
        if (now_s() - began > STEADY_S) delay = RESTART_MIN_MS;
        dprintf(REPORT_FD, WIFSIGNALED(status) ? "signal %d\n" : "exit %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        dprintf(2, "neap: redis-server ended (%s %d); starting it again in %ld ms\n", WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), delay);
        for (long ms = 0; ms < delay; ms += 10) {
            pthread_mutex_lock(&guard.mutex);
            ending = guard.ending;
            pthread_mutex_unlock(&guard.mutex);
            if (ending) return;
            pause_ms(10);
        }
        delay = delay * 2 < RESTART_MAX_MS ? delay * 2 : RESTART_MAX_MS;
    }
}

/* Only the lock and the report pipe stay open, as ALIVE_FD and REPORT_FD; output goes to the server's log. */
static int tidy_descriptors(int alive, int report) {
    int a = fcntl(alive, F_DUPFD, 10), r = report >= 0 ? fcntl(report, F_DUPFD, 10) : open("/dev/null", O_WRONLY);
    int null = open("/dev/null", O_RDONLY), log = open("redis.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (a < 0 || r < 0 || null < 0) return -1;
    dup2(null, 0);
    dup2(log >= 0 ? log : null, 1);
    dup2(log >= 0 ? log : null, 2);
    dup2(a, ALIVE_FD);
    dup2(r, REPORT_FD);
#ifdef SYS_close_range
    if (!syscall(SYS_close_range, 5u, ~0u, 0u)) return 0;
#endif
    for (int fd = 5; fd < 1024; fd++) close(fd);
    return 0;
}

/* The lock is taken here, before the caller learns that the guard runs, and handed on to the second process with the descriptor. */
int neap_redis_guard_main(int argc, char **argv) {
    if (argc < 4) return 2;
    char **a = argv + argc - 4;
    guard.dir = a[0];
    guard.socket = a[1];
    guard.exe = a[2];
    static const char carried[] = "/libexec/redis-server"; /* its libraries are carried along too */
    size_t len = strlen(guard.exe);
    char libs[PATH_MAX];
    if (len > sizeof carried && !strcmp(guard.exe + len - (sizeof carried - 1), carried)) {
        snprintf(libs, sizeof libs, "%.*s/lib", (int)(len - (sizeof carried - 1)), guard.exe);
        setenv("LD_LIBRARY_PATH", libs, 1);
    }
    int report = atoi(a[3]);
    umask(077);
    if (chdir(guard.dir)) return 3;
    int alive = open("redis.lock", O_RDWR);
    if (alive < 0 || redis_lock_try(alive, LOCK_ALIVE, 1)) return 4;
    pid_t pid = fork();
    if (pid) return pid < 0 ? 5 : 0;

    setsid();
    prctl(PR_SET_NAME, "neap-redis");
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int sig = 1; sig < 32; sig++) signal(sig, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    if (tidy_descriptors(alive, report)) _exit(6);
    guard.users = open("redis.lock", O_RDWR | O_CLOEXEC);
    pthread_t waiter;
    if (guard.users < 0 || pthread_create(&waiter, NULL, wait_for_users, NULL)) _exit(7);
    pthread_detach(waiter); /* it waits for as long as we live */
    redis_write_back();
    supervise();
    unlink(guard.socket);
    _exit(0); /* the locks go now: whoever waits at the door may start anew */
}
