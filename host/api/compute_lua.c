/* compute_lua.c: the compute pool of a state, made at first use. Its async handle wakes the loop, and keeps it alive while jobs are under way. */
#include "host/api/compute_lua.h"
#include <stdlib.h>
#include <unistd.h>

int compute_cores(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 64 ? 64 : (int)n;
}

static const char pool_key = 0;

typedef struct pool_ud {
    neap_compute *pool;
    uv_async_t async;
    int pending;
} pool_ud;

static void pool_wake(void *ud) { uv_async_send(&((pool_ud *)ud)->async); }

static void pool_async(uv_async_t *async) {
    pool_ud *u = async->data;
    u->pending -= neap_compute_drain(u->pool);
    if (u->pending == 0) uv_unref((uv_handle_t *)async);
}

static void pool_freed(uv_handle_t *async) { free(async->data); }

static void pool_close(void *ud) {
    pool_ud *u = ud;
    neap_compute_close(u->pool);
    uv_close((uv_handle_t *)&u->async, pool_freed);
}

static pool_ud *pool_of(lua_State *L) {
    rt *R = rt_of(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
    pool_ud *u = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (u) return u;
    u = calloc(1, sizeof *u);
    if (u) u->pool = neap_compute_new(compute_cores(), pool_wake, u);
    if (!u || !u->pool || rt_at_close(R, pool_close, u)) {
        if (u && u->pool) neap_compute_close(u->pool);
        free(u);
        err_code(L, NEAP_ERR_MEMORY, "compute threads");
        return NULL;
    }
    uv_async_init(rt_loop(R), &u->async, pool_async);
    u->async.data = u;
    uv_unref((uv_handle_t *)&u->async);
    lua_pushlightuserdata(L, u);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
    return u;
}

int compute_submit(lua_State *L, neap_compute_job *job) {
    pool_ud *u = pool_of(L);
    int rc = neap_compute_submit(u->pool, job);
    if (!rc && u->pending++ == 0) uv_ref((uv_handle_t *)&u->async);
    return rc;
}
