/* mod_fetch.c: neap.http.client_core: the HTTP client's waits. Options and answers' methods are in lua/neap/http_client.lua. One client (one pool of
   connections) a Lua state, made at the first request. */
#include <stdlib.h>
#include <string.h>
#include "host/api/rt.h"
#include "host/fetch.h"

#define CLIENT "neap.http.client"

int luaopen_neap_http_client_core(lua_State *L);

typedef struct client {
    neap_fetch *f;
    int closed;
} client;

static void at_close(void *ud) {
    client *c = ud;
    c->closed = 1;
    neap_fetch_free(c->f);
    c->f = NULL;
}

/* The state's one client; made by the first request, and by the next if that could not. */
static client *client_of(lua_State *L) {
    if (lua_getfield(L, LUA_REGISTRYINDEX, CLIENT) != LUA_TUSERDATA) {
        lua_pop(L, 1);
        memset(lua_newuserdatauv(L, sizeof(client), 0), 0, sizeof(client));
        lua_pushvalue(L, -1);
        lua_setfield(L, LUA_REGISTRYINDEX, CLIENT);
    }
    client *c = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (c->f || c->closed) return c;
    rt *R = rt_of(L);
    if ((c->f = neap_fetch_new(rt_loop(R))) && rt_at_close(R, at_close, c)) {
        neap_fetch_free(c->f);
        c->f = NULL;
    }
    if (!c->f) luaL_error(L, "the HTTP client cannot start: libcurl.so.4 is missing (Debian: apt-get install libcurl4), or memory is");
    return c;
}

typedef struct outcome {
    int err;
    neap_fetch_result res;
} outcome;

static void outcome_free(void *p) {
    outcome *o = p;
    buf_free(&o->res.head);
    buf_free(&o->res.body);
    free(o);
}

static void on_result(int err, neap_fetch_result *res, void *ud) {
    rt_wait *w = ud;
    w->op = NULL;
    outcome *o = malloc(sizeof *o);
    if (!o) {
        wait_done(w, NEAP_ERR_MEMORY, NULL, NULL);
        return;
    }
    o->err = err;
    o->res = *res;
    memset(&res->head, 0, sizeof res->head);
    memset(&res->body, 0, sizeof res->body);
    wait_done(w, 0, o, outcome_free);
}

static void left(rt_wait *w, void *op) {
    neap_fetch_cancel(op);
    wait_unref(w);
}

/* status, body, head, url, seconds */
static int answered(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    outcome *o = w->result;
    if (o->err) {
        rt_error e = {neap_err_kind(o->err), o->err == NEAP_ERR_TIMEOUT || o->err == NEAP_ERR_CONNECTION, o->res.sent, 0};
        return err_raise(L, &e, "http.request %s %s: %s", lua_tostring(L, 1), lua_tostring(L, 2), o->res.message);
    }
    lua_pushinteger(L, o->res.status);
    lua_pushlstring(L, o->res.body.data ? o->res.body.data : "", o->res.body.len);
    lua_pushlstring(L, o->res.head.data ? o->res.head.data : "", o->res.head.len);
    lua_pushstring(L, o->res.url);
    lua_pushnumber(L, o->res.seconds);
    return 5;
}

/* request(method, url, body | nil, {"Name: value", ...}, timeout, connect_timeout, max_body, follow, insecure, ca | nil, unix | nil) */
static int request(lua_State *L) {
    neap_fetch_request q = {.method = luaL_checkstring(L, 1), .url = luaL_checkstring(L, 2)};
    q.body = luaL_optlstring(L, 3, NULL, &q.body_len);
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_Number timeout = luaL_checknumber(L, 5), connect = luaL_checknumber(L, 6);
    q.max_body = (size_t)luaL_checkinteger(L, 7);
    q.follow = (int)luaL_checkinteger(L, 8);
    q.insecure = lua_toboolean(L, 9);
    q.ca_file = luaL_optstring(L, 10, NULL);
    q.unix_path = luaL_optstring(L, 11, NULL);
    q.timeout_ms = (long)(timeout * 1000) + 1;
    q.connect_ms = (long)(connect * 1000) + 1;
    const char *lines[64];
    q.headers = lines;
    q.nheaders = (int)lua_rawlen(L, 4);
    luaL_argcheck(L, q.nheaders <= 64, 4, "at most 64 headers");
    for (int i = 0; i < q.nheaders; i++) {
        lua_rawgeti(L, 4, i + 1);
        lines[i] = luaL_checkstring(L, -1);
        lua_pop(L, 1); /* stays in the table */
    }
    client *c = client_of(L);
    rt_wait *w = wait_new(L, "http.request", timeout + 5); /* curl keeps the time; this is for a loop that is stuck */
    neap_fetch_op *op;
    int e = c->f ? neap_fetch_start(c->f, &q, on_result, wait_ref(w), &op) : NEAP_ERR_CLOSED;
    if (e) {
        if (c->f) wait_unref(w);
        return err_code(L, e, "http.request %s: cannot start", q.url);
    }
    w->op = op;
    w->cancel = left;
    return wait_park(L, w, answered);
}

int luaopen_neap_http_client_core(lua_State *L) {
    static const luaL_Reg functions[] = {{"request", request}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
