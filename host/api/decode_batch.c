/* decode_batch.c: a decoded batch and a table of known sensors as Lua sees them. A batch stays C memory: Lua looks at names, values and
   times one by one, or hands the whole to the journal. */
#include "host/api/decode_lua.h"
#include "host/api/rt.h"
#include "host/err.h"
#include "host/json.h"
#include <math.h>
#include <string.h>

neap_readings *decode_check_batch(lua_State *L, int idx) { return rt_checkudata(L, idx, RT_CLASS_BATCH, DECODE_BATCH); }

/* The 1-based place at idx, counted over all readings, refused ones too. */
static neap_reading *check_reading(lua_State *L, neap_readings *b, int idx) {
    lua_Integer i = luaL_checkinteger(L, idx);
    luaL_argcheck(L, i >= 1 && (size_t)i <= b->count, idx, "there is no such reading in this batch");
    return &b->at[i - 1];
}

/* name, value, time_us|nil, flags, sensor, item */
static int push_reading(lua_State *L, const neap_reading *r) {
    lua_pushlstring(L, r->name, r->name_len);
    lua_pushnumber(L, r->value);
    if (r->time_us == NEAP_NO_TIME) lua_pushnil(L);
    else lua_pushinteger(L, r->time_us);
    lua_pushinteger(L, r->flags);
    lua_pushinteger(L, r->sensor);
    lua_pushinteger(L, r->item);
    return 6;
}

static int each_next(lua_State *L) {
    neap_readings *b = lua_touserdata(L, lua_upvalueindex(1));
    size_t i = (size_t)luaL_checkinteger(L, 2);
    while (i < b->count && b->at[i].flags & NEAP_READING_REFUSED) i++;
    if (i >= b->count) return 0;
    lua_pushinteger(L, (lua_Integer)i + 1);
    return 1 + push_reading(L, &b->at[i]);
}

/* for i, name, value, time_us, flags, sensor, item in batch:each() */
static int batch_m_each(lua_State *L) {
    decode_check_batch(L, 1);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, each_next, 1);
    lua_pushnil(L);
    lua_pushinteger(L, 0);
    return 3;
}

static int batch_m_get(lua_State *L) { return push_reading(L, check_reading(L, decode_check_batch(L, 1), 2)); }

/* The value as the client wrote it, or nil if it was not in JSON's number grammar. */
static int batch_m_raw(lua_State *L) {
    neap_reading *r = check_reading(L, decode_check_batch(L, 1), 2);
    if (!r->raw) return 0;
    lua_pushlstring(L, r->raw, r->raw_len);
    return 1;
}

/* { {index=, reason=, name=|nil}, .. }, total */
static int batch_m_errors(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_createtable(L, (int)b->refused_kept, 0);
    for (size_t i = 0; i < b->refused_kept; i++) {
        lua_createtable(L, 0, 3);
        lua_pushinteger(L, b->refused[i].item);
        lua_setfield(L, -2, "index");
        lua_pushstring(L, b->refused[i].reason);
        lua_setfield(L, -2, "reason");
        if (b->refused[i].name) {
            lua_pushlstring(L, b->refused[i].name, b->refused[i].name_len);
            lua_setfield(L, -2, "name");
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)b->refused_count);
    return 2;
}

/* The distinct sensor names in order of appearance. */
static int batch_m_names(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_Integer n = 0;
    if (b->count == 1 && !(b->at[0].flags & NEAP_READING_REFUSED)) { /* as most devices send */
        lua_createtable(L, 1, 0);
        lua_pushlstring(L, b->at[0].name, b->at[0].name_len);
        lua_rawseti(L, -2, 1);
        return 1;
    }
    lua_newtable(L); /* 2: the list */
    lua_newtable(L); /* 3: seen */
    for (size_t i = 0; i < b->count; i++) {
        if (b->at[i].flags & NEAP_READING_REFUSED) continue;
        lua_pushlstring(L, b->at[i].name, b->at[i].name_len);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, 3) == LUA_TNIL) {
            lua_pushvalue(L, -2);
            lua_rawseti(L, 2, ++n);
            lua_pushvalue(L, -2);
            lua_pushboolean(L, 1);
            lua_rawset(L, 3);
        }
        lua_pop(L, 2);
    }
    lua_settop(L, 2);
    return 1;
}

