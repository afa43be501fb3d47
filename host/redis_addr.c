/* redis_addr.c: Redis addresses from URLs, and commands in wire form. */
#include <ctype.h>
#include <math.h>
#include "host/num.h"
#include "host/redis.h"

void neap_redis_addr_free(neap_redis_addr *a) {
    free(a->path);
    free(a->host);
    free(a->user);
    free(a->password);
    *a = (neap_redis_addr){0};
}

static int copy(char **to, const char *s) {
    *to = s ? strdup(s) : NULL;
    return s && !*to ? NEAP_ERR_MEMORY : 0;
}

int neap_redis_addr_copy(const neap_redis_addr *from, neap_redis_addr *to) {
    *to = (neap_redis_addr){.port = from->port, .db = from->db};
    if (copy(&to->path, from->path) || copy(&to->host, from->host) || copy(&to->user, from->user) || copy(&to->password, from->password)) {
        neap_redis_addr_free(to);
        return NEAP_ERR_MEMORY;
    }
    return 0;
}

const char *neap_redis_addr_text(const neap_redis_addr *a, char *buf, size_t len) {
    if (a->path) snprintf(buf, len, "%s", a->path);
    else snprintf(buf, len, strchr(a->host, ':') ? "[%s]:%d" : "%s:%d", a->host, a->port);
    return buf;
}

/* ---- URLs ---------------------------------------------------------------------------------------------------------- */

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* s[0..n) with percent escapes decoded; NULL when out of memory. A broken escape stays as it is. */
static char *decode(const char *s, size_t n) {
    char *out = malloc(n + 1), *o = out;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)s[i];
        if (c == '%' && i + 2 < n && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0 && (s[i + 1] != '0' || s[i + 2] != '0')) {
            c = hex(s[i + 1]) * 16 + hex(s[i + 2]);
            i += 2;
        }
        *o++ = (char)c;
    }
    *o = 0;
    return out;
}

static bool number(const char *s, size_t n, int max, int *out) {
    long v = 0;
    if (!n || n > 9) return false;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i])) return false;
        v = v * 10 + (s[i] - '0');
    }
    *out = (int)v;
    return v <= max;
}

static bool query(const char *q, neap_redis_addr *a) {
    while (*q) {
        size_t n = strcspn(q, "&"), k = strcspn(q, "=&");
        const char *v = q + k + 1;
        size_t vn = n > k ? n - k - 1 : 0;
        if (k == 2 && !strncmp(q, "db", 2)) {
            if (!number(v, vn, 1 << 20, &a->db)) return false;
        } else if ((k == 4 && !strncmp(q, "user", 4)) || (k == 8 && (!strncmp(q, "password", 8) || !strncmp(q, "username", 8)))) {
            char **to = *q == 'p' ? &a->password : &a->user;
            free(*to);
            *to = decode(v, vn);
        } else {
            return false;
        }
        q += n + (q[n] == '&');
    }
    return true;
}

/* "[user[:password]@]" at s; moves *s past it. */
static void userinfo(const char **s, const char *end, neap_redis_addr *a) {
    const char *at = NULL;
    for (const char *p = *s; p < end; p++)
        if (*p == '@') at = p;
    if (!at) return;
    const char *colon = memchr(*s, ':', (size_t)(at - *s));
    if (colon) {
        if (colon > *s) a->user = decode(*s, (size_t)(colon - *s));
        a->password = decode(colon + 1, (size_t)(at - colon - 1));
    } else {
        a->user = decode(*s, (size_t)(at - *s));
    }
    *s = at + 1;
}

/* "host[:port][/db][?..]" without the query. Returns what is wrong, or NULL. */
static const char *authority(const char *s, neap_redis_addr *a) {
    const char *q = strchr(s, '?'), *end = q ? q : s + strlen(s);
    /* a password may hold a slash when someone did not escape it: the authority ends at the first slash after the last @ */
    const char *from = s;
    for (const char *p = s; p < end; p++)
        if (*p == '@') from = p;
    const char *slash = memchr(from, '/', (size_t)(end - from)), *stop = slash ? slash : end;
    userinfo(&s, stop, a);
    const char *port = NULL;
    size_t hostlen;
    if (*s == '[') {
        const char *close = memchr(s, ']', (size_t)(stop - s));
        if (!close) return "the bracket of the IPv6 address does not close";
        hostlen = (size_t)(close - s - 1);
        s++;
        if (close + 1 < stop) {
            if (close[1] != ':') return "a port after the IPv6 address needs a colon";
            port = close + 2;
        }
    } else {
        const char *colon = memchr(s, ':', (size_t)(stop - s));
        hostlen = (size_t)((colon ? colon : stop) - s);
        if (colon) port = colon + 1;
    }
    if (port && (!number(port, (size_t)(stop - port), 65535, &a->port) || !a->port)) return "the port is not a number from 1 to 65535";
    if (slash && end - slash > 1 && !number(slash + 1, (size_t)(end - slash - 1), 1 << 20, &a->db))
        return "the part after the last slash is the database's number";
    a->host = hostlen ? decode(s, hostlen) : strdup("127.0.0.1");
    return NULL;
}

