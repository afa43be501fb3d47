/* mod_mlp_data.c: data sets in Lua: rows of tensors, or windows over a series; batches as tensors for loops that want them. */
#include "host/api/mlp_lua.h"
#include <string.h>

neap_mlp_data *data_check(lua_State *L, int idx) { return *(neap_mlp_data **)luaL_checkudata(L, idx, DATA_META); }

neap_mlp_data *data_test(lua_State *L, int idx) {
    neap_mlp_data **u = luaL_testudata(L, idx, DATA_META);
    return u ? *u : NULL;
}

static neap_mlp_data **data_slot(lua_State *L) {
    neap_mlp_data **u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = NULL;
    luaL_setmetatable(L, DATA_META);
    return u;
}

static int data_gc(lua_State *L) {
    neap_mlp_data **u = luaL_checkudata(L, 1, DATA_META);
    neap_mlp_data_unref(*u);
    *u = NULL;
    return 0;
}

void mlp_fits(lua_State *L, const neap_mlp *m, const neap_mlp_data *d, int targets, const char *op) {
    int in = neap_mlp_data_inputs(d);
    if (in != m->net.in) luaL_error(L, "%s: the data set has %d inputs per sample, layer 1 of the model takes %d", op, in, m->net.in);
    if (targets && d->outputs == 0) luaL_error(L, "%s: the data set has no targets (y)", op);
    if (targets && d->outputs != m->net.out)
        luaL_error(L, "%s: the data set has %d targets per sample, the model's last layer (%d) gives %d", op, d->outputs, m->net.layers, m->net.out);
}

/* rows(x[, y]) */
static int core_rows(lua_State *L) {
    static const neap_tensor none;
    lua_settop(L, 2);
    neap_tensor *x = tensor_from(L, 1, -1, "rows"), *y = lua_isnil(L, 2) ? NULL : tensor_from(L, 2, -1, "rows");
    neap_tensor *xm = tensor_slot(L), *ym = tensor_slot(L);
    int64_t column[2] = {-1, 1};
    *xm = neap_tensor_ref(x);
    if (y && y->dims == 1) tensor_must(L, neap_tensor_reshape(ym, y, 2, column), "rows", y, NULL);
    else if (y) *ym = neap_tensor_ref(y);
    int rc = neap_mlp_rows(data_slot(L), xm, y ? ym : &none);
    if (rc == NEAP_ERR_SHAPE && !y) return luaL_error(L, "rows: x must be a matrix [samples x inputs]");
    tensor_must(L, rc, "rows (x, y)", x, y);
    return 1;
}

/* windows(series, target|nil, starts|nil, extra|nil, window, horizon, stride, dilation, norm, loc, inv, level_inv|nil, outputs): starts count from 1
 */
static int core_windows(lua_State *L) {
    neap_tensor none = {0}, *in[4] = {&none, &none, &none, &none};
    neap_data spec = {.window = (int)luaL_checkinteger(L, 5),
                      .horizon = (int)luaL_checkinteger(L, 6),
                      .stride = luaL_checkinteger(L, 7),
                      .dilation = luaL_checkinteger(L, 8),
                      .loc = (float)luaL_checknumber(L, 10),
                      .inv = (float)luaL_checknumber(L, 11),
                      .level = !lua_isnil(L, 12),
                      .level_inv = (float)luaL_optnumber(L, 12, 0)};
    const char *norm = luaL_checkstring(L, 9);
    lua_Integer outputs = luaL_checkinteger(L, 13);
    char why[200];
    if (outputs < 1 || outputs > 65536) return luaL_error(L, "windows: outputs is %I, it must be 1 or more", outputs);
    while (neap_norm_names[spec.norm] && strcmp(neap_norm_names[spec.norm], norm)) spec.norm++;
    if (!neap_norm_names[spec.norm]) {
        const char *near = err_nearest(norm, neap_norm_names);
        return luaL_error(L, near ? "windows: unknown norm '%s', did you mean '%s'?" : "windows: unknown norm '%s'; there are delta, affine, none",
                          norm, near);
    }
    lua_settop(L, 13);
    for (int i = 0; i < 4; i++) {
        if (i && lua_isnil(L, i + 1)) continue;
        in[i] = tensor_from(L, i + 1, i == 2 && lua_istable(L, i + 1) ? NEAP_I64 : -1, "windows");
    }
    if (in[2]->storage) { /* 1-based starts become a 0-based copy */
        neap_tensor *cast = tensor_slot(L), *starts = tensor_slot(L), *one = tensor_slot(L);
        tensor_must(L, neap_tensor_cast(cast, in[2], NEAP_I64), "windows", in[2], NULL);
        tensor_must(L, neap_tensor_new(one, NEAP_I64, 0, NULL), "windows", NULL, NULL);
        neap_tensor_put_int(one, 0, 1);
        tensor_must(L, neap_tensor_binary(starts, NEAP_OP_SUB, cast, one), "windows", in[2], NULL);
        in[2] = starts;
    }
    int rc = neap_mlp_windows(data_slot(L), &spec, (int)outputs, in[0], in[1], in[2], in[3], why, sizeof why);
    if (rc == NEAP_ERR_MEMORY) return err_code(L, rc, "windows");
    if (rc) return luaL_error(L, "windows: %s", why);
    return 1;
}

