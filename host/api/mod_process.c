/* mod_process.c: neap.process.core: child processes on the loop. lua/neap/process.lua gives it its face. The struct
   outlives its Lua handle until libuv has closed its handles; a child that nobody waits for is reaped all the same, while the host lives. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include "host/buf.h"
#include "host/api/rt_internal.h"

int luaopen_neap_process_core(lua_State *L);

#define PROCESS_META "neap.process"

typedef struct process {
    rt *R;
    uv_process_t h;
    uv_pipe_t in, out;
    int has_in, has_out, open; /* open: libuv handles not yet closed */
    int held;                  /* a Lua handle points here */
    int exited, eof;
    int64_t code;
    int signal;
    neap_buf data;
    rt_wait *waiter, *reader;
} process;

static void maybe_free(process *p) {
    if (p->open || p->held) return;
    buf_free(&p->data);
    free(p);
}

static void on_closed(uv_handle_t *h) {
    process *p = h->data;
    p->open--;
    maybe_free(p);
}

static void wake(rt_wait **w) {
    rt_wait *x = *w;
    *w = NULL;
    if (x) wait_done(x, 0, NULL, NULL);
}

static void at_close(void *ud) { /* the host ends, the child goes on */
    process *p = ud;
    p->exited = 1;
    uv_close((uv_handle_t *)&p->h, on_closed);
}

static void on_exit_cb(uv_process_t *h, int64_t code, int sig) {
    process *p = h->data;
    rt_off_close(p->R, at_close, p);
    p->exited = 1;
    p->code = code;
    p->signal = sig;
    uv_close((uv_handle_t *)&p->h, on_closed);
    wake(&p->waiter);
}

static void close_pipe(process *p, uv_pipe_t *pipe, int *has) {
    if (!*has) return;
    *has = 0;
    uv_close((uv_handle_t *)pipe, on_closed);
}

/* ---- reading and writing
 * ------------------------------------------------------------------------------------------------ */
static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b) {
    process *p = h->data;
    b->base = buf_reserve(&p->data, 16384) ? NULL : p->data.data + p->data.len;
    b->len = b->base ? 16384 : 0;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    process *p = s->data;
    if (n > 0) {
        p->data.len += (size_t)n;
        if (p->data.len > (1 << 20)) uv_read_stop(s); /* the reader is slow: the child waits */
    } else if (n < 0) {
        p->eof = 1;
        close_pipe(p, &p->out, &p->has_out);
    }
    wake(&p->reader);
}

static process *check(lua_State *L) {
    process **pp = luaL_checkudata(L, 1, PROCESS_META);
    return *pp;
}

static int read_done(lua_State *L, int status, lua_KContext ctx) {
    rt_wait *w = (rt_wait *)ctx;
    process *p = check(L);
    if (w->status == NEAP_ERR_TIMEOUT) {
        if (p->reader == w) p->reader = NULL, wait_unref(w);
        lua_pushnil(L);
        lua_pushliteral(L, "timeout");
        return 2;
    }
    if (!p->data.len) return 0;
    lua_pushlstring(L, p->data.data, p->data.len);
    buf_clear(&p->data);
    if (p->has_out) uv_read_start((uv_stream_t *)&p->out, on_alloc, on_read);
    return 1;
}

static void forget(rt_wait *w, void *op) { /* the waiter left */
    process *p = op;
    if (p->reader == w) p->reader = NULL, wait_unref(w);
    else if (p->waiter == w) p->waiter = NULL, wait_unref(w);
}

static int start_wait(lua_State *L, rt_wait **place, const char *what, double timeout, lua_KFunction k) {
    if (*place) return luaL_error(L, "%s: another task waits already", what);
    rt_wait *w = wait_new(L, what, timeout);
    w->quiet_deadline = 1;
    w->op = check(L);
    w->cancel = forget;
    *place = wait_ref(w);
    return wait_park(L, w, k);
}

static int l_read(lua_State *L) { /* read([timeout]) -> text that has arrived; nil at the end; nil, "timeout" */
    process *p = check(L);
    double timeout = luaL_optnumber(L, 2, -1);
    if (p->data.len || p->eof || !p->has_out) {
        rt_wait none = {.status = 0};
        return read_done(L, LUA_OK, (lua_KContext)&none);
    }
    return start_wait(L, &p->reader, "process:read", timeout, read_done);
}

