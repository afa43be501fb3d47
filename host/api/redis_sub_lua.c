/* redis_sub_lua.c: subscriptions. A client has at most one subscriber connection (its hub), shared by all its subscriptions: a thousand live pages on
   one channel cost one connection. A message is copied into the queue of every subscription that asked for it; a task reads its queue with next(). */
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"
#include "host/redis_sub.h"

#define SUB_META "neap.redis.subscription"
enum { QUEUE_MAX = 10000 };

struct message {
    struct message *next;
    size_t channel, pattern, data; /* lengths; the texts follow one another in this order */
    char text[];
};

struct name {
    struct name *next;
    int pattern, on;
    size_t len;
    char text[];
};

typedef struct redis_sub {
    struct redis_hub *hub; /* NULL once closed */
    struct redis_sub *next;
    struct name *names;
    struct message *head, *tail;
    int queued;
    lua_Integer dropped, lost; /* messages dropped from a full queue; connections lost */
    rt_wait *waiter;           /* of next(), or of subscribe() until the server has confirmed every name */
    int confirming, status;
    char why[384];
} redis_sub;

struct redis_hub {
    neap_redis_sub *s;
    redis_client *c;
    redis_sub *subs;
};

static int hub_turn(void *ud) { return neap_redis_sub_turn(((struct redis_hub *)ud)->s); }

static void hub_hold(struct redis_hub *h) {
    bool any = false;
    for (redis_sub *u = h->subs; u && !any; u = u->next) any = u->waiter != NULL;
    neap_redis_sub_hold(h->s, any);
}

static void wake(redis_sub *u, int status) {
    rt_wait *w = u->waiter;
    u->waiter = NULL;
    if (w) wait_done(w, status, NULL, NULL);
}

static int wants(redis_sub *u, const neap_redis_event *e) {
    int pattern = e->pattern != NULL;
    const char *text = pattern ? e->pattern : e->channel;
    size_t len = pattern ? e->pattern_len : e->channel_len;
    for (struct name *n = u->names; n; n = n->next)
        if (n->pattern == pattern && n->len == len && !memcmp(n->text, text, len)) {
            if (e->kind == NEAP_SUB_ON) n->on = 1;
            return 1;
        }
    return 0;
}

static void push(redis_sub *u, const neap_redis_event *e) {
    struct message *m = malloc(sizeof *m + e->channel_len + e->pattern_len + e->data_len);
    if (!m) {
        u->dropped++;
        return;
    }
    *m = (struct message){.channel = e->channel_len, .pattern = e->pattern_len, .data = e->data_len};
    memcpy(m->text, e->channel, e->channel_len);
    if (e->pattern_len) memcpy(m->text + e->channel_len, e->pattern, e->pattern_len);
    memcpy(m->text + e->channel_len + e->pattern_len, e->data, e->data_len);
    if (u->tail) u->tail->next = m;
    else u->head = m;
    u->tail = m;
    if (++u->queued > QUEUE_MAX) { /* a reader that does not keep up loses the oldest */
        struct message *old = u->head;
        u->head = old->next;
        free(old);
        u->queued--;
        u->dropped++;
    }
}

static int all_on(redis_sub *u) {
    for (struct name *n = u->names; n; n = n->next)
        if (!n->on) return 0;
    return 1;
}

static void on_event(void *ud, const neap_redis_event *e) {
    struct redis_hub *h = ud;
    for (redis_sub *u = h->subs; u; u = u->next) {
        switch (e->kind) {
        case NEAP_SUB_MESSAGE:
            if (wants(u, e)) {
                push(u, e);
                if (!u->confirming) wake(u, 0);
            }
            break;
        case NEAP_SUB_ON:
            if (wants(u, e) && u->confirming && all_on(u)) {
                u->confirming = 0;
                wake(u, 0);
            }
            break;
        case NEAP_SUB_LOST: u->lost++; break;
        case NEAP_SUB_FAILED:
            u->status = e->status ? e->status : NEAP_ERR_CONNECTION;
            snprintf(u->why, sizeof u->why, "%s", e->data);
            wake(u, u->status);
            break;
        }
    }
    hub_hold(h);
}

