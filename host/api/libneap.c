/* libneap.c: the embedding interface of host/include/neap.h over the runtime. Every entry is protected: no Lua error
 * leaves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host/api/libneap_int.h"

neap *libneap_host(lua_State *L) {
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
void libneap_push(lua_State *L, const neap_value *v) {
    switch (v->type) {
    case NEAP_BOOLEAN: lua_pushboolean(L, v->as.boolean); break;
    case NEAP_INTEGER: lua_pushinteger(L, v->as.integer); break;
    case NEAP_NUMBER: lua_pushnumber(L, v->as.number); break;
    case NEAP_STRING: lua_pushlstring(L, v->as.string.data, v->as.string.len); break;
    default: lua_pushnil(L);
    }
}

neap_value libneap_get(lua_State *L, int idx) {
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

void libneap_free(neap_value *v, int n) {
    for (int i = 0; v && i < n; i++)
        if (v[i].type == NEAP_STRING) free((void *)v[i].as.string.data);
    free(v);
}

/* A copy that owns its strings; NULL on lack of memory. */
neap_value *libneap_copy(const neap_value *v, int n) {
    neap_value *c = calloc((size_t)n + 1, sizeof *c);
    for (int i = 0; c && i < n; i++) {
        c[i] = v[i];
        if (v[i].type != NEAP_STRING) continue;
        char *s = malloc(v[i].as.string.len + 1);
        if (!s) {
            libneap_free(c, i);
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

void libneap_report(void *ud, const char *text) {
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

static int to_text(lua_State *L) {
    luaL_tolstring(L, 1, NULL);
    return 1;
}

const char *libneap_text(lua_State *L) {
    if (lua_type(L, -1) == LUA_TSTRING) return lua_tostring(L, -1);
    lua_pushcfunction(L, to_text);
    lua_insert(L, -2);
    lua_pcall(L, 1, 1, 0); /* a failing __tostring: its error is the text */
    return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "error";
}

/* Calls the C function with one light userdata, protected. */
int libneap_protect(neap *h, lua_CFunction fn, void *ud) {
    lua_State *L = h->R->L;
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, ud);
    int st = lua_pcall(L, 1, 0, 0);
    if (st == LUA_OK) return 0;
    set_error(h, 0, libneap_text(L));
    lua_pop(L, 1);
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
                                .report = libneap_report,
                                .report_ud = h});
    if (!h->R || libneap_protect(h, setup, h)) {
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
        result = set_error(h, st == LUA_ERRMEM ? NEAP_ERR_MEMORY : st == LUA_ERRFILE ? NEAP_ERR_IO : NEAP_ERR_INVALID, libneap_text(L));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return leave(h, result);
}

typedef struct file {
    const char *path;
    int status;
} file;

static int load_file(lua_State *L) {
    file *f = lua_touserdata(L, 1);
    f->status = luaL_loadfilex(L, f->path, "t");
    return 1; /* the chunk, or the message */
}

int neap_run_file(neap *h, const char *path) {
    lua_State *L = h->R->L;
    file f = {path, LUA_OK};
    h->depth++;
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, load_file);
    lua_pushlightuserdata(L, &f);
    int st = lua_pcall(L, 1, 1, 0);
    return run_loaded(h, st == LUA_OK ? f.status : st);
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

/* The loop lives while other threads may still bring something: the answer to an asynchronous call, or any post when held. */
void libneap_keep(neap *h) {
    if (h->held || h->waiting) uv_ref((uv_handle_t *)&h->R->async);
    else uv_unref((uv_handle_t *)&h->R->async);
}

void neap_hold(neap *h, int on) {
    h->held = on;
    libneap_keep(h);
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