typedef struct write_req {
    uv_write_t r;
    char data[];
} write_req;

static void on_written(uv_write_t *r, int status) { free(r); }

static int l_write(lua_State *L) { /* write(text): queued; false when stdin is closed */
    process *p = check(L);
    size_t n;
    const char *s = luaL_checklstring(L, 2, &n);
    int ok = 0;
    if (p->has_in) {
        write_req *q = malloc(sizeof *q + n);
        if (!q) return err_code(L, NEAP_ERR_MEMORY, "process:write: out of memory");
        memcpy(q->data, s, n);
        uv_buf_t b = uv_buf_init(q->data, (unsigned)n);
        ok = uv_write(&q->r, (uv_stream_t *)&p->in, &b, 1, on_written) == 0;
        if (!ok) free(q);
    }
    lua_pushboolean(L, ok);
    return 1;
}

static void on_shutdown(uv_shutdown_t *r, int status) {
    process *p = r->data;
    free(r);
    close_pipe(p, &p->in, &p->has_in);
}

static int l_close_stdin(lua_State *L) { /* the child sees the end of its input once all is written */
    process *p = check(L);
    if (!p->has_in) return 0;
    uv_shutdown_t *r = malloc(sizeof *r);
    if (!r) return err_code(L, NEAP_ERR_MEMORY, "process:close_stdin: out of memory");
    r->data = p;
    if (uv_shutdown(r, (uv_stream_t *)&p->in, on_shutdown)) on_shutdown(r, 0);
    return 0;
}

/* ---- end ------------------------------------------------------------------------------------------------------------
 */
static int wait_result(lua_State *L, int status, lua_KContext ctx) {
    process *p = check(L);
    if (!p->exited) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)p->code);
    lua_pushinteger(L, p->signal);
    return 2;
}

static int l_wait(lua_State *L) { /* wait([timeout]) -> exit code, signal; nil when the time is over */
    process *p = check(L);
    double timeout = luaL_optnumber(L, 2, -1);
    if (p->exited) return wait_result(L, LUA_OK, 0);
    return start_wait(L, &p->waiter, "process:wait", timeout, wait_result);
}

static int l_kill(lua_State *L) { /* kill(signal number) -> true if it was sent */
    process *p = check(L);
    int sig = (int)luaL_optinteger(L, 2, SIGTERM);
    lua_pushboolean(L, !p->exited && uv_process_kill(&p->h, sig) == 0);
    return 1;
}

static int l_pid(lua_State *L) {
    lua_pushinteger(L, check(L)->h.pid);
    return 1;
}

static int process_gc(lua_State *L) {
    process **pp = lua_touserdata(L, 1), *p = *pp;
    if (!p) return 0;
    *pp = NULL;
    p->held = 0;
    if (!p->exited) uv_unref((uv_handle_t *)&p->h); /* reaped if it ends while the loop runs, and never waited for */
    close_pipe(p, &p->in, &p->has_in);
    close_pipe(p, &p->out, &p->has_out);
    maybe_free(p);
    return 0;
}

/* ---- start ----------------------------------------------------------------------------------------------------------
 */
/* A NULL-terminated vector of the strings in the list at idx, in a userdata that is left on the stack. */
static char **push_vector(lua_State *L, int idx) {
    lua_Integer n = luaL_len(L, idx);
    char **v = lua_newuserdatauv(L, sizeof *v * (size_t)(n + 1), 0);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, idx, i);
        v[i - 1] = (char *)luaL_checkstring(L, -1); /* the list keeps the string */
        lua_pop(L, 1);
    }
    v[n] = NULL;
    return v;
}

enum { IO_NULL, IO_INHERIT, IO_PIPE, IO_FILE, IO_STDOUT };