/* ---- ending --------------------------------------------------------------------------------------------------------- */
static void unlist(redis_sub *u) {
    redis_sub **p = &u->hub->subs;
    while (*p != u) p = &(*p)->next;
    *p = u->next;
}

void redis_hub_close(struct redis_hub *h) {
    rt_off_turn(h->c->R, hub_turn, h);
    for (redis_sub *u = h->subs, *next; u; u = next) {
        next = u->next;
        u->hub = NULL;
        u->status = NEAP_ERR_CLOSED;
        snprintf(u->why, sizeof u->why, "the client was closed");
        wake(u, NEAP_ERR_CLOSED);
    }
    neap_redis_sub_close(h->s);
    free(h);
}

static void sub_shut(redis_sub *u) {
    struct redis_hub *h = u->hub;
    if (h) {
        unlist(u);
        u->hub = NULL;
        for (struct name *n = u->names; n; n = n->next) {
            int used = 0;
            for (redis_sub *o = h->subs; o && !used; o = o->next)
                for (struct name *m = o->names; m && !used; m = m->next)
                    used = m->pattern == n->pattern && m->len == n->len && !memcmp(m->text, n->text, n->len);
            if (!used) neap_redis_sub_remove(h->s, n->pattern, n->text, n->len);
        }
        wake(u, 0);
        if (!h->subs) { /* the last one: the connection goes too */
            h->c->hub = NULL;
            redis_hub_close(h);
        } else {
            hub_hold(h);
        }
    }
    for (struct name *n = u->names, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    u->names = NULL;
}

static int sub_close(lua_State *L) {
    redis_sub *u = luaL_checkudata(L, 1, SUB_META);
    sub_shut(u);
    return 0;
}

static int sub_gc(lua_State *L) {
    redis_sub *u = luaL_checkudata(L, 1, SUB_META);
    sub_shut(u);
    for (struct message *m = u->head, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    u->head = u->tail = NULL;
    return 0;
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */
static void left(rt_wait *w, void *op) { /* cancelled or out of time while waiting */
    redis_sub *u = op;
    if (u->waiter != w) return;
    u->waiter = NULL;
    if (u->hub) hub_hold(u->hub);
    wait_unref(w);
}

/* The oldest message as {channel=, data=, pattern=}, or nil: closed, or the time is over. */
static int pop(lua_State *L, redis_sub *u) {
    struct message *m = u->head;
    if (!m) {
        lua_pushnil(L);
        return 1;
    }
    lua_createtable(L, 0, 3);
    lua_pushlstring(L, m->text, m->channel);
    lua_setfield(L, -2, "channel");
    if (m->pattern) {
        lua_pushlstring(L, m->text + m->channel, m->pattern);
        lua_setfield(L, -2, "pattern");
    }
    lua_pushlstring(L, m->text + m->channel + m->pattern, m->data);
    lua_setfield(L, -2, "data");
    u->head = m->next;
    if (!u->head) u->tail = NULL;
    u->queued--;
    free(m);
    return 1;
}

static int fail(lua_State *L, redis_sub *u) {
    rt_error e = {neap_err_kind(u->status), u->status == NEAP_ERR_CONNECTION, 0, 0};
    return err_raise(L, &e, "redis.subscribe: %s", u->why);
}

static int got(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    redis_sub *u = lua_touserdata(L, 1);
    if (w->status && w->status != NEAP_ERR_TIMEOUT) return fail(L, u);
    return pop(L, u);
}

static int sub_next(lua_State *L) { /* next([timeout]) */
    redis_sub *u = luaL_checkudata(L, 1, SUB_META);
    double timeout = luaL_optnumber(L, 2, -1);
    if (u->head || !u->hub) return pop(L, u);
    if (u->status) return fail(L, u);
    if (u->waiter) return luaL_error(L, "another task is already waiting on this subscription: give each its own");
    lua_settop(L, 2);
    rt_wait *w = wait_new(L, "subscription:next", timeout);
    w->quiet_deadline = 1;
    w->op = u;
    w->cancel = left;
    u->waiter = wait_ref(w);
    hub_hold(u->hub);
    return wait_park(L, w, got);
}

static int sub_info(lua_State *L) { /* info() -> queued, dropped, lost connections */
    redis_sub *u = luaL_checkudata(L, 1, SUB_META);
    lua_pushinteger(L, u->queued);
    lua_pushinteger(L, u->dropped);
    lua_pushinteger(L, u->lost);
    return 3;
}

/* ---- subscribing ---------------------------------------------------------------------------------------------------- */
static struct redis_hub *hub_of(redis_client *c) {
    if (c->hub) return c->hub;
    struct redis_hub *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    h->c = c;
    neap_redis_opts o = {.addr = *neap_redis_address(c->r)};
    if (neap_redis_sub_open(rt_loop(c->R), &o, on_event, h, &h->s)) {
        free(h);
        return NULL;
    }
    if (rt_on_turn(c->R, hub_turn, h)) {
        neap_redis_sub_close(h->s);
        free(h);
        return NULL;
    }
    return c->hub = h;
}

static int confirmed(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    redis_sub *u = lua_touserdata(L, 4);
    if (w->status) {
        sub_shut(u);
        if (!u->status) return wait_raise(L, w);
        return fail(L, u);
    }
    lua_pushvalue(L, 4);
    return 1;
}

static int add_names(lua_State *L, redis_sub *u, int list, int pattern) {
    lua_Integer n = luaL_len(L, list);
    for (lua_Integer i = 1; i <= n; i++) {
        size_t len;
        lua_rawgeti(L, list, i);
        const char *s = luaL_checklstring(L, -1, &len);
        struct name *m = malloc(sizeof *m + len);
        if (!m) return NEAP_ERR_MEMORY;
        *m = (struct name){.next = u->names, .pattern = pattern, .len = len};
        memcpy(m->text, s, len);
        u->names = m;
        lua_pop(L, 1);
    }
    return 0;
}

int redis_l_subscribe(lua_State *L) {
    redis_client *c = redis_check_client(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    redis_sub *u = lua_newuserdatauv(L, sizeof *u, 1); /* 4 */
    memset(u, 0, sizeof *u);
    luaL_setmetatable(L, SUB_META);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 4, 1); /* the client stays while its subscription does */
    int e = add_names(L, u, 2, 0);
    if (!e) e = add_names(L, u, 3, 1);
    if (!u->names && !e) return luaL_error(L, "redis.subscribe: which channels?");
    rt_wait *w = wait_new(L, "redis.subscribe", c->timeout + 1);
    struct redis_hub *h = e ? NULL : hub_of(c);
    if (!h) return err_code(L, NEAP_ERR_MEMORY, "redis.subscribe: out of memory");
    u->hub = h;
    u->next = h->subs;
    h->subs = u;
    u->confirming = 1;
    for (struct name *n = u->names; n && !e; n = n->next) {
        for (redis_sub *o = u->next; o && !n->on; o = o->next) /* another subscription may have it already */
            for (struct name *m = o->names; m && !n->on; m = m->next)
                n->on = m->on && m->pattern == n->pattern && m->len == n->len && !memcmp(m->text, n->text, n->len);
        e = neap_redis_sub_add(h->s, n->pattern, n->text, n->len);
    }
    if (e) {
        sub_shut(u);
        return err_code(L, e, "redis.subscribe: out of memory");
    }
    if (all_on(u)) {
        u->confirming = 0;
        lua_pushvalue(L, 4);
        return 1;
    }
    w->op = u;
    w->cancel = left;
    u->waiter = wait_ref(w);
    hub_hold(h);
    return wait_park(L, w, confirmed);
}

static const luaL_Reg sub_methods[] = {{"next", sub_next}, {"close", sub_close}, {"info", sub_info}, {NULL, NULL}};

void redis_sub_meta(lua_State *L) {
    luaL_newmetatable(L, SUB_META);
    lua_pushcfunction(L, sub_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, sub_close);
    lua_setfield(L, -2, "__close");
    luaL_newlib(L, sub_methods);
    lua_setfield(L, -2, "__index");
}
