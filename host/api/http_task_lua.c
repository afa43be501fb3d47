/* http_task_lua.c: the way of a request into a task. A callback from the core never runs script code: `dispatch` looks up the route, makes the
   request object and starts a task (in one protected call); the task runs `handle`, which calls the handler and answers. The core's request is
   referenced from dispatch until the task is over. */
#include <string.h>
#include "host/api/http_lua.h"

/* [-0, +1] the app's handlers table; 1 = the request */
static void push_handlers(lua_State *L) {
    lua_getiuservalue(L, 1, 2);
    lua_getiuservalue(L, -1, 1);
    lua_replace(L, -2);
}

static int answered(lua_State *L, int status, lua_KContext ctx) {
    http_answer(L, lua_touserdata(L, 1), 2, lua_gettop(L) - 1);
    return 0;
}

/* answer(req): calls [id], or [0] where no route fits, and answers with what it returns */
static int answer(lua_State *L) {
    push_handlers(L);
    lua_rawgeti(L, -1, ((http_req *)lua_touserdata(L, 1))->id);
    lua_replace(L, -2);
    lua_pushvalue(L, 1);
    lua_callk(L, 1, LUA_MULTRET, 0, answered);
    return answered(L, LUA_OK, 0);
}

/* The error stays what it is (<close> variables see it); its traceback waits in the registry under the thread. */
static int with_traceback(lua_State *L) {
    luaL_traceback(L, L, NULL, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, L);
    return 1;
}

static int failure_answered(lua_State *L, int status, lua_KContext ctx) {
    http_answer(L, lua_touserdata(L, 1), 5, lua_gettop(L) - 4);
    return 0;
}

/* After an error: failed(req, error, traceback) returns the answer, and logs. */
static int after(lua_State *L, int status, lua_KContext ctx) {
    http_req *q = lua_touserdata(L, 1);
    if (status == LUA_OK || status == LUA_YIELD) return 0;
    rt_second_wind(L);
    if (q->r && neap_http_streaming(q->r)) neap_http_stream_abort(q->r);
    lua_settop(L, 3); /* request, message handler, error */
    push_handlers(L);
    lua_getfield(L, 4, "failed");
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_rawgetp(L, LUA_REGISTRYINDEX, L);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, L);
    lua_callk(L, 3, LUA_MULTRET, 0, failure_answered);
    return failure_answered(L, LUA_OK, 0);
}

/* handle(req): the body of a request's task */
static int handle(lua_State *L) {
    lua_pushcfunction(L, with_traceback);
    lua_pushcfunction(L, answer);
    lua_pushvalue(L, 1);
    return after(L, lua_pcallk(L, 1, 0, 2, 0, after), 0);
}

static void done(rt_task *t, lua_State *co, int status, int n, const char *traceback, void *ud) {
    neap_http_req *r = ud;
    http_req *q = neap_http_data(r);
    if (!neap_http_answered(r)) http_answer_plain(r, 500, "", "");
    if (neap_http_streaming(r)) neap_http_stream_end(r);
    if (q) {
        q->task = NULL;
        if (!q->keep) {
            q->r = NULL;
            neap_http_set_data(r, NULL);
            neap_http_unref(r); /* the request object's */
        }
    }
    neap_http_unref(r); /* the task's */
}

struct start {
    http_app *a;
    neap_http_req *r;
    neap_http_match *m;
    int found;
};

static int start(lua_State *L) {
    struct start *s = lua_touserdata(L, 1);
    http_req *q;
    int n = s->found == 1 ? s->m->nparams : 0;
    lua_settop(L, 0);
    lua_pushcfunction(L, handle);
    size_t size = sizeof *q + (size_t)n * sizeof q->param[0], allow = s->found == -1 ? strlen(s->m->allow) + 1 : 0;
    q = lua_newuserdatauv(L, size + allow, 2);
    q->r = NULL;
    q->app = s->a;
    q->task = NULL;
    q->writer = NULL;
    q->keep = 0;
    q->id = s->found == 1 ? s->m->id : 0;
    q->found = s->found;
    q->nparams = n;
    q->names = n ? s->m->names : NULL;
    q->allow = allow ? memcpy((char *)q + size, s->m->allow, allow) : "";
    memcpy(q->param, s->m->param, (size_t)n * sizeof q->param[0]);
    lua_pushvalue(L, lua_upvalueindex(1)); /* the metatable */
    lua_setmetatable(L, -2);
    lua_pushvalue(L, lua_upvalueindex(2)); /* the app */
    lua_setiuservalue(L, -2, 2);
    q->task = task_start_bare(s->a->R, L, 1, done, s->r);
    q->r = neap_http_ref(s->r);
    neap_http_set_data(s->r, q);
    neap_http_ref(s->r);
    return 0;
}

static void dispatch_match(http_app *a, neap_http_req *r, neap_http_match *m, int found) {
    if (found != 1 && !a->fallback) {
        if (found == -1 && !strcmp(neap_http_method(r), "OPTIONS")) http_answer_plain(r, 204, "", m->allow);
        else http_answer_plain(r, found ? 405 : 404, found ? "this path does not take this method" : "no such path", found ? m->allow : "");
        return;
    }
    struct start s = {a, r, m, found};
    lua_State *L = a->cb;
    lua_pushvalue(L, 1); /* `start` */
    lua_pushlightuserdata(L, &s);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) { /* memory */
        lua_pop(L, 1);
        http_answer_plain(r, 503, "not enough memory", "");
    }
}

static int lookup(http_app *a, neap_http_req *r, neap_http_match *m) {
    size_t n;
    const char *p = neap_http_path(r, &n);
    return neap_http_router_match(a->router, neap_http_method(r), p, n, m);
}

void http_dispatch(neap_http_req *r, void *ud) {
    http_app *a = ud;
    neap_http_match m;
    int found = lookup(a, r, &m);
    if (found == 1 && m.id < a->nlimits && a->limits[m.id].timeout_ms) neap_http_limit(r, 0, a->limits[m.id].timeout_ms);
    dispatch_match(a, r, &m, found);
}

int http_head(neap_http_req *r, void *ud) {
    http_app *a = ud;
    neap_http_match m;
    if (a->limits && lookup(a, r, &m) == 1 && m.id < a->nlimits && a->limits[m.id].max_body) neap_http_limit(r, a->limits[m.id].max_body, 0);
    return 0;
}

void http_gone(neap_http_req *r, int why, void *ud) {
    http_req *q = neap_http_data(r);
    if (q && q->task) task_cancel(q->task, why == NEAP_ERR_TIMEOUT ? "the handler's time limit is over" : "the client has gone");
}

void http_task_init(lua_State *L, http_app *a) {
    luaL_getmetatable(L, HTTP_REQ);
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, start, 2);
    lua_xmove(L, a->cb, 1);
}
