/* rt.c: one runtime = one Lua state on one libuv loop. It owns the turn: before each poll the ready tasks run, then the
   turn hooks, until nothing makes progress. The runtime hangs in the state's extra space, so rt_of costs one load. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <lualib.h>
#include "host/api/rt_internal.h"

int luaopen_neap(lua_State *L);

rt *rt_of(lua_State *L) { return *(rt **)lua_getextraspace(L); }
uv_loop_t *rt_loop(rt *R) { return R->loop; }
lua_State *rt_main(rt *R) { return R->L; }
double rt_now(rt *R) { return (double)uv_hrtime() * 1e-9; }
int rt_is_library(rt *R) { return R->library; }

/* ---- the turn -------------------------------------------------------------------------------------------------------
 */
static void on_idle(uv_idle_t *h) {}

void rt_wake(rt *R) {
    if (!uv_is_active((uv_handle_t *)&R->idle)) uv_idle_start(&R->idle, on_idle);
}

static int run_hooks(rt *R) {
    int progress = 0;
    R->turns_changed = 0;
    for (rt_hook *h = R->turns, *next; h; h = next) {
        next = h->next;
        progress |= h->turn(h->ud);
        if (R->turns_changed) return 1; /* the list is not what it was: next round */
    }
    return progress;
}

static void on_prepare(uv_prepare_t *h) {
    rt *R = h->data;
    for (int round = 0; round < 32; round++) { /* bounded: timers and sockets want their turn too */
        int progress = task_drain(R) | run_hooks(R);
        if (!progress && !R->ready) break;
    }
    int main_is_over = R->main_wait && R->main_wait->state != WAIT_PENDING;
    if (!R->ready && !main_is_over) uv_idle_stop(&R->idle);
    else rt_wake(R);
}

int rt_on_turn(rt *R, rt_turn_fn fn, void *ud) {
    rt_hook *h = calloc(1, sizeof *h);
    if (!h) return NEAP_ERR_MEMORY;
    h->turn = fn;
    h->ud = ud;
    h->next = R->turns;
    R->turns = h;
    R->turns_changed = 1;
    return 0;
}

void rt_off_turn(rt *R, rt_turn_fn fn, void *ud) {
    for (rt_hook **p = &R->turns; *p; p = &(*p)->next)
        if ((*p)->turn == fn && (*p)->ud == ud) {
            rt_hook *h = *p;
            *p = h->next;
            free(h);
            R->turns_changed = 1;
            return;
        }
}

int rt_at_close(rt *R, void (*fn)(void *ud), void *ud) {
    rt_hook *h = calloc(1, sizeof *h);
    if (!h) return NEAP_ERR_MEMORY;
    h->close = fn;
    h->ud = ud;
    h->next = R->closers;
    R->closers = h;
    return 0;
}

void rt_off_close(rt *R, void (*fn)(void *ud), void *ud) {
    for (rt_hook **p = &R->closers; *p; p = &(*p)->next)
        if ((*p)->close == fn && (*p)->ud == ud) {
            rt_hook *h = *p;
            *p = h->next;
            free(h);
            return;
        }
}

/* ---- from other threads, and signals
 * --------------------------------------------------------------------------------- */
int rt_post(rt *R, void (*fn)(rt *R, void *ud), void *ud) { return rt_post_owned(R, fn, NULL, ud); }

int rt_post_owned(rt *R, void (*fn)(rt *R, void *ud), void (*drop)(void *ud), void *ud) {
    rt_posted *p = malloc(sizeof *p);
    if (!p) return NEAP_ERR_MEMORY;
    p->fn = fn;
    p->drop = drop;
    p->ud = ud;
    p->next = NULL;
    uv_mutex_lock(&R->lock);
    rt_posted **tail = &R->posted;
    while (*tail) tail = &(*tail)->next;
    *tail = p;
    uv_mutex_unlock(&R->lock);
    uv_async_send(&R->async);
    return 0;
}

static void on_async(uv_async_t *h) {
    rt *R = h->data;
    uv_mutex_lock(&R->lock);
    rt_posted *p = R->posted;
    R->posted = NULL;
    uv_mutex_unlock(&R->lock);
    while (p) {
        rt_posted *next = p->next;
        p->fn(R, p->ud);
        free(p);
        p = next;
    }
    if (R->interrupted) {
        if (R->main_wait) wait_leave(R->main_wait, NEAP_ERR_CANCELLED);
        else uv_stop(R->loop);
    }
}

