/* mod_ratelimit.c: `neap.ratelimit.core`: the table behind lua/neap/ratelimit.lua. */
#include "host/api/rt.h"
#include "host/err.h"
#include "host/ratelimit.h"

int luaopen_neap_ratelimit_core(lua_State *L);

#define TABLE "neap.ratelimit.table"

static int table_m_take(lua_State *L) { /* table, key, now, interval, slack -> true | false, seconds to wait */
    neap_ratelimit **t = luaL_checkudata(L, 1, TABLE);
    size_t n;
    const char *key = luaL_checklstring(L, 2, &n);
    double now = luaL_checknumber(L, 3), interval = luaL_checknumber(L, 4), slack = luaL_checknumber(L, 5);
    luaL_argcheck(L, *t, 1, "closed");
    double wait = neap_ratelimit_take(*t, key, n, now, interval, slack);
    lua_pushboolean(L, wait == 0);
    if (wait == 0) return 1;
    lua_pushnumber(L, wait);
    return 2;
}

static int table_gc(lua_State *L) {
    neap_ratelimit **t = luaL_checkudata(L, 1, TABLE);
    neap_ratelimit_close(*t);
    *t = NULL;
    return 0;
}

static int open_table(lua_State *L) { /* name or nil, keys -> table */
    const char *name = luaL_optstring(L, 1, NULL);
    lua_Integer keys = luaL_checkinteger(L, 2);
    luaL_argcheck(L, keys >= 1 && keys <= 1 << 24, 2, "from 1 to 16777216 keys");
    neap_ratelimit **t = lua_newuserdatauv(L, sizeof *t, 0);
    *t = NULL;
    luaL_setmetatable(L, TABLE);
    if (neap_ratelimit_open(name, (size_t)keys, t)) return luaL_error(L, "out of memory for %d keys", (int)keys);
    return 1;
}

int luaopen_neap_ratelimit_core(lua_State *L) {
    static const luaL_Reg methods[] = {{"take", table_m_take}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", table_gc}, {"__close", table_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", open_table}, {NULL, NULL}};
    if (luaL_newmetatable(L, TABLE)) {
        luaL_setfuncs(L, meta, 0);
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
    }
    luaL_newlib(L, functions);
    return 1;
}
