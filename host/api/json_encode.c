/* json_encode.c: a Lua value as JSON. Tables are read raw (no metamethods run, so nothing can yield or re-enter), one shared buffer.
   A table is a list if it is marked so or has exactly the keys 1..n, n > 0; it is an object if it is marked so, empty, or has
   string keys only; everything else is refused with its path rather than guessed. */
#include "host/api/json_lua.h"
#include "host/api/rt.h"
#include "host/num.h"

enum { KEEP = 1 << 20 }; /* one big answer does not stay in the shared buffer */

typedef struct frame {
    struct frame *up;
    const char *key; /* NULL: index is the place in a list */
    lua_Integer index;
} frame;

typedef struct encoder {
    lua_State *L;
    json_state *state;
    neap_buf *out; /* the state's */
    int sort, nan_null, replace, depth, max_depth;
    const char *indent; /* NULL: compact */
    char why[200];
    neap_buf path; /* filled on failure only; the caller frees it */
} encoder;

static int encode_value(encoder *e, int idx, frame *at);

static int refuse(encoder *e, frame *at, const char *why) {
    snprintf(e->why, sizeof e->why, "%s", why);
    frame *chain[64];
    int n = 0;
    for (; at && n < 64; at = at->up) chain[n++] = at;
    buf_puts(&e->path, "$");
    while (n--) {
        if (!chain[n]->key) buf_printf(&e->path, "[%lld]", (long long)chain[n]->index);
        else buf_printf(&e->path, ".%s", chain[n]->key);
    }
    return NEAP_ERR_INVALID;
}

static int newline(encoder *e) {
    if (!e->indent) return 0;
    if (buf_putc(e->out, '\n')) return NEAP_ERR_MEMORY;
    for (int i = 0; i < e->depth; i++)
        if (buf_puts(e->out, e->indent)) return NEAP_ERR_MEMORY;
    return 0;
}

static int put_string(encoder *e, const char *s, size_t n, frame *at) {
    int err = neap_json_put_string(e->out, s, n, e->replace);
    if (err != NEAP_ERR_INVALID) return err;
    char why[100];
    snprintf(why, sizeof why, "this string is not UTF-8 (byte %zu); utf8=\"replace\" writes U+FFFD instead", neap_json_utf8(s, n) + 1);
    return refuse(e, at, why);
}

static int encode_list(encoder *e, int t, lua_Integer n, frame *up) {
    frame at = {.up = up};
    if (buf_putc(e->out, '[')) return NEAP_ERR_MEMORY;
    e->depth++;
    for (lua_Integer i = 1; i <= n; i++) {
        if ((i & 255) == 0) rt_breathe(e->L);
        int err = i > 1 ? buf_putc(e->out, ',') : 0;
        if (!err) err = newline(e);
        at.index = i;
        lua_rawgeti(e->L, t, i);
        if (!err) err = lua_isnil(e->L, -1) ? refuse(e, &at, "a list has a hole here: put json.null") : encode_value(e, lua_gettop(e->L), &at);
        if (err) return err;
        lua_pop(e->L, 1);
    }
    e->depth--;
    return (n && newline(e)) || buf_putc(e->out, ']') ? NEAP_ERR_MEMORY : 0;
}

/* The key at ki as a JSON key, then the value at vi. Number keys only come here from marked objects. */
static int encode_member(encoder *e, int ki, int vi, int first, frame *up) {
    lua_State *L = e->L;
    char text[NEAP_NUM_TEXT];
    frame at = {.up = up, .key = text};
    int err = first ? 0 : buf_putc(e->out, ',');
    if (!err) err = newline(e);
    if (err) return err;
    if (lua_type(L, ki) == LUA_TSTRING) {
        size_t n;
        at.key = lua_tolstring(L, ki, &n);
        err = put_string(e, at.key, n, &at);
    } else {
        if (lua_isinteger(L, ki)) neap_num_format_int(lua_tointeger(L, ki), text);
        else neap_num_format(lua_tonumber(L, ki), 0, text);
        err = buf_printf(e->out, "\"%s\"", text);
    }
    if (!err) err = buf_putc(e->out, ':');
    if (!err && e->indent) err = buf_putc(e->out, ' ');
    return err ? err : encode_value(e, vi, &at);
}

