/* redis_value.c: Lua values to wire arguments, replies to Lua values. Rules: a missing value is nil, a null inside a list is false (so that # and
   ipairs work), integers stay integers, what Redis calls a bulk string is a Lua string, binary-safe. */
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"

/* ---- to the wire ---------------------------------------------------------------------------------------------------- */
static void check_scalar(lua_State *L, const char *what, int idx, int arg) {
    int t = lua_type(L, idx);
    if (t == LUA_TSTRING || t == LUA_TNUMBER) return;
    if (t == LUA_TBOOLEAN) luaL_error(L, "%s: argument #%d is a boolean, which Redis does not have: write 1 or 0", what, arg);
    luaL_error(L, "%s: argument #%d is %s; strings and numbers can be sent", what, arg, t == LUA_TNIL ? "nil" : luaL_typename(L, idx));
}

static int is_list(lua_State *L, int idx) {
    int list = lua_rawgeti(L, idx, 1) != LUA_TNIL;
    lua_pop(L, 1);
    return list;
}

size_t redis_count_args(lua_State *L, const char *what, int first, int top) {
    size_t n = 0;
    for (int i = first; i <= top; i++) {
        int t = lua_type(L, i);
        if (t == LUA_TSTRING || t == LUA_TNUMBER) {
            n++;
        } else if (t != LUA_TTABLE) {
            check_scalar(L, what, i, i - first + 1);
        } else if (is_list(L, i)) {
            size_t len = lua_rawlen(L, i);
            for (size_t k = 1; k <= len; k++) {
                lua_rawgeti(L, i, (lua_Integer)k);
                check_scalar(L, what, -1, i - first + 1);
                lua_pop(L, 1);
            }
            n += len;
        } else {
            for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
                check_scalar(L, what, -2, i - first + 1);
                check_scalar(L, what, -1, i - first + 1);
                n += 2;
            }
        }
    }
    return n;
}

static int put_scalar(lua_State *L, neap_buf *b, int idx, int type) {
    if (type == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, idx, &len);
        return neap_resp_str(b, s, len);
    }
    return lua_isinteger(L, idx) ? neap_resp_int(b, lua_tointeger(L, idx)) : neap_resp_num(b, lua_tonumber(L, idx));
}

int redis_put_args(lua_State *L, neap_buf *b, int first, int top) {
    int e = 0;
    for (int i = first; i <= top && !e; i++) {
        int t = lua_type(L, i);
        if (t != LUA_TTABLE) {
            e = put_scalar(L, b, i, t);
        } else if (is_list(L, i)) {
            size_t len = lua_rawlen(L, i);
            for (size_t k = 1; k <= len && !e; k++) {
                lua_rawgeti(L, i, (lua_Integer)k);
                e = put_scalar(L, b, -1, lua_type(L, -1));
                lua_pop(L, 1);
            }
        } else {
            for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1))
                if (!e && !(e = put_scalar(L, b, -2, lua_type(L, -2)))) e = put_scalar(L, b, -1, lua_type(L, -1));
        }
    }
    return e;
}

