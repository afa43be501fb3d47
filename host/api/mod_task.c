/* mod_task.c: neap.task.core, the few primitives under lua/neap/task.lua: spawn, sleep, and a token (wait until
   somebody wakes me). Channels, groups and semaphores are Lua on top. A handle keeps its task's thread: the results
   stay on that stack until somebody joins. */
#include <stdlib.h>
#include <string.h>
#include "host/api/rt_internal.h"

#define TASK_META  "neap.task"
#define TOKEN_META "neap.task.token"
#define HANDLES    "neap.task.handles" /* registry, weak values: task (light userdata) -> handle */

/* ---- task handles
 * ---------------------------------------------------------------------------------------------------- */
typedef struct handle {
    rt_task *t;
    lua_State *L;
    int nres, quiet; /* quiet: somebody will look at its error */
    rt_wait **joiners;
    int njoiners, cap;
} handle;

static void task_over(rt_task *t, lua_State *co, int status, int nres, const char *traceback, void *ud) {
    handle *h = t->handle;
    if (!h) { /* nobody holds it any more */
        if (status != LUA_OK && !t->cancel_why) task_report(t);
        return;
    }
    h->nres = nres;
    t->keep_thread = 1;
    if (status != LUA_OK && !t->cancel_why && !h->njoiners && !h->quiet) task_report(t);
    for (int i = 0; i < h->njoiners; i++) wait_done(h->joiners[i], 0, NULL, NULL);
    h->njoiners = 0;
}

static int handle_gc(lua_State *L) {
    handle *h = lua_touserdata(L, 1);
    if (!h->t) return 0;
    h->t->handle = NULL;
    for (int i = 0; i < h->njoiners; i++) wait_done(h->joiners[i], NEAP_ERR_CLOSED, NULL, NULL);
    free(h->joiners);
    task_unref(h->t);
    h->t = NULL;
    return 0;
}

static handle *new_handle(lua_State *L) { /* of no task yet */
    handle *h = lua_newuserdatauv(L, sizeof *h, 0);
    memset(h, 0, sizeof *h);
    luaL_setmetatable(L, TASK_META);
    return h;
}

static void hold(handle *h, rt_task *t) {
    h->t = task_ref(t);
    h->L = t->R->L;
    if (t->done_fn == task_over) t->handle = h;
}

static void push_handles(lua_State *L) {
    if (luaL_getsubtable(L, LUA_REGISTRYINDEX, HANDLES)) return;
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
}

static void push_handle(lua_State *L, rt_task *t) {
    push_handles(L);
    if (lua_rawgetp(L, -1, t) == LUA_TNIL) {
        lua_pop(L, 1);
        hold(new_handle(L), t);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, -3, t);
    }
    lua_remove(L, -2);
}

static handle *check_handle(lua_State *L) {
    handle *h = luaL_checkudata(L, 1, TASK_META);
    if (!h->t) luaL_error(L, "this task handle has been collected"); /* it came out of a table with weak keys */
    return h;
}

static int l_spawn(lua_State *L) { /* spawn(fn, ...) -> handle */
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_where(L, 2); /* level 1 is task.spawn in task.lua */
    lua_insert(L, 1);
    push_handles(L);
    lua_insert(L, 2);
    handle *h = new_handle(L);
    lua_insert(L, 3); /* where, handles, handle, fn, ... */
    rt_task *t = task_start(rt_of(L), L, lua_gettop(L) - 4, NULL, task_over, NULL);
    hold(h, t);
    size_t n;
    const char *at = lua_tolstring(L, 1, &n);
    if (n > 2) t->spawned_at = strndup(at, n - 2);
    lua_pushvalue(L, 3);
    lua_rawsetp(L, 2, t);
    return 1;
}

/* Results of a finished task: true, values... or false, error. */
static int push_outcome(lua_State *L, handle *h) {
    lua_State *co = h->t->co;
    lua_pushboolean(L, h->t->status == LUA_OK);
    luaL_checkstack(L, h->nres + 1, "task results");
    int base = lua_gettop(co) - h->nres;
    for (int i = 1; i <= h->nres; i++) lua_pushvalue(co, base + i);
    lua_xmove(co, L, h->nres);
    return h->nres + 1;
}

static int joined(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    handle *h = lua_touserdata(L, 1);
    if (w->status == NEAP_ERR_TIMEOUT) {
        lua_pushnil(L);
        return 1;
    }
    if (w->status) return wait_raise(L, w);
    return push_outcome(L, h);
}

