/* mqtt.c: neap.ext.mqtt.core: one connection to an MQTT broker, libmosquitto without its threads: the socket is waited for in neap's loop, and pump()
   does what libmosquitto has to do. Only the connecting, which blocks (names, TCP), runs on a thread of the pool: it makes the client there and hands
   it over, so that no two threads ever have it. Messages wait in a queue of ours until Lua takes them. */
#include <stdlib.h>
#include <string.h>
#include <mosquitto.h>
#include <neap_ext.h>

#define CONN_META "neap.ext.mqtt.connection"

typedef struct message {
    struct message *next;
    char *topic, *payload;
    size_t len;
    int retained;
} message;

typedef struct conn {
    struct mosquitto *m;
    message *first, **last;
    int accepted; /* -1: the broker has not answered; else its answer, 0 is yes */
    int starved;  /* a message was lost for lack of memory */
} conn;

static int fail(lua_State *L, const char *what, int rc) {
    const char *kind = rc == MOSQ_ERR_INVAL || rc == MOSQ_ERR_NOT_SUPPORTED ? "invalid" : rc == MOSQ_ERR_NOMEM ? "memory" : "connection";
    const char *why = rc == MOSQ_ERR_ERRNO ? "no connection to the broker" : mosquitto_strerror(rc);
    return neap_ext(L)->raise(L, kind, strcmp(kind, "connection") == 0, lua_pushfstring(L, "mqtt.%s: %s", what, why));
}

static conn *check(lua_State *L) {
    conn *c = luaL_checkudata(L, 1, CONN_META);
    if (!c->m) luaL_error(L, "the MQTT connection is closed");
    return c;
}

/* ---- what libmosquitto tells us, from inside pump ----------------------------------------------------------------- */
static void message_free(message *x) {
    free(x->topic);
    free(x->payload);
    free(x);
}

static void on_message(struct mosquitto *m, void *ud, const struct mosquitto_message *got) {
    conn *c = ud;
    message *x = calloc(1, sizeof *x);
    if (x) {
        x->len = got->payloadlen > 0 ? (size_t)got->payloadlen : 0;
        x->topic = strdup(got->topic);
        x->payload = malloc(x->len + 1);
        x->retained = got->retain;
    }
    if (!x || !x->topic || !x->payload) {
        if (x) message_free(x);
        c->starved = 1;
        return;
    }
    memcpy(x->payload, got->payload, x->len);
    *c->last = x;
    c->last = &x->next;
}

static void on_connect(struct mosquitto *m, void *ud, int rc) { ((conn *)ud)->accepted = rc; }

/* ---- connecting ----------------------------------------------------------------------------------------------------- */
typedef struct order { /* the thread's own copies */
    char *host, *id, *user, *password;
    int port, keepalive;
} order;

typedef struct link {
    struct mosquitto *m;
    int rc;
} link;

static void order_free(void *p) {
    order *o = p;
    free(o->host);
    free(o->id);
    free(o->user);
    free(o->password);
    free(o);
}

static void link_free(void *p) {
    link *k = p;
    if (k->m) mosquitto_destroy(k->m);
    free(k);
}

static void *do_connect(void *p) {
    order *o = p;
    link *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->rc = MOSQ_ERR_NOMEM;
    k->m = mosquitto_new(o->id, true, NULL);
    if (k->m && (!o->user || !(k->rc = mosquitto_username_pw_set(k->m, o->user, o->password))))
        k->rc = mosquitto_connect(k->m, o->host, o->port, o->keepalive);
    return k;
}

static int connected(lua_State *L, int status, lua_KContext ctx) {
    neap_ext_wait *w = (neap_ext_wait *)ctx;
    link *k = neap_ext(L)->wait_result(w);
    conn *c = lua_touserdata(L, 7);
    if (!k) return fail(L, "connect", MOSQ_ERR_NOMEM);
    if (k->rc) return fail(L, "connect", k->rc);
    c->m = k->m;
    k->m = NULL;
    mosquitto_user_data_set(c->m, c);
    mosquitto_message_callback_set(c->m, on_message);
    mosquitto_connect_callback_set(c->m, on_connect);
    lua_settop(L, 7);
    return 1;
}

