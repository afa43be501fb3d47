/* mod_tensor.c: neap.tensor: the module, and making tensors. Looking and views are in mod_tensor_view.c, arithmetic in mod_tensor_ops.c.
   Dimensions and indices count from 1, negative ones from the end, also in error texts. */
#include "host/api/tensor_lua.h"
#include "host/cuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making ---- */

static const char *const make_options[] = {"dtype", "device", "seed", NULL};

typedef struct making {
    int dtype;
    uint64_t seed;
    int seeded;
    const neap_device *device;
} making;

int tensor_dtype(lua_State *L, const char *name) {
    static const char *const names[] = {"u8", "i64", "f32", "f64", NULL};
    int t = neap_dtype_parse(name);
    const char *near = t < 0 ? err_nearest(name, names) : NULL;
    if (t < 0) luaL_error(L, "unknown dtype '%s'%s%s; there are f32, f64, i64, u8", name, near ? ", did you mean " : "", near ? near : "");
    return t;
}

static making make_opts(lua_State *L, int idx, int dtype) {
    making m = {dtype, 0, 0, NULL};
    options_check(L, idx, make_options);
    if (lua_isnoneornil(L, idx)) return m;
    if (lua_getfield(L, idx, "dtype") != LUA_TNIL) m.dtype = tensor_dtype(L, luaL_checkstring(L, -1));
    if (lua_getfield(L, idx, "seed") != LUA_TNIL) m.seed = (uint64_t)luaL_checkinteger(L, -1), m.seeded = 1;
    if (lua_getfield(L, idx, "device") != LUA_TNIL) m.device = tensor_device(L, luaL_checkstring(L, -1));
    lua_pop(L, 3);
    return m;
}

/* Dimensions from arguments first.. (numbers, or one list); *after is the index of what follows. */
int tensor_dims(lua_State *L, int first, int64_t *shape, int *after) {
    int n = 0;
    if (lua_istable(L, first)) {
        n = (int)luaL_len(L, first);
        if (n > NEAP_MAX_DIMS) luaL_error(L, "a tensor has at most %d dimensions", NEAP_MAX_DIMS);
        for (int i = 0; i < n; i++) {
            lua_rawgeti(L, first, i + 1);
            shape[i] = luaL_checkinteger(L, -1);
            lua_pop(L, 1);
        }
        *after = first + 1;
        return n;
    }
    for (; lua_type(L, first + n) == LUA_TNUMBER; n++) {
        if (n == NEAP_MAX_DIMS) luaL_error(L, "a tensor has at most %d dimensions", NEAP_MAX_DIMS);
        shape[n] = luaL_checkinteger(L, first + n);
    }
    *after = first + n;
    return n;
}

static neap_tensor *make_on(lua_State *L, const char *op, const neap_device *device, int dtype, int dims, const int64_t *shape) {
    neap_tensor *t = tensor_slot(L);
    int rc;
    for (int i = 0; i < dims; i++)
        if (shape[i] < 0) luaL_error(L, "%s: dimension %d is negative (%I)", op, i + 1, (lua_Integer)shape[i]);
    TENSOR_RETRY(L, rc, neap_tensor_new_on(t, device, (neap_dtype)dtype, dims, shape));
    if (rc == NEAP_ERR_MEMORY && device) err_raise(L, &(rt_error){.kind = "memory", .sent = -1, .where = 1}, "%s: %s", op, neap_cuda_error());
    tensor_must(L, rc, op, NULL, NULL);
    tensor_filled(L, t);
    return t;
}

/* On the cpu: what is written element by element and moved when it is whole. */
static neap_tensor *make(lua_State *L, const char *op, int dtype, int dims, const int64_t *shape) { return make_on(L, op, NULL, dtype, dims, shape); }

