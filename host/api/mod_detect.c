/* mod_detect.c: neap.detector.core, the C half of lua/neap/detector.lua: the online detector as a userdata (update,
   forecast, save, load) and a streaming calibration (score -> probability). Constants arrive as one flat table in which
   every field must stand: their values and meanings are Lua's. Nothing here waits. */
#include <math.h>
#include <string.h>
#include "host/api/rt_internal.h"
#include "host/detect.h"
#include "host/detect_calib.h"

#define DETECTOR_META "neap.detector"
#define CALIB_META    "neap.calibration"

typedef struct box {
    neap_detect *d; /* NULL when closed */
    neap_detect_row row;
} box;

static double field(lua_State *L, int table, const char *name, double lo, double hi) {
    if (lua_getfield(L, table, name) != LUA_TNUMBER) luaL_error(L, "constants: %s must be a number", name);
    double x = lua_tonumber(L, -1);
    if (!(x >= lo && x <= hi)) luaL_error(L, "constants: %s = %f lies outside %f .. %f", name, x, lo, hi);
    lua_pop(L, 1);
    return x;
}

static void read_config(lua_State *L, int t, neap_detect_config *c) {
    memset(c, 0, sizeof *c);
    c->seed = (uint64_t)field(L, t, "seed", 0, 9007199254740992.0);
    c->ahead.learn_rate[0] = (float)field(L, t, "learn_rate_1", 0, 1);
    c->ahead.learn_rate[1] = (float)field(L, t, "learn_rate_12", 0, 1);
    c->ahead.decay = (float)field(L, t, "decay", 0, 1);
    c->ahead.steps = (uint32_t)field(L, t, "steps", 0, 100);
    c->ahead.early_steps = (uint32_t)field(L, t, "early_steps", 0, 100);
    c->ahead.early_rows = (uint32_t)field(L, t, "early_rows", 0, 1e6);
    c->ahead.replay = (uint32_t)field(L, t, "replay", 1, NEAP_DETECT_ROWS - NEAP_DETECT_LONG);
    c->ahead.forget = (float)field(L, t, "forget", 0.9, 1);
    c->ahead.sharp[0] = (float)field(L, t, "sharp_1", 0, 1000);
    c->ahead.sharp[1] = (float)field(L, t, "sharp_12", 0, 1000);
    c->ahead.discount = (float)field(L, t, "discount", 0, 1);
    c->ahead.over = (float)field(L, t, "over", 0, 10);
    c->spread_floor = (float)field(L, t, "spread_floor", 0, 1);
    c->slack = (float)field(L, t, "slack", 0, 10);
    c->range_margin = (float)field(L, t, "range_margin", 0, 10);
    c->power = (float)field(L, t, "power", 0.1, 100);
    c->cap = (float)field(L, t, "cap", 0.1, 100);
    c->mix = (float)field(L, t, "mix", 0, 1);
    c->gap = (float)field(L, t, "gap", 1, 1e9);
    c->band = (float)field(L, t, "band", 0, 1);
    if (lua_getfield(L, t, "weight") != LUA_TTABLE) luaL_error(L, "constants: weight must be a table");
    double sum = 0;
    for (int i = 0; i < NEAP_DETECT_PARTS; i++) sum += c->weight[i] = (float)field(L, lua_gettop(L), neap_detect_part_name[i], 0, 1000);
    lua_pop(L, 1);
    if (!(sum > 0)) luaL_error(L, "constants: at least one weight must be above 0");
}

static neap_detect *check(lua_State *L) {
    box *b = luaL_checkudata(L, 1, DETECTOR_META);
    if (!b->d) luaL_argerror(L, 1, "the detector is closed");
    return b->d;
}

static void push_real(lua_State *L, double x) {
    if (isnan(x)) lua_pushnil(L);
    else lua_pushnumber(L, x);
}

/* core.new(constants) -> detector */
static int detector_new(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    neap_detect_config config;
    read_config(L, 1, &config);
    box *b = lua_newuserdatauv(L, sizeof *b, 0);
    memset(b, 0, sizeof *b);
    luaL_setmetatable(L, DETECTOR_META);
    b->d = neap_detect_new(&config);
    if (!b->d) return err_code(L, NEAP_ERR_MEMORY, "detector: out of memory");
    return 1;
}

/* d:update(time, value [, forecast]) -> s, p, forecast, lower, upper, gap, ahead12, mean12. time, value and forecast
   may be nil (unknown, missing, "use your own"); s is nil for a missing value, and so is whatever is not known. */
static int detector_m_update(lua_State *L) {
    box *b = luaL_checkudata(L, 1, DETECTOR_META);
    double time = luaL_optnumber(L, 2, NAN), value = luaL_optnumber(L, 3, NAN), forecast = luaL_optnumber(L, 4, NAN);
    int scored = neap_detect_update(check(L), time, value, forecast, &b->row);
    push_real(L, scored ? b->row.s : NAN);
    push_real(L, b->row.p);
    push_real(L, b->row.forecast);
    push_real(L, b->row.lower);
    push_real(L, b->row.upper);
    lua_pushboolean(L, b->row.gap);
    push_real(L, b->row.ahead12);
    push_real(L, b->row.mean12);
    return 8;
}

/* d:parts() -> {error_1 = surprise, ...} of the newest row, and its a */
static int detector_m_parts(lua_State *L) {
    box *b = luaL_checkudata(L, 1, DETECTOR_META);
    lua_createtable(L, 0, NEAP_DETECT_PARTS);
    for (int i = 0; i < NEAP_DETECT_PARTS; i++) {
        lua_pushnumber(L, b->row.part[i]);
        lua_setfield(L, -2, neap_detect_part_name[i]);
    }
    lua_pushnumber(L, b->row.a);
    return 2;
}

