/* wait.c: one wait is one thing that a task (or the main chunk) waits for, with a deadline. It ends exactly once: by
   its operation (wait_done), by its deadline, or because the waiter leaves; what comes later is dropped. Two parties
   hold it: the waiter, through a userdata on its stack, and the operation, through wait_ref. Deadlines stand in one
   binary heap under one uv timer. */
#include <stdlib.h>
#include <string.h>
#include "host/api/rt_internal.h"

#define WAIT_META "neap.wait"

/* ---- the deadline heap ---------------------------------------------------------------------------------------------
 */
static void heap_put(rt *R, int i, rt_wait *w) {
    R->heap[i] = w;
    w->heap_index = i;
}

static void heap_up(rt *R, int i, rt_wait *w) {
    while (i > 0 && R->heap[(i - 1) / 2]->deadline > w->deadline) {
        heap_put(R, i, R->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_put(R, i, w);
}

static void heap_down(rt *R, int i, rt_wait *w) {
    for (;;) {
        int c = 2 * i + 1;
        if (c >= R->nheap) break;
        if (c + 1 < R->nheap && R->heap[c + 1]->deadline < R->heap[c]->deadline) c++;
        if (R->heap[c]->deadline >= w->deadline) break;
        heap_put(R, i, R->heap[c]);
        i = c;
    }
    heap_put(R, i, w);
}

static void on_timer(uv_timer_t *t) { wait_expire(t->data); }

static void arm(rt *R) {
    if (R->nheap == 0) {
        uv_timer_stop(&R->timer);
        return;
    }
    double ms = (R->heap[0]->deadline - rt_now(R)) * 1e3;
    uv_update_time(R->loop); /* uv counts from its cached clock */
    uv_timer_start(&R->timer, on_timer, ms <= 0 ? 0 : ms > 1e12 ? (uint64_t)1e12 : (uint64_t)ms + 1, 0);
}

static int heap_add(rt *R, rt_wait *w) {
    if (R->nheap == R->heap_cap) {
        int cap = R->heap_cap ? R->heap_cap * 2 : 32;
        rt_wait **p = realloc(R->heap, (size_t)cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        R->heap = p;
        R->heap_cap = cap;
    }
    R->nheap++;
    heap_up(R, R->nheap - 1, w);
    if (w->heap_index == 0) arm(R);
    return 0;
}

static void heap_remove(rt *R, rt_wait *w) {
    int i = w->heap_index;
    if (i < 0) return;
    w->heap_index = -1;
    rt_wait *last = R->heap[--R->nheap];
    if (last != w) {
        if (i > 0 && R->heap[(i - 1) / 2]->deadline > last->deadline) heap_up(R, i, last);
        else heap_down(R, i, last);
    }
    /* The timer is left as it is: it fires early at worst. Only an empty heap must not keep the loop alive. */
    if (R->nheap == 0) uv_timer_stop(&R->timer);
}

void wait_shorten(rt_wait *w, double seconds) {
    double at = rt_now(w->R) + seconds;
    if (w->heap_index < 0 || at >= w->deadline) return;
    w->deadline = at;
    heap_up(w->R, w->heap_index, w);
    if (w->heap_index == 0) arm(w->R);
}

void wait_expire(rt *R) {
    double now = rt_now(R);
    while (R->nheap && R->heap[0]->deadline <= now) wait_leave(R->heap[0], NEAP_ERR_TIMEOUT);
    arm(R);
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */
rt_wait *wait_ref(rt_wait *w) {
    w->refs++;
    return w;
}

static void drop_result(rt_wait *w) {
    if (w->result && w->free_result) w->free_result(w->result);
    w->result = NULL;
}

void wait_unref(rt_wait *w) {
    if (--w->refs) return;
    drop_result(w);
    free(w);
}

int wait_is_left(rt_wait *w) { return w->state == WAIT_LEFT; }

static void over(rt_wait *w) {
    heap_remove(w->R, w);
    if (w->task) task_ready(w->task);
    else if (w == w->R->main_wait) rt_wake(w->R);
}

void wait_done(rt_wait *w, int status, void *result, void (*free_result)(void *)) {
    if (w->state == WAIT_PENDING) {
        w->state = WAIT_DONE;
        w->status = status;
        w->result = result;
        w->free_result = free_result;
        over(w);
    } else if (result && free_result) {
        free_result(result);
    }
    wait_unref(w);
}

void wait_leave(rt_wait *w, int status) {
    if (w->state != WAIT_PENDING) return;
    w->state = WAIT_LEFT;
    w->status = status;
    wait_ref(w); /* cancel may drop the operation's reference */
    if (w->cancel) w->cancel(w, w->op);
    over(w);
    wait_unref(w);
}

static int wait_gc(lua_State *L) {
    rt_wait **p = lua_touserdata(L, 1);
    if (*p) {
        rt_wait *w = *p;
        *p = NULL;
        w->task = NULL; /* whoever parked here is gone with its stack */
        wait_leave(w, NEAP_ERR_CANCELLED);
        wait_unref(w);
    }
    return 0;
}

/* Most waits end well and at once: their userdata (and with it the struct) then go to a small stock in the registry instead of to the collector, for
   which an object with a finaliser is dear. A userdata that is in use is not in the stock: one whose coroutine dies is collected as ever. */
enum { SPARE_MAX = 256 };

static rt_wait **take_spare(lua_State *L, rt *R) {
    if (!R->nspare) return NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, R->spares);
    lua_rawgeti(L, -1, R->nspare);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -3, R->nspare--);
    lua_remove(L, -2);
    return lua_touserdata(L, -1);
}

/* After the continuation: p may be gone if that popped it, so nothing is read through w before the stack has shown that it is still there. */
static void keep_spare(lua_State *L, rt *R, rt_wait **p, rt_wait *w, int at) {
    if (R->nspare == SPARE_MAX || !lua_checkstack(L, 4) || lua_touserdata(L, at) != p || !lua_getmetatable(L, at)) return;
    int same = lua_topointer(L, -1) == R->wait_meta;
    lua_pop(L, 1);
    if (!same || *p != w || w->state == WAIT_PENDING || w->refs != 1) return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, R->spares);
    lua_pushvalue(L, at);
    lua_rawseti(L, -2, R->nspare + 1); /* the slot exists: the table was made full size */
    lua_pop(L, 1);
    R->nspare++;
    drop_result(w);
    memset(w, 0, sizeof *w);
    w->state = WAIT_DONE;
    w->refs = 1;
}

void wait_init(lua_State *L) {
    rt *R = rt_of(L);
    lua_createtable(L, SPARE_MAX, 0);
    for (int i = 1; i <= SPARE_MAX; i++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i);
    }
    R->spares = luaL_ref(L, LUA_REGISTRYINDEX);

    luaL_newmetatable(L, WAIT_META);
    R->wait_meta = lua_topointer(L, -1);
    lua_pushcfunction(L, wait_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

void wait_close(rt *R) {
    free(R->heap);
    R->heap = NULL;
    R->nheap = R->heap_cap = 0;
}

/* ---- where a wait is possible ---------------------------------------------------------------------------------------
 */
/* Pushes "string.gsub" or the like if the function on top stands in a loaded library, else nil; pops the function. */
static void push_library_name(lua_State *L) {
    int fn = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    for (lua_pushnil(L); lua_next(L, fn + 1); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || !lua_istable(L, -1) || strcmp(lua_tostring(L, -2), "_G") == 0) continue;
        for (lua_pushnil(L); lua_next(L, fn + 3); lua_pop(L, 1)) {
            if (lua_type(L, -2) != LUA_TSTRING || !lua_rawequal(L, -1, fn)) continue;
            lua_pushfstring(L, "%s.%s", lua_tostring(L, fn + 2), lua_tostring(L, fn + 4));
            lua_replace(L, fn);
            lua_settop(L, fn);
            return;
        }
    }
    lua_settop(L, fn - 1);
    lua_pushnil(L);
}

/* Pushes a name for the innermost C function below level 0 of co: 'table.sort', 'gsub', ... and the Lua line that
 * called it. */
static void push_blocker(lua_State *L, lua_State *co, int level) {
    lua_Debug ar;
    const char *name = "a C function";
    for (; lua_getstack(co, level, &ar); level++) {
        lua_getinfo(co, "Snf", &ar);
        lua_xmove(co, L, 1);
        if (*ar.what != 'C') {
            lua_pop(L, 1);
            continue;
        }
        push_library_name(L); /* stays on the stack while `name` is in use */
        if (lua_isstring(L, -1)) name = lua_tostring(L, -1);
        else if (ar.name) name = ar.name;
        break;
    }
    while (lua_getstack(co, ++level, &ar)) {
        lua_getinfo(co, "Sl", &ar);
        if (ar.currentline > 0) {
            lua_pushfstring(L, "'%s' (%s:%d)", name, ar.short_src, ar.currentline);
            return;
        }
    }
    lua_pushfstring(L, "'%s'", name);
}

/* Raises unless every resumer from L down to its task (or the main chunk) can yield. */
static void check_can_wait(lua_State *L, rt *R, const char *what) {
    lua_State *blocked = NULL;
    int level = 1, foreign = 0;
    if (lua_gc(L, LUA_GCCOUNT) < 0) /* the collector is inside a finaliser */
        luaL_error(L,
                   "%s cannot wait here: a finaliser (__gc) is running; do the work in a task: "
                   "neap.task.spawn(function() ... end)",
                   what);
    lua_State *top = R->frames ? R->frames->co : R->running ? R->running->co : R->L;
    if (L != top) {
        foreign = 1; /* some C library resumed this coroutine itself */
    } else if (R->running || R->frames) {
        if (!lua_isyieldable(L)) blocked = L;
        for (rt_frame *f = R->frames; f && !blocked; f = f->prev)
            if (!(f->from == R->L && !R->running) && !lua_isyieldable(f->from)) blocked = f->from, level = 1;
    } else if (R->main_wait) {
        luaL_error(L, "%s cannot wait here: the main chunk is already waiting (a callback runs on its stack)", what);
    }
    if (foreign) luaL_error(L, "%s cannot wait here: a C library resumed this coroutine, not coroutine.resume", what);
    if (blocked) {
        push_blocker(L, blocked, level);
        luaL_error(L, "%s cannot wait here: Lua cannot yield across %s; fetch the value before that call", what, lua_tostring(L, -1));
    }
}

int wait_possible(lua_State *L) {
    rt *R = rt_of(L);
    lua_State *top = R->frames ? R->frames->co : R->running ? R->running->co : R->L;
    if (lua_gc(L, LUA_GCCOUNT) < 0 || L != top) return 0;
    if (!R->running && !R->frames) return R->main_wait == NULL;
    if (!lua_isyieldable(L)) return 0;
    for (rt_frame *f = R->frames; f; f = f->prev)
        if (!(f->from == R->L && !R->running) && !lua_isyieldable(f->from)) return 0;
    return 1;
}

/* Raises the cancellation of the running task if there is one to raise. The first wait after task_cancel raises; then
   the task may wait for five seconds more, so that <close> variables and error handlers can clean up; after that it is
   ended at its next wait. */
enum { CLEANUP_SECONDS = 5 };

static int raise_cancelled(lua_State *L, rt_task *t) {
    if (t->cancel_raised == 0) t->cancel_raised = rt_now(t->R);
    rt_error e = {"cancelled", 0, -1, 0};
    return err_raise(L, &e, "%s", t->cancel_why ? t->cancel_why : "cancelled");
}

rt_wait *wait_new(lua_State *L, const char *what, double timeout) {
    rt *R = rt_of(L);
    check_can_wait(L, R, what);
    rt_task *t = R->running;
    double limit = -1;
    if (t && t->cancel_why && !t->shield) {
        if (t->cancel_raised == 0) raise_cancelled(L, t);
        limit = t->cancel_raised + CLEANUP_SECONDS;
        if (rt_now(R) >= limit) t->killed = 1;
    }
    rt_wait **p = take_spare(L, R);
    if (!p) {
        p = lua_newuserdatauv(L, sizeof *p, 0);
        *p = NULL;
        luaL_setmetatable(L, WAIT_META);
        *p = calloc(1, sizeof **p);
        if (!*p) err_code(L, NEAP_ERR_MEMORY, "%s: out of memory", what);
    }
    rt_wait *w = *p;
    w->at = lua_gettop(L);
    w->state = WAIT_PENDING;
    w->R = R;
    w->what = what;
    w->refs = 1;
    w->heap_index = -1;
    if (timeout >= 0 || limit >= 0) {
        w->deadline = timeout >= 0 ? rt_now(R) + timeout : limit;
        if (limit >= 0 && w->deadline > limit) w->deadline = limit;
        if (heap_add(R, w)) err_code(L, NEAP_ERR_MEMORY, "%s: out of memory", what);
    }
    return w;
}

int wait_raise(lua_State *L, rt_wait *w) {
    if (w->status == NEAP_ERR_TIMEOUT) return err_code(L, w->status, "%s: no answer within its time limit", w->what);
    return err_code(L, w->status, "%s: %s", w->what, neap_err_kind(w->status));
}

/* ---- parking -------------------------------------------------------------------------------------------------------
 */
static int resumed(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    rt *R = w->R;
    rt_task *t = R->running;
    if (t) t->wait = NULL;
    w->task = NULL;
    if (w->state == WAIT_LEFT && w->status == NEAP_ERR_CANCELLED) {
        if (t) return raise_cancelled(L, t);
        if (R->interrupted) R->interrupted = 0;
        return luaL_error(L, "interrupted!");
    }
    if (w->state == WAIT_LEFT && w->status == NEAP_ERR_CLOSED) {
        rt_error e = {"deadlock", 0, -1, 0};
        return err_raise(L, &e, "%s waits for ever: no task, timer or connection is left that could end it", w->what);
    }
    if (w->status == NEAP_ERR_TIMEOUT && w->state == WAIT_LEFT && !w->quiet_deadline) return wait_raise(L, w);
    int at = w->at;
    rt_wait **p = lua_touserdata(L, at);
    int n = w->k(L, status, ctx); /* the userdata on the stack keeps w alive meanwhile */
    keep_spare(L, R, p, w, at);
    return n;
}

int wait_park(lua_State *L, rt_wait *w, lua_KFunction k) {
    rt *R = w->R;
    w->k = k;
    if (w->state != WAIT_PENDING) return resumed(L, LUA_OK, (lua_KContext)w);
    if (!R->running && !R->frames) {
        task_turn_until(R, w);
        return resumed(L, LUA_OK, (lua_KContext)w);
    }
    if (R->running) {
        w->task = R->running;
        R->running->wait = w;
    }
    lua_pushlightuserdata(L, (void *)&rt_marker);
    lua_pushlightuserdata(L, w);
    return lua_yieldk(L, 2, (lua_KContext)w, resumed);
}
