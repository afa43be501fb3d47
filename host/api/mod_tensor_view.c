/* mod_tensor_view.c: looking at tensors (index, shape, text) and views of them. */
#include "host/api/tensor_lua.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- looking ---- */

static void push_element(lua_State *L, const neap_tensor *t, int64_t at) {
    if (t->dtype <= NEAP_I64) lua_pushinteger(L, neap_tensor_get_int(t, at));
    else lua_pushnumber(L, neap_tensor_get(t, at));
}

static int64_t index_in(lua_State *L, lua_Integer i, const neap_tensor *t, int dim) {
    lua_Integer n = t->shape[dim], real = i < 0 ? n + i : i - 1;
    if (i == 0 || real < 0 || real >= n) luaL_error(L, "index %I is out of range 1..%I of dimension %d", i, n, dim + 1);
    return real;
}

static void put_value(lua_State *L, const neap_tensor *t, int64_t at, int idx) {
    if (lua_isinteger(L, idx)) neap_tensor_put_int(t, at, lua_tointeger(L, idx));
    else neap_tensor_put(t, at, luaL_checknumber(L, idx));
}

static int tensor_mt_index(lua_State *L) {
    neap_tensor *t;
    if (lua_type(L, 2) == LUA_TSTRING) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
        const char *key = lua_tostring(L, 2);
        t = tensor_check_any(L, 1);
        if (!strcmp(key, "shape")) {
            lua_createtable(L, t->dims, 0);
            for (int i = 0; i < t->dims; i++) lua_pushinteger(L, t->shape[i]), lua_rawseti(L, -2, i + 1);
        } else if (!strcmp(key, "dtype")) lua_pushstring(L, neap_dtype_name(t->dtype));
        else if (!strcmp(key, "device")) lua_pushstring(L, neap_tensor_device_name(t));
        else return luaL_error(L, "a tensor has no field or method '%s'", key);
        return 1;
    }
    t = tensor_check_any(L, 1);
    if (t->dims == 0) return luaL_error(L, "a single number cannot be indexed: use item()");
    int64_t i = index_in(L, luaL_checkinteger(L, 2), t, 0);
    if (t->dims == 1) {
        push_element(L, t, t->offset + i * t->stride[0]);
        return 1;
    }
    tensor_must(L, neap_tensor_select(tensor_slot(L), t, 0, i), "index", t, NULL);
    return 1;
}

static int tensor_mt_newindex(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1), row;
    if (t->dims == 0) return luaL_error(L, "a single number cannot be indexed: use fill_()");
    int64_t i = index_in(L, luaL_checkinteger(L, 2), t, 0);
    if (t->dims == 1) {
        put_value(L, t, t->offset + i * t->stride[0], 3);
        return 0;
    }
    neap_tensor *from = tensor_from_any(L, 3, -1, "assignment");
    tensor_must(L, neap_tensor_select(&row, t, 0, i), "assignment", t, NULL);
    int rc = neap_tensor_copy(&row, from);
    row.storage == NULL ? (void)0 : neap_tensor_unref(&row);
    tensor_must(L, rc, "assignment", t, from);
    return 0;
}

static int64_t position(lua_State *L, const neap_tensor *t, int first) {
    int64_t at = t->offset;
    for (int d = 0; d < t->dims; d++) at += index_in(L, luaL_checkinteger(L, first + d), t, d) * t->stride[d];
    return at;
}

static int tensor_m_at(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    push_element(L, t, position(L, t, 2));
    return 1;
}

static int tensor_m_set(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int64_t at = position(L, t, 2);
    put_value(L, t, at, 2 + t->dims);
    lua_settop(L, 1);
    return 1;
}

static int tensor_m_item(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    char shape[160];
    if (neap_tensor_count(t) != 1)
        return luaL_error(L, "item: the tensor has shape %s, not one element", neap_tensor_shape_text(t, shape, sizeof shape));
    push_element(L, t, t->offset);
    return 1;
}

static int tensor_mt_len(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    lua_pushinteger(L, t->dims ? t->shape[0] : 1);
    return 1;
}

static int tensor_m_dim(lua_State *L) { return lua_pushinteger(L, tensor_check_any(L, 1)->dims), 1; }
static int tensor_m_numel(lua_State *L) { return lua_pushinteger(L, neap_tensor_count(tensor_check_any(L, 1))), 1; }

