/* http_linger.c: closing a socket whose peer is still sending makes the kernel answer with a reset, and a reset throws away the answer that the
   peer has not read yet (the 413 or 400 it should see). So a duplicate of the descriptor stays open and is read empty until the peer closes, at
   most LINGER_MS and LINGER_BYTES. MHD has already shut its sending side down. Loop thread only. */
#include "host/http_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define LINGER_MS    2000
#define LINGER_BYTES (4u << 20)
#define LINGER_MAX   256

struct http_linger {
    neap_http *s;
    int fd;
    uint64_t until;
    size_t bytes;
    uv_poll_t *poll;
    struct http_linger *prev, *next;
};

static void end(struct http_linger *l) {
    neap_http *s = l->s;
    if (l->prev) l->prev->next = l->next;
    else s->lingers = l->next;
    if (l->next) l->next->prev = l->prev;
    s->nlinger--;
    http_close_handle(s, &l->poll);
    close(l->fd);
    free(l);
}

static void on_bytes(uv_poll_t *p, int status, int events) {
    struct http_linger *l = p->data;
    char sink[16384];
    for (int i = 0; i < 8; i++) {
        ssize_t n = recv(l->fd, sink, sizeof sink, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            end(l);
            return;
        }
        l->bytes += (size_t)n;
        if (l->bytes > LINGER_BYTES) {
            end(l);
            return;
        }
    }
}

void http_linger(neap_http *s, int fd) {
    if (s->nlinger >= LINGER_MAX) return;
    struct http_linger *l = calloc(1, sizeof *l);
    if (!l) return;
    l->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    l->poll = l->fd >= 0 ? http_handle(s, sizeof *l->poll) : NULL;
    if (!l->poll || uv_poll_init(s->loop, l->poll, l->fd)) {
        if (l->poll) {
            free(l->poll);
            s->handles--;
        }
        if (l->fd >= 0) close(l->fd);
        free(l);
        return;
    }
    shutdown(l->fd, SHUT_WR);
    l->s = s;
    l->poll->data = l;
    l->until = http_now(s) + LINGER_MS;
    l->next = s->lingers;
    if (s->lingers) s->lingers->prev = l;
    s->lingers = l;
    s->nlinger++;
    uv_poll_start(l->poll, UV_READABLE, on_bytes);
    if (!s->sweep_at || s->sweep_at > l->until) {
        s->sweep_at = l->until;
        uv_timer_start(s->sweep_timer, http_sweep, LINGER_MS, 0);
    }
}

void http_linger_sweep(neap_http *s, uint64_t now) {
    for (struct http_linger *l = s->lingers, *next; l; l = next) {
        next = l->next;
        if (l->until <= now) end(l);
    }
}

void http_linger_close(neap_http *s) {
    while (s->lingers) end(s->lingers);
}
