/* mod_tensor_long.c: what may take a tensor's task long: matrix products, reductions, order statistics. Short ones run at once. What would hold the
   loop for more than a millisecond runs on a compute thread and is awaited, so that other tasks go on; where Lua cannot wait (inside table.sort, say)
   it runs at once too. The job keeps its operands; it is owned by a guard userdata and, while it runs, by the pool. */
#include "host/api/compute_lua.h"
#include "host/api/tensor_lua.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JOB_META "neap.tensor.job"
#define AT_ONCE  1e-3 /* seconds */

typedef struct long_job {
    neap_compute_job c;
    rt_wait *wait;
    int refs, rc, op, dim, keep, list, count; /* dim -1: everything; list: answer with a list of count numbers */
    const char *name;
    neap_tensor a, b, out, order;
    void (*work)(struct long_job *j);
    int (*push)(lua_State *L, struct long_job *j);
    double value[]; /* quantiles: q, then the answer; others: one number */
} long_job;

/* ---- life ---- */

static void job_unref(long_job *j) {
    if (--j->refs) return;
    neap_tensor_unref(&j->a), neap_tensor_unref(&j->b), neap_tensor_unref(&j->out), neap_tensor_unref(&j->order);
    free(j);
}

static int guard_gc(lua_State *L) {
    long_job **u = lua_touserdata(L, 1);
    if (*u) job_unref(*u);
    *u = NULL;
    return 0;
}

