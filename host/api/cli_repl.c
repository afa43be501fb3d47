/* cli_repl.c: stock Lua's interactive mode, line by line from stdin: expression first, continuation on incomplete
   input, _PROMPT and _PROMPT2. The friendly one is lua/neap/repl.lua; this one serves `-i` where stdin is no terminal,
   exactly as stock. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <lualib.h>
#include "host/api/cli.h"

enum { MAX_LINE = 512 };

static const char *prompt(lua_State *L, int first) {
    if (lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2") == LUA_TNIL) return first ? "> " : ">> ";
    const char *p = luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
    return p;
}

static int push_line(lua_State *L, int first) {
    char buffer[MAX_LINE];
    int top = lua_gettop(L);
    fputs(prompt(L, first), stdout);
    fflush(stdout);
    lua_settop(L, top);
    if (!fgets(buffer, sizeof buffer, stdin)) return 0;
    if (!isatty(0)) fputs(buffer, stdout); /* Debian's lua is built with readline, which echoes what does not come from a terminal */
    size_t n = strlen(buffer);
    if (n && buffer[n - 1] == '\n') buffer[--n] = 0;
    if (first && buffer[0] == '=') lua_pushfstring(L, "return %s", buffer + 1); /* as in 5.1 */
    else lua_pushlstring(L, buffer, n);
    return 1;
}

static int incomplete(lua_State *L, int st) {
    static const char mark[] = "<eof>";
    if (st != LUA_ERRSYNTAX) return 0;
    size_t n;
    const char *msg = lua_tolstring(L, -1, &n);
    if (n < sizeof mark - 1 || strcmp(msg + n - (sizeof mark - 1), mark) != 0) return 0;
    lua_pop(L, 1);
    return 1;
}

/* Reads a chunk; pushes the function. -1: end of input. */
static int load_line(lua_State *L) {
    lua_settop(L, 0);
    if (!push_line(L, 1)) return -1;
    lua_pushfstring(L, "return %s", lua_tostring(L, 1));
    if (luaL_loadbuffer(L, lua_tostring(L, 2), lua_rawlen(L, 2), "=stdin") == LUA_OK) {
        lua_replace(L, 1);
        lua_settop(L, 1);
        return LUA_OK;
    }
    lua_settop(L, 1);
    for (;;) {
        size_t n;
        const char *text = lua_tolstring(L, 1, &n);
        int st = luaL_loadbuffer(L, text, n, "=stdin");
        if (!incomplete(L, st) || !push_line(L, 0)) {
            lua_remove(L, 1);
            return st;
        }
        lua_pushliteral(L, "\n");
        lua_insert(L, -2);
        lua_concat(L, 3);
    }
}

void cli_stock_repl(lua_State *L) {
    int st;
    while ((st = load_line(L)) != -1) {
        if (st == LUA_OK) st = cli_call(L, 0, LUA_MULTRET);
        if (st != LUA_OK) {
            cli_report(L, st);
            continue;
        }
        int n = lua_gettop(L);
        if (n == 0) continue;
        luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
        lua_getglobal(L, "print");
        lua_insert(L, 1);
        if (lua_pcall(L, n, 0, 0) != LUA_OK) { fprintf(stderr, "error calling 'print' (%s)\n", lua_tostring(L, -1)); }
    }
    lua_settop(L, 0);
    fputs("\n", stdout);
    fflush(stdout);
}
