/* control.c: see control.h. Plain non-blocking sockets under uv_poll: libuv's pipes would hide the descriptor that SO_PEERCRED needs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "host/buf.h"
#include "host/control.h"

enum { READ_AHEAD = 1 << 20, QUEUE_MAX = 16 << 20 };

struct neap_control {
    uv_poll_t poll;
    int fd;
    neap_control_fn fn;
    void *ud;
    struct sockaddr_un addr;
    ino_t inode; /* of the file that we made: another thread of ours may have taken the name over */
};

struct neap_conn {
    uv_poll_t poll;
    int fd, ended, closing, events;
    neap_conn_fn fn;
    void *ud;
    neap_buf in, out;
    size_t taken; /* bytes at the front of `in` that neap_conn_next has given away */
    size_t sent;  /* the same for `out` */
};

/* ---- who may enter ---------------------------------------------------------------------------------------------------- */
int neap_control_dir(char *path, size_t size, int make) {
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n = runtime && *runtime ? snprintf(path, size, "%s/neap", runtime) : snprintf(path, size, "/tmp/neap-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= size || n > 80) return NEAP_ERR_INVALID;
    if (make && mkdir(path, 0700) && errno != EEXIST) return NEAP_ERR_IO;
    struct stat st;
    if (lstat(path, &st)) return NEAP_ERR_IO;
    return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) ? 0 : NEAP_ERR_AUTH;
}

static int peer_is_us(int fd) {
    struct ucred c;
    socklen_t n = sizeof c;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n)) return 0;
    return c.uid == geteuid() || c.uid == 0;
}

static int address(struct sockaddr_un *a, const char *path) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof a->sun_path) return NEAP_ERR_INVALID;
    strcpy(a->sun_path, path);
    return 0;
}

static int connect_to(const struct sockaddr_un *a, int *out) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return NEAP_ERR_IO;
    if (connect(fd, (const struct sockaddr *)a, sizeof *a)) { /* a unix socket connects at once or not at all */
        int saved = errno;
        close(fd);
        errno = saved;
        return saved == EACCES || saved == EPERM ? NEAP_ERR_AUTH : NEAP_ERR_CONNECTION;
    }
    *out = fd;
    return 0;
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */
static void conn_closed(uv_handle_t *h) {
    neap_conn *c = h->data;
    close(c->fd);
    buf_free(&c->in);
    buf_free(&c->out);
    free(c);
}

static void on_conn(uv_poll_t *h, int status, int events);

static void watch_for(neap_conn *c) {
    int events = (c->fn && !c->ended && c->in.len - c->taken < READ_AHEAD ? UV_READABLE : 0) | (c->out.len > c->sent ? UV_WRITABLE : 0);
    if (events == c->events || c->closing) return;
    c->events = events;
    if (events) uv_poll_start(&c->poll, events, on_conn);
    else uv_poll_stop(&c->poll);
}

static int conn_new(uv_loop_t *loop, int fd, neap_conn **out) {
    neap_conn *c = calloc(1, sizeof *c);
    if (!c || uv_poll_init(loop, &c->poll, fd)) {
        free(c);
        close(fd);
        return NEAP_ERR_MEMORY;
    }
    c->poll.data = c;
    c->fd = fd;
    *out = c;
    return 0;
}

int neap_conn_open(uv_loop_t *loop, const char *path, neap_conn **out) {
    struct sockaddr_un a;
    int fd, err = address(&a, path);
    if (!err) err = connect_to(&a, &fd);
    if (err) return err;
    if (!peer_is_us(fd)) {
        close(fd);
        return NEAP_ERR_AUTH;
    }
    return conn_new(loop, fd, out);
}

static void flush(neap_conn *c) {
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            if (errno != EAGAIN) c->ended = 1, buf_clear(&c->out), c->sent = 0;
            return;
        }
        c->sent += (size_t)n;
    }
    buf_clear(&c->out);
    c->sent = 0;
}

static void on_conn(uv_poll_t *h, int status, int events) {
    neap_conn *c = h->data;
    if (status < 0) c->ended = 1;
    if (events & UV_WRITABLE) flush(c);
    int news = status < 0;
    if (events & UV_READABLE) {
        char chunk[65536];
        ssize_t n = read(c->fd, chunk, sizeof chunk);
        if (n > 0) {
            if (buf_add(&c->in, chunk, (size_t)n)) c->ended = 1;
            news = 1;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            c->ended = 1;
            news = 1;
        }
    }
    watch_for(c);
    if (news && c->fn) c->fn(c, c->ud);
}

int neap_conn_watch(neap_conn *c, neap_conn_fn fn, void *ud) {
    c->fn = fn;
    c->ud = ud;
    watch_for(c);
    return 0;
}