/* d:next() -> forecast of the next reading, or nil */
static int detector_m_next(lua_State *L) {
    push_real(L, neap_detect_next(check(L)));
    return 1;
}

/* d:learned() -> rows scored, interval in seconds or nil */
static int detector_m_learned(lua_State *L) {
    neap_detect *d = check(L);
    double interval = neap_detect_interval(d);
    lua_pushinteger(L, (lua_Integer)neap_detect_rows(d));
    push_real(L, interval > 0 ? interval : NAN);
    return 2;
}

/* Pushes what was saved. lua_pushlstring may raise: then the buffer's userdata frees it. */
static int push_saved(lua_State *L, neap_buf *b, int err) {
    if (err) return err_code(L, err, "detector: cannot save the state");
    lua_pushlstring(L, b->data, b->len);
    buf_free(b);
    return 1;
}

static int buffer_gc(lua_State *L) {
    buf_free(lua_touserdata(L, 1));
    return 0;
}

/* Pushes a userdata that holds an empty buffer and frees it when collected. */
static neap_buf *new_buffer(lua_State *L) {
    neap_buf *b = lua_newuserdatauv(L, sizeof *b, 0);
    memset(b, 0, sizeof *b);
    if (luaL_newmetatable(L, "neap.detector.buffer")) {
        lua_pushcfunction(L, buffer_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return b;
}

/* d:save() -> the complete state as a string */
static int detector_m_save(lua_State *L) {
    neap_detect *d = check(L);
    neap_buf *b = new_buffer(L);
    return push_saved(L, b, neap_detect_save(d, b));
}

/* d:load(state) -> d; raises {kind = "corrupt"} and leaves d as new when the state is not one of ours */
static int detector_m_load(lua_State *L) {
    neap_detect *d = check(L);
    size_t n;
    const char *s = luaL_checklstring(L, 2, &n);
    int err = neap_detect_load(d, s, n);
    if (err) return err_code(L, err, "detector: this state is damaged or of another version; the sensor starts anew");
    lua_settop(L, 1);
    return 1;
}

/* d:close(): frees the state; may be called again */
static int detector_m_close(lua_State *L) {
    box *b = luaL_checkudata(L, 1, DETECTOR_META);
    neap_detect_free(b->d);
    b->d = NULL;
    return 0;
}

/* ---- calibration
 * ----------------------------------------------------------------------------------------------------- */

/* core.calibration() -> an empty one */
static int calib_new(lua_State *L) {
    neap_detect_calib *c = lua_newuserdatauv(L, sizeof *c, 0);
    memset(c, 0, sizeof *c);
    luaL_setmetatable(L, CALIB_META);
    return 1;
}

static float check_score(lua_State *L) {
    double x = luaL_checknumber(L, 2);
    luaL_argcheck(L, isfinite(x) && x >= 0 && x < 3e38, 2, "a score is a number from 0 up");
    return (float)x;
}

/* c:add(score) */
static int calib_m_add(lua_State *L) {
    neap_detect_calib_add(luaL_checkudata(L, 1, CALIB_META), check_score(L));
    return 0;
}

/* c:p(score) -> the probability of a score at least as high; add afterwards, not before */
static int calib_m_p(lua_State *L) {
    lua_pushnumber(L, neap_detect_calib_p(luaL_checkudata(L, 1, CALIB_META), check_score(L)));
    return 1;
}

/* c:save() -> string */
static int calib_m_save(lua_State *L) {
    neap_detect_calib *c = luaL_checkudata(L, 1, CALIB_META);
    neap_buf *b = new_buffer(L);
    neap_detect_io io = {.out = b};
    neap_detect_calib_io(&io, c);
    return push_saved(L, b, io.err);
}

/* c:load(string) -> c; raises {kind = "corrupt"} and leaves c empty */
static int calib_m_load(lua_State *L) {
    neap_detect_calib *c = luaL_checkudata(L, 1, CALIB_META);
    neap_detect_io io = {0};
    io.in = luaL_checklstring(L, 2, &io.left);
    memset(c, 0, sizeof *c);
    neap_detect_calib_io(&io, c);
    if (io.err || io.left) {
        memset(c, 0, sizeof *c);
        return err_code(L, NEAP_ERR_CORRUPT, "calibration: this state is damaged or of another version");
    }
    lua_settop(L, 1);
    return 1;
}

/* core.size() -> bytes of memory of one detector */
static int detector_size(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)neap_detect_size());
    return 1;
}

int luaopen_neap_detector_core(lua_State *L);
int luaopen_neap_detector_core(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"update", detector_m_update},   {"parts", detector_m_parts}, {"next", detector_m_next},   {"save", detector_m_save},
        {"learned", detector_m_learned}, {"load", detector_m_load},   {"close", detector_m_close}, {NULL, NULL}};
    static const luaL_Reg calib_methods[] = {{"add", calib_m_add}, {"p", calib_m_p}, {"save", calib_m_save}, {"load", calib_m_load}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new", detector_new}, {"calibration", calib_new}, {"size", detector_size}, {NULL, NULL}};
    luaL_newmetatable(L, DETECTOR_META);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, detector_m_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, detector_m_close);
    lua_setfield(L, -2, "__close");
    luaL_newmetatable(L, CALIB_META);
    luaL_newlib(L, calib_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
