/* redis_lock.c: byte locks on a file, and a question to the server behind a unix socket. flock() was dropped: it has one lock a file
   and cannot say who else is there; open-file-description locks can, and go with the process just the same. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "host/redis_private.h"

static int lock_op(int fd, int op, short type, off_t at, off_t len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = len};
    return fcntl(fd, op, &l) ? errno : 0;
}

int redis_lock_try(int fd, off_t at, off_t len) { return lock_op(fd, F_OFD_SETLK, F_WRLCK, at, len); }

int redis_lock_wait(int fd, off_t at, off_t len) {
    int e;
    do e = lock_op(fd, F_OFD_SETLKW, F_WRLCK, at, len);
    while (e == EINTR);
    return e;
}

void redis_lock_drop(int fd, off_t at, off_t len) { lock_op(fd, F_OFD_SETLK, F_UNLCK, at, len); }

bool redis_lock_taken(int fd, off_t at, off_t len) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = len};
    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* A connected socket, or -1. Connecting to a unix socket does not wait, unless the backlog is full: then it says EAGAIN. */
static int reach(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) return -1;
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (!connect(fd, (struct sockaddr *)&a, sizeof a)) return fd;
    int e = errno;
    close(fd);
    return e == EAGAIN ? -2 : -1;
}

enum redis_probe redis_probe(const char *path, int wait_ms) {
    int fd = reach(path);
    if (fd < 0) return fd == -2 ? PROBE_SILENT : PROBE_NOBODY;
    char text[64] = "";
    enum redis_probe found = PROBE_SILENT;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && poll(&p, 1, wait_ms) == 1) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);
        if (n > 0) found = !strncmp(text, "-LOADING", 8) ? PROBE_LOADING : PROBE_UP;
        else found = PROBE_NOBODY;
    }
    close(fd);
    return found;
}

void redis_ask_shutdown(const char *path) {
    int fd = reach(path);
    if (fd < 0) return;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (send(fd, "SHUTDOWN NOSAVE\r\n", 17, MSG_NOSIGNAL) == 17) poll(&p, 1, 500); /* its answer is the end of the connection */
    close(fd);
}
