/* safetensors_read.c: the strict reader. A small JSON parser for exactly what a header may hold (an object of objects), bounded in every direction;
   then the layout rules: offsets in range, the size that shape and dtype ask for, no holes, no overlaps. */
#include "host/safetensors.h"
#include "host/buf.h"
#include "host/sha256.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_HEADER  (100u << 20) /* the format's own limit */
#define MOST_TENSORS 100000

typedef struct reader {
    neap_safe *s;
    const unsigned char *p, *end;
    const unsigned char *sum; /* the checksum's digits in the header */
} reader;

typedef struct range {
    uint64_t from, to;
} range;

__attribute__((format(printf, 3, 4))) static int fail(neap_safe *s, int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->error, sizeof s->error, fmt, ap);
    va_end(ap);
    return code;
}

static int bad(reader *r, const char *what) { return fail(r->s, NEAP_ERR_CORRUPT, "its header is malformed: %s", what); }

static void space(reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

/* Skips space; takes c if it comes next. */
static int take(reader *r, char c) {
    space(r);
    if (r->p >= r->end || *r->p != (unsigned char)c) return 0;
    r->p++;
    return 1;
}

static int hex4(reader *r, uint32_t *u) {
    *u = 0;
    if (r->end - r->p < 4) return 0;
    for (int i = 0; i < 4; i++, r->p++) {
        int c = *r->p, d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return 0;
        *u = *u << 4 | (uint32_t)d;
    }
    return 1;
}

static int put_utf8(neap_buf *b, uint32_t u) {
    char c[4];
    int n = u < 0x80 ? 1 : u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, u >>= 6) c[i] = (char)(0x80 | (u & 0x3F));
    c[0] = (char)(n == 1 ? u : (0xF00 >> n & 0xFF) | u);
    return buf_add(b, c, (size_t)n);
}

/* Bytes of a valid UTF-8 sequence at p, 0 if there is none. */
static int utf8_length(const unsigned char *p, const unsigned char *end) {
    int n = *p < 0x80 ? 1 : *p >= 0xC2 && *p < 0xE0 ? 2 : *p >= 0xE0 && *p < 0xF0 ? 3 : *p >= 0xF0 && *p < 0xF5 ? 4 : 0;
    if (n == 0 || end - p < n) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F)) return 0;
    return n;
}

