/* http_impl.h: what the http*.c files share. Not for others. */
#ifndef NEAP_HTTP_IMPL_H
#define NEAP_HTTP_IMPL_H
#include "host/http.h"
#include "host/buf.h"
#include "host/mhd_compat.h"
#include <netinet/in.h>
#include <sys/un.h>

/* Where a connection is; each phase but the last two has an absolute deadline. */
enum http_phase { HTTP_IDLE, HTTP_HEAD, HTTP_BODY, HTTP_HANDLER, HTTP_WRITE, HTTP_STREAM };

/* How far the bytes of a connection were followed (http_filter.c). Zero: at the beginning. */
typedef struct http_filter {
    unsigned char state, digits;
    unsigned short lengths, encodings;
    unsigned line_len; /* bytes of the line so far */
    uint64_t left;     /* bytes of the body or chunk to come */
    char line[64];     /* the beginning of a head line that came in pieces */
} http_filter;

typedef struct http_conn {
    neap_http *s;
    struct MHD_Connection *mhd;
    int fd;
    enum http_phase phase;
    uint64_t since, limit, due; /* loop milliseconds: when the phase began, must end (0 = never), and is looked at next */
    uint64_t touched;           /* loop time at which MHD last called us for it (see http_spin_check) */
    neap_http_req *req;         /* the request under way, not counted */
    uv_poll_t *watch;           /* looks for the peer's leaving while MHD does not */
    struct http_conn *prev, *next;
    struct sockaddr_storage addr;
    http_filter filter;
    unsigned linger : 1; /* answered early: keep the socket a moment, or a reset destroys the answer */
    unsigned cut : 1;    /* shutdown() was called */
    unsigned chunked : 1;
    unsigned used : 1;  /* has carried a request */
    unsigned heard : 1; /* bytes came of a head that is not complete */
    unsigned ended : 1; /* the peer has ended it */
} http_conn;

struct neap_http_req {
    neap_http *s;               /* stays valid: requests count on the server */
    http_conn *conn;            /* NULL once the client or MHD has gone */
    struct MHD_Connection *mhd; /* same */
    int refs;
    uint64_t id, started;
    neap_http_app app;
    void *data;
    size_t max_body;
    uint64_t body_len; /* as Content-Length said; 0 without one */
    int handler_ms;
    uint64_t names; /* a bit for each header that came (http_name_bit): most of those that are asked for did not */

    neap_buf target; /* raw target as received, then path_len bytes of decoded path behind it */
    size_t path_off, path_len, query_off, query_len;
    const char *raw; /* where MHD has the target: only for the guard */
    size_t raw_len;
    neap_buf body;
    size_t charged;    /* bytes of the server's cap */
    size_t slow_bytes; /* not yet counted into the deadline */
    unsigned lent;     /* who may still read the body (neap_http_lend_body) */
    char peer[INET6_ADDRSTRLEN + 2];
    char method_copy[16];
    /* streaming */
    neap_buf out;
    size_t out_pos;
    void (*drained)(neap_http_req *r, void *ud);
    void *drained_ud;
    neap_http_req *prev, *next; /* in flight, oldest first */
    unsigned recalls;
    struct http_fake *fake; /* a request without a socket: s and mhd are NULL */
    unsigned checked : 1, dispatched : 1, answered : 1, suspended : 1, pending : 1, in_flight : 1, streaming : 1, ended : 1, was_full : 1, bad : 1,
        told : 1, loopback : 1;
};

