/* cli.c: stock Lua 5.4's command line (options, LUA_INIT, arg, piped stdin, messages, exit codes), plus commands: a
   bare word that names a script in scripts/ runs it (`neap train`); `./train` is a file. On a terminal without a script
   the friendly REPL starts. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <lualib.h>
#include "host/embed.h"
#include "host/api/cli.h"

enum { OPT_I = 1, OPT_V = 2, OPT_E = 4, OPT_NOENV = 8, OPT_BAD = 16, OPT_HELP = 32, OPT_VERSION = 64 };

typedef struct cli {
    rt *R;
    int argc;
    char **argv;
    int options, script; /* index of the script in argv, argc if none; of the bad option with OPT_BAD */
    int ok;
} cli;

static const char *progname = "neap"; /* set once, before any thread starts */
static rt *interrupt_target;          /* the runtime that Ctrl-C stops */

/* ---- messages -------------------------------------------------------------------------------------------------------
 */
static void message(const char *msg) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", progname, msg);
    fflush(stderr);
}

static void usage(const char *bad) {
    fprintf(stderr, "%s: ", progname);
    if (bad[1] == 'e' || bad[1] == 'l') fprintf(stderr, "'%s' needs argument\n", bad);
    else fprintf(stderr, "unrecognized option '%s'\n", bad);
    static const char *const longs[] = {"--help", "--version", NULL};
    const char *near = strncmp(bad, "--", 2) == 0 ? err_nearest(bad, longs) : NULL;
    if (near) fprintf(stderr, "did you mean '%s'?\n", near);
    fprintf(stderr,
            "usage: %s [options] [script [args]] | %s COMMAND [args]\n"
            "  -e stat   execute string 'stat'\n"
            "  -i        enter interactive mode after executing 'script'\n"
            "  -l mod    require library 'mod' into global 'mod'\n"
            "  -l g=mod  require library 'mod' into global 'g'\n"
            "  -v        show version information\n"
            "  -E        ignore environment variables\n"
            "  -W        turn warnings on\n"
            "  --        stop handling options\n"
            "  -         stop handling options and execute stdin\n"
            "  --help    the commands (also: %s help)\n",
            progname, progname, progname);
}

static int handler(lua_State *L) { /* message handler: adds the traceback */
    const char *msg = lua_tostring(L, 1);
    if (!msg) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) msg = lua_tostring(L, -1);
        else msg = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
        if (lua_type(L, 1) != LUA_TTABLE) return 1;
    }
    luaL_traceback(L, L, msg, 1);
    return 1;
}

static void on_sigint(int sig) {
    signal(sig, SIG_DFL); /* a second one ends the process */
    if (interrupt_target) rt_interrupt(interrupt_target);
}

int cli_call(lua_State *L, int nargs, int nres) {
    int base = lua_gettop(L) - nargs;
    lua_pushcfunction(L, handler);
    lua_insert(L, base);
    interrupt_target = rt_of(L);
    signal(SIGINT, on_sigint);
    int st = lua_pcall(L, nargs, nres, base);
    signal(SIGINT, SIG_DFL);
    lua_remove(L, base);
    return st;
}

int cli_report(lua_State *L, int st) {
    if (st != LUA_OK) {
        const char *msg = lua_tostring(L, -1);
        message(msg ? msg : "(error message is not a string)");
        lua_pop(L, 1);
    }
    return st;
}

/* ---- arguments ------------------------------------------------------------------------------------------------------
 */
static void parse(cli *c) {
    int i;
    for (i = 1; i < c->argc; i++) {
        const char *a = c->argv[i];
        c->script = i;
        if (a[0] != '-') return;
        switch (a[1]) {
        case '-':
            if (strcmp(a, "--help") == 0) c->options |= OPT_HELP;
            else if (strcmp(a, "--version") == 0) c->options |= OPT_VERSION;
            else if (a[2]) c->options |= OPT_BAD;
            else c->script = i + 1;
            return;
        case 0: return; /* "-": stdin */
        case 'E':
            if (a[2]) goto bad;
            c->options |= OPT_NOENV;
            break;
        case 'i':
            c->options |= OPT_I | OPT_V;
            if (a[2]) goto bad;
            break;
        case 'v':
            if (a[2]) goto bad;
            c->options |= OPT_V;
            break;
        case 'W':
            if (a[2]) goto bad;
            break;
        case 'e': c->options |= OPT_E; /* fall through */
        case 'l':
            if (!a[2] && (!c->argv[++i] || c->argv[i][0] == '-')) goto bad;
            break;
        default: goto bad;
        }
    }
    c->script = i;
    return;
bad:
    c->options |= OPT_BAD;
}