static void raise_interrupt(lua_State *L, lua_Debug *ar) {
    rt *R = rt_of(L);
    if (R->interrupted && R->main_wait && uv_hrtime() < R->interrupted_until) return; /* the loop may turn yet */
    lua_sethook(L, NULL, 0, 0);
    if (!R->interrupted) return; /* the main chunk's wait has taken it */
    R->interrupted = 0;
    luaL_error(L, "interrupted!");
}

int rt_out_of_breath(rt *R) {
    if (atomic_load_explicit(&R->overrun, memory_order_relaxed) == OVERRUN_STOP) return 1;
    return R->interrupted && (!R->main_wait || R->running);
}

void **rt_slot(rt *R, enum rt_slot s) { return &R->slots[s]; }

void *rt_checkudata(lua_State *L, int idx, enum rt_class c, const char *name) {
    rt *R = rt_of(L);
    void *p = lua_touserdata(L, idx);
    if (p && lua_getmetatable(L, idx)) {
        const void *meta = lua_topointer(L, -1);
        lua_pop(L, 1);
        if (meta == R->class_meta[c]) return p;
    }
    p = luaL_checkudata(L, idx, name);
    lua_getmetatable(L, idx);
    R->class_meta[c] = lua_topointer(L, -1);
    lua_pop(L, 1);
    return p;
}

void rt_breathe(lua_State *L) {
    rt *R = rt_of(L);
    atomic_store_explicit(&R->breaths, atomic_load_explicit(&R->breaths, memory_order_relaxed) + 1, memory_order_relaxed); /* one thread writes */
    if (atomic_load_explicit(&R->overrun, memory_order_relaxed) == OVERRUN_NOTE) watch_place(L);
    if (!rt_out_of_breath(R)) return;
    if (R->interrupted) raise_interrupt(L, NULL);
    watch_breathe(L);
}

