/* modules.c: the one list of C modules. Each stands in package.preload under its full name and is opened by the first
   require; opening does no I/O. Where a Lua file lua/neap/NAME.lua gives the module its face, its C half is called
   neap.NAME.core. */
#include <string.h>
#include "host/api/rt_internal.h"

int luaopen_neap(lua_State *L);
int luaopen_neap_decode(lua_State *L);
int luaopen_neap_journal_core(lua_State *L);
int luaopen_neap_json(lua_State *L);
int luaopen_neap_task_core(lua_State *L);
int luaopen_neap_worker_core(lua_State *L);
int luaopen_neap_process_core(lua_State *L);
int luaopen_neap_detector_core(lua_State *L);
int luaopen_neap_edit(lua_State *L);
int luaopen_neap_control(lua_State *L);
int luaopen_neap_keys(lua_State *L);
int luaopen_neap_http_core(lua_State *L);
int luaopen_neap_http_client_core(lua_State *L);
int luaopen_neap_redis_core(lua_State *L);
int luaopen_neap_tensor(lua_State *L);
int luaopen_neap_mlp_core(lua_State *L);
int luaopen_neap_secret(lua_State *L);
int luaopen_neap_ratelimit_core(lua_State *L);

static const luaL_Reg modules[] = {
    {"neap", luaopen_neap},
    {"neap.decode", luaopen_neap_decode},
    {"neap.journal.core", luaopen_neap_journal_core},
    {"neap.json", luaopen_neap_json},
    {"neap.task.core", luaopen_neap_task_core},
    {"neap.worker.core", luaopen_neap_worker_core},
    {"neap.process.core", luaopen_neap_process_core},
    {"neap.detector.core", luaopen_neap_detector_core},
    {"neap.edit", luaopen_neap_edit},
    {"neap.control", luaopen_neap_control},
    {"neap.keys", luaopen_neap_keys},
    {"neap.http.core", luaopen_neap_http_core},
    {"neap.http.client_core", luaopen_neap_http_client_core},
    {"neap.redis.core", luaopen_neap_redis_core},
    {"neap.tensor", luaopen_neap_tensor},
    {"neap.mlp.core", luaopen_neap_mlp_core},
    {"neap.secret", luaopen_neap_secret},
    {"neap.ratelimit.core", luaopen_neap_ratelimit_core},
    {NULL, NULL},
};

void ext_api_install(lua_State *L);

void modules_install(lua_State *L) {
    ext_api_install(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(L, modules, 0);
    lua_pop(L, 1);
}
