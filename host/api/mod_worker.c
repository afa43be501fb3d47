/* mod_worker.c: neap.worker.core. A worker is a thread with its own loop and Lua state; workers share nothing but short
   text messages. The thread that started them is worker 1 and joins them when it closes. Message passing: a topic and a
   text are copied, posted to the other runtime, and handed to the function it registered, as a task. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "host/api/rt_internal.h"

int luaopen_neap_worker_core(lua_State *L);

#define SELF     "neap.worker.self"     /* registry: light userdata, this state's worker */
#define RECEIVER "neap.worker.receiver" /* registry: function(topic, text, from) */

enum { MAX_WORKERS = 256, MAX_LOST = 8, END_S = 3 };
typedef struct group group;
typedef struct worker {
    group *g;
    int id;
    uv_thread_t thread;
    rt *R;           /* under g->lock; NULL when the runtime is gone */
    atomic_int lost; /* it sits in a C call that nobody can stop, and another one has its place */
    char *module, *fn;
    char **args;
    int nargs;
    struct worker *next_lost;
} worker;

struct group {
    uv_mutex_t lock;
    uv_sem_t ready; /* posted once by each thread when messages can reach it */
    int count;
    worker *w[MAX_WORKERS + 1]; /* 1..count */
    worker *lost;               /* under lock: those that were replaced and have not returned */
    int nlost;
};

static void worker_free(worker *w) {
    if (!w) return;
    for (int i = 0; i < w->nargs; i++) free(w->args[i]);
    free(w->args);
    free(w->module);
    free(w->fn);
    free(w);
}

/* ---- messages -------------------------------------------------------------------------------------------------------
 */
typedef struct message {
    int from;
    size_t len;
    char *topic, *text;
} message;

static void message_free(message *m) {
    free(m->topic);
    free(m->text);
    free(m);
}

static void message_drop(void *ud) { message_free(ud); }

static int deliver_lua(lua_State *L) {
    message *m = lua_touserdata(L, 1);
    if (lua_getfield(L, LUA_REGISTRYINDEX, RECEIVER) != LUA_TFUNCTION) { /* nobody listens: worker.lua was never required */
        if (strcmp(m->topic, "stop") == 0) {
            rt_of(L)->stopping = 1;
            uv_stop(rt_of(L)->loop);
        }
        return 0;
    }
    lua_pushstring(L, m->topic);
    lua_pushlstring(L, m->text, m->len);
    lua_pushinteger(L, m->from);
    task_start(rt_of(L), L, 3, "worker message", NULL, NULL);
    return 0;
}

static void deliver(rt *R, void *ud) {
    lua_pushcfunction(R->L, deliver_lua);
    lua_pushlightuserdata(R->L, ud);
    if (lua_pcall(R->L, 1, 0, 0) != LUA_OK) lua_pop(R->L, 1);
    message_free(ud);
}

static message *message_new(int from, const char *topic, const char *text, size_t len) {
    message *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->from = from;
    m->len = len;
    m->topic = strdup(topic);
    m->text = malloc(len + 1);
    if (!m->topic || !m->text) {
        message_free(m);
        return NULL;
    }
    memcpy(m->text, text, len);
    return m;
}

/* 0, NEAP_ERR_CLOSED when that worker is gone, NEAP_ERR_MEMORY. Any thread. */
static int send_to(group *g, int id, int from, const char *topic, const char *text, size_t len) {
    message *m = message_new(from, topic, text, len);
    if (!m) return NEAP_ERR_MEMORY;
    uv_mutex_lock(&g->lock);
    int err = g->w[id] && g->w[id]->R ? rt_post_owned(g->w[id]->R, deliver, message_drop, m) : NEAP_ERR_CLOSED;
    uv_mutex_unlock(&g->lock);
    if (err) message_free(m);
    return err;
}

/* ---- the thread
 * ------------------------------------------------------------------------------------------------------ */
