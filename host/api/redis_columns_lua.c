/* redis_columns_lua.c: core.columns: a stream's entries as two tensors, without a Lua value for each. */
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"
#include "host/api/tensor_lua.h"
#include "host/redis_columns.h"

/* The columns belong to the request while it runs, then to the userdata. */
struct reading {
    rt_wait *w;
    neap_redis_columns c;
};

static void free_reading(void *p) {
    struct reading *g = p;
    neap_redis_columns_free(&g->c);
    free(g);
}

static void on_columns(void *ud, int status, neap_reply *reply) {
    struct reading *g = ud;
    if (status) { /* the error text is what the waiter wants then */
        rt_wait *w = g->w;
        free_reading(g);
        wait_done(w, status, reply, redis_free_reply);
        return;
    }
    neap_reply_free(reply);
    if (g->c.memory) status = NEAP_ERR_MEMORY;
    wait_done(g->w, status, g, free_reading);
}

static void release(void *data, void *ud) { free(data); }

/* Pushes a tensor over an array that it then owns; *array becomes NULL. f32: a converted copy. */
static void push_column(lua_State *L, void **array, neap_dtype dtype, int64_t n, int to_f32) {
    neap_tensor *t = tensor_slot(L), full = {0};
    int e = neap_tensor_wrap(&full, dtype, 1, &n, *array, release, NULL);
    if (!e) {
        *array = NULL;
        if (to_f32) e = neap_tensor_cast(t, &full, NEAP_F32);
        else *t = neap_tensor_ref(&full);
        neap_tensor_unref(&full);
    }
    tensor_must(L, e, "redis.columns", NULL, NULL);
    tensor_filled(L, t);
}

static int columns_read(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status == NEAP_ERR_MEMORY) return wait_raise(L, w);
    if (w->status) {
        redis_push_error(L, w->what, w->status, w->result, redis_key_of(L, 2));
        return lua_error(L);
    }
    struct reading *g = w->result;
    neap_redis_columns_finish(&g->c);
    if (neap_redis_columns_sort(&g->c)) return err_code(L, NEAP_ERR_MEMORY, "redis.columns: out of memory");
    if (lua_toboolean(L, 7)) neap_redis_columns_unique(&g->c);
    int64_t n = (int64_t)g->c.n;
    push_column(L, (void **)&g->c.time, NEAP_I64, n, 0);
    push_column(L, (void **)&g->c.value, NEAP_F64, n, lua_toboolean(L, 8));
    lua_pushinteger(L, n);
    lua_pushstring(L, g->c.last_id);
    lua_pushstring(L, g->c.first_id);
    lua_pushinteger(L, (lua_Integer)g->c.entries);
    lua_pushinteger(L, (lua_Integer)g->c.skipped);
    free_reading(g);
    w->result = NULL;
    return 7;
}

/* columns(client, key, from, to, count or 0, reverse, unique, f32) -> time, value, n, last id, first id, entries, skipped */
int redis_l_columns(lua_State *L) {
    redis_client *cl = redis_check_client(L, 1);
    size_t klen, flen, tlen;
    const char *key = luaL_checklstring(L, 2, &klen), *from = luaL_checklstring(L, 3, &flen), *to = luaL_checklstring(L, 4, &tlen);
    lua_Integer count = luaL_optinteger(L, 5, 0);
    int reverse = lua_toboolean(L, 6);
    lua_settop(L, 8);
    rt_wait *w = wait_new(L, "redis.columns", -1);
    struct reading *g = malloc(sizeof *g);
    if (!g) return err_code(L, NEAP_ERR_MEMORY, "redis.columns: out of memory");
    neap_redis_columns_init(&g->c);
    g->c.reverse = reverse;
    neap_buf *b = &cl->scratch;
    buf_clear(b);
    int e = neap_resp_begin(b, count ? 6 : 4);
    if (!e) e = reverse ? neap_resp_str(b, "XREVRANGE", 9) : neap_resp_str(b, "XRANGE", 6);
    if (!e) e = neap_resp_str(b, key, klen);
    if (!e) e = neap_resp_str(b, from, flen);
    if (!e) e = neap_resp_str(b, to, tlen);
    if (!e && count) e = neap_resp_str(b, "COUNT", 5);
    if (!e && count) e = neap_resp_int(b, count);
    g->w = wait_ref(w);
    if (!e)
        e = neap_redis_send(
            cl->r,
            &(neap_redis_req){.bytes = b->data, .len = b->len, .count = 1, .flags = NEAP_REDIS_RETRY, .sink = &g->c.sink, .cb = on_columns, .ud = g});
    if (e) {
        free_reading(g);
        return redis_cannot_start(L, w, "redis.columns", e, cl->r);
    }
    return wait_park(L, w, columns_read);
}
