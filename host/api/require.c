/* require.c: `require` that may wait, and the one extra searcher. package.path and cpath stay stock; what stock Lua
   does not find is looked for in NEAP_PATH, the project's lua/ and lua_modules/, LuaRocks' trees, the source checkout
   the binary runs from, and the copy inside the binary. One load per name is in flight at a time: other tasks wait for
   it, a cycle raises. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <limits.h>
#include "host/embed.h"
#include "host/api/rt_internal.h"

#define LOADING    "neap.loading"       /* registry: name -> guard of the load in flight */
#define GUARD_META "neap.loading.guard" /* metatable of the guards */

typedef struct loading {
    lua_State *owner; /* the thread that loads */
    rt_task *task;
    rt_wait *waiters[16]; /* other tasks that want the module too */
    int n;
} loading;

/* ---- the searcher ---------------------------------------------------------------------------------------------------
 */
/* Is there a readable file? */
static int readable(const char *path) { return access(path, R_OK) == 0; }

/* Tries each template of a path list ("a/?.lua;b/?/init.lua"); pushes the file name found. */
static int search_templates(lua_State *L, const char *name, const char *templates) {
    const char *file = luaL_gsub(L, name, ".", "/");
    while (*templates) {
        const char *end = strchr(templates, ';');
        size_t n = end ? (size_t)(end - templates) : strlen(templates);
        lua_pushlstring(L, templates, n);
        const char *path = luaL_gsub(L, lua_tostring(L, -1), "?", file);
        if (readable(path)) {
            lua_replace(L, -3);
            lua_pop(L, 1);
            return 1;
        }
        lua_pop(L, 2);
        templates += n + (end != NULL);
    }
    lua_pop(L, 1);
    return 0;
}

static const struct neap_embedded_file *find_embedded(const char *path) {
    for (const struct neap_embedded_file *f = neap_embedded; f->name; f++)
        if (strcmp(f->name, path) == 0) return f;
    return NULL;
}

static int load_embedded(lua_State *L, const char *name, const char *format) {
    const char *path = lua_pushfstring(L, format, luaL_gsub(L, name, ".", "/"));
    lua_remove(L, -2);
    const struct neap_embedded_file *f = find_embedded(path);
    if (!f) {
        lua_pop(L, 1);
        return 0;
    }
    lua_pushfstring(L, "@%s", path);
    if (luaL_loadbufferx(L, f->data, f->len, lua_tostring(L, -1), "t") != LUA_OK) return lua_error(L);
    lua_insert(L, -3);
    lua_pop(L, 1);
    return 2; /* loader, path */
}

static int searcher(lua_State *L) { /* upvalues: Lua templates, C templates */
    const char *name = luaL_checkstring(L, 1);
    if (search_templates(L, name, lua_tostring(L, lua_upvalueindex(1)))) {
        const char *path = lua_tostring(L, -1);
        if (luaL_loadfilex(L, path, "t") != LUA_OK)
            return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path, lua_tostring(L, -1));
        lua_insert(L, -2);
        return 2;
    }
    int n = load_embedded(L, name, "lua/%s.lua");
    if (!n) n = load_embedded(L, name, "lua/%s/init.lua");
    if (n) return n;
    if (search_templates(L, name, lua_tostring(L, lua_upvalueindex(2)))) {
        const char *path = lua_tostring(L, -1);
        const char *dash = strchr(name, '-'); /* "v2-mod" opens luaopen_mod, as stock */
        const char *open = luaL_gsub(L, dash ? dash + 1 : name, ".", "_");
        open = lua_pushfstring(L, "luaopen_%s", open);
        lua_getglobal(L, "package");
        lua_getfield(L, -1, "loadlib");
        lua_pushstring(L, path);
        lua_pushstring(L, open);
        lua_call(L, 2, 2);
        if (lua_isnil(L, -2)) return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path, lua_tostring(L, -1));
        lua_pop(L, 1);
        lua_pushstring(L, path);
        return 2;
    }
    lua_pushnil(L);
    return 1;
}

