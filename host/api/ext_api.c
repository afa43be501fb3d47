/* ext_api.c: the table of host/include/neap_ext.h: rt.h's waits for C modules of rocks, and two ready-made ones (a descriptor, work on a thread). */
#include <fcntl.h>
#include <stdlib.h>
#include <uv.h>
#include <neap_ext.h>
#include "host/api/rt_internal.h"

void ext_api_install(lua_State *L);

/* ---- a descriptor ----------------------------------------------------------------------------------------------------- */
typedef struct fd_wait {
    uv_poll_t poll;
    rt_wait *w;
} fd_wait;

static void fd_closed(uv_handle_t *h) { free(h->data); }

static void fd_end(fd_wait *f, int status) {
    rt_wait *w = f->w;
    f->w = NULL;
    uv_close((uv_handle_t *)&f->poll, fd_closed);
    if (w) wait_done(w, status, NULL, NULL);
}

static void on_fd(uv_poll_t *h, int status, int events) { fd_end(h->data, 0); } /* an error is found by whoever reads */

static void fd_left(rt_wait *w, void *op) {
    fd_wait *f = op;
    if (f->w != w) return;
    f->w = NULL;
    uv_close((uv_handle_t *)&f->poll, fd_closed);
    wait_unref(w);
}

static int x_wait_fd(lua_State *L, const char *what, int fd, int write, double timeout, lua_KFunction k) {
    rt_wait *w = wait_new(L, what, timeout);
    fd_wait *f = calloc(1, sizeof *f);
    if (!f) return err_code(L, NEAP_ERR_MEMORY, "%s", what);
    int flags = fcntl(fd, F_GETFL), rc = uv_poll_init(rt_loop(rt_of(L)), &f->poll, fd);
    if (flags >= 0) fcntl(fd, F_SETFL, flags); /* libuv makes it non-blocking, also for the other programs that have it open */
    if (rc) {
        free(f);
        rt_error e = {"io", 0, -1, 1};
        return err_raise(L, &e, "%s: cannot wait for descriptor %d: %s", what, fd, rc == UV_EEXIST ? "another task waits for it" : uv_strerror(rc));
    }
    f->poll.data = f;
    f->w = wait_ref(w);
    w->op = f;
    w->cancel = fd_left;
    uv_poll_start(&f->poll, write ? UV_WRITABLE : UV_READABLE, on_fd);
    return wait_park(L, w, k);
}

/* ---- work on a thread ------------------------------------------------------------------------------------------------- */
typedef struct job {
    uv_work_t req;
    rt_wait *w;
    void *(*work)(void *);
    void *arg, *result;
    void (*free_arg)(void *), (*free_result)(void *);
} job;

static void run_job(uv_work_t *req) {
    job *j = req->data;
    j->result = j->work(j->arg);
}

static void job_over(uv_work_t *req, int status) {
    job *j = req->data;
    if (j->free_arg) j->free_arg(j->arg);
    wait_done(j->w, status ? NEAP_ERR_CANCELLED : 0, j->result, j->free_result);
    free(j);
}

static int x_wait_work(lua_State *L, const char *what, double timeout, void *(*work)(void *), void *arg, void (*free_arg)(void *),
                       void (*free_result)(void *), lua_KFunction k) {
    rt_wait *w = wait_new(L, what, timeout);
    job *j = calloc(1, sizeof *j);
    if (!j) return err_code(L, NEAP_ERR_MEMORY, "%s", what);
    *j = (job){.w = wait_ref(w), .work = work, .arg = arg, .free_arg = free_arg, .free_result = free_result};
    j->req.data = j;
    uv_queue_work(rt_loop(rt_of(L)), &j->req, run_job, job_over);
    return wait_park(L, w, k);
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */
static int x_status(const rt_wait *w) { return w->status; }
static void *x_result(const rt_wait *w) { return w->result; }

static int x_raise(lua_State *L, const char *kind, int retryable, const char *message) {
    rt_error e = {kind, retryable, -1, 0};
    return err_raise(L, &e, "%s", message);
}

static const neap_ext_api table = {.size = sizeof table,
                                   .version = NEAP_EXT_VERSION,
                                   .wait_fd = x_wait_fd,
                                   .wait_work = x_wait_work,
                                   .wait_new = wait_new,
                                   .wait_ref = wait_ref,
                                   .wait_unref = wait_unref,
                                   .wait_done = wait_done,
                                   .wait_park = wait_park,
                                   .wait_status = x_status,
                                   .wait_result = x_result,
                                   .wait_is_left = wait_is_left,
                                   .host = rt_of,
                                   .post = rt_post,
                                   .raise = x_raise};

void ext_api_install(lua_State *L) {
    lua_pushlightuserdata(L, (void *)&table);
    lua_setfield(L, LUA_REGISTRYINDEX, NEAP_EXT_KEY);
}