int neap_redis_addr_parse(const char *url, neap_redis_addr *out, char *err, size_t errlen) {
    neap_redis_addr a = {.port = 6379};
    const char *wrong = NULL, *q = strchr(url, '?');
    size_t n = q ? (size_t)(q - url) : strlen(url);
    const char *forms = "redis://[user:password@]host[:port][/db] or unix:///path/to/socket";
    if (err && errlen) *err = 0;
    if (!strncmp(url, "rediss://", 9)) {
        snprintf(err, errlen, "TLS to Redis (rediss://) is not built in: use a local socket, or a TLS tunnel such as stunnel, and give its address");
        return NEAP_ERR_UNSUPPORTED;
    }
    if (!strncmp(url, "redis://", 8)) {
        wrong = authority(url + 8, &a);
    } else if (!strncmp(url, "unix://", 7) || !strncmp(url, "redis+unix://", 13)) {
        const char *s = strstr(url, "://") + 3;
        const char *path = memchr(s, '/', n - (size_t)(s - url));
        if (path) {
            userinfo(&s, path, &a);
            a.path = decode(path, n - (size_t)(path - url));
        } else {
            wrong = "a socket needs an absolute path";
        }
    } else if (*url == '/') {
        a.path = strdup(url);
        q = NULL;
    } else if (strstr(url, "://") || !*url) {
        wrong = *url ? "unknown scheme" : "it is empty";
    } else {
        wrong = authority(url, &a);
    }
    if (!wrong && q && !query(q + 1, &a)) wrong = "after the question mark only db=, user= and password= are understood";
    if (wrong) {
        snprintf(err, errlen, "not a Redis address: %s. Write %s", wrong, forms);
        neap_redis_addr_free(&a);
        return NEAP_ERR_INVALID;
    }
    if (!a.path && !a.host) {
        neap_redis_addr_free(&a);
        return NEAP_ERR_MEMORY;
    }
    *out = a;
    return 0;
}

/* ---- wire form ----------------------------------------------------------------------------------------------------- */

static size_t digits(char *end, uint64_t v) { /* writes backwards from end; returns how many */
    char *p = end;
    do *--p = (char)('0' + v % 10);
    while (v /= 10);
    return (size_t)(end - p);
}

/* "$12\r\n" at `to`, which has room for 24 bytes; returns its length. */
static size_t header(char *to, char sign, uint64_t v) {
    char t[24], *end = to + 1;
    *to = sign;
    if (v < 100) {
        if (v > 9) *end++ = (char)('0' + v / 10);
        *end++ = (char)('0' + v % 10);
    } else {
        size_t n = digits(t + sizeof t, v);
        memcpy(end, t + sizeof t - n, n);
        end += n;
    }
    *end++ = '\r';
    *end++ = '\n';
    return (size_t)(end - to);
}

int neap_resp_begin(neap_buf *b, size_t argc) {
    if (buf_reserve(b, 24)) return NEAP_ERR_MEMORY;
    b->len += header(b->data + b->len, '*', argc);
    b->data[b->len] = 0;
    return 0;
}

int neap_resp_str(neap_buf *b, const char *s, size_t len) {
    if (buf_reserve(b, len + 26)) return NEAP_ERR_MEMORY;
    char *p = b->data + b->len;
    p += header(p, '$', len);
    if (len) memcpy(p, s, len);
    memcpy(p + len, "\r\n", 3);
    b->len = (size_t)(p + len + 2 - b->data);
    return 0;
}

int neap_resp_int(neap_buf *b, int64_t n) {
    char t[24];
    size_t len = digits(t + 24, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
    if (n < 0) t[24 - ++len] = '-';
    return neap_resp_str(b, t + 24 - len, len);
}

int neap_resp_num(neap_buf *b, double x) {
    char t[NEAP_NUM_TEXT];
    if (isnan(x)) return neap_resp_str(b, "nan", 3);
    if (isinf(x)) return x > 0 ? neap_resp_str(b, "inf", 3) : neap_resp_str(b, "-inf", 4);
    return neap_resp_str(b, t, neap_num_format(x, false, t));
}