static int l_spawn(lua_State *L) { /* spawn(args, env or nil, cwd or nil, stdin, stdout, stderr, path or nil, detached) */
    static const char *const ins[] = {"null", "inherit", "pipe", NULL};
    static const char *const outs[] = {"null", "inherit", "pipe", "file", "stdout", NULL};
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *cwd = luaL_optstring(L, 3, NULL);
    int in = luaL_checkoption(L, 4, "null", ins), out = luaL_checkoption(L, 5, "inherit", outs), err = luaL_checkoption(L, 6, "inherit", outs);
    const char *path = luaL_optstring(L, 7, NULL);
    int detached = lua_toboolean(L, 8);
    char **args = push_vector(L, 1), **env = lua_istable(L, 2) ? push_vector(L, 2) : NULL;
    luaL_argcheck(L, args[0], 1, "the program's name is missing");
    process **pp = lua_newuserdatauv(L, sizeof *pp, 0);
    *pp = NULL;
    luaL_setmetatable(L, PROCESS_META);
    process *p = calloc(1, sizeof *p);
    if (!p) return err_code(L, NEAP_ERR_MEMORY, "process.spawn: out of memory");
    *pp = p;
    p->held = 1;
    p->R = rt_of(L);
    uv_loop_t *loop = rt_loop(p->R);
    int fd = -1;
    if (out == IO_FILE || err == IO_FILE) {
        fd = open(path ? path : "", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0) return err_code(L, NEAP_ERR_IO, "process.spawn: cannot write to %s", path ? path : "(no path)");
    }
    uv_pipe_init(loop, &p->in, 0);
    uv_pipe_init(loop, &p->out, 0);
    p->h.data = p->in.data = p->out.data = p;
    p->has_in = p->has_out = 1;
    p->open = 2;
    uv_stdio_container_t io[3] = {{.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_IGNORE}};
    int kinds[3] = {in, out, err == IO_STDOUT ? out : err};
    for (int i = 0; i < 3; i++) {
        if (kinds[i] == IO_INHERIT) io[i] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = i};
        if (kinds[i] == IO_FILE) io[i] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = fd};
    }
    if (in == IO_PIPE) io[0] = (uv_stdio_container_t){.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&p->in};
    int fds[2] = {-1, -1}, want_out = out == IO_PIPE || err == IO_PIPE, st = 0;
    if (want_out) { /* one pipe may serve stdout and stderr: made here, given twice */
        st = uv_pipe(fds, UV_NONBLOCK_PIPE, 0);
        for (int i = 1; i < 3 && !st; i++)
            if (kinds[i] == IO_PIPE) io[i] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = fds[1]};
        if (!st) st = uv_pipe_open(&p->out, fds[0]);
    }
    uv_process_options_t o = {.file = args[0],
                              .args = args,
                              .env = env,
                              .cwd = cwd,
                              .stdio = io,
                              .stdio_count = 3,
                              .exit_cb = on_exit_cb,
                              .flags = detached ? UV_PROCESS_DETACHED : 0};
    if (!st) st = rt_at_close(p->R, at_close, p) ? UV_ENOMEM : 0;
    if (!st) {
        p->open++;
        st = uv_spawn(loop, &p->h, &o);
        if (st) rt_off_close(p->R, at_close, p);
        if (st) uv_close((uv_handle_t *)&p->h, on_closed);
    }
    if (fds[1] >= 0) close(fds[1]);
    if (fd >= 0) close(fd);
    if (in != IO_PIPE) close_pipe(p, &p->in, &p->has_in);
    if (!want_out) close_pipe(p, &p->out, &p->has_out);
    else if (!st) uv_read_start((uv_stream_t *)&p->out, on_alloc, on_read);
    if (st) {
        p->exited = 1;
        rt_error e = {"spawn", 0, -1, 0};
        return err_raise(L, &e, "cannot start %s: %s", args[0], uv_strerror(st));
    }
    return 1;
}

int luaopen_neap_process_core(lua_State *L) {
    static const luaL_Reg methods[] = {{"read", l_read}, {"write", l_write}, {"close_stdin", l_close_stdin}, {"wait", l_wait}, {"kill", l_kill},
                                       {"pid", l_pid},   {NULL, NULL}};
    static const luaL_Reg fns[] = {{"spawn", l_spawn}, {NULL, NULL}};
    luaL_newmetatable(L, PROCESS_META);
    lua_pushcfunction(L, process_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
