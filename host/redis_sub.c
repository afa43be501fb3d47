/* redis_sub.c: subscriptions on a connection of their own. It is an ordinary client (redis_conn.c connects, logs in and comes back) whose
   replies hiredis builds itself, because hiredis looks into them to find a channel's callback. */
#include <stdlib.h>
#include <string.h>
#include "host/redis_priv.h"
#include "host/redis_sub.h"

struct channel {
    struct channel *next;
    bool pattern;
    size_t len;
    char name[];
};

struct neap_redis_sub {
    neap_redis *r;
    struct channel *channels;
    void (*on_event)(void *ud, const neap_redis_event *e);
    void *ud;
    bool closed;
};

static void text(const redisReply *e, const char **s, size_t *len) {
    *s = e->str;
    *len = e->str ? (size_t)e->len : 0;
}

/* [message channel data], [pmessage pattern channel data], [subscribe channel n], [psubscribe pattern n], [unsubscribe ..] */
static void on_push(redisAsyncContext *ac, void *obj, void *privdata) {
    redisReply *m = obj;
    neap_redis *r = ac->data;
    if (!m || !r || r->ac != ac || m->type != REDIS_REPLY_ARRAY || m->elements < 3 || !m->element[0]->str) return;
    neap_redis_sub *s = r->o.ud;
    const char *kind = m->element[0]->str;
    neap_redis_event e = {0};
    r->stats.replies++;
    if (!strcmp(kind, "message")) {
        e.kind = NEAP_SUB_MESSAGE;
        text(m->element[1], &e.channel, &e.channel_len);
        text(m->element[2], &e.data, &e.data_len);
    } else if (!strcmp(kind, "pmessage") && m->elements > 3) {
        e.kind = NEAP_SUB_MESSAGE;
        text(m->element[1], &e.pattern, &e.pattern_len);
        text(m->element[2], &e.channel, &e.channel_len);
        text(m->element[3], &e.data, &e.data_len);
    } else if (!strcmp(kind, "subscribe")) {
        e.kind = NEAP_SUB_ON;
        text(m->element[1], &e.channel, &e.channel_len);
    } else if (!strcmp(kind, "psubscribe")) {
        e.kind = NEAP_SUB_ON;
        text(m->element[1], &e.pattern, &e.pattern_len);
    } else {
        return;
    }
    s->on_event(s->ud, &e);
}

static void say(neap_redis_sub *s, const char *verb, const struct channel *c) {
    neap_buf b = {0};
    char word[16];
    snprintf(word, sizeof word, "%s%s", c->pattern ? "P" : "", verb);
    if (!neap_resp_begin(&b, 2) && !neap_resp_str(&b, word, strlen(word)) && !neap_resp_str(&b, c->name, c->len))
        redisAsyncFormattedCommand(s->r->ac, on_push, NULL, b.data, b.len); /* a failure ends the connection, and all is said again */
    buf_free(&b);
}

static void on_ready(neap_redis *r) {
    neap_redis_sub *s = r->o.ud;
    for (struct channel *c = s->channels; c; c = c->next) say(s, "SUBSCRIBE", c);
    neap_redis_uv_flush(r->uv);
}

static void on_state(void *ud, enum neap_redis_state state, const char *message) {
    neap_redis_sub *s = ud;
    if (s->closed || (state != NEAP_REDIS_IDLE && state != NEAP_REDIS_WAITING)) return;
    neap_redis_event e = {
        .kind = state == NEAP_REDIS_IDLE ? NEAP_SUB_FAILED : NEAP_SUB_LOST, .status = s->r->failure, .data = message, .data_len = strlen(message)};
    s->on_event(s->ud, &e);
}

int neap_redis_sub_open(uv_loop_t *loop, const neap_redis_opts *opts, void (*on_event)(void *, const neap_redis_event *), void *ud,
                        neap_redis_sub **out) {
    neap_redis_sub *s = calloc(1, sizeof *s);
    if (!s) return NEAP_ERR_MEMORY;
    neap_redis_opts o = *opts;
    o.on_state = on_state;
    o.ud = s;
    o.once = false;
    int e = neap_redis_open(loop, &o, &s->r);
    if (e) {
        free(s);
        return e;
    }
    s->r->on_ready = on_ready;
    s->on_event = on_event;
    s->ud = ud;
    *out = s;
    return 0;
}

void neap_redis_sub_close(neap_redis_sub *s) {
    s->closed = true;
    s->r->o.on_state = NULL;
    s->r->on_ready = NULL;
    neap_redis_close(s->r); /* nothing calls back from here on */
    for (struct channel *c = s->channels, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(s);
}

static struct channel **find(neap_redis_sub *s, bool pattern, const char *name, size_t len) {
    struct channel **p = &s->channels;
    while (*p && ((*p)->pattern != pattern || (*p)->len != len || memcmp((*p)->name, name, len))) p = &(*p)->next;
    return p;
}

int neap_redis_sub_add(neap_redis_sub *s, bool pattern, const char *name, size_t len) {
    struct channel **p = find(s, pattern, name, len);
    if (!*p) {
        struct channel *c = malloc(sizeof *c + len);
        if (!c) return NEAP_ERR_MEMORY;
        *c = (struct channel){.pattern = pattern, .len = len};
        memcpy(c->name, name, len);
        *p = c;
        if (s->r->state == NEAP_REDIS_READY) say(s, "SUBSCRIBE", c);
    }
    neap_redis_connect(s->r);
    return 0;
}

void neap_redis_sub_remove(neap_redis_sub *s, bool pattern, const char *name, size_t len) {
    struct channel **p = find(s, pattern, name, len), *c = *p;
    if (!c) return;
    if (s->r->state == NEAP_REDIS_READY) say(s, "UNSUBSCRIBE", c);
    *p = c->next;
    free(c);
}

void neap_redis_sub_hold(neap_redis_sub *s, bool on) {
    s->r->held = on;
    redis_keep_alive(s->r);
}

bool neap_redis_sub_turn(neap_redis_sub *s) { return neap_redis_turn(s->r); }
