/* http_lua.h: what the files of neap.http's C half share: mod_http.c (apps, servers), http_req_lua.c (requests), http_answer_lua.c (answers,
 * streams). */
#ifndef NEAP_HTTP_LUA_H
#define NEAP_HTTP_LUA_H
#include "host/api/rt.h"
#include "host/http.h"
#include "host/http_route.h"

#define HTTP_APP     "neap.http.app"
#define HTTP_SERVER  "neap.http.server"
#define HTTP_REQ     "neap.http.request"
#define HTTP_STREAM_ "neap.http.stream"

struct http_limit {
    size_t max_body;
    int timeout_ms;
};

/* An application. Uservalues: 1 = {[id] = handler, [0] = answer where no route fits, failed = answer to an error}, 2 = the thread `cb`. A server and
   each request keep it. */
typedef struct http_app {
    rt *R;
    lua_State *cb; /* for callbacks' short calls into Lua */
    neap_http_router *router;
    struct http_limit *limits; /* by id, NULL when no route has its own */
    int nlimits, fallback, ready;
    size_t max_body; /* of bodies after inflating */
} http_app;

/* A request as Lua sees it. Uservalues: 1 = table of computed fields, 2 = the app. */
typedef struct http_req {
    neap_http_req *r; /* NULL once the task is over (unless `keep`) */
    http_app *app;
    rt_task *task;   /* while the handler runs */
    rt_wait *writer; /* a stream write that waits, one at a time */
    int keep;        /* a background task still reads it */
    int id;          /* route, 0 = none fits */
    int found;       /* 1, 0, -1 as the router said */
    int nparams;
    const char *const *names;
    const char *allow; /* behind param, "" if the path has no route at all */
    struct {
        size_t off, len;
    } param[];
} http_req;

/* What the core calls (neap_http_app); ud is the http_app. */
void http_dispatch(neap_http_req *r, void *ud);
int http_head(neap_http_req *r, void *ud);
void http_gone(neap_http_req *r, int why, void *ud);
void http_task_init(lua_State *L, http_app *a); /* the app is on top: puts what starts its requests' tasks at the bottom of a->cb */

http_req *http_check_req(lua_State *L, int idx); /* raises once the request is over */
void http_req_meta(lua_State *L);
int http_req_caller(lua_State *L); /* core.caller: see there */
/* The body of the request at idx for a decoder: lent, until the caller gives it back with neap_http_return_body(*lender), or, if it is short or
 * compressed, a string that is pushed (*lender is NULL then). Raises as req:text() does. */
const char *http_lend_body(lua_State *L, int idx, size_t *n, neap_http_req **lender);
/* Turns the n values from `first` on into the answer. Raises on values that are none. */
void http_answer(lua_State *L, http_req *q, int first, int n);
void http_answer_plain(neap_http_req *r, int status, const char *detail, const char *allow); /* problem+json, no Lua */
void http_stream_meta(lua_State *L);
int http_req_stream(lua_State *L);                                       /* req:stream([headers[, status]]) */
int http_req_file(lua_State *L);                                         /* req:send_file(path[, opts]) */
void http_push_decoded(lua_State *L, const char *p, size_t n, int plus); /* percent-decoded */
#endif
