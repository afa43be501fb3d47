/* json_lua.h: what mod_json.c (decode, marks, module) and json_encode.c (encode) share, and what other bindings call so that texts need not become
   Lua strings. */
#ifndef NEAP_JSON_LUA_H
#define NEAP_JSON_LUA_H
#include <lua.h>
#include <lauxlib.h>
#include "host/json.h"

/* A metatable that marks tables as lists or as objects: its registry reference, and its identity (lua_topointer). */
typedef struct json_mark {
    int ref;
    const void *mt;
} json_mark;

/* What a Lua state keeps for its JSON. */
typedef struct json_state {
    json_mark array, object;
    neap_buf out; /* reused by every encode of this state */
} json_state;

json_state *json_of(lua_State *L); /* made at the first call, which may raise for lack of memory */

/* Raises on an unknown key in the options table at idx, naming the nearest of the NULL-terminated list. nil is fine. */
void json_check_options(lua_State *L, int idx, const char *const *known);

/* json.encode(v[, opts]). Upvalue 1 of every function of the module: true in the `try` view, nil, err instead of raising. */
int json_encode(lua_State *L);
#define JSON_TRY lua_upvalueindex(1)

/* [-0, +0] The value at idx (absolute) as text in the state's buffer, valid until the next encode. Raises as json.encode does. */
const neap_buf *json_write(lua_State *L, int idx);

/* [-0, +1] One JSON text: pushes its value and returns 1, or an error object and returns 0. The text must stay as it is during the call. */
int json_read(lua_State *L, const char *s, size_t n);
#endif