static int l_wait(lua_State *L) { /* handle:wait([timeout]) -> true, ... | false, error | nil when the time is over */
    handle *h = check_handle(L);
    double timeout = luaL_optnumber(L, 2, -1);
    if (h->t == rt_of(L)->running) return luaL_error(L, "a task cannot wait for itself");
    if (h->t->done) return push_outcome(L, h);
    rt_wait *w = wait_new(L, "task:join", timeout);
    w->quiet_deadline = 1;
    int live = 0; /* forget joiners that left */
    for (int i = 0; i < h->njoiners; i++) {
        if (wait_is_left(h->joiners[i])) wait_unref(h->joiners[i]);
        else h->joiners[live++] = h->joiners[i];
    }
    h->njoiners = live;
    if (h->njoiners == h->cap) {
        int cap = h->cap ? h->cap * 2 : 2;
        rt_wait **p = realloc(h->joiners, (size_t)cap * sizeof *p);
        if (!p) return err_code(L, NEAP_ERR_MEMORY, "task:join: out of memory");
        h->joiners = p;
        h->cap = cap;
    }
    h->joiners[h->njoiners++] = wait_ref(w);
    return wait_park(L, w, joined);
}

static int l_cancel(lua_State *L) {
    handle *h = check_handle(L);
    task_cancel(h->t, luaL_optstring(L, 2, NULL));
    return 0;
}

static int l_quiet(lua_State *L) { /* handle:quiet(): somebody will look at its error */
    check_handle(L)->quiet = 1;
    lua_settop(L, 1);
    return 1;
}

static const char *status_of(rt_task *t) {
    if (t->done) return t->status == LUA_OK ? "done" : t->cancel_why ? "cancelled" : "failed";
    if (t == t->R->running) return "running";
    return t->wait ? "waiting" : "ready";
}

static int l_info(lua_State *L) { /* handle:info() -> {id, status, name, waits_for, spawned_at, traceback} */
    rt_task *t = check_handle(L)->t;
    lua_createtable(L, 0, 6);
    lua_pushinteger(L, (lua_Integer)t->id);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, status_of(t));
    lua_setfield(L, -2, "status");
    lua_pushstring(L, t->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, t->wait && !t->done ? t->wait->what : NULL);
    lua_setfield(L, -2, "waits_for");
    lua_pushstring(L, t->spawned_at);
    lua_setfield(L, -2, "spawned_at");
    if (t->done || t == t->R->running || !t->co) lua_pushstring(L, t->traceback);
    else luaL_traceback(L, t->co, NULL, 0);
    lua_setfield(L, -2, "traceback");
    return 1;
}

static int l_set_name(lua_State *L) {
    rt_task *t = check_handle(L)->t;
    const char *name = luaL_checkstring(L, 2);
    free(t->name);
    t->name = strdup(name);
    lua_settop(L, 1);
    return 1;
}

static int handle_tostring(lua_State *L) {
    rt_task *t = check_handle(L)->t;
    lua_pushfstring(L, "task %d (%s%s%s)", (int)t->id, t->name ? t->name : "", t->name ? ", " : "", status_of(t));
    return 1;
}

static int l_current(lua_State *L) { /* current() -> handle or nil in the main chunk */
    rt_task *t = rt_of(L)->running;
    if (!t) return 0;
    push_handle(L, t);
    return 1;
}

static int l_list(lua_State *L) { /* list() -> every live task */
    rt *R = rt_of(L);
    lua_newtable(L);
    int i = 0;
    for (rt_task *t = R->tasks; t; t = t->next) {
        push_handle(L, t);
        lua_rawseti(L, -2, ++i);
    }
    return 1;
}

static int l_shield(lua_State *L) { /* shield(+1 | -1): cancellation waits meanwhile */
    rt_task *t = rt_of(L)->running;
    if (t) t->shield += (int)luaL_checkinteger(L, 1);
    return 0;
}

/* ---- sleep and tokens
 * ------------------------------------------------------------------------------------------------ */
static int slept(lua_State *L, int status, lua_KContext ctx) { return 0; }

static int l_sleep(lua_State *L) {
    double s = luaL_checknumber(L, 1);
    luaL_argcheck(L, s >= 0 && s < 1e12, 1, "seconds: zero or more");
    rt_wait *w = wait_new(L, "task.sleep", s);
    w->quiet_deadline = 1;
    return wait_park(L, w, slept);
}

typedef struct token {
    rt_wait *w;
    int woken, left; /* woken: somebody called wake; left: the waiter's time is over */
} token;

static int l_token(lua_State *L) {
    token *k = lua_newuserdatauv(L, sizeof *k, 1);
    memset(k, 0, sizeof *k);
    luaL_setmetatable(L, TOKEN_META);
    return 1;
}

static int token_result(lua_State *L) { /* [token at 1] -> true, value */
    lua_pushboolean(L, 1);
    lua_getiuservalue(L, 1, 1);
    return 2;
}

