/* http_req_lua.c: the request object. A userdata whose fields are made when they are read: most handlers look at two of them, and a table with all
   would cost more than the rest of the request. What was computed is kept in a table (uservalue 1), which also takes fields that scripts set. */
#include <stdio.h>
#include <string.h>
#include "host/api/http_lua.h"
#include "host/api/json_lua.h"
#include "host/buf.h"
#include "host/inflate.h"

http_req *http_check_req(lua_State *L, int idx) {
    http_req *q = rt_checkudata(L, idx, RT_CLASS_REQUEST, HTTP_REQ);
    if (!q->r) luaL_error(L, "this request is over: read what you need before the handler returns, or work in req:background(fn)");
    return q;
}

/* [-0, +1] the table of computed fields, made at first use */
static void cache(lua_State *L, int idx) {
    if (lua_getiuservalue(L, idx, 1) == LUA_TTABLE) return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, idx, 1);
}

static int hex(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }
static int is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

void http_push_decoded(lua_State *L, const char *p, size_t n, int plus) {
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, n);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && i + 2 < n + 0 && is_hex(p[i + 1]) && is_hex(p[i + 2])) {
            out[k++] = (char)(hex(p[i + 1]) << 4 | hex(p[i + 2]));
            i += 2;
        } else out[k++] = plus && p[i] == '+' ? ' ' : p[i];
    }
    luaL_pushresultsize(&b, k);
}

/* Path text: a %2F that routing kept apart becomes '/' again. */
static void push_path(lua_State *L, const char *p, size_t n) {
    if (!memchr(p, NEAP_HTTP_SLASH, n)) {
        lua_pushlstring(L, p, n);
        return;
    }
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < n; i++) out[i] = p[i] == NEAP_HTTP_SLASH ? '/' : p[i];
    luaL_pushresultsize(&b, n);
}

/* [-0, +1] "a=1&b=2" as a table; of a name given twice the last wins */
static void push_form(lua_State *L, const char *p, size_t n) {
    lua_newtable(L);
    for (size_t at = 0; at < n;) {
        const char *amp = memchr(p + at, '&', n - at);
        size_t end = amp ? (size_t)(amp - p) : n;
        const char *eq = memchr(p + at, '=', end - at);
        size_t key = eq ? (size_t)(eq - p) : end;
        if (end > at) {
            http_push_decoded(L, p + at, key - at, 1);
            http_push_decoded(L, p + key + (eq != NULL), end - key - (eq != NULL), 1);
            lua_rawset(L, -3);
        }
        at = end + 1;
    }
}

static void one_header(void *ud, const char *name, const char *value) {
    lua_State *L = ud;
    luaL_Buffer b;
    size_t n = strlen(name);
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < n; i++) out[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
    luaL_pushresultsize(&b, n);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TSTRING) { /* a header given twice: joined as the standard says */
        lua_pushfstring(L, "%s, %s", lua_tostring(L, -1), value);
        lua_remove(L, -2);
    } else {
        lua_pop(L, 1);
        lua_pushstring(L, value);
    }
    lua_rawset(L, -3);
}

/* headers["Content-Type"]: any case */
static int headers_index(lua_State *L) {
    size_t n;
    const char *k = luaL_checklstring(L, 2, &n);
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < n; i++) out[i] = (char)(k[i] >= 'A' && k[i] <= 'Z' ? k[i] | 0x20 : k[i]);
    luaL_pushresultsize(&b, n);
    lua_rawget(L, 1);
    return 1;
}

/* ---- the body ---------------------------------------------------------------------------------------------------------- */

static int refuse(lua_State *L, int status, const char *message) {
    lua_getfield(L, LUA_REGISTRYINDEX, "neap.http.raise"); /* http.lua's http.error */
    lua_pushinteger(L, status);
    lua_pushstring(L, message);
    lua_call(L, 2, 0);
    return 0;
}

static int inflated_gc(lua_State *L) {
    buf_free(lua_touserdata(L, 1));
    return 0;
}

enum { SHORT_BODY = 4096, LEND_FROM = 512 };

