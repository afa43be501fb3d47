/* mod_journal.c: `neap.journal.core`: the journal and its applier for lua/neap/journal.lua. Workers open the same directory and share one
   journal; exactly one of them applies it. */
#include "host/api/decode_lua.h"
#include "host/api/rt.h"
#include "host/applier.h"
#include "host/record.h"
#include <math.h>
#include <string.h>

#define JOURNAL "neap.journal"

typedef struct ujournal {
    rt *R;
    neap_journal *j; /* NULL: closed */
    neap_journal_client *c;
    neap_applier *a;
    neap_buf scratch;
} ujournal;

static ujournal *check_open(lua_State *L) {
    ujournal *u = rt_checkudata(L, 1, RT_CLASS_JOURNAL, JOURNAL);
    if (!u->j) err_code(L, NEAP_ERR_CLOSED, "the journal is closed");
    return u;
}

static int turn(void *ud) { return neap_journal_turn(((ujournal *)ud)->c); }

/* Ends everything; may run many times. Also called when the runtime closes, without Lua. */
static void shut(void *ud) {
    ujournal *u = ud;
    if (!u->j) return;
    neap_journal *j = u->j;
    u->j = NULL;
    rt_off_turn(u->R, turn, u);
    neap_applier_stop(u->a);
    neap_journal_detach(u->c);
    neap_journal_close(j);
    u->a = NULL;
    u->c = NULL;
    buf_free(&u->scratch);
}

static int journal_m_close(lua_State *L) {
    ujournal *u = rt_checkudata(L, 1, RT_CLASS_JOURNAL, JOURNAL);
    if (u->j) rt_off_close(u->R, shut, u);
    shut(u);
    return 0;
}

static lua_Integer int_field(lua_State *L, int idx, const char *name) {
    lua_getfield(L, idx, name);
    lua_Integer n = luaL_optinteger(L, -1, 0);
    if (n < 0) luaL_error(L, "%s must not be negative", name);
    lua_pop(L, 1);
    return n;
}

/* open{dir=, max_bytes=, segment_bytes=, max_age=, loose=} */
static int journal_open(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    neap_journal_opts o = {.max_bytes = (uint64_t)int_field(L, 1, "max_bytes"), .segment_bytes = (uint64_t)int_field(L, 1, "segment_bytes")};
    lua_getfield(L, 1, "max_age");
    o.max_age_ms = (uint64_t)(luaL_optnumber(L, -1, 0) * 1000);
    lua_getfield(L, 1, "loose");
    o.loose = lua_toboolean(L, -1);
    lua_getfield(L, 1, "dir");
    o.dir = luaL_checkstring(L, -1);
    ujournal *u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = (ujournal){.R = rt_of(L)};
    luaL_setmetatable(L, JOURNAL);
    char why[400];
    int err = neap_journal_open(&o, &u->j, why, sizeof why);
    if (err) {
        rt_error how = {.kind = neap_err_kind(err), .retryable = err == NEAP_ERR_FULL, .sent = -1};
        return err_raise(L, &how, "journal: %s", why);
    }
    err = neap_journal_attach(u->j, rt_loop(u->R), &u->c);
    if (!err) err = rt_at_close(u->R, shut, u);
    if (!err && !rt_on_turn(u->R, turn, u)) neap_journal_by_turn(u->c);
    if (err) {
        shut(u);
        return err_code(L, err, "journal: cannot attach to the loop");
    }
    return 1;
}

/* ---- append --------------------------------------------------------------------------------------------------------- */

static void on_left(rt_wait *w, void *client) {
    neap_journal_unwait(client, w);
    wait_unref(w);
}

/* wait->own is the position, wait->own_s < 0 once it is applied. */
static int journal_done(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status && w->status != NEAP_ERR_TIMEOUT) return wait_raise(L, w);
    lua_pushinteger(L, (lua_Integer)w->own);
    lua_pushboolean(L, w->own_s < 0);
    return 2;
}

static void on_applied(void *ud, int status, uint64_t end) {
    rt_wait *w = ud;
    if (!status) w->own_s = -1;
    wait_done(w, status, NULL, NULL);
}