/* Appends "DIR/lua/?.lua;DIR/lua/?/init.lua;" and the like. */
static void add_tree(lua_State *L, const char *dir, const char *lua_sub, const char *c_sub) {
    lua_pushvalue(L, -2);
    lua_pushfstring(L, "%s%s/?.lua;%s%s/?/init.lua;", dir, lua_sub, dir, lua_sub);
    lua_concat(L, 2);
    lua_replace(L, -3);
    if (c_sub) {
        lua_pushfstring(L, "%s%s/?.so;", dir, c_sub);
        lua_concat(L, 2);
    }
}

/* The source checkout this binary was built in ("" if none): the nearest parent of the executable that holds
 * host/api/rt.h and lua/neap. */
static const char *push_source_root(lua_State *L) {
    char path[PATH_MAX], probe[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) {
        path[n] = 0;
        for (int up = 0; up < 4; up++) {
            char *slash = strrchr(path, '/');
            if (!slash) break;
            *slash = 0;
            snprintf(probe, sizeof probe, "%s/host/api/rt.h", path);
            if (readable(probe)) return lua_pushstring(L, path);
        }
    }
    return lua_pushliteral(L, "");
}

/* Pushes the project directory: the nearest parent of the working directory with a *.rockspec-carrying project mark
 * (lua_modules), or "". */
static const char *push_project(lua_State *L) {
    char dir[PATH_MAX], probe[PATH_MAX + 32];
    if (getcwd(dir, sizeof dir - 32)) {
        while (*dir) {
            snprintf(probe, sizeof probe, "%s/lua_modules", dir);
            if (readable(probe)) return lua_pushstring(L, dir);
            *strrchr(dir, '/') = 0;
        }
    }
    return lua_pushliteral(L, "");
}

static void push_searcher(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    int env = !lua_toboolean(L, -1);
    lua_pop(L, 1);
    const char *extra = env ? getenv("NEAP_PATH") : NULL, *home = env ? getenv("HOME") : NULL;
    lua_getfield(L, LUA_REGISTRYINDEX, "neap.root");
    const char *root = lua_tostring(L, -1), *project = push_project(L);
    lua_pushliteral(L, "");
    lua_pushliteral(L, "");
    if (extra && *extra) {
        const char *p = extra;
        while (*p) { /* directories, parted by ':' or ';' */
            size_t n = strcspn(p, ":;");
            if (n) {
                lua_pushlstring(L, p, n);
                const char *dir = lua_tostring(L, -1);
                lua_insert(L, -3);
                add_tree(L, dir, "", "");
                lua_remove(L, -3);
            }
            p += n + (p[n] != 0);
        }
    }
    if (*project) {
        add_tree(L, project, "/lua", NULL);
        add_tree(L, project, "/lua_modules/share/lua/5.4", "/lua_modules/lib/lua/5.4");
    }
    if (*root) add_tree(L, root, "/lua", NULL);
    if (home) {
        lua_pushfstring(L, "%s/.luarocks", home);
        const char *dir = lua_tostring(L, -1);
        lua_insert(L, -3);
        add_tree(L, dir, "/share/lua/5.4", "/lib/lua/5.4");
        lua_remove(L, -3);
    }
    add_tree(L, "/usr/local", "/share/lua/5.4", "/lib/lua/5.4");
    lua_pushcclosure(L, searcher, 2);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* ---- require --------------------------------------------------------------------------------------------------------
 */
static int loading_close(lua_State *L) { /* __close and __gc: the load is over, well or not */
    loading *ld = lua_touserdata(L, 1);
    for (int i = 0; i < ld->n; i++) wait_done(ld->waiters[i], 0, NULL, NULL);
    ld->n = 0;
    if (ld->owner) {
        ld->owner = NULL;
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LOADING);
        lua_getiuservalue(L, 1, 1);
        lua_pushnil(L);
        lua_rawset(L, -3);
    }
    return 0;
}