/* [-0, +1] the body as a string, decompressed; kept as field "body", but for a short plain one, which is as well made again */
static void push_body(lua_State *L, http_req *q) {
    size_t short_n;
    const char *text = neap_http_body(q->r, &short_n);
    if (short_n && short_n <= SHORT_BODY && !neap_http_header(q->r, "Content-Encoding")) {
        lua_pushlstring(L, text, short_n);
        return;
    }
    cache(L, 1);
    lua_pushliteral(L, "body");
    if (lua_rawget(L, -2) == LUA_TSTRING) {
        lua_remove(L, -2);
        return;
    }
    lua_pop(L, 1);
    size_t n;
    const char *p = neap_http_body(q->r, &n), *enc = neap_http_header(q->r, "Content-Encoding");
    if (enc && strcmp(enc, "identity") != 0) {
        neap_buf *b = lua_newuserdatauv(L, sizeof *b, 0);
        memset(b, 0, sizeof *b);
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, inflated_gc);
        lua_setfield(L, -2, "__gc");
        lua_setmetatable(L, -2);
        int e = neap_inflate_all(enc, p, n, q->app->max_body, b);
        if (e == NEAP_ERR_UNSUPPORTED) refuse(L, 415, "this Content-Encoding is not understood: send gzip, deflate or plain");
        if (e == NEAP_ERR_FULL) refuse(L, 413, "the body is larger than this server takes once it is decompressed");
        if (e) refuse(L, 400, "the compressed body is damaged");
        lua_pushlstring(L, b->data ? b->data : "", b->len);
        buf_free(b);
        lua_remove(L, -2);
    } else lua_pushlstring(L, p, n);
    neap_http_drop_body(q->r);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "body");
    lua_remove(L, -2);
}

static int req_text(lua_State *L) {
    push_body(L, http_check_req(L, 1));
    return 1;
}

const char *http_lend_body(lua_State *L, int idx, size_t *n, neap_http_req **lender) {
    http_req *q = http_check_req(L, idx);
    const char *p = neap_http_body(q->r, n);
    *lender = NULL;
    if (*n > LEND_FROM && !neap_http_header(q->r, "Content-Encoding")) {
        neap_http_lend_body(*lender = q->r);
        return p;
    }
    push_body(L, q); /* read before: then there is none here, but a string */
    return lua_tolstring(L, -1, n);
}

static int req_json(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    size_t n;
    const char *p = neap_http_body(q->r, &n);
    if (!n || neap_http_header(q->r, "Content-Encoding")) { /* to be inflated, or read before */
        push_body(L, q);
        p = lua_tolstring(L, -1, &n);
    }
    return json_read(L, p, n) ? 1 : refuse(L, 400, luaL_tolstring(L, -1, NULL));
}

static int req_form(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    const char *type = neap_http_header(q->r, "Content-Type");
    if (type && strncmp(type, "application/x-www-form-urlencoded", 33) != 0) refuse(L, 415, "a form comes as application/x-www-form-urlencoded");
    push_body(L, q);
    size_t n;
    const char *p = lua_tolstring(L, -1, &n);
    push_form(L, p, n);
    return 1;
}

static int next_line(lua_State *L) { /* upvalues: text, position */
    size_t n;
    const char *p = lua_tolstring(L, lua_upvalueindex(1), &n);
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    if (at >= n) return 0;
    const char *nl = memchr(p + at, '\n', n - at);
    size_t end = nl ? (size_t)(nl - p) : n;
    lua_pushinteger(L, (lua_Integer)end + 1);
    lua_replace(L, lua_upvalueindex(2));
    if (end > at && p[end - 1] == '\r') end--;
    lua_pushlstring(L, p + at, end - at);
    return 1;
}

static int req_lines(lua_State *L) {
    push_body(L, http_check_req(L, 1));
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_line, 2);
    return 1;
}

/* ---- other methods --------------------------------------------------------------------------------------------------------- */

