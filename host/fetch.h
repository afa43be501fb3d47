/* fetch.h: an HTTP client on libcurl's multi interface, inside a libuv loop. Connections are kept and reused. Loop thread only. */
#ifndef NEAP_FETCH_H
#define NEAP_FETCH_H
#include <uv.h>
#include "host/buf.h"

typedef struct neap_fetch neap_fetch;
typedef struct neap_fetch_op neap_fetch_op;

typedef struct neap_fetch_request {
    const char *method, *url;
    const char *unix_path;      /* or NULL */
    const char *const *headers; /* "Name: value" lines */
    int nheaders;
    const void *body; /* copied; NULL: none */
    size_t body_len;
    size_t max_body;             /* of the answer; 0 = 64 MiB */
    long timeout_ms, connect_ms; /* whole request, 0 = 30 s; connecting, 0 = 10 s */
    int follow;                  /* redirects to follow, 0 = none */
    int insecure;                /* nonzero: certificates are not checked */
    const char *ca_file;         /* or NULL: the system's */
} neap_fetch_request;

typedef struct neap_fetch_result {
    int status; /* HTTP status */
    int sent;   /* nonzero if (part of) the request left: it may have run */
    double seconds;
    neap_buf head; /* header lines of the last answer, "Name: value\n" */
    neap_buf body;
    char url[512];     /* where it came from in the end */
    char message[256]; /* what went wrong, for people */
} neap_fetch_result;

/* err: 0, NEAP_ERR_TIMEOUT, _CONNECTION, _INVALID (URL), _FULL (answer larger than max_body), _CLOSED (client freed), _MEMORY. Take buffers over by
   zeroing them in the result; what is left there is freed after the callback. */
typedef void (*neap_fetch_cb)(int err, neap_fetch_result *res, void *ud);

neap_fetch *neap_fetch_new(uv_loop_t *loop); /* NULL without memory, or where libcurl is not installed */
/* Ends all requests (their callbacks get NEAP_ERR_CLOSED), closes all connections; memory goes in the loop's next turns. */
void neap_fetch_free(neap_fetch *f);
/* Starts a request; the callback comes later, from the loop. 0 or an error code; *op (may be NULL) is valid until the callback. */
int neap_fetch_start(neap_fetch *f, const neap_fetch_request *q, neap_fetch_cb cb, void *ud, neap_fetch_op **op);
/* Forgets a request: no callback any more, its connection is closed. */
void neap_fetch_cancel(neap_fetch_op *op);
#endif
