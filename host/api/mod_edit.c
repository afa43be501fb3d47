/* mod_edit.c: neap.edit, the line editor on the process's terminal. Reading waits like everything else, so timers and connections go on while
   somebody thinks about the next line; what the editor asks back (completion, is the text complete?) comes as an event to Lua, which may wait too.

   The poll callback only reads bytes; keys are worked off in the waiting task, because Lua answers between them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <neap_ext.h>
#include "host/buf.h"
#include "host/edit.h"
#include "host/api/rt_internal.h"

#define EDIT_META "neap.edit"

typedef struct editor {
    neap_edit *e;
    rt *R;
    uv_poll_t *poll; /* NULL until the first read; freed by its close callback */
    neap_buf typed;  /* bytes not yet worked off */
    rt_wait *w;      /* who waits for bytes */
    int in, out, ended, raw;
    void (*report)(void *ud, const char *text); /* where the runtime's reports went before us */
    void *report_ud;
} editor;

static void write_out(const char *s, size_t n, void *ud) {
    editor *ed = ud;
    while (n > 0) {
        ssize_t k = write(ed->out, s, n);
        if (k < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = ed->out, .events = POLLOUT};
            poll(&p, 1, 1000);
        } else if (k < 0 && errno != EINTR) {
            return; /* the terminal is gone; the next read says so */
        } else if (k > 0) {
            s += k;
            n -= (size_t)k;
        }
    }
}

static editor *check(lua_State *L) {
    editor *ed = luaL_checkudata(L, 1, EDIT_META);
    if (!ed->e) luaL_error(L, "the editor is closed");
    return ed;
}

static int check_err(lua_State *L, int err, const char *what) { return err < 0 ? err_code(L, err, "%s", what) : 0; }

