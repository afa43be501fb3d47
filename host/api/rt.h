/* rt.h: the Lua runtime, as every binding sees it. One `rt` is one Lua state on one libuv loop in one thread; nothing
   here may be called from another thread except rt_post.

   A binding that waits has three parts:

       static int done(lua_State *L, int status, lua_KContext ctx) {       // stack: as it was when wait_park was called
           rt_wait *w = (rt_wait *)ctx;
           if (w->status) return wait_raise(L, w);                         // operation failed
           lua_pushstring(L, w->result);
           return 1;
       }
       static void replied(char *text, void *ud) {                         // callback on the loop thread
           wait_done(ud, 0, text, free);
       }
       static int l_get(lua_State *L) {
           const char *key = luaL_checkstring(L, 1);                       // 1. check everything: it may raise
           rt_wait *w = wait_new(L, "redis.get", 5.0);                     // 2. pushes the owner; raises where Lua
   cannot yield int err = neap_thing_get(thing, key, replied, wait_ref(w));     // 3. start if (err) { wait_unref(w);
   return err_code(L, err, "redis.get: cannot start"); } return wait_park(L, w, done); // 4. park; `done` runs when it
   is over
       }

   In a task the coroutine yields; through a user's own coroutines the wait bubbles up to the task; on the main thread
   the loop turns until the result is there. Cancellation and the deadline are raised at the wait point before the
   continuation runs. */
#ifndef NEAP_RT_H
#define NEAP_RT_H
#include <lua.h>
#include <lauxlib.h>
#include <uv.h>
#include "host/err.h"

typedef struct rt rt;
typedef struct rt_task rt_task;

/* ---- the runtime ----------------------------------------------------------------------------------------------------
 */
rt *rt_of(lua_State *L);   /* the runtime of this state (any of its threads) */
uv_loop_t *rt_loop(rt *R); /* its loop */
lua_State *rt_main(rt *R); /* its main thread */
double rt_now(rt *R);      /* the loop's monotonic clock, seconds */
int rt_is_library(rt *R);  /* nonzero when embedded: no exit(), no signals, no stdout of our own */

/* A pointer that a module keeps with the runtime, at first NULL. What it points to is the module's: a userdata that the registry anchors, say. */
enum rt_slot { RT_SLOT_JSON, RT_SLOTS };
void **rt_slot(rt *R, enum rt_slot s);

/* luaL_checkudata for the classes that a request meets many times: by the metatable's address, which never changes once the class is registered. */
enum rt_class { RT_CLASS_REQUEST, RT_CLASS_BATCH, RT_CLASS_SENSORS, RT_CLASS_JOURNAL, RT_CLASSES };
void *rt_checkudata(lua_State *L, int idx, enum rt_class c, const char *name);

/* Turn hook: called before each poll, after the ready tasks ran, again until nobody makes progress. Returns nonzero if
   it made some. Use it to flush what was queued during the turn. Removed by the same pair; both are cheap. 0 or
   NEAP_ERR_MEMORY. */
typedef int (*rt_turn_fn)(void *ud);
int rt_on_turn(rt *R, rt_turn_fn fn, void *ud);
void rt_off_turn(rt *R, rt_turn_fn fn, void *ud);

/* Called once when the runtime closes: fn(ud) before the Lua state is closed (stop servers, end children). Last
   registered, first called. It must not turn the loop or call Lua. */
int rt_at_close(rt *R, void (*fn)(void *ud), void *ud);
void rt_off_close(rt *R, void (*fn)(void *ud), void *ud);

/* Runs fn(R, ud) on the runtime's thread in its next turn. The only call that any thread may make; the runtime must
 * outlive it. */
int rt_post(rt *R, void (*fn)(rt *R, void *ud), void *ud);
/* The same for a ud that the post owns: if the runtime closes first, drop(ud) is called instead of fn. */
int rt_post_owned(rt *R, void (*fn)(rt *R, void *ud), void (*drop)(void *ud), void *ud);

/* For C functions that may run long without waiting: call it every few thousand steps, where raising is safe. It returns at once, or raises because
   the task's time is over (task.limits) or Ctrl-C was pressed; the loop's other tasks do not run meanwhile. */
void rt_breathe(lua_State *L);
/* For whoever holds the outermost pcall of a task, once that has caught the error of an overrun: the time begins anew, for what must be said of it.
 */
void rt_second_wind(lua_State *L);
/* The same question without raising, for core code that is to be told through a pointer: nonzero when it should give up. */
int rt_out_of_breath(rt *R);

/* ---- waits ----------------------------------------------------------------------------------------------------------
 */
