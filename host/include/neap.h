/* neap.h: embed the neap host in a C program.

   A `neap` is one Lua 5.4 state on one event loop, with every neap module inside (neap.redis, neap.http, neap.mlp,
   ...). A program may have several; each belongs to the thread that created it. Only neap_post, neap_complete and
   neap_stop may be called from other threads, and the host must outlive those calls.

   Functions that can fail return 0 or a negative code (NEAP_ERR_*, see host/err.h); neap_error gives the text. No
   function exits the process, raises a signal, writes to stdout, or lets a Lua error escape.

       neap_options o;
       neap_options_init(&o);
       neap *h;
       if (neap_create(&h, &o)) return 1;
       if (neap_run_file(h, "app.lua")) fprintf(stderr, "%s\n", neap_error(h));
       neap_loop(h);                        // until nothing is pending, or neap_stop
       neap_close(h);
*/
#ifndef NEAP_H
#define NEAP_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NEAP_API 1 /* grows when the structures below grow */

typedef struct neap neap;
struct uv_loop_s;
struct lua_State;

/* ---- values that cross the border
 * ------------------------------------------------------------------------------------- */
typedef enum { NEAP_NIL, NEAP_BOOLEAN, NEAP_INTEGER, NEAP_NUMBER, NEAP_STRING } neap_type;

/* Strings are bytes with a length; one that neap hands out lives until the function or callback that got it returns. */
typedef struct neap_value {
    neap_type type;
    union {
        int boolean;
        int64_t integer;
        double number;
        struct {
            const char *data;
            size_t len;
        } string;
    } as;
} neap_value;

/* ---- life
 * ------------------------------------------------------------------------------------------------------------- */
typedef struct neap_options {
    size_t size;      /* sizeof(neap_options), set by neap_options_init */
    int api;          /* NEAP_API */
    const char *name; /* for messages; default "neap". Must outlive the host, like argv */
    int argc;         /* the script's `arg`; may be 0 */
    char **argv;
    void *(*alloc)(void *ud, void *ptr, size_t old_size, size_t new_size); /* Lua's allocator contract; NULL: malloc. Lua's memory only */
    void *alloc_ud;
    size_t memory_limit;                             /* bytes that Lua may hold, 0: no limit; past it Lua raises "not enough memory" */
    void (*on_error)(void *ud, const char *message); /* an error that nobody took (a task's, with traceback); NULL: stderr. Loop thread */
    struct uv_loop_s *loop;                          /* the caller's libuv loop, or NULL for an own one; the caller's is never closed */
    int ignore_environment;                          /* nonzero: LUA_PATH, NEAP_PATH and the like are not read */
    void *ud;                                        /* for on_error */
} neap_options;

/* Fills in the defaults. Call it first, then set what differs. */
void neap_options_init(neap_options *o);

/* Creates a host. 0, NEAP_ERR_MEMORY, or NEAP_ERR_INVALID (size or api unknown). */
int neap_create(neap **out, const neap_options *o);

/* Cancels every task, closes everything the host opened, and frees it. NULL does nothing. From a callback of the host
   it is deferred until neap_loop, neap_step, neap_run_file or neap_run_string is about to return. */
void neap_close(neap *h);

/* Text of the last failure of this host, "" if none; valid until its next call. */
const char *neap_error(neap *h);

/* ---- running Lua
 * --------------------------------------------------------------------------------------------------------- */
/* Run a file or a string as the main chunk: waits (Redis, sleep, ...) turn the loop until done. 0, NEAP_ERR_INVALID
   (syntax or run-time error), NEAP_ERR_IO (no such file), NEAP_ERR_MEMORY. */
int neap_run_file(neap *h, const char *path);
int neap_run_string(neap *h, const char *code, const char *chunk_name);

/* Turns the loop until nothing is pending or neap_stop was called. Always 0. */
int neap_loop(neap *h);
/* on = 1: other threads will post, so neap_loop goes on while nothing is pending, until neap_stop (and neap_step with `block` waits for a post).
   0: back to the usual. */
void neap_hold(neap *h, int on);
/* One turn: handles what is there, waits for the next event only if `block`. 1 while something is pending, else 0. */
int neap_step(neap *h, int block);
/* For a foreign event loop: the descriptor to poll for reading, and how long to poll at most in milliseconds (-1: no
 * limit); then neap_step(h, 0). */
int neap_fd(neap *h);
int neap_timeout(neap *h);

/* Results of a call: status 0 and n values, or an error code and one value, the message. The values live until the
 * callback returns. */
typedef void (*neap_done)(neap *h, int status, const neap_value *values, int n, void *ud);

/* Starts the Lua function `name` ("global", "table.field", or "module:function", which requires the module) as a task;
   `done` (may be NULL) is called on the loop thread when it is over, never inside neap_call. Arguments are copied. 0,
   NEAP_ERR_INVALID (no such function), NEAP_ERR_MEMORY. */
int neap_call(neap *h, const char *name, const neap_value *args, int nargs, neap_done done, void *ud);

/* ---- C functions for Lua
 * ------------------------------------------------------------------------------------------------- */
typedef struct neap_args neap_args; /* a call from Lua, valid until the function returns */

int neap_arg_count(neap_args *a);
neap_value neap_arg(neap_args *a, int i);            /* 1-based; past the end, and for tables and functions: nil */
void neap_return(neap_args *a, const neap_value *v); /* adds one result (copied) */
void neap_fail(neap_args *a, const char *message);   /* the call raises this (copied) once the function has returned */

/* A function that answers at once. Loop thread. It may use the calls above, neap_call and neap_post. */
typedef void (*neap_function)(neap *h, neap_args *a, void *ud);
/* Registers it as the global `name` ("f" or "table.f"; tables are made). 0, NEAP_ERR_MEMORY. */
int neap_register(neap *h, const char *name, neap_function fn, void *ud);

/* A function that answers later: it starts its work and returns; the Lua task waits until neap_complete is called with
   its ticket, from any thread. neap_fail inside it raises at once; the ticket is then void. */
typedef uint64_t neap_ticket;
typedef void (*neap_async_function)(neap *h, neap_ticket t, neap_args *a, void *ud);
int neap_register_async(neap *h, const char *name, neap_async_function fn, void *ud);

/* Any thread. Gives a waiting call its results (copied), or with an error text raises it. A ticket whose task has gone
 * is ignored. 0, NEAP_ERR_MEMORY. */
int neap_complete(neap *h, neap_ticket t, const neap_value *values, int n, const char *error);

/* ---- from other threads
 * ------------------------------------------------------------------------------------------------- */
/* Any thread. Runs fn(h, ud) on the loop thread in its next turn. 0, NEAP_ERR_MEMORY. */
int neap_post(neap *h, void (*fn)(neap *h, void *ud), void *ud);
/* Any thread. Makes neap_loop return after its turn. */
void neap_stop(neap *h);

/* The Lua state, for what this interface lacks. Loop thread; leave its stack as you found it. */
struct lua_State *neap_lua(neap *h);

const char *neap_version(void);

#ifdef __cplusplus
}
#endif
#endif
