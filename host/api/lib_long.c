/* lib_long.c: the functions of stock Lua's other libraries that can run for ever, or nearly, on an argument that is easy to write: table.move
   over a huge range, table.sort of millions, load of a huge text. Same results and errors as stock; they look at the clock (rt_breathe). What is
   bounded by the memory cap anyway (string.rep, table.concat, utf8.len, ...) is stock's. */
#include <string.h>
#include "host/api/rt_internal.h"

enum { OFTEN = 4096, SORT_LONG = 1000000, PIECE = 32768 };

/* ---- table.move ------------------------------------------------------------------------------------------------------- */
/* A table, or something that behaves like one: `event` is the metamethod it then needs. */
static void check_table(lua_State *L, int arg, const char *event) {
    if (lua_istable(L, arg)) return;
    if (luaL_getmetafield(L, arg, event) == LUA_TNIL) luaL_checktype(L, arg, LUA_TTABLE);
    lua_pop(L, 1);
}

static void move_one(lua_State *L, lua_Integer from, int to_table, lua_Integer to, lua_Unsigned i) {
    if (i % OFTEN == 0) rt_breathe(L);
    lua_geti(L, 1, from);
    lua_seti(L, to_table, to);
}

static int tab_move(lua_State *L) {
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3), to = luaL_checkinteger(L, 4);
    int target = lua_isnoneornil(L, 5) ? 1 : 5;
    check_table(L, 1, "__index");
    check_table(L, target, "__newindex");
    if (last >= first) {
        luaL_argcheck(L, first > 0 || last < LUA_MAXINTEGER + first, 3, "too many elements to move");
        lua_Unsigned n = (lua_Unsigned)last - (lua_Unsigned)first + 1;
        luaL_argcheck(L, to <= LUA_MAXINTEGER - (lua_Integer)n + 1, 4, "destination wrap around");
        int overlaps = to > first && to <= last && (target == 1 || lua_compare(L, 1, target, LUA_OPEQ));
        if (!overlaps)
            for (lua_Unsigned i = 0; i < n; i++) move_one(L, first + (lua_Integer)i, target, to + (lua_Integer)i, i);
        else
            for (lua_Unsigned i = n; i-- > 0;) move_one(L, first + (lua_Integer)i, target, to + (lua_Integer)i, i);
    }
    lua_pushvalue(L, target);
    return 1;
}

/* ---- table.sort ------------------------------------------------------------------------------------------------------- */
static int less(lua_State *L) {
    rt_breathe(L);
    lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
    return 1;
}

/* Stock's, upvalue 1; millions of elements without an order function get one that looks at the clock, where there is one to look at. */
static int tab_sort(lua_State *L) {
    lua_settop(L, 2);
    if (rt_of(L)->watch && lua_istable(L, 1) && lua_isnil(L, 2) && luaL_len(L, 1) >= SORT_LONG) {
        lua_pushcfunction(L, less);
        lua_replace(L, 2);
    }
    return lua_tocfunction(L, lua_upvalueindex(1))(L); /* called as C: it sees these arguments, and errors name sort */
}

/* ---- load -------------------------------------------------------------------------------------------------------------- */
typedef struct text {
    const char *at;
    size_t left;
} text;

static const char *next_piece(lua_State *L, void *ud, size_t *size) {
    text *t = ud;
    rt_breathe(L); /* an error ends the compilation; load returns it, and the task's next instruction raises it again */
    *size = t->left < PIECE ? t->left : PIECE;
    const char *p = t->at;
    t->at += *size;
    t->left -= *size;
    return *size ? p : NULL;
}

enum { KEPT = 5 }; /* where the piece that the compiler reads now is kept */

static const char *next_from_function(lua_State *L, void *ud, size_t *size) {
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *size = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, KEPT);
    return lua_tolstring(L, KEPT, size);
}

static int base_load(lua_State *L) {
    const char *mode = luaL_optstring(L, 3, "bt"), *s = lua_tostring(L, 1);
    int env = lua_isnone(L, 4) ? 0 : 4, status;
    if (s) {
        text t = {s, lua_rawlen(L, 1)};
        status = lua_load(L, next_piece, &t, luaL_optstring(L, 2, s), mode);
    } else {
        const char *name = luaL_optstring(L, 2, "=(load)");
        luaL_checktype(L, 1, LUA_TFUNCTION);
        lua_settop(L, KEPT);
        status = lua_load(L, next_from_function, NULL, name, mode);
    }
    if (status != LUA_OK) {
        luaL_pushfail(L);
        lua_insert(L, -2);
        return 2;
    }
    if (env) {
        lua_pushvalue(L, env);
        if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
    }
    return 1;
}

void lib_long_install(lua_State *L) {
    lua_getglobal(L, "table");
    lua_pushcfunction(L, tab_move);
    lua_setfield(L, -2, "move");
    lua_getfield(L, -1, "sort");
    lua_pushcclosure(L, tab_sort, 1);
    lua_setfield(L, -2, "sort");
    lua_pop(L, 1);
    lua_register(L, "load", base_load);
}
