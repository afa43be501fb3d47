/* http_response.c: answers: whole, from a file, streamed; refusals; and small helpers on the wire format. Loop thread only.

   An answer is queued at once (MHD allows it while suspended) and leaves in the next run. A stream is pulled by MHD's content reader from a
   buffer; empty buffer = suspended connection. Above HIGH bytes the writer is told to wait, below LOW it may go on. */
#include "host/http_impl.h"
#include "host/swar.h"
#include <unistd.h>

#define HIGH  (64u << 10)
#define LOW   (16u << 10)
#define BLOCK 8192

const char *neap_http_reason(int status) {
    const char *p = MHD_get_reason_phrase_for((unsigned)status);
    return p ? p : "Unknown";
}

int neap_http_equal(const void *a, size_t an, const void *b, size_t bn) {
    const volatile unsigned char *x = a, *y = b;
    unsigned char diff = an != bn;
    for (size_t i = 0; i < an; i++) diff |= x[i] ^ (bn ? y[i % bn] : 0);
    return diff == 0;
}

static const struct usual {
    int status;
    const char *code, *detail;
} usual[] = {{400, "invalid", "the request is malformed"},
             {401, "unauthorized", ""},
             {403, "forbidden", ""},
             {404, "not found", ""},
             {405, "method not allowed", ""},
             {408, "request timeout", "the request did not come in time"},
             {413, "request too large", "the body is larger than this server takes"},
             {415, "unsupported media type", ""},
             {421, "invalid", ""},
             {429, "too many requests", ""},
             {431, "request header fields too large", "the headers are larger than this server takes"},
             {503, "unavailable", "the server is busy, try again"}};

static const struct usual *usual_of(int status) {
    static const struct usual client = {0, "invalid", ""}, server = {0, "internal error", ""};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (usual[i].status == status) return &usual[i];
    return status < 500 ? &client : &server;
}

const char *neap_http_code(int status) { return usual_of(status)->code; }

int neap_http_problem(char *out, size_t n, int status, const char *detail, uint64_t max_length) {
    const struct usual *u = usual_of(status);
    const char *name = neap_http_reason(status), *text = *detail ? detail : *u->detail ? u->detail : name;
    char most[40] = "";
    if (max_length) snprintf(most, sizeof most, ",\"maxLength\":%llu", (unsigned long long)max_length);
    return snprintf(
        out, n, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\",\"error\":\"%s\",\"code\":\"%s\",\"message\":\"%s\"%s}",
        name, status, text, text, u->code, text, most);
}

int http_raw_error(char *buf, size_t n, int status, uint64_t max_length) {
    char body[NEAP_HTTP_PROBLEM];
    int m = neap_http_problem(body, sizeof body, status, "", max_length);
    return snprintf(buf, n, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s", status,
                    neap_http_reason(status), m, status == 503 ? "Retry-After: 1\r\n" : "", body);
}

/* Queues `resp` for r and lets go of it. */
static int queue(neap_http_req *r, int status, struct MHD_Response *resp, uint64_t len) {
    neap_http *s = r->s;
    http_conn *k = r->conn;
    if (s->draining) MHD_add_response_header(resp, "Connection", "close");
    r->answered = 1;
    s->st.answered++;
    s->answers[status - 100]++;
    s->st.bytes_out += len;
    s->progress++;
    uint64_t ms = s->c.write_ms + len / 8; /* 8 KiB a second */
    http_phase(k, r->streaming ? HTTP_STREAM : HTTP_WRITE, r->streaming ? 0 : ms > 3600000 ? 3600000 : (unsigned)ms);
    neap_http_ref(r);
    int ok = MHD_queue_response(r->mhd, (unsigned)status, resp) == MHD_YES;
    MHD_destroy_response(resp);
    if (!r->streaming) http_flight_end(r);
    if (!ok && r->conn) http_cut(r->conn, 0);
    http_wake(r);
    neap_http_unref(r);
    return ok ? 0 : NEAP_ERR_INVALID;
}

