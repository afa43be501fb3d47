/* redis_sub.h: one subscriber connection. Channels and patterns may be added and removed at any time; after a lost connection
   they are subscribed again by themselves (what was published meanwhile is lost: that is Redis' pub/sub). Loop thread only. */
#ifndef NEAP_REDIS_SUB_H
#define NEAP_REDIS_SUB_H
#include "host/redis.h"

typedef struct neap_redis_sub neap_redis_sub;

enum neap_redis_sub_kind {
    NEAP_SUB_MESSAGE, /* channel, data, and for pattern subscriptions the pattern */
    NEAP_SUB_ON,      /* the server confirmed `channel` (or `pattern`), first and after each reconnection */
    NEAP_SUB_LOST,    /* connection lost; `data` says why; it comes back by itself */
    NEAP_SUB_FAILED   /* no connection, not even the first; `data` says why; `status` NEAP_ERR_*. Nothing more comes until the next add */
};

typedef struct neap_redis_event {
    enum neap_redis_sub_kind kind;
    int status;
    const char *pattern, *channel, *data; /* valid during the call; NULL where they do not apply */
    size_t pattern_len, channel_len, data_len;
} neap_redis_event;

/* Like neap_redis_open (on_state of opts is not used). Events come on the loop thread, never from inside these calls. */
int neap_redis_sub_open(uv_loop_t *loop, const neap_redis_opts *opts, void (*on_event)(void *ud, const neap_redis_event *e), void *ud,
                        neap_redis_sub **out);
void neap_redis_sub_close(neap_redis_sub *s);

/* Subscribes, or unsubscribes. Adding what is there already, or removing what is not, does nothing. 0 or NEAP_ERR_MEMORY. */
int neap_redis_sub_add(neap_redis_sub *s, bool pattern, const char *name, size_t len);
void neap_redis_sub_remove(neap_redis_sub *s, bool pattern, const char *name, size_t len);

/* Whether the loop shall be kept alive for messages to come (somebody waits for one). */
void neap_redis_sub_hold(neap_redis_sub *s, bool on);
bool neap_redis_sub_turn(neap_redis_sub *s); /* see neap_redis_turn */
#endif