static int make_filled(lua_State *L, const char *op, double value) {
    int64_t shape[NEAP_MAX_DIMS];
    int after, dims = tensor_dims(L, 1, shape, &after);
    making m = make_opts(L, after, NEAP_F32);
    neap_tensor *t = make_on(L, op, m.device, m.dtype, dims, shape);
    if (value != 0.0) tensor_must(L, neap_tensor_fill(t, value), op, NULL, NULL);
    return 1;
}

static int tensor_zeros(lua_State *L) { return make_filled(L, "zeros", 0.0); }
static int tensor_ones(lua_State *L) { return make_filled(L, "ones", 1.0); }

static int tensor_full(lua_State *L) {
    int64_t shape[NEAP_MAX_DIMS];
    int after, dims;
    luaL_argexpected(L, lua_istable(L, 1), 1, "list of dimensions");
    dims = tensor_dims(L, 1, shape, &after);
    double v = luaL_checknumber(L, 2);
    making m = make_opts(L, 3, NEAP_F32);
    tensor_must(L, neap_tensor_fill(make_on(L, "full", m.device, m.dtype, dims, shape), v), "full", NULL, NULL);
    return 1;
}

static int make_random(lua_State *L, const char *op, int normal) {
    int64_t shape[NEAP_MAX_DIMS];
    int after, dims = tensor_dims(L, 1, shape, &after);
    making m = make_opts(L, after, NEAP_F32);
    if (m.dtype < NEAP_F32) luaL_error(L, "%s: dtype must be f32 or f64", op);
    if (!m.seeded) { /* math.random of this state: math.randomseed decides */
        lua_getglobal(L, "math");
        lua_getfield(L, -1, "random");
        lua_pushinteger(L, 0);
        lua_call(L, 1, 1);
        m.seed = (uint64_t)lua_tointeger(L, -1);
        lua_pop(L, 2);
    }
    neap_tensor *t = make(L, op, m.dtype, dims, shape); /* the same numbers for a seed on every device */
    tensor_must(L, neap_tensor_rand(t, m.seed, normal), op, NULL, NULL);
    tensor_move(L, t, m.device, op);
    return 1;
}

static int tensor_rand(lua_State *L) { return make_random(L, "rand", 0); }
static int tensor_randn(lua_State *L) { return make_random(L, "randn", 1); }

static int tensor_arange(lua_State *L) {
    double first = luaL_checknumber(L, 1), last = luaL_checknumber(L, 2), step = luaL_optnumber(L, 3, 1.0);
    making m = make_opts(L, 4, lua_isinteger(L, 1) && lua_isinteger(L, 2) && (lua_isnoneornil(L, 3) || lua_isinteger(L, 3)) ? NEAP_I64 : NEAP_F32);
    luaL_argcheck(L, step != 0.0, 3, "step is 0");
    double count = (last - first) / step + 1e-9;
    luaL_argcheck(L, count < 1e12, 2, "too many elements");
    int64_t n = count < 0 || count != count ? 0 : (int64_t)count + 1; /* the last is included, as in Lua's for */
    neap_tensor *t = make(L, "arange", m.dtype, 1, &n);
    for (int64_t i = 0; i < n; i++) neap_tensor_put(t, i, first + (double)i * step);
    tensor_move(L, t, m.device, "arange");
    return 1;
}

static int tensor_linspace(lua_State *L) {
    double first = luaL_checknumber(L, 1), last = luaL_checknumber(L, 2);
    int64_t n = luaL_checkinteger(L, 3);
    making m = make_opts(L, 4, NEAP_F32);
    luaL_argcheck(L, n >= 0, 3, "negative count");
    neap_tensor *t = make(L, "linspace", m.dtype, 1, &n);
    for (int64_t i = 0; i < n; i++) neap_tensor_put(t, i, n == 1 ? first : first + (last - first) * (double)i / (double)(n - 1));
    tensor_move(L, t, m.device, "linspace");
    return 1;
}