static int req_header(lua_State *L) { /* req:header(name, ...): the value of each, nil for those that did not come */
    neap_http_req *r = http_check_req(L, 1)->r;
    int n = lua_gettop(L) - 1;
    luaL_argcheck(L, n > 0, 2, "the name of a header is wanted");
    luaL_checkstack(L, n, "req:header");
    for (int i = 2; i <= n + 1; i++) lua_pushstring(L, neap_http_header(r, luaL_checkstring(L, i)));
    return n;
}

/* core.caller(req) -> Host, Origin, may its method change something? What each request is asked before its handler (http_middleware.lua), in one
 * call. */
int http_req_caller(lua_State *L) {
    neap_http_req *r = http_check_req(L, 1)->r;
    const char *method = neap_http_method(r);
    lua_pushstring(L, neap_http_header(r, "Host"));
    lua_pushstring(L, neap_http_header(r, "Origin"));
    lua_pushboolean(L, !strcmp(method, "POST") || !strcmp(method, "PUT") || !strcmp(method, "PATCH") || !strcmp(method, "DELETE"));
    return 3;
}

static int req_cookie(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n), *p = neap_http_header(q->r, "Cookie");
    while (p && *p) {
        while (*p == ' ' || *p == ';') p++;
        size_t len = strcspn(p, ";");
        if (len > n && p[n] == '=' && !memcmp(p, name, n)) {
            lua_pushlstring(L, p + n + 1, len - n - 1);
            return 1;
        }
        p += len;
    }
    lua_pushnil(L);
    return 1;
}

/* Headers of the answer set ahead of it: a list {name, value, ...} in field "set_headers". */
static int req_set_header(lua_State *L) {
    http_check_req(L, 1);
    luaL_checkstring(L, 2);
    luaL_checkstring(L, 3);
    cache(L, 1);
    if (lua_getfield(L, -1, "set_headers") != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "set_headers");
    }
    for (int i = 2; i <= 3; i++) {
        lua_pushvalue(L, i);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
    lua_settop(L, 1);
    return 1;
}

/* What a kept request holds in its table: gives the core's request back when both are collected. Other requests end with their task and have no
   finaliser, which would cost a tenth of a request. */
static int kept_gc(lua_State *L) {
    neap_http_req **r = lua_touserdata(L, 1);
    if (*r) {
        neap_http_set_data(*r, NULL);
        neap_http_unref(*r);
    }
    *r = NULL;
    return 0;
}