static int tensor_m_bytes(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    lua_pushinteger(L, neap_tensor_count(t) * (lua_Integer)neap_dtype_size(t->dtype));
    return 1;
}

static int tensor_m_size(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    if (!lua_isnoneornil(L, 2)) return lua_pushinteger(L, t->shape[tensor_dim(L, 2, t, "size")]), 1;
    for (int i = 0; i < t->dims; i++) lua_pushinteger(L, t->shape[i]);
    return t->dims;
}

static int tensor_m_is_contiguous(lua_State *L) { return lua_pushboolean(L, neap_tensor_is_contiguous(tensor_check_any(L, 1))), 1; }

static void push_nested(lua_State *L, const neap_tensor *t, int dim, int64_t at) {
    if (dim == t->dims) {
        push_element(L, t, at);
        return;
    }
    luaL_checkstack(L, 4, "totable");
    lua_createtable(L, (int)t->shape[dim], 0);
    for (int64_t i = 0; i < t->shape[dim]; i++) {
        if ((i & 255) == 0) rt_breathe(L);
        push_nested(L, t, dim + 1, at + i * t->stride[dim]);
        lua_rawseti(L, -2, i + 1);
    }
}

static int tensor_m_totable(lua_State *L) {
    neap_tensor *t = tensor_move(L, tensor_check_any(L, 1), NULL, "totable");
    push_nested(L, t, 0, t->offset);
    return 1;
}

static int tensor_m_to_string(lua_State *L) {
    neap_tensor *t = tensor_move(L, tensor_check_any(L, 1), NULL, "to_string"), *c = tensor_slot(L);
    tensor_must(L, neap_tensor_contiguous(c, t), "to_string", t, NULL);
    lua_pushlstring(L, neap_tensor_data(c), (size_t)neap_tensor_count(c) * neap_dtype_size(c->dtype));
    return 1;
}

/* At most eight of n are shown: the one after i. */
static int64_t next_shown(int64_t i, int64_t n) { return n > 8 && i == 3 ? n - 3 : i + 1; }

static int show_number(char *text, size_t size, const neap_tensor *t, int64_t at) {
    if (t->dtype <= NEAP_I64) return snprintf(text, size, "%lld", (long long)neap_tensor_get_int(t, at));
    return snprintf(text, size, "%.5g", neap_tensor_get(t, at));
}

/* One row (or vector) in short, each number right-aligned in so many columns. */
static void show_row(luaL_Buffer *b, const neap_tensor *t, int64_t at, int64_t n, int64_t step, int width) {
    char text[48], padded[64];
    luaL_addstring(b, "\n ");
    for (int64_t i = 0; i < n; i = next_shown(i, n)) {
        show_number(text, sizeof text, t, at + i * step);
        snprintf(padded, sizeof padded, " %*s%s", width, text, n > 8 && i == 3 ? " ..." : "");
        luaL_addstring(b, padded);
    }
}

static int widest(const neap_tensor *t) { /* of the numbers of a matrix that are shown */
    char text[48];
    int width = 0;
    for (int64_t r = 0; r < t->shape[0]; r = next_shown(r, t->shape[0]))
        for (int64_t i = 0; i < t->shape[1]; i = next_shown(i, t->shape[1])) {
            int n = show_number(text, sizeof text, t, t->offset + r * t->stride[0] + i * t->stride[1]);
            if (n > width) width = n;
        }
    return width;
}

static int tensor_mt_tostring(lua_State *L) {
    const neap_tensor *t = luaL_checkudata(L, 1, TENSOR_META);
    char text[256], shape[160];
    double lo, hi, mean;
    if (!t->storage) return lua_pushliteral(L, "tensor (freed)"), 1;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    snprintf(text, sizeof text, "tensor %s %s %s", neap_dtype_name(t->dtype), neap_tensor_shape_text(t, shape, sizeof shape),
             neap_tensor_device_name(t));
    luaL_addstring(&b, text);
    if (neap_tensor_count(t) > 1 && !neap_tensor_reduce_all(&lo, NEAP_MIN, t) && !neap_tensor_reduce_all(&hi, NEAP_MAX, t) &&
        !neap_tensor_reduce_all(&mean, NEAP_MEAN, t)) {
        snprintf(text, sizeof text, "  min %.5g, mean %.5g, max %.5g", lo, mean, hi);
        luaL_addstring(&b, text);
    }
    if (t->dims == 0) show_row(&b, t, t->offset, 1, 1, 0);
    else if (t->dims == 1) show_row(&b, t, t->offset, t->shape[0], t->stride[0], 0);
    else if (t->dims == 2) {
        int width = widest(t);
        for (int64_t r = 0; r < t->shape[0]; r = next_shown(r, t->shape[0])) {
            show_row(&b, t, t->offset + r * t->stride[0], t->shape[1], t->stride[1], width);
            if (t->shape[0] > 8 && r == 3) luaL_addstring(&b, "\n  ...");
        }
    }
    luaL_pushresult(&b);
    return 1;
}

