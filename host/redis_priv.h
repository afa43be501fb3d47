/* redis_priv.h: what redis.c (requests) and redis_conn.c (the connection) share. Nobody else includes it. */
#ifndef NEAP_REDIS_PRIV_H
#define NEAP_REDIS_PRIV_H
#include "host/hiredis_compat.h"
#include "host/redis.h"
#include "host/redis_uv.h"

/* One request, in `queue` until hiredis has its bytes, then in `flight` until its last reply. */
struct request {
    struct request *prev, *next;
    neap_redis_cb cb; /* NULL once the callback has been made (deadline): replies are then dropped */
    void *ud;
    uint64_t deadline; /* uv_now milliseconds; UINT64_MAX: none */
    uint32_t flags, count, got, sends;
    const neap_reply_sink *sink;
    neap_reply *batch; /* the reply array of a batch, as far as it has come */
    bool internal;     /* part of logging in: never queued, never retried */
    bool routed;       /* of a cluster's front: meant for this very connection */
    size_t len;        /* of bytes; 0: not kept */
    char bytes[];
};

struct list {
    struct request *head, *tail;
    uint32_t n;
};

enum { LOGIN_LOADING_MS = 100, BACKOFF_MIN_MS = 50, BACKOFF_MAX_MS = 2000, FIRST_TRIES = 3, READ_SENDS = 3 };
#define OBUF_MAX ((size_t)1 << 20) /* hiredis moves its whole output buffer at each partial write: keep that short */

struct neap_redis {
    uv_loop_t *loop;
    neap_redis_opts o;
    char *name;
    enum neap_redis_state state;
    char why[384]; /* the last failure */

    struct list queue, flight;
    uint64_t next_deadline;     /* when `deadlines` fires; UINT64_MAX: stopped */
    uv_timer_t deadlines, pace; /* pace: reconnect delay, connect timeout, LOADING */
    uv_prepare_t turn;
    int handles;     /* open uv handles: memory goes with the last */
    bool kept_alive; /* the loop is being kept alive for a pending request */

    /* connection */
    redisAsyncContext *ac;
    neap_redis_uv *uv;
    neap_reply_builder builder;
    uv_getaddrinfo_t *lookup;
    char (*ips)[64]; /* what the host name means; tried in turn */
    int nips, ip;
    bool ever, logging_in, login_broken;
    int login[6], nlogin, login_at; /* which replies to logging in are to come */
    uint32_t attempts;              /* since the last success */
    int failure;                    /* NEAP_ERR_CONNECTION or NEAP_ERR_AUTH: of the last attempt */

    bool held;                       /* keep the loop alive although nothing is pending */
    void (*on_ready)(neap_redis *r); /* subscriber connections: called at each successful login; hiredis then builds its own replies */
    struct redis_cluster *cluster;   /* the server belongs to a cluster: this client is its front */
    bool is_cluster, mapped;         /* learnt while logging in */
    neap_redis *front;               /* a cluster node's client: who made it */
    neap_redis_stats stats;
};

/* ---- redis.c */
void redis_list_push(struct list *l, struct request *q);
void redis_list_remove(struct list *l, struct request *q);
void redis_feed(neap_redis *r);                                                     /* queue -> hiredis, as far as there is room */
void redis_finish(neap_redis *r, struct request *q, int status, neap_reply *reply); /* callback and free; q is in no list */
void redis_fail_queue(neap_redis *r, int status);                                   /* everything queued fails, unsent, with r->why */
void redis_fail_flight(neap_redis *r);                                              /* the connection is lost: retry or fail what had left */
void redis_keep_alive(neap_redis *r);
int redis_put(neap_redis *r, struct request *q, const char *bytes, size_t len); /* bytes -> hiredis, q -> flight */
int redis_send_here(neap_redis *r, const neap_redis_req *req);                  /* neap_redis_send for this connection, cluster or not */
void redis_arm(neap_redis *r, uint64_t deadline);
bool redis_begin_reply(neap_reply_builder *b);

/* ---- redis_cluster.c */
enum { REDIS_SLOTS = 16384 };
int redis_key_slot(const char *key, size_t len);
int redis_command_slot(const char *bytes, const char **after);       /* of its first key; -1: it has none. *after: the byte behind it; may be NULL */
int redis_cluster_begin(neap_redis *front, const neap_reply *slots); /* CLUSTER SLOTS' answer; 0 or NEAP_ERR_MEMORY */
int redis_cluster_send(neap_redis *front, const neap_redis_req *req);
bool redis_cluster_turn(neap_redis *front);
void redis_cluster_close(neap_redis *front);

/* ---- redis_conn.c */
int redis_conn_init(neap_redis *r);
void redis_conn_want(neap_redis *r);                  /* a request is waiting: connect (never synchronously) */
void redis_conn_drop(neap_redis *r, const char *why); /* the connection is of no more use */
void redis_conn_close(neap_redis *r);
void redis_conn_login_reply(neap_redis *r, neap_reply *reply); /* takes the reply */
#endif