static int l_connect(lua_State *L) { /* connect(host, port, id, user, password, keepalive) -> connection. Waits. */
    const char *host = luaL_checkstring(L, 1), *id = luaL_optstring(L, 3, NULL), *user = luaL_optstring(L, 4, NULL),
               *password = luaL_optstring(L, 5, NULL);
    lua_Integer port = luaL_optinteger(L, 2, 1883), keepalive = luaL_optinteger(L, 6, 30);
    luaL_argcheck(L, port > 0 && port < 65536, 2, "a port");
    luaL_argcheck(L, keepalive >= 5 && keepalive < 65536, 6, "5 s or more");
    lua_settop(L, 6);
    conn *c = lua_newuserdatauv(L, sizeof *c, 0);
    *c = (conn){.accepted = -1};
    c->last = &c->first;
    luaL_setmetatable(L, CONN_META);
    order *o = calloc(1, sizeof *o);
    if (!o) return fail(L, "connect", MOSQ_ERR_NOMEM);
    *o = (order){strdup(host), id ? strdup(id) : NULL, user ? strdup(user) : NULL, password ? strdup(password) : NULL, (int)port, (int)keepalive};
    if (!o->host || (id && !o->id) || (user && !o->user) || (password && !o->password)) {
        order_free(o);
        return fail(L, "connect", MOSQ_ERR_NOMEM);
    }
    return neap_ext(L)->wait_work(L, "mqtt.connect", 15, do_connect, o, order_free, link_free, connected);
}

/* ---- while it lasts --------------------------------------------------------------------------------------------------- */
static int readable(lua_State *L, int status, lua_KContext ctx) { return 0; }

static int l_wait(lua_State *L) { /* conn:wait(timeout): until something has come from the broker. Raises kind "timeout". */
    conn *c = check(L);
    int fd = mosquitto_socket(c->m);
    if (fd < 0) return fail(L, "wait", MOSQ_ERR_CONN_LOST);
    return neap_ext(L)->wait_fd(L, "mqtt", fd, 0, luaL_optnumber(L, 2, -1), readable);
}

static int l_pump(lua_State *L) { /* conn:pump(): reads, writes, keeps alive. Call it after each wait, every few seconds at least. */
    conn *c = check(L);
    int rc = mosquitto_loop_read(c->m, 1000);
    if (!rc && mosquitto_want_write(c->m)) rc = mosquitto_loop_write(c->m, 1000);
    if (!rc) rc = mosquitto_loop_misc(c->m);
    if (rc) return fail(L, "pump", rc);
    if (c->starved) return fail(L, "pump", MOSQ_ERR_NOMEM);
    if (c->accepted > 0)
        return neap_ext(L)->raise(L, "auth", 0, lua_pushfstring(L, "mqtt.connect: the broker refuses: %s", mosquitto_connack_string(c->accepted)));
    lua_pushboolean(L, c->accepted == 0);
    return 1;
}

static int l_take(lua_State *L) { /* conn:take() -> topic, payload, retained of the next message; nil if none has come */
    conn *c = check(L);
    message *x = c->first;
    if (!x) return 0;
    lua_pushstring(L, x->topic);
    lua_pushlstring(L, x->payload, x->len);
    lua_pushboolean(L, x->retained);
    c->first = x->next;
    if (!c->first) c->last = &c->first;
    message_free(x);
    return 3;
}

static int l_subscribe(lua_State *L) { /* conn:subscribe(pattern [, qos]) */
    conn *c = check(L);
    int rc = mosquitto_subscribe(c->m, NULL, luaL_checkstring(L, 2), (int)luaL_optinteger(L, 3, 1));
    return rc ? fail(L, "subscribe", rc) : 0;
}

static int l_publish(lua_State *L) { /* conn:publish(topic, payload [, qos [, retain]]) */
    conn *c = check(L);
    size_t n;
    const char *payload = luaL_checklstring(L, 3, &n);
    int rc = mosquitto_publish(c->m, NULL, luaL_checkstring(L, 2), (int)n, payload, (int)luaL_optinteger(L, 4, 1), lua_toboolean(L, 5));
    return rc ? fail(L, "publish", rc) : 0;
}

static int l_close(lua_State *L) { /* close, __close and __gc */
    conn *c = luaL_checkudata(L, 1, CONN_META);
    if (c->m) {
        mosquitto_disconnect(c->m);
        mosquitto_destroy(c->m);
    }
    c->m = NULL;
    while (c->first) {
        message *x = c->first;
        c->first = x->next;
        message_free(x);
    }
    c->last = &c->first;
    return 0;
}

int luaopen_neap_ext_mqtt_core(lua_State *L);
int luaopen_neap_ext_mqtt_core(lua_State *L) {
    static const luaL_Reg fns[] = {{"connect", l_connect}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"wait", l_wait},       {"pump", l_pump},   {"take", l_take}, {"subscribe", l_subscribe},
                                       {"publish", l_publish}, {"close", l_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {NULL, NULL}};
    neap_ext(L); /* refuses a plain lua here, not in the middle of the work */
    mosquitto_lib_init();
    luaL_newmetatable(L, CONN_META);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
