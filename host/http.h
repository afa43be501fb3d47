/* http.h: the HTTP server core. libmicrohttpd parses and writes, our loop polls, this file's implementation guards.

   A server belongs to one libuv loop and one thread. It collects a request whole, hands it to `dispatch`, and is answered later with
   neap_http_respond (or _file, or _stream). Alternative dropped: MHD's own threads (twice the CPU per request, and a Lua state cannot be
   shared with them).

   Ownership: a request is counted. MHD's side holds one reference, the dispatcher takes its own with neap_http_ref before `dispatch`
   returns if it wants to answer later. The client may leave first: then `gone` is called once and answering returns NEAP_ERR_CLOSED. */
#ifndef NEAP_HTTP_H
#define NEAP_HTTP_H
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "host/err.h"

typedef struct neap_http neap_http;
typedef struct neap_http_req neap_http_req;

/* What the server calls. A set may be exchanged while the server runs (reload): a request keeps the set it was dispatched with. */
typedef struct neap_http_app {
    /* The request is complete. Called inside neap_http_turn: mark work as ready, do not run scripts. May answer at once. */
    void (*dispatch)(neap_http_req *r, void *ud);
    /* A dispatched request ended before its answer was sent: `why` is NEAP_ERR_CLOSED (the client left, or the server closes) or
       NEAP_ERR_TIMEOUT (the handler's time is over; 503 has been sent). At most once a request, never after a complete answer. */
    void (*gone)(neap_http_req *r, int why, void *ud);
    /* Optional: the head has arrived, the body not. Returns 0 to go on (it may call neap_http_limit), or a status to refuse with. */
    int (*head)(neap_http_req *r, void *ud);
    void *ud;
} neap_http_app;

/* Zero fields take the defaults named here. Strings are copied. */
typedef struct neap_http_config {
    int listen_fd;   /* from neap_http_listen; owned by the server from the call on, also when opening fails */
    size_t max_head; /* bytes of request line and headers a connection may use: 8 KiB (MHD uses some of it itself, and clears it all for each request:
                        16 KiB cost 1 us more) */
    size_t max_body; /* bytes of one body: 1 MiB */
    size_t max_bodies;         /* bytes of all bodies in flight: 64 MiB; small bodies (<= 64 KiB) have a quarter on top */
    unsigned max_connections;  /* 10000 */
    unsigned max_per_ip;       /* connections of one peer address, 0 = no limit */
    unsigned head_ms, body_ms; /* absolute: 10 s for the head; 15 s for the body, and a second more for each 4 KiB that came */
    unsigned handler_ms;       /* 30 s until the answer: then 503 */
    unsigned idle_ms;          /* 75 s between requests on a connection */
    unsigned write_ms;         /* 30 s to take an answer, plus its size at 8 KiB a second */
    int lazy; /* >0: try again a few times before suspending (1.18x requests per second); <0: never; 0: yes if the self-test passes */
    const char *tls_cert, *tls_key; /* PEM texts, both or neither */
    neap_http_app app;
    void (*log)(void *ud, const char *text); /* libmicrohttpd's complaints, one line each; NULL drops them */
    void *log_ud;
} neap_http_config;

/* Binds and listens on host:port ("127.0.0.1", "::1", "0.0.0.0", "localhost", "unix:PATH"). Port 0 takes a free one; *port gets the port. Refuses a
   port on which anybody else listens, also with SO_REUSEPORT. `shared`: further workers will join. 0, or a code with a sentence in err[errlen]. */
int neap_http_listen(const char *host, int *port, int backlog, int shared, int *fd, char *err, size_t errlen);
/* One more socket for a port that another worker of this process opened with `shared` (SO_REUSEPORT: the kernel spreads connections). */
int neap_http_listen_join(const char *host, int port, int backlog, int *fd, char *err, size_t errlen);

