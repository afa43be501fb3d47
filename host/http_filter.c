/* http_filter.c: every byte of a plain-text connection, seen once, before libmicrohttpd has it.

   MHD shows us neither the lines between chunks nor the trailers, so what they hold cannot be checked in its callbacks; looking ahead with MSG_PEEK
   misses a third of the requests. But MHD reads with recv() through the linker's table, and this program has a recv() of its own: it reads as the
   real one does and walks the bytes. It follows the framing of heads (http_guard.c judges them) and is strict inside chunked bodies: sizes,
   extensions, trailers, their ends and lengths. At a fault MHD still gets the bytes before it; the next call answers 400, and the connection ends.

   Without effect on other sockets of the process, and where somebody else's recv() comes first (http_selftest.c finds out). Over TLS it is the same
   with gnutls_record_recv(). The one thread-local of the host: recv() has no room for a context. */
#include "host/http_impl.h"
#include <dlfcn.h>
#include <errno.h>
#include <strings.h>
#include <sys/socket.h>

#define SIZE_DIGITS 15   /* more hex digits are no size of ours */
#define EXT_MAX     256  /* bytes of one chunk line */
#define SHORT       16   /* fewer bytes are no request: empty lines between two, say */
#define TRAILER_MAX 4096 /* bytes of all trailers */

/* Where in a request the next byte is. */
enum {
    START,      /* before a request line; empty lines may come */
    HEAD,       /* in the lines of a head */
    BODY,       /* `left` bytes of a body with a length */
    SIZE,       /* digits of a chunk's size */
    EXT,        /* behind them: spaces, ';' or the end of the line */
    EXT_NAME,   /* behind ';' */
    EXT_IN,     /* in an extension's name */
    EXT_VALUE,  /* behind '=' */
    EXT_TOKEN,  /* in its value */
    EXT_QUOTED, /* in a quoted one */
    EXT_ESCAPE, /* behind a backslash there */
    SIZE_LF,    /* the line's CR was read */
    DATA,       /* `left` bytes of a chunk */
    DATA_CR,
    DATA_LF,
    TRAILER, /* at the beginning of a trailer line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    OPEN, /* the head is one that http_guard.c refuses: nothing behind it is read as a request */
    BAD
};

static _Thread_local neap_http *running __attribute__((tls_model("initial-exec")));

neap_http *http_filter_for(neap_http *s) {
    neap_http *before = running;
    running = s;
    return before;
}

