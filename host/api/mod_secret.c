/* mod_secret.c: `neap.secret`: SHA-256, random bytes, files for their owner only. What a token is, and who may do what with it, is Lua's
   business (lua/neap/tokens.lua). */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "host/api/rt.h"
#include "host/err.h"
#include "host/secret.h"
#include "host/sha256.h"

int luaopen_neap_secret(lua_State *L);

static int secret_sha256(lua_State *L) { /* text -> 64 hex digits */
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    neap_sha256 s;
    char hex[65];
    neap_sha256_init(&s);
    neap_sha256_add(&s, p, n);
    neap_sha256_hex(&s, hex);
    lua_pushlstring(L, hex, 64);
    return 1;
}

static int secret_random(lua_State *L) { /* n -> n random bytes as 2n hex digits */
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 1 && n <= 256, 1, "from 1 to 256 bytes");
    unsigned char raw[256];
    char hex[512];
    if (neap_secret_random(raw, (size_t)n)) return luaL_error(L, "the system gives no random bytes");
    for (int i = 0; i < n; i++) {
        hex[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    lua_pushlstring(L, hex, (size_t)n * 2);
    return 1;
}

static int secret_write(lua_State *L) { /* path, text: raises when it is not on disk with mode 0600 */
    size_t n;
    const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &n);
    int e = neap_secret_write(path, text, n);
    if (e == NEAP_ERR_INVALID) return luaL_error(L, "%s: the path is too long", path);
    if (e) return luaL_error(L, "%s: %s", path, strerror(errno));
    return 0;
}

#define LOCK "neap.secret.lock"

static int lock_close(lua_State *L) {
    int *fd = luaL_checkudata(L, 1, LOCK);
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return 0;
}

static int secret_lock(lua_State *L) { /* path -> lock to be closed, or nil: somebody else has it */
    const char *path = luaL_checkstring(L, 1);
    int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
    *fd = -1;
    luaL_setmetatable(L, LOCK);
    int e = neap_secret_lock(path, fd);
    if (e == NEAP_ERR_FULL) lua_pushnil(L);
    else if (e) return luaL_error(L, "%s: %s", path, strerror(errno));
    return 1;
}

static const luaL_Reg functions[] = {
    {"lock", secret_lock}, {"sha256", secret_sha256}, {"random", secret_random}, {"write", secret_write}, {NULL, NULL}};

int luaopen_neap_secret(lua_State *L) {
    static const luaL_Reg lock_meta[] = {{"__gc", lock_close}, {"__close", lock_close}, {NULL, NULL}};
    if (luaL_newmetatable(L, LOCK)) luaL_setfuncs(L, lock_meta, 0);
    luaL_newlib(L, functions);
    return 1;
}
