/* tensor_lua.c: the tensor userdata itself: its life, the pressure of its memory on the collector, and the errors that all tensor code raises. */
#include "host/api/tensor_lua.h"
#include "host/cuda.h"
#include <stdlib.h>
#include <string.h>

/* ---- userdata and memory pressure ---- */

typedef struct tensor_ud {
    neap_tensor t;
    size_t owned; /* bytes accounted to this userdata: storage it made, not views */
} tensor_ud;

typedef struct pressure {
    size_t live, limit;
} pressure;

#define PRESSURE_FLOOR ((size_t)64 << 20)
static const char pressure_key = 0;

static pressure *pressure_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &pressure_key);
    pressure *p = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return p;
}

static neap_tensor *on_cpu(lua_State *L, neap_tensor *t) {
    if (t && neap_tensor_device(t)) luaL_error(L, "this works on the cpu, the tensor is on %s: move it with x:to('cpu')", neap_tensor_device_name(t));
    return t;
}

neap_tensor *tensor_test(lua_State *L, int idx) { return on_cpu(L, tensor_test_any(L, idx)); }

neap_tensor *tensor_test_any(lua_State *L, int idx) {
    tensor_ud *u = luaL_testudata(L, idx, TENSOR_META);
    return u && u->t.storage ? &u->t : NULL;
}

neap_tensor *tensor_check(lua_State *L, int idx) { return on_cpu(L, tensor_check_any(L, idx)); }

neap_tensor *tensor_check_any(lua_State *L, int idx) {
    tensor_ud *u = luaL_checkudata(L, idx, TENSOR_META);
    if (!u->t.storage) luaL_argerror(L, idx, "this tensor was freed");
    return &u->t;
}

neap_tensor *tensor_slot(lua_State *L) {
    tensor_ud *u = lua_newuserdatauv(L, sizeof *u, 0);
    memset(u, 0, sizeof *u);
    luaL_setmetatable(L, TENSOR_META);
    return &u->t;
}

size_t tensor_account(lua_State *L, size_t bytes) {
    pressure *p = pressure_of(L);
    if (!p) return 0;
    p->live += bytes;
    if (p->live > p->limit) {
        lua_gc(L, LUA_GCCOLLECT);
        p->limit = p->live * 2 > PRESSURE_FLOOR ? p->live * 2 : PRESSURE_FLOOR;
    }
    return bytes;
}

void tensor_discount(lua_State *L, size_t bytes) {
    pressure *p = pressure_of(L);
    if (p) p->live -= bytes < p->live ? bytes : p->live;
}

void tensor_filled(lua_State *L, neap_tensor *t) {
    tensor_ud *u = (tensor_ud *)t;
    if (atomic_load(&t->storage->refs) != 1) return; /* a view: its storage is accounted elsewhere */
    u->owned = t->storage->bytes;                    /* before a collection that this may start */
    tensor_account(L, u->owned);
}

/* __gc, __close and free: may run many times */
int tensor_close(lua_State *L) {
    tensor_ud *u = luaL_checkudata(L, 1, TENSOR_META);
    tensor_discount(L, u->owned);
    u->owned = 0;
    neap_tensor_unref(&u->t);
    return 0;
}

/* " (f32 on cuda and i64 on cpu)" */
static const char *push_kinds(lua_State *L, const neap_tensor *a, const neap_tensor *b) {
    const char *x = neap_dtype_name(a->dtype), *on = neap_tensor_device_name(a);
    if (!b) return lua_pushfstring(L, "%s on %s", x, on);
    return lua_pushfstring(L, "%s on %s and %s on %s", x, on, neap_dtype_name(b->dtype), neap_tensor_device_name(b));
}

