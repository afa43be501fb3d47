/* mod_http.c: neap.http.core: apps, servers, apps without a socket. The options, defaults and messages are in lua/neap/http.lua; how a request
   becomes a task is in http_task_lua.c. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/resource.h>
#include <fcntl.h>
#include "host/api/http_lua.h"

int luaopen_neap_http_core(lua_State *L);

/* ---- apps -------------------------------------------------------------------------------------------------------------------- */

static int app_gc(lua_State *L) {
    http_app *a = luaL_checkudata(L, 1, HTTP_APP);
    neap_http_router_free(a->router);
    a->router = NULL;
    free(a->limits);
    a->limits = NULL;
    return 0;
}

/* core.app(max_body) */
static int core_app(lua_State *L) {
    lua_Integer max = luaL_checkinteger(L, 1);
    http_app *a = lua_newuserdatauv(L, sizeof *a, 2);
    memset(a, 0, sizeof *a);
    luaL_setmetatable(L, HTTP_APP);
    a->R = rt_of(L);
    a->max_body = (size_t)max;
    a->cb = lua_newthread(L);
    lua_setiuservalue(L, -2, 2);
    http_task_init(L, a);
    if (!(a->router = neap_http_router_new())) return luaL_error(L, "not enough memory");
    return 1;
}

/* app:add(method, pattern, id [, max_body, timeout]) */
static int app_add(lua_State *L) {
    http_app *a = luaL_checkudata(L, 1, HTTP_APP);
    const char *method = luaL_checkstring(L, 2), *pattern = luaL_checkstring(L, 3);
    int id = (int)luaL_checkinteger(L, 4);
    size_t max_body = (size_t)luaL_optinteger(L, 5, 0);
    lua_Number timeout = luaL_optnumber(L, 6, 0);
    char err[256] = "";
    luaL_argcheck(L, id > 0 && id < 1 << 20, 4, "not a route id");
    if (neap_http_router_add(a->router, method, pattern, id, err, sizeof err)) return luaL_error(L, "%s", err[0] ? err : "not enough memory");
    if (max_body || timeout != 0) {
        if (id >= a->nlimits) {
            int n = id + 16;
            struct http_limit *p = realloc(a->limits, (size_t)n * sizeof *p);
            if (!p) return luaL_error(L, "not enough memory");
            memset(p + a->nlimits, 0, (size_t)(n - a->nlimits) * sizeof *p);
            a->limits = p;
            a->nlimits = n;
        }
        a->limits[id] = (struct http_limit){max_body, timeout < 0 ? -1 : (int)(timeout * 1000)};
    }
    return 0;
}

/* app:set(handlers): {[id] = fn, [0] = fn or nil, failed = fn} */
static int app_set(lua_State *L) {
    http_app *a = luaL_checkudata(L, 1, HTTP_APP);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    a->fallback = lua_rawgeti(L, 2, 0) == LUA_TFUNCTION;
    lua_pop(L, 1);
    a->ready = 1;
    lua_setiuservalue(L, 1, 1);
    return 0;
}

/* ---- servers ------------------------------------------------------------------------------------------------------------------------ */

typedef struct server {
    neap_http *http;
    rt *R;
    rt_wait *drain;
    int port;
} server;

static int turn(void *ud) { return neap_http_turn(((server *)ud)->http); }

static void server_stop(server *s) {
    if (!s->http) return;
    neap_http *h = s->http;
    s->http = NULL;
    rt_off_turn(s->R, turn, s);
    neap_http_close(h);
    if (s->drain) {
        rt_wait *w = s->drain;
        s->drain = NULL;
        wait_done(w, 0, NULL, NULL);
    }
}

static void at_close(void *ud) { server_stop(ud); }

static int server_close(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    if (!s->http) return 0;
    server_stop(s);
    rt_off_close(s->R, at_close, s);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, s);
    return 0;
}

static size_t size_field(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    lua_Number v = luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    return v > 0 ? (size_t)v : 0;
}

static unsigned ms_field(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    lua_Number v = luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    return v > 0 ? (unsigned)(v * 1000) + (v < 0.001) : 0;
}

