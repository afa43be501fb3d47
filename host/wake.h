/* wake.h: waking a loop from another thread. As uv_async_t, with one difference: libuv's (1.44) makes the loop spin, and then yield, while a
   sender is on its way out of uv_async_send; a sender that the scheduler has put aside then costs the loop up to a time slice of 3 ms. */
#ifndef NEAP_WAKE_H
#define NEAP_WAKE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

typedef struct neap_wake {
    uv_poll_t poll; /* .data is the owner's; uv_ref and uv_unref work on it */
    int fd;
    atomic_bool sent;
    void (*cb)(struct neap_wake *w);
    uv_close_cb closed;
} neap_wake;

/* The handle keeps the loop alive. 0 or NEAP_ERR_IO; then nothing is to be closed. */
int neap_wake_init(uv_loop_t *loop, neap_wake *w, void (*cb)(neap_wake *w));
/* Any thread, as long as the handle is not being closed: cb comes on the loop's thread, at least once after the last send. */
void neap_wake_send(neap_wake *w);
/* closed gets &w->poll; the memory may go then. */
void neap_wake_close(neap_wake *w, uv_close_cb closed);
#endif
