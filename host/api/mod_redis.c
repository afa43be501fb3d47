/* mod_redis.c: neap.redis.core, the C half of lua/neap/redis.lua: clients and what is not a command. Options, defaults, command tables and iterators
   are Lua. A client's uv handles outlive its userdata until libuv has closed them; the core sees to that. */
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"

int luaopen_neap_redis_core(lua_State *L);

static int on_turn(void *ud) {
    redis_client *c = ud;
    return c->r && neap_redis_turn(c->r);
}

static void at_close(void *ud) { redis_client_shut(ud); }

void redis_client_shut(redis_client *c) {
    neap_redis *r = c->r;
    if (!r) return;
    c->r = NULL;
    rt_off_turn(c->R, on_turn, c);
    rt_off_close(c->R, at_close, c);
    if (c->hub) redis_hub_close(c->hub);
    c->hub = NULL;
    neap_redis_close(r);
    buf_free(&c->scratch);
}

/* ---- telling scripts ------------------------------------------------------------------------------------------------ */
struct note {
    int ref;
    const char *name, *a, *b;
};

static int notify(lua_State *L) {
    struct note *n = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, n->ref);
    if (!lua_istable(L, -1) || lua_getfield(L, -1, n->name) != LUA_TFUNCTION) return 0;
    lua_pushstring(L, n->a);
    lua_pushstring(L, n->b);
    task_start(rt_of(L), L, 2, n->name, NULL, NULL);
    return 0;
}

void redis_notify(rt *R, int ref, const char *name, const char *a, const char *b) {
    lua_State *L = rt_main(R);
    struct note n = {ref, name, a, b};
    if (ref == LUA_NOREF || !lua_checkstack(L, 4)) return;
    lua_pushcfunction(L, notify);
    lua_pushlightuserdata(L, &n);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1); /* out of memory */
}

static void on_state(void *ud, enum neap_redis_state state, const char *message) {
    redis_client *c = ud;
    if (!c->r) return;
    if (state == NEAP_REDIS_READY) {
        if (c->was_ready) redis_notify(c->R, c->handlers, "reconnect", "", NULL);
        c->was_ready = 1;
    } else if (state != NEAP_REDIS_CONNECTING) {
        redis_notify(c->R, c->handlers, "disconnect", message, NULL);
    }
}

/* ---- clients -------------------------------------------------------------------------------------------------------- */
redis_client *redis_check_client(lua_State *L, int idx) {
    redis_client *c = luaL_checkudata(L, idx, REDIS_CLIENT);
    if (!c->r) err_code(L, NEAP_ERR_CLOSED, "redis: the client is closed");
    return c;
}

static int client_close(lua_State *L) {
    redis_client *c = luaL_checkudata(L, 1, REDIS_CLIENT);
    redis_client_shut(c);
    luaL_unref(L, LUA_REGISTRYINDEX, c->handlers);
    c->handlers = LUA_NOREF;
    return 0;
}

static int client_tostring(lua_State *L) {
    redis_client *c = luaL_checkudata(L, 1, REDIS_CLIENT);
    char at[200];
    if (c->r) lua_pushfstring(L, "redis client (%s)", neap_redis_addr_text(neap_redis_address(c->r), at, sizeof at));
    else lua_pushliteral(L, "redis client (closed)");
    return 1;
}

/* open(url, {name=, timeout=, connect_timeout=, max_queue=, dedicated=, user=, password=, db=}): redis.lua has checked the names. No I/O. */
static int l_open(lua_State *L) {
    const char *url = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    static const char *const fields[] = {"name", "user", "password", "timeout", "connect_timeout", "max_queue", "db", "dedicated"};
    for (int i = 0; i < 8; i++) lua_getfield(L, 2, fields[i]); /* 3 .. 10 */
    const char *name = luaL_optstring(L, 3, NULL), *user = luaL_optstring(L, 4, NULL), *password = luaL_optstring(L, 5, NULL);
    double timeout = luaL_optnumber(L, 6, 5), connect_s = luaL_optnumber(L, 7, 5);
    lua_Integer max_queue = luaL_optinteger(L, 8, 0), db = luaL_optinteger(L, 9, -1);
    if (!(timeout > 0 && timeout < 4e6 && connect_s > 0 && connect_s < 4e6))
        return luaL_error(L, "redis.connect: a time limit is a number of seconds above zero");
    redis_client *c = lua_newuserdatauv(L, sizeof *c, 0);
    memset(c, 0, sizeof *c);
    c->handlers = LUA_NOREF;
    luaL_setmetatable(L, REDIS_CLIENT);
    c->R = rt_of(L);
    c->timeout = timeout;
    c->dedicated = lua_toboolean(L, 10);
    neap_redis_opts o = {.name = name,
                         .timeout_ms = (uint32_t)(timeout * 1e3) + 1,
                         .connect_ms = (uint32_t)(connect_s * 1e3) + 1,
                         .max_queue = (uint32_t)max_queue,
                         .once = c->dedicated,
                         .on_state = on_state,
                         .ud = c};
    char wrong[256];
    int e = neap_redis_addr_parse(url, &o.addr, wrong, sizeof wrong);
    if (e) return err_code(L, e, "redis.connect: %s", *wrong ? wrong : "out of memory");
    if (db >= 0) o.addr.db = (int)db;
    if (user && !o.addr.user) o.addr.user = strdup(user);
    if (password && !o.addr.password) o.addr.password = strdup(password);
    e = neap_redis_open(rt_loop(c->R), &o, &c->r);
    neap_redis_addr_free(&o.addr);
    if (!e && (rt_on_turn(c->R, on_turn, c) || rt_at_close(c->R, at_close, c))) {
        redis_client_shut(c);
        e = NEAP_ERR_MEMORY;
    }
    if (e) return err_code(L, e, "redis.connect: cannot open a client");
    return 1;
}

