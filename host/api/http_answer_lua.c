/* http_answer_lua.c: what a handler returns becomes an answer: `[status,] body [, headers]`. A lone integer is a status; nil is 204; a string is text
   (HTML if it begins with "<!"), anything else JSON. And streams, whose writes wait while the client is slow. */
#include <string.h>
#include <stdlib.h>
#include <strings.h>
#include <stdio.h>
#include "host/api/http_lua.h"
#include "host/api/json_lua.h"
#include "host/buf.h"

#define MAX_HEADERS 32
#define WRITE_S     60.0 /* a write waits so long for a slow client before it raises; the server cuts it earlier */

static int has(const neap_http_header_kv *h, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcasecmp(h[i].name, name)) return 1;
    return 0;
}

/* Headers of the table at idx ({Name = value} or a list of {name, value}) into h. Strings stay alive with the table. */
static void collect(lua_State *L, int idx, neap_http_header_kv *h, int *n) {
    luaL_checkstack(L, 8 + MAX_HEADERS, "http headers");
    for (lua_pushnil(L); lua_next(L, idx);) {
        if (*n == MAX_HEADERS) luaL_error(L, "an answer has at most %d headers", MAX_HEADERS);
        if (lua_type(L, -1) == LUA_TTABLE) {
            lua_rawgeti(L, -1, 1);
            lua_rawgeti(L, -2, 2);
            h[*n].name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
            h[*n].value = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
            lua_pop(L, 2);
        } else if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TNUMBER) {
            lua_pushvalue(L, -1); /* a number as text: converted in the table itself, so that it stays alive */
            h[*n].value = lua_tostring(L, -1);
            lua_pushvalue(L, -3);
            lua_insert(L, -2);
            h[*n].name = lua_tostring(L, -2);
            lua_rawset(L, idx);
        } else {
            h[*n].name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
            h[*n].value = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        }
        if (!h[*n].name || !h[*n].value) luaL_error(L, "answer headers are a table {name = value} with strings, not %s", luaL_typename(L, -1));
        (*n)++;
        lua_pop(L, 1);
    }
}

static void collect_set(lua_State *L, http_req *q, neap_http_header_kv *h, int *n) {
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE && lua_getfield(L, -1, "set_headers") == LUA_TTABLE) {
        size_t k = lua_rawlen(L, -1);
        for (size_t i = 1; i + 1 <= k && *n < MAX_HEADERS; i += 2) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            lua_rawgeti(L, -2, (lua_Integer)i + 1);
            h[*n].name = lua_tostring(L, -2);
            h[*n].value = lua_tostring(L, -1);
            if (!has(h, *n, h[*n].name) || !strcasecmp(h[*n].name, "Set-Cookie")) (*n)++;
            lua_pop(L, 2);
        }
    }
}

void http_answer_plain(neap_http_req *r, int status, const char *detail, const char *allow) {
    char body[NEAP_HTTP_PROBLEM];
    neap_http_header_kv h[2] = {{"Content-Type", "application/problem+json"}, {"Allow", allow}};
    int n = neap_http_problem(body, sizeof body, status, detail, 0);
    if (status == 204) n = 0;
    neap_http_respond(r, status, h + (n == 0), 1 - (n == 0) + (*allow != 0), body, (size_t)n, NEAP_HTTP_COPY);
}

void http_answer(lua_State *L, http_req *q, int first, int n) {
    neap_http_header_kv h[MAX_HEADERS + 1];
    int nh = 0, status = 200, explicit = 0;
    size_t len = 0;
    const char *body = NULL, *type = NULL;
    const neap_buf *text;
    if (!q->r || neap_http_answered(q->r)) return;
    lua_settop(L, first + (n < 3 ? n : 3) - 1);
    if (n == 1 && lua_type(L, first) == LUA_TTABLE) { /* http.response{status=, body=, headers=} */
        if (lua_getmetatable(L, first)) {
            int whole = lua_getfield(L, LUA_REGISTRYINDEX, "neap.http.response") == LUA_TTABLE && lua_rawequal(L, -1, -2);
            lua_pop(L, 2);
            if (whole) {
                lua_getfield(L, first, "status");
                if (lua_isnil(L, -1)) lua_pushinteger(L, 200), lua_replace(L, -2);
                lua_getfield(L, first, "body");
                lua_getfield(L, first, "headers");
                lua_remove(L, first);
                n = 3;
            }
        }
    }
    if (n && lua_isinteger(L, first)) {
        status = (int)lua_tointeger(L, first);
        if (status < 200 || status > 599) luaL_error(L, "the handler returned %d, which is no HTTP status (200 to 599)", status);
        explicit = 1;
        first++;
        n--;
    }
    if (n > 1 && lua_type(L, first + 1) == LUA_TTABLE) collect(L, first + 1, h, &nh);
    else if (n > 1 && !lua_isnil(L, first + 1))
        luaL_error(L, "a handler returns [status,] body [, headers]: the headers are a %s", luaL_typename(L, first + 1));
    collect_set(L, q, h, &nh);
    switch (n ? lua_type(L, first) : LUA_TNIL) {
    case LUA_TNIL:
        if (!explicit) status = 204;
        else if (status >= 400 && !nh) {
            http_answer_plain(q->r, status, "", "");
            return;
        }
        break;
    case LUA_TSTRING:
        body = lua_tolstring(L, first, &len);
        type = len > 1 && body[0] == '<' && (body[1] == '!' || !strncasecmp(body, "<html", 5)) ? "text/html; charset=utf-8"
                                                                                               : "text/plain; charset=utf-8";
        break;
    default:
        text = json_write(L, first);
        body = text->data;
        len = text->len;
        type = "application/json";
        break;
    }
    if (type && len && !has(h, nh, "Content-Type")) {
        h[nh].name = "Content-Type";
        h[nh++].value = type;
    }
    int e = neap_http_respond(q->r, status, h, nh, body, len, NEAP_HTTP_COPY);
    if (e == NEAP_ERR_INVALID)
        luaL_error(L, "a header of the answer has a name or a value that HTTP does not allow (no line breaks, no spaces in names)");
    if (e == NEAP_ERR_MEMORY) luaL_error(L, "not enough memory for the answer");
}