void tensor_must(lua_State *L, int rc, const char *op, const neap_tensor *a, const neap_tensor *b) {
    char sa[160] = "", sb[160] = "";
    if (!rc) return;
    if (a) neap_tensor_shape_text(a, sa, sizeof sa);
    if (b) neap_tensor_shape_text(b, sb, sizeof sb);
    int remote = (a && neap_tensor_device(a)) || (b && neap_tensor_device(b));
    if (rc == NEAP_ERR_IO && remote) err_code(L, rc, "%s on cuda: %s", op, neap_cuda_error());
    if (rc == NEAP_ERR_MEMORY && remote) err_raise(L, &(rt_error){.kind = "memory", .sent = -1, .where = 1}, "%s: %s", op, neap_cuda_error());
    if (rc == NEAP_ERR_MEMORY) {
        pressure *p = pressure_of(L);
        err_raise(L, &(rt_error){.kind = "memory", .sent = -1, .where = 1}, "%s: out of memory (tensors hold %I bytes)", op,
                  (lua_Integer)(p ? p->live : 0));
    }
    if (a && b && neap_tensor_device(a) != neap_tensor_device(b) && (a->dims || neap_tensor_device(a)) && (b->dims || neap_tensor_device(b)))
        luaL_error(L, "%s: shapes %s and %s lie on different devices (%s): move one with x:to('%s')", op, sa, sb, push_kinds(L, a, b),
                   neap_tensor_device_name(neap_tensor_device(a) ? a : b));
    if (a && b) luaL_error(L, "%s: shapes %s and %s do not fit together (%s)", op, sa, sb, push_kinds(L, a, b));
    if (a) luaL_error(L, "%s: not possible for shape %s (%s)", op, sa, push_kinds(L, a, NULL));
    luaL_error(L, "%s: %s", op, rc == NEAP_ERR_INVALID ? "an argument is out of range" : neap_err_kind(rc));
}

const neap_device *tensor_device(lua_State *L, const char *name) {
    static const char *const names[] = {"cpu", "cuda", "auto", NULL};
    if (!strcmp(name, "cpu") || !strcmp(name, "auto")) return NULL;
    if (strcmp(name, "cuda")) {
        const char *near = err_nearest(name, names);
        luaL_error(L, "unknown device '%s'%s%s; there are cpu, cuda, auto", name, near ? ", did you mean " : "", near ? near : "");
    }
    const neap_device *d = neap_cuda_device();
    if (!d) err_code(L, NEAP_ERR_UNSUPPORTED, "device 'cuda': %s", neap_cuda_error());
    return d;
}

neap_tensor *tensor_move(lua_State *L, neap_tensor *t, const neap_device *device, const char *op) {
    if (neap_tensor_device(t) == device) return t;
    neap_tensor *moved = tensor_slot(L);
    int rc;
    TENSOR_RETRY(L, rc, neap_tensor_to(moved, t, device));
    if (rc == NEAP_ERR_MEMORY && device) err_raise(L, &(rt_error){.kind = "memory", .sent = -1, .where = 1}, "%s: %s", op, neap_cuda_error());
    tensor_must(L, rc, op, t, NULL);
    tensor_filled(L, moved);
    return moved;
}

void options_check(lua_State *L, int idx, const char *const *names) {
    if (lua_isnoneornil(L, idx)) return;
    luaL_checktype(L, idx, LUA_TTABLE);
    idx = lua_absindex(L, idx);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            luaL_error(L, "options are named: got the key %s", luaL_tolstring(L, -2, NULL));
            return;
        }
        const char *key = lua_tostring(L, -2);
        int known = 0;
        for (int i = 0; names[i]; i++) known |= !strcmp(names[i], key);
        if (known) continue;
        const char *near = err_nearest(key, names);
        if (near) luaL_error(L, "unknown option '%s', did you mean '%s'?", key, near);
        luaL_error(L, "unknown option '%s'", key);
    }
}

int tensor_dim(lua_State *L, int idx, const neap_tensor *t, const char *op) {
    lua_Integer d = luaL_checkinteger(L, idx), real = d < 0 ? t->dims + d : d - 1;
    if (d == 0 || real < 0 || real >= t->dims)
        luaL_error(L, "%s: dimension %I does not exist, the tensor has %d (they count from 1)", op, d, t->dims);
    return (int)real;
}

/* The pressure record of this state; opened once. */
void tensor_open_pressure(lua_State *L) {
    if (pressure_of(L)) return;
    pressure *p = lua_newuserdatauv(L, sizeof *p, 0);
    *p = (pressure){0, PRESSURE_FLOOR};
    lua_rawsetp(L, LUA_REGISTRYINDEX, &pressure_key);
}

int tensor_live_bytes(lua_State *L) { return lua_pushinteger(L, (lua_Integer)pressure_of(L)->live), 1; }
