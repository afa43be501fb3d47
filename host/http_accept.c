/* http_accept.c: the listening socket and the accept loop.

   We accept ourselves and hand the descriptors to MHD (MHD_add_connection): MHD's own accept spins or stalls when descriptors run out, and
   closing its listening socket resets the clients that wait in the backlog. Runs on the server's loop thread; the neap_http_listen functions on any.
 */
#include "host/http_impl.h"
#include <errno.h>
#include <netdb.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPT_BATCH 32  /* connections taken in one callback, so that a flood leaves time for the others */
#define RETRY_MS     100 /* pause after "too many open files" */

static int sentence(char *err, size_t n, int code, const char *what, const char *host, int port, const char *advice) {
    int e = errno;
    if (n) snprintf(err, n, "%s %s:%d: %s%s%s", what, host, port, e ? strerror(e) : "refused", *advice ? "; " : "", advice);
    errno = e;
    return code;
}

static int resolve(const char *host, int port, struct sockaddr_storage *addr, socklen_t *len, char *err, size_t errlen) {
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *res;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    if (!strcmp(host, "localhost")) host = "127.0.0.1";
    if (!strcmp(host, "*")) host = "0.0.0.0";
    int e = getaddrinfo(host, service, &hint, &res);
    if (e) {
        if (errlen) snprintf(err, errlen, "cannot listen on %s: %s; give an address of this machine such as 127.0.0.1", host, gai_strerror(e));
        return NEAP_ERR_INVALID;
    }
    memcpy(addr, res->ai_addr, res->ai_addrlen);
    *len = res->ai_addrlen;
    freeaddrinfo(res);
    return 0;
}

static int bound(const struct sockaddr_storage *addr, socklen_t len, int shared) {
    int on = 1, fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr->ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof on);
    if ((shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on)) || bind(fd, (const struct sockaddr *)addr, len)) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

int http_port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n)) return 0;
    if (a.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&a)->sin_port);
    return a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a)->sin6_port) : 0;
}

static int listen_unix(const char *path, int backlog, int *fd, char *err, size_t errlen) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) {
        if (errlen) snprintf(err, errlen, "cannot listen on unix:%s: the path is longer than %zu bytes", path, sizeof a.sun_path - 1);
        return NEAP_ERR_INVALID;
    }
    strcpy(a.sun_path, path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0) return sentence(err, errlen, NEAP_ERR_IO, "cannot listen on", path, 0, "");
    /* A socket file that nobody answers on is a leftover; a live one is somebody's. */
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;
    if (probe >= 0 && !lstat(path, &st) && S_ISSOCK(st.st_mode) && connect(probe, (struct sockaddr *)&a, sizeof a) && errno == ECONNREFUSED)
        unlink(path);
    if (probe >= 0) close(probe);
    if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, backlog)) {
        sentence(err, errlen, 0, "cannot listen on unix", path, 0, errno == EADDRINUSE ? "another process listens there" : "");
        close(s);
        return NEAP_ERR_IO;
    }
    *fd = s;
    return 0;
}

int neap_http_listen(const char *host, int *port, int backlog, int shared, int *fd, char *err, size_t errlen) {
    struct sockaddr_storage addr;
    socklen_t len;
    if (errlen) err[0] = 0;
    if (backlog <= 0) backlog = 1024;
    if (!strncmp(host, "unix:", 5)) return listen_unix(host + 5, backlog, fd, err, errlen);
    if (*port < 0 || *port > 65535) {
        if (errlen) snprintf(err, errlen, "cannot listen on %s:%d: a port is 0 to 65535", host, *port);
        return NEAP_ERR_INVALID;
    }
    int e = resolve(host, *port, &addr, &len, err, errlen), s = -1, bad = 0;
    if (e) return e;
    if (*port && shared) {
        /* Without SO_REUSEPORT this fails if anybody listens here, whatever flags they use: the probe against leftovers. */
        int probe = bound(&addr, len, 0);
        bad = probe < 0 || listen(probe, 1);
        e = errno;
        if (probe >= 0) close(probe);
        errno = e;
    }
    if (!bad) bad = (s = bound(&addr, len, shared)) < 0 || listen(s, backlog);
    if (!bad) {
        *port = http_port_of(s);
        *fd = s;
        return 0;
    }
    sentence(err, errlen, 0, "cannot listen on", host, *port,
             errno == EADDRINUSE      ? "another program holds the port: choose another one, or end it (ss -ltnp shows it)"
             : errno == EACCES        ? "ports below 1024 need root"
             : errno == EADDRNOTAVAIL ? "that is not an address of this machine"
                                      : "");
    if (s >= 0) close(s);
    return NEAP_ERR_IO;
}

int neap_http_listen_join(const char *host, int port, int backlog, int *fd, char *err, size_t errlen) {
    struct sockaddr_storage addr;
    socklen_t len;
    int e = resolve(host, port, &addr, &len, err, errlen);
    if (e) return e;
    int s = bound(&addr, len, 1);
    if (s < 0 || listen(s, backlog > 0 ? backlog : 1024)) {
        sentence(err, errlen, 0, "cannot share", host, port, "");
        if (s >= 0) close(s);
        return NEAP_ERR_IO;
    }
    *fd = s;
    return 0;
}

/* ---- accepting ------------------------------------------------------------------------------------------------------- */

static void on_readable(uv_poll_t *p, int status, int events);

static void on_retry(uv_timer_t *t) {
    neap_http *s = t->data;
    if (s->accept_poll) uv_poll_start(s->accept_poll, UV_READABLE, on_readable);
}

static void pause_accept(neap_http *s) {
    uv_poll_stop(s->accept_poll);
    uv_timer_start(s->accept_timer, on_retry, RETRY_MS, 0);
}

/* Takes up to `max` connections. 0 when none waits, 1 when there may be more, -1 when a limit was hit. */
static int accept_some(neap_http *s, int max) {
    while (max-- > 0) {
        struct sockaddr_storage a;
        socklen_t n = sizeof a;
        if (s->nconn >= s->c.max_connections) {
            s->st.waits++;
            return -1;
        }
        int fd = accept4(s->listen_fd, (struct sockaddr *)&a, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                s->st.waits++;
                return -1;
            }
            return 0;
        }
        s->st.connections++;
        s->need_run = 1;
        if (MHD_add_connection(s->mhd, fd, (struct sockaddr *)&a, n) != MHD_YES) s->st.refused_full++; /* it closed fd */
    }
    return 1;
}

static void on_readable(uv_poll_t *p, int status, int events) {
    neap_http *s = p->data;
    if (accept_some(s, ACCEPT_BATCH) < 0) pause_accept(s);
}

int http_accept_start(neap_http *s) {
    s->accept_poll = http_handle(s, sizeof *s->accept_poll);
    if (!s->accept_poll) return NEAP_ERR_MEMORY;
    if (uv_poll_init(s->loop, s->accept_poll, s->listen_fd)) {
        free(s->accept_poll);
        s->accept_poll = NULL;
        s->handles--;
        return NEAP_ERR_IO;
    }
    s->accept_poll->data = s;
    return uv_poll_start(s->accept_poll, UV_READABLE, on_readable) ? NEAP_ERR_IO : 0;
}

void http_accept_stop(neap_http *s) {
    if (s->listen_fd < 0) return;
    while (accept_some(s, ACCEPT_BATCH) > 0) {}
    uv_timer_stop(s->accept_timer);
    http_close_handle(s, &s->accept_poll);
    close(s->listen_fd);
    s->listen_fd = -1;
}