static int batch_m_check(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_pushinteger(L, (lua_Integer)neap_sensors_check(decode_check_sensors(L, 2), b));
    return 1;
}

/* plain(sensors, oldest_us, newest_us) -> true if no reading needs a closer look (and sets the flags as check does), count, refused */
static int batch_m_plain(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    neap_sensors *t = decode_check_sensors(L, 2);
    lua_pushboolean(L, neap_sensors_plain(t, b, luaL_checkinteger(L, 3), luaL_checkinteger(L, 4)));
    lua_pushinteger(L, (lua_Integer)(b->count - b->dropped));
    lua_pushinteger(L, (lua_Integer)b->refused_count);
    return 3;
}

static int batch_m_refuse(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    neap_reading *r = check_reading(L, b, 2);
    neap_readings_drop(b, (size_t)(r - b->at), luaL_checkstring(L, 3));
    return 0;
}

/* set_time(i, time_us|nil): what a clock policy decided. */
static int batch_m_set_time(lua_State *L) {
    neap_reading *r = check_reading(L, decode_check_batch(L, 1), 2);
    r->time_us = lua_isnoneornil(L, 3) ? NEAP_NO_TIME : (int64_t)luaL_checkinteger(L, 3);
    return 0;
}

static int batch_m_set_value(lua_State *L) {
    neap_reading *r = check_reading(L, decode_check_batch(L, 1), 2);
    lua_Number v = luaL_checknumber(L, 3);
    luaL_argcheck(L, isfinite(v), 3, "NaN and infinity are no values");
    r->value = v;
    r->raw = NULL;
    return 0;
}

/* The accepted readings as the kit echoes them: a JSON array of {"sensor_name","sensor_output"}. */
static int batch_m_echo(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    luaL_addchar(&out, '[');
    int first = 1;
    for (size_t i = 0; i < b->count; i++) {
        const neap_reading *r = &b->at[i];
        if (r->flags & NEAP_READING_REFUSED) continue;
        char number[NEAP_NUM_TEXT], text[6 * NEAP_NAME_MAX + 8];
        neap_buf name = {.data = text, .cap = sizeof text}; /* every byte escaped fits, so it never grows: nothing to free */
        neap_json_put_string(&name, r->name, r->name_len, true);
        if (!first) luaL_addchar(&out, ',');
        first = 0;
        luaL_addstring(&out, "{\"sensor_name\":");
        luaL_addlstring(&out, name.data, name.len);
        luaL_addstring(&out, ",\"sensor_output\":");
        if (r->raw && memchr(r->raw, '.', r->raw_len)) luaL_addlstring(&out, r->raw, r->raw_len); /* a float as it was written */
        else luaL_addlstring(&out, number, neap_num_format(r->value, true, number));
        luaL_addchar(&out, '}');
    }
    luaL_addchar(&out, ']');
    luaL_pushresult(&out);
    return 1;
}

static int batch_mt_len(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_pushinteger(L, (lua_Integer)(b->count - b->dropped));
    return 1;
}

/* Methods first, then the counts: count, refused, items, skipped, shape. */
static int batch_mt_index(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    const char *k = luaL_checkstring(L, 2);
    if (!strcmp(k, "count")) return batch_mt_len(L);
    if (!strcmp(k, "shape")) return lua_pushstring(L, b->shape), 1;
    size_t n = !strcmp(k, "refused") ? b->refused_count : !strcmp(k, "items") ? b->items : !strcmp(k, "skipped") ? b->skipped : SIZE_MAX;
    if (n == SIZE_MAX) return 0;
    lua_pushinteger(L, (lua_Integer)n);
    return 1;
}

static int batch_mt_tostring(lua_State *L) {
    neap_readings *b = decode_check_batch(L, 1);
    lua_pushfstring(L, "neap.decode.batch (%s: %d readings, %d refused)", b->shape ? b->shape : "empty", (int)(b->count - b->dropped),
                    (int)b->refused_count);
    return 1;
}

void decode_batch_free(decode_batch *d) {
    neap_readings_free(&d->readings);
    if (d->lender) neap_http_return_body(d->lender);
    d->lender = NULL;
}

static int batch_mt_gc(lua_State *L) {
    decode_batch_free((decode_batch *)decode_check_batch(L, 1));
    return 0;
}