/* Opens a server on the loop. 0, or a code with a sentence in err. */
int neap_http_open(uv_loop_t *loop, const neap_http_config *c, neap_http **out, char *err, size_t errlen);
/* Runs the daemon if there is anything to do: call it before each poll (a loop turn). Nonzero if it made progress. */
int neap_http_turn(neap_http *s);
/* Exchanges the app between turns. Requests dispatched before keep theirs until they end. */
void neap_http_swap(neap_http *s, const neap_http_app *app);
/* Stops accepting; `done` (may be NULL) is called once when no request is in flight, or `ms` later at the latest. Idle connections close. */
void neap_http_drain(neap_http *s, unsigned ms, void (*done)(neap_http *s, void *ud), void *ud);
/* Closes now: in-flight requests get `gone`. The server is freed in the loop's next turns; requests still referenced stay valid. */
void neap_http_close(neap_http *s);
int neap_http_port(const neap_http *s);
/* The listening descriptor, -1 once it stopped accepting. A duplicate of it may be given to another server (reload without a lost connection). */
int neap_http_listen_fd(const neap_http *s);

typedef struct neap_http_stats {
    uint64_t connections;         /* accepted since start */
    uint64_t requests;            /* dispatched */
    uint64_t answered;            /* answers begun, refusals included */
    uint64_t refused_bad;         /* 400: malformed or ambiguous */
    uint64_t refused_big;         /* 413 */
    uint64_t refused_full;        /* 503: bodies in flight; connections that libmicrohttpd would not have */
    uint64_t waits;               /* times that new connections were left waiting: too many connections or descriptors */
    uint64_t timeouts;            /* connections cut by a deadline, and 503 for late handlers */
    uint64_t gone;                /* clients that left before the answer */
    uint64_t bytes_in, bytes_out; /* bodies */
    unsigned open;                /* connections now */
    unsigned in_flight;           /* dispatched and unanswered now */
    size_t body_bytes;            /* held now */
} neap_http_stats;
/* How many answers had this status. */
uint64_t neap_http_answers(const neap_http *s, int status);
void neap_http_get_stats(const neap_http *s, neap_http_stats *out);

/* ---- a request ------------------------------------------------------------------------------------------------------ */
neap_http_req *neap_http_ref(neap_http_req *r);
void neap_http_unref(neap_http_req *r);
neap_http *neap_http_server(neap_http_req *r);

const char *neap_http_method(const neap_http_req *r);
/* The path, decoded; a decoded %2F inside a segment is the byte 0xFF (NEAP_HTTP_SLASH) so that routing cannot be fooled. */
const char *neap_http_path(const neap_http_req *r, size_t *len);
#define NEAP_HTTP_SLASH ((char)0xFF)
/* The raw query string without '?', "" if none. */
const char *neap_http_query(const neap_http_req *r, size_t *len);
/* A request header by name, NULL if absent or once the client has gone. Lives until the answer. */
const char *neap_http_header(neap_http_req *r, const char *name);
/* Calls f(ud, name, value) for each header, in order. */
void neap_http_each_header(neap_http_req *r, void (*f)(void *ud, const char *name, const char *value), void *ud);
/* The body; NUL-terminated. neap_http_drop_body gives its memory back early. */
const char *neap_http_body(neap_http_req *r, size_t *len);
void neap_http_drop_body(neap_http_req *r);
/* Lends the body: it stays where it is, also behind the request's end, until neap_http_return_body. May be lent more than once. */
void neap_http_lend_body(neap_http_req *r);
void neap_http_return_body(neap_http_req *r);
uint64_t neap_http_id(const neap_http_req *r); /* unique in the process' life, never 0 */
/* The peer as text ("127.0.0.1", "unix"); kept with the request. *loopback tells whether it is this machine. */
const char *neap_http_peer(neap_http_req *r, int *loopback);
/* Where the dispatcher keeps its own thing. */
void *neap_http_data(neap_http_req *r);
void neap_http_set_data(neap_http_req *r, void *data);
/* Limits of this request: body bytes (only from `head`) and milliseconds of the handler (0 = keep, -1 = none). */
void neap_http_limit(neap_http_req *r, size_t max_body, int handler_ms);

