/* redis_cluster.c: Redis Cluster behind an ordinary client. At login a server says whether it is part of a cluster; if so its client becomes a front:
   it learns which node has which slots (CLUSTER SLOTS), keeps one client a master, sends each command where its first key lives, and follows MOVED
   and ASK. Callers see no difference, except that the keys of one command or transaction must share a slot ({tag} in their names), and that commands
   without a key (SCAN, DBSIZE, FLUSHALL) reach one node only. Pipelines are split by node and put together again. */
#include <stdlib.h>
#include <string.h>
#include "host/redis_priv.h"

enum { SLOTS = REDIS_SLOTS, NODES_MAX = 1024, HOPS_MAX = 5, REFRESH_MS = 100 };

struct redis_cluster {
    neap_redis *front;
    neap_redis *node[NODES_MAX];
    int n;
    uint16_t owner[SLOTS]; /* index into node, + 1; 0: nobody */
    bool refreshing;
    uint64_t refreshed;
};

/* ---- nodes --------------------------------------------------------------------------------------------------------- */

static void refresh(neap_redis *front);

static void on_node_state(void *ud, enum neap_redis_state state, const char *message) {
    neap_redis *front = ud;
    if (front->state != NEAP_REDIS_CLOSED && (state == NEAP_REDIS_WAITING || state == NEAP_REDIS_IDLE))
        refresh(front); /* perhaps it has a successor */
}

/* The client of a node; makes it when it is new. NULL when out of memory. An empty host is the front's own. */
static neap_redis *node_at(neap_redis *front, const char *host, size_t len, int port, int *index) {
    struct redis_cluster *c = front->cluster;
    char name[256];
    if (!len) {
        host = front->o.addr.host ? front->o.addr.host : "127.0.0.1";
        len = strlen(host);
    }
    if (len >= sizeof name) return NULL;
    memcpy(name, host, len);
    name[len] = 0;
    for (int i = 0; i < c->n; i++)
        if (c->node[i]->o.addr.port == port && !strcmp(c->node[i]->o.addr.host, name)) {
            *index = i;
            return c->node[i];
        }
    if (c->n == NODES_MAX) return NULL;
    neap_redis_opts o = front->o;
    o.addr = (neap_redis_addr){.host = name, .port = port, .user = front->o.addr.user, .password = front->o.addr.password};
    o.on_state = on_node_state;
    o.ud = front;
    neap_redis *r;
    if (neap_redis_open(front->loop, &o, &r)) return NULL;
    r->front = front;
    *index = c->n;
    return c->node[c->n++] = r;
}

static neap_redis *node_of(neap_redis *front, int slot) {
    struct redis_cluster *c = front->cluster;
    if (slot >= 0 && c->owner[slot]) return c->node[c->owner[slot] - 1];
    if (front->state == NEAP_REDIS_READY) return front;
    for (int i = 0; i < c->n; i++)
        if (c->node[i]->state == NEAP_REDIS_READY) return c->node[i];
    return front;
}

/* ---- the slot map -------------------------------------------------------------------------------------------------- */

static void read_map(neap_redis *front, const neap_reply *reply) {
    struct redis_cluster *c = front->cluster;
    memset(c->owner, 0, sizeof c->owner);
    for (uint32_t i = 0; i < reply->len; i++) {
        const neap_reply *e = &reply->item[i];
        if (e->type != NEAP_REPLY_ARRAY || e->len < 3 || e->item[2].type != NEAP_REPLY_ARRAY || e->item[2].len < 2) continue;
        const neap_reply *host = &e->item[2].item[0];
        int at;
        if (!node_at(front, host->type == NEAP_REPLY_STRING ? host->str : "", host->type == NEAP_REPLY_STRING ? host->len : 0,
                     (int)e->item[2].item[1].integer, &at))
            continue;
        for (int64_t s = e->item[0].integer; s <= e->item[1].integer && s >= 0 && s < SLOTS; s++) c->owner[s] = (uint16_t)(at + 1);
    }
}

/* What waits at a node that no longer has its slot moves to the one that does; it was never sent. */
static void reroute(neap_redis *front) {
    struct redis_cluster *c = front->cluster;
    for (int i = 0; i < c->n; i++) {
        neap_redis *r = c->node[i];
        for (struct request *q = r->queue.head, *next; q; q = next) {
            next = q->next;
            int slot = redis_command_slot(q->bytes, NULL);
            neap_redis *to = node_of(front, slot);
            if (slot < 0 || to == r) continue;
            redis_list_remove(&r->queue, q);
            redis_list_push(&to->queue, q);
            redis_conn_want(to);
            redis_arm(to, q->deadline);
            redis_keep_alive(to);
        }
        redis_keep_alive(r);
    }
    for (int i = 0; i < c->n; i++) redis_feed(c->node[i]);
}

