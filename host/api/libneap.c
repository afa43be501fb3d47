/* libneap.c: the embedding interface of host/include/neap.h over the runtime. Every entry is protected: no Lua error
 * leaves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <neap.h>
#include "host/api/rt_internal.h"

typedef struct pending {
    neap_ticket id;
    rt_wait *w;
    struct pending *next;
} pending;

struct neap {
    rt *R;
    neap_options o;
    char *error;
    pending *waiting; /* async calls in flight */
    neap_ticket last_ticket;
    int depth, close_wanted, stop;
};

#define HOST "neap.host" /* registry: light userdata */

static neap *host_of(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, HOST);
    neap *h = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return h;
}

static int set_error(neap *h, int code, const char *text) {
    free(h->error);
    h->error = strdup(text ? text : neap_err_kind(code));
    return code;
}

const char *neap_error(neap *h) { return h->error ? h->error : ""; }
const char *neap_version(void) { return NEAP_VERSION; }
struct lua_State *neap_lua(neap *h) {
    return h->R->L;
}

/* ---- values ---------------------------------------------------------------------------------------------------------
 */
static void push_value(lua_State *L, const neap_value *v) {
    switch (v->type) {
    case NEAP_BOOLEAN: lua_pushboolean(L, v->as.boolean); break;
    case NEAP_INTEGER: lua_pushinteger(L, v->as.integer); break;
    case NEAP_NUMBER: lua_pushnumber(L, v->as.number); break;
    case NEAP_STRING: lua_pushlstring(L, v->as.string.data, v->as.string.len); break;
    default: lua_pushnil(L);
    }
}

static neap_value get_value(lua_State *L, int idx) {
    neap_value v = {.type = NEAP_NIL};
    switch (lua_type(L, idx)) {
    case LUA_TBOOLEAN:
        v.type = NEAP_BOOLEAN;
        v.as.boolean = lua_toboolean(L, idx);
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx)) {
            v.type = NEAP_INTEGER;
            v.as.integer = lua_tointeger(L, idx);
        } else {
            v.type = NEAP_NUMBER;
            v.as.number = lua_tonumber(L, idx);
        }
        break;
    case LUA_TSTRING:
        v.type = NEAP_STRING;
        v.as.string.data = lua_tolstring(L, idx, &v.as.string.len);
        break;
    }
    return v;
}

static void values_free(neap_value *v, int n) {
    for (int i = 0; v && i < n; i++)
        if (v[i].type == NEAP_STRING) free((void *)v[i].as.string.data);
    free(v);
}