int neap_conn_next(neap_conn *c, const char **data, size_t *n) {
    size_t have = c->in.len - c->taken;
    const unsigned char *p = (const unsigned char *)c->in.data + c->taken;
    size_t len = have >= 4 ? (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3] : 0;
    if (have >= 4 && len > NEAP_CONTROL_MESSAGE_MAX) {
        c->ended = 1;
        c->taken = c->in.len;
        have = 0;
    }
    if (have >= 4 && have - 4 >= len) {
        *data = (const char *)p + 4;
        *n = len;
        c->taken += 4 + len;
        return 1;
    }
    if (c->taken) { /* nothing that was given away is needed any more: move the rest to the front */
        memmove(c->in.data, c->in.data + c->taken, have + 1);
        c->in.len = have;
        c->taken = 0;
    }
    /* A message longer than the read-ahead must be able to come in whole. */
    if (have >= 4 && len + 4 > READ_AHEAD && buf_reserve(&c->in, len + 4 - have)) c->ended = 1;
    if (!c->ended && !c->closing && !(c->events & UV_READABLE)) {
        c->events = UV_READABLE | (c->out.len > c->sent ? UV_WRITABLE : 0);
        uv_poll_start(&c->poll, c->events, on_conn);
    }
    return c->ended ? NEAP_ERR_CLOSED : 0;
}

int neap_conn_send(neap_conn *c, const char *data, size_t n) {
    if (c->ended || c->closing) return NEAP_ERR_CLOSED;
    if (n > NEAP_CONTROL_MESSAGE_MAX) return NEAP_ERR_INVALID;
    if (c->out.len - c->sent + n > QUEUE_MAX) return NEAP_ERR_FULL;
    if (c->sent && c->sent == c->out.len) buf_clear(&c->out), c->sent = 0;
    char head[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    if (buf_reserve(&c->out, n + 4)) return NEAP_ERR_MEMORY;
    buf_add(&c->out, head, 4);
    buf_add(&c->out, data, n);
    flush(c);
    watch_for(c);
    return c->ended ? NEAP_ERR_CLOSED : 0;
}

void neap_conn_close(neap_conn *c) {
    if (c->closing) return;
    if (!c->ended) flush(c);
    c->closing = 1;
    c->fn = NULL;
    uv_close((uv_handle_t *)&c->poll, conn_closed);
}

/* ---- the listening end ------------------------------------------------------------------------------------------------ */
static void on_listen(uv_poll_t *h, int status, int events) {
    neap_control *s = h->data;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    neap_conn *c;
    if (!peer_is_us(fd)) close(fd);
    else if (conn_new(s->poll.loop, fd, &c) == 0) s->fn(c, s->ud);
}

/* Binds and listens under another name and then renames: whoever finds the socket can connect, and only we ever could. */
static int bind_private(int fd, const struct sockaddr_un *a) {
    int other;
    if (connect_to(a, &other) == 0) {
        close(other);
        return NEAP_ERR_FULL; /* somebody lives there */
    }
    struct sockaddr_un aside = *a;
    size_t n = strlen(aside.sun_path);
    if (n + 2 > sizeof aside.sun_path) return NEAP_ERR_INVALID;
    aside.sun_path[n] = '~';
    unlink(aside.sun_path);
    if (bind(fd, (const struct sockaddr *)&aside, sizeof aside)) return NEAP_ERR_IO;
    if (chmod(aside.sun_path, 0600) || listen(fd, 16) || rename(aside.sun_path, a->sun_path)) {
        int saved = errno;
        unlink(aside.sun_path);
        errno = saved;
        return NEAP_ERR_IO;
    }
    return 0;
}

int neap_control_listen(uv_loop_t *loop, const char *path, neap_control_fn fn, void *ud, neap_control **out) {
    neap_control *s = calloc(1, sizeof *s);
    if (!s) return NEAP_ERR_MEMORY;
    int err = address(&s->addr, path);
    s->fd = err ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!err && s->fd < 0) err = NEAP_ERR_IO;
    if (!err) err = bind_private(s->fd, &s->addr);
    if (!err && uv_poll_init(loop, &s->poll, s->fd)) {
        unlink(path);
        err = NEAP_ERR_MEMORY;
    }
    if (err) {
        int saved = errno;
        if (s->fd >= 0) close(s->fd);
        free(s);
        errno = saved;
        return err;
    }
    struct stat st;
    s->inode = stat(path, &st) ? 0 : st.st_ino;
    s->poll.data = s;
    s->fn = fn;
    s->ud = ud;
    uv_poll_start(&s->poll, UV_READABLE, on_listen);
    uv_unref((uv_handle_t *)&s->poll);
    *out = s;
    return 0;
}

static void control_closed(uv_handle_t *h) {
    neap_control *s = h->data;
    close(s->fd);
    free(s);
}

void neap_control_close(neap_control *s) {
    struct stat st;
    if (!stat(s->addr.sun_path, &st) && st.st_ino == s->inode) unlink(s->addr.sun_path);
    uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, control_closed);
}