/* req:send_file(root, path [, index [, cache]]): answers with a file below the directory root; false if there is none. */
int http_req_file(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    size_t n;
    const char *root = luaL_checkstring(L, 2), *path = luaL_checklstring(L, 3, &n), *index = luaL_optstring(L, 4, NULL),
               *cache = luaL_optstring(L, 5, NULL);
    int e = neap_http_serve(q->r, root, path, n, index, cache);
    if (e == NEAP_ERR_MEMORY) return luaL_error(L, "not enough memory for the answer");
    lua_pushboolean(L, e == 0 || e == NEAP_ERR_CLOSED);
    return 1;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------- */

static void drained(neap_http_req *r, void *ud) {
    http_req *q = neap_http_data(r);
    rt_wait *w = q ? q->writer : NULL;
    if (!w) return;
    q->writer = NULL;
    wait_done(w, 0, NULL, NULL);
}

/* req:stream([headers[, status]]) begins a streamed answer and returns the stream. */
int http_req_stream(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    neap_http_header_kv h[MAX_HEADERS + 1];
    int nh = 0, status = (int)luaL_optinteger(L, 3, 200);
    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        collect(L, 2, h, &nh);
    }
    collect_set(L, q, h, &nh);
    lua_newuserdatauv(L, 1, 1);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, HTTP_STREAM_);
    int e = neap_http_stream(q->r, status, h, nh, drained, NULL);
    if (e) return err_code(L, e, "http.stream: the answer cannot begin");
    return 1;
}

static http_req *of_stream(lua_State *L) {
    luaL_checkudata(L, 1, HTTP_STREAM_);
    lua_getiuservalue(L, 1, 1);
    http_req *q = lua_touserdata(L, -1);
    return q;
}

static void writer_left(rt_wait *w, void *op) {
    http_req *q = op;
    if (q->writer == w) {
        q->writer = NULL;
        wait_done(w, NEAP_ERR_CANCELLED, NULL, NULL);
    }
}

static int wrote(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    lua_settop(L, 1);
    return 1;
}

/* stream:write(text): returns the stream; waits while much is unsent; raises {kind="closed"} once the client is gone. */
static int stream_write(lua_State *L) {
    size_t n;
    const char *p = luaL_checklstring(L, 2, &n);
    http_req *q = of_stream(L);
    int e = q->r ? neap_http_stream_write(q->r, p, n) : NEAP_ERR_CLOSED;
    if (e && e != NEAP_ERR_FULL) return err_code(L, e, "stream:write: the client is gone");
    if (e == NEAP_ERR_FULL && !q->writer) {
        rt_wait *w = wait_new(L, "http.stream.write", WRITE_S);
        w->op = q;
        w->cancel = writer_left;
        q->writer = wait_ref(w);
        return wait_park(L, w, wrote);
    }
    lua_settop(L, 1);
    return 1;
}

static int stream_close(lua_State *L) {
    http_req *q = of_stream(L);
    if (q && q->r) neap_http_stream_end(q->r);
    return 0;
}

static int stream_closed(lua_State *L) {
    http_req *q = of_stream(L);
    lua_pushboolean(L, !q->r || !neap_http_streaming(q->r) || neap_http_stream_write(q->r, "", 0) == NEAP_ERR_CLOSED);
    return 1;
}

static const luaL_Reg stream_methods[] = {{"write", stream_write}, {"close", stream_close}, {"closed", stream_closed}, {NULL, NULL}};

/* [-0, +1] the methods table */
void http_stream_meta(lua_State *L) {
    luaL_newmetatable(L, HTTP_STREAM_);
    luaL_newlib(L, stream_methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index");
    lua_pushcfunction(L, stream_close);
    lua_setfield(L, -3, "__close");
    lua_remove(L, -2);
}