static const char *text_field(lua_State *L, const char *name) { /* stays alive: the options table is on the stack */
    lua_getfield(L, 2, name);
    const char *p = lua_isnil(L, -1) ? NULL : luaL_checkstring(L, -1);
    lua_pop(L, 1);
    return p;
}

/* A thousand clients need as many descriptors; the usual soft limit is 1,024. Only in a program of our own: a limit belongs to the process. */
static void raise_limit(rt *R) {
    struct rlimit rl;
    if (rt_is_library(R) || getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= rl.rlim_max || rl.rlim_cur >= 65536) return;
    rl.rlim_cur = rl.rlim_max < 65536 ? rl.rlim_max : 65536;
    setrlimit(RLIMIT_NOFILE, &rl);
}

/* core.listen(app, options): host, port, backlog, share = "first" | "join" | nil, fd, cert, key (PEM), limits (see http.lua). Raises {kind="io"} or
   {kind="invalid"} with a sentence. */
static int core_listen(lua_State *L) {
    http_app *a = luaL_checkudata(L, 1, HTTP_APP);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, a->ready, 1, "the app has no handlers yet");
    neap_http_config c = {.listen_fd = -1};
    const char *host = text_field(L, "host"), *share = text_field(L, "share");
    int port = (int)size_field(L, "port"), backlog = (int)size_field(L, "backlog"), fd = (int)size_field(L, "fd");
    c.max_head = size_field(L, "max_head");
    c.max_body = size_field(L, "max_body");
    c.max_bodies = size_field(L, "max_bodies");
    c.max_connections = (unsigned)size_field(L, "max_connections");
    c.max_per_ip = (unsigned)size_field(L, "max_per_ip");
    c.head_ms = ms_field(L, "head_timeout");
    c.body_ms = ms_field(L, "body_timeout");
    c.handler_ms = ms_field(L, "timeout");
    c.idle_ms = ms_field(L, "idle_timeout");
    c.write_ms = ms_field(L, "write_timeout");
    c.tls_cert = text_field(L, "cert");
    c.tls_key = text_field(L, "key");
    c.app = (neap_http_app){http_dispatch, http_gone, http_head, a};
    char err[300] = "";
    server *s = lua_newuserdatauv(L, sizeof *s, 1);
    memset(s, 0, sizeof *s);
    luaL_setmetatable(L, HTTP_SERVER);
    s->R = rt_of(L);
    raise_limit(s->R);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, s); /* a server lives until it is closed */
    int e = 0;
    if (fd) e = (c.listen_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0 ? NEAP_ERR_IO : 0;
    else if (share && !strcmp(share, "join")) e = neap_http_listen_join(host ? host : "127.0.0.1", port, backlog, &c.listen_fd, err, sizeof err);
    else e = neap_http_listen(host ? host : "127.0.0.1", &port, backlog, share != NULL, &c.listen_fd, err, sizeof err);
    if (!e) e = neap_http_open(rt_loop(s->R), &c, &s->http, err, sizeof err);
    if (!e && rt_on_turn(s->R, turn, s)) e = NEAP_ERR_MEMORY;
    if (!e && rt_at_close(s->R, at_close, s)) e = NEAP_ERR_MEMORY;
    if (e) {
        server_stop(s);
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, s);
        return err_raise(L, &(rt_error){neap_err_kind(e), 0, -1, 0}, "http: %s", err[0] ? err : neap_err_kind(e));
    }
    return 1;
}

/* core.sockets(host, port, n) -> {fd, ...}, port: n sockets of one port, for n workers' listen{fd=}. Whoever asked keeps them, so that a worker can
   be replaced without a connection lost, and closes them with core.close. */