static int l_require(lua_State *L);
static int joined(lua_State *L, int status, lua_KContext ctx) {
    lua_settop(L, 1);
    return l_require(L); /* loaded now, or ours to try */
}

static int loaded(lua_State *L, int status, lua_KContext ctx) { /* stack: name, LOADED, guard, loader data, result */
    const char *name = lua_tostring(L, 1);
    if (!lua_isnil(L, -1)) lua_setfield(L, 2, name);
    else lua_pop(L, 1);
    if (lua_getfield(L, 2, name) == LUA_TNIL) {
        lua_pushboolean(L, 1);
        lua_copy(L, -1, -2);
        lua_setfield(L, 2, name);
    }
    lua_pushvalue(L, 4);
    return 2;
}

/* find_loader(name) -> loader, data. Upvalue: the package table. A function of its own, because the buffer's box must
 * not move on the stack. */
static int find_loader(lua_State *L) {
    const char *name = lua_tostring(L, 1);
    luaL_Buffer places;
    if (lua_getfield(L, lua_upvalueindex(1), "searchers") != LUA_TTABLE) return luaL_error(L, "'package.searchers' must be a table");
    luaL_buffinit(L, &places);
    for (int i = 1;; i++) {
        luaL_addstring(&places, "\n\t");
        if (lua_rawgeti(L, 2, i) == LUA_TNIL) {
            lua_pop(L, 1);
            luaL_buffsub(&places, 2);
            luaL_pushresult(&places);
            return luaL_error(L, "module '%s' not found:%s", name, lua_tostring(L, -1));
        }
        lua_pushstring(L, name);
        lua_call(L, 1, 2);
        if (lua_isfunction(L, -2)) return 2;
        if (lua_isstring(L, -2)) {
            lua_pop(L, 1);
            luaL_addvalue(&places);
        } else {
            lua_pop(L, 2);
            luaL_buffsub(&places, 2);
        }
    }
}

static int l_require(lua_State *L) { /* upvalue: the package table */
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, 2, name), lua_toboolean(L, -1)) return 1;
    lua_pop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LOADING);
    if (lua_getfield(L, 3, name) == LUA_TUSERDATA) {
        loading *ld = lua_touserdata(L, -1);
        rt *R = rt_of(L);
        if (ld->task == R->running) { return luaL_error(L, "module '%s' requires itself in a loop", name); }
        if (ld->n == 16) return luaL_error(L, "module '%s' is being loaded and too many tasks wait for it", name);
        rt_wait *w = wait_new(L, "require", -1);
        ld->waiters[ld->n++] = wait_ref(w);
        return wait_park(L, w, joined);
    }
    lua_settop(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, find_loader, 1);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 2); /* stack: name, LOADED, loader, loader data */
    loading *ld = lua_newuserdatauv(L, sizeof *ld, 1);
    memset(ld, 0, sizeof *ld);
    if (luaL_newmetatable(L, GUARD_META)) {
        lua_pushcfunction(L, loading_close);
        lua_setfield(L, -2, "__close");
        lua_pushcfunction(L, loading_close);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_insert(L, 3); /* name, LOADED, guard, loader, data */
    lua_toclose(L, 3);
    ld->owner = L;
    ld->task = rt_of(L)->running;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LOADING);
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
    lua_insert(L, 4); /* name, LOADED, guard, data, loader */
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 4); /* loader(name, data) */
    lua_callk(L, 2, 1, 0, loaded);
    return loaded(L, LUA_OK, 0);
}

void require_install(lua_State *L) {
    push_source_root(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "neap.root");
    lua_getglobal(L, "package");
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, l_require, 1);
    lua_setglobal(L, "require");
    lua_getfield(L, -1, "searchers");
    push_searcher(L);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 2);
}
