/* mod_tensor_ops.c: arithmetic, comparisons, reductions and matrix products of tensors. One C function serves many names: the operation and its name
   are upvalues. A trailing underscore works in place. */
#include "host/api/tensor_lua.h"
#include <stdio.h>
#include <string.h>

#define OP   ((int)lua_tointeger(L, lua_upvalueindex(1)))
#define NAME lua_tostring(L, lua_upvalueindex(2))

/* A scalar operand takes the tensor's dtype where that loses nothing it should keep: 2.5 with an integer tensor gives f32. */
static neap_tensor *operand(lua_State *L, int idx, const neap_tensor *other, const char *op) {
    if (lua_type(L, idx) == LUA_TNUMBER && other) {
        int dtype = other->dtype >= NEAP_F32 ? (int)other->dtype : lua_isinteger(L, idx) ? NEAP_I64 : NEAP_F32;
        return tensor_from_any(L, idx, dtype, op);
    }
    return tensor_from_any(L, idx, -1, op);
}

static int binary(lua_State *L) {
    const char *name = NAME;
    neap_tensor *ta = tensor_test_any(L, 1), *tb = tensor_test_any(L, 2);
    neap_tensor *a = operand(L, 1, tb, name), *b = operand(L, 2, ta, name), *out = tensor_slot(L);
    int rc, op = OP;
    TENSOR_RETRY(L, rc, neap_tensor_binary(out, op, a, b));
    tensor_must(L, rc, name, a, b);
    tensor_filled(L, out);
    return 1;
}

static int binary_(lua_State *L) {
    const char *name = NAME;
    neap_tensor *a = tensor_check_any(L, 1), *b = operand(L, 2, a, name);
    tensor_must(L, neap_tensor_binary_into(a, OP, a, b), name, a, b);
    lua_settop(L, 1);
    return 1;
}

static int unary(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *out = tensor_slot(L);
    int rc, op = OP;
    TENSOR_RETRY(L, rc, neap_tensor_unary(out, op, a));
    tensor_must(L, rc, NAME, a, NULL);
    tensor_filled(L, out);
    return 1;
}

static int unary_(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1);
    tensor_must(L, neap_tensor_unary_into(a, OP, a), NAME, a, NULL);
    lua_settop(L, 1);
    return 1;
}

static int compare(lua_State *L) {
    const char *name = NAME;
    neap_tensor *a = tensor_check_any(L, 1), *b = operand(L, 2, a, name), *out = tensor_slot(L);
    tensor_must(L, neap_tensor_compare(out, OP, a, b), name, a, b);
    tensor_filled(L, out);
    return 1;
}

/* clamp(lo, hi): either may be nil */
static int clamp(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *out = tensor_slot(L);
    tensor_must(L, neap_tensor_clone(out, a), "clamp", a, NULL);
    tensor_filled(L, out);
    for (int i = 0; i < 2; i++) {
        if (lua_isnoneornil(L, 2 + i)) continue;
        tensor_must(L, neap_tensor_binary_into(out, i ? NEAP_OP_MIN : NEAP_OP_MAX, out, operand(L, 2 + i, a, "clamp")), "clamp", a, NULL);
        lua_pop(L, 1);
    }
    return 1;
}

static int is_nan(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *out = tensor_slot(L);
    tensor_must(L, neap_tensor_compare(out, NEAP_CMP_NE, a, a), "isnan", a, NULL);
    tensor_filled(L, out);
    return 1;
}

static int cumsum(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1);
    int dim = lua_isnoneornil(L, 2) && a->dims == 1 ? 0 : tensor_dim(L, 2, a, "cumsum");
    neap_tensor *out = tensor_slot(L);
    tensor_must(L, neap_tensor_cumsum(out, a, dim), "cumsum", a, NULL);
    tensor_filled(L, out);
    return 1;
}

/* take(index): rows by a 1-based index tensor or list */
static int take(lua_State *L) {
    neap_tensor *a = tensor_check_any(L, 1), *given = tensor_from_any(L, 2, lua_istable(L, 2) ? NEAP_I64 : -1, "take"), *index = tensor_slot(L);
    char shape[160];
    tensor_must(L, neap_tensor_cast(index, given, NEAP_I64), "take", given, NULL);
    neap_tensor *from0 = tensor_slot(L);
    neap_tensor *one = tensor_slot(L), *out;
    tensor_must(L, neap_tensor_new(one, NEAP_I64, 0, NULL), "take", NULL, NULL);
    neap_tensor_put_int(one, 0, 1);
    tensor_must(L, neap_tensor_binary(from0, NEAP_OP_SUB, index, one), "take", NULL, NULL);
    out = tensor_slot(L);
    int rc = neap_tensor_take(out, a, from0);
    if (rc == NEAP_ERR_INVALID)
        return luaL_error(L, "take: an index is outside 1..%I of shape %s", (lua_Integer)a->shape[0], neap_tensor_shape_text(a, shape, sizeof shape));
    tensor_must(L, rc, "take", a, index);
    tensor_filled(L, out);
    return 1;
}

/* ---- module functions ---- */

static int tensor_where(lua_State *L) {
    neap_tensor *cond = tensor_check_any(L, 1), *ta = tensor_test_any(L, 2), *tb = tensor_test_any(L, 3);
    neap_tensor *a = operand(L, 2, tb, "where"), *b = operand(L, 3, ta, "where"), *out = tensor_slot(L);
    tensor_must(L, neap_tensor_where(out, cond, a, b), "where", a, b);
    tensor_filled(L, out);
    return 1;
}