typedef struct sort_key {
    const char *s;
    size_t n;
} sort_key;

static int by_bytes(const void *a, const void *b) {
    const sort_key *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static int encode_sorted(encoder *e, int t, frame *up) {
    lua_State *L = e->L;
    size_t n = 0, i = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) n++;
    sort_key *keys = lua_newuserdatauv(L, n * sizeof *keys + 1, 0); /* the strings stay alive as keys of the table */
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) return refuse(e, up, "sort works on string keys only");
        keys[i].s = lua_tolstring(L, -2, &keys[i].n);
        i++;
    }
    qsort(keys, n, sizeof *keys, by_bytes);
    for (i = 0; i < n; i++) {
        lua_pushlstring(L, keys[i].s, keys[i].n);
        lua_pushvalue(L, -1);
        lua_rawget(L, t);
        int err = encode_member(e, lua_gettop(L) - 1, lua_gettop(L), i == 0, up);
        if (err) return err;
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
    return 0;
}

static int encode_object(encoder *e, int t, int marked, frame *up) {
    lua_State *L = e->L;
    int first = 1, err = buf_putc(e->out, '{');
    e->depth++;
    if (!err && e->sort) {
        lua_pushnil(L);
        first = !lua_next(L, t);
        if (!first) lua_pop(L, 2);
        err = encode_sorted(e, t, up);
    } else if (!err) {
        lua_pushnil(L);
        while (lua_next(L, t)) {
            int top = lua_gettop(L), kt = lua_type(L, top - 1);
            if (kt != LUA_TSTRING && !(marked && kt == LUA_TNUMBER))
                return refuse(e, up,
                              kt == LUA_TNUMBER ? "this table is neither a list 1..n nor an object with string keys; "
                                                  "json.object(t) writes number keys as strings"
                                                : "a key of this table is neither a string nor a number");
            if ((err = encode_member(e, top - 1, top, first, up))) return err;
            first = 0;
            lua_pop(L, 1);
        }
    }
    if (err) return err;
    e->depth--;
    return (!first && newline(e)) || buf_putc(e->out, '}') ? NEAP_ERR_MEMORY : 0;
}

/* 'a' or 'o' if the table carries a mark (ours, or another library's __jsontype), 0 if not. */
static int mark_of(lua_State *L, const json_state *j, int t) {
    if (!lua_getmetatable(L, t)) return 0;
    const void *mt = lua_topointer(L, -1);
    int mark = mt == j->array.mt ? 'a' : mt == j->object.mt ? 'o' : 0;
    if (!mark) {
        lua_pushliteral(L, "__jsontype");
        lua_rawget(L, -2);
        const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
        mark = strcmp(s, "array") == 0 ? 'a' : strcmp(s, "object") == 0 ? 'o' : 0;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return mark;
}

/* Number of entries if the keys are exactly 1..n, else -1. */
static lua_Integer list_len(lua_State *L, int t) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, t), count = 0;
    lua_pushnil(L);
    while (lua_next(L, t)) {
        lua_pop(L, 1);
        if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1 || lua_tointeger(L, -1) > n) {
            lua_pop(L, 1);
            return -1;
        }
        count++;
    }
    return count == n ? n : -1;
}

static int encode_table(encoder *e, int t, frame *at) {
    rt_breathe(e->L);
    if (e->depth >= e->max_depth || !lua_checkstack(e->L, 12)) return refuse(e, NULL, "nested too deeply: does the table contain itself?");
    int mark = mark_of(e->L, e->state, t);
    if (mark == 'a') return encode_list(e, t, (lua_Integer)lua_rawlen(e->L, t), at);
    if (mark == 'o' || lua_rawlen(e->L, t) == 0) return encode_object(e, t, mark == 'o', at);
    lua_Integer n = list_len(e->L, t);
    if (n >= 0) return encode_list(e, t, n, at);
    return refuse(e, at, "this table mixes list items with other keys, or has holes; use json.null for a hole, json.object(t) for an object");
}

