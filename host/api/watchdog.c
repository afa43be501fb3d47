/* watchdog.c: a task that runs too long without waiting is found, named and stopped. A permanent count hook would cost
   every loop 2x; so a thread of its own looks at the clock, and only a task that overruns gets a hook: at `warn` one
   that notes the line, at `stop` one that raises at every instruction (so that pcall cannot swallow it) until the task
   waits or ends. A hook cannot see inside a C call: our own long ones look at R->overrun now and then (rt_breathe); one that
   does not is reported, and its worker replaced (mod_worker.c).

   Shared with the runtime's thread: slice_start and slice_id (atomic), and top, the coroutine that runs now. A
   coroutine may be freed once it is no longer on top; so taking it off top and setting a hook on it exclude each other
   (watch_lock). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "host/api/rt_internal.h"

struct rt_watchdog {
    rt *R;
    uv_thread_t thread;
    uv_mutex_t lock; /* guards quit */
    uv_cond_t cond;
    int quit;
    uint64_t warn_ns, stop_ns, stuck_ns;
    uint64_t reported;  /* the slice that was reported as stuck */
    atomic_ulong fired; /* how often a hook of ours ran */
    uint64_t armed;     /* the slice in which a hook was set, when, and what `fired` and the runtime's `breaths` were then */
    uint64_t armed_at;
    unsigned long armed_fired, armed_breaths;
    char blocked_at[128]; /* under watch_lock */
};

static uint64_t stop_of(rt *R) { /* the running task's own limit, or the runtime's */
    uint64_t own = atomic_load(&R->slice_limit);
    if (atomic_load(&R->halt)) return 1;
    return own == UINT64_MAX ? 0 : own ? own : R->watch ? R->watch->stop_ns : 0;
}

static void lock_top(rt *R) {
    while (atomic_flag_test_and_set_explicit(&R->watch_lock, memory_order_acquire)) {}
}
static void unlock_top(rt *R) { atomic_flag_clear_explicit(&R->watch_lock, memory_order_release); }

void watch_top(rt *R, lua_State *L) {
    lock_top(R);
    R->top = L;
    unlock_top(R);
}

/* A slice's start and end, on uv_hrtime's scale but only to a few milliseconds: it is a fifth of the price, and a request has four of them. */
static uint64_t coarse_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void watch_begin(rt *R, lua_State *co, uint64_t limit_ns) {
    watch_top(R, co);
    /* behind watch_top: the watchdog sets it under the lock, for the slice that it looked at */
    if (atomic_load_explicit(&R->overrun, memory_order_relaxed)) atomic_store(&R->overrun, 0);
    atomic_store_explicit(&R->slice_id, atomic_load_explicit(&R->slice_id, memory_order_relaxed) + 1, memory_order_relaxed); /* one thread writes */
    atomic_store_explicit(&R->slice_limit, limit_ns, memory_order_relaxed);
    atomic_store_explicit(&R->slice_start, coarse_ns(), memory_order_release);
}

void watch_end(rt *R) {
    rt_watchdog *w = R->watch;
    uint64_t ns = coarse_ns() - atomic_load_explicit(&R->slice_start, memory_order_relaxed);
    atomic_store_explicit(&R->slice_start, 0, memory_order_relaxed); /* watch_top's lock makes it seen */
    watch_top(R, NULL);
    if (ns < w->warn_ns && !*w->blocked_at) return; /* a place that was noted is told, or it would be told of the next slice */
    char text[256];
    snprintf(text, sizeof text, "a task blocked the loop for %.0f ms%s%s", (double)ns / 1e6, *w->blocked_at ? " at " : "", w->blocked_at);
    w->blocked_at[0] = 0;
    R->blocked++;
    if (R->report) R->report(R->report_ud, text);
    else fprintf(stderr, "neap: %s\n", text);
}

/* ---- hooks, on the runtime's thread
 * ------------------------------------------------------------------------------------ */
static void note_place(rt *R, lua_Debug *ar) {
    lock_top(R);
    snprintf(R->watch->blocked_at, sizeof R->watch->blocked_at, "%s:%d", ar->short_src, ar->currentline);
    unlock_top(R);
}

static void note_line(lua_State *L, lua_Debug *ar) {
    rt *R = rt_of(L);
    lua_sethook(L, NULL, 0, 0);
    if (!R->watch) return;
    atomic_fetch_add(&R->watch->fired, 1);
    if (lua_getinfo(L, "Sl", ar)) note_place(R, ar);
}

/* The innermost Lua line of L into ar; 0 if there is none. */
static int innermost(lua_State *L, lua_Debug *ar) {
    for (int level = 0; level < 20 && lua_getstack(L, level, ar); level++)
        if (lua_getinfo(L, "Sl", ar) && ar->currentline > 0) return 1;
    return 0;
}

static void stop_it(lua_State *L, lua_Debug *ar) {
    rt *R = rt_of(L);
    uint64_t start = atomic_load(&R->slice_start), limit = R->watch ? stop_of(R) : 0;
    lua_Debug here;
    if (R->watch) atomic_fetch_add(&R->watch->fired, 1);
    if (!limit || !start || uv_hrtime() - start < limit) { /* the slice that was meant is over */
        if (ar) lua_sethook(L, NULL, 0, 0);
        return;
    }
    if (!*R->watch->blocked_at && innermost(L, &here)) note_place(R, &here);
    for (rt_frame *f = R->frames; f; f = f->prev) lua_sethook(f->from, stop_it, LUA_MASKCOUNT, 1);
    if (R->running && !R->running->cancel_why) R->running->cancel_why = strdup("it ran too long without waiting");
    char place[sizeof R->watch->blocked_at];
    lock_top(R);
    memcpy(place, R->watch->blocked_at, sizeof place);
    unlock_top(R);
    rt_error e = {"overrun", 0, -1, 0};
    err_raise(L, &e,
              "%s%sran for more than %f s without waiting and was stopped; wait in between (task.yield()), or raise the limit (task.limit(s), "
              "{limit = s} of a route, neap serve --time-limit)",
              place, *place ? ": " : "", (double)limit / 1e9);
}

