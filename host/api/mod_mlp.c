/* mod_mlp.c: neap.mlp.core: models in Lua: making, single steps, files. Data sets are in mod_mlp_data.c, long jobs in mod_mlp_job.c. */
#include "host/api/mlp_lua.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

neap_mlp *mlp_check(lua_State *L, int idx) { return *(neap_mlp **)luaL_checkudata(L, idx, MLP_META); }

neap_mlp *mlp_free_check(lua_State *L, int idx, const char *op) {
    neap_mlp *m = mlp_check(L, idx);
    if (m->busy) luaL_error(L, "%s: this model is being trained or scored by another task; wait for that first, or work on a clone", op);
    return m;
}

typedef struct mlp_ud {
    neap_mlp *m;  /* first: mlp_check reads it alone */
    size_t owned; /* bytes accounted to the state */
} mlp_ud;

/* Pushes an empty model and returns its handle: fill it, then mlp_filled. */
static mlp_ud *mlp_slot(lua_State *L) {
    mlp_ud *u = lua_newuserdatauv(L, sizeof *u, 0);
    u->m = NULL, u->owned = 0;
    luaL_setmetatable(L, MLP_META);
    return u;
}

static void mlp_filled(lua_State *L, mlp_ud *u) {
    u->owned = sizeof *u->m + 3 * u->m->net.params * sizeof(float);
    tensor_account(L, u->owned);
}

static int mlp_gc(lua_State *L) {
    mlp_ud *u = luaL_checkudata(L, 1, MLP_META);
    tensor_discount(L, u->owned);
    neap_mlp_unref(u->m);
    u->m = NULL, u->owned = 0;
    return 0;
}

/* The place of the string at the top of the stack in `names`; pops it; raises with the nearest. */
static int name_in(lua_State *L, const char *const *names, const char *what) {
    const char *name = luaL_checkstring(L, -1);
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], name)) return lua_pop(L, 1), i;
    const char *near = err_nearest(name, names);
    return luaL_error(L, near ? "unknown %s '%s', did you mean '%s'?" : "unknown %s '%s'", what, name, near);
}

static void number_field(lua_State *L, int idx, const char *name, double lo, double hi, float *to) {
    if (lua_getfield(L, idx, name) != LUA_TNIL) {
        int is = 0;
        double v = lua_tonumberx(L, -1, &is);
        if (!is) luaL_error(L, "%s must be a number, got %s", name, luaL_typename(L, -1));
        if (!(v >= lo && v <= hi)) luaL_error(L, "%s is %f, it must be %f to %f", name, v, lo, hi);
        *to = (float)v;
    }
    lua_pop(L, 1);
}

void mlp_read_hyper(lua_State *L, int idx, neap_hyper *h) {
    if (lua_isnoneornil(L, idx)) return;
    luaL_checktype(L, idx, LUA_TTABLE);
    if (lua_getfield(L, idx, "optimizer") != LUA_TNIL) h->opt = name_in(L, neap_opt_names, "optimizer");
    else lua_pop(L, 1);
    if (lua_getfield(L, idx, "loss") != LUA_TNIL) h->loss = name_in(L, neap_loss_names, "loss");
    else lua_pop(L, 1);
    number_field(L, idx, "lr", 0, 1e6, &h->lr);
    number_field(L, idx, "beta1", 0, 0.999999, &h->beta1);
    number_field(L, idx, "beta2", 0, 0.9999999, &h->beta2);
    number_field(L, idx, "eps", 0, 1, &h->eps);
    number_field(L, idx, "momentum", 0, 1, &h->momentum);
    number_field(L, idx, "weight_decay", 0, 1e6, &h->decay);
    number_field(L, idx, "clip", 0, 1e30, &h->clip);
    number_field(L, idx, "huber", 1e-30, 1e30, &h->huber);
}

/* new(sizes, act, leak, seed, hyper) */
static int core_new(lua_State *L) {
    int sizes[NEAP_MAX_LAYERS + 1], n;
    luaL_checktype(L, 1, LUA_TTABLE);
    n = (int)lua_rawlen(L, 1);
    if (n < 2 || n > NEAP_MAX_LAYERS + 1) return luaL_error(L, "mlp: a network has 1 to %d layers", NEAP_MAX_LAYERS);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        lua_Integer size = luaL_checkinteger(L, -1);
        if (size < 1 || size > 65536) return luaL_error(L, "mlp: a layer of %I, it must be 1 to 65536", size);
        sizes[i] = (int)size;
        lua_pop(L, 1);
    }
    lua_pushvalue(L, 2);
    int act = name_in(L, neap_act_names, "activation");
    float leak = (float)luaL_checknumber(L, 3);
    lua_Integer seed = luaL_checkinteger(L, 4);
    neap_hyper h = neap_hyper_default();
    mlp_read_hyper(L, 5, &h);
    mlp_ud *u = mlp_slot(L);
    int rc;
    TENSOR_RETRY(L, rc, neap_mlp_new(&u->m, sizes, n - 1, act, leak, (uint64_t)seed));
    if (rc) return err_code(L, rc, "mlp: cannot make the network");
    u->m->hyper = h;
    mlp_filled(L, u);
    return 1;
}

