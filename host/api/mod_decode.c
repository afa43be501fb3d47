/* mod_decode.c: `neap.decode`: what devices send, to a batch of readings, in C. Which decoder, which limits and what a refusal means
   is Lua's business. A body that is refused whole raises {kind="invalid"}; the `try` view returns nil, err. */
#include "host/api/decode_lua.h"
#include "host/api/http_lua.h"
#include "host/api/rt.h"
#include "host/inflate.h"
#include "host/lineproto.h"
#include <math.h>
#include <string.h>

#define TRY lua_upvalueindex(1)

typedef int (*decoder)(neap_readings *, const char *, size_t, const neap_decode_opts *);

/* nil, err in the try view, else raises. The error object is on top. */
static int fail(lua_State *L) {
    if (!lua_toboolean(L, TRY)) return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

static int64_t check_precision(lua_State *L, int idx) {
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1},       {"n", 1},          {"us", 1000},       {"u", 1000},         {"\xC2\xB5s", 1000},
                 {"ms", 1000000}, {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}};
    const char *p = luaL_optstring(L, idx, "ns");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(p, units[i].name) == 0) return units[i].ns;
    return luaL_error(L, "precision '%s' is none of ns, us, ms, s, m, h", p);
}

/* Options at idx: prefix, precision, named. The prefix string stays alive as a field of the options table. */
static neap_decode_opts read_options(lua_State *L, int idx) {
    static const char *const known[] = {"prefix", "precision", "named", NULL};
    neap_decode_opts o = {0};
    if (lua_isnoneornil(L, idx)) return o;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        const char *k = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(k, known[0]) != 0 && strcmp(k, known[1]) != 0 && strcmp(k, known[2]) != 0) {
            const char *near = err_nearest(k, known);
            luaL_error(L, near ? "unknown option '%s', did you mean '%s'?" : "unknown option '%s'", k, near);
        }
    }
    lua_getfield(L, idx, "prefix");
    o.prefix = luaL_optlstring(L, -1, NULL, &o.prefix_len);
    lua_getfield(L, idx, "precision");
    o.unit_ns = check_precision(L, -1);
    lua_getfield(L, idx, "named");
    o.named = lua_toboolean(L, -1);
    lua_pop(L, 3);
    return o;
}

static int decode_with(lua_State *L, decoder fn, const char *what) {
    int request = luaL_testudata(L, 1, HTTP_REQ) != NULL;
    if (!request && !lua_isstring(L, 1)) return luaL_typeerror(L, 1, "string or request");
    neap_decode_opts o = read_options(L, 2);
    decode_batch *d = lua_newuserdatauv(L, sizeof *d, 1);
    neap_readings *b = &d->readings;
    d->lender = NULL;
    d->kb = 0;
    neap_readings_init(b);
    luaL_setmetatable(L, DECODE_BATCH);
    size_t n;
    const char *s;
    if (request) s = http_lend_body(L, 1, &n, &d->lender);
    else s = lua_tolstring(L, 1, &n), lua_pushvalue(L, 1);
    if (!d->lender) lua_setiuservalue(L, -2, 1);
    int err = n > UINT32_MAX - 1 ? NEAP_ERR_FULL : fn(b, s, n, &o);
    if (!err) { /* the collector does not see what lies outside of Lua */
        d->kb = (int)(((d->lender ? n : 0) + (b->at == b->few ? 0 : b->cap * sizeof *b->at)) / 1024);
        if (d->kb) lua_gc(L, LUA_GCSTEP, d->kb);
        return 1;
    }
    rt_error how = {.kind = neap_err_kind(err), .sent = -1};
    err_push(L, &how, "%s: %s", what, err == NEAP_ERR_INVALID ? b->error : neap_err_kind(err));
    if (b->error_line) {
        lua_pushinteger(L, b->error_line);
        lua_setfield(L, -2, "line");
    }
    decode_batch_free(d);
    return fail(L);
}

