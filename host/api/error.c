/* error.c: error objects. Misuse raises a string at the caller's line; life's accidents raise a table with this
 * metatable. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <stdlib.h>
#include "host/api/rt_internal.h"

#define ERROR_META "neap.error"

static int error_tostring(lua_State *L) {
    lua_getfield(L, 1, "message");
    if (!lua_isstring(L, -1)) lua_pushliteral(L, "error");
    return 1;
}

void err_init(lua_State *L) {
    luaL_newmetatable(L, ERROR_META);
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "neap.error");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
}

/* [-1, +1]: the message on top becomes an error object. */
static void wrap_message(lua_State *L, const rt_error *e) {
    lua_createtable(L, 0, 5);
    lua_insert(L, -2);
    if (e->where) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    lua_setfield(L, -2, "message");
    lua_pushstring(L, e->kind);
    lua_setfield(L, -2, "kind");
    lua_pushboolean(L, e->retryable);
    lua_setfield(L, -2, "retryable");
    if (e->sent >= 0) {
        lua_pushboolean(L, e->sent);
        lua_setfield(L, -2, "sent");
    }
    luaL_setmetatable(L, ERROR_META);
}

void err_push(lua_State *L, const rt_error *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    wrap_message(L, e);
}

int err_raise(lua_State *L, const rt_error *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    wrap_message(L, e);
    return lua_error(L);
}

int err_code(lua_State *L, int code, const char *fmt, ...) {
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    if (code == NEAP_ERR_IO && saved) {
        lua_pushfstring(L, ": %s", strerror(saved));
        lua_concat(L, 2);
    }
    int retryable = code == NEAP_ERR_TIMEOUT || code == NEAP_ERR_CONNECTION || code == NEAP_ERR_FULL;
    rt_error e = {neap_err_kind(code), retryable, -1, 0};
    wrap_message(L, &e);
    return lua_error(L);
}

int err_is(lua_State *L, int idx, const char *kind) {
    idx = lua_absindex(L, idx);
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return 0;
    luaL_getmetatable(L, ERROR_META);
    int same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!same) return 0;
    lua_getfield(L, idx, "kind");
    const char *k = lua_tostring(L, -1);
    int yes = k && strcmp(k, kind) == 0;
    lua_pop(L, 1);
    return yes;
}

/* Edit distance with insertion, deletion, substitution and neighbour swap at cost 1 (optimal string alignment), in any case of letters. */
static int distance(const char *a, const char *b) {
    enum { MAX = 40 };
    int la = (int)strlen(a), lb = (int)strlen(b), row[3][MAX + 1];
    if (la > MAX || lb > MAX) return MAX;
#define SAME(i, j) (tolower((unsigned char)a[i]) == tolower((unsigned char)b[j]))
    for (int j = 0; j <= lb; j++) row[0][j] = j;
    for (int i = 1; i <= la; i++) {
        int *cur = row[i % 3], *up = row[(i - 1) % 3], *up2 = row[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= lb; j++) {
            int best = up[j - 1] + !SAME(i - 1, j - 1);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            if (i > 1 && j > 1 && SAME(i - 1, j - 2) && SAME(i - 2, j - 1) && up2[j - 2] + 1 < best) best = up2[j - 2] + 1;
            cur[j] = best;
        }
    }
#undef SAME
    return row[la % 3][lb];
}

const char *err_nearest(const char *name, const char *const *list) {
    const char *best = NULL;
    int best_d = INT_MAX, n = (int)strlen(name);
    for (; *list; list++) {
        int len = (int)strlen(*list), longer = len > n ? len : n, d = distance(name, *list);
        if (n >= 3 && len > n && !strncmp(name, *list, (size_t)n)) d = 1; /* its beginning */
        if (d <= longer / 3 && d < best_d) best = *list, best_d = d;
    }
    return best;
}