static int batch_mt_close(lua_State *L) {
    decode_batch *d = (decode_batch *)decode_check_batch(L, 1);
    if (d->kb) lua_gc(L, LUA_GCSTEP, -d->kb);
    d->kb = 0;
    decode_batch_free(d);
    return 0;
}

/* ---- known sensors -------------------------------------------------------------------------------------------------- */

neap_sensors *decode_check_sensors(lua_State *L, int idx) { return *(neap_sensors **)rt_checkudata(L, idx, RT_CLASS_SENSORS, DECODE_SENSORS); }

/* sensors:add(name[, min[, max[, special]]]) -> place */
static int sensors_m_add(lua_State *L) {
    neap_sensors *t = decode_check_sensors(L, 1);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);
    uint32_t place = neap_sensors_add(t, name, n, luaL_optnumber(L, 3, -HUGE_VAL), luaL_optnumber(L, 4, HUGE_VAL));
    if (!place) return luaL_error(L, "out of memory");
    neap_sensors_set_special(t, place, lua_toboolean(L, 5));
    lua_pushinteger(L, place);
    return 1;
}

static int sensors_m_find(lua_State *L) {
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);
    uint32_t place = neap_sensors_find(decode_check_sensors(L, 1), name, n);
    if (!place) return 0;
    lua_pushinteger(L, place);
    return 1;
}

/* sensors:touch(batch or name): it has news; names that are not in the table are added to it. */
static int sensors_m_touch(lua_State *L) {
    neap_sensors *t = decode_check_sensors(L, 1);
    int err;
    if (lua_type(L, 2) == LUA_TSTRING) {
        size_t n;
        const char *name = lua_tolstring(L, 2, &n);
        uint32_t place = neap_sensors_find(t, name, n);
        if (!place) place = neap_sensors_add(t, name, n, -HUGE_VAL, HUGE_VAL);
        err = place ? neap_sensors_touch(t, place) : NEAP_ERR_MEMORY;
    } else {
        err = neap_sensors_touch_all(t, decode_check_batch(L, 2));
    }
    return err ? err_code(L, err, "sensors:touch") : 0;
}

/* sensors:touched([list]) -> the list with the names of those that have news appended; they have none any more. */
static int sensors_m_touched(lua_State *L) {
    neap_sensors *t = decode_check_sensors(L, 1);
    size_t n;
    const char *name;
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        lua_newtable(L);
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_Integer at = (lua_Integer)lua_rawlen(L, 2);
    while ((name = neap_sensors_next_touched(t, &n))) {
        lua_pushlstring(L, name, n);
        lua_rawseti(L, 2, ++at);
    }
    return 1;
}

static int sensors_mt_gc(lua_State *L) {
    neap_sensors **t = luaL_checkudata(L, 1, DECODE_SENSORS);
    neap_sensors_free(*t);
    *t = NULL;
    return 0;
}

static const luaL_Reg batch_methods[] = {{"each", batch_m_each},
                                         {"get", batch_m_get},
                                         {"raw", batch_m_raw},
                                         {"errors", batch_m_errors},
                                         {"names", batch_m_names},
                                         {"check", batch_m_check},
                                         {"plain", batch_m_plain},
                                         {"refuse", batch_m_refuse},
                                         {"echo", batch_m_echo},
                                         {"set_time", batch_m_set_time},
                                         {"set_value", batch_m_set_value},
                                         {NULL, NULL}};
static const luaL_Reg batch_meta[] = {
    {"__len", batch_mt_len}, {"__tostring", batch_mt_tostring}, {"__gc", batch_mt_gc}, {"__close", batch_mt_close}, {NULL, NULL}};
static const luaL_Reg sensors_methods[] = {
    {"add", sensors_m_add}, {"find", sensors_m_find}, {"touch", sensors_m_touch}, {"touched", sensors_m_touched}, {NULL, NULL}};

void decode_open_batch(lua_State *L) {
    luaL_newmetatable(L, DECODE_BATCH);
    luaL_setfuncs(L, batch_meta, 0);
    luaL_newlib(L, batch_methods);
    lua_pushcclosure(L, batch_mt_index, 1);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, DECODE_SENSORS);
    lua_pushcfunction(L, sensors_mt_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, sensors_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
}
