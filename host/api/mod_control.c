/* mod_control.c: neap.control, the control socket for Lua. A server calls a function in a task of its own for each connection; both ends send and
   receive whole strings. neap.attach gives them meaning. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include "host/control.h"
#include "host/api/rt_internal.h"

#define CONN_META   "neap.control.conn"
#define SERVER_META "neap.control.server"

typedef struct conn {
    neap_conn *c;
    rt_wait *w; /* who waits for a message */
} conn;

typedef struct server {
    neap_control *s;
    rt *R;
    int fn, self;
} server;

/* ---- connections ------------------------------------------------------------------------------------------------------ */
static void on_event(neap_conn *c, void *ud) {
    conn *k = ud;
    rt_wait *w = k->w;
    k->w = NULL;
    if (w) wait_done(w, 0, NULL, NULL);
}

static int l_conn_close(lua_State *L) { /* close, __close, __gc */
    conn *k = luaL_checkudata(L, 1, CONN_META);
    if (k->c) neap_conn_close(k->c);
    k->c = NULL;
    if (k->w) wait_done(k->w, 0, NULL, NULL);
    k->w = NULL;
    return 0;
}

static conn *push_conn(lua_State *L) {
    conn *k = lua_newuserdatauv(L, sizeof *k, 0);
    memset(k, 0, sizeof *k);
    luaL_setmetatable(L, CONN_META);
    return k;
}

static int l_connect(lua_State *L) { /* connect(path) -> connection */
    const char *path = luaL_checkstring(L, 1);
    conn *k = push_conn(L);
    int err = neap_conn_open(rt_loop(rt_of(L)), path, &k->c);
    if (err == NEAP_ERR_AUTH) return err_code(L, err, "%s belongs to another user", path);
    if (err) return err_code(L, err, "nobody listens at %s", path);
    neap_conn_watch(k->c, on_event, k);
    return 1;
}

static void left(rt_wait *w, void *op) {
    conn *k = op;
    if (k->w != w) return;
    k->w = NULL;
    wait_unref(w);
}

static int l_recv(lua_State *L);
static int received(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status == NEAP_ERR_TIMEOUT) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (w->status) return wait_raise(L, w);
    lua_settop(L, 2);
    return l_recv(L);
}

static int l_recv(lua_State *L) { /* conn:recv([timeout]) -> text, nil when the other end has left, false when the time is over */
    conn *k = luaL_checkudata(L, 1, CONN_META);
    double timeout = luaL_optnumber(L, 2, -1);
    lua_settop(L, 2);
    const char *data;
    size_t n;
    int got = k->c ? neap_conn_next(k->c, &data, &n) : NEAP_ERR_CLOSED;
    if (got == 1) {
        lua_pushlstring(L, data, n);
        return 1;
    }
    if (got < 0) return 0;
    rt_wait *w = wait_new(L, "control:recv", timeout);
    if (k->w) return luaL_error(L, "control:recv: another task receives from this connection");
    w->quiet_deadline = 1;
    w->op = k;
    w->cancel = left;
    k->w = wait_ref(w);
    return wait_park(L, w, received);
}

static int l_send(lua_State *L) { /* conn:send(text) -> true, or false when the other end has left */
    conn *k = luaL_checkudata(L, 1, CONN_META);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);
    int err = k->c ? neap_conn_send(k->c, text, n) : NEAP_ERR_CLOSED;
    if (err && err != NEAP_ERR_CLOSED)
        return err_code(L, err, "control:send: %s", err == NEAP_ERR_FULL ? "the other end does not read" : "cannot send");
    lua_pushboolean(L, err == 0);
    return 1;
}

/* ---- the server ------------------------------------------------------------------------------------------------------- */
typedef struct arrival {
    server *s;
    neap_conn *c;
} arrival;

static int start_task(lua_State *L) { /* protected: fn(conn) as a task */
    arrival *a = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, a->s->fn);
    conn *k = push_conn(L);
    k->c = a->c;
    a->c = NULL;
    neap_conn_watch(k->c, on_event, k);
    task_start(a->s->R, L, 1, "control", NULL, NULL);
    return 0;
}