/* ---- steps and small predictions ---- */

/* Rows of float32 for the network: [n x want], or a vector of `want` as one row. Pushes what keeps the memory. */
static const float *rows(lua_State *L, int idx, int want, const char *op, const char *what, int layer, int64_t *n, long *ld) {
    char shape[160];
    neap_tensor *given = tensor_from(L, idx, -1, op), *t = given;
    int vector = t->dims == 1 && (t->shape[0] == want || want == 1);
    if (t->dims != 2 && !vector)
        luaL_error(L, "%s: %s has shape %s, expected [n x %d]", op, what, neap_tensor_shape_text(t, shape, sizeof shape), want);
    if (t->dims == 2 && t->shape[1] != want)
        luaL_error(L, "%s: %s %s does not fit layer %d, which has %d %s (%I vs %d)", op, what, neap_tensor_shape_text(t, shape, sizeof shape), layer,
                   want, layer == 1 ? "inputs" : "outputs", (lua_Integer)t->shape[1], want);
    if (t->dtype != NEAP_F32 || (t->shape[t->dims - 1] > 1 && t->stride[t->dims - 1] != 1)) {
        t = tensor_slot(L);
        tensor_must(L, neap_tensor_cast(t, given, NEAP_F32), op, given, NULL);
        tensor_filled(L, t);
    }
    int column = vector && !(t->shape[0] == want && want != 1); /* a vector of n targets for one output */
    *n = t->dims == 2 || column ? t->shape[0] : 1;
    *ld = t->dims == 2 ? (long)t->stride[0] : column ? (long)t->stride[0] : want;
    return neap_tensor_data(t);
}

/* model:step(x, y[, options]) -> mean loss before the step */
static int mlp_m_step(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "step");
    neap_hyper h = m->hyper;
    mlp_read_hyper(L, 4, &h);
    int64_t n, ny;
    long ldx, ldy;
    double loss;
    lua_settop(L, 3);
    const float *x = rows(L, 2, m->net.in, "step", "x", 1, &n, &ldx), *y = rows(L, 3, m->net.out, "step", "y", m->net.layers, &ny, &ldy);
    if (n != ny) return luaL_error(L, "step: x has %I rows, y %I", (lua_Integer)n, (lua_Integer)ny);
    if (n < 1) return luaL_error(L, "step: the batch is empty");
    if (ldy != m->net.out) { /* y must be packed */
        neap_tensor *packed = tensor_slot(L);
        tensor_must(L, neap_tensor_clone(packed, tensor_check(L, 3)), "step", NULL, NULL);
        y = neap_tensor_data(packed);
    }
    int rc;
    TENSOR_RETRY(L, rc, neap_mlp_step(m, &h, x, ldx, y, (int)n, &loss));
    if (rc) return err_code(L, rc, "step: %d rows", (int)n);
    lua_pushnumber(L, loss);
    return 1;
}

/* model:forward(x) -> y, on this thread: what predict uses for small inputs */
static int mlp_m_forward(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "predict");
    neap_tensor *given = tensor_test(L, 2);
    int one = given ? given->dims == 1 : 1;
    int64_t n;
    long ldx;
    lua_settop(L, 2);
    if (!given && lua_istable(L, 2) && lua_rawgeti(L, 2, 1) == LUA_TTABLE) one = 0;
    lua_settop(L, 2);
    const float *x = rows(L, 2, m->net.in, "predict", "x", 1, &n, &ldx);
    one = one && n == 1;
    neap_tensor *out = tensor_slot(L);
    int64_t shape[2] = {n, m->net.out};
    tensor_must(L, neap_tensor_new(out, NEAP_F32, one ? 1 : 2, one ? shape + 1 : shape), "predict", NULL, NULL);
    tensor_filled(L, out);
    int rc = neap_mlp_predict(m, x, ldx, n, neap_tensor_data(out));
    return rc ? err_code(L, rc, "predict") : 1;
}

/* ---- what a model says about itself ---- */