/* MHD refuses empty values: such a header is left out. */
static int add_headers(struct MHD_Response *resp, const neap_http_header_kv *h, int nh) {
    for (int i = 0; i < nh; i++)
        if (h[i].value[0] && MHD_add_response_header(resp, h[i].name, h[i].value) != MHD_YES) return NEAP_ERR_INVALID;
    return 0;
}

static int valid(int status, const neap_http_header_kv *h, int nh) {
    if (status < 200 || status > 599) return 0;
    for (int i = 0; i < nh; i++) {
        if (!h[i].name[0] || !swar_plain(h[i].name, strlen(h[i].name), ':', ' ')) return 0;
        if (swar_plain(h[i].value, strlen(h[i].value), 0, 0)) continue;
        for (const char *p = h[i].value; *p; p++)
            if ((*p > 0 && *p < ' ' && *p != '\t') || *p == 0x7f) return 0;
    }
    return 1;
}

int neap_http_respond(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, const void *body, size_t len, enum neap_http_own own) {
    int err = (!r->mhd && !r->fake) || r->answered ? NEAP_ERR_CLOSED : !valid(status, h, nh) ? NEAP_ERR_INVALID : 0;
    struct MHD_Response *resp = NULL;
    if (!err && r->fake) {
        err = http_fake_respond(r, status, h, nh, body, len);
        if (!err) http_fake_done(r);
        if (own == NEAP_HTTP_FREE) free((void *)body);
        return err;
    }
    if (!err) {
        resp = own == NEAP_HTTP_FREE && len   ? mhd_response_malloced(len, (void *)body)
               : own == NEAP_HTTP_COPY && len ? mhd_response_copy(len, body)
                                              : mhd_response_static(len, len ? body : "");
        if (!resp) err = NEAP_ERR_MEMORY;
    }
    if (own == NEAP_HTTP_FREE && (!resp || !len)) free((void *)body);
    if (!err) err = add_headers(resp, h, nh);
    if (!err) return queue(r, status, resp, len);
    if (resp) MHD_destroy_response(resp);
    return err;
}

int neap_http_respond_file(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, int fd, uint64_t off, uint64_t len) {
    int err = (!r->mhd && !r->fake) || r->answered ? NEAP_ERR_CLOSED : !valid(status, h, nh) ? NEAP_ERR_INVALID : 0;
    if (!err && r->fake) {
        char *text = malloc(len ? len : 1);
        ssize_t got = text ? pread(fd, text, len, (off_t)off) : -1;
        close(fd);
        if (got >= 0) return neap_http_respond(r, status, h, nh, text, (size_t)got, NEAP_HTTP_FREE);
        free(text);
        return NEAP_ERR_IO;
    }
    struct MHD_Response *resp = err ? NULL : MHD_create_response_from_fd_at_offset64(len, fd, off);
    if (!resp) close(fd);
    if (!err && !resp) err = NEAP_ERR_MEMORY;
    if (!err) err = add_headers(resp, h, nh);
    if (!err) return queue(r, status, resp, len);
    if (resp) MHD_destroy_response(resp); /* closes fd */
    return err;
}