/* from_string(bytes[, dims][, opts]): raw little-endian numbers */
static int tensor_from_string(lua_State *L) {
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);
    int64_t shape[NEAP_MAX_DIMS];
    int after = 2, named = lua_isnoneornil(L, 2) || (lua_istable(L, 2) && luaL_len(L, 2) == 0);
    int dims = named ? 1 : tensor_dims(L, 2, shape, &after);
    making m = make_opts(L, lua_isnil(L, after) ? after + 1 : after, NEAP_F32);
    size_t size = neap_dtype_size((neap_dtype)m.dtype), want = 1;
    if (named) shape[0] = (int64_t)(len / size);
    for (int i = 0; i < dims; i++) want *= (size_t)shape[i];
    if (want * size != len)
        return luaL_error(L, "from_string: %d bytes do not make %d elements of %s", (int)len, (int)want, neap_dtype_name((neap_dtype)m.dtype));
    neap_tensor *t = make(L, "from_string", m.dtype, dims, shape);
    memcpy(neap_tensor_data(t), bytes, len);
    tensor_move(L, t, m.device, "from_string");
    return 1;
}

/* Shape of the nested list at the top of the stack, by its first elements. */
static int list_shape(lua_State *L, int64_t *shape, const char *op) {
    int dims = 0, top = lua_gettop(L);
    while (lua_istable(L, -1)) {
        if (dims == NEAP_MAX_DIMS) luaL_error(L, "%s: lists nested deeper than %d", op, NEAP_MAX_DIMS);
        shape[dims++] = (int64_t)lua_rawlen(L, -1);
        if (lua_rawgeti(L, -1, 1) == LUA_TNIL) break;
        luaL_checkstack(L, 4, op);
    }
    lua_settop(L, top);
    return dims;
}

/* Copies the nested list at the top of the stack to positions from `at` on; returns the next position. */
static int64_t list_copy(lua_State *L, const neap_tensor *t, int dim, int64_t at, const char *op) {
    if (!lua_istable(L, -1) || (int64_t)lua_rawlen(L, -1) != t->shape[dim])
        luaL_error(L, "%s: rows differ: expected a list of %I in dimension %d", op, (lua_Integer)t->shape[dim], dim + 1);
    for (int64_t i = 0; i < t->shape[dim]; i++) {
        if ((i & 255) == 0) rt_breathe(L);
        lua_rawgeti(L, -1, i + 1);
        if (dim + 1 < t->dims) {
            at = list_copy(L, t, dim + 1, at, op);
        } else {
            int type = lua_type(L, -1);
            if (type == LUA_TBOOLEAN) neap_tensor_put(t, at++, lua_toboolean(L, -1));
            else if (type != LUA_TNUMBER) luaL_error(L, "%s: element %I is a %s, expected a number", op, (lua_Integer)i + 1, lua_typename(L, type));
            else if (lua_isinteger(L, -1)) neap_tensor_put_int(t, at++, lua_tointeger(L, -1));
            else neap_tensor_put(t, at++, lua_tonumber(L, -1));
        }
        lua_pop(L, 1);
    }
    return at;
}

neap_tensor *tensor_from(lua_State *L, int idx, int dtype, const char *op) {
    tensor_test(L, idx); /* raises for another device's */
    return tensor_from_any(L, idx, dtype, op);
}

neap_tensor *tensor_from_any(lua_State *L, int idx, int dtype, const char *op) {
    int64_t shape[NEAP_MAX_DIMS];
    idx = lua_absindex(L, idx);
    if (lua_type(L, idx) == LUA_TNUMBER) {
        int whole = lua_isinteger(L, idx);
        neap_tensor *t = make(L, op, dtype >= 0 ? dtype : whole ? NEAP_I64 : NEAP_F64, 0, NULL);
        if (whole) neap_tensor_put_int(t, 0, lua_tointeger(L, idx));
        else neap_tensor_put(t, 0, lua_tonumber(L, idx));
        return t;
    }
    if (lua_istable(L, idx)) {
        lua_pushvalue(L, idx);
        int dims = list_shape(L, shape, op);
        neap_tensor *t = make(L, op, dtype >= 0 ? dtype : NEAP_F32, dims, shape);
        lua_insert(L, -2);
        list_copy(L, t, 0, 0, op);
        lua_pop(L, 1);
        return t;
    }
    neap_tensor *t = tensor_test_any(L, idx);
    if (!t) {
        luaL_error(L, "%s: expected a tensor, a number or a list of numbers, got %s", op, luaL_typename(L, idx));
        return NULL;
    }
    lua_pushvalue(L, idx);
    return t;
}