static int tchar(unsigned char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static int hexdigit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One whole line of a head, without its end. Notes the framing; returns the state behind it. */
static int head_line(http_filter *f, const char *p, size_t n, size_t whole) {
    if (!n) {
        if (f->state == START) return START;
        if (f->lengths + f->encodings > 1) return OPEN;
        if (f->encodings) return f->digits = 0, f->left = 0, SIZE;
        return f->left ? BODY : START;
    }
    int first = p[0] | 0x20;
    size_t name = first == 't' ? 17 : first == 'c' ? 14 : 0;
    if (f->state == START || !name || n <= name || p[name] != ':' || strncasecmp(p, name == 17 ? "transfer-encoding" : "content-length", name))
        return HEAD;
    if (whole > n) return BAD; /* spaces without end: its value is out of sight */
    for (p += name + 1, n -= name + 1; n && (*p == ' ' || *p == '\t'); p++) n--;
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t')) n--;
    if (name == 17) {
        f->encodings++;
        return n == 7 && !strncasecmp(p, "chunked", 7) ? HEAD : OPEN;
    }
    f->lengths++;
    f->left = 0;
    if (!n || n > 18) return BAD; /* MHD would answer by itself, with two heads */
    for (; n; p++, n--) {
        if (*p < '0' || *p > '9') return BAD;
        f->left = f->left * 10 + (uint64_t)(*p - '0');
    }
    return HEAD;
}

/* The lines of a head from p on. Returns how far it came: n, or up to the end of the head. */
static size_t head(http_filter *f, const char *p, size_t n) {
    size_t at = 0;
    while (at < n && (f->state == HEAD || f->state == START)) {
        const char *lf = memchr(p + at, '\n', n - at), *line = p + at;
        size_t len = lf ? (size_t)(lf - line) : n - at, whole = len;
        if (!lf || f->line_len) { /* the line is in pieces: its beginning is kept */
            size_t room = sizeof f->line - (f->line_len < sizeof f->line ? f->line_len : sizeof f->line), k = len < room ? len : room;
            memcpy(f->line + (sizeof f->line - room), line, k);
            f->line_len += (unsigned)len;
            if (!lf) return n;
            line = f->line;
            whole = f->line_len;
            len = whole < sizeof f->line ? whole : sizeof f->line;
            f->line_len = 0;
        }
        at = (size_t)(lf - p) + 1;
        if (len == whole && len && line[len - 1] == '\r') len--, whole--;
        int was = f->state, next = head_line(f, line, len, whole);
        if (was == START && next == HEAD) f->lengths = f->encodings = 0, f->left = 0;
        f->state = (unsigned char)next;
    }
    return at;
}

/* One byte of a chunk line or a trailer. Returns the next state. */
static int strict(http_filter *f, unsigned char c) {
    int space = c == ' ' || c == '\t', shown = space || (c > 0x20 && c != 0x7f), v;
    f->line_len++;
    switch (f->state) {
    case SIZE:
        if ((v = hexdigit(c)) >= 0) {
            if (++f->digits > SIZE_DIGITS) return BAD;
            f->left = f->left << 4 | (uint64_t)v;
            return SIZE;
        }
        if (!f->digits) return BAD; /* fall through */
    case EXT: return c == '\r' ? SIZE_LF : c == ';' ? EXT_NAME : space ? EXT : BAD;
    case EXT_NAME: return space ? EXT_NAME : tchar(c) ? EXT_IN : BAD;
    case EXT_IN: return tchar(c) ? EXT_IN : c == '=' ? EXT_VALUE : c == ';' ? EXT_NAME : c == '\r' ? SIZE_LF : BAD;
    case EXT_VALUE: return c == '"' ? EXT_QUOTED : tchar(c) ? EXT_TOKEN : BAD;
    case EXT_TOKEN: return tchar(c) ? EXT_TOKEN : c == ';' ? EXT_NAME : c == '\r' ? SIZE_LF : space ? EXT : BAD;
    case EXT_QUOTED: return c == '"' ? EXT : c == '\\' ? EXT_ESCAPE : shown ? EXT_QUOTED : BAD;
    case EXT_ESCAPE: return shown ? EXT_QUOTED : BAD;
    case SIZE_LF:
        f->digits = 0;
        f->line_len = 0;
        return c != '\n' ? BAD : f->left ? DATA : TRAILER;
    case DATA_CR: return c == '\r' ? DATA_LF : BAD;
    case DATA_LF: f->line_len = 0; return c == '\n' ? SIZE : BAD;
    case TRAILER: return c == '\r' ? LAST_LF : tchar(c) ? TRAILER_NAME : BAD;
    case TRAILER_NAME: return tchar(c) ? TRAILER_NAME : c == ':' ? TRAILER_VALUE : BAD;
    case TRAILER_VALUE: return c == '\r' ? TRAILER_LF : shown ? TRAILER_VALUE : BAD;
    case TRAILER_LF: return c == '\n' ? TRAILER : BAD;
    case LAST_LF: f->line_len = 0; return c == '\n' ? START : BAD;
    }
    return BAD;
}

size_t http_filter_walk(http_filter *f, const char *p, size_t n) {
    size_t at = 0;
    while (at < n) {
        switch (f->state) {
        case START:
        case HEAD: at += head(f, p + at, n - at); break;
        case BODY:
        case DATA: {
            size_t k = f->left < n - at ? (size_t)f->left : n - at;
            at += k;
            f->left -= k;
            if (!f->left) f->state = f->state == BODY ? START : DATA_CR;
            break;
        }
        case OPEN: return n;
        case BAD: return at;
        default:
            f->state = (unsigned char)strict(f, (unsigned char)p[at]);
            if (f->line_len > (f->state < TRAILER ? EXT_MAX : TRAILER_MAX)) f->state = BAD;
            if (f->state != BAD) at++;
        }
    }
    return at;
}

int http_filter_bad(const http_filter *f) { return f->state == BAD; }

/* GnuTLS comes with libmicrohttpd; we do not link it. */
static void *gnutls(const char *name) { return dlsym(RTLD_NEXT, name); }

static void say_400(http_conn *k, void *session) {
    ssize_t (*send_record)(void *, const void *, size_t) = (ssize_t(*)(void *, const void *, size_t))gnutls("gnutls_record_send");
    char text[2 * NEAP_HTTP_PROBLEM];
    int n = http_raw_error(text, sizeof text, 400, 0);
    if (k->phase > HTTP_BODY || !send_record || send_record(session, text, (size_t)n) != n) return;
    k->s->st.answered++;
    k->s->answers[400 - 100]++;
}

/* A fault was met before, or the connection was cut: what came ahead of that has been read. session: of TLS, or NULL. */
static ssize_t refuse(http_conn *k, void *session) {
    if (!k->cut) k->s->st.refused_bad++;
    if (!k->cut && session) say_400(k, session);
    http_cut(k, 400);
    return 0;
}

/* What was read of connection k (NULL: none of ours), as MHD may have it. */
static ssize_t filtered(http_conn *k, void *session, const void *buf, ssize_t got) {
    if (!k) return got;
    if (got == 0 || (got < 0 && errno == ECONNRESET)) k->ended = 1;
    if (got <= 0) return got;
    k->heard = 1;
    size_t good = http_filter_walk(&k->filter, buf, (size_t)got);
    int begun = k->filter.state == HEAD || k->filter.line_len;
    if (k->phase == HTTP_IDLE && (begun || got < SHORT)) http_stirs(k, begun);
    if (k->filter.state != BAD) return got;
    if (!good) return refuse(k, session);
    if (!session) shutdown(k->fd, SHUT_RD); /* MHD waits for an edge before it calls again */
    return (ssize_t)good;
}

static http_conn *conn_of(neap_http *s, int fd) { return fd >= 0 && fd < s->fd_cap ? s->by_fd[fd] : NULL; }

/* libmicrohttpd's, and everybody's, recv. */
ssize_t recv(int fd, void *buf, size_t n, int flags) {
    neap_http *s = running;
    if (!s) return recvfrom(fd, buf, n, flags, NULL, NULL);
    s->filter = 1; /* proof for the self-test */
    http_conn *k = s->tls ? NULL : conn_of(s, fd);
    if (k && (k->cut || k->filter.state == BAD)) return refuse(k, NULL);
    return filtered(k, NULL, buf, recvfrom(fd, buf, n, flags, NULL, NULL));
}

/* The same where TLS lies between: libmicrohttpd's, and everybody's, gnutls_record_recv. */
ssize_t gnutls_record_recv(void *session, void *buf, size_t n);
ssize_t gnutls_record_recv(void *session, void *buf, size_t n) {
    ssize_t (*real)(void *, void *, size_t) = (ssize_t(*)(void *, void *, size_t))gnutls("gnutls_record_recv");
    int (*fd_of)(void *) = (int (*)(void *))gnutls("gnutls_transport_get_int");
    neap_http *s = running;
    http_conn *k = s && s->tls && fd_of ? conn_of(s, fd_of(session)) : NULL;
    if (!real) return -1;
    if (k && (k->cut || k->filter.state == BAD)) return refuse(k, session);
    return filtered(k, session, buf, real(session, buf, n));
}