/* Goes on until w->own is applied; from here the time limit is no error. Takes the operation's reference. */
static void until_applied(rt_wait *w, neap_journal_client *c) {
    w->quiet_deadline = 1;
    w->cancel = on_left;
    w->op = c;
    int err = neap_journal_wait_applied(c, w->own, on_applied, w);
    if (!err) return;
    w->cancel = NULL;
    wait_done(w, err, NULL, NULL);
}

/* The batch is on disk: that is all, or the same wait goes on for w->own_s seconds until Redis has it too. w->op is the journal, whose userdata
   stands on the waiter's stack. */
static void on_written(void *ud, int status, uint64_t end) {
    rt_wait *w = ud;
    w->own = end;
    if (status || wait_is_left(w) || w->own_s <= 0 || !neap_journal_is_live(((ujournal *)w->op)->j) ||
        neap_journal_in_hurry(((ujournal *)w->op)->j)) {
        wait_done(w, status, NULL, NULL);
        return;
    }
    wait_shorten(w, w->own_s);
    until_applied(w, ((ujournal *)w->op)->c);
}

typedef struct append_opts {
    neap_record_opts record;
    double visible, timeout;
} append_opts;

/* key, source ("real", "synthetic" or "quarantine"), visible, timeout. The key's string stays alive as a field of the table. */
static append_opts read_options(lua_State *L, int idx) {
    static const char *const sources[] = {"real", "synthetic", "quarantine", NULL};
    append_opts o = {.timeout = 10};
    if (lua_isnoneornil(L, idx)) return o;
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_getfield(L, idx, "key");
    o.record.key = luaL_optlstring(L, -1, NULL, &o.record.key_len);
    if (o.record.key_len > NEAP_RECORD_KEY_MAX) luaL_error(L, "an idempotency key has 255 bytes at most");
    lua_getfield(L, idx, "source");
    o.record.source = (enum neap_source)luaL_checkoption(L, -1, "real", sources);
    lua_getfield(L, idx, "visible");
    o.visible = luaL_optnumber(L, -1, 0);
    lua_getfield(L, idx, "timeout");
    o.timeout = luaL_optnumber(L, -1, o.timeout);
    lua_pop(L, 4);
    return o;
}

/* Appends what is in u->scratch and parks. The caller's stack: journal at 1. */
static int append_scratch(lua_State *L, ujournal *u, const append_opts *o) {
    lua_settop(L, 2);
    rt_wait *w = wait_new(L, "journal.append", o->timeout);
    w->op = u;
    w->own_s = o->visible;
    int err = neap_journal_append(u->c, u->scratch.data, u->scratch.len, on_written, wait_ref(w));
    if (u->scratch.cap > 1 << 20) buf_free(&u->scratch);
    if (err) {
        wait_unref(w);
        rt_error how = {.kind = neap_err_kind(err), .retryable = err == NEAP_ERR_FULL, .sent = 0};
        return err_raise(L, &how,
                         err == NEAP_ERR_FULL ? "journal.append: the journal is full (Redis is behind, and its bound is reached); try again later"
                                              : "journal.append: %s",
                         neap_err_kind(err));
    }
    return wait_park(L, w, journal_done);
}

/* j:append(batch[, opts]) -> position[, applied]; nil if the batch has no reading left. Returns once the readings are on disk; with
   opts.visible it then waits so many seconds more for Redis to have them, unless Redis is known to be away. */
static int journal_m_append(lua_State *L) {
    ujournal *u = check_open(L);
    neap_readings *b = decode_check_batch(L, 2);
    append_opts o = read_options(L, 3);
    buf_clear(&u->scratch);
    o.record.arrival_us = neap_journal_stamp(u->j, (uint32_t)b->count + 1);
    long n = neap_record_write(&u->scratch, b, &o.record, o.record.arrival_us);
    if (n < 0) return err_code(L, (int)n, "journal.append");
    if (n == 0) return 0;
    return append_scratch(L, u, &o);
}

static int add_pairs(lua_State *L, neap_record_writer *w, const char *name, size_t name_len) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i + 1 <= n; i += 2) {
        char text[NEAP_NUM_TEXT];
        int exact;
        lua_rawgeti(L, -1, i);
        lua_rawgeti(L, -2, i + 1);
        lua_Integer t = lua_tointegerx(L, -2, &exact);
        if (!exact || lua_type(L, -1) != LUA_TNUMBER || !isfinite(lua_tonumber(L, -1)))
            return luaL_error(L, "journal.append_pairs: '%s' needs pairs of a whole time in microseconds and a finite value", name);
        size_t len = lua_isinteger(L, -1) ? neap_num_format_int(lua_tointeger(L, -1), text) : neap_num_format(lua_tonumber(L, -1), 0, text);
        int err = neap_record_add(w, name, name_len, t, text, len);
        lua_pop(L, 2);
        if (err) return err;
    }
    return 0;
}