/* A network of the data set's sizes, for gathering. */
static neap_net shape_of(const neap_mlp_data *d) {
    neap_net net = {.in = neap_mlp_data_inputs(d), .out = d->outputs ? d->outputs : 1};
    net.ldx = (net.in + NEAP_LANES - 1) / NEAP_LANES * NEAP_LANES;
    return net;
}

/* Pushes x [n x in] (rows padded in memory) and y [n x out] or nil, gathered; the storage of x must hold n padded rows. */
static void push_batch(lua_State *L, const neap_mlp_data *d, const uint32_t *index, int64_t first, int n, neap_tensor *x, neap_tensor *y) {
    neap_net net = shape_of(d);
    neap_kernels_cpu()->gather(&net, &d->d, index, first, n, neap_tensor_data(x), d->outputs ? neap_tensor_data(y) : NULL);
}

static void batch_tensors(lua_State *L, const neap_mlp_data *d, int64_t n, neap_tensor **x, neap_tensor **y) {
    neap_net net = shape_of(d);
    neap_tensor *wide = tensor_slot(L);
    tensor_must(L, neap_tensor_new(wide, NEAP_F32, 2, (int64_t[]){n, net.ldx}), "batch", NULL, NULL);
    tensor_filled(L, wide);
    *x = tensor_slot(L);
    tensor_must(L, neap_tensor_slice(*x, wide, 1, 0, net.in, 1), "batch", NULL, NULL);
    lua_remove(L, -2);
    if (d->outputs) {
        *y = tensor_slot(L);
        tensor_must(L, neap_tensor_new(*y, NEAP_F32, 2, (int64_t[]){n, d->outputs}), "batch", NULL, NULL);
        tensor_filled(L, *y);
    } else {
        *y = NULL;
        lua_pushnil(L);
    }
}

/* data:rows([first[, last]]) -> x, y: samples as tensors (a copy) */
static int data_m_rows(lua_State *L) {
    neap_mlp_data *d = data_check(L, 1);
    lua_Integer first = luaL_optinteger(L, 2, 1), last = luaL_optinteger(L, 3, d->d.n);
    if (d->d.n && (first < 1 || last > d->d.n || last < first - 1))
        return luaL_error(L, "rows: %I to %I leaves 1..%I", first, last, (lua_Integer)d->d.n);
    neap_tensor *x, *y;
    if (last - first + 1 > INT32_MAX) return luaL_error(L, "rows: too many at once");
    batch_tensors(L, d, last - first + 1, &x, &y);
    push_batch(L, d, NULL, first - 1, (int)(last - first + 1), x, y);
    return 2;
}

/* ---- batches ---- */

typedef struct batches {
    neap_perm perm;
    int64_t at;
    int batch, shuffle;
} batches;