/* ---- answers -------------------------------------------------------------------------------------------------------- */
typedef struct neap_http_header_kv {
    const char *name, *value; /* names are tokens, values have no control bytes: else NEAP_ERR_INVALID */
} neap_http_header_kv;

enum neap_http_own { NEAP_HTTP_COPY, NEAP_HTTP_STATIC, NEAP_HTTP_FREE };
/* Answers; nothing is sent before the next turn. Each request is answered once: later calls return NEAP_ERR_CLOSED, as after `gone`. With
   NEAP_HTTP_FREE the body (malloc'ed) is freed in every case. */
int neap_http_respond(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, const void *body, size_t len, enum neap_http_own own);
/* Answers with `len` bytes of a file from `off`; the descriptor is closed in every case. */
int neap_http_respond_file(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, int fd, uint64_t off, uint64_t len);
/* Answers GET and HEAD with the file `path` (decoded, len bytes) below the directory `root`; `index` is the name for directories (NULL: none),
   `cache` a Cache-Control value or NULL. NEAP_ERR_INVALID: there is no such file (nothing was sent); NEAP_ERR_UNSUPPORTED: another method. */
int neap_http_serve(neap_http_req *r, const char *root, const char *path, size_t len, const char *index, const char *cache);
/* The media type for a file name. */
const char *neap_http_type(const char *path);
/* Begins a streamed (chunked) answer. Then write, and end. `drained` is called when a writer that was told "full" may go on; `gone` of the app
   tells when the client leaves. */
int neap_http_stream(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, void (*drained)(neap_http_req *r, void *ud), void *ud);
/* Appends to the stream. 0, NEAP_ERR_FULL (taken, but wait for `drained` before more), NEAP_ERR_CLOSED (client gone), NEAP_ERR_MEMORY. */
int neap_http_stream_write(neap_http_req *r, const void *data, size_t len);
int neap_http_stream_end(neap_http_req *r);
/* Ends a stream as broken: the client sees the connection cut, not a complete answer. */
void neap_http_stream_abort(neap_http_req *r);
int neap_http_answered(const neap_http_req *r);
int neap_http_streaming(const neap_http_req *r);

/* ---- requests without a socket (tests of an app) --------------------------------------------------------------------------- */
/* A complete request as if a loopback client had sent it; h and body are copied. NULL with a sentence in err if the guard would refuse it.
   `answered` is called once, when the answer is whole; then neap_http_fake_answer gives it. Not dispatched: the caller does that. */
neap_http_req *neap_http_fake(const char *method, const char *target, const neap_http_header_kv *h, int nh, const void *body, size_t len,
                              void (*answered)(neap_http_req *r, void *ud), void *ud, char *err, size_t errlen);
/* The answer: status (0 if there is none yet), body, and header i through *name, *value (NULL behind the last). */
int neap_http_fake_answer(neap_http_req *r, const char **body, size_t *len);
int neap_http_fake_header(neap_http_req *r, int i, const char **name, const char **value);

/* The reason phrase of a status, "Unknown" if it has none. */
const char *neap_http_reason(int status);
/* InfluxDB 2's word for a refusal. */
const char *neap_http_code(int status);
/* A refusal's body in the words of every kind of client: problem+json (RFC 9457), and `error` as InfluxDB 1 has it, `code`, `message` and, if not 0,
   maxLength as InfluxDB 2 has them. detail: plain text without quotes, "" for the usual one. Returns its length, like snprintf. */
enum { NEAP_HTTP_PROBLEM = 800 };
int neap_http_problem(char *out, size_t n, int status, const char *detail, uint64_t max_length);
/* Compares two byte strings in time that depends on their lengths only. */
int neap_http_equal(const void *a, size_t an, const void *b, size_t bn);
#endif