/* A job on `a`; its guard is pushed. */
static long_job *job_new(lua_State *L, const char *name, const neap_tensor *a, const neap_tensor *b, int numbers) {
    long_job **u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = NULL;
    if (luaL_newmetatable(L, JOB_META)) {
        lua_pushcfunction(L, guard_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    long_job *j = calloc(1, sizeof *j + (size_t)numbers * sizeof *j->value);
    if (!j) {
        err_code(L, NEAP_ERR_MEMORY, "%s", name);
        return NULL;
    }
    *u = j;
    j->refs = 1, j->name = name, j->count = numbers;
    j->a = neap_tensor_ref(a);
    if (b) j->b = neap_tensor_ref(b);
    return j;
}

static void job_run(neap_compute_job *c) {
    long_job *j = (long_job *)c;
    j->work(j);
}

static void job_over(neap_compute_job *c) {
    long_job *j = (long_job *)c;
    wait_done(j->wait, 0, NULL, NULL);
    job_unref(j);
}

static int finish(lua_State *L, long_job *j) {
    if (j->rc == NEAP_ERR_MEMORY) { /* tensors that nobody holds any more may be in the way */
        lua_gc(L, LUA_GCCOLLECT);
        j->work(j);
    }
    if (j->rc == NEAP_ERR_SHAPE && j->dim < 0) return luaL_error(L, "%s: the tensor is empty", j->name);
    if (j->rc == NEAP_ERR_SHAPE && !j->b.storage) return luaL_error(L, "%s: dimension %d is empty", j->name, j->dim + 1);
    tensor_must(L, j->rc, j->name, &j->a, j->b.storage ? &j->b : NULL);
    return j->push(L, j);
}

static int job_continue(lua_State *L, int status, lua_KContext ctx) {
    long_job **u = luaL_checkudata(L, 1, JOB_META);
    rt_wait *w = (rt_wait *)ctx;
    return w->status ? wait_raise(L, w) : finish(L, *u);
}

/* Runs the job, whose guard is on top: here, or on a compute thread. `seconds`: what it will take, about. */
static int job_start(lua_State *L, long_job *j, double seconds) {
    lua_replace(L, 1);
    lua_settop(L, 1);
    if (neap_tensor_device(&j->a)) seconds /= 50;
    if (seconds < AT_ONCE || !wait_possible(L)) {
        j->work(j);
        return finish(L, j);
    }
    rt_wait *w = wait_new(L, j->name, -1);
    j->c.run = job_run, j->c.done = job_over;
    j->wait = wait_ref(w);
    j->refs++;
    int rc = compute_submit(L, &j->c);
    if (rc) {
        wait_unref(w);
        j->refs--;
        return err_code(L, rc, "%s: cannot start a compute thread", j->name);
    }
    return wait_park(L, w, job_continue);
}

/* Pushes a result of the job, which lets go of it. */
static neap_tensor *push_tensor(lua_State *L, neap_tensor *result) {
    neap_tensor *t = tensor_slot(L);
    *t = *result;
    result->storage = NULL;
    tensor_filled(L, t);
    return t;
}

/* Places count from 1 in Lua. */
static void count_from_one(lua_State *L, neap_tensor *places) {
    neap_tensor *one = tensor_slot(L);
    tensor_must(L, neap_tensor_new(one, NEAP_I64, 0, NULL), "places", NULL, NULL);
    neap_tensor_put_int(one, 0, 1);
    tensor_must(L, neap_tensor_binary_into(places, NEAP_OP_ADD, places, one), "places", places, NULL);
    lua_pop(L, 1);
}

/* ---- reductions ---- */

static void reduce_work(long_job *j) {
    j->rc = j->dim < 0 ? neap_tensor_reduce_all(j->value, j->op, &j->a) : neap_tensor_reduce(&j->out, j->op, &j->a, j->dim, j->keep);
}

static int reduce_push(lua_State *L, long_job *j) {
    double v = j->value[0];
    int arg = j->op == NEAP_ARGMIN || j->op == NEAP_ARGMAX, whole = j->op == NEAP_SUM || j->op == NEAP_MIN || j->op == NEAP_MAX;
    if (j->dim >= 0) {
        neap_tensor *out = push_tensor(L, &j->out);
        if (arg) count_from_one(L, out);
    } else if (j->op == NEAP_ANY || j->op == NEAP_ALL) lua_pushboolean(L, v != 0.0);
    else if (arg) lua_pushinteger(L, (lua_Integer)v + 1);
    else if (j->a.dtype <= NEAP_I64 && whole && fabs(v) < 0x1p53) lua_pushinteger(L, (lua_Integer)v);
    else lua_pushnumber(L, v);
    return 1;
}

/* reduction(): a number; reduction(dim[, keepdim]): a tensor. arg*: 1-based. The operation and its name are upvalues. */
static int reduce(lua_State *L) {
    int op = (int)lua_tointeger(L, lua_upvalueindex(1));
    const char *name = lua_tostring(L, lua_upvalueindex(2));
    neap_tensor *a = tensor_check_any(L, 1);
    int dim = lua_isnoneornil(L, 2) ? -1 : tensor_dim(L, 2, a, name), keep = lua_toboolean(L, 3);
    double each = op == NEAP_MEDIAN ? 100e-9 : a->dtype == NEAP_F32 && dim < 0 && op <= NEAP_MAX && neap_tensor_is_contiguous(a) ? 0.3e-9 : 4e-9;
    long_job *j = job_new(L, name, a, NULL, 1);
    j->op = op, j->dim = dim, j->keep = keep;
    j->work = reduce_work, j->push = reduce_push;
    return job_start(L, j, (double)neap_tensor_count(&j->a) * each);
}

/* ---- order ---- */

static void quantile_work(long_job *j) {
    j->rc = 0;
    for (int i = 0; i < j->count && !j->rc; i++) {
        double v;
        if (!(j->rc = neap_tensor_quantile(&v, &j->a, j->value[i]))) j->value[i] = v;
    }
}

static int quantile_push(lua_State *L, long_job *j) {
    if (!j->list) return lua_pushnumber(L, j->value[0]), 1;
    lua_createtable(L, j->count, 0);
    for (int i = 0; i < j->count; i++) lua_pushnumber(L, j->value[i]), lua_rawseti(L, -2, i + 1);
    return 1;
}

/* quantile(q) -> number; quantile{q1, q2} -> list */
static int quantile(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1);
    int list = lua_istable(L, 2), n = list ? (int)lua_rawlen(L, 2) : 1;
    double *q = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *q, 0);
    for (int i = 0; i < n; i++) {
        if (list) lua_rawgeti(L, 2, i + 1);
        q[i] = luaL_checknumber(L, list ? -1 : 2);
        if (list) lua_pop(L, 1);
        if (!(q[i] >= 0 && q[i] <= 1)) return luaL_error(L, "quantile: q is %f, it must be 0 to 1", q[i]);
    }
    long_job *j = job_new(L, "quantile", a, NULL, n);
    memcpy(j->value, q, (size_t)n * sizeof *q);
    j->list = list, j->dim = -1;
    j->work = quantile_work, j->push = quantile_push;
    return job_start(L, j, (double)neap_tensor_count(&j->a) * 100e-9 * n);
}

