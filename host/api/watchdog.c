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
#include "host/api/rt_internal.h"

struct rt_watchdog {
    rt *R;
    uv_thread_t thread;
    uv_mutex_t lock; /* guards quit */
    uv_cond_t cond;
    int quit;
    uint64_t warn_ns, stop_ns;
    uint64_t warned, reported; /* slice ids */
    char blocked_at[128];      /* under watch_lock */
};

static void lock_top(rt *R) {
    while (atomic_flag_test_and_set_explicit(&R->watch_lock, memory_order_acquire)) {}
}
static void unlock_top(rt *R) { atomic_flag_clear_explicit(&R->watch_lock, memory_order_release); }

void watch_top(rt *R, lua_State *L) {
    lock_top(R);
    R->top = L;
    unlock_top(R);
}

void watch_begin(rt *R, lua_State *co) {
    watch_top(R, co);
    atomic_store(&R->overrun, 0); /* behind watch_top: the watchdog sets it under the lock, for the slice that it looked at */
    R->slice_id++;
    atomic_store(&R->slice_start, uv_hrtime());
}

void watch_end(rt *R) {
    rt_watchdog *w = R->watch;
    uint64_t ns = uv_hrtime() - atomic_load(&R->slice_start);
    atomic_store(&R->slice_start, 0);
    watch_top(R, NULL);
    if (ns < w->warn_ns) return;
    char text[256];
    snprintf(text, sizeof text, "a task blocked the loop for %.0f ms%s%s", (double)ns / 1e6, *w->blocked_at ? " at " : "", w->blocked_at);
    w->blocked_at[0] = 0;
    R->blocked++;
    if (R->report) R->report(R->report_ud, text);
    else fprintf(stderr, "neap: %s\n", text);
}

/* ---- hooks, on the runtime's thread
 * ------------------------------------------------------------------------------------ */
static void note_line(lua_State *L, lua_Debug *ar) {
    rt *R = rt_of(L);
    lua_sethook(L, NULL, 0, 0);
    if (!R->watch || !lua_getinfo(L, "Sl", ar)) return;
    lock_top(R);
    snprintf(R->watch->blocked_at, sizeof R->watch->blocked_at, "%s:%d", ar->short_src, ar->currentline);
    unlock_top(R);
}

static void stop_it(lua_State *L, lua_Debug *ar) {
    rt *R = rt_of(L);
    uint64_t start = atomic_load(&R->slice_start), limit = R->watch ? R->watch->stop_ns : 0;
    if (!limit || !start || uv_hrtime() - start < limit) { /* the slice that was meant is over */
        if (ar) lua_sethook(L, NULL, 0, 0);
        return;
    }
    for (rt_frame *f = R->frames; f; f = f->prev) lua_sethook(f->from, stop_it, LUA_MASKCOUNT, 1);
    if (R->running && !R->running->cancel_why) R->running->cancel_why = strdup("it ran too long without waiting");
    rt_error e = {"overrun", 0, -1, 1};
    err_raise(L, &e,
              "ran for more than %f s without waiting and was stopped; wait in between (task.yield()), use "
              "task.compute, or raise the limit",
              (double)limit / 1e9);
}

void watch_breathe(lua_State *L) { stop_it(L, NULL); }

/* ---- the thread
 * ------------------------------------------------------------------------------------------------------ */
static void look(rt_watchdog *w) {
    rt *R = w->R;
    uint64_t start = atomic_load(&R->slice_start), id = R->slice_id, now = uv_hrtime();
    if (!start || now < start || now - start < w->warn_ns) return;
    int stop = w->stop_ns && now - start > w->stop_ns;
    char at[sizeof w->blocked_at];
    lock_top(R);
    memcpy(at, w->blocked_at, sizeof at);
    if (R->top && atomic_load(&R->slice_start) == start) {
        if (stop) {
            atomic_store(&R->overrun, 1);
            lua_sethook(R->top, stop_it, LUA_MASKCOUNT, 1);
        } else if (w->warned != id && !lua_gethook(R->top)) lua_sethook(R->top, note_line, LUA_MASKCOUNT, 1);
    }
    unlock_top(R);
    w->warned = id;
    if (stop && now - start > w->stop_ns + (uint64_t)3e9 && w->reported != id) {
        w->reported = id;
        fprintf(stderr, "neap: a task has blocked its loop for %.1f s inside a C function and cannot be stopped%s%s\n", (double)(now - start) / 1e9,
                *at ? "; last seen at " : "", at);
    }
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

int watch_start(rt *R, double warn, double stop) {
    watch_stop(R);
    if (warn <= 0) return 0;
    rt_watchdog *w = calloc(1, sizeof *w);
    if (!w) return NEAP_ERR_MEMORY;
    w->R = R;
    w->warn_ns = (uint64_t)(warn * 1e9);
    w->stop_ns = (uint64_t)(stop * 1e9);
    uv_mutex_init(&w->lock);
    uv_cond_init(&w->cond);
    if (R->running) watch_begin(R, R->running->co);
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
