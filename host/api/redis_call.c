/* redis_call.c: commands as functions. redis.lua makes one closure for each command name, once; a call then is: arguments into the client's scratch
   buffer, bytes to the core, park, reply to Lua. The same closures, given a pipe instead of a client, note the command down for later; and for the
   default client there is one of each that needs no client. A command that takes options or fields as a table has a form, a Lua function that makes
   wire arguments of such arguments; it is asked only where the last one is a table. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "host/api/redis_lua.h"

enum { SCRATCH_KEEP = 64 * 1024, LEAVE_SLACK_MS = 10000 };

void redis_free_reply(void *reply) { neap_reply_free(reply); }

static void on_reply(void *ud, int status, neap_reply *reply) {
    if (!reply && !status) status = NEAP_ERR_MEMORY;
    wait_done(ud, status, reply, redis_free_reply);
}

/* The short first argument of a call, for error messages; NULL if there is none worth showing. */
const char *redis_key_of(lua_State *L, int idx) {
    size_t len;
    if (lua_type(L, idx) != LUA_TSTRING) return NULL;
    const char *s = lua_tolstring(L, idx, &len);
    return len && len <= 64 && strlen(s) == len ? s : NULL;
}

/* A request did not even start. */
int redis_cannot_start(lua_State *L, rt_wait *w, const char *what, int e, const neap_redis *r) {
    wait_unref(w);
    if (e == NEAP_ERR_CONNECTION || e == NEAP_ERR_FULL) {
        rt_error err = {"connection", 1, 0, 0};
        if (e == NEAP_ERR_FULL)
            return err_raise(L, &err, "%s: Redis is away (%s) and as many commands as may wait do so already; not sent", what,
                             neap_redis_last_error(r));
        err.retryable = 0;
        return err_raise(L, &err, "%s: this connection was lost (%s), and with it its state; open a new one", what, neap_redis_last_error(r));
    }
    return err_code(L, e, "%s: %s", what, e == NEAP_ERR_CLOSED ? "the client is closed" : e == NEAP_ERR_MEMORY ? "out of memory" : "cannot be sent");
}

/* Upvalues of a command: its redis_cmd, the metatables of clients and of pipes, and its form or nil. Behind these, for the default
   client: the table {default client}, the module, and the function that finds the client. */
enum { CMD = 1, OF_CLIENT, OF_PIPE, FORM, DEFAULTS, MODULE, FIND };

/* Which upvalue's metatable does the first argument have: OF_CLIENT, OF_PIPE, 0 neither. */
static int which(lua_State *L) {
    if (lua_type(L, 1) != LUA_TUSERDATA || !lua_getmetatable(L, 1)) return 0;
    int kind = lua_rawequal(L, -1, lua_upvalueindex(OF_CLIENT)) ? OF_CLIENT : lua_rawequal(L, -1, lua_upvalueindex(OF_PIPE)) ? OF_PIPE : 0;
    lua_pop(L, 1);
    return kind;
}

static int put_command(lua_State *L, const redis_cmd *c, neap_buf *b, int top) {
    size_t n = redis_count_args(L, c->what, 2, top);
    size_t before = b->len;
    int e = neap_resp_begin(b, n + (size_t)c->words);
    if (!e) e = buf_add(b, c->prefix, c->prefix_len);
    if (!e) e = redis_put_args(L, b, 2, top);
    if (e) b->len = before;
    return e;
}

static int replied(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    const redis_cmd *c = lua_touserdata(L, lua_upvalueindex(CMD));
    if (w->status) {
        redis_push_error(L, c->what, w->status, w->result, redis_key_of(L, 2));
        return lua_error(L);
    }
    redis_push_reply(L, w->result, c->shape, 1);
    neap_reply_free(w->result); /* now rather than when the collector comes round */
    w->result = NULL;
    return 1;
}

/* A dedicated connection whose waiter leaves is closed: its reply may carry data (BLPOP) that nobody would get. */
static void leave_dedicated(rt_wait *w, void *op) { redis_client_shut(op); }

