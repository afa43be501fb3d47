/* neap_ext.h: for C modules of rocks whose functions wait. A module built against this header needs neap at run time and links with nothing: the
   host leaves a table of functions in the Lua registry. Built once, it runs under every host with the same or a newer minor interface.

       static int line_ready(lua_State *L, int status, lua_KContext ctx) {   // the stack is as it was at the wait
           ... read without blocking; return results, or wait again with neap_ext(L)->wait_fd(...)
       }
       static int l_readline(lua_State *L) {
           return neap_ext(L)->wait_fd(L, "serial.readline", fd, 0, 5.0, line_ready);
       }

   Rules: check arguments first; keep what must live across a wait in a userdata or in Lua values below the top, never in C locals; find your values
   from the bottom of the stack, since the wait leaves a value of its own on top. Everything on the loop's thread, save `post`. */
#ifndef NEAP_EXT_H
#define NEAP_EXT_H
#include <stddef.h>
#include <lua.h>
#include <lauxlib.h>

#define NEAP_EXT_VERSION 1

/* How a wait ended (the host's error codes; others are negative too). */
#define NEAP_EXT_OK        0
#define NEAP_EXT_TIMEOUT   (-5)
#define NEAP_EXT_CANCELLED (-6)

typedef struct rt_wait neap_ext_wait; /* opaque */
typedef struct rt neap_ext_host;      /* opaque: one Lua state and its loop */

typedef struct neap_ext_api {
    size_t size; /* of this table in the running host: a field beyond it is not there */
    int version; /* NEAP_EXT_VERSION of the host; grows only when something old changes */

    /* Parks the calling task until fd can be read (write = 0) or written (1), then calls k(L, LUA_OK or LUA_YIELD, wait). After `timeout` seconds
       (negative: never) or a cancellation the error is raised instead. One waiter a descriptor. Use as `return wait_fd(...)`. */
    int (*wait_fd)(lua_State *L, const char *what, int fd, int write, double timeout, lua_KFunction k);

    /* Runs work(arg) on a thread of the pool and parks the caller until it returned; its result is wait_result(w) in k. arg is freed with free_arg
       (may be NULL) when the work is over, also if the waiter has left meanwhile; the result with free_result. Nothing in work may touch Lua. */
    int (*wait_work)(lua_State *L, const char *what, double timeout, void *(*work)(void *arg), void *arg, void (*free_arg)(void *),
                     void (*free_result)(void *), lua_KFunction k);

    /* The general form: w = wait_new(L, what, timeout); start something with wait_ref(w) as its callback's data; return wait_park(L, w, k). The
       callback calls wait_done once, on the loop's thread (from another thread: through post). wait_new raises where Lua cannot yield. */
    neap_ext_wait *(*wait_new)(lua_State *L, const char *what, double timeout);
    neap_ext_wait *(*wait_ref)(neap_ext_wait *w);
    void (*wait_unref)(neap_ext_wait *w); /* instead of wait_done, if the start failed */
    void (*wait_done)(neap_ext_wait *w, int status, void *result, void (*free_result)(void *));
    int (*wait_park)(lua_State *L, neap_ext_wait *w, lua_KFunction k);
    int (*wait_status)(const neap_ext_wait *w);   /* in k: 0 or what wait_done was given */
    void *(*wait_result)(const neap_ext_wait *w); /* in k: owned by the wait */
    int (*wait_is_left)(neap_ext_wait *w);        /* nonzero: nobody waits any more, the work may stop */

    neap_ext_host *(*host)(lua_State *L);
    int (*post)(neap_ext_host *h, void (*fn)(neap_ext_host *h, void *ud), void *ud); /* any thread: fn runs on the loop's. 0 or negative */

    /* Raises an error object {kind, message, retryable} ("connection", "timeout", "invalid", "io", ...). Never returns. */
    int (*raise)(lua_State *L, const char *kind, int retryable, const char *message);
} neap_ext_api;

#define NEAP_EXT_KEY "neap.ext.api"

/* The host's table; raises where the running program is no neap, or one too old. */
static inline const neap_ext_api *neap_ext(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, NEAP_EXT_KEY);
    const neap_ext_api *api = (const neap_ext_api *)lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!api) luaL_error(L, "this module waits, so it needs neap: run it with neap instead of lua");
    if (api->version != NEAP_EXT_VERSION || api->size < sizeof(neap_ext_api))
        luaL_error(L, "this module was built for interface %d of neap, this one has %d", NEAP_EXT_VERSION, api->version);
    return api;
}
#endif
