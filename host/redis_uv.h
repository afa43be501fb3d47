/* redis_uv.h: our libuv adapter for hiredis' async contexts. */
#ifndef NEAP_REDIS_UV_H
#define NEAP_REDIS_UV_H
#include <stdbool.h>
#include <uv.h>

struct redisAsyncContext;
typedef struct neap_redis_uv neap_redis_uv;

/* Watches ac's socket in the loop until hiredis frees ac. `on_gone(owner)` is called once, when hiredis has given the
   context up (error, end of file or redisAsyncFree): ac's err and errstr are still readable then, ac must not be used
   afterwards. The handle does not keep the loop alive until neap_redis_uv_ref. NULL when out of memory or when the loop
   refuses the socket: ac is then still the caller's to free. */
neap_redis_uv *neap_redis_uv_attach(uv_loop_t *loop, struct redisAsyncContext *ac, void (*on_gone)(void *owner), void *owner);

/* Forgets the owner: no on_gone. For an owner that ends before the context does. */
void neap_redis_uv_detach(neap_redis_uv *a);

/* Makes the socket keep the loop alive (on) or not. */
void neap_redis_uv_ref(neap_redis_uv *a, bool on);

/* Writes what was queued since the last call, in one write. True if something was written. The context may be gone when it returns. */
bool neap_redis_uv_flush(neap_redis_uv *a);

/* Milliseconds (uv_now) at which the socket last became readable. */
uint64_t neap_redis_uv_last_read(const neap_redis_uv *a);
#endif