static int token_woken(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status == NEAP_ERR_TIMEOUT) {
        token *k = lua_touserdata(L, 1);
        if (k->w) wait_unref(k->w);
        k->w = NULL;
        k->left = 1;
        lua_pushboolean(L, 0);
        return 1;
    }
    return token_result(L);
}

static int token_wait(lua_State *L) { /* token:wait(what, timeout or -1) -> true, value | false when the time is over */
    static const char *const whats[] = {"channel:recv", "channel:send", "semaphore", "mutex", "event:wait", "token", NULL};
    token *k = luaL_checkudata(L, 1, TOKEN_META);
    int what = luaL_checkoption(L, 2, "token", whats);
    double timeout = luaL_optnumber(L, 3, -1);
    if (k->woken) return token_result(L);
    if (k->w) return luaL_error(L, "token: somebody waits already");
    rt_wait *w = wait_new(L, whats[what], timeout);
    w->quiet_deadline = 1;
    k->w = wait_ref(w);
    return wait_park(L, w, token_woken);
}

static int token_wake(lua_State *L) { /* token:wake(value) -> true if somebody waits (or will), false if they left */
    token *k = luaL_checkudata(L, 1, TOKEN_META);
    lua_settop(L, 2);
    if (k->woken || k->left || (k->w && wait_is_left(k->w))) {
        lua_pushboolean(L, 0);
        return 1;
    }
    k->woken = 1;
    lua_setiuservalue(L, 1, 1);
    if (k->w) {
        rt_wait *w = k->w;
        k->w = NULL;
        wait_done(w, 0, NULL, NULL);
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int token_gc(lua_State *L) {
    token *k = lua_touserdata(L, 1);
    if (k->w) wait_unref(k->w);
    k->w = NULL;
    return 0;
}

static int l_now(lua_State *L) { /* now() -> monotonic seconds */
    lua_pushnumber(L, rt_now(rt_of(L)));
    return 1;
}

static int l_limit(lua_State *L) { /* limit(s): how long the running task may run between two waits; 0: no limit, nil: the runtime's */
    rt *R = rt_of(L);
    double s = luaL_optnumber(L, 1, -1);
    uint64_t ns = s < 0 ? 0 : s > 0 && s < 1e9 ? (uint64_t)(s * 1e9) : UINT64_MAX;
    luaL_argcheck(L, s >= 0 || lua_isnoneornil(L, 1), 1, "seconds: zero (no limit) or more");
    if (!R->running) return 0;
    R->running->limit_ns = ns;
    atomic_store(&R->slice_limit, ns);
    return 0;
}

static int l_limits(lua_State *L) { /* limits(warn s, stop s, memory bytes, stuck s): 0 switches one off, nil leaves it */
    rt *R = rt_of(L);
    double warn = luaL_optnumber(L, 1, -1), stop = luaL_optnumber(L, 2, 0);
    lua_Integer memory = luaL_optinteger(L, 3, -1);
    if (memory >= 0) R->memory_limit = (size_t)memory;
    int err = warn >= 0 ? watch_start(R, warn, stop, luaL_optnumber(L, 4, 1)) : 0;
    if (err) return err_code(L, err, "task.limits: cannot start the watchdog");
    lua_pushinteger(L, (lua_Integer)R->memory_used);
    lua_pushinteger(L, (lua_Integer)R->blocked);
    return 2;
}

int luaopen_neap_task_core(lua_State *L);
int luaopen_neap_task_core(lua_State *L) {
    static const luaL_Reg fns[] = {{"spawn", l_spawn},   {"sleep", l_sleep}, {"token", l_token},   {"current", l_current}, {"list", l_list},
                                   {"shield", l_shield}, {"now", l_now},     {"limits", l_limits}, {"limit", l_limit},     {NULL, NULL}};
    static const luaL_Reg handle_methods[] = {{"wait", l_wait}, {"cancel", l_cancel},  {"quiet", l_quiet},
                                              {"info", l_info}, {"named", l_set_name}, {NULL, NULL}};
    static const luaL_Reg handle_meta[] = {{"__gc", handle_gc}, {"__tostring", handle_tostring}, {NULL, NULL}};
    static const luaL_Reg token_methods[] = {{"wait", token_wait}, {"wake", token_wake}, {NULL, NULL}};
    luaL_newmetatable(L, TASK_META);
    luaL_setfuncs(L, handle_meta, 0);
    luaL_newlib(L, handle_methods);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, TOKEN_META);
    lua_pushcfunction(L, token_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, token_methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    luaL_getmetatable(L, TASK_META);
    lua_setfield(L, -2, "handle");
    return 1;
}
