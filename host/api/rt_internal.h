/* rt_internal.h: what rt.c, wait.c, task.c, co.c and require.c share. No binding includes it. */
#ifndef NEAP_RT_INTERNAL_H
#define NEAP_RT_INTERNAL_H
#include <stdatomic.h>
#include "host/api/mem.h"
#include "host/api/rt.h"

typedef struct rt_watchdog rt_watchdog;
enum { OVERRUN_NOTE = 1, OVERRUN_STOP };

/* One active coroutine.resume/wrap call; lives on the C stack. The chain runs from the innermost coroutine down to the
 * task or the main chunk. */
typedef struct rt_frame {
    lua_State *co, *from;
    struct rt_frame *prev;
} rt_frame;

typedef struct rt_hook {
    rt_turn_fn turn;
    void (*close)(void *ud);
    void *ud;
    struct rt_hook *next;
} rt_hook;

typedef struct rt_posted {
    void (*fn)(rt *R, void *ud);
    void (*drop)(void *ud);
    void *ud;
    struct rt_posted *next;
} rt_posted;

enum { RT_POOL = 64 }; /* threads kept for reuse */

struct rt {
    lua_State *L;
    uv_loop_t *loop, own_loop;
    int owns_loop, library, closing, stopping; /* stopping: neap.stop was called */
    uv_prepare_t prepare;                      /* drains the ready queue before each poll */
    uv_idle_t idle;                            /* active while something is ready: the poll must not block */
    uv_timer_t timer;                          /* the nearest deadline */
    uv_async_t async;                          /* rt_post and the interrupt */
    int handles;                               /* our handles not yet closed */

    rt_frame *frames;
    rt_task *running;
    rt_task *ready, **ready_tail;
    rt_task *tasks; /* every live task */
    size_t ntasks;
    rt_task *spare_tasks; /* ended ones, for the next */
    int nspare_tasks;
    uint64_t next_id;
    int pool[RT_POOL], npool; /* registry references of idle threads */

    rt_wait **heap;
    int nheap, heap_cap;
    int spares, nspare;    /* used-up wait userdata kept for the next waits: registry reference of their table, and how many (wait.c) */
    const void *wait_meta; /* the waits' metatable, by address */
    rt_wait *main_wait;    /* what the main chunk waits for, if it does */

    rt_hook *turns, *closers;
    int turns_changed;
    uv_mutex_t lock; /* guards posted */
    rt_posted *posted;
    volatile int interrupted;
    uint64_t interrupted_until; /* uv_hrtime: so long a running task may go on, see rt_interrupt */
    void (*report)(void *ud, const char *text);
    void *report_ud;
    lua_Alloc alloc; /* the caller's, under the limit; NULL: mem */
    void *alloc_ud;
    rt_mem mem;
    const void *class_meta[RT_CLASSES]; /* for rt_checkudata; NULL: not seen yet */
    void *slots[RT_SLOTS];
    size_t memory_used, memory_limit;
    rt_watchdog *watch; /* NULL: no time limits */
    atomic_flag watch_lock;
    lua_State *top;               /* the coroutine that runs now; under watch_lock, kept only while `watch` */
    _Atomic uint64_t slice_start; /* when the running task was resumed, 0: none runs */
    _Atomic uint64_t slice_id;
    _Atomic uint64_t slice_limit;                            /* the running task's own time limit; 0: the runtime's, UINT64_MAX: none */
    atomic_ulong breaths;                                    /* how often rt_breathe was called */
    void (*stuck)(void *ud, double seconds, const char *at); /* on the watchdog's thread: a task sits in a C call that cannot be stopped */
    void *stuck_ud;
    atomic_int halt;       /* the process ends: what runs is out of time */
    int abandoned;         /* threads that sit in such a call while the process ends */
    atomic_int overrun;    /* for rt_breathe: the running task is late (note where it is), or its time is over */
    unsigned long blocked; /* slices past the warning */
    int failed;            /* a task ended with an error that nobody took */
};

struct rt_task {
    rt *R;
    lua_State *co;
    int co_ref;
    int nargs;
    int started, done, queued, killed, keep_thread;
    int status;
    int shield;
    char *cancel_why;     /* set once cancelled */
    double cancel_raised; /* when the first wait raised it, or 0 */
    char *traceback, *name, *spawned_at;
    rt_wait *wait; /* innermost wait it is parked on */
    task_done_fn done_fn;
    void *ud;
    void *handle;          /* mod_task.c's */
    uint64_t id, limit_ns; /* limit_ns: its own time limit between two waits; 0: the runtime's, UINT64_MAX: none */
    int refs;
    rt_task *next_ready, *prev, *next;
};

enum { WAIT_PENDING, WAIT_DONE, WAIT_LEFT };

/* wait.c */
void wait_leave(rt_wait *w, int status); /* the waiter goes: status tells it why; the operation is told to stop */
void wait_init(lua_State *L);            /* the metatable */
void wait_close(rt *R);
void wait_expire(rt *R); /* ends the waits whose deadline has passed, arms the timer */

/* task.c */
extern const char rt_marker;     /* &rt_marker is the first of the two values that a parked coroutine yields */
int co_is_parked(lua_State *co); /* is this coroutine in a host wait? */
int task_resume(rt *R, lua_State *co, lua_State *from, int nargs, int *nres); /* lua_resume with the frame chain kept */
void task_ready(rt_task *t);
int task_drain(rt *R);                   /* runs what is ready; returns nonzero if anything ran */
void task_turn_until(rt *R, rt_wait *w); /* main thread: turns the loop until w is over */
void task_close_all(rt *R);
void task_report(rt_task *t); /* tells people of the error on top of its thread */

/* watchdog.c */
int watch_start(rt *R, double warn, double stop, double stuck); /* seconds; warn 0: off. 0, NEAP_ERR_MEMORY, NEAP_ERR_IO */
void watch_stop(rt *R);
void watch_begin(rt *R, lua_State *co, uint64_t limit_ns); /* a task is resumed */
double watch_blocked(rt *R, char *at, size_t size); /* any thread: for how long the running task has blocked the loop, and where; 0 if it does not */
void watch_end(rt *R);
void watch_top(rt *R, lua_State *L); /* L runs now */
void watch_breathe(lua_State *L);    /* raises if the running task's time is over */
void watch_place(lua_State *L);      /* notes which line L is at */

/* co.c, lib_*.c, require.c, modules.c, error.c */
void co_install(lua_State *L);
void lib_string_install(lua_State *L);
void lib_long_install(lua_State *L);
void require_install(lua_State *L);
void modules_install(lua_State *L);
void err_init(lua_State *L);

/* rt.c */
typedef struct rt_options {
    uv_loop_t *loop; /* NULL: its own */
    int library;     /* embedded: no exit, signals or stdout */
    int noenv;       /* -E: environment variables are ignored */
    lua_Alloc alloc; /* NULL: malloc */
    void *alloc_ud;
    size_t memory_limit;                        /* bytes Lua may hold, 0: no limit */
    void (*report)(void *ud, const char *text); /* errors that nobody took; NULL: stderr */
    void *report_ud;
} rt_options;
rt *rt_new(const rt_options *o);         /* NULL on lack of memory */
int rt_close(rt *R);                     /* how many of its threads could not be ended: then the process must go by _exit */
void rt_wake(rt *R);                     /* the next poll must not block */
void rt_report(rt *R, const char *text); /* an error that nobody took */
void rt_interrupt(rt *R);                /* async-signal-safe: Ctrl-C */
#endif