static int mlp_m_info(lua_State *L) {
    neap_mlp *m = mlp_check(L, 1);
    int64_t count = 0;
    lua_createtable(L, 0, 12);
    lua_createtable(L, m->net.layers + 1, 0);
    lua_pushinteger(L, m->net.in), lua_rawseti(L, -2, 1);
    for (int i = 0; i < m->net.layers; i++) {
        lua_pushinteger(L, m->net.layer[i].out), lua_rawseti(L, -2, i + 2);
        count += (int64_t)(m->net.layer[i].in + 1) * m->net.layer[i].out;
    }
    lua_setfield(L, -2, "sizes");
    lua_pushinteger(L, m->net.in), lua_setfield(L, -2, "input");
    lua_pushinteger(L, m->net.out), lua_setfield(L, -2, "output");
    lua_pushinteger(L, count), lua_setfield(L, -2, "parameters");
    lua_pushinteger(L, m->state.t), lua_setfield(L, -2, "steps");
    lua_pushinteger(L, m->epochs), lua_setfield(L, -2, "epochs");
    lua_pushinteger(L, (lua_Integer)m->seed), lua_setfield(L, -2, "seed");
    lua_pushstring(L, neap_act_names[m->act]), lua_setfield(L, -2, "act");
    lua_pushstring(L, neap_opt_names[m->hyper.opt]), lua_setfield(L, -2, "optimizer");
    lua_pushstring(L, neap_loss_names[m->hyper.loss]), lua_setfield(L, -2, "loss");
    lua_pushnumber(L, (double)m->hyper.lr), lua_setfield(L, -2, "lr");
    lua_pushstring(L, m->kernels->name), lua_setfield(L, -2, "isa");
    return 1;
}

static int mlp_m_hash(lua_State *L) {
    char hex[65];
    neap_mlp_hash(mlp_check(L, 1), hex);
    lua_pushstring(L, hex);
    return 1;
}

/* model:configure(options): optimiser and loss from now on */
static int mlp_m_configure(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "configure");
    neap_hyper h = m->hyper;
    mlp_read_hyper(L, 2, &h);
    m->hyper = h;
    lua_settop(L, 1);
    return 1;
}

static int mlp_m_clone(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "clone");
    mlp_ud *u = mlp_slot(L);
    int rc;
    TENSOR_RETRY(L, rc, neap_mlp_clone(&u->m, m));
    if (rc) return err_code(L, rc, "clone");
    mlp_filled(L, u);
    return 1;
}

/* model:layer(i[, weight, bias]) -> weight [out x in], bias [out] (copies, as torch's Linear); given tensors are taken over */
static int mlp_m_layer(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "layer");
    lua_Integer i = luaL_checkinteger(L, 2);
    if (i < 1 || i > m->net.layers) return luaL_error(L, "layer: %I does not exist, the model has %d (they count from 1)", i, m->net.layers);
    const neap_layer *l = &m->net.layer[i - 1];
    if (!lua_isnoneornil(L, 3)) {
        neap_tensor *w = tensor_from(L, 3, -1, "layer"), *b = tensor_from(L, 4, -1, "layer"), *fw = tensor_slot(L), *fb = tensor_slot(L);
        char sw[160], sb[160];
        if (w->dims != 2 || w->shape[0] != l->out || w->shape[1] != l->in || b->dims != 1 || b->shape[0] != l->out)
            return luaL_error(L, "layer %d: weight %s and bias %s, expected [%d x %d] and [%d]", (int)i, neap_tensor_shape_text(w, sw, sizeof sw),
                              neap_tensor_shape_text(b, sb, sizeof sb), l->out, l->in, l->out);
        tensor_must(L, neap_tensor_cast(fw, w, NEAP_F32), "layer", w, NULL);
        tensor_must(L, neap_tensor_cast(fb, b, NEAP_F32), "layer", b, NULL);
        neap_net_import(&m->net, m->state.w, (int)i - 1, neap_tensor_data(fw), neap_tensor_data(fb));
    }
    neap_tensor *weight = tensor_slot(L), *bias = tensor_slot(L);
    tensor_must(L, neap_tensor_new(weight, NEAP_F32, 2, (int64_t[]){l->out, l->in}), "layer", NULL, NULL);
    tensor_must(L, neap_tensor_new(bias, NEAP_F32, 1, (int64_t[]){l->out}), "layer", NULL, NULL);
    neap_net_export(&m->net, m->state.w, (int)i - 1, neap_tensor_data(weight), neap_tensor_data(bias));
    return 2;
}

/* ---- files ---- */

/* model:save(path[, metadata[, options{optimizer=true}]]) */
static int mlp_m_save(lua_State *L) {
    static const char *const options[] = {"optimizer", NULL};
    neap_mlp *m = mlp_free_check(L, 1, "save");
    const char *path = luaL_checkstring(L, 2);
    lua_settop(L, 4);
    options_check(L, 4, options);
    int optimizer = 0;
    if (lua_istable(L, 4)) lua_getfield(L, 4, "optimizer"), optimizer = lua_toboolean(L, -1);
    neap_safe *s = tensor_safe_new(L);
    tensor_safe_meta(L, s, 3);
    int rc = neap_mlp_to_safe(m, s, optimizer);
    if (!rc) rc = neap_safe_write(s, path);
    return rc ? tensor_safe_failed(L, rc, s, "save", path) : 0;
}