static void on_conn(neap_conn *c, void *ud) {
    arrival a = {ud, c};
    lua_State *L = a.s->R->L;
    if (!lua_checkstack(L, 3)) {
        neap_conn_close(c);
        return;
    }
    lua_pushcfunction(L, start_task);
    lua_pushlightuserdata(L, &a);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
    if (a.c) neap_conn_close(a.c);
}

static void at_close(void *ud) {
    server *s = ud;
    if (s->s) neap_control_close(s->s);
    s->s = NULL;
}

static int l_server_close(lua_State *L) {
    server *s = luaL_checkudata(L, 1, SERVER_META);
    if (!s->s) return 0;
    rt_off_close(s->R, at_close, s);
    at_close(s);
    luaL_unref(L, LUA_REGISTRYINDEX, s->fn);
    luaL_unref(L, LUA_REGISTRYINDEX, s->self);
    return 0;
}

static int l_listen(lua_State *L) { /* listen(path, fn) -> server; fn(conn) runs as a task for each connection. Keeps no loop alive. */
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    server *s = lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    luaL_setmetatable(L, SERVER_META);
    s->R = rt_of(L);
    int err = neap_control_listen(rt_loop(s->R), path, on_conn, s, &s->s);
    if (err == NEAP_ERR_FULL) return err_code(L, err, "%s is taken by a living process", path);
    if (err == NEAP_ERR_INVALID) return err_code(L, err, "the path of a control socket has at most 106 bytes: %s", path);
    if (err) return err_code(L, err, "cannot listen at %s", path);
    if (rt_at_close(s->R, at_close, s)) {
        at_close(s);
        return err_code(L, NEAP_ERR_MEMORY, "control.listen");
    }
    lua_pushvalue(L, 2);
    s->fn = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, -1);
    s->self = luaL_ref(L, LUA_REGISTRYINDEX); /* lives until it is closed */
    return 1;
}

/* ---- places ----------------------------------------------------------------------------------------------------------- */
static int l_dir(lua_State *L) { /* dir([make]) -> the directory of the sockets; nil where there is none and none is to be made */
    char path[256];
    int make = lua_toboolean(L, 1), err = neap_control_dir(path, sizeof path, make);
    if (err == NEAP_ERR_AUTH) return err_code(L, err, "%s must be a directory of ours that only we can enter (chmod 700)", path);
    if (err == NEAP_ERR_INVALID) return err_code(L, err, "XDG_RUNTIME_DIR is too long for a socket's path");
    if (err && make) return err_code(L, err, "cannot make %s", path);
    if (err) return 0;
    lua_pushstring(L, path);
    return 1;
}

static int l_list(lua_State *L) { /* list() -> sorted paths of the sockets there, living or not */
    char path[256];
    lua_newtable(L);
    if (neap_control_dir(path, sizeof path, 0)) return 1;
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort), found = 0;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]->d_name);
        if (len > 5 && len < 64 && !strcmp(names[i]->d_name + len - 5, ".sock")) {
            char file[400];
            snprintf(file, sizeof file, "%s/%.64s", path, names[i]->d_name);
            lua_pushstring(L, file);
            lua_rawseti(L, -2, ++found);
        }
        free(names[i]);
    }
    if (n >= 0) free(names);
    return 1;
}

int luaopen_neap_control(lua_State *L);
int luaopen_neap_control(lua_State *L) {
    static const luaL_Reg fns[] = {{"listen", l_listen}, {"connect", l_connect}, {"dir", l_dir}, {"list", l_list}, {NULL, NULL}};
    static const luaL_Reg conn_methods[] = {{"recv", l_recv}, {"send", l_send}, {"close", l_conn_close}, {NULL, NULL}};
    static const luaL_Reg server_methods[] = {{"close", l_server_close}, {NULL, NULL}};
    static const luaL_Reg conn_meta[] = {{"__gc", l_conn_close}, {"__close", l_conn_close}, {NULL, NULL}};
    luaL_newmetatable(L, CONN_META);
    luaL_setfuncs(L, conn_meta, 0);
    luaL_newlib(L, conn_methods);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, SERVER_META);
    luaL_newlib(L, server_methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