/* How long a blocking command may take: its own time limit and some; -1: for ever. */
static uint32_t blocking_ms(lua_State *L, const redis_cmd *c, int top) {
    double s = c->blocking == 2 ? lua_tonumber(L, top) / 1e3 : c->blocking == 3 ? lua_tonumber(L, 2) : lua_tonumber(L, top);
    if (c->blocking == 4) { /* XREAD: BLOCK ms somewhere */
        s = -1;
        for (int i = 2; i < top; i++) {
            const char *k = lua_type(L, i) == LUA_TSTRING ? lua_tostring(L, i) : "";
            if ((k[0] == 'B' || k[0] == 'b') && !strcasecmp(k, "block")) s = lua_tonumber(L, i + 1) / 1e3;
            else if (!strcasecmp(k, "streams")) break;
        }
        if (s < 0) return 0;
    }
    if (s <= 0 || s > 4e6) return UINT32_MAX;
    return (uint32_t)(s * 1e3) + LEAVE_SLACK_MS;
}

/* Gives the arguments behind the client to the command's form, if it has one and the last argument is a table (a nil behind it is an option table
   left out); what it returns takes their place. */
static void to_form(lua_State *L) {
    int top = lua_gettop(L), last = top;
    while (last > 1 && lua_isnil(L, last)) last--;
    if (last < 2 || lua_type(L, last) != LUA_TTABLE || lua_type(L, lua_upvalueindex(FORM)) != LUA_TFUNCTION) return;
    lua_pushvalue(L, lua_upvalueindex(FORM));
    lua_insert(L, 2);
    lua_call(L, top - 1, LUA_MULTRET);
    luaL_checkstack(L, LUA_MINSTACK, "redis");
}

/* Sends the command over the client at 1, with the arguments behind it. */
static int send_over(lua_State *L, const redis_cmd *c) {
    redis_client *cl = lua_touserdata(L, 1);
    int top = lua_gettop(L);
    if (!cl->r) return err_code(L, NEAP_ERR_CLOSED, "%s: the client is closed", c->what);
    if (c->refused && !cl->dedicated)
        return luaL_error(L, "%s changes the state of a connection that others share: use `local c <close> = r:dedicated()` and c:%s(...)", c->what,
                          c->what + 6);
    uint32_t ms = c->blocking && cl->dedicated ? blocking_ms(L, c, top) : 0;
    buf_clear(&cl->scratch);
    if (put_command(L, c, &cl->scratch, top)) return err_code(L, NEAP_ERR_MEMORY, "%s: out of memory", c->what);
    rt_wait *w = wait_new(L, c->what, -1);
    if (cl->dedicated) {
        w->op = cl;
        w->cancel = leave_dedicated;
    }
    neap_redis_req q = {
        .bytes = cl->scratch.data, .len = cl->scratch.len, .count = 1, .flags = c->flags, .timeout_ms = ms, .cb = on_reply, .ud = wait_ref(w)};
    int e = neap_redis_send(cl->r, &q);
    if (cl->scratch.cap > SCRATCH_KEEP) buf_free(&cl->scratch);
    if (e) return redis_cannot_start(L, w, c->what, e, cl->r);
    return wait_park(L, w, replied);
}

static int call(lua_State *L) {
    const redis_cmd *c = lua_touserdata(L, lua_upvalueindex(CMD));
    int kind = which(L);
    if (!kind) return luaL_error(L, "%s: call it with a colon, on a client: r:%s(...)", c->what, c->what + 6);
    to_form(L);
    if (kind == OF_CLIENT) return send_over(L, c);
    redis_pipe *p = lua_touserdata(L, 1);
    if (c->blocking || c->refused) return luaL_error(L, "%s cannot stand in a pipeline or transaction", c->what);
    if (put_command(L, c, &p->buf, lua_gettop(L))) return err_code(L, NEAP_ERR_MEMORY, "%s: out of memory", c->what);
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, lua_upvalueindex(CMD));
    lua_rawseti(L, -2, ++p->count);
    return 0;
}

/* The stack: arguments, the default client. */
static int call_over_default(lua_State *L, int st, lua_KContext ctx) {
    lua_insert(L, 1);
    return call(L);
}

