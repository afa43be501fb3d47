/* redis_lua.h: what the files of the neap.redis binding share: mod_redis.c (clients), redis_call.c (commands), redis_value.c (Lua values to the wire
   and replies to Lua), redis_sub_lua.c (subscriptions), redis_own.c (the private server). */
#ifndef NEAP_REDIS_LUA_H
#define NEAP_REDIS_LUA_H
#include "host/api/rt.h"
#include "host/redis.h"

#define REDIS_CLIENT "neap.redis.client"
#define REDIS_PIPE   "neap.redis.pipe"

/* A client as Lua holds it; r is NULL once closed. */
typedef struct redis_client {
    neap_redis *r;
    rt *R;
    neap_buf scratch;      /* a command while it is being put together */
    int handlers;          /* registry reference to {reconnect = fn, disconnect = fn}, or LUA_NOREF */
    int was_ready;         /* for telling a reconnection from the first connection */
    double timeout;        /* of a request, seconds */
    struct redis_hub *hub; /* its subscriptions (redis_sub_lua.c), or NULL */
    int dedicated;         /* a connection for one user: commands that change its state are allowed */
} redis_client;

/* Commands noted down by pipeline() and multi(). Uservalue 1: list of command userdata (their shapes). */
typedef struct redis_pipe {
    neap_buf buf;
    uint32_t count;
} redis_pipe;

/* What a reply becomes. */
enum redis_shape {
    SHAPE_PLAIN,   /* nil, string, integer, list; null inside a list is false */
    SHAPE_MAP,     /* flat list of pairs -> table */
    SHAPE_MAPS,    /* list of such */
    SHAPE_ENTRIES, /* stream entries -> list of {id, ms, seq, fields} */
    SHAPE_STREAMS, /* XREAD: {stream = entries} */
    SHAPE_CLAIMED, /* XAUTOCLAIM: next start, entries */
    SHAPE_WIRE     /* as it is */
};

/* A command, upvalue of its closure. */
typedef struct redis_cmd {
    uint32_t flags; /* NEAP_REDIS_RETRY */
    int refused;    /* changes the connection: dedicated clients only */
    int blocking;   /* waits in the server: may not share a connection */
    int words;      /* 1, or 2 for CONFIG GET */
    enum redis_shape shape;
    char what[48]; /* "redis.xadd" */
    size_t prefix_len;
    char prefix[]; /* its words in wire form */
} redis_cmd;

/* ---- redis_value.c */
/* How many wire arguments the stack values first..top make; raises on what has no wire form. Tables: lists are spread, others become pairs. */
size_t redis_count_args(lua_State *L, const char *what, int first, int top);
/* Appends them. 0 or NEAP_ERR_MEMORY; never raises after redis_count_args. */
int redis_put_args(lua_State *L, neap_buf *b, int first, int top);
/* Pushes one value. `top`: the reply itself, not inside an array (its null is nil). May raise for lack of memory. */
void redis_push_reply(lua_State *L, const neap_reply *n, enum redis_shape shape, int top);
/* Pushes an error object for a failed request; key: the command's first argument or NULL. */
void redis_push_error(lua_State *L, const char *what, int status, const neap_reply *reply, const char *key);

/* ---- redis_call.c */
int redis_l_command(lua_State *L);    /* core.command(name, words, flags) -> function(client or pipe, ...) */
int redis_l_pipe(lua_State *L);       /* core.pipe() */
int redis_l_run(lua_State *L);        /* core.run(client, pipe, transaction) -> results with n, first failed index */
int redis_l_on_default(lua_State *L); /* core.on_default: see there */
void redis_pipe_meta(lua_State *L);
void redis_free_reply(void *reply); /* as wait_done wants it */
/* The short argument at idx, a command's first, for error messages; NULL if there is none worth showing. */
const char *redis_key_of(lua_State *L, int idx);
/* A request did not even start: lets go of w and raises. */
int redis_cannot_start(lua_State *L, rt_wait *w, const char *what, int e, const neap_redis *r);

/* ---- redis_columns_lua.c */
int redis_l_columns(lua_State *L); /* core.columns: see there */

/* ---- mod_redis.c */
redis_client *redis_check_client(lua_State *L, int idx); /* raises if it is none or closed */
void redis_client_shut(redis_client *c);                 /* closes; no Lua; may be repeated */
/* Starts the function field `name` of the registry table `ref` as a task with up to two strings; nothing if there is none. Any time on the loop
 * thread. */
void redis_notify(rt *R, int ref, const char *name, const char *a, const char *b);

/* ---- redis_sub_lua.c, redis_own.c */
void redis_sub_meta(lua_State *L);
int redis_l_subscribe(lua_State *L);       /* core.subscribe(client, {channels}, {patterns}) -> subscription; waits for the server's word */
void redis_hub_close(struct redis_hub *h); /* the client closes: its subscriptions end */
void redis_own_meta(lua_State *L);
int redis_l_own(lua_State *L); /* core.own{dir=, serve=, fsync=, redis_exe=} -> server; waits */
#endif
