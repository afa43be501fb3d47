/* mod_json.c: `neap.json`: strict JSON for Lua. Integers stay integers, floats round-trip, [] stays []: decoded arrays carry a mark
   (a metatable) that encode honours. One exact C path instead of lua-cjson underneath: cjson reads every number as a float and takes
   NaN, hex and raw newlines. `cjson` itself stays loadable, and json.null equals cjson.null. */
#include "host/api/json_lua.h"
#include "host/api/rt.h"

void json_check_options(lua_State *L, int idx, const char *const *known) {
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?", *const *k = known;
        while (*k && strcmp(*k, name) != 0) k++;
        if (*k) continue;
        const char *near = err_nearest(name, known);
        luaL_error(L, near ? "unknown option '%s', did you mean '%s'?" : "unknown option '%s'", name, near);
    }
}

/* ---- decode --------------------------------------------------------------------------------------------------------- */

static void push_string(lua_State *L, const neap_json *j) {
    if (!j->escaped) {
        lua_pushlstring(L, j->text, j->len);
        return;
    }
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, j->len);
    luaL_pushresultsize(&b, neap_json_unescape(j->text, j->len, out));
}

/* Most tables are small: their contents wait on the stack until their number is known, so that the table is made in its size. */
enum { HELD = 16 };

static void pack_list(lua_State *L, int base) {
    int n = lua_gettop(L) - base;
    lua_createtable(L, n, 0);
    lua_insert(L, base + 1);
    for (; n > 0; n--) lua_rawseti(L, base + 1, n);
}

static void pack_object(lua_State *L, int base) {
    int n = (lua_gettop(L) - base) / 2;
    lua_createtable(L, 0, n);
    for (int i = 0; i < n; i++) {
        lua_pushvalue(L, base + 1 + 2 * i);
        lua_pushvalue(L, base + 2 + 2 * i);
        lua_rawset(L, -3);
    }
    if (n) lua_replace(L, base + 1);
    lua_settop(L, base + 1);
}

static int push_value(lua_State *L, neap_json *j, neap_json_token t);

/* The rest of an array, behind its '['. */
static int push_list(lua_State *L, neap_json *j) {
    int base = lua_gettop(L), packed = 0;
    neap_json_token t;
    luaL_checkstack(L, HELD + 6, "json.decode");
    for (lua_Integer n = 1; (t = neap_json_next(j)) != NEAP_JSON_ARRAY_END; n++) {
        if ((n & 255) == 0) rt_breathe(L);
        if (!push_value(L, j, t)) return 0;
        if (packed) lua_rawseti(L, base + 1, n);
        else if (n == HELD) pack_list(L, base), packed = 1;
    }
    if (!packed) pack_list(L, base);
    lua_rawgeti(L, LUA_REGISTRYINDEX, json_of(L)->array.ref);
    lua_setmetatable(L, -2);
    return 1;
}

static int push_object(lua_State *L, neap_json *j) {
    int base = lua_gettop(L), packed = 0;
    neap_json_token t;
    luaL_checkstack(L, 2 * HELD + 6, "json.decode");
    rt_breathe(L);
    for (int n = 1; (t = neap_json_next(j)) == NEAP_JSON_KEY; n++) {
        push_string(L, j);
        if (!push_value(L, j, neap_json_next(j))) return 0;
        if (packed) lua_rawset(L, base + 1); /* a key given twice: the last one wins */
        else if (n == HELD) pack_object(L, base), packed = 1;
    }
    if (!packed) pack_object(L, base);
    return t == NEAP_JSON_OBJECT_END;
}

/* Pushes the value whose first token is t. Returns false after a parse error (what is on the stack is then to be dropped). */
static int push_value(lua_State *L, neap_json *j, neap_json_token t) {
    switch (t) {
    case NEAP_JSON_NULL: lua_pushlightuserdata(L, NULL); return 1;
    case NEAP_JSON_BOOL: lua_pushboolean(L, (int)j->i); return 1;
    case NEAP_JSON_INT: lua_pushinteger(L, j->i); return 1;
    case NEAP_JSON_FLOAT: lua_pushnumber(L, j->d); return 1;
    case NEAP_JSON_STRING: push_string(L, j); return 1;
    case NEAP_JSON_ARRAY: return push_list(L, j);
    case NEAP_JSON_OBJECT: return push_object(L, j);
    default: return 0;
    }
}

/* One document: pushes its value, or the error object and returns false. `line` is added to the line numbers in errors. */
static int decode_text(lua_State *L, const char *s, size_t n, int max_depth, unsigned line) {
    neap_json j;
    int top = lua_gettop(L);
    neap_json_init(&j, s, n, max_depth);
    if (push_value(L, &j, neap_json_next(&j)) && neap_json_next(&j) == NEAP_JSON_END) return 1;
    char why[200];
    unsigned l, c;
    neap_json_explain(&j, why, sizeof why, &l, &c);
    lua_settop(L, top);
    rt_error how = {.kind = "invalid", .sent = -1};
    if (line) err_push(L, &how, "json: line %d column %d: %s", (int)(line + l - 1), (int)c, strchr(why, ':') + 2);
    else err_push(L, &how, "json: %s", why);
    return 0;
}