static int core_sockets(lua_State *L) {
    const char *host = luaL_checkstring(L, 1);
    int port = (int)luaL_checkinteger(L, 2), n = (int)luaL_checkinteger(L, 3);
    luaL_argcheck(L, n >= 1 && n <= 256, 3, "1 to 256 sockets");
    lua_createtable(L, n, 0);
    for (int i = 1; i <= n; i++) {
        char err[300] = "";
        int fd = -1,
            e = i == 1 ? neap_http_listen(host, &port, 0, n > 1, &fd, err, sizeof err) : neap_http_listen_join(host, port, 0, &fd, err, sizeof err);
        if (e) {
            for (int k = 1; k < i; k++) {
                lua_rawgeti(L, -1, k);
                close((int)lua_tointeger(L, -1));
                lua_pop(L, 1);
            }
            return err_raise(L, &(rt_error){neap_err_kind(e), 0, -1, 0}, "http: %s", err[0] ? err : neap_err_kind(e));
        }
        lua_pushinteger(L, fd);
        lua_rawseti(L, -2, i);
    }
    lua_pushinteger(L, port);
    return 2;
}

static int core_close(lua_State *L) { /* core.close(fd) */
    close((int)luaL_checkinteger(L, 1));
    return 0;
}

static int server_port(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    lua_pushinteger(L, s->http ? s->port = neap_http_port(s->http) : s->port);
    return 1;
}

/* server:swap(core app): requests that are complete from now on go to it; those under way end with the app they have. */
static int server_swap(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    http_app *a = luaL_checkudata(L, 2, HTTP_APP);
    luaL_argcheck(L, a->ready, 2, "the app has no handlers yet");
    if (!s->http) return luaL_error(L, "the server is closed");
    neap_http_swap(s->http, &(neap_http_app){http_dispatch, http_gone, http_head, a});
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 1, 1); /* what is under way keeps the old one through its request */
    return 0;
}

static int server_fd(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    lua_pushinteger(L, s->http ? neap_http_listen_fd(s->http) : -1);
    return 1;
}

static void on_drained(neap_http *h, void *ud) {
    server *s = ud;
    rt_wait *w = s->drain;
    s->drain = NULL;
    if (w) wait_done(w, 0, NULL, NULL);
}

static int drained(lua_State *L, int status, lua_KContext ctx) {
    lua_settop(L, 1);
    return server_close(L);
}

/* server:close([seconds]), also called drain: stops accepting, waits so long for what is under way (0: does not wait), closes. Many times is fine. */
static int server_drain(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    lua_Number seconds = luaL_optnumber(L, 2, 0);
    if (!s->http || s->drain) return 0;
    if (seconds <= 0) return server_close(L);
    rt_wait *w = wait_new(L, "http.drain", seconds + 5);
    w->quiet_deadline = 1;
    s->drain = wait_ref(w);
    neap_http_drain(s->http, (unsigned)(seconds * 1000), on_drained, s);
    return wait_park(L, w, drained);
}

static int server_stats(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    if (!s->http) return 0;
    neap_http_stats t;
    neap_http_get_stats(s->http, &t);
    const struct {
        const char *name;
        uint64_t v;
    } f[] = {{"connections", t.connections},
             {"requests", t.requests},
             {"answered", t.answered},
             {"refused_bad", t.refused_bad},
             {"refused_big", t.refused_big},
             {"refused_full", t.refused_full},
             {"waits", t.waits},
             {"timeouts", t.timeouts},
             {"gone", t.gone},
             {"bytes_in", t.bytes_in},
             {"bytes_out", t.bytes_out},
             {"open", t.open},
             {"in_flight", t.in_flight},
             {"body_bytes", t.body_bytes}};
    lua_createtable(L, 0, (int)(sizeof f / sizeof *f));
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        lua_pushinteger(L, (lua_Integer)f[i].v);
        lua_setfield(L, -2, f[i].name);
    }
    return 1;
}

/* server:answers() -> {["200"] = n, ..}: how many answers had each status */
static int server_answers(lua_State *L) {
    server *s = luaL_checkudata(L, 1, HTTP_SERVER);
    lua_newtable(L);
    for (int status = 100; s->http && status < 600; status++) {
        uint64_t n = neap_http_answers(s->http, status);
        if (!n) continue;
        lua_pushfstring(L, "%d", status);
        lua_pushinteger(L, (lua_Integer)n);
        lua_rawset(L, -3);
    }
    return 1;
}

/* ---- an app without a socket ----------------------------------------------------------------------------------------------------------- */

static void fake_drop(void *r) { neap_http_unref(r); }