/* j:append_pairs(order, pairs[, opts]): order lists sensor names, pairs[name] is {time_us, value, time_us, value, ..}. */
static int journal_m_append_pairs(lua_State *L) {
    ujournal *u = check_open(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    append_opts o = read_options(L, 4);
    neap_record_writer w;
    lua_settop(L, 4);
    buf_clear(&u->scratch);
    if (o.record.source != NEAP_SYNTHETIC) o.record.arrival_us = neap_journal_stamp(u->j, 1);
    int err = neap_record_begin(&w, &u->scratch, &o.record);
    for (lua_Integer i = 1; !err && lua_rawgeti(L, 2, i) != LUA_TNIL; i++) {
        size_t n;
        const char *name = luaL_checklstring(L, -1, &n);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, 3) != LUA_TTABLE) return luaL_error(L, "journal.append_pairs: there are no pairs for '%s'", name);
        err = add_pairs(L, &w, name, n);
        lua_settop(L, 4);
    }
    if (err) return err_code(L, err, "journal.append_pairs");
    neap_record_end(&w);
    if (!w.count) return 0;
    return append_scratch(L, u, &o);
}

/* j:wait(position, seconds) -> position, applied? */
static int journal_m_wait(lua_State *L) {
    ujournal *u = check_open(L);
    lua_Integer end = luaL_checkinteger(L, 2);
    rt_wait *w = wait_new(L, "journal.wait", luaL_checknumber(L, 3));
    w->own = (uint64_t)end;
    until_applied(wait_ref(w), u->c);
    return wait_park(L, w, journal_done);
}

/* ---- applying and looking ------------------------------------------------------------------------------------------- */

static const char *str_field(lua_State *L, int idx, const char *name) {
    if (lua_getfield(L, idx, name) != LUA_TSTRING) luaL_error(L, "journal.apply: option '%s' (a text) is missing", name);
    return lua_tostring(L, -1); /* left on the stack: alive until the call ends */
}

/* j:apply{redis=URL, stream_prefix=, stream_suffix=, synthetic_suffix=, quarantine_suffix=, position_suffix=, dead_suffix=, once_suffix=,
   sensors_key=, state_key=, dead_key=, once_prefix=, keep=, once=, timeout=} */
