/* wake.c: see wake.h. */
#include "host/wake.h"
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "host/err.h"

static void on_event(uv_poll_t *p, int status, int events) {
    neap_wake *w = (neap_wake *)((char *)p - offsetof(neap_wake, poll));
    uint64_t count;
    if (read(w->fd, &count, sizeof count) < 0) return; /* nothing there */
    atomic_store(&w->sent, false);                     /* before the callback looks: what comes later is sent again */
    w->cb(w);
}

int neap_wake_init(uv_loop_t *loop, neap_wake *w, void (*cb)(neap_wake *w)) {
    w->cb = cb;
    atomic_init(&w->sent, false);
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) return NEAP_ERR_IO;
    if (uv_poll_init(loop, &w->poll, w->fd)) {
        close(w->fd);
        return NEAP_ERR_IO;
    }
    uv_poll_start(&w->poll, UV_READABLE, on_event);
    return 0;
}

void neap_wake_send(neap_wake *w) {
    uint64_t one = 1;
    if (atomic_exchange(&w->sent, true)) return;
    if (write(w->fd, &one, sizeof one) < 0) {} /* its count is at its highest: it is readable */
}

static void on_closed(uv_handle_t *h) {
    neap_wake *w = (neap_wake *)((char *)h - offsetof(neap_wake, poll));
    close(w->fd);
    w->closed(h);
}

void neap_wake_close(neap_wake *w, uv_close_cb closed) {
    w->closed = closed;
    uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, on_closed);
}