/* redis.name(...) or redis:name(...) */
static int call_default(lua_State *L) {
    if (lua_type(L, 1) == LUA_TTABLE && lua_rawequal(L, 1, lua_upvalueindex(MODULE))) lua_remove(L, 1);
    if (lua_rawgeti(L, lua_upvalueindex(DEFAULTS), 1) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(FIND));
        lua_callk(L, 0, 1, 0, call_over_default);
    }
    return call_over_default(L, LUA_OK, 0);
}

/* core.on_default(command, defaults, module, find): the command without a client: over defaults[1], else over what find() returns. Nil if `command`
   is a Lua function. */
int redis_l_on_default(lua_State *L) {
    if (lua_tocfunction(L, 1) != call) return 0;
    lua_settop(L, 4);
    for (int i = CMD; i <= FORM; i++) lua_getupvalue(L, 1, i);
    for (int i = 2; i <= 4; i++) lua_pushvalue(L, i);
    lua_pushcclosure(L, call_default, FIND);
    return 1;
}

/* core.command(what, {words}, {retry=, refused=, blocking=, shape=, form=}) */
int redis_l_command(lua_State *L) {
    const char *what = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    static const char *const shapes[] = {"plain", "map", "maps", "entries", "streams", "claimed", "wire", NULL};
    lua_settop(L, 3);
    lua_getfield(L, 3, "shape");
    int shape = luaL_checkoption(L, 4, "plain", shapes);
    int words = (int)luaL_len(L, 2);
    char prefix[256];
    size_t n = 0;
    for (int i = 1; i <= words; i++) {
        size_t len;
        lua_rawgeti(L, 2, i);
        const char *s = luaL_checklstring(L, -1, &len);
        if (n + len + 24 > sizeof prefix) return luaL_error(L, "no Redis command has a name as long as '%s'", s);
        n += (size_t)snprintf(prefix + n, sizeof prefix - n, "$%zu\r\n%s\r\n", len, s);
        lua_pop(L, 1);
    }
    redis_cmd *c = lua_newuserdatauv(L, sizeof *c + n, 0);
    memset(c, 0, sizeof *c);
    snprintf(c->what, sizeof c->what, "redis.%s", what);
    c->shape = (enum redis_shape)shape;
    c->words = words;
    c->prefix_len = n;
    memcpy(c->prefix, prefix, n);
    lua_getfield(L, 3, "retry");
    c->flags = lua_toboolean(L, -1) ? NEAP_REDIS_RETRY : 0;
    lua_getfield(L, 3, "refused");
    c->refused = lua_toboolean(L, -1);
    lua_getfield(L, 3, "blocking");
    c->blocking = (int)lua_tointeger(L, -1);
    lua_pop(L, 3);
    luaL_getmetatable(L, REDIS_CLIENT);
    luaL_getmetatable(L, REDIS_PIPE);
    lua_getfield(L, 3, "form");
    lua_pushcclosure(L, call, FORM);
    return 1;
}

/* ---- pipelines and transactions -------------------------------------------------------------------------------------- */
static int pipe_gc(lua_State *L) {
    redis_pipe *p = lua_touserdata(L, 1);
    buf_free(&p->buf);
    return 0;
}

static int pipe_len(lua_State *L) {
    lua_pushinteger(L, ((redis_pipe *)lua_touserdata(L, 1))->count);
    return 1;
}

void redis_pipe_meta(lua_State *L) {
    luaL_newmetatable(L, REDIS_PIPE);
    lua_pushcfunction(L, pipe_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, pipe_len);
    lua_setfield(L, -2, "__len");
}

int redis_l_pipe(lua_State *L) {
    redis_pipe *p = lua_newuserdatauv(L, sizeof *p, 1);
    memset(p, 0, sizeof *p);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, REDIS_PIPE);
    return 1;
}

static enum redis_shape shape_of(lua_State *L, int shapes, uint32_t i) {
    lua_rawgeti(L, shapes, (lua_Integer)i + 1);
    const redis_cmd *c = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return c ? c->shape : SHAPE_PLAIN;
}

