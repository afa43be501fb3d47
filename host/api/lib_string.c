/* lib_string.c: string.find, match, gmatch and gsub on pattern.c, in the place of stock Lua's: same results, same errors, but a match that would
   run for ever is stopped with its task (watchdog.c). */
#include <string.h>
#include "host/api/pattern.h"
#include "host/api/rt_internal.h"

/* The 0-based start that argument `arg` means in a text of len bytes; may lie behind its end. */
static size_t start_of(lua_State *L, int arg, size_t len) {
    lua_Integer i = luaL_optinteger(L, arg, 1);
    if (i > 0) return (size_t)i - 1;
    if (i == 0 || i < -(lua_Integer)len) return 0;
    return len + (size_t)i;
}

static int is_plain(const char *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (p[i] && strchr("^$*+?.([%-", p[i])) return 0;
    return 1;
}

static int find_or_match(lua_State *L, int find) {
    size_t len, plen;
    const char *text = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &plen);
    size_t start = start_of(L, 3, len);
    if (start > len) {
        luaL_pushfail(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(p, plen))) { /* memmem is linear whatever the texts are */
        const char *at = memmem(text + start, len - start, p, plen);
        if (at) {
            lua_pushinteger(L, at - text + 1);
            lua_pushinteger(L, at - text + (lua_Integer)plen);
            return 2;
        }
        luaL_pushfail(L);
        return 1;
    }
    pattern m;
    int anchored = plen > 0 && *p == '^';
    pattern_init(&m, L, text, len, p, plen);
    p += anchored;
    const char *s = text + start;
    for (; anchored || (s = pattern_next(&m, s, p)) <= m.text_end; s++) {
        const char *e = pattern_match(&m, s, p);
        if (e) {
            if (!find) return pattern_push(&m, s, e);
            lua_pushinteger(L, s - text + 1);
            lua_pushinteger(L, e - text);
            return pattern_push(&m, NULL, NULL) + 2;
        }
        if (anchored) break;
    }
    luaL_pushfail(L);
    return 1;
}

static int str_find(lua_State *L) { return find_or_match(L, 1); }
static int str_match(lua_State *L) { return find_or_match(L, 0); }

/* ---- gmatch ---------------------------------------------------------------------------------------------------------- */
typedef struct walk {
    const char *at, *pat, *last; /* last: the end of the match before, which an empty match must not repeat */
    pattern m;
} walk;

static int gmatch_step(lua_State *L) { /* upvalues: text, pattern, walk */
    walk *w = lua_touserdata(L, lua_upvalueindex(3));
    w->m.L = L;
    const char *s = w->at;
    for (; (s = pattern_next(&w->m, s, w->pat)) <= w->m.text_end; s++) {
        const char *e = pattern_match(&w->m, s, w->pat);
        if (e && e != w->last) {
            w->at = w->last = e;
            return pattern_push(&w->m, s, e);
        }
    }
    w->at = w->m.text_end + 1;
    return 0;
}

static int str_gmatch(lua_State *L) {
    size_t len, plen;
    const char *text = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &plen);
    size_t start = start_of(L, 3, len);
    lua_settop(L, 2);
    walk *w = lua_newuserdatauv(L, sizeof *w, 0);
    pattern_init(&w->m, L, text, len, p, plen);
    w->pat = p;
    w->last = NULL;
    w->at = text + (start > len ? len + 1 : start);
    lua_pushcclosure(L, gmatch_step, 3);
    return 1;
}

/* ---- gsub ------------------------------------------------------------------------------------------------------------- */
/* Adds the replacement string (argument 3) for the match s..e. */
static void add_template(pattern *m, luaL_Buffer *b, const char *s, const char *e) {
    lua_State *L = m->L;
    size_t len;
    const char *r = lua_tolstring(L, 3, &len), *end = r + len;
    for (const char *mark; (mark = memchr(r, '%', (size_t)(end - r))); r = mark + 2) {
        luaL_addlstring(b, r, (size_t)(mark - r));
        char c = mark[1]; /* a string ends with a NUL: reading one further is fine */
        if (c == '%') luaL_addchar(b, '%');
        else if (c == '0') luaL_addlstring(b, s, (size_t)(e - s));
        else if (c >= '1' && c <= '9') {
            ptrdiff_t n;
            const char *at = pattern_capture(m, c - '1', s, e, &n);
            if (n == CAPTURE_POSITION) luaL_addvalue(b);
            else luaL_addlstring(b, at, (size_t)n);
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
    }
    luaL_addlstring(b, r, (size_t)(end - r));
}

/* Adds what replaces the match s..e. Returns 0 when that is the match itself. */
static int add_replacement(pattern *m, luaL_Buffer *b, const char *s, const char *e, int type) {
    lua_State *L = m->L;
    if (type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        int n = pattern_push(m, s, e);
        lua_call(L, n, 1);
    } else if (type == LUA_TTABLE) {
        ptrdiff_t len;
        const char *at = pattern_capture(m, 0, s, e, &len);
        if (len != CAPTURE_POSITION) lua_pushlstring(L, at, (size_t)len);
        lua_gettable(L, 3);
    } else {
        add_template(m, b, s, e);
        return 1;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(b, s, (size_t)(e - s));
        return 0;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(b);
    return 1;
}

static int str_gsub(lua_State *L) {
    size_t len, plen;
    const char *text = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &plen), *last = NULL;
    int type = lua_type(L, 3);
    lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)len + 1), n = 0;
    int anchored = plen > 0 && *p == '^', changed = 0;
    luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TTABLE || type == LUA_TFUNCTION, 3, "string/function/table");
    if (type == LUA_TNUMBER) lua_tostring(L, 3);
    pattern m;
    luaL_Buffer b;
    pattern_init(&m, L, text, len, p, plen);
    p += anchored;
    luaL_buffinit(L, &b);
    const char *s = text;
    while (n < most) {
        const char *at = anchored ? s : pattern_next(&m, s, p);
        if (at > m.text_end) break;
        luaL_addlstring(&b, s, (size_t)(at - s));
        s = at;
        const char *e = pattern_match(&m, s, p);
        if (e && e != last) {
            n++;
            changed |= add_replacement(&m, &b, s, e, type);
            s = last = e;
        } else if (s < m.text_end) {
            luaL_addchar(&b, *s);
            s++;
        } else {
            break;
        }
        if (anchored) break;
    }
    if (changed) {
        luaL_addlstring(&b, s, (size_t)(m.text_end - s));
        luaL_pushresult(&b);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, n);
    return 2;
}

void lib_string_install(lua_State *L) {
    static const luaL_Reg fns[] = {{"find", str_find}, {"match", str_match}, {"gmatch", str_gmatch}, {"gsub", str_gsub}, {NULL, NULL}};
    lua_getglobal(L, "string");
    luaL_setfuncs(L, fns, 0);
    lua_pop(L, 1);
}
