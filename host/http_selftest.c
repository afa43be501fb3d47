/* http_selftest.c: undocumented habits of libmicrohttpd, tried once when a server opens (0.1 ms), on a daemon of its own over a socketpair:
   - layout: the parts of a request head lie in memory as they were received (http_guard.c checks by place);
   - lazy: a request that is complete and gets no answer is offered again at each run, and may be answered from outside of the callback;
   - filter: it reads with recv(), and that is the one in http_filter.c.
   A libmicrohttpd that does otherwise costs some checks or some speed, not correctness. */
#include "host/http_impl.h"
#include <unistd.h>

struct probe {
    neap_http s;
    neap_http_req req;
    http_conn conn;
    struct MHD_Connection *c;
    int guard, calls, answered;
};

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *c) {
    struct probe *p = cls;
    p->req.raw = uri;
    p->req.raw_len = uri ? strlen(uri) : 0;
    p->req.mhd = c;
    p->req.conn = &p->conn;
    buf_clear(&p->req.target);
    buf_puts(&p->req.target, uri ? uri : "");
    return p;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data,
                                 size_t *size, void **ctx) {
    struct probe *p = cls;
    const char *why = "";
    if (!p->calls++) p->guard = http_guard(&p->s, &p->req, url, method, version, &why);
    p->c = c;
    return MHD_YES;
}

static size_t no_unescape(void *cls, struct MHD_Connection *c, char *text) { return strlen(text); }

void http_selftest(int *layout, int *lazy, int *filter) {
    static const char text[] = "GET /a/b?c=d HTTP/1.1\r\nHost: localhost:1\r\nX-Probe:  spaced out \r\nAccept: */*\r\nEmpty:\r\n\r\n";
    struct probe *p = calloc(1, sizeof *p);
    int fd[2] = {-1, -1};
    char answer[64];
    *layout = *lazy = *filter = 0;
    if (!p || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd)) {
        free(p);
        return;
    }
    p->s.layout = 1;
    p->guard = -1;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, p,
                                            MHD_OPTION_URI_LOG_CALLBACK, on_uri, p, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, p,
                                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)4096, MHD_OPTION_END);
    if (d && MHD_add_connection(d, fd[1], (struct sockaddr *)&a, sizeof(sa_family_t)) == MHD_YES) {
        fd[1] = -1;
        if (write(fd[0], text, sizeof text - 1) == sizeof text - 1) {
            neap_http *before = http_filter_for(&p->s);
            for (int i = 0; i < 4 && p->calls < 4; i++) MHD_run(d);
            http_filter_for(before);
            *filter = p->s.filter;
            *layout = p->guard == 0;
            if (p->calls >= 4) { /* head, complete, and twice again */
                struct MHD_Response *r = mhd_response_static(2, "ok");
                if (r && MHD_queue_response(p->c, 200, r) == MHD_YES) {
                    MHD_run(d);
                    MHD_run(d);
                    ssize_t n = read(fd[0], answer, sizeof answer);
                    *lazy = n > 12 && !memcmp(answer, "HTTP/1.1 200", 12);
                }
                if (r) MHD_destroy_response(r);
            }
        }
    } else if (fd[1] >= 0 && !d) close(fd[1]);
    if (d) MHD_stop_daemon(d);
    close(fd[0]);
    buf_free(&p->req.target);
    free(p);
}