/* ---- views ---- */

static int tensor_m_select(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int d = tensor_dim(L, 2, t, "select");
    int64_t i = index_in(L, luaL_checkinteger(L, 3), t, d);
    tensor_must(L, neap_tensor_select(tensor_slot(L), t, d, i), "select", t, NULL);
    return 1;
}

/* narrow(dim, first, length) */
static int tensor_m_narrow(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int d = tensor_dim(L, 2, t, "narrow");
    lua_Integer first = luaL_checkinteger(L, 3), length = luaL_checkinteger(L, 4), n = t->shape[d];
    if (first < 0) first = n + first + 1;
    if (length < 0 || first < 1 || first - 1 > n - length)
        luaL_error(L, "narrow: %I elements from %I on leave dimension %d of size %I", length, first, d + 1, n);
    tensor_must(L, neap_tensor_slice(tensor_slot(L), t, d, first - 1, length, 1), "narrow", t, NULL);
    return 1;
}

/* slice(dim[, first[, last[, step]]]): both ends included, as string.sub; ends outside are clamped */
static int tensor_m_slice(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int d = tensor_dim(L, 2, t, "slice");
    lua_Integer n = t->shape[d], first = luaL_optinteger(L, 3, 1), last = luaL_optinteger(L, 4, -1), step = luaL_optinteger(L, 5, 1);
    luaL_argcheck(L, step >= 1, 5, "step must be at least 1");
    if (first < 0) first = n + first + 1;
    if (last < 0) last = n + last + 1;
    if (first < 1) first = 1;
    if (last > n) last = n;
    lua_Integer count = last < first ? 0 : (last - first) / step + 1;
    tensor_must(L, neap_tensor_slice(tensor_slot(L), t, d, count ? first - 1 : 0, count, step), "slice", t, NULL);
    return 1;
}

static int tensor_m_t(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    if (t->dims != 2) return luaL_error(L, "t: needs a matrix, the tensor has %d dimensions", t->dims);
    tensor_must(L, neap_tensor_transpose(tensor_slot(L), t, 0, 1), "t", t, NULL);
    return 1;
}

static int tensor_m_transpose(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int a = tensor_dim(L, 2, t, "transpose"), b = tensor_dim(L, 3, t, "transpose");
    tensor_must(L, neap_tensor_transpose(tensor_slot(L), t, a, b), "transpose", t, NULL);
    return 1;
}

static int tensor_m_permute(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int order[NEAP_MAX_DIMS];
    for (int i = 0; i < t->dims; i++) order[i] = tensor_dim(L, 2 + i, t, "permute");
    tensor_must(L, neap_tensor_permute(tensor_slot(L), t, order), "permute", t, NULL);
    return 1;
}

static int tensor_m_unfold(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    int d = tensor_dim(L, 2, t, "unfold");
    lua_Integer size = luaL_checkinteger(L, 3), step = luaL_optinteger(L, 4, 1);
    luaL_argcheck(L, size >= 1, 3, "window size must be at least 1");
    luaL_argcheck(L, step >= 1, 4, "step must be at least 1");
    if (size > t->shape[d]) luaL_error(L, "unfold: a window of %I is longer than dimension %d (%I)", size, d + 1, (lua_Integer)t->shape[d]);
    tensor_must(L, neap_tensor_unfold(tensor_slot(L), t, d, size, step), "unfold", t, NULL);
    return 1;
}

