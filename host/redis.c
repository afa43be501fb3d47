/* redis.c: requests: queueing, sending, deadlines, replies, what happens to each when the connection goes.
   A request's bytes are kept only while it may have to be sent (again): queued ones and idempotent reads. Everything else
   goes straight into hiredis' output buffer. The connection itself is in redis_conn.c. */
#include <stdlib.h>
#include <string.h>
#include "host/redis_priv.h"

void redis_list_push(struct list *l, struct request *q) {
    q->next = NULL;
    q->prev = l->tail;
    if (l->tail) l->tail->next = q;
    else l->head = q;
    l->tail = q;
    l->n++;
}

void redis_list_remove(struct list *l, struct request *q) {
    if (q->prev) q->prev->next = q->next;
    else l->head = q->next;
    if (q->next) q->next->prev = q->prev;
    else l->tail = q->prev;
    q->prev = q->next = NULL;
    l->n--;
}

/* The socket and the pacing timer keep the loop alive exactly while something is pending. */
void redis_keep_alive(neap_redis *r) {
    bool want = r->held || r->queue.n + r->flight.n > 0;
    if (r->uv) neap_redis_uv_ref(r->uv, want);
    if (want == r->kept_alive || r->state == NEAP_REDIS_CLOSED) return;
    r->kept_alive = want;
    if (want) uv_ref((uv_handle_t *)&r->pace);
    else uv_unref((uv_handle_t *)&r->pace);
}

static void free_request(struct request *q) {
    neap_reply_free(q->batch);
    free(q);
}

void redis_finish(neap_redis *r, struct request *q, int status, neap_reply *reply) {
    neap_redis_cb cb = q->cb;
    void *ud = q->ud;
    free_request(q);
    if (status) r->stats.errors++;
    if (cb) cb(ud, status, reply);
    else neap_reply_free(reply);
}

/* ---- deadlines ----------------------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t);

void redis_arm(neap_redis *r, uint64_t deadline) {
    if (deadline >= r->next_deadline) return;
    uint64_t now = uv_now(r->loop);
    r->next_deadline = deadline;
    uv_timer_start(&r->deadlines, on_deadline, deadline > now ? deadline - now : 0, 0);
}

static neap_reply *timeout_text(neap_redis *r, bool sent, const struct request *q) {
    char at[160];
    neap_redis_addr_text(&r->o.addr, at, sizeof at);
    if (!sent) return neap_reply_error(false, "no connection to Redis at %s in time%s%s; the command was not sent", at, *r->why ? ": " : "", r->why);
    return neap_reply_error(true,
                            "Redis at %s did not answer in time; the command %s. A larger timeout, or a look at its slow log (SLOWLOG GET), may help",
                            at, q->flags & NEAP_REDIS_RETRY ? "only reads and can be repeated" : "may have run");
}

/* Ends what is overdue. A request in flight stays in its place without a callback, to swallow its reply. Callbacks may
   start or close things, so the lists are walked afresh after each. */
static bool expire_one(neap_redis *r, uint64_t now) {
    uint64_t next = UINT64_MAX;
    for (int in_flight = 0; in_flight < 2; in_flight++) {
        struct list *l = in_flight ? &r->flight : &r->queue;
        for (struct request *q = l->head; q; q = q->next) {
            if (!in_flight || q->cb) {
                if (q->deadline > now) {
                    if (q->deadline < next) next = q->deadline;
                    continue;
                }
                r->stats.timeouts++;
                r->stats.errors++;
                neap_reply *why = timeout_text(r, in_flight, q);
                neap_redis_cb cb = q->cb;
                void *ud = q->ud;
                if (in_flight) {
                    q->cb = NULL;
                    q->sink = NULL;
                    if (q == r->flight.head) r->builder.sink = NULL; /* its reply may be half read */
                } else {
                    redis_list_remove(l, q);
                    free_request(q);
                }
                if (cb) cb(ud, in_flight ? NEAP_ERR_TIMEOUT : r->failure == NEAP_ERR_AUTH ? NEAP_ERR_AUTH : NEAP_ERR_CONNECTION, why);
                else neap_reply_free(why);
                return true;
            }
        }
    }
    if (next != UINT64_MAX) redis_arm(r, next);
    return false;
}