static int depth_option(lua_State *L, int idx) {
    static const char *const known[] = {"max_depth", NULL};
    if (lua_isnoneornil(L, idx)) return 0;
    json_check_options(L, idx, known);
    lua_getfield(L, idx, "max_depth");
    lua_Integer d = luaL_optinteger(L, -1, NEAP_JSON_DEPTH);
    lua_pop(L, 1);
    return d < 1 ? 1 : d > NEAP_JSON_MAX_DEPTH ? NEAP_JSON_MAX_DEPTH : (int)d;
}

static int json_decode(lua_State *L) {
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    int depth = depth_option(L, 2);
    lua_settop(L, 1);
    if (decode_text(L, s, n, depth, 0)) return 1;
    if (!lua_toboolean(L, JSON_TRY)) return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

int json_read(lua_State *L, const char *s, size_t n) {
    json_of(L);
    return decode_text(L, s, n, 0, 0);
}

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

/* The iterator's own upvalues follow JSON_TRY: text, position (0-based), lines read. */
#define LINES_TEXT lua_upvalueindex(2)
#define LINES_POS  lua_upvalueindex(3)
#define LINES_N    lua_upvalueindex(4)

static int lines_next(lua_State *L) {
    size_t n;
    const char *s = lua_tolstring(L, LINES_TEXT, &n);
    size_t at = (size_t)lua_tointeger(L, LINES_POS);
    lua_Integer line = lua_tointeger(L, LINES_N);
    while (at < n) {
        const char *nl = memchr(s + at, '\n', n - at);
        size_t start = at, end = nl ? (size_t)(nl - s) : n;
        at = end + 1;
        line++;
        while (start < end && (s[start] == ' ' || s[start] == '\t' || s[start] == '\r')) start++;
        if (start == end) continue; /* blank lines separate, they are no values */
        lua_pushinteger(L, (lua_Integer)at);
        lua_replace(L, LINES_POS);
        lua_pushinteger(L, line);
        lua_replace(L, LINES_N);
        lua_settop(L, 0);
        lua_pushinteger(L, line);
        if (decode_text(L, s + start, end - start, 0, (unsigned)line)) return 2;
        if (!lua_toboolean(L, JSON_TRY)) return lua_error(L);
        lua_pushnil(L);
        lua_insert(L, -2);
        return 3;
    }
    return 0;
}

/* for line, value in json.lines(s) (NDJSON). In the try view a bad line gives line, nil, err and the loop goes on. */
static int json_lines(lua_State *L) {
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_pushvalue(L, JSON_TRY);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, lines_next, 4);
    return 1;
}

/* ---- marks ---------------------------------------------------------------------------------------------------------- */

static int set_mark(lua_State *L, const json_mark *mark) {
    const json_state *j = json_of(L);
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1) && lua_topointer(L, -1) != j->array.mt && lua_topointer(L, -1) != j->object.mt)
        return luaL_argerror(L, 1, "this table has a metatable of its own: give that one __jsontype = \"array\" or \"object\"");
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, mark->ref);
    lua_setmetatable(L, 1);
    return 1;
}

static int json_array(lua_State *L) { return set_mark(L, &json_of(L)->array); }
static int json_object(lua_State *L) { return set_mark(L, &json_of(L)->object); }

/* ---- module --------------------------------------------------------------------------------------------------------- */

static int state_gc(lua_State *L) {
    buf_free(&((json_state *)lua_touserdata(L, 1))->out);
    return 0;
}

static void make_mark(lua_State *L, json_mark *mark, const char *type, const char *name) {
    lua_createtable(L, 0, 2);
    mark->mt = lua_topointer(L, -1);
    lua_pushstring(L, type);
    lua_setfield(L, -2, "__jsontype");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    mark->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

json_state *json_of(lua_State *L) {
    void **slot = rt_slot(rt_of(L), RT_SLOT_JSON);
    if (*slot) return *slot;
    json_state *j = lua_newuserdatauv(L, sizeof *j, 0);
    *j = (json_state){0};
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, state_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    luaL_ref(L, LUA_REGISTRYINDEX); /* for good */
    make_mark(L, &j->array, "array", "json.array");
    make_mark(L, &j->object, "object", "json.object");
    *slot = j;
    return j;
}

static const luaL_Reg functions[] = {{"encode", json_encode}, {"decode", json_decode}, {"lines", json_lines},
                                     {"array", json_array},   {"object", json_object}, {NULL, NULL}};

int luaopen_neap_json(lua_State *L);
int luaopen_neap_json(lua_State *L) {
    lua_settop(L, 0);
    json_of(L);
    luaL_newlibtable(L, functions); /* 1: the module */
    luaL_newlibtable(L, functions); /* 2: its try view */
    for (int view = 1; view <= 2; view++) {
        lua_pushvalue(L, view);
        lua_pushboolean(L, view == 2);
        luaL_setfuncs(L, functions, 1);
        lua_pushlightuserdata(L, NULL);
        lua_setfield(L, -2, "null");
        lua_pop(L, 1);
    }
    lua_setfield(L, 1, "try");
    return 1;
}