static void set_arg_table(lua_State *L, cli *c) {
    int script = c->script == c->argc ? 0 : c->script; /* no script: the interpreter's name is arg[0] */
    lua_createtable(L, c->argc - (script + 1), script + 1);
    for (int i = 0; i < c->argc; i++) {
        lua_pushstring(L, c->argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static int push_args(lua_State *L) {
    if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
    int n = (int)luaL_len(L, -1);
    luaL_checkstack(L, n + 3, "too many arguments to script");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
    lua_remove(L, -(n + 1));
    return n;
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */
static int run_chunk(lua_State *L, int st) {
    if (st == LUA_OK) st = cli_call(L, 0, 0);
    return cli_report(L, st);
}

static int run_library(lua_State *L, char *spec) { /* mod or g=mod */
    char *eq = strchr(spec, '=');
    const char *name = eq ? eq + 1 : spec;
    if (eq) *eq = 0;
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    int st = cli_call(L, 1, 1);
    if (st == LUA_OK) lua_setglobal(L, spec);
    if (eq) *eq = '=';
    return cli_report(L, st);
}

static int run_options(lua_State *L, cli *c) {
    for (int i = 1; i < c->script; i++) {
        char o = c->argv[i][1];
        if (o == 'W') {
            lua_warning(L, "@on", 0);
        } else if (o == 'e' || o == 'l') {
            char *extra = c->argv[i] + 2;
            if (!*extra) extra = c->argv[++i];
            int st = o == 'e' ? run_chunk(L, luaL_loadbuffer(L, extra, strlen(extra), "=(command line)")) : run_library(L, extra);
            if (st != LUA_OK) return 0;
        }
    }
    return 1;
}

static int run_init(lua_State *L) {
    const char *name = "=LUA_INIT_5_4", *init = getenv(name + 1);
    if (!init) init = getenv((name = "=LUA_INIT") + 1);
    if (!init) return LUA_OK;
    if (init[0] == '@') return run_chunk(L, luaL_loadfile(L, init + 1));
    return run_chunk(L, luaL_loadbuffer(L, init, strlen(init), name));
}

/* A command that a rock brought: the module neap.cmd.NAME, found by require's searchers and run as a script. */
static int load_rock_command(lua_State *L, const char *name, int *st) {
    int top = lua_gettop(L);
    lua_getglobal(L, "package");
    if (!lua_istable(L, -1) || lua_getfield(L, -1, "searchers") != LUA_TTABLE) {
        lua_settop(L, top);
        return 0;
    }
    for (int i = 1; lua_rawgeti(L, top + 2, i) != LUA_TNIL; i++) {
        lua_pushfstring(L, "neap.cmd.%s", name);
        *st = lua_pcall(L, 1, 1, 0); /* found, but it does not compile: that is the answer */
        if (*st != LUA_OK || lua_isfunction(L, -1)) {
            lua_replace(L, top + 1);
            lua_settop(L, top + 1);
            return 1;
        }
        lua_pop(L, 1);
    }
    lua_settop(L, top);
    return 0;
}

/* Whether a file of scripts/ is a command: its first line says "neap NAME". The others are settings, such as sensors.lua. */
static int is_command(const struct neap_embedded_file *f) {
    char name[64], first[80];
    if (sscanf(f->name, "scripts/%63[a-z_].lua", name) != 1 || strchr(f->name + 8, '/')) return 0;
    snprintf(first, sizeof first, "neap %s", name);
    const char *data = (const char *)f->data;
    size_t n = strlen(first), skip = 0;
    while (skip < f->len && (data[skip] == '-' || data[skip] == ' ')) skip++;
    return f->len - skip > n && memcmp(data + skip, first, n) == 0;
}

/* Pushes the loaded chunk of a command, or returns 0. A checkout's own file wins over the one in the binary. */
static int load_command(lua_State *L, const char *name, int *st) {
    if (!*name || strpbrk(name, "./\\-")) return 0;
    char file[256];
    snprintf(file, sizeof file, "scripts/%.200s.lua", name);
    for (const struct neap_embedded_file *f = neap_embedded; f->name; f++)
        if (strcmp(f->name, file) == 0 && !is_command(f)) return 0; /* scripts/sensors.lua is settings */
    lua_getfield(L, LUA_REGISTRYINDEX, "neap.root");
    const char *root = lua_tostring(L, -1);
    char path[1200];
    snprintf(path, sizeof path, "%s/scripts/%.200s.lua", root && *root ? root : "/nowhere", name);
    lua_pop(L, 1);
    if (access(path, R_OK) == 0) {
        *st = luaL_loadfilex(L, path, "t");
        return 1;
    }
    snprintf(path, sizeof path, "scripts/%.200s.lua", name);
    for (const struct neap_embedded_file *f = neap_embedded; f->name; f++)
        if (strcmp(f->name, path) == 0) {
            lua_pushfstring(L, "@%s", path);
            *st = luaL_loadbufferx(L, f->data, f->len, lua_tostring(L, -1), "t");
            lua_remove(L, -2);
            return 1;
        }
    return load_rock_command(L, name, st);
}

static void hint_command(const char *name) {
    const char *list[128], *best;
    char names[128][64];
    int n = 0;
    for (const struct neap_embedded_file *f = neap_embedded; f->name && n < 127; f++)
        if (is_command(f)) {
            sscanf(f->name, "scripts/%63[a-z_].lua", names[n]);
            list[n] = names[n];
            n++;
        }
    list[n] = NULL;
    best = strpbrk(name, "./") ? NULL : err_nearest(name, list);
    if (best) fprintf(stderr, "neap: there is no command '%s'; did you mean 'neap %s'?\n", name, best);
    else if (!strpbrk(name, "./")) fprintf(stderr, "neap: '%s' is neither a file nor a command; 'neap help' lists the commands\n", name);
}

static int run_script(lua_State *L, cli *c) {
    const char *name = c->argv[c->script];
    int st, stdin_script = strcmp(name, "-") == 0 && strcmp(c->argv[c->script - 1], "--") != 0;
    if (stdin_script || !load_command(L, name, &st)) {
        st = luaL_loadfile(L, stdin_script ? NULL : name);
        if (st == LUA_ERRFILE) hint_command(name);
    }
    if (st == LUA_OK) {
        int n = push_args(L);
        st = cli_call(L, n, LUA_MULTRET);
    }
    return cli_report(L, st);
}

static int run_command(lua_State *L, const char *name) {
    int st;
    if (!load_command(L, name, &st)) return LUA_ERRFILE;
    return run_chunk(L, st);
}

static void print_version(int ours) { /* -v prints stock's line, --version ours too */
    if (ours) printf("neap %s\n", NEAP_VERSION);
    printf("%s\n", LUA_COPYRIGHT);
    fflush(stdout);
}

static int pmain(lua_State *L) {
    cli *c = lua_touserdata(L, 1);
    if (c->options & OPT_V) print_version(0);
    set_arg_table(L, c);
    lua_gc(L, LUA_GCGEN, 0, 0);
    if (!(c->options & OPT_NOENV) && run_init(L) != LUA_OK) return 0;
    if (!run_options(L, c)) return 0;
    int has_script = c->script < c->argc, tty = isatty(0);
    if (has_script && run_script(L, c) != LUA_OK) return 0;
    if (c->options & OPT_I) {
        if (!tty || run_command(L, "repl") == LUA_ERRFILE) cli_stock_repl(L);
    } else if (!has_script && !(c->options & (OPT_E | OPT_V))) {
        if (tty) {
            if (run_command(L, "repl") == LUA_ERRFILE) print_version(0), cli_stock_repl(L);
        } else if (run_chunk(L, luaL_loadfile(L, NULL)) != LUA_OK) { /* stock ignores this status; so do its users' scripts */
        }
    }
    c->ok = 1;
    return 0;
}

/* The script is over; what it left running goes on until nothing is pending. */
static int run_pending(rt *R) {
    signal(SIGINT, on_sigint);
    R->interrupted = 0;
    do { uv_run(R->loop, UV_RUN_DEFAULT); } while (!R->interrupted && !R->stopping && (R->ready || uv_loop_alive(R->loop)));
    signal(SIGINT, SIG_DFL);
    if (R->interrupted) message("interrupted!");
    return !R->interrupted;
}

int cli_main(int argc, char **argv) {
    cli c = {.argc = argc, .argv = argv, .script = argc};
    if (argv[0] && argv[0][0]) progname = argv[0];
    parse(&c);
    if (c.options & OPT_BAD) {
        usage(argv[c.script]);
        return 1;
    }
    if (c.options & OPT_VERSION) {
        print_version(1);
        return 0;
    }
    char *help_argv[] = {argv[0], "help", NULL};
    if (c.options & OPT_HELP) c.argv = help_argv, c.argc = 2, c.script = 1, c.options = 0;
    signal(SIGPIPE, SIG_IGN);
    rt *R = rt_new(&(rt_options){.noenv = c.options & OPT_NOENV});
    if (!R) {
        message("cannot create state: not enough memory");
        return 1;
    }
    c.R = R;
    lua_pushcfunction(R->L, pmain);
    lua_pushlightuserdata(R->L, &c);
    int st = cli_report(R->L, lua_pcall(R->L, 1, 0, 0));
    int ok = st == LUA_OK && c.ok && run_pending(R) && !R->failed;
    if (rt_close(R)) { /* a thread sits in a C call that nobody can end: no destructors under its feet */
        fflush(NULL);
        _exit(ok ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