struct neap_http {
    uv_loop_t *loop;
    struct MHD_Daemon *mhd;
    neap_http_config c;
    int listen_fd, port, epoll_fd;
    uv_poll_t *accept_poll, *mhd_poll;
    uv_timer_t *run_timer, *sweep_timer, *accept_timer, *watch_timer, *drain_timer;
    int handles; /* uv handles not yet closed */
    int refs;    /* requests alive, + 1 while open */
    int need_run, running, closed, close_wanted, layout, lazy, tls;
    unsigned pending;  /* lazily waiting requests, not suspended */
    uint64_t progress; /* counts calls from MHD that moved something */
    unsigned spins;    /* runs in a row that moved nothing although MHD wants to run again */
    uint64_t spin_since, sweep_at, next_id;
    http_conn *conns, **by_fd; /* by_fd: by descriptor, fd_cap places */
    int fd_cap, filter;        /* filter: recv() is ours */
    unsigned nconn;
    neap_http_req *flight_head, *flight_tail, *flight_new; /* flight_new: the first whose connection is not watched yet */
    neap_http_req *free_reqs;
    unsigned nfree;
    struct http_linger *lingers;
    unsigned nlinger;
    int draining; /* 1: under way, 2: over */
    uint64_t drain_until;
    void (*drained)(neap_http *s, void *ud);
    void *drained_ud;
    neap_http_stats st;
    uint64_t answers[500]; /* by status, from 100 on */
};

/* http.c */
static inline uint64_t http_now(neap_http *s) { return uv_now(s->loop); }
void http_server_unref(neap_http *s);
void *http_handle(neap_http *s, size_t size); /* a zeroed uv handle that counts on the server; NULL without memory */
void http_close_handle(neap_http *s, void *handle_pp);
void http_drain_check(neap_http *s);

/* http_accept.c: the listening socket */
int http_port_of(int fd);
int http_accept_start(neap_http *s);
void http_accept_stop(neap_http *s); /* takes what waits in the backlog, then closes the listening socket */

/* http_conn.c: connections, their deadlines, and their peers' leaving */
void http_on_connection(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_ConnectionNotificationCode code);
void http_phase(http_conn *k, enum http_phase p, unsigned ms);
void http_stirs(http_conn *k, int head); /* bytes came on an idle connection; head: a request's beginning, not all of its head */
void http_cut(http_conn *k, int status); /* ends it with shutdown(); status != 0: sends that error first, if no answer has begun */
void http_sweep(uv_timer_t *t);
void http_watch_soon(neap_http *s);
void http_watch(http_conn *k);
void http_unwatch(http_conn *k);
void http_spin_check(neap_http *s);

/* http_linger.c: sockets that stay a moment after an early answer */
void http_linger(neap_http *s, int fd);
void http_linger_sweep(neap_http *s, uint64_t now);
void http_linger_close(neap_http *s);

/* http_request.c: what MHD calls for a request */
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *c);
enum MHD_Result http_on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data,
                               size_t *size, void **ctx);
void http_on_completed(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode code);
void http_over(neap_http_req *r, int sent);
void http_flight_end(neap_http_req *r);
void http_lost(neap_http_req *r, int why);
void http_wake(neap_http_req *r); /* resumes a suspended request, or at least makes the daemon run */

/* The bit of a header's name; others may share it. */
static inline uint64_t http_name_bit(const char *name, size_t n) { return UINT64_C(1) << ((n * 7 + ((unsigned char)name[0] | 0x20)) & 63); }

/* http_guard.c: 0, or the status to refuse with, and why */
int http_guard(neap_http *s, neap_http_req *r, const char *url, const char *method, const char *version, const char **why);
int http_guard_target(neap_http_req *r, const char **why);

/* http_filter.c */
neap_http *http_filter_for(neap_http *s);                         /* this thread's recv() is for its connections; NULL: nobody's. The one before. */
size_t http_filter_walk(http_filter *f, const char *p, size_t n); /* how many of the bytes MHD may have: all, or those before a fault */
int http_filter_bad(const http_filter *f);

/* http_fake.c: the same calls for requests without a socket */
int http_fake_respond(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, const void *body, size_t len);
int http_fake_stream(neap_http_req *r, const void *data, size_t len);
void http_fake_done(neap_http_req *r);
const char *http_fake_lookup(neap_http_req *r, const char *name);
void http_fake_each(neap_http_req *r, void (*f)(void *ud, const char *name, const char *value), void *ud);
void http_fake_free(neap_http_req *r);

/* http_selftest.c */
void http_selftest(int *layout, int *lazy, int *filter);

/* http_response.c */
enum MHD_Result http_refuse(neap_http_req *r, int status, const char *why);
int http_raw_error(char *buf, size_t n, int status, uint64_t max_length); /* a whole error answer as bytes; its length */
#endif