/* A copy that owns its strings; NULL on lack of memory. */
static neap_value *values_copy(const neap_value *v, int n) {
    neap_value *c = calloc((size_t)n + 1, sizeof *c);
    for (int i = 0; c && i < n; i++) {
        c[i] = v[i];
        if (v[i].type != NEAP_STRING) continue;
        char *s = malloc(v[i].as.string.len + 1);
        if (!s) {
            values_free(c, i);
            return NULL;
        }
        memcpy(s, v[i].as.string.data, v[i].as.string.len);
        c[i].as.string.data = s;
    }
    return c;
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */
void neap_options_init(neap_options *o) {
    memset(o, 0, sizeof *o);
    o->size = sizeof *o;
    o->api = NEAP_API;
    o->name = "neap";
}

static void on_report(void *ud, const char *text) {
    neap *h = ud;
    if (h->o.on_error) h->o.on_error(h->o.ud, text);
    else fprintf(stderr, "%s: %s\n", h->o.name, text);
}

static int setup(lua_State *L) {
    neap *h = lua_touserdata(L, 1);
    lua_pushlightuserdata(L, h);
    lua_setfield(L, LUA_REGISTRYINDEX, HOST);
    lua_createtable(L, h->o.argc, 0);
    for (int i = 0; i < h->o.argc; i++) {
        lua_pushstring(L, h->o.argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_setglobal(L, "arg");
    return 0;
}

/* Calls the C function with one light userdata, protected. */
static int protect(neap *h, lua_CFunction fn, void *ud) {
    lua_State *L = h->R->L;
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, ud);
    int st = lua_pcall(L, 1, 0, 0);
    if (st == LUA_OK) return 0;
    set_error(h, 0, luaL_tolstring(L, -1, NULL));
    lua_pop(L, 2);
    return st == LUA_ERRMEM ? NEAP_ERR_MEMORY : NEAP_ERR_INVALID;
}

int neap_create(neap **out, const neap_options *o) {
    *out = NULL;
    if (o->size != sizeof *o || o->api != NEAP_API) return NEAP_ERR_INVALID;
    neap *h = calloc(1, sizeof *h);
    if (!h) return NEAP_ERR_MEMORY;
    h->o = *o;
    if (!h->o.name) h->o.name = "neap";
    h->R = rt_new(&(rt_options){.loop = o->loop,
                                .library = 1,
                                .noenv = o->ignore_environment,
                                .alloc = o->alloc,
                                .alloc_ud = o->alloc_ud,
                                .memory_limit = o->memory_limit,
                                .report = on_report,
                                .report_ud = h});
    if (!h->R || protect(h, setup, h)) {
        if (h->R) rt_close(h->R);
        free(h->error);
        free(h);
        return NEAP_ERR_MEMORY;
    }
    *out = h;
    return 0;
}

static void close_now(neap *h) {
    rt_close(h->R); /* waits that never completed are freed with their tasks' stacks; what is left is ours */
    while (h->waiting) {
        pending *p = h->waiting;
        h->waiting = p->next;
        free(p);
    }
    free(h->error);
    free(h);
}

void neap_close(neap *h) {
    if (!h) return;
    if (h->depth) {
        h->close_wanted = 1;
        neap_stop(h);
        return;
    }
    while (h->waiting) { /* nobody will complete these any more */
        pending *p = h->waiting;
        h->waiting = p->next;
        wait_done(p->w, NEAP_ERR_CANCELLED, NULL, NULL);
        free(p);
    }
    close_now(h);
}

/* ---- running --------------------------------------------------------------------------------------------------------
 */
static int leave(neap *h, int result) {
    if (--h->depth == 0 && h->close_wanted) neap_close(h);
    return result;
}

static int traceback(lua_State *L) {
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static int run_loaded(neap *h, int st) { /* stack: handler, chunk or message */
    lua_State *L = h->R->L;
    int result = 0;
    if (st == LUA_OK) st = lua_pcall(L, 0, 0, -2);
    if (st != LUA_OK) {
        const char *msg = lua_tostring(L, -1);
        result = set_error(h, st == LUA_ERRMEM ? NEAP_ERR_MEMORY : st == LUA_ERRFILE ? NEAP_ERR_IO : NEAP_ERR_INVALID, msg);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return leave(h, result);
}

int neap_run_file(neap *h, const char *path) {
    h->depth++;
    lua_pushcfunction(h->R->L, traceback);
    return run_loaded(h, luaL_loadfilex(h->R->L, path, "t"));
}

int neap_run_string(neap *h, const char *code, const char *chunk_name) {
    h->depth++;
    lua_pushcfunction(h->R->L, traceback);
    return run_loaded(h, luaL_loadbufferx(h->R->L, code, strlen(code), chunk_name ? chunk_name : "=string", "t"));
}

int neap_loop(neap *h) {
    h->depth++;
    while (!h->stop && (h->R->ready || uv_loop_alive(h->R->loop))) uv_run(h->R->loop, UV_RUN_ONCE);
    h->stop = 0;
    return leave(h, 0);
}

int neap_step(neap *h, int block) {
    h->depth++;
    uv_run(h->R->loop, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    int more = h->R->ready || uv_loop_alive(h->R->loop);
    return leave(h, more);
}

int neap_fd(neap *h) { return uv_backend_fd(h->R->loop); }
int neap_timeout(neap *h) { return h->R->ready ? 0 : uv_backend_timeout(h->R->loop); }

static void do_stop(rt *R, void *ud) {
    ((neap *)ud)->stop = 1;
    uv_stop(R->loop);
}

void neap_stop(neap *h) { rt_post(h->R, do_stop, h); }

/* ---- posts ----------------------------------------------------------------------------------------------------------
 */
typedef struct post {
    neap *h;
    void (*fn)(neap *h, void *ud);
    void *ud;
} post;

static void run_post(rt *R, void *ud) {
    post p = *(post *)ud;
    free(ud);
    p.fn(p.h, p.ud);
}

int neap_post(neap *h, void (*fn)(neap *h, void *ud), void *ud) {
    post *p = malloc(sizeof *p);
    if (!p) return NEAP_ERR_MEMORY;
    *p = (post){h, fn, ud};
    int err = rt_post_owned(h->R, run_post, free, p);
    if (err) free(p);
    return err;
}

/* ---- calling Lua
 * ------------------------------------------------------------------------------------------------------ */
typedef struct call {
    neap *h;
    const char *name;
    const neap_value *args;
    int nargs;
    neap_done done;
    void *ud;
} call;

static void call_over(rt_task *t, lua_State *co, int status, int nres, const char *tb, void *ud) {
    call *c = ud;
    int code = status == LUA_OK ? 0 : status == LUA_ERRMEM ? NEAP_ERR_MEMORY : NEAP_ERR_INVALID, base = lua_gettop(co) - nres;
    neap_value small[8], *values = nres <= 8 ? small : calloc((size_t)nres, sizeof *values);
    if (!values) nres = 0, code = NEAP_ERR_MEMORY;
    for (int i = 0; i < nres; i++) values[i] = get_value(co, base + 1 + i);
    const char *message = NULL;
    if (status != LUA_OK && nres == 1 && values[0].type == NEAP_NIL) { /* an error object: its message */
        if (lua_istable(co, -1) && lua_getfield(co, -1, "message") == LUA_TSTRING) message = lua_tostring(co, -1);
        if (!message) message = "error";
        values[0] = (neap_value){.type = NEAP_STRING, .as.string = {message, strlen(message)}};
    }
    c->h->depth++;
    if (c->done) {
        c->done(c->h, code, values, nres, c->ud);
    } else if (status != LUA_OK) {
        on_report(c->h, tb ? tb : "a call failed");
    }
    c->h->depth--;
    if (values != small) free(values);
    free(c);
}

/* Pushes the function named "f", "a.b.f" or "module:f". */
static void push_function(lua_State *L, const char *name) {
    const char *colon = strchr(name, ':');
    if (colon) {
        lua_getglobal(L, "require");
        lua_pushlstring(L, name, (size_t)(colon - name));
        lua_call(L, 1, 1);
        name = colon + 1;
    } else {
        lua_pushglobaltable(L);
    }
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        if (!lua_istable(L, -1)) luaL_error(L, "no such function");
        lua_pushlstring(L, name, (size_t)(dot - name));
        lua_gettable(L, -2);
    }
    if (!lua_istable(L, -1) || lua_getfield(L, -1, name) != LUA_TFUNCTION) luaL_error(L, "no such function");
}

static int start_call(lua_State *L) {
    call *c = lua_touserdata(L, 1);
    push_function(L, c->name);
    luaL_checkstack(L, c->nargs, "arguments");
    for (int i = 0; i < c->nargs; i++) push_value(L, &c->args[i]);
    task_start(rt_of(L), L, c->nargs, c->name, call_over, c);
    return 0;
}

int neap_call(neap *h, const char *name, const neap_value *args, int nargs, neap_done done, void *ud) {
    call *c = malloc(sizeof *c);
    if (!c) return NEAP_ERR_MEMORY;
    *c = (call){h, name, args, nargs, done, ud};
    int err = protect(h, start_call, c);
    if (err) free(c);
    return err;
}

/* ---- C functions for Lua
 * ------------------------------------------------------------------------------------------------ */
struct neap_args {
    lua_State *L;
    int n, nres, oom;
    char *error;
};

typedef struct registration {
    neap_function fn;
    neap_async_function async;
    void *ud;
} registration;

int neap_arg_count(neap_args *a) { return a->n; }

neap_value neap_arg(neap_args *a, int i) {
    if (i < 1 || i > a->n) return (neap_value){.type = NEAP_NIL};
    return get_value(a->L, i);
}

static int push_result(lua_State *L) {
    push_value(L, lua_touserdata(L, 1));
    return 1;
}

void neap_return(neap_args *a, const neap_value *v) {
    if (!lua_checkstack(a->L, 4)) {
        a->oom = 1;
        return;
    }
    lua_pushcfunction(a->L, push_result);
    lua_pushlightuserdata(a->L, (void *)v);
    if (lua_pcall(a->L, 1, 1, 0) == LUA_OK) a->nres++; /* copying a string may run out of memory: no jump over the caller's C */
    else lua_pop(a->L, 1), a->oom = 1;
}

void neap_fail(neap_args *a, const char *message) {
    free(a->error);
    a->error = strdup(message);
    if (!a->error) a->oom = 1;
}

static int finish(lua_State *L, neap_args *a) {
    if (a->error) {
        lua_pushstring(L, a->error); /* may raise and leak the text only when memory is out */
        free(a->error);
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
        return lua_error(L);
    }
    if (a->oom) return luaL_error(L, "not enough memory");
    return a->nres;
}

static int call_sync(lua_State *L) {
    registration *r = lua_touserdata(L, lua_upvalueindex(1));
    neap *h = host_of(L);
    neap_args a = {.L = L, .n = lua_gettop(L)};
    h->depth++;
    r->fn(h, &a, r->ud);
    h->depth--;
    return finish(L, &a);
}

typedef struct completion {
    neap_ticket t;
    neap_value *values;
    int n;
    char *error;
} completion;

static void completion_free(void *ud) {
    completion *c = ud;
    values_free(c->values, c->n);
    free(c->error);
    free(c);
}

static int async_done(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    completion *c = w->result;
    if (c->error) return luaL_error(L, "%s", c->error);
    luaL_checkstack(L, c->n, "results");
    for (int i = 0; i < c->n; i++) push_value(L, &c->values[i]);
    return c->n;
}

static int call_async(lua_State *L) {
    registration *r = lua_touserdata(L, lua_upvalueindex(1));
    neap *h = host_of(L);
    int n = lua_gettop(L);
    rt_wait *w = wait_new(L, "a host function", -1);
    pending *p = malloc(sizeof *p);
    if (!p) return err_code(L, NEAP_ERR_MEMORY, "out of memory");
    *p = (pending){++h->last_ticket, wait_ref(w), h->waiting};
    h->waiting = p;
    neap_args a = {.L = L, .n = n};
    h->depth++;
    r->async(h, p->id, &a, r->ud);
    h->depth--;
    if (a.error || a.oom) {
        for (pending **q = &h->waiting; *q; q = &(*q)->next)
            if (*q == p) {
                *q = p->next;
                wait_unref(p->w);
                free(p);
                break;
            }
        return finish(L, &a);
    }
    uv_ref((uv_handle_t *)&h->R->async); /* the loop stays alive for the answer from another thread */
    return wait_park(L, w, async_done);
}

static void complete(rt *R, void *ud) {
    completion *c = ud;
    neap *h = host_of(R->L);
    for (pending **q = &h->waiting; *q; q = &(*q)->next) {
        pending *p = *q;
        if (p->id != c->t) continue;
        *q = p->next;
        if (!h->waiting) uv_unref((uv_handle_t *)&R->async);
        wait_done(p->w, 0, c, completion_free);
        free(p);
        return;
    }
    completion_free(c);
}

int neap_complete(neap *h, neap_ticket t, const neap_value *values, int n, const char *error) {
    completion *c = calloc(1, sizeof *c);
    if (!c) return NEAP_ERR_MEMORY;
    c->t = t;
    c->n = n;
    c->values = values_copy(values, n);
    c->error = error ? strdup(error) : NULL;
    if (!c->values || (error && !c->error) || rt_post_owned(h->R, complete, completion_free, c)) {
        completion_free(c);
        return NEAP_ERR_MEMORY;
    }
    return 0;
}

typedef struct naming {
    const char *name;
    registration r;
} naming;

static int bind_name(lua_State *L) {
    naming *m = lua_touserdata(L, 1);
    registration *r = lua_newuserdatauv(L, sizeof *r, 0);
    *r = m->r;
    lua_pushcclosure(L, r->async ? call_async : call_sync, 1);
    lua_pushglobaltable(L);
    const char *name = m->name;
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        lua_pushlstring(L, name, (size_t)(dot - name));
        luaL_getsubtable(L, -2, lua_tostring(L, -1));
        lua_remove(L, -2);
        lua_remove(L, -2);
    }
    lua_insert(L, -2);
    lua_setfield(L, -2, name);
    return 0;
}

int neap_register(neap *h, const char *name, neap_function fn, void *ud) { return protect(h, bind_name, &(naming){name, {fn, NULL, ud}}); }

int neap_register_async(neap *h, const char *name, neap_async_function fn, void *ud) {
    return protect(h, bind_name, &(naming){name, {NULL, fn, ud}});
}
