/* libneap_call.c: calls across the border: Lua functions started from C as tasks, and C functions that Lua calls, at once or completed later from
   any thread. */
#include <stdlib.h>
#include <string.h>
#include "host/api/libneap_int.h"

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
    for (int i = 0; i < nres; i++) values[i] = libneap_get(co, base + 1 + i);
    if (status != LUA_OK && nres == 1) {
        const char *message = libneap_text(co);
        values[0] = (neap_value){.type = NEAP_STRING, .as.string = {message, strlen(message)}};
    }
    c->h->depth++;
    if (c->done) {
        c->done(c->h, code, values, nres, c->ud);
    } else if (status != LUA_OK) {
        libneap_report(c->h, tb ? tb : "a call failed");
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
    for (int i = 0; i < c->nargs; i++) libneap_push(L, &c->args[i]);
    task_start(rt_of(L), L, c->nargs, c->name, call_over, c);
    return 0;
}

int neap_call(neap *h, const char *name, const neap_value *args, int nargs, neap_done done, void *ud) {
    call *c = malloc(sizeof *c);
    if (!c) return NEAP_ERR_MEMORY;
    *c = (call){h, name, args, nargs, done, ud};
    int err = libneap_protect(h, start_call, c);
    if (err) free(c);
    return err;
}

/* ---- C functions for Lua
 * ------------------------------------------------------------------------------------------------ */
struct neap_args {
    lua_State *L;
    int n, nres, oom;
    int error; /* stack index of the text that the call raises, or 0 */
};

typedef struct registration {
    neap_function fn;
    neap_async_function async;
    void *ud;
} registration;

int neap_arg_count(neap_args *a) { return a->n; }

neap_value neap_arg(neap_args *a, int i) {
    if (i < 1 || i > a->n) return (neap_value){.type = NEAP_NIL};
    return libneap_get(a->L, i);
}

static int push_result(lua_State *L) {
    libneap_push(L, lua_touserdata(L, 1));
    return 1;
}

/* Copying a string may run out of memory, which must not jump over the caller's C. */
static int push_copy(neap_args *a, const neap_value *v) {
    if (!lua_checkstack(a->L, 4)) return 0;
    lua_pushcfunction(a->L, push_result);
    lua_pushlightuserdata(a->L, (void *)v);
    if (lua_pcall(a->L, 1, 1, 0) == LUA_OK) return 1;
    lua_pop(a->L, 1);
    return 0;
}

void neap_return(neap_args *a, const neap_value *v) {
    if (push_copy(a, v)) a->nres++;
    else a->oom = 1;
}

void neap_fail(neap_args *a, const char *message) {
    neap_value text = {.type = NEAP_STRING, .as.string = {message, strlen(message)}};
    if (push_copy(a, &text)) a->error = lua_gettop(a->L);
    else a->oom = 1;
}

static int finish(lua_State *L, neap_args *a) {
    if (a->error) {
        luaL_where(L, 1);
        lua_pushvalue(L, a->error);
        lua_concat(L, 2);
        return lua_error(L);
    }
    if (a->oom) return luaL_error(L, "not enough memory");
    return a->nres;
}

static int call_sync(lua_State *L) {
    registration *r = lua_touserdata(L, lua_upvalueindex(1));
    neap *h = libneap_host(L);
    neap_args a = {.L = L, .n = lua_gettop(L)};
    h->depth++;
    r->fn(h, &a, r->ud);
    h->depth--;
    return finish(L, &a);
}

typedef struct completion {
    neap *h;
    neap_ticket t;
    neap_value *values;
    int n;
    char *error;
} completion;

static void completion_free(void *ud) {
    completion *c = ud;
    libneap_free(c->values, c->n);
    free(c->error);
    free(c);
}

static int async_done(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    completion *c = w->result;
    if (c->error) return luaL_error(L, "%s", c->error);
    luaL_checkstack(L, c->n, "results");
    for (int i = 0; i < c->n; i++) libneap_push(L, &c->values[i]);
    return c->n;
}

static int call_async(lua_State *L) {
    registration *r = lua_touserdata(L, lua_upvalueindex(1));
    neap *h = libneap_host(L);
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
    libneap_keep(h);
    return wait_park(L, w, async_done);
}

static void complete(rt *R, void *ud) {
    completion *c = ud;
    neap *h = c->h;
    for (pending **q = &h->waiting; *q; q = &(*q)->next) {
        pending *p = *q;
        if (p->id != c->t) continue;
        *q = p->next;
        libneap_keep(h);
        wait_done(p->w, 0, c, completion_free);
        free(p);
        return;
    }
    completion_free(c);
}

int neap_complete(neap *h, neap_ticket t, const neap_value *values, int n, const char *error) {
    completion *c = calloc(1, sizeof *c);
    if (!c) return NEAP_ERR_MEMORY;
    c->h = h;
    c->t = t;
    c->n = n;
    c->values = libneap_copy(values, n);
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

int neap_register(neap *h, const char *name, neap_function fn, void *ud) { return libneap_protect(h, bind_name, &(naming){name, {fn, NULL, ud}}); }

int neap_register_async(neap *h, const char *name, neap_async_function fn, void *ud) {
    return libneap_protect(h, bind_name, &(naming){name, {NULL, fn, ud}});
}