/* What the runtime has to say (a task's error that nobody took) goes above the line that is being typed. */
static void on_report(void *ud, const char *text) {
    editor *ed = ud;
    neap_edit_hide(ed->e);
    if (ed->report) ed->report(ed->report_ud, text);
    else fprintf(stderr, "neap: %s\n", text);
    fflush(stderr);
    if (ed->raw) neap_edit_show(ed->e);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */
static void cook(editor *ed) {
    if (ed->raw) neap_tty_cooked(ed->in);
    ed->raw = 0;
}

static void at_close(void *ud) { cook(ud); }
static void poll_closed(uv_handle_t *h) { free(h); }

static int l_close(lua_State *L) { /* close, __close and __gc */
    editor *ed = luaL_checkudata(L, 1, EDIT_META);
    if (!ed->e) return 0;
    cook(ed);
    rt_off_close(ed->R, at_close, ed);
    if (ed->R->report_ud == ed) {
        ed->R->report = ed->report;
        ed->R->report_ud = ed->report_ud;
    }
    if (ed->poll) uv_close((uv_handle_t *)ed->poll, poll_closed);
    ed->poll = NULL;
    if (ed->w) wait_done(ed->w, NEAP_ERR_CLOSED, NULL, NULL);
    ed->w = NULL;
    neap_edit_free(ed->e);
    ed->e = NULL;
    buf_free(&ed->typed);
    return 0;
}

static int l_new(lua_State *L) { /* new() -> editor on stdin and stdout, which must be terminals */
    if (!isatty(0) || !isatty(1)) return luaL_error(L, "neap.edit: standard input and output must be a terminal");
    editor *ed = lua_newuserdatauv(L, sizeof *ed, 0);
    memset(ed, 0, sizeof *ed);
    luaL_setmetatable(L, EDIT_META);
    ed->R = rt_of(L);
    ed->in = 0;
    ed->out = 1;
    if (rt_at_close(ed->R, at_close, ed)) return err_code(L, NEAP_ERR_MEMORY, "neap.edit");
    ed->e = neap_edit_new(write_out, ed);
    if (!ed->e) {
        rt_off_close(ed->R, at_close, ed);
        return err_code(L, NEAP_ERR_MEMORY, "neap.edit");
    }
    ed->report = ed->R->report;
    ed->report_ud = ed->R->report_ud;
    ed->R->report = on_report;
    ed->R->report_ud = ed;
    return 1;
}

static int l_resize(lua_State *L) { /* asks the terminal for its size */
    editor *ed = check(L);
    int columns = 80, rows = 24;
    neap_tty_size(ed->out, &columns, &rows);
    neap_edit_resize(ed->e, columns, rows);
    return 0;
}

static int l_start(lua_State *L) { /* start(prompt, more): raw mode, empty line */
    editor *ed = check(L);
    const char *prompt = luaL_checkstring(L, 2), *more = luaL_optstring(L, 3, prompt);
    fflush(stdout);
    if (!ed->raw) {
        int err = neap_tty_raw(ed->in);
        if (err) return err_code(L, err, "neap.edit: cannot set the terminal up");
        ed->raw = 1;
    }
    int columns = 80, rows = 24;
    neap_tty_size(ed->out, &columns, &rows);
    neap_edit_resize(ed->e, columns, rows);
    return check_err(L, neap_edit_start(ed->e, prompt, more), "neap.edit");
}

static int l_cooked(lua_State *L) { /* the terminal as it was, for what runs between two lines */
    cook(check(L));
    return 0;
}

/* ---- events --------------------------------------------------------------------------------------------------------- */
static int work_off(lua_State *L, editor *ed);

static void on_readable(uv_poll_t *h, int status, int events) {
    editor *ed = h->data;
    char chunk[4096];
    ssize_t n = status < 0 ? 0 : read(ed->in, chunk, sizeof chunk);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    uv_poll_stop(h);
    if (n <= 0) ed->ended = 1;
    int err = n > 0 ? buf_add(&ed->typed, chunk, (size_t)n) : 0;
    rt_wait *w = ed->w;
    ed->w = NULL;
    if (w) wait_done(w, err, NULL, NULL);
}

static void left(rt_wait *w, void *op) { /* the reader was cancelled */
    editor *ed = op;
    if (ed->w != w) return;
    if (ed->poll) uv_poll_stop(ed->poll);
    ed->w = NULL;
    wait_unref(w);
}

static int typed(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    if (w->status) return wait_raise(L, w);
    lua_settop(L, 1);
    return work_off(L, check(L));
}

static int read_more(lua_State *L, editor *ed) {
    rt_wait *w = wait_new(L, "neap.edit", -1);
    if (ed->w) return luaL_error(L, "neap.edit: somebody reads already");
    if (!ed->poll) {
        uv_poll_t *poll = calloc(1, sizeof *poll);
        if (!poll) return err_code(L, NEAP_ERR_MEMORY, "neap.edit");
        int flags = fcntl(ed->in, F_GETFL), rc = uv_poll_init(rt_loop(ed->R), poll, ed->in);
        if (flags >= 0) fcntl(ed->in, F_SETFL, flags); /* libuv makes the terminal non-blocking, for everybody who has it open */
        if (rc) {
            free(poll);
            return luaL_error(L, "neap.edit: cannot watch the terminal: %s", uv_strerror(rc));
        }
        poll->data = ed;
        ed->poll = poll;
    }
    uv_poll_start(ed->poll, UV_READABLE, on_readable);
    w->op = ed;
    w->cancel = left;
    ed->w = wait_ref(w);
    return wait_park(L, w, typed);
}

static int work_off(lua_State *L, editor *ed) {
    static const char *const names[] = {"more", "enter", "tab", "eof", "interrupt", "suspend"};
    int event = NEAP_EDIT_MORE;
    if (ed->typed.len) {
        size_t used = 0;
        event = neap_edit_feed(ed->e, ed->typed.data, ed->typed.len, &used);
        memmove(ed->typed.data, ed->typed.data + used, ed->typed.len - used);
        ed->typed.len -= used;
        check_err(L, event, "neap.edit");
    }
    if (event == NEAP_EDIT_MORE && ed->ended) event = NEAP_EDIT_EOF;
    if (event == NEAP_EDIT_MORE) return read_more(L, ed);
    size_t len, cursor;
    const char *text = neap_edit_text(ed->e, &len, &cursor);
    lua_pushstring(L, names[event]);
    lua_pushlstring(L, text, len);
    lua_pushinteger(L, (lua_Integer)cursor);
    return 3;
}

static int l_event(lua_State *L) { /* event() -> "enter" | "tab" | "eof" | "interrupt" | "suspend", text, cursor in bytes. Waits. */
    lua_settop(L, 1);
    return work_off(L, check(L));
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */
static int l_newline(lua_State *L) { return check_err(L, neap_edit_newline(check(L)->e), "neap.edit"); }
static int l_finish(lua_State *L) { return check_err(L, neap_edit_finish(check(L)->e, lua_toboolean(L, 2)), "neap.edit: history"); }
static int l_show(lua_State *L) { return check_err(L, neap_edit_show(check(L)->e), "neap.edit"); }
static int l_set(lua_State *L) { return check_err(L, neap_edit_set(check(L)->e, luaL_checkstring(L, 2)), "neap.edit"); }

static int l_abandon(lua_State *L) {
    neap_edit_abandon(check(L)->e);
    return 0;
}

static int l_hide(lua_State *L) {
    neap_edit_hide(check(L)->e);
    return 0;
}

static int l_complete(lua_State *L) { /* complete(from, words): words may stand for text[from + 1 .. cursor] */
    editor *ed = check(L);
    lua_Integer from = luaL_checkinteger(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    size_t n = lua_rawlen(L, 3);
    luaL_argcheck(L, from >= 0, 2, "not negative");
    if (n == 0) return 0;
    const char **words = lua_newuserdatauv(L, n * sizeof *words, 0);
    luaL_checkstack(L, 4, NULL);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 3, (lua_Integer)i + 1);
        words[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL; /* anchored by the table */
        if (!words[i]) return luaL_argerror(L, 3, "a list of strings");
        lua_pop(L, 1);
    }
    return check_err(L, neap_edit_complete(ed->e, (size_t)from, words, n), "neap.edit");
}

static int l_history(lua_State *L) { /* history(path, max): loads the file, and appends to it from now on */
    editor *ed = check(L);
    const char *path = luaL_checkstring(L, 2);
    lua_Integer max = luaL_optinteger(L, 3, 2000);
    return check_err(L, neap_edit_history_load(ed->e, path, max > 0 ? (size_t)max : 0), path);
}

static int l_entries(lua_State *L) { /* entries() -> list, oldest first */
    editor *ed = check(L);
    size_t n = neap_edit_history_len(ed->e);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        lua_pushstring(L, neap_edit_history_at(ed->e, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* ---- standard input that is no terminal ----------------------------------------------------------------------------- */
static int can_wait(int fd) { /* a pipe or socket; a file is always ready, and epoll refuses it */
    struct stat st;
    return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || isatty(fd));
}

static int input_ready(lua_State *L, int status, lua_KContext ctx) {
    char chunk[4096];
    ssize_t n;
    do n = read(0, chunk, sizeof chunk);
    while (n < 0 && errno == EINTR);
    if (n <= 0) return 0;
    lua_pushlstring(L, chunk, (size_t)n);
    return 1;
}

static int l_input(lua_State *L) { /* input() -> what has come on standard input, at least a byte; nil at its end. Waits. */
    if (!can_wait(0)) return input_ready(L, LUA_OK, 0);
    return neap_ext(L)->wait_fd(L, "standard input", 0, 0, -1, input_ready);
}

/* ---- the terminal --------------------------------------------------------------------------------------------------- */
static int l_isatty(lua_State *L) {
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int l_size(lua_State *L) { /* size() -> columns, rows of the terminal on stdout, stderr or stdin; nil if there is none */
    static const int fds[] = {1, 2, 0};
    int columns, rows;
    for (int i = 0; i < 3; i++)
        if (neap_tty_size(fds[i], &columns, &rows) == 0) {
            lua_pushinteger(L, columns);
            lua_pushinteger(L, rows);
            return 2;
        }
    return 0;
}

static rt *interrupted; /* the runtime that Ctrl-C means: signals belong to the process, so this is a static */
static void on_sigint(int sig) {
    if (interrupted) rt_interrupt(interrupted);
}

static int l_interrupts(lua_State *L) { /* interrupts(on): Ctrl-C raises "interrupted!" each time instead of only once */
    interrupted = lua_toboolean(L, 1) ? rt_of(L) : NULL;
    struct sigaction sa = {.sa_handler = interrupted ? on_sigint : SIG_DFL, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    return 0;
}

static int l_suspend(lua_State *L) { /* ^Z: stops the process; returns when it goes on */
    cook(check(L));
    kill(0, SIGTSTP);
    return 0;
}

int luaopen_neap_edit(lua_State *L);
int luaopen_neap_edit(lua_State *L) {
    static const luaL_Reg fns[] = {{"new", l_new},     {"isatty", l_isatty}, {"size", l_size}, {"interrupts", l_interrupts},
                                   {"input", l_input}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"start", l_start},       {"event", l_event},     {"newline", l_newline}, {"finish", l_finish},
                                       {"abandon", l_abandon},   {"hide", l_hide},       {"show", l_show},       {"set", l_set},
                                       {"complete", l_complete}, {"history", l_history}, {"entries", l_entries}, {"resize", l_resize},
                                       {"cooked", l_cooked},     {"suspend", l_suspend}, {"close", l_close},     {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {NULL, NULL}};
    luaL_newmetatable(L, EDIT_META);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