void rt_interrupt(rt *R) {
    lua_State *co = R->frames ? R->frames->co : R->running ? R->running->co : R->L;
    /* While the main chunk waits, the interrupt is its own: a task that happens to run is stopped only if the loop does not turn within 5 ms. */
    R->interrupted_until = uv_hrtime() + 5000000;
    R->interrupted = 1;
    if (!R->main_wait || R->running) lua_sethook(co, raise_interrupt, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    uv_async_send(&R->async);
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */
static void handle_closed(uv_handle_t *h) { ((rt *)h->data)->handles--; }

/* Counts what Lua holds and refuses to grow past the limit; Lua then collects in emergency and, if that does not help,
 * raises its memory error. */
static void *counted_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    rt *R = ud;
    size_t old = ptr ? osize : 0; /* without a block, osize is a type tag */
    if (nsize > old && R->memory_limit && R->memory_used + (nsize - old) > R->memory_limit) return NULL;
    void *p = R->alloc ? R->alloc(R->alloc_ud, ptr, osize, nsize) : mem_realloc(&R->mem, ptr, old, nsize);
    if (p || !nsize) R->memory_used += nsize - old;
    return p;
}

static int on_panic(lua_State *L) { /* cannot happen: every entry is protected. In case it does, say so before Lua aborts */
    const char *msg = lua_tostring(L, -1);
    rt_report(rt_of(L), msg ? msg : "unprotected error");
    return 0;
}

void rt_report(rt *R, const char *text) {
    R->failed = 1;
    if (R->report) R->report(R->report_ud, text);
    else fprintf(stderr, "neap: %s\n", text);
}

/* Warnings as in stock Lua's stand-alone interpreter: off until "@on". */
static void warn_on(void *ud, const char *msg, int to_cont);
static void warn_off(void *ud, const char *msg, int to_cont) {
    rt *R = ud;
    if (!to_cont && strcmp(msg, "@on") == 0) lua_setwarnf(R->L, warn_on, R);
}
static void warn_rest(void *ud, const char *msg, int to_cont) {
    rt *R = ud;
    fputs(msg, stderr);
    if (!to_cont) fputs("\n", stderr), fflush(stderr);
    lua_setwarnf(R->L, to_cont ? warn_rest : warn_on, R);
}
static void warn_on(void *ud, const char *msg, int to_cont) {
    rt *R = ud;
    if (!to_cont && msg[0] == '@') {
        if (strcmp(msg, "@off") == 0) lua_setwarnf(R->L, warn_off, R);
        return;
    }
    fputs("Lua warning: ", stderr);
    warn_rest(ud, msg, to_cont);
}

static int open_state(lua_State *L) {
    const rt_options *o = lua_touserdata(L, 1);
    if (o->noenv) {
        lua_pushboolean(L, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    }
    luaL_openlibs(L);
    err_init(L);
    wait_init(L);
    co_install(L);
    lib_string_install(L);
    lib_long_install(L);
    modules_install(L);
    require_install(L);
    luaL_requiref(L, "neap", luaopen_neap, 1);
    return 0;
}

rt *rt_new(const rt_options *o) {
    rt *R = calloc(1, sizeof *R);
    if (!R) return NULL;
    R->library = o->library;
    R->ready_tail = &R->ready;
    R->loop = o->loop;
    if (!R->loop) {
        if (uv_loop_init(&R->own_loop)) {
            free(R);
            return NULL;
        }
        R->loop = &R->own_loop;
        R->owns_loop = 1;
    }
    uv_mutex_init(&R->lock);
    uv_prepare_init(R->loop, &R->prepare);
    uv_idle_init(R->loop, &R->idle);
    uv_timer_init(R->loop, &R->timer);
    uv_async_init(R->loop, &R->async, on_async);
    R->prepare.data = R->idle.data = R->timer.data = R->async.data = R;
    R->handles = 4;
    uv_prepare_start(&R->prepare, on_prepare);
    uv_unref((uv_handle_t *)&R->prepare);
    uv_unref((uv_handle_t *)&R->async);
    R->report = o->report;
    R->report_ud = o->report_ud;
    R->alloc = o->alloc;
    R->alloc_ud = o->alloc_ud;
    R->memory_limit = o->memory_limit;
    R->L = lua_newstate(counted_alloc, R);
    if (R->L) {
        *(rt **)lua_getextraspace(R->L) = R;
        lua_atpanic(R->L, on_panic);
        lua_setwarnf(R->L, warn_off, R);
        lua_gc(R->L, LUA_GCSTOP);
        lua_pushcfunction(R->L, open_state);
        lua_pushlightuserdata(R->L, (void *)o);
        if (lua_pcall(R->L, 1, 0, 0) == LUA_OK) {
            lua_gc(R->L, LUA_GCRESTART);
            return R;
        }
    }
    rt_close(R);
    return NULL;
}

static int nothing(lua_State *L) { return 0; }

static int a_level_down(lua_State *L) {
    lua_pushcfunction(L, nothing);
    lua_call(L, 0, 0);
    return 0;
}

/* Lua gives up a finaliser that it has no memory to call, and what that would have freed is lost: so the room that calls need is made beforehand. */
static void make_room_to_close(lua_State *L) {
    for (int i = 0; i < 2; i++) { /* an allocation that fails once may well succeed the next time */
        lua_settop(L, 0);
        if (!lua_checkstack(L, 3 * LUA_MINSTACK)) continue;
        lua_pushcfunction(L, a_level_down);
        if (lua_pcall(L, 0, 0, 0) == LUA_OK) return;
    }
}

int rt_close(rt *R) {
    if (R->closing) return 0;
    R->closing = 1;
    watch_stop(R);
    if (R->L) task_close_all(R);
    while (R->closers) {
        rt_hook *h = R->closers;
        R->closers = h->next;
        h->close(h->ud);
        free(h);
    }
    if (R->L) {
        make_room_to_close(R->L);
        lua_close(R->L);
    }
    mem_close(&R->mem);
    while (R->turns) rt_off_turn(R, R->turns->turn, R->turns->ud);
    while (R->posted) {
        rt_posted *p = R->posted;
        R->posted = p->next;
        if (p->drop) p->drop(p->ud);
        free(p);
    }
    uv_close((uv_handle_t *)&R->prepare, handle_closed);
    uv_close((uv_handle_t *)&R->idle, handle_closed);
    uv_close((uv_handle_t *)&R->timer, handle_closed);
    uv_close((uv_handle_t *)&R->async, handle_closed);
    /* Our loop runs until all is closed; on a foreign one, only our own handles are waited for. */
    while (R->handles) uv_run(R->loop, UV_RUN_ONCE);
    if (R->owns_loop) {
        for (int i = 0; i < 2000 && uv_loop_close(R->loop); i++) { /* work on libuv's threads may still be on its way: a second at most */
            uv_run(R->loop, UV_RUN_NOWAIT);
            if (i > 1000) uv_sleep(1);
        }
    }
    wait_close(R);
    uv_mutex_destroy(&R->lock);
    int abandoned = R->abandoned;
    free(R);
    return abandoned;
}
