/* json_lua.h: what mod_json.c (decode, marks, module) and json_encode.c (encode) share. */
#ifndef NEAP_JSON_LUA_H
#define NEAP_JSON_LUA_H
#include <lua.h>
#include <lauxlib.h>
#include "host/json.h"

/* Upvalues of every function of the module. */
#define JSON_ARRAY_MT  lua_upvalueindex(1)
#define JSON_OBJECT_MT lua_upvalueindex(2)
#define JSON_BUFFER    lua_upvalueindex(3) /* a neap_buf userdata, reused by every encode of this state */
#define JSON_TRY       lua_upvalueindex(4) /* true in the `try` view: nil, err instead of raising */

/* Raises on an unknown key in the options table at idx, naming the nearest of the NULL-terminated list. nil is fine. */
void json_check_options(lua_State *L, int idx, const char *const *known);

/* json.encode(v[, opts]) */
int json_encode(lua_State *L);

/* Registry: what other C files call with lua_call, so that texts need not become Lua strings. */
#define JSON_INTO "neap.json.into" /* (v) -> light userdata, the shared neap_buf with the text; valid until the next encode. Raises as encode */
#define JSON_FROM "neap.json.from" /* (light userdata, length) -> value; or nil, error object */
int json_encode_into(lua_State *L);
#endif
