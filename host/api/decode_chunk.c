/* decode_chunk.c: a field of a sensor's stream (host/chunk.h) as Lua reads and writes it. */
#include "host/api/decode_lua.h"
#include "host/chunk.h"
#include <math.h>

/* unpack(first, text, times, values): appends the readings of one field to the two lists; a field that is no reading adds none. */
int decode_unpack(lua_State *L) {
    size_t first_len, n;
    const char *first = luaL_checklstring(L, 1, &first_len), *text = luaL_checklstring(L, 2, &n);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_Integer at = (lua_Integer)lua_rawlen(L, 3);
    int64_t first_us;
    neap_chunk_reader r;
    if (!neap_chunk_time(first, first_len, &first_us)) return 0;
    for (neap_chunk_read(&r, first_us, text, n); neap_chunk_next(&r);) {
        neap_num x;
        if (!neap_num_text(r.text, r.text_len, &x)) break;
        at++;
        lua_pushinteger(L, r.time_us);
        lua_rawseti(L, 3, at);
        if (x.is_int) lua_pushinteger(L, x.i);
        else lua_pushnumber(L, x.d);
        lua_rawseti(L, 4, at);
    }
    return 0;
}

/* run(times, values, first, stop_us) -> last, low, high, sum: of the readings from `first` on as long as their times ascend and are before stop_us;
   the first is always in. Both lists hold what unpack put there: whole times and numbers. */
int decode_run(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer i = luaL_checkinteger(L, 3), stop = luaL_checkinteger(L, 4), n = (lua_Integer)lua_rawlen(L, 1), before = 0;
    int low = 5, high = 6; /* they stay integers where they were */
    double sum = 0;
    luaL_argcheck(L, i >= 1 && i <= n, 3, "there is no such reading");
    lua_settop(L, 4);
    lua_rawgeti(L, 2, i);
    lua_pushvalue(L, 5);
    for (lua_Integer first = i; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        lua_rawgeti(L, 2, i);
        lua_Integer at = lua_tointeger(L, 7);
        if (i > first && (at <= before || at >= stop)) break;
        before = at;
        sum += lua_tonumber(L, 8);
        if (lua_compare(L, 8, low, LUA_OPLT)) lua_copy(L, 8, low);
        if (lua_compare(L, high, 8, LUA_OPLT)) lua_copy(L, 8, high);
        lua_settop(L, 6);
    }
    lua_pushinteger(L, i - 1);
    lua_pushvalue(L, low);
    lua_pushvalue(L, high);
    lua_pushnumber(L, sum);
    return 4;
}

static size_t number_text(lua_State *L, int idx, char out[NEAP_NUM_TEXT]) {
    return lua_isinteger(L, idx) ? neap_num_format_int(lua_tointeger(L, idx), out) : neap_num_format(lua_tonumber(L, idx), 0, out);
}

/* pack(pairs, from, to) -> first, text: of {time_us, value, time_us, value, ..} the values pairs[from] .. pairs[to] as one field. */
int decode_pack(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer from = luaL_checkinteger(L, 2), to = luaL_checkinteger(L, 3);
    neap_chunk c = {0};
    luaL_Buffer out;
    char room[NEAP_NUM_TEXT + 64], text[NEAP_NUM_TEXT]; /* a text of a number's length fits, so the buffer below never grows: nothing to free */
    lua_settop(L, 3);
    luaL_buffinit(L, &out);
    for (lua_Integer i = from; i + 1 <= to; i += 2) {
        int exact;
        lua_rawgeti(L, 1, i);
        lua_Integer t = lua_tointegerx(L, -1, &exact);
        lua_rawgeti(L, 1, i + 1);
        int good = exact && lua_type(L, -1) == LUA_TNUMBER && isfinite(lua_tonumber(L, -1));
        if (!good) return luaL_error(L, "decode.pack: needs pairs of a whole time in microseconds and a finite value");
        size_t n = number_text(L, -1, text);
        lua_pop(L, 2);
        if (i == from) c.time_us = t;
        neap_buf one = {.data = room, .cap = sizeof room};
        neap_chunk_put(&c, &one, t, text, n);
        luaL_addlstring(&out, one.data, one.len);
    }
    luaL_pushresult(&out);
    lua_rawgeti(L, 1, from);
    lua_insert(L, -2);
    return 2;
}