static int reshape(lua_State *L, const char *op, int copy) {
    neap_tensor *t = tensor_check_any(L, 1), want = {.dims = 0};
    char from[160], to[160];
    int after, rc;
    want.dims = tensor_dims(L, 2, want.shape, &after);
    neap_tensor *out = tensor_slot(L);
    rc = copy ? neap_tensor_reshape(out, t, want.dims, want.shape) : neap_tensor_view(out, t, want.dims, want.shape);
    if (rc == NEAP_ERR_SHAPE)
        luaL_error(L, "%s: shape %s does not fit into %s", op, neap_tensor_shape_text(t, from, sizeof from),
                   neap_tensor_shape_text(&want, to, sizeof to));
    if (rc == NEAP_ERR_INVALID && !copy) luaL_error(L, "view: the tensor is not contiguous in memory: use reshape, which copies if it must");
    tensor_must(L, rc, op, t, NULL);
    if (copy) tensor_filled(L, out);
    return 1;
}

static int tensor_m_view(lua_State *L) { return reshape(L, "view", 0); }
static int tensor_m_reshape(lua_State *L) { return reshape(L, "reshape", 1); }

static int tensor_m_clone(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1), *out = tensor_slot(L);
    int rc;
    TENSOR_RETRY(L, rc, neap_tensor_clone(out, t));
    tensor_must(L, rc, "clone", t, NULL);
    tensor_filled(L, out);
    return 1;
}

static int tensor_m_contiguous(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1), *out = tensor_slot(L);
    tensor_must(L, neap_tensor_contiguous(out, t), "contiguous", t, NULL);
    tensor_filled(L, out);
    return 1;
}

/* to(dtype | device) */
static int tensor_m_to(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    const char *what = luaL_checkstring(L, 2);
    lua_settop(L, 1);
    if (!strcmp(what, "cpu") || !strcmp(what, "cuda")) {
        tensor_move(L, t, tensor_device(L, what), "to");
        return 1;
    }
    int dtype = tensor_dtype(L, what), rc;
    neap_tensor *out = tensor_slot(L);
    TENSOR_RETRY(L, rc, neap_tensor_cast(out, t, (neap_dtype)dtype));
    tensor_must(L, rc, "to", t, NULL);
    tensor_filled(L, out);
    return 1;
}

static int tensor_m_copy_(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1), *from = tensor_from_any(L, 2, -1, "copy_");
    tensor_must(L, neap_tensor_copy(t, from), "copy_", t, from);
    lua_settop(L, 1);
    return 1;
}

static int tensor_m_fill_(lua_State *L) {
    neap_tensor *t = tensor_check_any(L, 1);
    tensor_must(L, neap_tensor_fill(t, luaL_checknumber(L, 2)), "fill_", t, NULL);
    lua_settop(L, 1);
    return 1;
}

static const luaL_Reg methods[] = {{"at", tensor_m_at},
                                   {"set", tensor_m_set},
                                   {"item", tensor_m_item},
                                   {"dim", tensor_m_dim},
                                   {"numel", tensor_m_numel},
                                   {"size", tensor_m_size},
                                   {"bytes", tensor_m_bytes},
                                   {"is_contiguous", tensor_m_is_contiguous},
                                   {"totable", tensor_m_totable},
                                   {"to_string", tensor_m_to_string},
                                   {"select", tensor_m_select},
                                   {"narrow", tensor_m_narrow},
                                   {"slice", tensor_m_slice},
                                   {"t", tensor_m_t},
                                   {"transpose", tensor_m_transpose},
                                   {"permute", tensor_m_permute},
                                   {"unfold", tensor_m_unfold},
                                   {"view", tensor_m_view},
                                   {"reshape", tensor_m_reshape},
                                   {"clone", tensor_m_clone},
                                   {"contiguous", tensor_m_contiguous},
                                   {"to", tensor_m_to},
                                   {"copy_", tensor_m_copy_},
                                   {"fill_", tensor_m_fill_},
                                   {"free", tensor_close},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__newindex", tensor_mt_newindex}, {"__len", tensor_mt_len},
                                       {"__tostring", tensor_mt_tostring}, {"__gc", tensor_close},
                                       {"__close", tensor_close},          {NULL, NULL}};

void tensor_add_views(lua_State *L, int method_table) {
    lua_pushvalue(L, method_table);
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
    luaL_newmetatable(L, TENSOR_META);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushvalue(L, method_table);
    lua_pushcclosure(L, tensor_mt_index, 1);
    lua_setfield(L, -2, "__index");
}