void watch_place(lua_State *L) {
    rt *R = rt_of(L);
    lua_Debug ar;
    atomic_compare_exchange_strong(&R->overrun, &(int){OVERRUN_NOTE}, 0);
    if (R->watch && innermost(L, &ar)) note_place(R, &ar);
}

void watch_breathe(lua_State *L) { stop_it(L, NULL); }

void rt_second_wind(lua_State *L) {
    rt *R = rt_of(L);
    if (!R->watch || !R->running || atomic_load(&R->overrun) != OVERRUN_STOP) return;
    watch_end(R);
    lua_sethook(L, NULL, 0, 0);
    watch_begin(R, L, R->running->limit_ns);
}

/* ---- the thread
 * ------------------------------------------------------------------------------------------------------ */
/* How long the running task has been in one C call that does not look at the clock, or 0: a hook that was set fires at the next instruction, so
   one that is still waiting has met none. Under watch_lock. */
static uint64_t in_c(rt_watchdog *w, lua_State *top, uint64_t id, uint64_t now, lua_Hook hook) {
    rt *R = w->R;
    unsigned long fired = atomic_load(&w->fired), breaths = atomic_load(&R->breaths);
    lua_Hook set = lua_gethook(top);
    if (set && set != note_line && set != stop_it) return 0; /* a debugger's: we cannot know */
    if (w->armed != id || w->armed_fired != fired || w->armed_breaths != breaths) {
        w->armed = id;
        w->armed_at = now;
        w->armed_fired = fired;
        w->armed_breaths = breaths;
    }
    if (set != hook) lua_sethook(top, hook, LUA_MASKCOUNT, 1);
    return now - w->armed_at;
}

static void look(rt_watchdog *w) {
    rt *R = w->R;
    uint64_t start = atomic_load(&R->slice_start), id = R->slice_id, now = uv_hrtime(), limit = stop_of(R);
    if (!start || now < start || now - start < w->warn_ns) return;
    int stop = limit && now - start > limit, stuck = 0;
    char at[sizeof w->blocked_at] = "";
    lua_Debug ar;
    lock_top(R);
    if (R->top && atomic_load(&R->slice_start) == start) {
        if (stop) atomic_store(&R->overrun, OVERRUN_STOP);
        else if (!*w->blocked_at) atomic_store(&R->overrun, OVERRUN_NOTE);
        stuck = in_c(w, R->top, id, now, stop ? stop_it : note_line) > w->stuck_ns && w->reported != id;
        /* The thread has been in that C call for a second and cannot leave the task while we hold the lock: its stack stands still. */
        if (stuck && innermost(R->top, &ar)) snprintf(w->blocked_at, sizeof w->blocked_at, "%s:%d", ar.short_src, ar.currentline);
        memcpy(at, w->blocked_at, sizeof at);
    }
    unlock_top(R);
    if (!stuck) return;
    w->reported = id;
    if (R->stuck) R->stuck(R->stuck_ud, (double)(now - start) / 1e9, at);
    else
        fprintf(stderr, "neap: a task has blocked its loop for %.1f s inside a C function and cannot be stopped%s%s\n", (double)(now - start) / 1e9,
                *at ? "; last seen at " : "", at);
}

static void watch_thread(void *ud) {
    rt_watchdog *w = ud;
    uint64_t tick = w->warn_ns / 2;
    uv_mutex_lock(&w->lock);
    while (!w->quit) {
        uv_cond_timedwait(&w->cond, &w->lock, tick);
        uv_mutex_unlock(&w->lock);
        look(w);
        uv_mutex_lock(&w->lock);
    }
    uv_mutex_unlock(&w->lock);
}

double watch_blocked(rt *R, char *at, size_t size) {
    uint64_t start = atomic_load(&R->slice_start), now = uv_hrtime();
    at[0] = 0;
    if (!R->watch || !start || now < start || now - start < R->watch->warn_ns) return 0;
    lock_top(R);
    snprintf(at, size, "%s", R->watch->blocked_at);
    unlock_top(R);
    return (double)(now - start) / 1e9;
}

int watch_start(rt *R, double warn, double stop, double stuck) {
    watch_stop(R);
    if (warn <= 0) return 0;
    rt_watchdog *w = calloc(1, sizeof *w);
    if (!w) return NEAP_ERR_MEMORY;
    w->R = R;
    w->warn_ns = (uint64_t)(warn * 1e9);
    w->stop_ns = (uint64_t)(stop * 1e9);
    w->stuck_ns = (uint64_t)(stuck * 1e9);
    uv_mutex_init(&w->lock);
    uv_cond_init(&w->cond);
    if (R->running) watch_begin(R, R->running->co, R->running->limit_ns);
    R->watch = w;
    if (uv_thread_create(&w->thread, watch_thread, w)) {
        R->watch = NULL;
        uv_mutex_destroy(&w->lock);
        uv_cond_destroy(&w->cond);
        free(w);
        return NEAP_ERR_IO;
    }
    return 0;
}

void watch_stop(rt *R) {
    rt_watchdog *w = R->watch;
    if (!w) return;
    uv_mutex_lock(&w->lock);
    w->quit = 1;
    uv_cond_signal(&w->cond);
    uv_mutex_unlock(&w->lock);
    uv_thread_join(&w->thread);
    R->watch = NULL;
    uv_mutex_destroy(&w->lock);
    uv_cond_destroy(&w->cond);
    free(w);
}