/* A refusal of ours: problem+json, connection closed. Before the body is there MHD closes by itself, and the socket lingers. */
enum MHD_Result http_refuse(neap_http_req *r, int status, const char *why) {
    char body[NEAP_HTTP_PROBLEM];
    neap_http_header_kv h[] = {{"Content-Type", "application/problem+json"}, {"Connection", "close"}, {"Retry-After", "1"}};
    int n = neap_http_problem(body, sizeof body, status, why, status == 413 ? r->max_body : 0);
    if (r->conn) r->conn->linger = 1;
    return neap_http_respond(r, status, h, status == 503 ? 3 : 2, body, (size_t)n, NEAP_HTTP_COPY) ? MHD_NO : MHD_YES;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

/* The client must take some bytes within write_ms; with no bytes waiting there is no deadline. */
static void stall_clock(neap_http_req *r) {
    if (r->conn) http_phase(r->conn, HTTP_STREAM, r->out.len > r->out_pos ? r->s->c.write_ms : 0);
}

static ssize_t pull(void *cls, uint64_t pos, char *to, size_t max) {
    neap_http_req *r = cls;
    size_t have = r->out.len - r->out_pos;
    if (!r->mhd || (r->bad && !r->ended)) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (!have) {
        if (r->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        if (!r->suspended) {
            r->suspended = 1;
            MHD_suspend_connection(r->mhd);
        }
        return 0;
    }
    if (have > max) have = max;
    memcpy(to, r->out.data + r->out_pos, have);
    r->out_pos += have;
    r->s->progress++;
    r->s->st.bytes_out += have;
    if (r->out_pos == r->out.len) {
        r->out_pos = 0;
        buf_clear(&r->out);
    }
    stall_clock(r);
    if (r->was_full && r->out.len - r->out_pos < LOW) {
        r->was_full = 0;
        if (r->drained) r->drained(r, r->drained_ud);
    }
    return (ssize_t)have;
}

static void pulled(void *cls) { neap_http_unref(cls); }

int neap_http_stream(neap_http_req *r, int status, const neap_http_header_kv *h, int nh, void (*drained)(neap_http_req *r, void *ud), void *ud) {
    if ((!r->mhd && !r->fake) || r->answered) return NEAP_ERR_CLOSED;
    if (!valid(status, h, nh)) return NEAP_ERR_INVALID;
    if (r->fake) {
        r->streaming = 1;
        return http_fake_respond(r, status, h, nh, "", 0);
    }
    struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull, r, pulled);
    if (!resp) return NEAP_ERR_MEMORY;
    neap_http_ref(r);
    if (add_headers(resp, h, nh)) {
        MHD_destroy_response(resp);
        return NEAP_ERR_INVALID;
    }
    r->streaming = 1;
    r->drained = drained;
    r->drained_ud = ud;
    return queue(r, status, resp, 0);
}

int neap_http_stream_write(neap_http_req *r, const void *data, size_t len) {
    if (!r->streaming || r->ended || r->bad) return NEAP_ERR_CLOSED;
    if (r->fake) return http_fake_stream(r, data, len);
    if (!r->mhd) return NEAP_ERR_CLOSED;
    if (r->out_pos > HIGH && r->out_pos * 2 > r->out.len) { /* move what is left to the front now and then */
        memmove(r->out.data, r->out.data + r->out_pos, r->out.len - r->out_pos);
        r->out.len -= r->out_pos;
        r->out_pos = 0;
    }
    int was_empty = r->out.len == r->out_pos;
    if (buf_add(&r->out, data, len)) return NEAP_ERR_MEMORY;
    if (was_empty) stall_clock(r);
    http_wake(r);
    if (r->out.len - r->out_pos < HIGH) return 0;
    r->was_full = 1;
    return NEAP_ERR_FULL;
}

int neap_http_stream_end(neap_http_req *r) {
    if (!r->streaming || r->ended || r->bad) return NEAP_ERR_CLOSED;
    r->ended = 1;
    r->drained = NULL;
    if (r->fake) {
        http_fake_done(r);
        return 0;
    }
    http_flight_end(r);
    if (!r->mhd) return NEAP_ERR_CLOSED;
    http_wake(r);
    return 0;
}

void neap_http_stream_abort(neap_http_req *r) {
    if (!r->streaming || r->ended || r->bad) return;
    if (r->fake) {
        neap_http_stream_end(r);
        return;
    }
    neap_http_ref(r);
    r->bad = r->told = 1;
    http_flight_end(r);
    if (r->mhd) http_wake(r);
    neap_http_unref(r);
}