/* load(path) -> model, metadata */
static int core_load(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    neap_safe *s = tensor_safe_new(L);
    int rc = neap_safe_read(s, path);
    if (rc) return tensor_safe_failed(L, rc, s, "mlp.load", path);
    mlp_ud *u = mlp_slot(L);
    rc = neap_mlp_from_safe(&u->m, s);
    if (rc) return tensor_safe_failed(L, rc, s, "mlp.load", path);
    mlp_filled(L, u);
    tensor_safe_push_meta(L, s);
    return 2;
}

static int mlp_mt_tostring(lua_State *L) {
    neap_mlp *m = mlp_check(L, 1);
    luaL_Buffer b;
    char text[64];
    luaL_buffinit(L, &b);
    snprintf(text, sizeof text, "mlp %d", m->net.in);
    luaL_addstring(&b, text);
    for (int i = 0; i < m->net.layers; i++) {
        snprintf(text, sizeof text, " -> %d", m->net.layer[i].out);
        luaL_addstring(&b, text);
    }
    snprintf(text, sizeof text, ", %s, %s, %lld steps", neap_act_names[m->act], neap_opt_names[m->hyper.opt], (long long)m->state.t);
    luaL_addstring(&b, text);
    luaL_pushresult(&b);
    return 1;
}

static int core_isa(lua_State *L) { return lua_pushstring(L, neap_kernels_cpu()->name), 1; }

/* peak(seconds) -> GFLOP/s of one core */
static int core_peak(lua_State *L) { return lua_pushnumber(L, neap_kernels_peak(neap_kernels_cpu(), luaL_checknumber(L, 1))), 1; }

/* one_window(model, seconds) -> seconds per window, scored one by one in C */
static int core_one_window(lua_State *L) {
    neap_mlp *m = mlp_free_check(L, 1, "one_window");
    double seconds = luaL_checknumber(L, 2), spent = 0;
    float *out = lua_newuserdatauv(L, (size_t)(m->net.out + m->net.ldx) * sizeof *out, 0), *x = out + m->net.out;
    int64_t n = 0;
    for (long i = 0; i < m->net.ldx; i++) x[i] = i < m->net.in ? 0.1f * (float)i : 0.0f;
    while (spent < seconds) {
        struct timespec a, b;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        for (int i = 0; i < 1000; i++, n++) {
            int rc = neap_mlp_predict(m, x, m->net.ldx, 1, out);
            if (rc) return err_code(L, rc, "one_window");
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        spent += (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    }
    lua_pushnumber(L, spent / (double)n);
    return 1;
}

/* matmul(a, b, threads) */
static int core_matmul(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *b = tensor_check_any(L, 2);
    int threads = (int)luaL_checkinteger(L, 3);
    neap_tensor *out = tensor_slot(L);
    tensor_must(L, neap_tensor_matmul(out, a, b, threads), "matmul", a, b);
    tensor_filled(L, out);
    return 1;
}

int luaopen_neap_mlp_core(lua_State *L);
int luaopen_neap_mlp_core(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"new", core_new},       {"load", core_load}, {"isa", core_isa}, {"peak", core_peak}, {"one_window", core_one_window},
        {"matmul", core_matmul}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"step", mlp_m_step},   {"forward", mlp_m_forward},     {"info", mlp_m_info},
                                       {"hash", mlp_m_hash},   {"configure", mlp_m_configure}, {"clone", mlp_m_clone},
                                       {"layer", mlp_m_layer}, {"save", mlp_m_save},           {NULL, NULL}};
    static const luaL_Reg metamethods[] = {{"__gc", mlp_gc}, {"__tostring", mlp_mt_tostring}, {NULL, NULL}};
    lua_getglobal(L, "require"); /* tensors' metatable must be there */
    lua_pushliteral(L, "neap.tensor");
    lua_call(L, 1, 0);
    luaL_newlib(L, functions);
    int module = lua_gettop(L);
    luaL_newmetatable(L, MLP_META);
    luaL_setfuncs(L, metamethods, 0);
    luaL_newlib(L, methods);
    mlp_add_jobs(L, module, lua_gettop(L));
    lua_pushvalue(L, -1);
    lua_setfield(L, module, "model"); /* the method table: lua/neap/mlp.lua adds to it */
    lua_setfield(L, -2, "__index");
    lua_settop(L, module);
    lua_newtable(L);
    mlp_add_data(L, module, lua_gettop(L));
    lua_settop(L, module);
    return 1;
}