static void on_deadline(uv_timer_t *t) {
    neap_redis *r = t->data;
    uint64_t now = uv_now(r->loop);
    r->next_deadline = UINT64_MAX;
    while (r->state != NEAP_REDIS_CLOSED && expire_one(r, now)) {}
    if (r->state == NEAP_REDIS_CLOSED) return;
    /* A peer that vanished without a word never answers again: give the socket up, reads get another chance. */
    if (r->state == NEAP_REDIS_READY && r->flight.head) {
        uint64_t quiet = now - neap_redis_uv_last_read(r->uv);
        bool abandoned = !r->flight.head->cb;
        if (abandoned && quiet >= r->o.dead_ms) redis_conn_drop(r, "Redis has not answered anything for a while");
        else if (abandoned) redis_arm(r, now + (r->o.dead_ms - (quiet < r->o.dead_ms ? quiet : r->o.dead_ms)) + 1);
    }
    redis_keep_alive(r);
}

/* ---- replies ------------------------------------------------------------------------------------------------------- */

/* The reader begins a reply: it is for the oldest request in flight. */
bool redis_begin_reply(neap_reply_builder *b) {
    neap_redis *r = b->owner;
    struct request *q = r->flight.head;
    if (!q) return false;
    if (q->flags & NEAP_REDIS_BATCH) {
        if (!q->batch) {
            q->batch = neap_reply_new((size_t)q->count * (sizeof(neap_reply) + 24));
            if (q->batch && neap_reply_set_array(q->batch, q->batch, q->count)) {
                neap_reply_free(q->batch);
                q->batch = NULL;
            }
            if (!q->batch) return false;
        }
        b->root = q->batch;
        b->top = &q->batch->item[q->got];
    } else {
        b->root = b->top = NULL;
        b->sink = q->sink;
    }
    return true;
}

static void on_reply(redisAsyncContext *ac, void *obj, void *privdata) {
    if (!obj) return; /* the context is going: on_gone (redis_conn.c) sees to its requests, which may be gone already */
    struct request *q = privdata;
    neap_redis *r = ac->data;
    if (!r || r->ac != ac) return;
    r->stats.replies++;
    if (q != r->flight.head) { /* hiredis 0.14 forgets a callback when memory runs out: its list and ours no longer agree */
        redis_conn_drop(r, "out of memory");
        return;
    }
    neap_reply *reply = r->on_ready ? neap_reply_copy_hiredis(obj) : r->builder.root;
    r->builder.root = NULL;
    if (q->flags & NEAP_REDIS_BATCH) {
        if (++q->got < q->count) return;
        reply = q->batch;
        q->batch = NULL;
    }
    redis_list_remove(&r->flight, q);
    if (q->internal) {
        free_request(q);
        redis_conn_login_reply(r, reply);
        return;
    }
    int status = !reply ? NEAP_ERR_MEMORY : reply->type == NEAP_REPLY_ERROR ? NEAP_ERR_REPLY : 0;
    redis_finish(r, q, status, reply);
    if (r->state == NEAP_REDIS_CLOSED) return;
    if (r->queue.n) redis_feed(r);
    redis_keep_alive(r);
}

/* ---- sending ------------------------------------------------------------------------------------------------------- */

/* hiredis wants a callback for each reply: a batch's bytes go with the first, the others ride along with none. */
int redis_put(neap_redis *r, struct request *q, const char *bytes, size_t len) {
    if (redisAsyncFormattedCommand(r->ac, on_reply, q, bytes, len) != REDIS_OK) return NEAP_ERR_CONNECTION;
    redis_list_push(&r->flight, q);
    q->got = 0;
    q->sends++;
    for (uint32_t i = 1; i < q->count; i++)
        if (redisAsyncFormattedCommand(r->ac, on_reply, q, bytes, 0) != REDIS_OK) {
            redis_conn_drop(r, "out of memory while sending");
            break;
        }
    r->stats.bytes_out += len;
    return 0;
}

static bool ready(const neap_redis *r) { return r->state == NEAP_REDIS_READY && r->ac && neap_hiredis_unsent(r->ac) < OBUF_MAX; }

/* A request that came before it was known that there is a cluster. */
static void feed_cluster(neap_redis *r, struct request *q) {
    uint64_t now = uv_now(r->loop);
    neap_redis_req req = {.bytes = q->bytes,
                          .len = q->len,
                          .count = q->count,
                          .flags = q->flags,
                          .sink = q->sink,
                          .cb = q->cb,
                          .ud = q->ud,
                          .timeout_ms = q->deadline == UINT64_MAX ? UINT32_MAX
                                        : q->deadline > now       ? (uint32_t)(q->deadline - now)
                                                                  : 1};
    int e = redis_cluster_send(r, &req);
    if (e) redis_finish(r, q, e, neap_reply_error(false, "the command cannot be sent: %s", neap_err_kind(e)));
    else free_request(q);
}