/* Tensors of the list at 1 into list[n]; a userdata on the stack holds the array. */
static neap_tensor *list_of(lua_State *L, int *n, const char *op) {
    luaL_checktype(L, 1, LUA_TTABLE);
    *n = (int)lua_rawlen(L, 1);
    if (*n < 1) luaL_error(L, "%s: the list is empty", op);
    neap_tensor *list = lua_newuserdatauv(L, (size_t)*n * sizeof *list, 0);
    for (int i = 0; i < *n; i++) {
        lua_rawgeti(L, 1, i + 1);
        neap_tensor *t = tensor_test_any(L, -1);
        if (!t) {
            luaL_error(L, "%s: element %d is no tensor", op, i + 1);
            return NULL;
        }
        list[i] = *t; /* borrowed: the list at 1 keeps it */
        lua_pop(L, 1);
    }
    return list;
}

static int tensor_cat(lua_State *L) {
    int n;
    lua_settop(L, 2);
    neap_tensor *list = list_of(L, &n, "cat");
    int dim = lua_isnoneornil(L, 2) ? 0 : tensor_dim(L, 2, &list[0], "cat");
    neap_tensor *out = tensor_slot(L);
    tensor_must(L, neap_tensor_cat(out, list, n, dim), "cat", &list[0], n > 1 ? &list[1] : NULL);
    tensor_filled(L, out);
    return 1;
}

/* stack(list): a new first dimension */
static int tensor_stack(lua_State *L) {
    int n;
    neap_tensor *list = list_of(L, &n, "stack");
    if (list[0].dims == NEAP_MAX_DIMS) return luaL_error(L, "stack: too many dimensions");
    for (int i = 0; i < n; i++) {
        if (!neap_tensor_same_shape(&list[i], &list[0])) tensor_must(L, NEAP_ERR_SHAPE, "stack", &list[0], &list[i]);
    }
    for (int i = 0; i < n; i++) {
        neap_tensor *t = &list[i];
        memmove(t->shape + 1, t->shape, (size_t)t->dims * sizeof t->shape[0]);
        memmove(t->stride + 1, t->stride, (size_t)t->dims * sizeof t->stride[0]);
        t->shape[0] = 1;
        t->stride[0] = 0;
        t->dims++;
    }
    neap_tensor *out = tensor_slot(L);
    tensor_must(L, neap_tensor_cat(out, list, n, 0), "stack", NULL, NULL);
    tensor_filled(L, out);
    return 1;
}

/* ---- tables ---- */

typedef struct entry {
    const char *name;
    int op;
} entry;

static const entry binaries[] = {{"add", NEAP_OP_ADD}, {"sub", NEAP_OP_SUB},     {"mul", NEAP_OP_MUL},     {"div", NEAP_OP_DIV},
                                 {"pow", NEAP_OP_POW}, {"minimum", NEAP_OP_MIN}, {"maximum", NEAP_OP_MAX}, {NULL, 0}};
static const entry unaries[] = {{"neg", NEAP_OP_NEG},     {"abs", NEAP_OP_ABS},     {"sqrt", NEAP_OP_SQRT},   {"square", NEAP_OP_SQUARE},
                                {"exp", NEAP_OP_EXP},     {"log", NEAP_OP_LOG},     {"tanh", NEAP_OP_TANH},   {"sigmoid", NEAP_OP_SIGMOID},
                                {"relu", NEAP_OP_RELU},   {"gelu", NEAP_OP_GELU},   {"sin", NEAP_OP_SIN},     {"cos", NEAP_OP_COS},
                                {"floor", NEAP_OP_FLOOR}, {"ceil", NEAP_OP_CEIL},   {"round", NEAP_OP_ROUND}, {"asinh", NEAP_OP_ASINH},
                                {"sign", NEAP_OP_SIGN},   {"log1p", NEAP_OP_LOG1P}, {"expm1", NEAP_OP_EXPM1}, {NULL, 0}};
static const entry compares[] = {
    {"eq", NEAP_CMP_EQ}, {"ne", NEAP_CMP_NE}, {"lt", NEAP_CMP_LT}, {"le", NEAP_CMP_LE}, {"gt", NEAP_CMP_GT}, {"ge", NEAP_CMP_GE}, {NULL, 0}};
static void add(lua_State *L, int table, const entry *list, lua_CFunction fn, const char *suffix) {
    for (; list->name; list++) {
        lua_pushinteger(L, list->op);
        const char *name = lua_pushfstring(L, "%s%s", list->name, suffix);
        lua_pushcclosure(L, fn, 2);
        lua_setfield(L, table, name);
    }
}

void tensor_add_ops(lua_State *L, int method_table, int module) {
    static const luaL_Reg methods[] = {{"clamp", clamp}, {"isnan", is_nan}, {"cumsum", cumsum}, {"take", take}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"where", tensor_where}, {"cat", tensor_cat}, {"stack", tensor_stack}, {NULL, NULL}};
    add(L, method_table, binaries, binary, "");
    add(L, method_table, binaries, binary_, "_");
    add(L, method_table, unaries, unary, "");
    add(L, method_table, unaries, unary_, "_");
    add(L, method_table, compares, compare, "");
    lua_pushvalue(L, method_table);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, module);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 2);
}
