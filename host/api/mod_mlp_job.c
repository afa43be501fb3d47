/* mod_mlp_job.c: training and scoring of whole data sets, one model or thousands in a call. Small jobs run at once; long ones run on a compute thread
   (host/compute.h) and are awaited, so the loop keeps serving and Ctrl-C or a cancelled task ends them between two batches.
   A job is owned by a guard userdata on the caller's stack and, while it runs, by the compute pool. */
#include "host/api/mlp_lua.h"
#include "host/api/compute_lua.h"
#include "host/cuda.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JOB_META    "neap.mlp.job"
#define INLINE_FLOP 5e7 /* half a millisecond of a fast core: below, starting a thread costs more than it frees */

typedef struct item {
    neap_mlp *model;
    neap_mlp_data *data, *val;
    neap_hyper hyper;
    neap_tensor out;
    double loss, *curve; /* training: [2 * epochs], losses of train, then of val */
    float *best;
    int locked; /* we set the model's busy mark */
} item;

typedef struct mlp_job {
    neap_compute_job c;
    int refs, rc, threads, training, want_loss, running;
    const neap_kernels *kernels;
    rt_wait *wait;
    size_t n;
    item *items;
    neap_train_job *train;
    neap_predict_job *predict;
} mlp_job;

/* ---- life ---- */

static void job_unref(mlp_job *j) {
    if (--j->refs) return;
    for (size_t i = 0; j->items && i < j->n; i++) {
        item *it = &j->items[i];
        if (it->locked) it->model->busy = 0;
        neap_mlp_unref(it->model);
        neap_mlp_data_unref(it->data), neap_mlp_data_unref(it->val);
        neap_tensor_unref(&it->out);
        free(it->curve), free(it->best);
    }
    free(j->items), free(j->train), free(j->predict);
    free(j);
}

static int guard_gc(lua_State *L) {
    mlp_job **u = lua_touserdata(L, 1);
    if (*u) job_unref(*u);
    *u = NULL;
    return 0;
}