void redis_feed(neap_redis *r) {
    while (r->queue.head && ready(r)) {
        struct request *q = r->queue.head;
        redis_list_remove(&r->queue, q);
        if (r->cluster && !q->routed) {
            feed_cluster(r, q);
            continue;
        }
        if (redis_put(r, q, q->bytes, q->len)) {
            q->next = r->queue.head; /* back to its place: on_gone comes next */
            if (q->next) q->next->prev = q;
            else r->queue.tail = q;
            r->queue.head = q;
            r->queue.n++;
            return;
        }
    }
}

int neap_redis_send(neap_redis *r, const neap_redis_req *req) {
    if (!r->cluster || r->state == NEAP_REDIS_CLOSED || !req->len) return redis_send_here(r, req);
    r->stats.commands += req->count;
    return redis_cluster_send(r, req);
}

int redis_send_here(neap_redis *r, const neap_redis_req *req) {
    if (r->state == NEAP_REDIS_CLOSED) return NEAP_ERR_CLOSED;
    bool batch = req->flags & NEAP_REDIS_BATCH;
    if (!req->len || (batch ? req->count < 1 || req->sink : req->count != 1)) return NEAP_ERR_INVALID;
    bool now = !r->queue.n && ready(r);
    if (!now && r->state != NEAP_REDIS_READY && r->queue.n >= r->o.max_queue) return NEAP_ERR_FULL;
    if (r->o.once && r->ever && r->state != NEAP_REDIS_READY) return NEAP_ERR_CONNECTION;
    bool keep = !now || (req->flags & NEAP_REDIS_RETRY);
    struct request *q = malloc(sizeof *q + (keep ? req->len : 0));
    if (!q) return NEAP_ERR_MEMORY;
    uint32_t ms = req->timeout_ms ? req->timeout_ms : r->o.timeout_ms;
    *q = (struct request){.cb = req->cb,
                          .ud = req->ud,
                          .flags = req->flags,
                          .count = req->count,
                          .sink = req->sink,
                          .routed = r->cluster != NULL,
                          .len = keep ? req->len : 0,
                          .deadline = ms == UINT32_MAX ? UINT64_MAX : uv_now(r->loop) + ms};
    if (keep) memcpy(q->bytes, req->bytes, req->len);
    if (now) {
        int e = redis_put(r, q, req->bytes, req->len);
        if (e) {
            free(q);
            return e;
        }
    } else {
        redis_list_push(&r->queue, q);
        redis_conn_want(r);
    }
    r->stats.commands += req->count;
    redis_arm(r, q->deadline);
    if (!r->kept_alive) redis_keep_alive(r);
    return 0;
}

int neap_redis_command(neap_redis *r, int argc, const char *const *argv, const size_t *lens, uint32_t flags, neap_redis_cb cb, void *ud) {
    neap_buf b = {0};
    int e = neap_resp_begin(&b, (size_t)argc);
    for (int i = 0; !e && i < argc; i++) e = neap_resp_str(&b, argv[i], lens ? lens[i] : strlen(argv[i]));
    if (!e) e = neap_redis_send(r, &(neap_redis_req){.bytes = b.data, .len = b.len, .count = 1, .flags = flags, .cb = cb, .ud = ud});
    buf_free(&b);
    return e;
}

bool neap_redis_turn(neap_redis *r) {
    if (r->state == NEAP_REDIS_CLOSED) return false;
    bool wrote = r->cluster && redis_cluster_turn(r);
    if (!r->uv) return wrote;
    wrote |= neap_redis_uv_flush(r->uv);
    if (r->state == NEAP_REDIS_READY && r->queue.n) redis_feed(r);
    return wrote;
}

/* ---- when the connection goes -------------------------------------------------------------------------------------- */

void redis_fail_queue(neap_redis *r, int status) {
    struct list all = r->queue;
    r->queue = (struct list){0};
    while (all.head) {
        struct request *q = all.head;
        redis_list_remove(&all, q);
        redis_finish(r, q, status, neap_reply_error(q->sends > 0 && !(q->flags & NEAP_REDIS_RETRY), "%s", r->why));
    }
    redis_keep_alive(r);
}

