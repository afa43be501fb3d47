/* redis_private.c: entering and leaving the private redis-server's directory; see redis_server.h for the protocol. Blocking; runs on
   a pool thread, or at the very end on the loop's. */
#include <limits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "host/err.h"
#include "host/redis_private.h"
#include "host/redis_server.h"

extern char **environ;

enum { START_S = 15, DOOR_S = 20, ANSWER_S = 10, LEAVE_S = 8, SLOT_TEXT = 16 };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_ms(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

__attribute__((format(printf, 3, 4))) static int fail(redis_private *p, int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->error, sizeof p->error, fmt, ap);
    va_end(ap);
    return code;
}

/* ---- the directory ------------------------------------------------------------------------------------------------- */

/* mkdir -p, new parts 0700. */
static int make_dirs(char *path) {
    for (char *s = path + 1; *s; s++) {
        if (*s != '/') continue;
        *s = 0;
        int e = mkdir(path, 0700) && errno != EEXIST ? errno : 0;
        *s = '/';
        if (e && e != EISDIR && e != EROFS && e != EACCES) return e; /* those three: the last part will tell */
    }
    return mkdir(path, 0700) && errno != EEXIST ? errno : 0;
}

static int open_dir(redis_private *p, const char *data_dir) {
    char path[PATH_MAX - 16], real[PATH_MAX];
    if (strlen(data_dir) > sizeof path - 32) return fail(p, NEAP_ERR_INVALID, "the data directory's name is too long");
    snprintf(path, sizeof path, "%s/redis", data_dir);
    int e = make_dirs(path);
    struct stat st;
    if (!e && stat(path, &st)) e = errno;
    if (!e && !S_ISDIR(st.st_mode)) e = ENOTDIR;
    if (!e && (st.st_mode & 077) && chmod(path, 0700)) e = errno;
    if (!e && access(path, R_OK | W_OK | X_OK)) e = errno;
    if (!e && !realpath(path, real)) e = errno;
    if (e == ENOSPC)
        return fail(p, NEAP_ERR_IO, "the disk of the data directory %s is full: free some space, or give another directory with --data", data_dir);
    if (e)
        return fail(
            p, NEAP_ERR_IO,
            "cannot use the data directory %s: %s. Give one that this user may write with --data DIR, or set REDIS_URL to use a Redis of your own",
            data_dir, strerror(e));
    snprintf(p->dir, sizeof p->dir, "%s", real);
    return 0;
}

/* The socket stands in the directory; where its path would be longer than the system allows, under a short name in the user's runtime directory. The
   choice depends on nothing but the directory, so that every process comes to the same one. */
static int choose_socket(redis_private *p) {
    if (strlen(p->dir) + strlen("/redis.sock") < sizeof((struct sockaddr_un *)0)->sun_path) {
        snprintf(p->socket, sizeof p->socket, "%.*s/redis.sock", (int)sizeof p->dir - 16, p->dir);
        return 0;
    }
    char run[64];
    struct stat st;
    snprintf(run, sizeof run, "/tmp/neap-%lu", (unsigned long)geteuid());
    if (mkdir(run, 0700) && errno != EEXIST) return fail(p, NEAP_ERR_IO, "cannot make %s for the Redis socket: %s", run, strerror(errno));
    if (lstat(run, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
        return fail(p, NEAP_ERR_IO,
                    "%s must be a directory of yours with mode 0700: it is not. Remove it, or give a data directory with a shorter name", run);
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *s = p->dir; *s; s++) hash = (hash ^ (unsigned char)*s) * 1099511628211u;
    snprintf(p->socket, sizeof p->socket, "%s/%016llx.sock", run, (unsigned long long)hash);
    return 0;
}

/* `make dist` carries a redis-server along, as bin/../libexec/redis-server. */
static bool beside_us(char *path, size_t size) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return false;
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    return snprintf(path, size, "%s/../libexec/redis-server", self) < (int)size && !access(path, X_OK);
}

