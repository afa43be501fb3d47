/* mod_tensor_file.c: tensor.save and tensor.load: safetensors files (host/safetensors.h). */
#include "host/api/tensor_lua.h"
#include "host/safetensors.h"
#include <string.h>

#define SAFE_META "neap.safetensors"

static int safe_gc(lua_State *L) {
    neap_safe_free(luaL_checkudata(L, 1, SAFE_META));
    return 0;
}

neap_safe *tensor_safe_new(lua_State *L) {
    neap_safe *s = lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    if (luaL_newmetatable(L, SAFE_META)) {
        lua_pushcfunction(L, safe_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return s;
}

void tensor_safe_meta(lua_State *L, neap_safe *s, int idx) {
    if (lua_isnoneornil(L, idx)) return;
    luaL_checktype(L, idx, LUA_TTABLE);
    idx = lua_absindex(L, idx);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 2)) {
        if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "metadata keys are strings, got a %s", luaL_typename(L, -2));
        int type = lua_type(L, -1);
        if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
            luaL_error(L, "metadata '%s' is a %s; values are strings, numbers or booleans (encode tables as JSON)", lua_tostring(L, -2),
                       lua_typename(L, type));
        const char *key = lua_tostring(L, -2), *value = luaL_tolstring(L, -1, NULL);
        if (!strncmp(key, "neap.", 5)) luaL_error(L, "metadata '%s': names that begin with 'neap.' are neap's own", key);
        int rc = neap_safe_add_meta(s, key, value);
        if (rc) err_code(L, rc, "cannot keep metadata '%s'", key);
    }
}

void tensor_safe_push_meta(lua_State *L, const neap_safe *s) {
    lua_createtable(L, 0, s->metas);
    for (int i = 0; i < s->metas; i++) {
        if (!strncmp(s->meta[i].key, "neap.", 5)) continue;
        lua_pushstring(L, s->meta[i].value);
        lua_setfield(L, -2, s->meta[i].key);
    }
}

int tensor_safe_failed(lua_State *L, int rc, const neap_safe *s, const char *op, const char *path) {
    if (rc == NEAP_ERR_IO) return err_code(L, rc, "%s: %s", op, path);
    return err_code(L, rc, "%s: %s: %s", op, path, s->error[0] ? s->error : neap_err_kind(rc));
}

/* save(path, {name = tensor, ...}[, metadata]) */
static int tensor_save(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    neap_safe *s = tensor_safe_new(L);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        neap_tensor *t = tensor_test_any(L, -1);
        if (lua_type(L, -2) != LUA_TSTRING || !t) return luaL_error(L, "tensor.save: expected {name = tensor, ...}");
        const char *name = lua_tostring(L, -2);
        int top = lua_gettop(L), rc = neap_safe_add(s, name, tensor_move(L, t, NULL, "tensor.save"));
        if (rc) return err_code(L, rc, "tensor.save: tensor '%s'", name);
        lua_settop(L, top);
    }
    tensor_safe_meta(L, s, 3);
    int rc = neap_safe_write(s, path);
    return rc ? tensor_safe_failed(L, rc, s, "tensor.save", path) : 0;
}

/* load(path) -> {name = tensor, ...}, metadata */
static int tensor_load(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    neap_safe *s = tensor_safe_new(L);
    int rc = neap_safe_read(s, path);
    if (rc) return tensor_safe_failed(L, rc, s, "tensor.load", path);
    lua_createtable(L, 0, s->entries);
    for (int i = 0; i < s->entries; i++) {
        neap_tensor *t = tensor_slot(L);
        *t = s->entry[i].tensor; /* the reference moves over */
        s->entry[i].tensor.storage = NULL;
        tensor_filled(L, t);
        lua_setfield(L, -2, s->entry[i].name);
    }
    tensor_safe_push_meta(L, s);
    return 2;
}

void tensor_add_files(lua_State *L, int module) {
    static const luaL_Reg functions[] = {{"save", tensor_save}, {"load", tensor_load}, {NULL, NULL}};
    lua_pushvalue(L, module);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