/* Pushes the guard of a new job with n empty items. */
static mlp_job *job_new(lua_State *L, size_t n, int training) {
    mlp_job **u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = NULL;
    if (luaL_newmetatable(L, JOB_META)) {
        lua_pushcfunction(L, guard_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    mlp_job *j = calloc(1, sizeof *j);
    if (!j) {
        err_code(L, NEAP_ERR_MEMORY, "mlp: job");
        return NULL;
    }
    *u = j;
    j->refs = 1;
    j->n = n;
    j->training = training;
    j->items = calloc(n, sizeof *j->items);
    if (training) j->train = calloc(n, sizeof *j->train);
    else j->predict = calloc(n, sizeof *j->predict);
    if (!j->items || (!j->train && !j->predict)) {
        j->n = 0;
        err_code(L, NEAP_ERR_MEMORY, "mlp: job of %d models", (int)n);
    }
    return j;
}

/* ---- running ---- */

static int poll_cancel(void *ud) { return atomic_load_explicit(&((mlp_job *)ud)->c.cancel, memory_order_relaxed); }

static void job_run(neap_compute_job *c) {
    mlp_job *j = (mlp_job *)c;
    neap_progress p = {poll_cancel, j};
    if (!j->training) {
        j->rc = j->kernels->predict(j->kernels, j->predict, j->n, j->threads, &p);
        return;
    }
    j->rc = j->kernels->train(j->kernels, j->train, j->n, j->threads, &p);
    for (size_t i = 0; i < j->n; i++) {
        neap_train_job *t = &j->train[i];
        if (t->best && t->best_epoch > 0) memcpy(t->state->w, t->best, t->net->params * sizeof(float));
        j->items[i].model->epochs += t->epochs_done;
    }
}

static void job_over(neap_compute_job *c) {
    mlp_job *j = (mlp_job *)c;
    j->running = 0;
    for (size_t i = 0; i < j->n; i++) {
        if (j->items[i].locked) j->items[i].model->busy = 0;
        j->items[i].locked = 0;
    }
    wait_done(j->wait, 0, NULL, NULL);
    job_unref(j);
}

static void wait_left(rt_wait *w, void *op) { neap_compute_cancel(op); }

/* ---- results ---- */

static void push_list(lua_State *L, const double *v, int n) {
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) lua_pushnumber(L, v[i]), lua_rawseti(L, -2, i + 1);
}

static int push_results(lua_State *L, mlp_job *j) {
    lua_createtable(L, (int)j->n, 0);
    for (size_t i = 0; i < j->n; i++) {
        item *it = &j->items[i];
        if (j->training) {
            const neap_train_job *t = &j->train[i];
            lua_createtable(L, 0, 6);
            push_list(L, it->curve, t->epochs_done), lua_setfield(L, -2, "train");
            if (t->val) push_list(L, it->curve + t->epochs, t->epochs_done), lua_setfield(L, -2, "val");
            lua_pushinteger(L, t->epochs_done), lua_setfield(L, -2, "epochs");
            lua_pushinteger(L, t->best_epoch), lua_setfield(L, -2, "best");
            lua_pushstring(L, strcmp(j->kernels->name, "cuda") ? "cpu" : "cuda"), lua_setfield(L, -2, "device");
            if (t->status == NEAP_ERR_INVALID) lua_pushliteral(L, "the training set is empty"), lua_setfield(L, -2, "failed");
        } else if (j->want_loss) {
            lua_pushnumber(L, it->loss);
        } else {
            neap_tensor *t = tensor_slot(L);
            *t = it->out;
            it->out.storage = NULL;
            tensor_filled(L, t);
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int finish(lua_State *L, mlp_job *j) {
    if (j->rc == NEAP_ERR_CANCELLED || j->rc == NEAP_ERR_MEMORY || j->rc == NEAP_ERR_UNSUPPORTED || j->rc == NEAP_ERR_IO)
        return err_code(L, j->rc, "%s%s%s", j->training ? "training" : "scoring",
                        strcmp(j->kernels->name, "cuda") ? "" : " on cuda: ", strcmp(j->kernels->name, "cuda") ? "" : neap_cuda_error());
    return push_results(L, j);
}

static int job_continue(lua_State *L, int status, lua_KContext ctx) {
    mlp_job **u = luaL_checkudata(L, 1, JOB_META);
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    return finish(L, *u);
}

/* The guard is at stack index 1, alone. Runs the job here or on a compute thread. */
static int job_start(lua_State *L, mlp_job *j, double flop) {
    for (size_t i = 0; i < j->n; i++) {
        item *it = &j->items[i];
        if (it->model->busy && j->training)
            return luaL_error(L, "training: model %d is in use by another task, or twice in this call; wait for that first, or work on a clone",
                              (int)i + 1);
        if (it->model->busy && !it->locked) { /* the same model may score several data sets in one call */
            int ours = 0;
            for (size_t k = 0; k < i && !ours; k++) ours = j->items[k].model == it->model && j->items[k].locked;
            if (!ours) return luaL_error(L, "scoring: this model is being trained by another task; wait for that first, or work on a clone");
            continue;
        }
        it->locked = it->model->busy = 1;
    }
    if (j->n == 1) { /* a model's own scratch: no memory to fetch for every short call */
        int batch = j->training && j->train->batch > NEAP_CHUNK ? j->train->batch : NEAP_CHUNK;
        if (neap_mlp_room(j->items->model, batch)) return err_code(L, NEAP_ERR_MEMORY, "mlp: scratch for %d samples", batch);
        if (j->training) j->train->work = &j->items->model->work;
        else j->predict->work = &j->items->model->work;
    }
    double limit = strcmp(j->kernels->name, "scalar") ? INLINE_FLOP : INLINE_FLOP / 100;
    if (flop < limit && strcmp(j->kernels->name, "cuda")) {
        job_run(&j->c);
        for (size_t i = 0; i < j->n; i++) {
            if (j->items[i].locked) j->items[i].model->busy = 0;
            j->items[i].locked = 0;
        }
        return finish(L, j);
    }
    rt_wait *w = wait_new(L, j->training ? "mlp training" : "mlp scoring", -1);
    j->c.run = job_run;
    j->c.done = job_over;
    j->wait = wait_ref(w);
    j->refs++;
    int rc = compute_submit(L, &j->c);
    if (rc) {
        wait_unref(w);
        j->refs--;
        return err_code(L, rc, "mlp: cannot start a compute thread");
    }
    w->op = &j->c;
    w->cancel = wait_left;
    return wait_park(L, w, job_continue);
}

/* ---- reading the list of jobs at 1 ---- */

static lua_Integer int_field(lua_State *L, const char *name, lua_Integer otherwise, lua_Integer lo, lua_Integer hi) {
    lua_Integer v = otherwise;
    int whole = 1;
    if (lua_getfield(L, -1, name) != LUA_TNIL) v = lua_tointegerx(L, -1, &whole);
    if (!whole) luaL_error(L, "%s must be a whole number, got %s", name, luaL_tolstring(L, -1, NULL));
    if (v < lo || v > hi) luaL_error(L, "%s is %I, it must be %I to %I", name, v, lo, hi);
    lua_pop(L, 1);
    return v;
}

/* What errors call item i of n: "training", in a fleet "training model 3". */
static void item_name(char *op, size_t size, const char *verb, size_t i, size_t n) {
    if (n > 1) snprintf(op, size, "%s model %d", verb, (int)i + 1);
    else snprintf(op, size, "%s", verb);
}

/* model and data of the table at the top into *it */
static void read_item(lua_State *L, item *it, int training, const char *op) {
    lua_getfield(L, -1, "model");
    it->model = neap_mlp_ref(mlp_check(L, -1));
    lua_getfield(L, -2, "data");
    it->data = neap_mlp_data_ref(data_check(L, -1));
    lua_pop(L, 2);
    it->hyper = it->model->hyper;
    mlp_read_hyper(L, -1, &it->hyper);
    mlp_fits(L, it->model, it->data, training, op);
}

static const neap_kernels *device_kernels(lua_State *L, int idx, double flop, size_t models) {
    const char *device = luaL_optstring(L, idx, "cpu");
    if (!strcmp(device, "cpu")) return neap_kernels_cpu();
    if (!strcmp(device, "auto")) {
        const neap_kernels *k = neap_cuda_worth(flop, models) ? neap_cuda_kernels() : NULL;
        return k ? k : neap_kernels_cpu();
    }
    if (strcmp(device, "cuda")) luaL_error(L, "unknown device '%s'; there are cpu, cuda, auto", device);
    const neap_kernels *k = neap_cuda_kernels();
    if (!k) err_code(L, NEAP_ERR_UNSUPPORTED, "device 'cuda': %s", neap_cuda_error());
    return k;
}

static void read_device(lua_State *L, mlp_job *j, double flop) {
    j->threads = lua_isnoneornil(L, 2) ? compute_cores() : (int)luaL_checkinteger(L, 2);
    if (j->threads < 1 || j->threads > 64) luaL_error(L, "threads is %d, it must be 1 to 64", j->threads);
    j->kernels = device_kernels(L, 3, flop, j->n);
}

/* train(list[, threads[, device]]) -> list of {train = losses, val = losses, epochs =, best =} */
static int core_train(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t n = lua_rawlen(L, 1);
    double flop = 0;
    char op[64];
    lua_settop(L, 3);
    if (n == 0) return lua_newtable(L), 1;
    mlp_job *j = job_new(L, n, 1);
    for (size_t i = 0; i < n; i++) {
        item *it = &j->items[i];
        neap_train_job *t = &j->train[i];
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        item_name(op, sizeof op, "training", i, n);
        read_item(L, it, 1, op);
        if (lua_getfield(L, -1, "val") != LUA_TNIL) {
            it->val = neap_mlp_data_ref(data_check(L, -1));
            item_name(op, sizeof op, "validation", i, n);
            mlp_fits(L, it->model, it->val, 1, op);
        }
        lua_pop(L, 1);
        t->net = &it->model->net, t->hyper = &it->hyper, t->state = &it->model->state;
        t->train = &it->data->d, t->val = it->val ? &it->val->d : NULL;
        t->batch = (int)int_field(L, "batch", 64, 1, 1 << 24);
        t->epochs = (int)int_field(L, "epochs", 1, 0, 1 << 24);
        t->patience = (int)int_field(L, "patience", 0, 0, 1 << 24);
        t->epoch0 = int_field(L, "epoch", it->model->epochs, 0, INT64_MAX);
        t->seed = (uint64_t)int_field(L, "seed", (lua_Integer)it->model->seed, INT64_MIN, INT64_MAX);
        lua_getfield(L, -1, "shuffle");
        t->shuffle = lua_isnil(L, -1) || lua_toboolean(L, -1);
        lua_getfield(L, -2, "keep_best");
        int keep = lua_toboolean(L, -1);
        lua_pop(L, 3);
        if (it->data->d.n < t->batch) t->batch = it->data->d.n ? (int)it->data->d.n : 1;
        it->curve = calloc((size_t)t->epochs * 2 + 1, sizeof *it->curve);
        if (keep && t->val) it->best = calloc(t->net->params, sizeof(float));
        if (!it->curve || (keep && t->val && !it->best)) return err_code(L, NEAP_ERR_MEMORY, "training");
        t->train_loss = it->curve, t->val_loss = it->curve + t->epochs, t->best = it->best;
        flop += (double)(it->data->d.n) * t->epochs * (double)t->net->params * 6;
    }
    read_device(L, j, flop);
    lua_replace(L, 1);
    lua_settop(L, 1);
    return job_start(L, j, flop);
}

/* predict(list[, threads[, device[, loss]]]) -> list of tensors [n x out], or with `loss` of mean losses */
static int core_predict(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t n = lua_rawlen(L, 1);
    double flop = 0;
    lua_settop(L, 4);
    if (n == 0) return lua_newtable(L), 1;
    mlp_job *j = job_new(L, n, 0);
    j->want_loss = lua_toboolean(L, 4);
    for (size_t i = 0; i < n; i++) {
        item *it = &j->items[i];
        neap_predict_job *p = &j->predict[i];
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        read_item(L, it, j->want_loss, "predict");
        lua_pop(L, 1);
        int rc = j->want_loss ? 0 : neap_tensor_new(&it->out, NEAP_F32, 2, (int64_t[]){it->data->d.n, it->model->net.out});
        if (rc) return err_code(L, rc, "predict: output of %I samples", (lua_Integer)it->data->d.n);
        p->net = &it->model->net, p->w = it->model->state.w, p->data = &it->data->d, p->hyper = &it->hyper;
        if (j->want_loss) p->loss = &it->loss;
        else p->out = neap_tensor_data(&it->out);
        flop += (double)it->data->d.n * (double)p->net->params * 2;
    }
    read_device(L, j, flop);
    lua_replace(L, 1);
    lua_settop(L, 1);
    return job_start(L, j, flop);
}

static int core_threads(lua_State *L) { return lua_pushinteger(L, compute_cores()), 1; }

/* cuda() -> true, or false and why not */
static int core_cuda(lua_State *L) {
    const neap_kernels *k = neap_cuda_kernels();
    lua_pushboolean(L, k != NULL);
    if (k) return 1;
    lua_pushstring(L, neap_cuda_error());
    return 2;
}

/* worth(flop, models): what device = "auto" decides */
static int core_worth(lua_State *L) { return lua_pushboolean(L, neap_cuda_worth(luaL_checknumber(L, 1), (size_t)luaL_checkinteger(L, 2))), 1; }

void mlp_add_jobs(lua_State *L, int module, int mlp_methods) {
    static const luaL_Reg functions[] = {{"train", core_train}, {"predict", core_predict}, {"threads", core_threads},
                                         {"cuda", core_cuda},   {"worth", core_worth},     {NULL, NULL}};
    lua_pushvalue(L, module);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