static int find_redis(redis_private *p) {
    if (*p->redis_exe) return access(p->redis_exe, X_OK) ? fail(p, NEAP_ERR_IO, "cannot run %s: %s", p->redis_exe, strerror(errno)) : 0;
    const char *path = getenv("PATH");
    char all[8192];
    snprintf(all, sizeof all, "%s:/usr/local/bin:/usr/bin:/usr/sbin:/snap/bin", path ? path : "");
    for (char *save = NULL, *d = strtok_r(all, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
        if (snprintf(p->redis_exe, sizeof p->redis_exe, "%s/redis-server", d) < (int)sizeof p->redis_exe && !access(p->redis_exe, X_OK)) return 0;
    }
    if (beside_us(p->redis_exe, sizeof p->redis_exe)) return 0;
    *p->redis_exe = 0;
    return fail(p, NEAP_ERR_IO,
                "without REDIS_URL or --redis neap starts its own redis-server, but none is installed: `apt-get install redis-server` "
                "(Debian, Ubuntu), or set REDIS_URL=redis://host:port");
}

/* ---- locks --------------------------------------------------------------------------------------------------------- */

static int pass_door(redis_private *p) {
    int e;
    for (double until = now_s() + DOOR_S; (e = redis_lock_try(p->lock, LOCK_DOOR, 1)); pause_ms(2))
        if (e != EAGAIN && e != EACCES && e != EINTR)
            return fail(p, NEAP_ERR_IO, "cannot lock %s/redis.lock: %s. A local disk is wanted for the data directory (--data DIR)", p->dir,
                        strerror(e));
        else if (p->stop || now_s() > until)
            return fail(p, NEAP_ERR_TIMEOUT, "another process has been starting or ending the Redis in %s for too long", p->dir);
    return 0;
}

/* The holder's pid, as it noted it in the file when it took the slot; 0 if unreadable. */
static int slot_owner(redis_private *p, int slot) {
    char t[SLOT_TEXT + 1] = "";
    return pread(p->lock, t, SLOT_TEXT, (off_t)slot * SLOT_TEXT) > 0 ? atoi(t) : 0;
}

static int take_slot(redis_private *p) {
    if (p->slot >= 0) return 0;
    for (double until = now_s() + LEAVE_S;;) {
        int from = p->serve ? LOCK_SERVE : 1, to = p->serve ? LOCK_SERVE : LOCK_USERS;
        for (int i = from; i <= to && p->slot < 0; i++)
            if (!redis_lock_try(p->lock, i, 1)) p->slot = i;
        if (p->slot >= 0) break;
        /* A guard that has seen the last user go holds the whole range, even the last byte, until its server has ended. */
        bool ending = redis_lock_taken(p->lock, LOCK_RANGE - 1, 1);
        if (!ending && p->serve)
            return fail(p, NEAP_ERR_FULL,
                        "another `neap serve` (process %d) uses this data directory: stop that one first, or give this one a directory of its own "
                        "with --data DIR",
                        slot_owner(p, LOCK_SERVE));
        if (p->stop || now_s() > until)
            return fail(p, NEAP_ERR_TIMEOUT, "the Redis in %s has been ending for too long; see %s/redis.log", p->dir, p->dir);
        pause_ms(2);
    }
    char t[SLOT_TEXT + 1];
    snprintf(t, sizeof t, "%-15d\n", (int)getpid());
    if (pwrite(p->lock, t, SLOT_TEXT, (off_t)p->slot * SLOT_TEXT) < 0) {} /* only for people */
    return 0;
}

static bool others(redis_private *p) {
    return (p->slot > 0 && redis_lock_taken(p->lock, 0, p->slot)) || redis_lock_taken(p->lock, p->slot + 1, LOCK_USERS - p->slot);
}

/* ---- starting ------------------------------------------------------------------------------------------------------ */

/* A path as a quoted word of redis.conf. */
static const char *quoted(const char *path, char out[PATH_MAX * 2 + 4]) {
    char *o = out;
    *o++ = '"';
    for (const char *s = path; *s && o < out + PATH_MAX * 2; s++) {
        if (*s == '"' || *s == '\\') *o++ = '\\';
        if (*s == '\n') o = stpcpy(o, "\\n");
        else *o++ = *s;
    }
    *o++ = '"';
    *o = 0;
    return out;
}

static int write_conf(redis_private *p) {
    char path[PATH_MAX + 16], tmp[PATH_MAX + 16], dir[PATH_MAX * 2 + 4], sock[PATH_MAX * 2 + 4];
    snprintf(path, sizeof path, "%s/redis.conf", p->dir);
    snprintf(tmp, sizeof tmp, "%s/redis.conf.new", p->dir);
    FILE *f = fopen(tmp, "w");
    if (!f) return fail(p, NEAP_ERR_IO, "cannot write %s: %s", tmp, strerror(errno));
    const char *fsync_mode = p->fsync ? p->fsync : "always";
    fprintf(f,
            "# Written by neap at each start of its private Redis: changes here are lost. A Redis with settings of your own: REDIS_URL.\n"
            "port 0\nunixsocket %s\nunixsocketperm 700\ndir %s\npidfile redis.pid\nlogfile redis.log\n"
            "daemonize no\nsupervised no\nsave \"\"\nappendonly yes\nappendfsync %s\nappenddirname appendonlydir\naof-load-truncated yes\n"
            /* trimmed streams rewrite the AOF again and again with the default of 64 MB */
            "auto-aof-rewrite-percentage 100\nauto-aof-rewrite-min-size 256mb\nno-appendfsync-on-rewrite no\n"
            /* A stream's node is then as large as a piece of memory that jemalloc has, 4,096 bytes with its head. A hundred entries of a reading
               each, the default, leave an eighth of theirs unused: 31 bytes a reading instead of 27. */
            "stream-node-max-bytes 4080\nstream-node-max-entries 0\n"
            "tcp-keepalive 0\ntimeout 0\nmaxclients 1000\nalways-show-logo no\nloglevel notice\n",
            quoted(p->socket, sock), quoted(p->dir, dir), fsync_mode);
    int bad = ferror(f);
    if (fclose(f) || bad || rename(tmp, path)) {
        int e = errno;
        unlink(tmp);
        return fail(p, NEAP_ERR_IO, "cannot write %s: %s%s", path, strerror(e), e == ENOSPC ? ". Free some space on that disk" : "");
    }
    return 0;
}

/* Starts the guard; it has the ALIVE lock when this returns 0. */
static int start_guard(redis_private *p) {
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC)) return fail(p, NEAP_ERR_IO, "no pipe for redis-server: %s", strerror(errno));
    char fd[16];
    int handed = p->guard_exe ? 9 : pipes[1]; /* dup2 below clears close-on-exec */
    snprintf(fd, sizeof fd, "%d", handed);
    char *argv[] = {(char *)"neap", (char *)"--redis-guard", p->dir, p->socket, p->redis_exe, fd, NULL};
    pid_t pid;
    int e = 0, status = 0;
    if (p->guard_exe) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, pipes[1], handed);
        e = posix_spawn(&pid, p->guard_exe, &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    } else {
        pid = fork();
        if (pid == 0) _exit(neap_redis_guard_main(6, argv));
        if (pid < 0) e = errno;
    }
    close(pipes[1]);
    if (!e)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {} /* ECHILD where the host ignores SIGCHLD: status stays 0 */
    if (e || status) {
        close(pipes[0]);
        return fail(p, NEAP_ERR_IO, "cannot start the guard of redis-server: %s (%d)", e ? strerror(e) : "it gave up", WEXITSTATUS(status));
    }
    if (p->report >= 0) close(p->report);
    p->report = pipes[0];
    return 0;
}

