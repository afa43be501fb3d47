/* co.c: the coroutine library, so that a wait passes through a user's own coroutines. resume and wrap look at what the
   coroutine yields: the marker of a host wait is passed up to the task (or, on the main thread, turns the loop);
   everything else is as in stock Lua 5.4. */
#include <string.h>
#include <lualib.h>
#include "host/api/rt_internal.h"

enum { STEP_ERROR = -1, STEP_PARK = -2 };

static lua_State *get_co(lua_State *L) {
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    return co;
}

/* Resumes co with nargs values from L's top. Returns the number of results moved to L, STEP_ERROR with the message on
 * L, or STEP_PARK. */
static int step(lua_State *L, lua_State *co, int nargs) {
    rt *R = rt_of(L);
    if (!lua_checkstack(co, nargs)) {
        lua_pushliteral(L, "too many arguments to resume");
        return STEP_ERROR;
    }
    lua_xmove(L, co, nargs);
    for (;;) {
        int nres, st = task_resume(R, co, L, nargs, &nres);
        if (st == LUA_YIELD && nres == 2 && lua_touserdata(co, -2) == (void *)&rt_marker) {
            if (R->running || R->frames) return STEP_PARK;
            task_turn_until(R, lua_touserdata(co, -1));
            if (!co_is_parked(co)) { /* closed meanwhile */
                lua_pushliteral(L, "cannot resume dead coroutine");
                return STEP_ERROR;
            }
            lua_pop(co, 2);
            nargs = 0;
            continue;
        }
        if (st == LUA_OK || st == LUA_YIELD) {
            if (!lua_checkstack(L, nres + 1)) {
                lua_pop(co, nres);
                lua_pushliteral(L, "too many results to resume");
                return STEP_ERROR;
            }
            lua_xmove(co, L, nres);
            return nres;
        }
        lua_xmove(co, L, 1);
        return STEP_ERROR;
    }
}

static int park_through(lua_State *L, lua_State *co, lua_KFunction k) {
    lua_pushlightuserdata(L, (void *)&rt_marker);
    lua_pushlightuserdata(L, lua_touserdata(co, -1));
    return lua_yieldk(L, 2, (lua_KContext)co, k);
}

/* After a host wait below: goes on with co, which waits for it. */
static int step_on(lua_State *L, lua_State *co) {
    if (!co_is_parked(co)) {
        lua_pushliteral(L, "cannot resume dead coroutine");
        return STEP_ERROR;
    }
    lua_pop(co, 2);
    return step(L, co, 0);
}

/* ---- resume --------------------------------------------------------------------------------------------------------
 */
static int resume_k(lua_State *L, int status, lua_KContext ctx);

static int resume_result(lua_State *L, lua_State *co, int r) {
    if (r == STEP_PARK) return park_through(L, co, resume_k);
    if (r < 0) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushboolean(L, 1);
    lua_insert(L, -(r + 1));
    return r + 1;
}

static int resume_k(lua_State *L, int status, lua_KContext ctx) {
    lua_State *co = (lua_State *)ctx;
    return resume_result(L, co, step_on(L, co));
}

static int refuse_parked(lua_State *L, lua_State *co) {
    if (!co_is_parked(co)) return 0;
    lua_settop(L, 0);
    lua_pushliteral(L, "cannot resume non-suspended coroutine");
    return 1;
}

static int co_resume(lua_State *L) {
    lua_State *co = get_co(L);
    if (refuse_parked(L, co)) return resume_result(L, co, STEP_ERROR);
    return resume_result(L, co, step(L, co, lua_gettop(L) - 1));
}

/* ---- wrap ----------------------------------------------------------------------------------------------------------
 */
static int wrap_k(lua_State *L, int status, lua_KContext ctx);

static int wrap_result(lua_State *L, lua_State *co, int r) {
    if (r == STEP_PARK) return park_through(L, co, wrap_k);
    if (r >= 0) return r;
    int st = lua_status(co);
    if (st != LUA_OK && st != LUA_YIELD) { /* the coroutine failed: close its variables; that may replace the error */
        st = lua_resetthread(co);
        lua_xmove(co, L, 1);
    }
    if (st != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int wrap_k(lua_State *L, int status, lua_KContext ctx) {
    lua_State *co = (lua_State *)ctx;
    return wrap_result(L, co, step_on(L, co));
}

static int wrap_call(lua_State *L) {
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    if (refuse_parked(L, co)) return wrap_result(L, co, STEP_ERROR);
    return wrap_result(L, co, step(L, co, lua_gettop(L)));
}

static int co_create(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int co_wrap(lua_State *L) {
    co_create(L);
    lua_pushcclosure(L, wrap_call, 1);
    return 1;
}

/* ---- the rest -------------------------------------------------------------------------------------------------------
 */
static int co_yield (lua_State *L) {
    rt *R = rt_of(L);
    if (R->running && !R->frames) return luaL_error(L, "attempt to yield from outside a coroutine");
    return lua_yield(L, lua_gettop(L));
}

static const char *status_of(lua_State *L, lua_State *co) {
    if (L == co) return "running";
    if (lua_status(co) == LUA_YIELD) return co_is_parked(co) ? "normal" : "suspended";
    if (lua_status(co) != LUA_OK) return "dead";
    lua_Debug ar;
    if (lua_getstack(co, 0, &ar)) return "normal";
    return lua_gettop(co) == 0 ? "dead" : "suspended";
}

static int co_status(lua_State *L) {
    lua_pushstring(L, status_of(L, get_co(L)));
    return 1;
}

static int co_isyieldable(lua_State *L) {
    lua_State *co = lua_isnone(L, 1) ? L : get_co(L);
    rt *R = rt_of(L);
    lua_pushboolean(L, lua_isyieldable(co) && !(R->running && co == R->running->co));
    return 1;
}

static int co_close(lua_State *L) {
    lua_State *co = get_co(L);
    if (co_is_parked(co)) { /* detach: whoever waits through it finds it dead */
        rt_wait *w = lua_touserdata(co, -1);
        lua_pop(co, 2);
        wait_leave(w, NEAP_ERR_CLOSED);
    } else {
        const char *st = status_of(L, co);
        if (strcmp(st, "dead") != 0 && strcmp(st, "suspended") != 0) return luaL_error(L, "cannot close a %s coroutine", st);
    }
    if (lua_resetthread(co) == LUA_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
}

void co_install(lua_State *L) {
    static const luaL_Reg fns[] = {{"create", co_create}, {"resume", co_resume},           {"wrap", co_wrap},   {"yield", co_yield },
                                   {"status", co_status}, {"isyieldable", co_isyieldable}, {"close", co_close}, {NULL, NULL}};
    lua_getglobal(L, "coroutine");
    luaL_setfuncs(L, fns, 0);
    lua_pop(L, 1);
}