/* state(client) -> "idle"|"connecting"|"ready"|"waiting"|"closed", last error */
static int l_state(lua_State *L) {
    static const char *const names[] = {"idle", "connecting", "ready", "waiting", "closed"};
    redis_client *c = luaL_checkudata(L, 1, REDIS_CLIENT);
    lua_pushstring(L, c->r ? names[neap_redis_state(c->r)] : "closed");
    lua_pushstring(L, c->r ? neap_redis_last_error(c->r) : "");
    return 2;
}

static int l_stats(lua_State *L) {
    redis_client *c = redis_check_client(L, 1);
    neap_redis_stats s;
    neap_redis_get_stats(c->r, &s);
    const struct {
        const char *name;
        uint64_t v;
    } all[] = {{"commands", s.commands}, {"replies", s.replies},     {"errors", s.errors}, {"retries", s.retries},    {"connects", s.connects},
               {"timeouts", s.timeouts}, {"bytes_out", s.bytes_out}, {"queued", s.queued}, {"in_flight", s.in_flight}};
    lua_createtable(L, 0, 9);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        lua_pushinteger(L, (lua_Integer)all[i].v);
        lua_setfield(L, -2, all[i].name);
    }
    return 1;
}

/* handlers(client, table): {reconnect = fn, disconnect = fn}, run as tasks */
static int l_handlers(lua_State *L) {
    redis_client *c = redis_check_client(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    luaL_unref(L, LUA_REGISTRYINDEX, c->handlers);
    c->handlers = LUA_NOREF;
    c->handlers = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* address(url) -> path or nil, host, port, db, user: what an URL means; raises what is wrong with it. Never the password. */
static int l_address(lua_State *L) {
    neap_redis_addr a;
    char wrong[256];
    int e = neap_redis_addr_parse(luaL_checkstring(L, 1), &a, wrong, sizeof wrong);
    if (e) return err_code(L, e, "%s", wrong);
    lua_pushstring(L, a.path);
    lua_pushstring(L, a.host);
    lua_pushinteger(L, a.port);
    lua_pushinteger(L, a.db);
    lua_pushstring(L, a.user);
    neap_redis_addr_free(&a);
    return 5;
}

static int l_is_dedicated(lua_State *L) {
    redis_client *c = luaL_testudata(L, 1, REDIS_CLIENT);
    lua_pushboolean(L, !c || c->dedicated); /* what is no client fails with a better message later */
    return 1;
}

static int index_method(lua_State *L) {
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_insert(L, 1);
    lua_settop(L, 3);
    lua_call(L, 2, 1);
    return 1;
}

/* index(methods, fallback) -> __index: methods[name], or fallback(object, name) */
static int l_index(lua_State *L) {
    lua_settop(L, 2);
    lua_pushcclosure(L, index_method, 2);
    return 1;
}

static const luaL_Reg functions[] = {
    {"is_dedicated", l_is_dedicated},
    {"index", l_index},
    {"open", l_open},
    {"state", l_state},
    {"stats", l_stats},
    {"handlers", l_handlers},
    {"address", l_address},
    {"close", client_close},
    {"command", redis_l_command},
    {"on_default", redis_l_on_default},
    {"pipe", redis_l_pipe},
    {"run", redis_l_run},
    {"columns", redis_l_columns},
    {"subscribe", redis_l_subscribe},
    {"own", redis_l_own},
    {NULL, NULL},
};

static const luaL_Reg client_mt[] = {
    {"__gc", client_close},
    {"__close", client_close},
    {"__tostring", client_tostring},
    {NULL, NULL},
};

int luaopen_neap_redis_core(lua_State *L) {
    luaL_newlib(L, functions);
    luaL_newmetatable(L, REDIS_CLIENT);
    luaL_setfuncs(L, client_mt, 0);
    lua_setfield(L, -2, "client_meta"); /* redis.lua sets __index in these two */
    redis_pipe_meta(L);
    lua_setfield(L, -2, "pipe_meta");
    redis_sub_meta(L);
    lua_setfield(L, -2, "subscription_meta");
    redis_own_meta(L);
    lua_setfield(L, -2, "server_meta");
    return 1;
}