/* The end of the server's log, where it says why it did not start. */
static int explain(redis_private *p) {
    char path[PATH_MAX + 16], text[4096], last[256] = "";
    snprintf(path, sizeof path, "%s/redis.log", p->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = size > (off_t)sizeof text - 1 ? size - (off_t)sizeof text + 1 : 0;
    ssize_t n = fd >= 0 ? pread(fd, text, sizeof text - 1, from) : 0;
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    for (char *begin; (begin = strstr(text + 1, "Redis is starting"));) memmove(text, begin, strlen(begin) + 1); /* only the last attempt */
    bool aof = strstr(text, "the append only file") || strstr(text, "AOF format");
    if (strstr(text, "No space left on device"))
        return fail(p, NEAP_ERR_IO,
                    "redis-server did not start: the disk of %s is full. Free some space there and start again; nothing acknowledged is lost",
                    p->dir);
    if (strstr(text, "Unix socket"))
        return fail(p, NEAP_ERR_IO,
                    "redis-server did not start: it cannot make its socket %s. A local disk is wanted for the data directory (--data DIR); see %s",
                    p->socket, path);
    if (aof)
        return fail(p, NEAP_ERR_CORRUPT,
                    "redis-server did not start: its append-only file is damaged. Copy %s/appendonlydir somewhere safe, repair it with "
                    "`redis-check-aof --fix %s/appendonlydir/"
                    "appendonly.aof.manifest`, and start again; %s says more",
                    p->dir, p->dir, path);
    for (char *save = NULL, *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
        if (strncmp(l, "neap: ", 6) && !strstr(l, "# Redis is now ready to exit")) snprintf(last, sizeof last, "%.255s", l);
    return fail(p, NEAP_ERR_IO, "redis-server did not start; the last line of %s is: %s", path, *last ? last : "(empty)");
}

static int start_server(redis_private *p) {
    int e = find_redis(p);
    if (e) return e;
    unlink(p->socket);
    if ((e = write_conf(p)) || (e = start_guard(p))) return e;
    for (double until = now_s() + START_S;;) {
        enum redis_probe found = redis_probe(p->socket, 200);
        if (found == PROBE_UP) return 0;
        struct pollfd fds = {.fd = p->report, .events = POLLIN};
        if (poll(&fds, 1, 1) == 1) return explain(p); /* redis-server has ended, or the guard has */
        if (p->stop) return fail(p, NEAP_ERR_CANCELLED, "the start of redis-server was given up");
        if (now_s() > until) return found == PROBE_LOADING ? 0 : explain(p); /* much data: the client waits for the rest */
    }
}

/* ---- joining ------------------------------------------------------------------------------------------------------- */

/* The pid that redis-server noted, if that process is one, in this directory. */
static pid_t server_pid(redis_private *p) {
    char path[PATH_MAX + 16], text[64] = "", link[PATH_MAX] = "";
    snprintf(path, sizeof path, "%s/redis.pid", p->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    int pid = n > 0 ? atoi(text) : 0;
    if (pid < 2) return 0;
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    if (readlink(path, link, sizeof link - 1) < 0 || strcmp(link, p->dir)) return 0;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0) close(fd);
    return n > 0 && !strncmp(text, "redis-server", 12) ? pid : 0;
}

/* A server lives, or is just ending or starting again. 0: joined. 1: it has gone, start one. */
static int join_server(redis_private *p) {
    for (double until = now_s() + ANSWER_S;;) {
        enum redis_probe found = redis_probe(p->socket, 1000);
        if (found == PROBE_UP || found == PROBE_LOADING) {
            p->joined = true;
            return 0;
        }
        if (!redis_lock_taken(p->lock, LOCK_ALIVE, 1)) return 1;
        if (p->stop) return fail(p, NEAP_ERR_CANCELLED, "waiting for redis-server was given up");
        if (now_s() > until) break;
        pause_ms(3);
    }
    pid_t pid = server_pid(p);
    if (others(p) || pid <= 0)
        return fail(p, NEAP_ERR_TIMEOUT, "the Redis in %s (process %d) does not answer. Is it stopped, or its disk? See %s/redis.log", p->dir,
                    (int)pid, p->dir);
    kill(pid, SIGKILL); /* left alone by some accident, and mute: what it acknowledged is in its AOF */
    for (double until = now_s() + LEAVE_S; redis_lock_taken(p->lock, LOCK_ALIVE, 1); pause_ms(3)) {
        if (redis_probe(p->socket, 100) == PROBE_UP) { /* it had a guard after all, and is back */
            p->joined = true;
            return 0;
        }
        if (now_s() > until) return fail(p, NEAP_ERR_TIMEOUT, "the Redis in %s (process %d) neither answers nor ends", p->dir, (int)pid);
    }
    return 1;
}

int redis_private_enter(redis_private *p, const char *data_dir) {
    p->error[0] = 0;
    if (p->stop) return fail(p, NEAP_ERR_CANCELLED, "the start of redis-server was given up");
    if (p->lock < 0) {
        int e = open_dir(p, data_dir);
        if (!e) e = choose_socket(p);
        if (e) return e;
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s/redis.lock", p->dir);
        p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (p->lock < 0)
            return fail(p, NEAP_ERR_IO, "cannot open %s: %s%s", path, strerror(errno), errno == ENOSPC ? ". Free some space on that disk" : "");
    }
    p->joined = false;
    int e = pass_door(p);
    if (e) return e;
    e = take_slot(p);
    if (!e) {
        int gone = redis_lock_taken(p->lock, LOCK_ALIVE, 1) ? join_server(p) : 1;
        e = gone == 1 ? start_server(p) : gone;
    }
    redis_lock_drop(p->lock, LOCK_DOOR, 1);
    return e;
}

void redis_private_leave(redis_private *p) {
    if (p->lock >= 0 && p->slot >= 0) {
        p->stop = false;
        bool door = !pass_door(p), last = door && !others(p);
        redis_lock_drop(p->lock, p->slot, 1); /* the guard acts on this */
        if (last)
            for (double until = now_s() + LEAVE_S; redis_lock_taken(p->lock, LOCK_ALIVE, 1) && now_s() < until; pause_ms(1)) {}
        p->slot = -1;
    }
    if (p->lock >= 0) close(p->lock);
    if (p->report >= 0) close(p->report);
    p->lock = p->report = -1;
}