static int decode_json(lua_State *L) { return decode_with(L, neap_readings_json, "json"); }
static int decode_ndjson(lua_State *L) { return decode_with(L, neap_readings_ndjson, "json"); }
static int decode_lines(lua_State *L) { return decode_with(L, neap_readings_lines, "line protocol"); }
static int decode_collectd(lua_State *L) { return decode_with(L, neap_readings_collectd, "collectd"); }
static int decode_putval(lua_State *L) { return decode_with(L, neap_readings_putval, "collectd"); }

/* ---- line protocol as it is ----------------------------------------------------------------------------------------- */

static void push_name(lua_State *L, neap_lp_slice s, int measurement) {
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, s.n);
    luaL_pushresultsize(&b, neap_lp_unescape_name(s, measurement, out));
}

static void push_value(lua_State *L, const neap_lp_field *f) {
    if (f->type == NEAP_LP_FLOAT) lua_pushnumber(L, f->d);
    else if (f->type == NEAP_LP_BOOL) lua_pushboolean(L, (int)f->i);
    else if (f->type == NEAP_LP_INT || (f->type == NEAP_LP_UINT && f->i >= 0)) lua_pushinteger(L, f->i);
    else if (f->type == NEAP_LP_UINT) lua_pushnumber(L, f->d); /* above 2^63 */
    else {
        luaL_Buffer b;
        char *out = luaL_buffinitsize(L, &b, f->text.n);
        luaL_pushresultsize(&b, neap_lp_unescape_text(f->text, out));
    }
}

static int reader_gc(lua_State *L) {
    neap_lp_free(lua_touserdata(L, 1));
    return 0;
}

static void push_point(lua_State *L, const neap_lp *l) {
    lua_createtable(L, 0, 5);
    push_name(L, l->measurement, 1);
    lua_setfield(L, -2, "measurement");
    lua_createtable(L, 0, (int)l->tag_count);
    for (size_t i = 0; i < l->tag_count; i++) {
        push_name(L, l->tags[i].key, 0);
        push_name(L, l->tags[i].value, 0);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "tags");
    lua_createtable(L, 0, (int)l->field_count);
    for (size_t i = 0; i < l->field_count; i++) {
        push_name(L, l->fields[i].key, 0);
        push_value(L, &l->fields[i]);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "fields");
    if (l->has_time) {
        lua_pushinteger(L, l->time_ns);
        lua_setfield(L, -2, "time_ns");
    }
    lua_pushinteger(L, l->line);
    lua_setfield(L, -2, "line");
}

/* points(body[, {precision=}]) -> list of {measurement, tags, fields, time_ns, line}, list of {line, reason} */
static int decode_points(lua_State *L) {
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    neap_decode_opts o = read_options(L, 2);
    lua_settop(L, 2);
    lua_newtable(L); /* 3 */
    lua_newtable(L); /* 4 */
    neap_lp *l = lua_newuserdatauv(L, sizeof *l, 0);
    neap_lp_init(l, s, n, o.unit_ns);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, reader_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, 5);
    lua_Integer good = 0, bad = 0;
    for (int got; (got = neap_lp_next(l)) != 0;) {
        if (got == NEAP_ERR_MEMORY) return luaL_error(L, "out of memory");
        if (got < 0) {
            lua_createtable(L, 0, 2);
            lua_pushinteger(L, l->line);
            lua_setfield(L, -2, "line");
            lua_pushstring(L, l->error);
            lua_setfield(L, -2, "reason");
            lua_rawseti(L, 4, ++bad);
        } else {
            push_point(L, l);
            lua_rawseti(L, 3, ++good);
        }
    }
    neap_lp_free(l);
    lua_settop(L, 4);
    return 2;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------- */

static int buffer_gc(lua_State *L) {
    buf_free(lua_touserdata(L, 1));
    return 0;
}