/* req:keep(): the request stays readable after the answer; for req:background in http.lua. */
static int req_keep(lua_State *L) {
    http_req *q = http_check_req(L, 1);
    if (q->keep) return 0;
    cache(L, 1);
    neap_http_req **r = lua_newuserdatauv(L, sizeof *r, 1);
    *r = NULL;
    lua_pushvalue(L, 1); /* so the request lives until the finaliser has run */
    lua_setiuservalue(L, -2, 1);
    if (luaL_newmetatable(L, "neap.http.kept")) {
        lua_pushcfunction(L, kept_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_rawsetp(L, -2, (void *)kept_gc);
    *r = q->r; /* the reference that the end of the task would have dropped */
    q->keep = 1;
    return 0;
}

static int req_limit(lua_State *L) { /* req:time_limit(seconds | nil) */
    http_req *q = http_check_req(L, 1);
    lua_Number s = luaL_optnumber(L, 2, -1);
    neap_http_limit(q->r, 0, s > 0 ? (int)(s * 1000) + 1 : -1);
    return 0;
}

/* ---- fields ------------------------------------------------------------------------------------------------------------------ */

static void push_headers(lua_State *L, http_req *q) {
    lua_newtable(L);
    neap_http_each_header(q->r, one_header, L);
    if (luaL_newmetatable(L, "neap.http.headers")) {
        lua_pushcfunction(L, headers_index);
        lua_setfield(L, -2, "__index");
    }
    lua_setmetatable(L, -2);
}

/* What a field is. Cheap ones are made anew each time: keeping them would cost a table. */
enum field { NO_FIELD, ANEW, KEPT };

static enum field push_field(lua_State *L, http_req *q, const char *key) {
    size_t n;
    const char *p;
    int loopback;
    switch (key[0]) {
    case 'm':
        if (!strcmp(key, "method")) return lua_pushstring(L, neap_http_method(q->r)), ANEW;
        break;
    case 'p':
        p = neap_http_path(q->r, &n);
        if (!strcmp(key, "path")) {
            push_path(L, p, n);
            return ANEW;
        }
        if (!strcmp(key, "params")) {
            lua_createtable(L, 0, q->nparams);
            for (int i = 0; i < q->nparams; i++) {
                push_path(L, p + q->param[i].off, q->param[i].len);
                lua_setfield(L, -2, q->names[i]);
            }
            return KEPT;
        }
        break;
    case 'q':
        p = neap_http_query(q->r, &n);
        if (!strcmp(key, "query")) {
            push_form(L, p, n);
            return KEPT;
        }
        if (!strcmp(key, "query_string")) return lua_pushlstring(L, p, n), ANEW;
        break;
    case 'h':
        if (!strcmp(key, "headers")) return push_headers(L, q), KEPT;
        break;
    case 'i':
        if (!strcmp(key, "id")) {
            char id[24];
            snprintf(id, sizeof id, "%012llx", (unsigned long long)neap_http_id(q->r));
            return lua_pushstring(L, id), KEPT;
        }
        if (!strcmp(key, "ip")) return lua_pushstring(L, neap_http_peer(q->r, NULL)), ANEW;
        break;
    case 'l':
        if (!strcmp(key, "loopback")) {
            neap_http_peer(q->r, &loopback);
            return lua_pushboolean(L, loopback), ANEW;
        }
        break;
    case 'a':
        if (!strcmp(key, "allow")) return lua_pushstring(L, q->allow), ANEW;
        break;
    case 'r':
        if (!strcmp(key, "route_id")) return lua_pushinteger(L, q->id), ANEW;
        break;
    case 'b':
        if (!strcmp(key, "body")) return push_body(L, q), KEPT;
        break;
    default: break;
    }
    return NO_FIELD;
}

static int req_index(lua_State *L) { /* upvalue 1: methods */
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    http_req *q = rt_checkudata(L, 1, RT_CLASS_REQUEST, HTTP_REQ);
    lua_settop(L, 2);
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL) return 1;
    }
    lua_settop(L, 2);
    if (lua_type(L, 2) != LUA_TSTRING) return 0;
    if (!q->r) http_check_req(L, 1);
    enum field f = push_field(L, q, lua_tostring(L, 2));
    if (f != KEPT) return f == ANEW;
    cache(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    return 1;
}

static int req_newindex(lua_State *L) {
    rt_checkudata(L, 1, RT_CLASS_REQUEST, HTTP_REQ);
    lua_settop(L, 3);
    cache(L, 1);
    lua_insert(L, 2);
    lua_rawset(L, 2);
    return 0;
}

static int req_tostring(lua_State *L) {
    http_req *q = rt_checkudata(L, 1, RT_CLASS_REQUEST, HTTP_REQ);
    size_t n = 0;
    const char *p = q->r ? neap_http_path(q->r, &n) : "";
    if (!q->r) lua_pushliteral(L, "http request (over)");
    else {
        lua_pushfstring(L, "http request %s ", neap_http_method(q->r));
        push_path(L, p, n);
        lua_concat(L, 2);
    }
    return 1;
}

static const luaL_Reg methods[] = {{"text", req_text},
                                   {"json", req_json},
                                   {"form", req_form},
                                   {"lines", req_lines},
                                   {"header", req_header},
                                   {"cookie", req_cookie},
                                   {"set_header", req_set_header},
                                   {"keep", req_keep},
                                   {"stream", http_req_stream},
                                   {"send_file", http_req_file},
                                   {"time_limit", req_limit},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__newindex", req_newindex}, {"__tostring", req_tostring}, {NULL, NULL}};

/* [-0, +1] the methods table: http.lua adds those that are Lua */
void http_req_meta(lua_State *L) {
    luaL_newmetatable(L, HTTP_REQ);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, req_index, 1);
    lua_setfield(L, -3, "__index");
    lua_remove(L, -2);
}