typedef struct rt_wait {
    int status;                                  /* 0 or NEAP_ERR_*, valid once done */
    void *result;                                /* what the callback gave; freed with the wait */
    void (*free_result)(void *);                 /* or NULL */
    void *op;                                    /* optional: the operation, for `cancel` */
    void (*cancel)(struct rt_wait *w, void *op); /* optional: called once if the waiter leaves (cancel, deadline, close) before the callback came */
    int quiet_deadline;                          /* set: the deadline is no error, the continuation sees status NEAP_ERR_TIMEOUT (sleep, recv
                                                    with timeout) */
    uint64_t own;                                /* these two are the binding's own, 0 at first */
    double own_s;
    /* private to wait.c and task.c */
    rt *R;
    rt_task *task; /* parked task, or NULL: the main chunk waits */
    lua_KFunction k;
    const char *what;
    double deadline;
    int heap_index; /* place in the deadline heap, or -1 */
    int at;         /* stack index of the waiter's userdata */
    int refs;
    char state;
} rt_wait;

/* Checks that a wait is possible here (raises the named error if not), pushes a userdata that owns the waiter's half,
   and returns the wait. `what` (static string) names the operation in errors; timeout in seconds, negative = none. */
rt_wait *wait_new(lua_State *L, const char *what, double timeout);
int wait_possible(lua_State *L); /* would wait_new raise here? 0 if so: for work that can also be done at once */
rt_wait *wait_ref(rt_wait *w);   /* one reference for the operation's callback; returns w */
void wait_unref(rt_wait *w);
/* Lets a wait that has a time limit end `seconds` from now at the latest. */
void wait_shorten(rt_wait *w, double seconds);
int wait_is_left(rt_wait *w); /* nonzero once the waiter has gone: the callback may drop its work */

/* Completion: stores status and result, marks the waiter ready and drops the callback's reference. If the waiter has
   gone the result is freed. free_result may be NULL. Call once per wait_ref, on the loop thread. */
void wait_done(rt_wait *w, int status, void *result, void (*free_result)(void *));

/* Parks the caller until the wait is done, then runs k(L, LUA_YIELD or LUA_OK, (lua_KContext)w). Use as `return
 * wait_park(L, w, k)`. */
int wait_park(lua_State *L, rt_wait *w, lua_KFunction k);

/* Raises w->status as an error object ("what: timeout"). */
int wait_raise(lua_State *L, rt_wait *w);

/* ---- tasks ----------------------------------------------------------------------------------------------------------
 */
/* Called on the loop thread when the task is over, with its thread: status LUA_OK and nresults values on top of co, or
   an error status and the error value on top. Must not raise; must not resume anything. The traceback (or NULL) lives
   until the call returns. */
typedef void (*task_done_fn)(rt_task *t, lua_State *co, int status, int nresults, const char *traceback, void *ud);

/* Starts a task: pops nargs arguments and the function below them from L. It runs in the next drain of the ready queue,
   never inside this call. Without `done` an error is logged with its traceback. `name` (copied, may be NULL) is for
   people. Returns a borrowed pointer, valid until `done` was called; task_ref keeps it longer. Raises on lack of
   memory. */
rt_task *task_start(rt *R, lua_State *L, int nargs, const char *name, task_done_fn done, void *ud);
/* The same for a C function that catches its errors itself: called without the task's own protection, so an error ends it without a traceback. */
rt_task *task_start_bare(rt *R, lua_State *L, int nargs, task_done_fn done, void *ud);
rt_task *task_ref(rt_task *t);
void task_unref(rt_task *t);

/* Cancels: the task's present or next wait raises {kind="cancelled", message=why}. A finished task: nothing. */
void task_cancel(rt_task *t, const char *why);
rt_task *task_current(rt *R); /* the running task, NULL for the main chunk */
int task_is_done(rt_task *t);

/* ---- errors ---------------------------------------------------------------------------------------------------------
 */
typedef struct rt_error {
    const char *kind;
    int retryable;
    int sent;  /* 1: the request may have run; 0: it did not; -1: does not apply, the field is left out */
    int where; /* nonzero: prepend "file:line: " of the Lua caller */
} rt_error;
/* Raises an error object {kind, message, retryable, sent}; lua_pushfstring's formats. Never returns. */
int err_raise(lua_State *L, const rt_error *e, const char *fmt, ...);
void err_push(lua_State *L, const rt_error *e, const char *fmt, ...); /* pushes the object instead of raising it */
int err_code(lua_State *L, int code, const char *fmt, ...);           /* raises with kind = neap_err_kind(code); IO appends strerror(errno) */
int err_is(lua_State *L, int idx, const char *kind);                  /* is the value at idx an error object of this kind? */

/* "did you mean" for option and key names: the entry of the NULL-terminated list nearest to `name`, or NULL if more than a third of the letters are
   wrong in each. The beginning of a name (three letters or more) is near to it. */
const char *err_nearest(const char *name, const char *const *list);
#endif