static int worker_main(lua_State *L) {
    worker *w = lua_touserdata(L, 1);
    lua_pushlightuserdata(L, w);
    lua_setfield(L, LUA_REGISTRYINDEX, SELF);
    lua_getglobal(L, "require");
    lua_pushstring(L, w->module);
    lua_call(L, 1, 1);
    lua_getfield(L, -1, w->fn);
    luaL_checkstack(L, w->nargs, "worker arguments");
    for (int i = 0; i < w->nargs; i++) lua_pushstring(L, w->args[i]);
    lua_call(L, w->nargs, 0);
    return 0;
}

static int traceback(lua_State *L) {
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

/* On the watchdog's thread of a worker: worker 1 decides what is to be done. */
static void on_stuck(void *ud, double seconds, const char *at) {
    worker *w = ud;
    char text[200];
    if (atomic_load(&w->lost)) return; /* its place is taken already */
    int n = snprintf(text, sizeof text, "%.1f %s", seconds, at);
    send_to(w->g, 1, w->id, "stuck", text, (size_t)n);
}

static void leave(worker *w) { /* the thread ends: nobody may find its runtime any more */
    uv_mutex_lock(&w->g->lock);
    w->R = NULL;
    uv_mutex_unlock(&w->g->lock);
}

static void forget_lost(worker *w) {
    group *g = w->g;
    uv_mutex_lock(&g->lock);
    for (worker **p = &g->lost; *p; p = &(*p)->next_lost)
        if (*p == w) {
            *p = w->next_lost;
            g->nlost--;
            break;
        }
    uv_mutex_unlock(&g->lock);
    worker_free(w); /* nobody joins its thread */
}

static void thread_main(void *ud) {
    worker *w = ud;
    group *g = w->g;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* signals belong to worker 1 */
    rt *R = rt_new(&(rt_options){0});
    if (!R) {
        fprintf(stderr, "neap: worker %d cannot start: out of memory\n", w->id);
        uv_sem_post(&g->ready);
        return;
    }
    R->stuck = on_stuck;
    R->stuck_ud = w;
    uv_mutex_lock(&g->lock);
    w->R = R;
    uv_mutex_unlock(&g->lock);
    uv_sem_post(&g->ready);
    lua_gc(R->L, LUA_GCGEN, 0, 0);
    lua_pushcfunction(R->L, traceback);
    lua_pushcfunction(R->L, worker_main);
    lua_pushlightuserdata(R->L, w);
    if (lua_pcall(R->L, 1, 0, 1) != LUA_OK) {
        const char *msg = lua_tostring(R->L, -1);
        fprintf(stderr, "neap: worker %d failed: %s\n", w->id, msg);
        send_to(g, 1, w->id, "failed", msg, strlen(msg));
    } else {
        lua_settop(R->L, 0);
        uv_ref((uv_handle_t *)&R->async); /* lives until told to stop, also when only messages can come */
        while (!R->stopping) uv_run(R->loop, UV_RUN_DEFAULT);
    }
    leave(w); /* no message comes from here on */
    rt_close(R);
    if (atomic_load(&w->lost)) forget_lost(w);
}

/* Joins the worker's thread; what runs there now is stopped as if its time were over. False if it has not ended after so many seconds. */
static int ends_within(worker *w, int seconds) {
    struct timespec until;
    uv_mutex_lock(&w->g->lock);
    if (w->R) atomic_store(&w->R->halt, 1);
    uv_mutex_unlock(&w->g->lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    return pthread_timedjoin_np(w->thread, NULL, &until) == 0;
}

/* Worker 1 closes. A thread that sits in a C call which nobody can stop is left behind, with what it may still touch. */
static void end_group(void *ud) {
    group *g = ud;
    for (int id = 2; id <= g->count; id++) send_to(g, id, 1, "stop", "", 0);
    int busy = 0;
    for (int id = 2; id <= g->count; id++) busy += !ends_within(g->w[id], END_S);
    uv_mutex_lock(&g->lock);
    int left = g->nlost + busy;
    rt *R = g->w[1]->R;
    uv_mutex_unlock(&g->lock);
    R->abandoned = left;
    if (left) return;
    for (int id = 1; id <= g->count; id++) worker_free(g->w[id]);
    uv_mutex_destroy(&g->lock);
    uv_sem_destroy(&g->ready);
    free(g);
}

/* ---- Lua ------------------------------------------------------------------------------------------------------------
 */
static worker *self(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, SELF);
    worker *w = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return w;
}

enum { MAX_ARGS = 32 };

static worker *worker_new(group *g, int id, const char *module, const char *fn, char *const *args, int nargs) {
    worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->g = g;
    w->id = id;
    w->module = strdup(module);
    w->fn = strdup(fn);
    w->args = calloc((size_t)nargs + 1, sizeof *w->args);
    int ok = w->module && w->fn && w->args;
    for (; ok && w->nargs < nargs; w->nargs++) ok = (w->args[w->nargs] = strdup(args[w->nargs])) != NULL;
    if (ok) return w;
    worker_free(w);
    return NULL;
}

static int l_start(lua_State *L) { /* start(count, module, fn, args...): count-1 threads run
                                      require(module)[fn](args...); this state is worker 1 */
    int count = (int)luaL_checkinteger(L, 1), nargs = lua_gettop(L) - 3;
    const char *module = luaL_checkstring(L, 2), *fn = luaL_checkstring(L, 3);
    luaL_argcheck(L, count >= 1 && count <= MAX_WORKERS, 1, "between 1 and 256 workers");
    luaL_argcheck(L, nargs <= MAX_ARGS, 4 + MAX_ARGS, "at most 32 arguments");
    for (int i = 0; i < nargs; i++) luaL_checkstring(L, 4 + i);
    if (self(L)) return luaL_error(L, "workers are running already");
    rt *R = rt_of(L);
    group *g = calloc(1, sizeof *g);
    if (!g || rt_at_close(R, end_group, g)) {
        free(g);
        return err_code(L, NEAP_ERR_MEMORY, "worker.start: out of memory");
    }
    uv_mutex_init(&g->lock);
    uv_sem_init(&g->ready, 0);
    if (!(g->w[1] = worker_new(g, 1, "", "", NULL, 0))) return err_code(L, NEAP_ERR_MEMORY, "worker.start: out of memory");
    g->w[1]->R = R;
    g->count = 1;
    lua_pushlightuserdata(L, g->w[1]);
    lua_setfield(L, LUA_REGISTRYINDEX, SELF);
    char *args[MAX_ARGS];
    for (int i = 0; i < nargs; i++) args[i] = (char *)lua_tostring(L, 4 + i);
    for (int id = 2; id <= count; id++)
        if (!(g->w[id] = worker_new(g, id, module, fn, args, nargs))) return err_code(L, NEAP_ERR_MEMORY, "worker.start: out of memory");
    uv_mutex_lock(&g->lock); /* the new threads read count under this lock */
    for (int id = 2; id <= count; id++) {
        if (uv_thread_create(&g->w[id]->thread, thread_main, g->w[id])) {
            uv_mutex_unlock(&g->lock);
            return err_code(L, NEAP_ERR_IO, "worker.start: cannot start thread %d of %d", id, count);
        }
        g->count = id;
    }
    uv_mutex_unlock(&g->lock);
    for (int id = 2; id <= count; id++) uv_sem_wait(&g->ready);
    return 0;
}

/* replace(id) -> true, or false and why: the worker sits in a C call that nobody can stop; a new thread with the same module, function and
   arguments takes its place. The old one gets the message "replaced" when it returns, should end then, and is joined by nobody. */
static int l_replace(lua_State *L) {
    worker *me = self(L);
    int id = (int)luaL_checkinteger(L, 1);
    if (!me || me->id != 1) return luaL_error(L, "worker.replace: only worker 1, after worker.start");
    group *g = me->g;
    luaL_argcheck(L, id >= 2 && id <= g->count, 1, "no such worker");
    worker *old = g->w[id], *w = worker_new(g, id, old->module, old->fn, old->args, old->nargs);
    message *m = message_new(1, "replaced", "", 0);
    const char *why = w && m ? NULL : "out of memory";
    uv_mutex_lock(&g->lock);
    if (!why && g->nlost >= MAX_LOST) why = "too many threads are blocked already";
    int ended = !old->R;                                                                     /* its function failed: started again, nothing is lost */
    if (!why && uv_thread_create(&w->thread, thread_main, w)) why = "no thread can be made"; /* it waits for the lock before it is seen */
    if (!why) { g->w[id] = w; }
    if (!why && !ended) {
        atomic_store(&old->lost, 1);
        old->next_lost = g->lost;
        g->lost = old;
        g->nlost++;
        pthread_detach(old->thread);
        if (!rt_post_owned(old->R, deliver, message_drop, m)) m = NULL;
    }
    uv_mutex_unlock(&g->lock);
    if (m) message_free(m);
    if (!why && ended) {
        uv_thread_join(&old->thread);
        worker_free(old);
    }
    if (!why) uv_sem_wait(&g->ready);
    else worker_free(w);
    lua_pushboolean(L, !why);
    lua_pushstring(L, why);
    return 2;
}

/* lost() -> how many threads were replaced and have not returned, and whether this one was. Cheap. */
static int l_lost(lua_State *L) {
    worker *w = self(L);
    int n = 0;
    if (w) {
        uv_mutex_lock(&w->g->lock);
        n = w->g->nlost;
        uv_mutex_unlock(&w->g->lock);
    }
    lua_pushinteger(L, n);
    lua_pushboolean(L, w && atomic_load(&w->lost));
    return 2;
}

static int l_blocked(lua_State *L) { /* blocked(id) -> seconds for which that worker's loop has been blocked (0: it is not), "file:line" or "" */
    worker *w = self(L);
    int id = (int)luaL_checkinteger(L, 1);
    char at[128] = "";
    double s = 0;
    luaL_argcheck(L, id >= 1 && id <= MAX_WORKERS, 1, "no such worker");
    if (w) {
        uv_mutex_lock(&w->g->lock);
        if (w->g->w[id] && w->g->w[id]->R) s = watch_blocked(w->g->w[id]->R, at, sizeof at);
        uv_mutex_unlock(&w->g->lock);
    }
    lua_pushnumber(L, s);
    lua_pushstring(L, at);
    return 2;
}

static int l_self(lua_State *L) { /* self() -> id, count */
    worker *w = self(L);
    if (!w) {
        lua_pushinteger(L, 1);
        lua_pushinteger(L, 1);
        return 2;
    }
    lua_pushinteger(L, w->id);
    uv_mutex_lock(&w->g->lock);
    lua_pushinteger(L, w->g->count);
    uv_mutex_unlock(&w->g->lock);
    return 2;
}

static int l_send(lua_State *L) { /* send(id, topic, text) -> true, or false when that worker is gone */
    int id = (int)luaL_checkinteger(L, 1);
    const char *topic = luaL_checkstring(L, 2);
    size_t len;
    const char *text = luaL_optlstring(L, 3, "", &len);
    worker *w = self(L);
    if (!w) return luaL_error(L, "worker.send: no workers were started");
    luaL_argcheck(L, id >= 1 && id <= MAX_WORKERS, 1, "no such worker");
    int err = send_to(w->g, id, w->id, topic, text, len);
    if (err == NEAP_ERR_MEMORY) return err_code(L, err, "worker.send: out of memory");
    lua_pushboolean(L, err == 0);
    return 1;
}

static int l_receiver(lua_State *L) { /* receiver(fn): fn(topic, text, from) runs as a task for each message */
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, RECEIVER);
    return 0;
}

int luaopen_neap_worker_core(lua_State *L) {
    static const luaL_Reg fns[] = {{"start", l_start},     {"self", l_self}, {"send", l_send},       {"receiver", l_receiver},
                                   {"replace", l_replace}, {"lost", l_lost}, {"blocked", l_blocked}, {NULL, NULL}};
    luaL_newlib(L, fns);
    return 1;
}