static void sort_work(long_job *j) { j->rc = neap_tensor_sort(&j->out, &j->order, &j->a, j->op); }

static int sort_push(lua_State *L, long_job *j) {
    push_tensor(L, &j->out);
    count_from_one(L, push_tensor(L, &j->order));
    return 2;
}

/* sort([descending]) -> values, order (1-based i64) */
static int sort(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1);
    int down = lua_toboolean(L, 2);
    if (a->dims != 1) return luaL_error(L, "sort: needs a vector, the tensor has %d dimensions", a->dims);
    long_job *j = job_new(L, "sort", a, NULL, 0);
    j->op = down, j->work = sort_work, j->push = sort_push;
    return job_start(L, j, (double)neap_tensor_count(&j->a) * 120e-9);
}

/* ---- products ---- */

static void matmul_work(long_job *j) { j->rc = neap_tensor_matmul(&j->out, &j->a, &j->b, j->op); }
static int matmul_push(lua_State *L, long_job *j) { return push_tensor(L, &j->out), 1; }

static int matmul(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *b = tensor_check_any(L, 2);
    char sa[160], sb[160];
    int ranks = a->dims >= 1 && a->dims <= 2 && b->dims >= 1 && b->dims <= 2;
    if (ranks && a->shape[a->dims - 1] != b->shape[0])
        return luaL_error(L, "matmul: shapes %s and %s do not match (%I vs %I)", neap_tensor_shape_text(a, sa, sizeof sa),
                          neap_tensor_shape_text(b, sb, sizeof sb), (lua_Integer)a->shape[a->dims - 1], (lua_Integer)b->shape[0]);
    int threads = compute_cores();
    double work = ranks ? 2.0 * (double)neap_tensor_count(a) * (double)(b->dims == 2 ? b->shape[1] : 1) : 0.0;
    double rate = a->dtype == NEAP_F32 && b->dtype == NEAP_F32 ? 5e10 * threads : 5e8;
    long_job *j = job_new(L, "matmul", a, b, 0);
    j->op = threads, j->work = matmul_work, j->push = matmul_push;
    return job_start(L, j, work / rate);
}

/* ---- tables ---- */

typedef struct entry {
    const char *name;
    int op;
} entry;

static const entry reductions[] = {{"sum", NEAP_SUM},
                                   {"mean", NEAP_MEAN},
                                   {"min", NEAP_MIN},
                                   {"max", NEAP_MAX},
                                   {"var", NEAP_VAR},
                                   {"std", NEAP_STD},
                                   {"norm", NEAP_NORM},
                                   {"argmin", NEAP_ARGMIN},
                                   {"argmax", NEAP_ARGMAX},
                                   {"median", NEAP_MEDIAN},
                                   {"any", NEAP_ANY},
                                   {"all", NEAP_ALL},
                                   {NULL, 0}};

void tensor_add_long(lua_State *L, int method_table, int module) {
    static const luaL_Reg methods[] = {{"quantile", quantile}, {"sort", sort}, {"matmul", matmul}, {NULL, NULL}};
    for (const entry *e = reductions; e->name; e++) {
        lua_pushinteger(L, e->op);
        lua_pushstring(L, e->name);
        lua_pushcclosure(L, reduce, 2);
        lua_setfield(L, method_table, e->name);
    }
    lua_pushvalue(L, method_table);
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
    lua_pushcfunction(L, matmul);
    lua_setfield(L, module, "matmul");
}
