/* task.c: the scheduler, and the one file that resumes coroutines. A task is a coroutine that the loop runs; callbacks
   only mark it ready (task_ready), and task_drain runs what is ready once a turn. Threads that ended well are kept for
   the next task (85 ns against 376 ns).

   Inside its coroutine a task runs under lua_pcallk: so <close> variables close on error and cancellation, and may wait
   while they do. */
#include <stdlib.h>
#include <string.h>
#include <lualib.h>
#include "host/api/rt_internal.h"

const char rt_marker = 0;

int co_is_parked(lua_State *co) { return lua_status(co) == LUA_YIELD && lua_gettop(co) >= 2 && lua_touserdata(co, -2) == (void *)&rt_marker; }

int task_resume(rt *R, lua_State *co, lua_State *from, int nargs, int *nres) {
    rt_frame f = {co, from, R->frames};
    R->frames = &f;
    if (R->watch) watch_top(R, co);
    int st = lua_resume(co, from, nargs, nres);
    R->frames = f.prev;
    if (R->watch) watch_top(R, from);
    return st;
}

/* ---- ready queue ---------------------------------------------------------------------------------------------------
 */
void task_ready(rt_task *t) {
    rt *R = t->R;
    if (t->queued || t->done) return;
    t->queued = 1;
    t->next_ready = NULL;
    *R->ready_tail = t;
    R->ready_tail = &t->next_ready;
    rt_wake(R);
}

rt_task *task_ref(rt_task *t) {
    t->refs++;
    return t;
}

void task_unref(rt_task *t) {
    if (--t->refs) return;
    if (t->keep_thread) luaL_unref(t->R->L, LUA_REGISTRYINDEX, t->co_ref);
    free(t->traceback);
    free(t->cancel_why);
    free(t->spawned_at);
    free(t->name);
    rt *R = t->R;
    if (R->nspare_tasks < RT_POOL && !R->closing) {
        t->next = R->spare_tasks;
        R->spare_tasks = t;
        R->nspare_tasks++;
    } else free(t);
}

static rt_task *task_new(rt *R) {
    rt_task *t = R->spare_tasks;
    if (!t) return calloc(1, sizeof *t);
    R->spare_tasks = t->next;
    R->nspare_tasks--;
    memset(t, 0, sizeof *t);
    return t;
}

rt_task *task_current(rt *R) { return R->running; }
int task_is_done(rt_task *t) { return t->done; }

/* ---- the entry function inside the coroutine
 * ------------------------------------------------------------------------- */
static int on_error(lua_State *L) { /* message handler: keeps the traceback, passes the value on */
    rt_task *t = rt_of(L)->running;
    luaL_traceback(L, L, NULL, 1);
    if (t) {
        free(t->traceback);
        t->traceback = strdup(lua_tostring(L, -1));
    }
    lua_pop(L, 1);
    return 1;
}

static int entry_done(lua_State *L, int status, lua_KContext ctx) {
    rt_task *t = (rt_task *)ctx;
    t->status = status == LUA_YIELD ? LUA_OK : status;
    return t->status == LUA_OK ? lua_gettop(L) - 1 : 1;
}

static int entry(lua_State *L) { /* stack: the function and its arguments */
    rt_task *t = rt_of(L)->running;
    lua_pushcfunction(L, on_error);
    lua_insert(L, 1);
    return entry_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, (lua_KContext)t, entry_done), (lua_KContext)t);
}

/* ---- start and end --------------------------------------------------------------------------------------------------
 */
static rt_task *start(rt *R, lua_State *L, int nargs, const char *name, task_done_fn done, void *ud, int bare) {
    size_t n = 0;
    const char *at = NULL;
    if (!done) { /* what may raise comes before what would leak */
        luaL_where(L, 1);
        at = lua_tolstring(L, -1, &n);
    }
    lua_State *co;
    int ref, pooled = R->npool > 0;
    if (pooled) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, ref = R->pool[R->npool - 1]);
        co = lua_tothread(L, -1);
        lua_pop(L, 1);
    } else {
        co = lua_newthread(L);
        lua_sethook(co, NULL, 0, 0);
        ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    rt_task *t = task_new(R);
    if (!t || !lua_checkstack(co, nargs + 3)) {
        if (!pooled) luaL_unref(L, LUA_REGISTRYINDEX, ref);
        free(t);
        err_code(L, NEAP_ERR_MEMORY, "task: out of memory");
    }
    if (pooled) R->npool--;
    t->co = co;
    t->co_ref = ref;
    t->R = R;
    t->refs = 1;
    t->id = ++R->next_id;
    t->done_fn = done;
    t->ud = ud;
    t->nargs = nargs + !bare;
    if (name) t->name = strdup(name);
    if (!done) {
        if (n > 2) t->spawned_at = strndup(at, n - 2); /* without ": " */
        lua_pop(L, 1);
    }
    if (!bare) lua_pushcfunction(co, entry);
    lua_xmove(L, co, nargs + 1);
    t->next = R->tasks;
    if (R->tasks) R->tasks->prev = t;
    R->tasks = t;
    R->ntasks++;
    task_ready(t);
    return t;
}

rt_task *task_start(rt *R, lua_State *L, int nargs, const char *name, task_done_fn done, void *ud) { return start(R, L, nargs, name, done, ud, 0); }

rt_task *task_start_bare(rt *R, lua_State *L, int nargs, task_done_fn done, void *ud) { return start(R, L, nargs, NULL, done, ud, 1); }

