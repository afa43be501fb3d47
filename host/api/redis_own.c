/* redis_own.c: the private redis-server for Lua: core.own{...} starts or joins it and returns a handle; the handle's close (also the runtime's end)
 * leaves it. */
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"
#include "host/redis_server.h"

#define OWN_META "neap.redis.server"

typedef struct own {
    neap_redis_server *s;
    rt *R;
    rt_wait *starting; /* waits for on_up */
    int handlers;      /* registry reference to {log = fn(level, line)}, or LUA_NOREF */
} own;

static void at_close(void *ud);

static void shut(own *o) {
    neap_redis_server *s = o->s;
    if (!s) return;
    o->s = NULL;
    rt_off_close(o->R, at_close, o);
    neap_redis_server_close(s);
    rt_wait *w = o->starting; /* on_up will not come any more */
    o->starting = NULL;
    if (w) wait_done(w, NEAP_ERR_CLOSED, NULL, NULL);
}

static void at_close(void *ud) { shut(ud); }

static int own_close(lua_State *L) {
    own *o = luaL_checkudata(L, 1, OWN_META);
    shut(o);
    luaL_unref(L, LUA_REGISTRYINDEX, o->handlers);
    o->handlers = LUA_NOREF;
    return 0;
}

static void on_log(void *ud, int level, const char *line) {
    own *o = ud;
    redis_notify(o->R, o->handlers, "log", level ? "warn" : "info", line);
}

static void on_up(void *ud, int status, const char *text) {
    own *o = ud;
    rt_wait *w = o->starting;
    o->starting = NULL;
    wait_done(w, status, strdup(text), free);
}

static int up(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) {
        rt_error e = {w->status == NEAP_ERR_FULL ? "in_use" : neap_err_kind(w->status), 0, 0, 0};
        shut(lua_touserdata(L, 2));
        return err_raise(L, &e, "%s", w->result ? (const char *)w->result : "out of memory");
    }
    lua_pushvalue(L, 2);
    return 1;
}

/* own{dir=, serve=, fsync=, redis_exe=, log=fn}: the handle, once the server answers. Waits. */
int redis_l_own(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    own *o = lua_newuserdatauv(L, sizeof *o, 0); /* 2 */
    *o = (own){.R = rt_of(L), .handlers = LUA_NOREF};
    luaL_setmetatable(L, OWN_META);
    lua_getfield(L, 1, "dir"); /* 3 */
    lua_getfield(L, 1, "fsync");
    lua_getfield(L, 1, "redis_exe");
    lua_getfield(L, 1, "serve");
    lua_pushvalue(L, 1);
    o->handlers = luaL_ref(L, LUA_REGISTRYINDEX);
    neap_redis_server_opts opts = {.dir = luaL_checkstring(L, 3),
                                   .fsync = luaL_optstring(L, 4, NULL),
                                   .redis_exe = luaL_optstring(L, 5, NULL),
                                   .serve = lua_toboolean(L, 6),
                                   .on_log = on_log,
                                   .ud = o,
                                   /* embedded in another program the guard is a fork: that program's file knows nothing of it */
                                   .guard_exe = rt_is_library(o->R) ? NULL : "/proc/self/exe"};
    rt_wait *w = wait_new(L, "redis: starting its own server", 40);
    int e = neap_redis_server_open(rt_loop(o->R), &opts, on_up, o, &o->s);
    if (!e) o->starting = wait_ref(w);
    if (!e && rt_at_close(o->R, at_close, o)) e = NEAP_ERR_MEMORY;
    if (e) {
        shut(o);
        return err_code(L, e, "redis: cannot start its own server");
    }
    return wait_park(L, w, up);
}

static int own_socket(lua_State *L) {
    own *o = luaL_checkudata(L, 1, OWN_META);
    lua_pushstring(L, o->s ? neap_redis_server_socket(o->s) : "");
    lua_pushboolean(L, o->s && neap_redis_server_joined(o->s));
    return 2;
}

static int own_check(lua_State *L) {
    own *o = luaL_checkudata(L, 1, OWN_META);
    if (o->s) neap_redis_server_check(o->s);
    return 0;
}

static const luaL_Reg own_methods[] = {{"close", own_close}, {"socket", own_socket}, {"check", own_check}, {NULL, NULL}};

void redis_own_meta(lua_State *L) {
    luaL_newmetatable(L, OWN_META);
    lua_pushcfunction(L, own_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, own_close);
    lua_setfield(L, -2, "__close");
    luaL_newlib(L, own_methods);
    lua_setfield(L, -2, "__index");
}