/* The iterator: upvalues data, state, x, y of a full batch, index memory. The two tensors are the same in every round. */
static int next_batch(lua_State *L) {
    neap_mlp_data *d = *(neap_mlp_data **)lua_touserdata(L, lua_upvalueindex(1));
    batches *b = lua_touserdata(L, lua_upvalueindex(2));
    neap_tensor *x = lua_touserdata(L, lua_upvalueindex(3)), *y = lua_touserdata(L, lua_upvalueindex(4));
    uint32_t *index = lua_touserdata(L, lua_upvalueindex(5));
    if (b->at >= d->d.n) return 0;
    if (!x->storage || (d->outputs && !y->storage)) return luaL_error(L, "batches: the batch's tensors were freed");
    int n = d->d.n - b->at < b->batch ? (int)(d->d.n - b->at) : b->batch;
    if (b->shuffle) neap_kernels_cpu()->shuffle(&b->perm, (uint32_t)b->at, n, index);
    push_batch(L, d, b->shuffle ? index : NULL, b->at, n, x, y);
    b->at += n;
    if (n == b->batch) {
        lua_pushvalue(L, lua_upvalueindex(3));
        lua_pushvalue(L, lua_upvalueindex(4));
    } else {
        tensor_must(L, neap_tensor_slice(tensor_slot(L), x, 0, 0, n, 1), "batches", NULL, NULL);
        if (d->outputs) tensor_must(L, neap_tensor_slice(tensor_slot(L), y, 0, 0, n, 1), "batches", NULL, NULL);
        else lua_pushnil(L);
    }
    return 2;
}

/* _batches(batch, shuffle, seed, epoch) -> iterator of x, y */
static int data_m_batches(lua_State *L) {
    neap_mlp_data *d = data_check(L, 1);
    lua_Integer batch = luaL_checkinteger(L, 2), seed = luaL_checkinteger(L, 4), epoch = luaL_checkinteger(L, 5);
    int shuffle = lua_toboolean(L, 3);
    neap_tensor *x, *y;
    if (batch < 1 || batch > (1 << 24)) return luaL_error(L, "batches: batch is %I, it must be 1 or more", batch);
    if (d->d.n >= UINT32_MAX) return luaL_error(L, "batches: too many samples");
    if (batch > d->d.n) batch = d->d.n ? d->d.n : 1;
    lua_settop(L, 1);
    batches *b = lua_newuserdatauv(L, sizeof *b, 0);
    b->at = 0, b->batch = (int)batch, b->shuffle = shuffle;
    neap_perm_init(&b->perm, (uint32_t)(d->d.n ? d->d.n : 1), (uint64_t)seed, (uint64_t)epoch);
    batch_tensors(L, d, batch, &x, &y);
    lua_newuserdatauv(L, (size_t)batch * sizeof(uint32_t), 0);
    lua_pushcclosure(L, next_batch, 5);
    return 1;
}

static int data_mt_len(lua_State *L) { return lua_pushinteger(L, data_check(L, 1)->d.n), 1; }
static int data_m_inputs(lua_State *L) { return lua_pushinteger(L, neap_mlp_data_inputs(data_check(L, 1))), 1; }
static int data_m_outputs(lua_State *L) { return lua_pushinteger(L, data_check(L, 1)->outputs), 1; }

static int data_mt_tostring(lua_State *L) {
    neap_mlp_data *d = data_check(L, 1);
    lua_pushfstring(L, "data set: %I %s, %d inputs, %d targets each", (lua_Integer)d->d.n, d->d.x ? "rows" : "windows", neap_mlp_data_inputs(d),
                    d->outputs);
    return 1;
}

void mlp_add_data(lua_State *L, int module, int data_methods) {
    static const luaL_Reg functions[] = {{"rows", core_rows}, {"windows", core_windows}, {NULL, NULL}};
    static const luaL_Reg methods[] = {
        {"rows", data_m_rows}, {"_batches", data_m_batches}, {"inputs", data_m_inputs}, {"outputs", data_m_outputs}, {NULL, NULL}};
    static const luaL_Reg metamethods[] = {{"__gc", data_gc}, {"__len", data_mt_len}, {"__tostring", data_mt_tostring}, {NULL, NULL}};
    luaL_newmetatable(L, DATA_META);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushvalue(L, data_methods);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, module, "data"); /* the method table: lua/neap/mlp.lua adds to it */
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, module);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 2);
}