static void on_map(void *ud, int status, neap_reply *reply) {
    neap_redis *front = ud;
    if (front->state != NEAP_REDIS_CLOSED) {
        front->cluster->refreshing = false;
        if (!status && reply->type == NEAP_REPLY_ARRAY && reply->len) {
            read_map(front, reply);
            reroute(front);
        }
    }
    neap_reply_free(reply);
}

static void refresh(neap_redis *front) {
    struct redis_cluster *c = front->cluster;
    uint64_t now = uv_now(front->loop);
    if (!c || c->refreshing || now - c->refreshed < REFRESH_MS) return;
    neap_redis *r = front->state == NEAP_REDIS_READY ? front : NULL;
    for (int i = 0; i < c->n && !r; i++)
        if (c->node[i]->state == NEAP_REDIS_READY) r = c->node[i];
    static const char ask[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
    if (!r || redis_send_here(r, &(neap_redis_req){.bytes = ask, .len = sizeof ask - 1, .count = 1, .timeout_ms = 1000, .cb = on_map, .ud = front}))
        return;
    c->refreshing = true;
    c->refreshed = now;
}

int redis_cluster_begin(neap_redis *front, const neap_reply *slots) {
    if (!front->cluster) {
        front->cluster = calloc(1, sizeof *front->cluster);
        if (!front->cluster) return NEAP_ERR_MEMORY;
        front->cluster->front = front;
    }
    read_map(front, slots);
    return 0;
}

bool redis_cluster_turn(neap_redis *front) {
    bool wrote = false;
    for (int i = 0; i < front->cluster->n; i++) wrote |= neap_redis_turn(front->cluster->node[i]);
    return wrote;
}

void redis_cluster_close(neap_redis *front) {
    for (int i = 0; i < front->cluster->n; i++) {
        front->cluster->node[i]->o.on_state = NULL;
        neap_redis_close(front->cluster->node[i]);
    }
}

/* ---- sending ------------------------------------------------------------------------------------------------------- */

/* A request on its way through the cluster. A batch is one parent whose parts (one a node, later one a redirected command) fill its reply. */
struct hop {
    neap_redis *front;
    neap_redis_cb cb;
    void *ud;
    uint64_t deadline;
    uint32_t flags, count;
    const neap_reply_sink *sink;
    int hops;
    bool asking;
    struct hop *parent; /* of a part */
    uint32_t *place;    /* of a part: where its replies belong in the parent's */
    int parts;          /* of a parent: still under way */
    neap_reply *all;    /* of a parent: the replies so far */
    int status;         /* of a parent: the first failure of a part, and its text */
    neap_reply *why;
    size_t len;
    char bytes[];
};

static void on_hop(void *ud, int status, neap_reply *reply);

static struct hop *hop_new(neap_redis *front, const char *bytes, size_t len, uint32_t count, uint32_t flags, uint64_t deadline) {
    struct hop *h = malloc(sizeof *h + len + 1);
    if (!h) return NULL;
    *h = (struct hop){.front = front, .deadline = deadline, .flags = flags, .count = count, .len = len};
    memcpy(h->bytes, bytes, len);
    h->bytes[len] = 0;
    return h;
}

static void hop_free(struct hop *h) {
    neap_reply_free(h->why);
    free(h->place);
    free(h);
}

static int forward(struct hop *h, neap_redis *to) {
    uint64_t now = uv_now(h->front->loop);
    neap_redis_req q = {.bytes = h->bytes,
                        .len = h->len,
                        .count = h->count,
                        .flags = h->flags,
                        .sink = h->sink,
                        .cb = on_hop,
                        .ud = h,
                        .timeout_ms = h->deadline == UINT64_MAX ? UINT32_MAX
                                      : h->deadline > now       ? (uint32_t)(h->deadline - now)
                                                                : 1};
    h->hops++;
    if (!h->asking) return redis_send_here(to, &q);
    neap_buf b = {0};
    int e = buf_puts(&b, "*1\r\n$6\r\nASKING\r\n");
    if (!e) e = buf_add(&b, h->bytes, h->len);
    q.bytes = b.data;
    q.len = b.len;
    q.count = 2;
    q.flags = NEAP_REDIS_BATCH;
    q.sink = NULL;
    if (!e) e = redis_send_here(to, &q);
    buf_free(&b);
    return e;
}

/* "MOVED 3999 10.0.0.1:6381", "ASK ...": the node it names, NULL if the text is none of these. */
static neap_redis *redirected(neap_redis *front, const neap_reply *n, bool *ask) {
    if (n->type != NEAP_REPLY_ERROR) return NULL;
    *ask = !strncmp(n->str, "ASK ", 4);
    if (!*ask && strncmp(n->str, "MOVED ", 6)) return NULL;
    char *at;
    long slot = strtol(n->str + (*ask ? 4 : 6), &at, 10);
    const char *host = at + (*at == ' '), *colon = strrchr(host, ':');
    int index;
    if (!colon || slot < 0 || slot >= SLOTS) return NULL;
    neap_redis *to = node_at(front, host, (size_t)(colon - host), atoi(colon + 1), &index);
    if (to && !*ask) {
        front->cluster->owner[slot] = (uint16_t)(index + 1);
        refresh(front);
    }
    return to;
}

static void part_done(struct hop *h, int status, neap_reply *reply);

static void finish(struct hop *h, int status, neap_reply *reply) {
    if (h->parent) {
        part_done(h, status, reply);
        return;
    }
    neap_redis_cb cb = h->cb;
    void *ud = h->ud;
    hop_free(h);
    if (cb) cb(ud, status, reply);
    else neap_reply_free(reply);
}

static void refused(struct hop *h, int e) {
    finish(h, e == NEAP_ERR_FULL ? NEAP_ERR_CONNECTION : e,
           neap_reply_error(false, "the cluster's node cannot take the command now (%s)", neap_err_kind(e)));
}

static void on_hop(void *ud, int status, neap_reply *reply) {
    struct hop *h = ud;
    bool ask = false;
    if (h->asking && !status) { /* ASKING's OK and the answer proper */
        neap_reply_lift(reply, 1);
        status = reply->type == NEAP_REPLY_ERROR ? NEAP_ERR_REPLY : 0;
    }
    bool transaction = !h->parent && (h->flags & NEAP_REDIS_BATCH);
    const neap_reply *said = reply;
    if (transaction && !status) /* a transaction was refused as a whole if one of its commands was redirected */
        for (uint32_t i = 0; i < reply->len; i++)
            if (reply->item[i].type == NEAP_REPLY_ERROR && (said == reply || !strncmp(reply->item[i].str, "MOVED", 5))) said = &reply->item[i];
    bool part = h->parent && (h->flags & NEAP_REDIS_BATCH); /* part_done looks at its replies one by one */
    if (said && !part && h->front->state != NEAP_REDIS_CLOSED && h->hops < HOPS_MAX) {
        neap_redis *to = redirected(h->front, said, &ask);
        if (to && !(ask && transaction)) {
            neap_reply_free(reply);
            h->asking = ask;
            int e = forward(h, to);
            if (e) refused(h, e);
            return;
        }
    }
    if (status && status != NEAP_ERR_REPLY && h->front->state != NEAP_REDIS_CLOSED) refresh(h->front);
    finish(h, status, reply);
}

/* A part's replies go to their places; redirected ones are sent again on their own. The last part completes the parent. */
static void part_done(struct hop *h, int status, neap_reply *reply) {
    struct hop *p = h->parent;
    bool whole = !status && (h->flags & NEAP_REDIS_BATCH);
    const char *at = h->bytes;
    for (uint32_t i = 0; i < h->count; i++) {
        const neap_reply *n = whole ? &reply->item[i] : reply;
        const char *end = at;
        bool ask;
        struct hop *again = NULL;
        if (whole) redis_command_slot(at, &end);
        neap_redis *to = whole && p->front->state != NEAP_REDIS_CLOSED ? redirected(p->front, n, &ask) : NULL;
        if (to) again = hop_new(p->front, at, (size_t)(end - at), 1, 0, h->deadline);
        if (again) {
            again->parent = p;
            again->asking = ask;
            again->place = malloc(sizeof *again->place);
            if (again->place) *again->place = h->place[i];
            p->parts++;
            if (!again->place || forward(again, to)) {
                p->parts--;
                hop_free(again);
                again = NULL;
            }
        }
        if (!again && n) p->all->item[h->place[i]] = *n;
        at = end;
    }
    if (status && status != NEAP_ERR_REPLY && !p->status) {
        p->status = status;
        p->why = reply;
    } else if (reply) {
        neap_reply_adopt(p->all, reply);
    }
    hop_free(h);
    if (--p->parts) return;
    if (p->status) {
        neap_reply *why = p->why;
        p->why = NULL;
        neap_reply_free(p->all);
        finish(p, p->status, why);
    } else {
        finish(p, 0, p->all);
    }
}

/* An array of so many replies, each an error until the proper one comes. */
static int make_room(struct hop *p, uint32_t replies) {
    static const char text[] = "ERR the cluster's node cannot take the command now";
    p->all = neap_reply_new((size_t)replies * sizeof(neap_reply));
    if (!p->all || neap_reply_set_array(p->all, p->all, replies)) return NEAP_ERR_MEMORY;
    for (uint32_t i = 0; i < replies; i++) p->all->item[i] = (neap_reply){.type = NEAP_REPLY_ERROR, .str = text, .len = sizeof text - 1};
    return 0;
}

/* Starts a part of p at a node, if that can be; `place` is taken over. */
static void start_part(struct hop *p, neap_redis *to, const char *bytes, size_t len, uint32_t count, uint32_t *place) {
    struct hop *h = hop_new(p->front, bytes, len, count, NEAP_REDIS_BATCH, p->deadline);
    if (!h) {
        free(place);
        return;
    }
    h->place = place;
    h->parent = p;
    if (forward(h, to)) hop_free(h);
    else p->parts++;
}

/* One part for each node that has keys of the batch. */
static int split_into(struct hop *p, neap_buf *bytes, uint32_t *count, uint32_t *node, int nodes) {
    struct redis_cluster *c = p->front->cluster;
    const char *at = p->bytes, *end;
    for (uint32_t i = 0; i < p->count; i++, at = end) {
        int slot = redis_command_slot(at, &end);
        node[i] = slot >= 0 ? c->owner[slot] : 0;
        count[node[i]]++;
        if (buf_add(&bytes[node[i]], at, (size_t)(end - at))) return NEAP_ERR_MEMORY;
    }
    for (int k = 0; k < nodes; k++) {
        uint32_t *place = count[k] ? malloc(count[k] * sizeof *place) : NULL, n = 0;
        if (!count[k]) continue;
        if (!place) return p->parts ? 0 : NEAP_ERR_MEMORY;
        for (uint32_t i = 0; i < p->count; i++)
            if (node[i] == (uint32_t)k) place[n++] = i;
        start_part(p, k ? c->node[k - 1] : node_of(p->front, -1), bytes[k].data, bytes[k].len, n, place);
    }
    return p->parts ? 0 : NEAP_ERR_CONNECTION;
}

/* The same batch to each master that has slots. */
static int to_masters(struct hop *p) {
    struct redis_cluster *c = p->front->cluster;
    bool owns[NODES_MAX] = {0};
    uint32_t masters = 0;
    for (int s = 0; s < SLOTS; s++) {
        if (!c->owner[s] || owns[c->owner[s] - 1]) continue;
        owns[c->owner[s] - 1] = true;
        masters++;
    }
    int e = !masters ? NEAP_ERR_CONNECTION : make_room(p, masters * p->count);
    for (uint32_t k = 0, n = 0; !e && n < masters; k++) {
        if (!owns[k]) continue;
        uint32_t *place = malloc(p->count * sizeof *place);
        for (uint32_t i = 0; place && i < p->count; i++) place[i] = n * p->count + i;
        if (place) start_part(p, c->node[k], p->bytes, p->len, p->count, place);
        else e = p->parts ? 0 : NEAP_ERR_MEMORY;
        n++;
    }
    if (!e && !p->parts) e = NEAP_ERR_CONNECTION;
    if (e) neap_reply_free(p->all);
    return e;
}

static int split(struct hop *p) {
    int nodes = p->front->cluster->n + 1, e = NEAP_ERR_MEMORY;
    neap_buf *bytes = calloc((size_t)nodes, sizeof *bytes);
    uint32_t *count = calloc((size_t)nodes, sizeof *count), *node = malloc(p->count * sizeof *node);
    if (bytes && count && node && !make_room(p, p->count)) e = split_into(p, bytes, count, node, nodes);
    if (e) neap_reply_free(p->all);
    for (int k = 0; k < nodes && bytes; k++) buf_free(&bytes[k]);
    free(bytes);
    free(count);
    free(node);
    return e;
}

int redis_cluster_send(neap_redis *front, const neap_redis_req *req) {
    uint32_t ms = req->timeout_ms ? req->timeout_ms : front->o.timeout_ms;
    struct hop *h = hop_new(front, req->bytes, req->len, req->count, req->flags, ms == UINT32_MAX ? UINT64_MAX : uv_now(front->loop) + ms);
    if (!h) return NEAP_ERR_MEMORY;
    h->cb = req->cb;
    h->ud = req->ud;
    h->sink = req->sink;
    int slot = redis_command_slot(h->bytes, NULL), e;
    bool batch = req->flags & NEAP_REDIS_BATCH, transaction = batch && !strncmp(h->bytes, "*1\r\n$5\r\nMULTI\r\n", 15);
    if (batch && !transaction) {
        e = req->flags & NEAP_REDIS_MASTERS ? to_masters(h) : split(h);
    } else {
        const char *at = h->bytes, *end = h->bytes + h->len;
        while (transaction && slot < 0 && at < end) slot = redis_command_slot(at, &at);
        e = forward(h, node_of(front, slot));
    }
    if (e) hop_free(h);
    return e;
}