/* inflate(body, encoding[, max_bytes]) -> text. Raises kind "full" beyond a cap, "corrupt", "unsupported". */
static int decode_inflate(lua_State *L) {
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n), *encoding = luaL_checkstring(L, 2);
    lua_Integer max = luaL_optinteger(L, 3, 16 << 20);
    luaL_argcheck(L, max > 0, 3, "the cap must be positive");
    neap_buf *out = lua_newuserdatauv(L, sizeof *out, 0);
    *out = (neap_buf){0};
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, buffer_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    int err = neap_inflate_all(encoding, s, n, (size_t)max, out);
    if (err) {
        rt_error how = {.kind = neap_err_kind(err), .sent = -1};
        err_push(L, &how, "inflate: %s",
                 err == NEAP_ERR_FULL          ? "the body unpacks to more than is allowed"
                 : err == NEAP_ERR_UNSUPPORTED ? "only gzip and deflate are understood"
                                               : "the body is damaged or cut short");
        return fail(L);
    }
    lua_pushlstring(L, out->data ? out->data : "", out->len);
    buf_free(out);
    return 1;
}

/* sensors([list]) -> table of known sensors; list items are {name=, min=, max=, special=} in order of their places. */
static int decode_sensors(lua_State *L) {
    if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    neap_sensors **t = lua_newuserdatauv(L, sizeof *t, 0);
    *t = NULL;
    luaL_setmetatable(L, DECODE_SENSORS);
    if (!(*t = neap_sensors_new())) return luaL_error(L, "out of memory");
    for (lua_Integer i = 1; lua_istable(L, 1) && lua_geti(L, 1, i) == LUA_TTABLE; i++) {
        size_t n;
        lua_getfield(L, -1, "name");
        lua_getfield(L, -2, "min");
        lua_getfield(L, -3, "max");
        const char *name = luaL_checklstring(L, -3, &n);
        uint32_t place = neap_sensors_add(*t, name, n, luaL_optnumber(L, -2, -HUGE_VAL), luaL_optnumber(L, -1, HUGE_VAL));
        if (!place) return luaL_error(L, "out of memory");
        lua_getfield(L, -4, "special");
        neap_sensors_set_special(*t, place, lua_toboolean(L, -1));
        lua_pop(L, 5);
    }
    lua_settop(L, 2);
    return 1;
}

/* time(text|number) -> microseconds since 1970, or nil: the rules that JSON times go by. */
static int decode_time(lua_State *L) {
    neap_num v = {0};
    int64_t us;
    bool ok;
    if (lua_type(L, 1) == LUA_TNUMBER) {
        v.is_int = lua_isinteger(L, 1);
        v.i = v.is_int ? lua_tointeger(L, 1) : 0;
        v.d = lua_tonumber(L, 1);
        ok = neap_time_number(&v, &us);
    } else {
        size_t n;
        const char *s = luaL_checklstring(L, 1, &n);
        ok = neap_num_text(s, n, &v) ? neap_time_number(&v, &us) : neap_time_iso(s, n, &us);
    }
    if (!ok) return 0;
    lua_pushinteger(L, us);
    return 1;
}

static const luaL_Reg functions[] = {{"json", decode_json},
                                     {"ndjson", decode_ndjson},
                                     {"lines", decode_lines},
                                     {"collectd", decode_collectd},
                                     {"putval", decode_putval},
                                     {"points", decode_points},
                                     {"inflate", decode_inflate},
                                     {"sensors", decode_sensors},
                                     {"time", decode_time},
                                     {"pack", decode_pack},
                                     {"unpack", decode_unpack},
                                     {"run", decode_run},
                                     {NULL, NULL}};

int luaopen_neap_decode(lua_State *L);
int luaopen_neap_decode(lua_State *L) {
    static const struct {
        const char *name;
        int value;
    } flags[] = {{"BAD_TIME", NEAP_READING_BAD_TIME}, {"UNKNOWN", NEAP_READING_UNKNOWN}, {"LOW", NEAP_READING_LOW}, {"HIGH", NEAP_READING_HIGH}};
    decode_open_batch(L);
    lua_newtable(L);
    lua_pushboolean(L, 0);
    luaL_setfuncs(L, functions, 1);
    lua_newtable(L);
    lua_pushboolean(L, 1);
    luaL_setfuncs(L, functions, 1);
    lua_setfield(L, -2, "try");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        lua_pushinteger(L, flags[i].value);
        lua_setfield(L, -2, flags[i].name);
    }
    return 1;
}