/* A JSON string into b (cleared first). No NUL inside: names are C strings. */
static int string(reader *r, neap_buf *b) {
    buf_clear(b);
    if (buf_reserve(b, 1)) return NEAP_ERR_MEMORY;
    b->data[0] = 0;
    if (!take(r, '"')) return bad(r, "a string is missing");
    while (r->p < r->end && *r->p != '"') {
        int c = *r->p, n;
        if (c < 0x20) return bad(r, "a control character in a string");
        if (c == '\\') {
            static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
            if (++r->p >= r->end) break;
            const char *at = strchr(from, *r->p);
            uint32_t u, low;
            c = *r->p++;
            if (c == 'u') {
                if (!hex4(r, &u)) return bad(r, "an escape");
                if (u >= 0xD800 && u < 0xDC00) {
                    if (r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u') return bad(r, "half a surrogate pair");
                    r->p += 2;
                    if (!hex4(r, &low) || low < 0xDC00 || low > 0xDFFF) return bad(r, "half a surrogate pair");
                    u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
                } else if ((u >= 0xDC00 && u < 0xE000) || u == 0) {
                    return bad(r, "an escape");
                }
                if (put_utf8(b, u)) return NEAP_ERR_MEMORY;
            } else {
                if (!c || !at) return bad(r, "an escape");
                if (buf_putc(b, to[at - from])) return NEAP_ERR_MEMORY;
            }
            continue;
        }
        if (!(n = utf8_length(r->p, r->end))) return bad(r, "text that is not UTF-8");
        if (buf_add(b, r->p, (size_t)n)) return NEAP_ERR_MEMORY;
        r->p += n;
    }
    if (r->p >= r->end) return bad(r, "a string does not end");
    r->p++;
    return 0;
}

static int number(reader *r, uint64_t *v) {
    space(r);
    const unsigned char *start = r->p;
    for (*v = 0; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
        if (*v > ((uint64_t)1 << 52)) return bad(r, "a number out of range");
        *v = *v * 10 + (uint64_t)(*r->p - '0');
    }
    if (r->p == start || (*start == '0' && r->p - start > 1)) return bad(r, "a number is missing");
    return 0;
}

/* [a, b, ...]: at most `most` numbers; *n of them */
static int numbers(reader *r, uint64_t *v, int most, int *n) {
    *n = 0;
    if (!take(r, '[')) return bad(r, "a list is missing");
    if (take(r, ']')) return 0;
    do {
        if (*n == most) return fail(r->s, NEAP_ERR_UNSUPPORTED, "a tensor has more than %d dimensions", most);
        int rc = number(r, &v[(*n)++]);
        if (rc) return rc;
    } while (take(r, ','));
    return take(r, ']') ? 0 : bad(r, "a list does not end");
}

static int metadata(reader *r, neap_buf *key, neap_buf *value) {
    if (!take(r, '{')) return bad(r, "metadata is no object");
    if (take(r, '}')) return 0;
    do {
        int rc = string(r, key);
        if (rc) return rc;
        if (!take(r, ':')) return bad(r, "a colon is missing");
        space(r);
        const unsigned char *at = r->p + 1;
        if ((rc = string(r, value))) return rc;
        if (!strcmp(key->data, "neap.sha256") && value->len == 64 && r->p - at == 65) r->sum = at;
        else if ((rc = neap_safe_add_meta(r->s, key->data, value->data))) return rc == NEAP_ERR_INVALID ? bad(r, "a metadata key comes twice") : rc;
    } while (take(r, ','));
    return take(r, '}') ? 0 : bad(r, "metadata does not end");
}

static int tensor(reader *r, const char *name, neap_buf *key, neap_buf *value, uint64_t data_bytes, range *place) {
    static const char *const names[NEAP_DTYPES] = {"U8", "I64", "F32", "F64"};
    uint64_t shape[NEAP_MAX_DIMS], offset[2];
    int dims = -1, offsets = -1, dtype = -1, rc;
    if (!take(r, '{')) return bad(r, "a tensor is no object");
    do {
        if ((rc = string(r, key))) return rc;
        if (!take(r, ':')) return bad(r, "a colon is missing");
        if (!strcmp(key->data, "dtype") && dtype < 0) {
            if ((rc = string(r, value))) return rc;
            for (int i = 0; i < NEAP_DTYPES; i++)
                if (!strcmp(value->data, names[i])) dtype = i;
            if (!strcmp(value->data, "BOOL")) dtype = NEAP_U8;
            if (dtype < 0) return fail(r->s, NEAP_ERR_UNSUPPORTED, "tensor '%.40s' has dtype %.20s; neap reads U8, I64, F32, F64", name, value->data);
        } else if (!strcmp(key->data, "shape") && dims < 0) {
            if ((rc = numbers(r, shape, NEAP_MAX_DIMS, &dims))) return rc;
        } else if (!strcmp(key->data, "data_offsets") && offsets < 0) {
            if ((rc = numbers(r, offset, 2, &offsets))) return rc;
        } else {
            return bad(r, "an unknown or repeated field of a tensor");
        }
    } while (take(r, ','));
    if (!take(r, '}') || dtype < 0 || dims < 0 || offsets != 2) return bad(r, "a tensor lacks dtype, shape or data_offsets");

    uint64_t bytes = neap_dtype_size((neap_dtype)dtype);
    int64_t signed_shape[NEAP_MAX_DIMS];
    for (int i = 0; i < dims; i++) {
        if (shape[i] && bytes > data_bytes / shape[i]) return fail(r->s, NEAP_ERR_CORRUPT, "tensor '%.40s' is larger than the file", name);
        bytes *= shape[i];
        signed_shape[i] = (int64_t)shape[i];
    }
    if (offset[0] > offset[1] || offset[1] > data_bytes)
        return fail(r->s, NEAP_ERR_CORRUPT, "tensor '%.40s' ends beyond the file: it is truncated", name);
    if (offset[1] - offset[0] != bytes) return fail(r->s, NEAP_ERR_CORRUPT, "tensor '%.40s' has the wrong size for its shape", name);
    *place = (range){offset[0], offset[1]};

    neap_tensor t;
    if ((rc = neap_tensor_new(&t, (neap_dtype)dtype, dims, signed_shape))) return rc;
    if (bytes) memcpy(neap_tensor_data(&t), r->end + offset[0], bytes); /* the data follows the header */
    rc = neap_safe_add(r->s, name, &t);
    neap_tensor_unref(&t);
    return rc == NEAP_ERR_INVALID ? bad(r, "a tensor's name comes twice") : rc;
}

static int by_start(const void *a, const void *b) {
    const range *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static int no_holes(neap_safe *s, range *place, int n, uint64_t data_bytes) {
    uint64_t at = 0;
    if (n) qsort(place, (size_t)n, sizeof *place, by_start);
    for (int i = 0; i < n; at = place[i++].to)
        if (place[i].from != at) return fail(s, NEAP_ERR_CORRUPT, "its tensors overlap or leave holes");
    return at == data_bytes ? 0 : fail(s, NEAP_ERR_CORRUPT, "it has %llu bytes after its last tensor", (unsigned long long)(data_bytes - at));
}

static int checksum(reader *r, const unsigned char *data, size_t n) {
    neap_sha256 sum;
    char hex[65];
    if (!r->sum) return 0;
    size_t at = (size_t)(r->sum - data);
    neap_sha256_init(&sum);
    neap_sha256_add(&sum, data, at);
    memset(hex, '0', 64);
    neap_sha256_add(&sum, hex, 64);
    neap_sha256_add(&sum, data + at + 64, n - at - 64);
    neap_sha256_hex(&sum, hex);
    if (memcmp(hex, r->sum, 64)) return fail(r->s, NEAP_ERR_CORRUPT, "its checksum does not hold: the file is damaged");
    r->s->checked = 1;
    return 0;
}

static int parse(neap_safe *s, const unsigned char *data, size_t n, neap_buf *key, neap_buf *value, neap_buf *name, neap_buf *places) {
    uint64_t head = 0;
    if (n < 8) return fail(s, NEAP_ERR_CORRUPT, "it is too short for a safetensors file (%zu bytes)", n);
    for (int i = 0; i < 8; i++) head |= (uint64_t)data[i] << (8 * i);
    if (head > MOST_HEADER || head > n - 8) return fail(s, NEAP_ERR_CORRUPT, "it is truncated, or no safetensors file");
    reader r = {.s = s, .p = data + 8, .end = data + 8 + head};
    uint64_t data_bytes = n - 8 - head;
    int rc = 0, more = 0;
    if (r.p >= r.end || *r.p != '{') return fail(s, NEAP_ERR_CORRUPT, "it is no safetensors file");
    take(&r, '{');
    if (!take(&r, '}')) {
        do {
            range place;
            if ((rc = string(&r, name))) return rc;
            if (!take(&r, ':')) return bad(&r, "a colon is missing");
            if (!strcmp(name->data, "__metadata__")) {
                if (more++) return bad(&r, "metadata comes twice");
                rc = metadata(&r, key, value);
            } else {
                if (s->entries >= MOST_TENSORS) return fail(s, NEAP_ERR_CORRUPT, "it claims more than %d tensors", MOST_TENSORS);
                rc = tensor(&r, name->data, key, value, data_bytes, &place);
                if (!rc) rc = buf_add(places, &place, sizeof place);
            }
            if (rc) return rc;
        } while (take(&r, ','));
        if (!take(&r, '}')) return bad(&r, "it does not end");
    }
    space(&r);
    if (r.p != r.end) return bad(&r, "something follows it");
    rc = checksum(&r, data, n);
    return rc ? rc : no_holes(s, (range *)(void *)places->data, s->entries, data_bytes);
}

int neap_safe_parse(neap_safe *s, const unsigned char *data, size_t n) {
    neap_buf key = {0}, value = {0}, name = {0}, places = {0};
    int rc = parse(s, data, n, &key, &value, &name, &places);
    buf_free(&key), buf_free(&value), buf_free(&name), buf_free(&places);
    if (rc) {
        char error[sizeof s->error];
        memcpy(error, s->error, sizeof error);
        neap_safe_free(s);
        memcpy(s->error, error, sizeof error);
    }
    return rc;
}

int neap_safe_read(neap_safe *s, const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0) return NEAP_ERR_IO;
    if (fstat(fd, &st)) rc = NEAP_ERR_IO;
    else if (!S_ISREG(st.st_mode)) rc = fail(s, NEAP_ERR_CORRUPT, "it is no regular file");
    unsigned char *data = rc ? NULL : malloc((size_t)st.st_size + 1);
    size_t have = 0;
    if (!rc && !data) rc = NEAP_ERR_MEMORY;
    while (!rc && have < (size_t)st.st_size) {
        ssize_t n = read(fd, data + have, (size_t)st.st_size - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) rc = NEAP_ERR_IO;
        if (n <= 0) break;
        have += (size_t)n;
    }
    int saved = errno;
    close(fd);
    if (!rc) rc = neap_safe_parse(s, data, have);
    free(data);
    errno = saved;
    return rc;
}