static int describe(lua_State *L) { /* light userdata task, error value -> text for people */
    rt_task *t = lua_touserdata(L, 1);
    const char *msg = luaL_tolstring(L, 2, NULL);
    lua_pushfstring(L, "task%s%s (spawned at %s) failed: %s%s%s", t->name ? " " : "", t->name ? t->name : "", t->spawned_at ? t->spawned_at : "?",
                    msg, t->traceback ? "\n" : "", t->traceback ? t->traceback : "");
    return 1;
}

void task_report(rt_task *t) {
    lua_State *co = t->co;
    lua_pushcfunction(co, describe);
    lua_pushlightuserdata(co, t);
    lua_pushvalue(co, -3);
    lua_pcall(co, 2, 1, 0); /* a failing __tostring: its error is the text */
    rt_report(t->R, lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1) : "a task failed");
    lua_pop(co, 1);
}

static void end(rt_task *t, int nres) {
    rt *R = t->R;
    t->done = 1;
    if (t->prev) t->prev->next = t->next;
    else R->tasks = t->next;
    if (t->next) t->next->prev = t->prev;
    R->ntasks--;
    if (t->done_fn) t->done_fn(t, t->co, t->status, nres, t->traceback, t->ud);
    else if (t->status != LUA_OK && !t->cancel_why) task_report(t);
    if (!t->keep_thread) {
        if (t->status == LUA_OK && !t->killed && R->npool < RT_POOL && !R->closing) {
            lua_settop(t->co, 0);
            if (lua_gethook(t->co)) lua_sethook(t->co, NULL, 0, 0);
            R->pool[R->npool++] = t->co_ref;
        } else {
            luaL_unref(R->L, LUA_REGISTRYINDEX, t->co_ref);
        }
        t->co = NULL;
    }
    task_unref(t);
}

static int push_cancelled(lua_State *L) {
    rt_error e = {"cancelled", 0, -1, 0};
    const char *why = lua_touserdata(L, 1);
    err_push(L, &e, "%s", why ? why : "ended");
    return 1;
}

/* Ends a task that would not stop: closes its variables without waiting. */
static void kill_task(rt_task *t) {
    if (t->wait) {
        t->wait->task = NULL;
        wait_leave(t->wait, NEAP_ERR_CANCELLED);
        t->wait = NULL;
    }
    lua_resetthread(t->co);
    lua_settop(t->co, 0);
    lua_pushcfunction(t->co, push_cancelled);
    lua_pushlightuserdata(t->co, t->cancel_why);
    lua_pcall(t->co, 1, 1, 0); /* without memory, that is the error */
    t->status = LUA_ERRRUN;
    end(t, 1);
}

static void run(rt_task *t) {
    rt *R = t->R;
    rt_frame *frames = R->frames;
    rt_task *running = R->running;
    int nargs = 0, nres = 0;
    if (t->killed) {
        kill_task(t);
        return;
    }
    if (t->started) lua_pop(t->co, 2); /* the marker and the wait */
    else nargs = t->nargs;
    t->started = 1;
    R->frames = NULL;
    R->running = t;
    if (R->watch) watch_begin(R, t->co, t->limit_ns);
    int st = lua_resume(t->co, R->L, nargs, &nres);
    if (R->watch) watch_end(R);
    R->running = running;
    R->frames = frames;
    if (st == LUA_YIELD) return; /* parked: only the marker comes this far, coroutine.yield refuses in a task's own thread */
    if (st != LUA_OK) {          /* out of memory, or an error in the entry function itself */
        t->status = st;
        nres = 1;
    }
    end(t, nres);
}

int task_drain(rt *R) {
    rt_task *t = R->ready, *next;
    if (!t) return 0;
    R->ready = NULL; /* what becomes ready meanwhile waits for the next round: fairness */
    R->ready_tail = &R->ready;
    for (; t; t = next) {
        next = t->next_ready;
        t->queued = 0;
        run(t);
    }
    return 1;
}

void task_cancel(rt_task *t, const char *why) {
    if (t->done || t->cancel_why) return;
    t->cancel_why = strdup(why ? why : "cancelled");
    if (!t->started) {
        t->killed = 1;
    } else if (t->wait && !t->shield) {
        wait_leave(t->wait, NEAP_ERR_CANCELLED);
    }
}

/* ---- the main chunk -------------------------------------------------------------------------------------------------
 */
void task_turn_until(rt *R, rt_wait *w) {
    R->main_wait = w;
    while (w->state == WAIT_PENDING) {
        if (R->interrupted) {
            wait_leave(w, NEAP_ERR_CANCELLED);
            break;
        }
        if (!uv_run(R->loop, UV_RUN_ONCE) && w->state == WAIT_PENDING && !R->ready) wait_leave(w, NEAP_ERR_CLOSED);
    }
    R->main_wait = NULL;
}

void task_close_all(rt *R) {
    for (rt_task *t = R->tasks, *next; t; t = next) {
        next = t->next;
        task_cancel(t, "the host stops");
    }
    uint64_t until = uv_hrtime() + (uint64_t)1e9; /* closers may wait, for a second */
    while (R->ntasks && uv_hrtime() < until) {    /* never blocks: what a task waits for may never come */
        uv_run(R->loop, UV_RUN_NOWAIT);
        if (R->ntasks && !R->ready) uv_sleep(1);
    }
    while (R->tasks) {
        rt_task *t = R->tasks;
        if (!t->cancel_why) t->cancel_why = strdup("the host stops");
        kill_task(t);
    }
    R->ready = NULL;
    R->ready_tail = &R->ready;
    for (rt_task *t; (t = R->spare_tasks);) {
        R->spare_tasks = t->next;
        free(t);
    }
    for (; R->npool; R->npool--) luaL_unref(R->L, LUA_REGISTRYINDEX, R->pool[R->npool - 1]);
}