void redis_fail_flight(neap_redis *r) {
    struct list all = r->flight, again = {0};
    char at[160], why[sizeof r->why];
    neap_redis_addr_text(&r->o.addr, at, sizeof at);
    snprintf(why, sizeof why, "%s", r->why);
    r->flight = (struct list){0};
    /* first put back what may be sent again, in order and before what was queued, so that callbacks queue behind it */
    for (struct request *q = all.head, *next; q; q = next) {
        next = q->next;
        if (!r->o.once && q->cb && (q->flags & NEAP_REDIS_RETRY) && q->sends < READ_SENDS && !q->sink) {
            redis_list_remove(&all, q);
            neap_reply_free(q->batch);
            q->batch = NULL;
            redis_list_push(&again, q);
            r->stats.retries++;
        }
    }
    if (again.n) {
        again.tail->next = r->queue.head;
        if (r->queue.head) r->queue.head->prev = again.tail;
        else r->queue.tail = again.tail;
        r->queue.head = again.head;
        r->queue.n += again.n;
    }
    while (all.head) {
        struct request *q = all.head;
        redis_list_remove(&all, q);
        bool reads = q->flags & NEAP_REDIS_RETRY;
        redis_finish(r, q, r->state == NEAP_REDIS_CLOSED ? NEAP_ERR_CLOSED : NEAP_ERR_CONNECTION,
                     q->cb ? neap_reply_error(!reads, "connection to Redis at %s lost (%s) before the answer: the command %s", at, why,
                                              reads ? "only reads and can be repeated" : "may have run")
                           : NULL);
    }
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

static void on_turn(uv_prepare_t *p) { neap_redis_turn(p->data); }

static void on_handle_closed(uv_handle_t *h) {
    neap_redis *r = h->data;
    if (--r->handles) return;
    neap_redis_addr_free(&r->o.addr);
    free(r->name);
    free(r->ips);
    free(r->cluster);
    free(r);
}

void neap_redis_close(neap_redis *r) {
    if (r->state == NEAP_REDIS_CLOSED) return;
    r->state = NEAP_REDIS_CLOSED;
    snprintf(r->why, sizeof r->why, "the client was closed");
    r->kept_alive = true; /* no more bookkeeping */
    redis_conn_close(r);
    if (r->cluster) redis_cluster_close(r);
    uv_close((uv_handle_t *)&r->deadlines, on_handle_closed);
    uv_close((uv_handle_t *)&r->pace, on_handle_closed);
    if (r->o.self_turn) uv_close((uv_handle_t *)&r->turn, on_handle_closed);
    redis_fail_flight(r);
    redis_fail_queue(r, NEAP_ERR_CLOSED);
}

int neap_redis_open(uv_loop_t *loop, const neap_redis_opts *opts, neap_redis **out) {
    if (!opts->addr.path && !opts->addr.host) return NEAP_ERR_INVALID;
    neap_redis *r = calloc(1, sizeof *r);
    if (!r) return NEAP_ERR_MEMORY;
    r->loop = loop;
    r->o = *opts;
    r->name = opts->name ? strdup(opts->name) : NULL;
    if (neap_redis_addr_copy(&opts->addr, &r->o.addr) || (opts->name && !r->name)) {
        free(r->name);
        free(r);
        return NEAP_ERR_MEMORY;
    }
    r->o.name = r->name;
    if (!r->o.timeout_ms) r->o.timeout_ms = 5000;
    if (!r->o.connect_ms) r->o.connect_ms = 5000;
    if (!r->o.dead_ms) r->o.dead_ms = 15000;
    if (!r->o.max_queue) r->o.max_queue = 1000;
    r->next_deadline = UINT64_MAX;
    r->failure = NEAP_ERR_CONNECTION;
    r->builder.begin = redis_begin_reply;
    r->builder.owner = r;
    uv_timer_init(loop, &r->deadlines);
    uv_timer_init(loop, &r->pace);
    uv_unref((uv_handle_t *)&r->deadlines); /* what keeps the loop alive is the socket or `pace` */
    uv_unref((uv_handle_t *)&r->pace);
    r->deadlines.data = r->pace.data = r->turn.data = r;
    r->handles = 2;
    if (r->o.self_turn) {
        uv_prepare_init(loop, &r->turn);
        uv_prepare_start(&r->turn, on_turn);
        uv_unref((uv_handle_t *)&r->turn);
        r->handles++;
    }
    *out = r;
    return 0;
}

enum neap_redis_state neap_redis_state(const neap_redis *r) { return r->state; }
const neap_redis_addr *neap_redis_address(const neap_redis *r) { return &r->o.addr; }
const char *neap_redis_last_error(const neap_redis *r) { return r->why; }
void neap_redis_connect(neap_redis *r) { redis_conn_want(r); }

void neap_redis_get_stats(const neap_redis *r, neap_redis_stats *out) {
    *out = r->stats;
    out->queued = r->queue.n;
    out->in_flight = r->flight.n;
}