/* tensor(list|tensor[, opts]) */
static int tensor_call(lua_State *L) {
    lua_remove(L, 1);
    making m = make_opts(L, 2, -1);
    int chosen = lua_istable(L, 2) && lua_getfield(L, 2, "device") != LUA_TNIL; /* else it stays where it is */
    neap_tensor *from = tensor_from_any(L, 1, m.dtype, "tensor");
    if (m.dtype >= 0 && (int)from->dtype != m.dtype) {
        neap_tensor *t = tensor_slot(L);
        tensor_must(L, neap_tensor_cast(t, from, (neap_dtype)m.dtype), "tensor", from, NULL);
        tensor_filled(L, t);
        from = t;
    }
    if (chosen) tensor_move(L, from, m.device, "tensor");
    return 1;
}

/* cuda() -> {model, used, cached, free, total, matmul}, or nil and why there is none */
static int tensor_cuda(lua_State *L) {
    const neap_device *d = neap_cuda_device();
    neap_memory_use use;
    if (!d) return lua_pushnil(L), lua_pushstring(L, neap_cuda_error()), 2;
    d->memory(&use);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, d->model()), lua_setfield(L, -2, "model");
    lua_pushstring(L, d->gemm_name()), lua_setfield(L, -2, "matmul");
    lua_pushinteger(L, (lua_Integer)use.used), lua_setfield(L, -2, "used");
    lua_pushinteger(L, (lua_Integer)use.cached), lua_setfield(L, -2, "cached");
    lua_pushinteger(L, (lua_Integer)use.free), lua_setfield(L, -2, "free");
    lua_pushinteger(L, (lua_Integer)use.total), lua_setfield(L, -2, "total");
    return 1;
}

/* ---- module ---- */

static int tensor_is(lua_State *L) { return lua_pushboolean(L, tensor_test_any(L, 1) != NULL), 1; }

static const luaL_Reg functions[] = {{"zeros", tensor_zeros},
                                     {"ones", tensor_ones},
                                     {"full", tensor_full},
                                     {"rand", tensor_rand},
                                     {"randn", tensor_randn},
                                     {"arange", tensor_arange},
                                     {"linspace", tensor_linspace},
                                     {"from_string", tensor_from_string},
                                     {"is", tensor_is},
                                     {"cuda", tensor_cuda},
                                     {"live_bytes", tensor_live_bytes},
                                     {NULL, NULL}};

int luaopen_neap_tensor(lua_State *L);
int luaopen_neap_tensor(lua_State *L) {
    tensor_open_pressure(L);
    luaL_newlib(L, functions);
    int module = lua_gettop(L);
    lua_newtable(L);
    int method_table = lua_gettop(L);
    tensor_add_views(L, method_table);
    tensor_add_ops(L, method_table, module);
    tensor_add_long(L, method_table, module);
    tensor_add_files(L, module);
    lua_pushvalue(L, method_table); /* operators are methods too: + is add */
    static const char *const ops[] = {"add", "sub", "mul", "div", "pow", "unm", NULL};
    for (int i = 0; ops[i]; i++) {
        char name[16];
        snprintf(name, sizeof name, "__%s", ops[i]);
        lua_getfield(L, -1, i == 5 ? "neg" : ops[i]);
        lua_setfield(L, -3, name);
    }
    lua_settop(L, module);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, tensor_call);
    lua_setfield(L, -2, "__call");
    lua_setmetatable(L, -2);
    return 1;
}
