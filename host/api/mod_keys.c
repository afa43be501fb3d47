/* mod_keys.c: `neap.keys`: single keys from the terminal, for programs that redraw a screen (neap top). The line editor of prompts is neap.edit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host/api/rt.h"
#include "host/edit.h"

int luaopen_neap_keys(lua_State *L);

#define KEYS_META "neap.keys"

typedef struct keys {
    rt *R;
    uv_poll_t *poll; /* NULL once closed; freed by its close callback */
    rt_wait *w;      /* who waits for a key */
    char bytes[64];  /* what came and nobody took */
    size_t n;
    int ended, self;
} keys;

static void poll_closed(uv_handle_t *h) { free(h); }

static void wake(keys *k) {
    rt_wait *w = k->w;
    k->w = NULL;
    if (w) wait_done(w, 0, NULL, NULL);
}

static void on_readable(uv_poll_t *p, int status, int events) {
    keys *k = p->data;
    ssize_t got = k->n < sizeof k->bytes ? read(0, k->bytes + k->n, sizeof k->bytes - k->n) : -1;
    if (got > 0) k->n += (size_t)got;
    else if (status < 0 || got == 0 || k->n == sizeof k->bytes || (errno != EAGAIN && errno != EINTR)) {
        k->ended = got == 0 || status < 0;
        uv_poll_stop(p);
    }
    wake(k);
}

static void shut(void *ud) { /* also when the runtime closes, without Lua */
    keys *k = ud;
    if (!k->poll) return;
    neap_tty_cooked(0);
    uv_close((uv_handle_t *)k->poll, poll_closed);
    k->poll = NULL;
    wake(k);
}

static int l_close(lua_State *L) { /* close, __close, __gc: gives the terminal back */
    keys *k = luaL_checkudata(L, 1, KEYS_META);
    if (!k->poll) return 0;
    rt_off_close(k->R, shut, k);
    shut(k);
    luaL_unref(L, LUA_REGISTRYINDEX, k->self);
    return 0;
}

static int l_open(lua_State *L) { /* open() -> keys; nil where standard input is no terminal */
    if (!isatty(0)) return 0;
    keys *k = lua_newuserdatauv(L, sizeof *k, 0);
    memset(k, 0, sizeof *k);
    luaL_setmetatable(L, KEYS_META);
    k->R = rt_of(L);
    uv_poll_t *p = calloc(1, sizeof *p);
    if (!p) return err_code(L, NEAP_ERR_MEMORY, "keys.open");
    if (uv_poll_init(rt_loop(k->R), p, 0)) {
        free(p);
        return err_code(L, NEAP_ERR_IO, "keys.open");
    }
    p->data = k;
    k->poll = p;
    lua_pushvalue(L, -1);
    k->self = luaL_ref(L, LUA_REGISTRYINDEX); /* lives until it is closed */
    if (rt_at_close(k->R, shut, k) || neap_tty_raw(0) || uv_poll_start(p, UV_READABLE, on_readable)) {
        rt_off_close(k->R, shut, k);
        shut(k);
        return err_code(L, NEAP_ERR_IO, "keys.open");
    }
    uv_unref((uv_handle_t *)p);
    return 1;
}

static void left(rt_wait *w, void *op) {
    keys *k = op;
    if (k->w != w) return;
    k->w = NULL;
    wait_unref(w);
}

static int give(lua_State *L, keys *k) {
    lua_pushlstring(L, k->bytes, k->n);
    k->n = 0;
    if (k->poll && !k->ended) uv_poll_start(k->poll, UV_READABLE, on_readable);
    return 1;
}

static int pressed(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    keys *k = lua_touserdata(L, 1);
    if (w->status == NEAP_ERR_TIMEOUT) return lua_pushliteral(L, ""), 1;
    if (w->status) return wait_raise(L, w);
    return k->n ? give(L, k) : 0;
}

static int l_recv(lua_State *L) { /* keys:recv([timeout]) -> what was typed, "" when the time is over, nil at the end of input */
    keys *k = luaL_checkudata(L, 1, KEYS_META);
    double timeout = luaL_optnumber(L, 2, -1);
    lua_settop(L, 2);
    if (k->n) return give(L, k);
    if (!k->poll || k->ended) return 0;
    rt_wait *w = wait_new(L, "keys:recv", timeout);
    if (k->w) return luaL_error(L, "keys:recv: another task waits for a key");
    w->quiet_deadline = 1;
    w->op = k;
    w->cancel = left;
    k->w = wait_ref(w);
    return wait_park(L, w, pressed);
}

int luaopen_neap_keys(lua_State *L) {
    static const luaL_Reg methods[] = {{"recv", l_recv}, {"close", l_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {NULL, NULL}};
    static const luaL_Reg fns[] = {{"open", l_open}, {NULL, NULL}};
    luaL_newmetatable(L, KEYS_META);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