/* ---- from the wire -------------------------------------------------------------------------------------------------- */
static void push_list(lua_State *L, const neap_reply *n, enum redis_shape inner) {
    lua_createtable(L, (int)n->len, 0);
    for (uint32_t i = 0; i < n->len; i++) {
        if ((i & 255) == 255) rt_breathe(L);
        redis_push_reply(L, &n->item[i], inner, 0);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_map(lua_State *L, const neap_reply *n) {
    lua_createtable(L, 0, (int)(n->len / 2));
    for (uint32_t i = 0; i + 1 < n->len; i += 2) {
        if ((i & 255) == 254) rt_breathe(L);
        redis_push_reply(L, &n->item[i], SHAPE_PLAIN, 0);
        redis_push_reply(L, &n->item[i + 1], SHAPE_PLAIN, 0);
        lua_rawset(L, -3);
    }
}

/* [id, [field, value, ...]] -> {id=, ms=, seq=, fields={field=value}}; a deleted entry (null) -> false */
static void push_entry(lua_State *L, const neap_reply *n) {
    if (n->type != NEAP_REPLY_ARRAY || n->len < 1 || n->item[0].type != NEAP_REPLY_STRING) {
        redis_push_reply(L, n, SHAPE_PLAIN, 0);
        return;
    }
    char *dash;
    lua_createtable(L, 0, 4);
    lua_pushlstring(L, n->item[0].str, n->item[0].len);
    lua_setfield(L, -2, "id");
    lua_pushinteger(L, (lua_Integer)strtoull(n->item[0].str, &dash, 10));
    lua_setfield(L, -2, "ms");
    lua_pushinteger(L, *dash == '-' ? (lua_Integer)strtoull(dash + 1, NULL, 10) : 0);
    lua_setfield(L, -2, "seq");
    if (n->len > 1 && n->item[1].type == NEAP_REPLY_ARRAY) {
        push_map(L, &n->item[1]);
        lua_setfield(L, -2, "fields");
    }
}

static void push_entries(lua_State *L, const neap_reply *n) {
    lua_createtable(L, (int)n->len, 0);
    for (uint32_t i = 0; i < n->len; i++) {
        if ((i & 255) == 255) rt_breathe(L);
        push_entry(L, &n->item[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

void redis_push_reply(lua_State *L, const neap_reply *n, enum redis_shape shape, int top) {
    luaL_checkstack(L, 6, "redis reply");
    switch (n->type) {
    case NEAP_REPLY_NIL:
        if (top) lua_pushnil(L);
        else lua_pushboolean(L, 0);
        return;
    case NEAP_REPLY_INTEGER: lua_pushinteger(L, n->integer); return;
    case NEAP_REPLY_ARRAY: break;
    case NEAP_REPLY_ERROR: /* inside an array: EXEC, scripts, pipelines */ redis_push_error(L, "redis", NEAP_ERR_REPLY, n, NULL); return;
    default: lua_pushlstring(L, n->str, n->len); return;
    }
    switch (shape) {
    case SHAPE_MAP: push_map(L, n); break;
    case SHAPE_MAPS: push_list(L, n, SHAPE_MAP); break;
    case SHAPE_ENTRIES: push_entries(L, n); break;
    case SHAPE_STREAMS:
        lua_createtable(L, 0, (int)n->len);
        for (uint32_t i = 0; i < n->len; i++) {
            const neap_reply *s = &n->item[i];
            if (s->type != NEAP_REPLY_ARRAY || s->len < 2 || s->item[1].type != NEAP_REPLY_ARRAY) continue;
            redis_push_reply(L, &s->item[0], SHAPE_PLAIN, 0);
            push_entries(L, &s->item[1]);
            lua_rawset(L, -3);
        }
        break;
    case SHAPE_CLAIMED:
        lua_createtable(L, (int)n->len, 0);
        for (uint32_t i = 0; i < n->len; i++) {
            redis_push_reply(L, &n->item[i], i == 1 ? SHAPE_ENTRIES : SHAPE_PLAIN, 0);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    default: push_list(L, n, SHAPE_PLAIN);
    }
}

/* ---- errors --------------------------------------------------------------------------------------------------------- */
static const struct hint {
    const char *code;
    int retryable;
    const char *advice;
} hints[] = {
    {"WRONGTYPE", 0, "the key holds another type of value: `TYPE key` tells which"},
    {"NOAUTH", 0, "log in: REDIS_URL=redis://user:password@host:port"},
    {"NOPERM", 0, "this user may not do that: see ACL GETUSER"},
    {"OOM", 1, "Redis is at its maxmemory: trim streams, or raise it (CONFIG SET maxmemory)"},
    {"MISCONF", 1, "Redis cannot write to its disk and refuses changes: free some space there, see its log"},
    {"READONLY", 0, "this is a replica: connect to its master"},
    {"LOADING", 1, "Redis is loading its data: try again shortly"},
    {"BUSY", 1, "a script is running for too long: SCRIPT KILL ends it"},
    {"TRYAGAIN", 1, NULL},
    {"CLUSTERDOWN", 1, "some of the cluster's slots have no master: see CLUSTER INFO"},
    {"MASTERDOWN", 1, NULL},
    {"NOREPLICAS", 1, NULL},
    {"UNBLOCKED", 1, NULL},
    {"CROSSSLOT", 0, "on a cluster, keys of one command need the same {tag} in their names"},
    {NULL, 0, NULL},
};

void redis_push_error(lua_State *L, const char *what, int status, const neap_reply *reply, const char *key) {
    const char *text = reply && reply->type == NEAP_REPLY_ERROR ? reply->str : neap_err_kind(status);
    if (status != NEAP_ERR_REPLY) {
        int sent = reply ? neap_reply_sent(reply) : 0, reads = sent && strstr(text, "only reads") != NULL;
        rt_error e = {neap_err_kind(status), (!sent || reads) && status != NEAP_ERR_AUTH && status != NEAP_ERR_CLOSED, sent, 0};
        err_push(L, &e, "%s: %s", what, text);
        return;
    }
    size_t n = strcspn(text, " ");
    const struct hint *h = hints;
    while (h->code && (strlen(h->code) != n || strncmp(h->code, text, n))) h++;
    size_t len = strlen(text);
    while (len && text[len - 1] == ' ') len--; /* "ERR unknown command ..." ends in a blank */
    text = lua_pushlstring(L, text, len);
    rt_error e = {"reply", h->retryable, -1, 0};
    err_push(L, &e, "%s: %s%s%s%s%s%s", what, text, key ? " (key '" : "", key ? key : "", key ? "')" : "", h->advice ? "; " : "",
             h->advice ? h->advice : "");
    lua_pushlstring(L, text, n);
    lua_setfield(L, -2, "code");
    lua_remove(L, -2);
}