/* Pushes results {n=} and the index of the first that failed (or nil) from an array reply, whose first item stands at `from`. */
static int push_results(lua_State *L, const neap_reply *a) {
    uint32_t failed = 0;
    lua_getiuservalue(L, 2, 1);
    int shapes = lua_gettop(L);
    lua_createtable(L, (int)a->len, 1);
    for (uint32_t i = 0; i < a->len; i++) {
        const neap_reply *n = &a->item[i];
        if (n->type == NEAP_REPLY_ERROR) {
            const redis_cmd *c = (lua_rawgeti(L, shapes, (lua_Integer)i + 1), lua_touserdata(L, -1));
            lua_pop(L, 1);
            redis_push_error(L, c ? c->what : "redis", NEAP_ERR_REPLY, n, NULL);
            if (!failed) failed = i + 1;
        } else {
            redis_push_reply(L, n, shape_of(L, shapes, i), 1);
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, a->len);
    lua_setfield(L, -2, "n");
    if (failed) lua_pushinteger(L, failed);
    else lua_pushnil(L);
    return 2;
}

static int ran(lua_State *L, int st, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    int transaction = lua_toboolean(L, 3);
    const neap_reply *all = w->result;
    if (w->status) {
        redis_push_error(L, w->what, w->status, all, NULL);
        return lua_error(L);
    }
    const neap_reply *a = all;
    if (transaction) { /* OK, QUEUED..., EXEC's answer */
        a = &all->item[all->len - 1];
        if (a->type == NEAP_REPLY_NIL) { /* a watched key changed */
            lua_pushnil(L);
            return 1;
        }
        for (uint32_t i = 0; a->type == NEAP_REPLY_ERROR && i < all->len; i++)
            if (all->item[i].type == NEAP_REPLY_ERROR) { /* the command that spoiled it says more than EXECABORT */
                redis_push_error(L, "redis.multi", NEAP_ERR_REPLY, &all->item[i], NULL);
                return lua_error(L);
            }
    }
    int n = push_results(L, a);
    neap_reply_free(w->result);
    w->result = NULL;
    return n;
}

/* run(client, pipe, transaction): sends it all in one go. Returns results (with n) and the index of the first error reply; for a transaction that
   lost a watched key nil. */
int redis_l_run(lua_State *L) {
    redis_client *cl = redis_check_client(L, 1);
    redis_pipe *p = luaL_checkudata(L, 2, REDIS_PIPE);
    int transaction = lua_toboolean(L, 3);
    lua_settop(L, 3);
    const char *what = transaction ? "redis.multi" : "redis.pipeline";
    uint32_t count = p->count + (transaction ? 2 : 0);
    neap_buf *b = &p->buf;
    if (transaction) {
        static const char multi[] = "*1\r\n$5\r\nMULTI\r\n", exec[] = "*1\r\n$4\r\nEXEC\r\n";
        buf_clear(&cl->scratch);
        if (buf_add(&cl->scratch, multi, sizeof multi - 1) || buf_add(&cl->scratch, b->data, b->len) || buf_add(&cl->scratch, exec, sizeof exec - 1))
            return err_code(L, NEAP_ERR_MEMORY, "%s: out of memory", what);
        b = &cl->scratch;
    } else if (!p->count) {
        lua_newtable(L);
        lua_pushinteger(L, 0);
        lua_setfield(L, -2, "n");
        return 1;
    }
    rt_wait *w = wait_new(L, what, -1);
    if (cl->dedicated) {
        w->op = cl;
        w->cancel = leave_dedicated;
    }
    /* a long pipeline takes its time: a second more for each 50,000 commands */
    uint32_t ms = (uint32_t)(cl->timeout * 1e3) + count / 50;
    neap_redis_req q = {
        .bytes = b->data, .len = b->len, .count = count, .flags = NEAP_REDIS_BATCH, .timeout_ms = ms, .cb = on_reply, .ud = wait_ref(w)};
    int e = neap_redis_send(cl->r, &q);
    if (cl->scratch.cap > SCRATCH_KEEP) buf_free(&cl->scratch);
    if (e) return redis_cannot_start(L, w, what, e, cl->r);
    return wait_park(L, w, ran);
}
