/* http_fake.c: requests without a socket, so that an app can be tried in its own process: the same request and answer calls, nothing on a wire. */
#include "host/http_impl.h"
#include <strings.h>

struct http_fake {
    neap_http_header_kv in[64], out[64];
    int nin, nout, status;
    neap_buf body;
    void (*answered)(neap_http_req *r, void *ud);
    void *ud;
};

static int copy(neap_http_header_kv *to, int *n, int max, const neap_http_header_kv *h, int nh) {
    for (int i = 0; i < nh; i++) {
        if (*n == max || !(to[*n].name = strdup(h[i].name))) return NEAP_ERR_MEMORY;
        if (!(to[(*n)++].value = strdup(h[i].value))) return NEAP_ERR_MEMORY;
    }
    return 0;
}

static void drop(neap_http_header_kv *h, int n) {
    for (int i = 0; i < n; i++) {
        free((char *)h[i].name);
        free((char *)h[i].value);
    }
}

void http_fake_free(neap_http_req *r) {
    drop(r->fake->in, r->fake->nin);
    drop(r->fake->out, r->fake->nout);
    buf_free(&r->fake->body);
    free(r->fake);
}

neap_http_req *neap_http_fake(const char *method, const char *target, const neap_http_header_kv *h, int nh, const void *body, size_t len,
                              void (*answered)(neap_http_req *r, void *ud), void *ud, char *err, size_t errlen) {
    neap_http_req *r = calloc(1, sizeof *r);
    const char *why = "out of memory";
    if (!r || !(r->fake = calloc(1, sizeof *r->fake))) {
        free(r);
        if (errlen) snprintf(err, errlen, "%s", why);
        return NULL;
    }
    r->refs = 1;
    r->id = 1;
    r->fake->answered = answered;
    r->fake->ud = ud;
    snprintf(r->method_copy, sizeof r->method_copy, "%s", method);
    strcpy(r->peer, "127.0.0.1");
    r->loopback = r->dispatched = 1;
    if (!buf_puts(&r->target, target) && !buf_add(&r->body, body, len) && !copy(r->fake->in, &r->fake->nin, 64, h, nh) && !http_guard_target(r, &why))
        return r;
    if (errlen) snprintf(err, errlen, "%s", why);
    neap_http_unref(r);
    return NULL;
}

int http_fake_respond(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, const void *body, size_t len) {
    struct http_fake *f = r->fake;
    int bodiless = !strcmp(r->method_copy, "HEAD") || status == 204 || status == 304;
    if (copy(f->out, &f->nout, 64, h, nh) || buf_add(&f->body, body, bodiless ? 0 : len)) return NEAP_ERR_MEMORY;
    f->status = status;
    r->answered = 1;
    return 0;
}

int http_fake_stream(neap_http_req *r, const void *data, size_t len) { return buf_add(&r->fake->body, data, len); }

void http_fake_done(neap_http_req *r) {
    void (*f)(neap_http_req *, void *) = r->fake->answered;
    r->ended = 1;
    r->fake->answered = NULL;
    if (f) f(r, r->fake->ud);
}

const char *http_fake_lookup(neap_http_req *r, const char *name) {
    for (int i = 0; i < r->fake->nin; i++)
        if (!strcasecmp(r->fake->in[i].name, name)) return r->fake->in[i].value;
    return NULL;
}

void http_fake_each(neap_http_req *r, void (*f)(void *ud, const char *name, const char *value), void *ud) {
    for (int i = 0; i < r->fake->nin; i++) f(ud, r->fake->in[i].name, r->fake->in[i].value);
}

int neap_http_fake_answer(neap_http_req *r, const char **body, size_t *len) {
    *body = r->fake->body.data ? r->fake->body.data : "";
    *len = r->fake->body.len;
    return r->fake->status;
}

int neap_http_fake_header(neap_http_req *r, int i, const char **name, const char **value) {
    if (i >= r->fake->nout) return 0;
    *name = r->fake->out[i].name;
    *value = r->fake->out[i].value;
    return 1;
}