static void fake_answered(neap_http_req *r, void *ud) { wait_done(ud, 0, neap_http_ref(r), fake_drop); }

static int tested(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    neap_http_req *r = w->result;
    const char *body, *name, *value;
    size_t n;
    lua_pushinteger(L, neap_http_fake_answer(r, &body, &n));
    lua_pushlstring(L, body, n);
    lua_newtable(L);
    for (int i = 0; neap_http_fake_header(r, i, &name, &value); i++) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, name);
    }
    return 3;
}

/* core.test(app, method, target, {name, value, ...}, body, timeout) -> status, body, headers */
static int core_test(lua_State *L) {
    http_app *a = luaL_checkudata(L, 1, HTTP_APP);
    const char *method = luaL_checkstring(L, 2), *target = luaL_checkstring(L, 3);
    luaL_checktype(L, 4, LUA_TTABLE);
    size_t len;
    const char *body = luaL_optlstring(L, 5, "", &len);
    neap_http_header_kv h[64];
    int nh = (int)(lua_rawlen(L, 4) / 2);
    luaL_argcheck(L, nh <= 64, 4, "at most 64 headers");
    for (int i = 0; i < nh; i++) {
        lua_rawgeti(L, 4, 2 * i + 1);
        h[i].name = luaL_checkstring(L, -1);
        lua_rawgeti(L, 4, 2 * i + 2);
        h[i].value = luaL_checkstring(L, -1);
        lua_pop(L, 2);
    }
    rt_wait *w = wait_new(L, "app:test", luaL_optnumber(L, 6, 30));
    char err[200];
    neap_http_req *r = neap_http_fake(method, target, h, nh, body, len, fake_answered, wait_ref(w), err, sizeof err);
    if (!r) {
        wait_unref(w);
        return err_raise(L, &(rt_error){"invalid", 0, -1, 0}, "app:test: the server would refuse this request with 400: %s", err);
    }
    http_dispatch(r, a);
    neap_http_unref(r);
    return wait_park(L, w, tested);
}

/* ---- the module --------------------------------------------------------------------------------------------------------------------------- */

static int core_equal(lua_State *L) {
    size_t n, m;
    const char *a = luaL_checklstring(L, 1, &n), *b = luaL_checklstring(L, 2, &m);
    lua_pushboolean(L, neap_http_equal(a, n, b, m));
    return 1;
}

static int core_reason(lua_State *L) {
    lua_pushstring(L, neap_http_reason((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int core_code(lua_State *L) {
    lua_pushstring(L, neap_http_code((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int core_type(lua_State *L) {
    lua_pushstring(L, neap_http_type(luaL_checkstring(L, 1)));
    return 1;
}

/* core.bind(name, value): what the C half calls in Lua: "raise", "response" (a metatable) */
static int core_bind(lua_State *L) {
    lua_pushfstring(L, "neap.http.%s", luaL_checkstring(L, 1));
    lua_pushvalue(L, 2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

static const luaL_Reg functions[] = {{"app", core_app},         {"listen", core_listen}, {"test", core_test},         {"equal", core_equal},
                                     {"reason", core_reason},   {"code", core_code},     {"bind", core_bind},         {"type", core_type},
                                     {"sockets", core_sockets}, {"close", core_close},   {"caller", http_req_caller}, {NULL, NULL}};
static const luaL_Reg app_methods[] = {{"add", app_add}, {"set", app_set}, {"__gc", app_gc}, {NULL, NULL}};
static const luaL_Reg server_methods[] = {{"port", server_port},   {"fd", server_fd},         {"swap", server_swap},
                                          {"drain", server_drain}, {"stats", server_stats},   {"answers", server_answers},
                                          {"close", server_drain}, {"__close", server_close}, {NULL, NULL}};

static void class(lua_State *L, const char *name, const luaL_Reg *methods) {
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_neap_http_core(lua_State *L) {
    class(L, HTTP_APP, app_methods);
    class(L, HTTP_SERVER, server_methods);
    luaL_newlib(L, functions);
    http_req_meta(L);
    lua_setfield(L, -2, "request");
    http_stream_meta(L);
    lua_setfield(L, -2, "stream");
    return 1;
}