static int encode_value(encoder *e, int idx, frame *at) {
    lua_State *L = e->L;
    size_t n;
    const char *s;
    switch (lua_type(L, idx)) {
    case LUA_TNIL: return buf_puts(e->out, "null");
    case LUA_TBOOLEAN: return buf_puts(e->out, lua_toboolean(L, idx) ? "true" : "false");
    case LUA_TSTRING: s = lua_tolstring(L, idx, &n); return put_string(e, s, n, at);
    case LUA_TTABLE: return encode_table(e, idx, at);
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx)) return neap_json_put_int(e->out, lua_tointeger(L, idx));
        int err = neap_json_put_double(e->out, lua_tonumber(L, idx));
        if (err != NEAP_ERR_INVALID) return err;
        return e->nan_null ? buf_puts(e->out, "null") : refuse(e, at, "JSON has no NaN or infinity; nan=\"null\" writes null instead");
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, idx)) return buf_puts(e->out, "null"); /* json.null, cjson.null */
        /* fall through */
    default: {
        char why[80];
        snprintf(why, sizeof why, "cannot write a %s as JSON", luaL_typename(L, idx));
        return refuse(e, at, why);
    }
    }
}

static void read_options(lua_State *L, int idx, encoder *e) {
    static const char *const known[] = {"pretty", "sort", "nan", "utf8", "max_depth", NULL};
    static const char *const either[] = {"error", "null", NULL}, *const utf8[] = {"error", "replace", NULL};
    if (lua_isnoneornil(L, idx)) return;
    json_check_options(L, idx, known);
    lua_getfield(L, idx, "pretty");
    e->indent = lua_toboolean(L, -1) ? "  " : NULL;
    e->sort = e->indent != NULL; /* text for people comes in a steady order */
    if (lua_getfield(L, idx, "sort") != LUA_TNIL) e->sort = lua_toboolean(L, -1);
    if (lua_getfield(L, idx, "nan") != LUA_TNIL) e->nan_null = luaL_checkoption(L, -1, NULL, either);
    if (lua_getfield(L, idx, "utf8") != LUA_TNIL) e->replace = luaL_checkoption(L, -1, NULL, utf8);
    if (lua_getfield(L, idx, "max_depth") != LUA_TNIL) {
        lua_Integer d = luaL_checkinteger(L, -1);
        e->max_depth = d < 1 ? 1 : d > NEAP_JSON_MAX_DEPTH ? NEAP_JSON_MAX_DEPTH : (int)d;
    }
    lua_pop(L, 5);
}

/* Encodes the value at idx into the state's buffer: 1, or 0 with an error object pushed. */
static int encode(encoder *e, int idx) {
    lua_State *L = e->L;
    int top = lua_gettop(L);
    e->state = json_of(L);
    e->out = &e->state->out;
    buf_clear(e->out);
    int err = encode_value(e, idx, NULL);
    lua_settop(L, top);
    if (!err) return 1;
    char path[300];
    snprintf(path, sizeof path, "%s", e->path.data ? e->path.data : "$");
    buf_free(&e->path);
    rt_error how = {.kind = neap_err_kind(err), .sent = -1, .where = 1};
    err_push(L, &how, "json.encode: %s (at %s)", err == NEAP_ERR_INVALID ? e->why : "out of memory", path);
    return 0;
}

int json_encode(lua_State *L) {
    encoder e = {.L = L, .max_depth = NEAP_JSON_DEPTH};
    luaL_checkany(L, 1);
    read_options(L, 2, &e);
    lua_settop(L, 1);
    if (encode(&e, 1)) {
        lua_pushlstring(L, e.out->data, e.out->len);
        if (e.out->cap > KEEP) buf_free(e.out);
        return 1;
    }
    if (!lua_toboolean(L, JSON_TRY)) return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

const neap_buf *json_write(lua_State *L, int idx) {
    encoder e = {.L = L, .max_depth = NEAP_JSON_DEPTH};
    if (json_of(L)->out.cap > KEEP) buf_free(&json_of(L)->out);
    if (!encode(&e, idx)) lua_error(L);
    return e.out;
}