static int journal_m_apply(lua_State *L) {
    ujournal *u = check_open(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    if (u->a) return luaL_error(L, "journal.apply: this journal is being applied already");
    luaL_checkstack(L, 16, NULL);
    neap_applier_opts o = {.keep = (uint64_t)int_field(L, 2, "keep"), .once_s = (uint32_t)int_field(L, 2, "once")};
    lua_getfield(L, 2, "timeout");
    o.timeout_ms = (uint32_t)(luaL_optnumber(L, -1, 5) * 1000);
    const char *url = str_field(L, 2, "redis");
    o.stream_prefix = str_field(L, 2, "stream_prefix");
    o.stream_suffix = str_field(L, 2, "stream_suffix");
    o.synthetic_suffix = str_field(L, 2, "synthetic_suffix");
    o.quarantine_suffix = str_field(L, 2, "quarantine_suffix");
    o.position_suffix = str_field(L, 2, "position_suffix");
    o.dead_suffix = str_field(L, 2, "dead_suffix");
    o.once_suffix = str_field(L, 2, "once_suffix");
    o.sensors_key = str_field(L, 2, "sensors_key");
    o.state_key = str_field(L, 2, "state_key");
    o.dead_key = str_field(L, 2, "dead_key");
    o.once_prefix = str_field(L, 2, "once_prefix");
    neap_redis_addr addr = {0};
    char why[200];
    int err = neap_redis_addr_parse(url, &addr, why, sizeof why);
    if (err) return luaL_error(L, "journal.apply: %s", why);
    o.addr = &addr;
    err = neap_applier_start(rt_loop(u->R), u->j, &o, &u->a);
    neap_redis_addr_free(&addr);
    if (err == NEAP_ERR_FULL) {
        rt_error how = {.kind = "busy", .retryable = 1, .sent = -1};
        return err_raise(L, &how, "journal.apply: this journal is being applied already, by another worker or by the version before a reload");
    }
    if (err) return err_code(L, err, "journal.apply: cannot start");
    return 0;
}

static void set_int(lua_State *L, const char *name, uint64_t v) {
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

/* j:stats() -> the journal's numbers; where it is applied also the applier's */
static int journal_m_stats(lua_State *L) {
    static const char *const states[] = {"starting", "running", "away", "stopped"};
    ujournal *u = check_open(L);
    neap_journal_stats s;
    neap_journal_get_stats(u->j, &s);
    lua_createtable(L, 0, 28);
    set_int(L, "records", s.records);
    set_int(L, "bytes", s.bytes);
    set_int(L, "commits", s.commits);
    set_int(L, "failures", s.failures);
    set_int(L, "refused", s.refused);
    set_int(L, "refused_old", s.refused_old);
    lua_pushnumber(L, (double)s.age_ms / 1000);
    lua_setfield(L, -2, "age");
    lua_pushnumber(L, (double)s.max_age_ms / 1000);
    lua_setfield(L, -2, "max_age");
    lua_pushboolean(L, s.loose);
    lua_setfield(L, -2, "loose");
    set_int(L, "retained", s.retained);
    set_int(L, "max_bytes", s.max_bytes);
    set_int(L, "durable", s.durable);
    set_int(L, "applied", s.applied);
    set_int(L, "behind", s.behind);
    lua_pushboolean(L, neap_journal_is_live(u->j));
    lua_setfield(L, -2, "live");
    if (s.last_errno) lua_pushstring(L, strerror(s.last_errno)), lua_setfield(L, -2, "error");
    if (!u->a) return 1;
    neap_applier_status a;
    neap_applier_get_status(u->a, &a);
    lua_pushstring(L, states[a.state]);
    lua_setfield(L, -2, "state");
    lua_pushstring(L, a.text);
    lua_setfield(L, -2, "text");
    lua_pushstring(L, neap_applier_class_name(a.durability));
    lua_setfield(L, -2, "durability");
    lua_pushstring(L, a.store);
    lua_setfield(L, -2, "store");
    lua_pushboolean(L, a.old_copy);
    lua_setfield(L, -2, "old_copy");
    lua_pushboolean(L, a.unsaved);
    lua_setfield(L, -2, "unsaved");
    set_int(L, "steps", a.steps);
    set_int(L, "readings", a.readings);
    set_int(L, "duplicates", a.duplicates);
    set_int(L, "dead", a.dead);
    set_int(L, "rewinds", a.rewinds);
    set_int(L, "replays", a.replays);
    set_int(L, "damaged_bytes", a.damaged_bytes);
    return 1;
}

/* stamp([n]) -> the first of n microsecond times that nobody else gets */
static int journal_m_stamp(lua_State *L) {
    ujournal *u = check_open(L);
    lua_Integer n = luaL_optinteger(L, 2, 1);
    luaL_argcheck(L, n >= 1 && n <= UINT32_MAX, 2, "a count from 1");
    lua_pushinteger(L, neap_journal_stamp(u->j, (uint32_t)n));
    return 1;
}

/* j:hurried() -> whether so much comes in that readings are gathered before they are applied */
static int journal_m_hurried(lua_State *L) {
    lua_pushboolean(L, neap_journal_in_hurry(check_open(L)->j));
    return 1;
}

static const luaL_Reg methods[] = {{"append", journal_m_append},
                                   {"append_pairs", journal_m_append_pairs},
                                   {"wait", journal_m_wait},
                                   {"apply", journal_m_apply},
                                   {"stats", journal_m_stats},
                                   {"stamp", journal_m_stamp},
                                   {"hurried", journal_m_hurried},
                                   {"close", journal_m_close},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__gc", journal_m_close}, {"__close", journal_m_close}, {NULL, NULL}};

int luaopen_neap_journal_core(lua_State *L);
int luaopen_neap_journal_core(lua_State *L) {
    luaL_newmetatable(L, JOURNAL);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_newtable(L);
    lua_pushcfunction(L, journal_open);
    lua_setfield(L, -2, "open");
    return 1;
}
