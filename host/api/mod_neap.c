/* mod_neap.c: the one global, `neap`: what the host is and where its files are. Event names and defaults are Lua's
 * business (lua/neap/...). */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host/embed.h"
#include "host/api/rt_internal.h"

int luaopen_neap(lua_State *L);

/* ---- files that travel with the binary
 * -------------------------------------------------------------------------------- */
static int l_asset(lua_State *L) { /* neap.asset("scripts/page/index.html") -> text or nil; a checkout's own file wins */
    const char *name = luaL_checkstring(L, 1);
    if (strstr(name, "..") || name[0] == '/') return luaL_argerror(L, 1, "a path inside neap's tree, such as scripts/sensors.lua");
    lua_getfield(L, LUA_REGISTRYINDEX, "neap.root");
    if (*lua_tostring(L, -1)) {
        const char *path = lua_pushfstring(L, "%s/%s", lua_tostring(L, -1), name);
        FILE *f = fopen(path, "rb");
        if (f) {
            luaL_Buffer b;
            luaL_buffinit(L, &b);
            size_t n;
            do {
                char *p = luaL_prepbuffer(&b);
                n = fread(p, 1, LUAL_BUFFERSIZE, f);
                luaL_addsize(&b, n);
            } while (n);
            fclose(f);
            luaL_pushresult(&b);
            return 1;
        }
    }
    for (const struct neap_embedded_file *f = neap_embedded; f->name; f++)
        if (strcmp(f->name, name) == 0) {
            lua_pushlstring(L, f->data, f->len);
            return 1;
        }
    return 0;
}

static int l_assets(lua_State *L) { /* neap.assets(prefix) -> sorted list of the names that start with it */
    const char *prefix = luaL_optstring(L, 1, "");
    lua_newtable(L);
    int n = 0;
    for (const struct neap_embedded_file *f = neap_embedded; f->name; f++)
        if (strncmp(f->name, prefix, strlen(prefix)) == 0) {
            lua_pushstring(L, f->name);
            lua_rawseti(L, -2, ++n);
        }
    return 1;
}

/* ---- signals
 * --------------------------------------------------------------------------------------------------------- */
#define SIGNAL_META "neap.signal"
typedef struct sig {
    uv_signal_t *h; /* NULL once stopped; freed by its close callback, which may come when the Lua state is gone */
    rt *R;
    int fn, self; /* both anchored until it is stopped */
} sig;

static int call_signal(lua_State *L) {
    sig *s = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->fn);
    task_start(s->R, L, 0, "signal", NULL, NULL);
    return 0;
}

static void on_signal(uv_signal_t *h, int signum) {
    sig *s = h->data;
    lua_State *L = s->R->L;
    lua_pushcfunction(L, call_signal);
    lua_pushlightuserdata(L, s);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
}

static void signal_closed(uv_handle_t *h) { free(h); }

static void signal_at_close(void *ud) {
    sig *s = ud;
    uv_close((uv_handle_t *)s->h, signal_closed);
    s->h = NULL;
}

static int signal_stop(lua_State *L) {
    sig *s = luaL_checkudata(L, 1, SIGNAL_META);
    if (!s->h) return 0;
    rt_off_close(s->R, signal_at_close, s);
    signal_at_close(s);
    luaL_unref(L, LUA_REGISTRYINDEX, s->fn);
    luaL_unref(L, LUA_REGISTRYINDEX, s->self);
    return 0;
}

static int l_on_signal(lua_State *L) { /* neap.on_signal("TERM", fn) -> handle with :stop(); fn runs as a task each
                                          time; keeps no loop alive */
    static const char *const names[] = {"INT", "TERM", "HUP", "USR1", "USR2", "QUIT", "WINCH", NULL};
    static const int nums[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGWINCH};
    int num = nums[luaL_checkoption(L, 1, NULL, names)];
    luaL_checktype(L, 2, LUA_TFUNCTION);
    sig *s = lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    luaL_setmetatable(L, SIGNAL_META);
    s->R = rt_of(L);
    lua_pushvalue(L, 2);
    s->fn = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, -1);
    s->self = luaL_ref(L, LUA_REGISTRYINDEX);
    s->h = calloc(1, sizeof *s->h);
    if (!s->h || rt_at_close(s->R, signal_at_close, s)) {
        free(s->h);
        s->h = NULL;
        return err_code(L, NEAP_ERR_MEMORY, "neap.on_signal");
    }
    s->h->data = s;
    uv_signal_init(s->R->loop, s->h);
    uv_signal_start(s->h, on_signal, num);
    uv_unref((uv_handle_t *)s->h);
    return 1;
}

/* ---- exit
 * ------------------------------------------------------------------------------------------------------------ */
/* os.exit that unwinds through the host: children end, files are flushed; with `true` the Lua state is closed too, as
 * in stock Lua. */
static int l_exit(lua_State *L) {
    rt *R = rt_of(L);
    int code = lua_isboolean(L, 1) ? (lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE) : (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    if (R->library) {
        rt_error e = {"exit", 0, -1, 0};
        return err_raise(L, &e, "os.exit(%d) was called inside a host program", code);
    }
    while (R->closers) {
        rt_hook *h = R->closers;
        R->closers = h->next;
        h->close(h->ud);
        free(h);
    }
    if (lua_toboolean(L, 2)) lua_close(R->L);
    exit(code);
}

static int l_clock(lua_State *L) { /* neap.clock() -> seconds since 1970 by the wall clock, to the microsecond; task.now
                                      is the one that never jumps */
    uv_timeval64_t t;
    uv_gettimeofday(&t);
    lua_pushnumber(L, (lua_Number)t.tv_sec + t.tv_usec * 1e-6);
    return 1;
}

static int use_done(lua_State *L, int status, lua_KContext ctx) { return lua_gettop(L); }

static int l_use(lua_State *L) { /* neap.use(name [, opts]): neap.ext's use, without a require in every script */
    lua_getglobal(L, "require");
    lua_pushliteral(L, "neap.ext");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "use");
    lua_replace(L, -2);
    lua_insert(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, use_done);
    return lua_gettop(L);
}

static int l_stop(lua_State *L) { /* neap.stop(): the loop ends after this turn, whatever is still open */
    rt_of(L)->stopping = 1;
    uv_stop(rt_of(L)->loop);
    return 0;
}

static int l_nearest(lua_State *L) { /* neap.nearest(word, names) -> the near one, or nil */
    const char *word = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t n = lua_rawlen(L, 2);
    const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        names[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : ""; /* anchored by the table */
        lua_pop(L, 1);
    }
    names[n] = NULL;
    lua_pushstring(L, err_nearest(word, names));
    return 1;
}

int luaopen_neap(lua_State *L) {
    static const luaL_Reg fns[] = {{"asset", l_asset},         {"assets", l_assets}, {"clock", l_clock}, {"nearest", l_nearest},
                                   {"on_signal", l_on_signal}, {"stop", l_stop},     {"use", l_use},     {NULL, NULL}};
    static const luaL_Reg signal_methods[] = {{"stop", signal_stop}, {NULL, NULL}};
    luaL_newmetatable(L, SIGNAL_META);
    luaL_newlib(L, signal_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_newlib(L, fns);
    lua_pushliteral(L, NEAP_VERSION);
    lua_setfield(L, -2, "version");
    lua_getfield(L, LUA_REGISTRYINDEX, "neap.root");
    lua_setfield(L, -2, "root");
    lua_getglobal(L, "os");
    lua_pushcfunction(L, l_exit);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 1);
    return 1;
}
