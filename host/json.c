/* json.c: the strict pull parser (see json.h). One state word says what may come next, one bit a level whether it is an object. */
#include "host/json.h"
#include "host/num.h"
#include "host/swar.h"
#include <math.h>

enum { WANT_VALUE, WANT_VALUE_OR_END, WANT_KEY, WANT_KEY_OR_END, WANT_COMMA_OR_END, WANT_NOTHING, FAILED };

void neap_json_init(neap_json *j, const char *s, size_t n, int max_depth) {
    *j = (neap_json){.start = s, .p = s, .end = s + n, .expect = WANT_VALUE};
    j->max_depth = max_depth <= 0 ? NEAP_JSON_DEPTH : max_depth > NEAP_JSON_MAX_DEPTH ? NEAP_JSON_MAX_DEPTH : max_depth;
    if (n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0) j->p += 3; /* a byte order mark: RFC 8259 lets a reader ignore it */
}

static neap_json_token fail(neap_json *j, const char *at, const char *why) {
    j->p = at;
    j->error = why;
    j->expect = FAILED;
    return NEAP_JSON_ERROR;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------------------------------- */

/* No overlong forms, no surrogates, nothing past U+10FFFF. */
size_t neap_json_utf8_char(const char *s, const char *end) {
    const unsigned char *p = (const unsigned char *)s;
    size_t left = (size_t)(end - s);
    unsigned char c = p[0];
#define CONT(i) ((p[i] & 0xC0) == 0x80)
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF) return left >= 2 && CONT(1) ? 2 : 0;
    if (c >= 0xE0 && c <= 0xEF) {
        if (left < 3 || !CONT(1) || !CONT(2)) return 0;
        return (c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) ? 0 : 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (left < 4 || !CONT(1) || !CONT(2) || !CONT(3)) return 0;
        return (c == 0xF0 && p[1] < 0x90) || (c == 0xF4 && p[1] > 0x8F) ? 0 : 4;
    }
#undef CONT
    return 0;
}

size_t neap_json_utf8(const char *s, size_t n) {
    const char *p = s, *end = s + n;
    while (p < end) {
        size_t k = neap_json_utf8_char(p, end);
        if (!k) break;
        p += k;
    }
    return (size_t)(p - s);
}

/* ---- strings -------------------------------------------------------------------------------------------------------- */

/* How many of the eight bytes at p come before a quote, a backslash, a control or what is above ASCII: 8 if none of them is one. */
static inline int plain8(const char *p) {
    uint64_t x = swar_load(p), hit = swar_odd(x) | swar_is(x, '"') | swar_is(x, '\\');
    return hit ? swar_first(hit) : 8;
}

static int hex4(const char *p, const char *end) {
    if (end - p < 4) return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Checks the escape at p (the backslash); returns its length, 0 if it is wrong. A surrogate must come with its partner, unless `lone` ones may be: a
   half has no UTF-8 form. */
static size_t escape_len(const char *p, const char *end, bool lone) {
    if (end - p < 2) return 0;
    if (memchr("\"\\/bfnrt", p[1], 8)) return 2;
    if (p[1] != 'u') return 0;
    int u = hex4(p + 2, end);
    if (u < 0) return 0;
    if (u < 0xD800 || u > 0xDFFF) return 6;
    int low = u <= 0xDBFF && end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, end) : -1;
    if (low >= 0xDC00 && low <= 0xDFFF) return 12;
    return lone ? 6 : 0;
}

/* p is behind the opening quote. On success j->p is behind the closing one. */
static bool scan_string(neap_json *j, const char *p) {
    const char *end = j->end, *open = p;
    j->escaped = false;
    for (;;) {
        for (int n = 8; n == 8 && end - p >= 8; p += n) n = plain8(p);
        if (p >= end) return fail(j, open - 1, "this string is not closed"), false;
        unsigned char c = (unsigned char)*p;
        if (c == '"') break;
        if (c == '\\') {
            size_t n = escape_len(p, end, j->lenient);
            if (!n) return fail(j, p, "bad escape in a string (a backslash takes one of \" \\ / b f n r t or u and 4 hex digits)"), false;
            j->escaped = true;
            p += n;
        } else if (c < 0x20) {
            return fail(j, p, "raw control character in a string: write it as an escape"), false;
        } else if (c < 0x80) {
            p++;
        } else {
            size_t n = neap_json_utf8_char(p, end);
            if (!n) return fail(j, p, "invalid UTF-8 in a string"), false;
            p += n;
        }
    }
    j->text = open;
    j->len = (size_t)(p - open);
    j->p = p + 1;
    return true;
}

static char *put_utf8(char *out, unsigned u) {
    if (u < 0x80) {
        *out++ = (char)u;
    } else if (u < 0x800) {
        *out++ = (char)(0xC0 | u >> 6);
        *out++ = (char)(0x80 | (u & 63));
    } else if (u < 0x10000) {
        *out++ = (char)(0xE0 | u >> 12);
        *out++ = (char)(0x80 | (u >> 6 & 63));
        *out++ = (char)(0x80 | (u & 63));
    } else {
        *out++ = (char)(0xF0 | u >> 18);
        *out++ = (char)(0x80 | (u >> 12 & 63));
        *out++ = (char)(0x80 | (u >> 6 & 63));
        *out++ = (char)(0x80 | (u & 63));
    }
    return out;
}

size_t neap_json_unescape(const char *p, size_t len, char *out) {
    const char *end = p + len;
    char *o = out;
    while (p < end) {
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        char c = p[1];
        if (c != 'u') {
            *o++ = c == 'b' ? '\b' : c == 'f' ? '\f' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
            p += 2;
            continue;
        }
        unsigned u = (unsigned)hex4(p + 2, end);
        p += 6;
        if (u >= 0xD800 && u <= 0xDFFF) {
            bool pair = escape_len(p - 6, end, false) == 12;
            u = pair ? 0x10000 + ((u - 0xD800) << 10) + ((unsigned)hex4(p + 2, end) - 0xDC00) : 0xFFFD;
            p += pair ? 6 : 0;
        }
        o = put_utf8(o, u);
    }
    return (size_t)(o - out);
}

/* ---- structure ------------------------------------------------------------------------------------------------------ */

static inline bool in_object(const neap_json *j) { return j->nest[(j->depth - 1) / 64] >> ((j->depth - 1) % 64) & 1; }

static neap_json_token open_level(neap_json *j, bool object) {
    if (j->depth >= j->max_depth) return fail(j, j->p, "nested too deeply");
    uint64_t bit = 1ull << (j->depth % 64);
    if (object) j->nest[j->depth / 64] |= bit;
    else j->nest[j->depth / 64] &= ~bit;
    j->depth++;
    j->p++;
    j->expect = object ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    return object ? NEAP_JSON_OBJECT : NEAP_JSON_ARRAY;
}

static neap_json_token close_level(neap_json *j) {
    bool object = in_object(j);
    j->depth--;
    j->p++;
    j->expect = j->depth ? WANT_COMMA_OR_END : WANT_NOTHING;
    return object ? NEAP_JSON_OBJECT_END : NEAP_JSON_ARRAY_END;
}

static neap_json_token word(neap_json *j, const char *w, size_t n, neap_json_token t, int64_t value) {
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, w, n) != 0) return fail(j, j->p, "expected a value");
    j->text = j->p;
    j->len = n;
    j->i = value;
    j->p += n;
    return t;
}

static neap_json_token number(neap_json *j) {
    neap_num v;
    const char *e = neap_num_scan(j->p, j->end, false, &v);
    if (!e) return fail(j, j->p, "malformed number");
    if (isinf(v.d) && !j->lenient) return fail(j, j->p, "this number is too large for a double");
    j->text = j->p;
    j->len = (size_t)(e - j->p);
    j->i = v.is_int ? v.i : 0;
    j->d = v.d;
    j->p = e;
    return v.is_int ? NEAP_JSON_INT : NEAP_JSON_FLOAT;
}

static neap_json_token value(neap_json *j) {
    neap_json_token t;
    switch (*j->p) {
    case '{': return open_level(j, true);
    case '[': return open_level(j, false);
    case '"': t = scan_string(j, j->p + 1) ? NEAP_JSON_STRING : NEAP_JSON_ERROR; break;
    case 't': t = word(j, "true", 4, NEAP_JSON_BOOL, 1); break;
    case 'f': t = word(j, "false", 5, NEAP_JSON_BOOL, 0); break;
    case 'n': t = word(j, "null", 4, NEAP_JSON_NULL, 0); break;
    case '-':
    case '0' ... '9': t = number(j); break;
    default: return fail(j, j->p, j->expect == WANT_VALUE_OR_END ? "expected a value or ']'" : "expected a value");
    }
    if (t != NEAP_JSON_ERROR) j->expect = j->depth ? WANT_COMMA_OR_END : WANT_NOTHING;
    return t;
}

static inline void blanks(neap_json *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r')) j->p++;
}

static neap_json_token key(neap_json *j) {
    if (*j->p != '"') return fail(j, j->p, j->expect == WANT_KEY ? "expected a key in quotes" : "expected a key in quotes or '}'");
    if (!scan_string(j, j->p + 1)) return NEAP_JSON_ERROR;
    blanks(j);
    if (j->p >= j->end || *j->p != ':') return fail(j, j->p, "expected ':'");
    j->p++;
    j->expect = WANT_VALUE;
    return NEAP_JSON_KEY;
}

neap_json_token neap_json_next(neap_json *j) {
    if (j->expect == FAILED) return NEAP_JSON_ERROR;
    blanks(j);
    if (j->expect == WANT_NOTHING) return j->p == j->end ? NEAP_JSON_END : fail(j, j->p, "expected the end of the text");
    if (j->p >= j->end) {
        static const char *const missing[] = {"expected a value", "expected a value or ']'", "expected a key in quotes",
                                              "expected a key in quotes or '}'"};
        return fail(j, j->p, j->expect == WANT_COMMA_OR_END ? in_object(j) ? "expected ',' or '}'" : "expected ',' or ']'" : missing[j->expect]);
    }
    char c = *j->p;
    switch (j->expect) {
    case WANT_COMMA_OR_END:
        if (c == (in_object(j) ? '}' : ']')) return close_level(j);
        if (c != ',') return fail(j, j->p, in_object(j) ? "expected ',' or '}'" : "expected ',' or ']'");
        j->p++;
        j->expect = in_object(j) ? WANT_KEY : WANT_VALUE;
        return neap_json_next(j); /* a comma never wants another: one level deep at most */
    case WANT_KEY_OR_END: return c == '}' ? close_level(j) : key(j);
    case WANT_KEY: return key(j);
    case WANT_VALUE_OR_END: return c == ']' ? close_level(j) : value(j);
    default: return value(j);
    }
}

int neap_json_skip(neap_json *j, neap_json_token t) {
    if (t != NEAP_JSON_ARRAY && t != NEAP_JSON_OBJECT) return t == NEAP_JSON_ERROR ? NEAP_ERR_INVALID : 0;
    for (int outer = j->depth - 1; j->depth > outer;)
        if (neap_json_next(j) == NEAP_JSON_ERROR) return NEAP_ERR_INVALID;
    return 0;
}

const char *neap_json_explain(const neap_json *j, char *out, size_t size, unsigned *line, unsigned *col) {
    unsigned l = 1, c = 1;
    for (const char *p = j->start; p < j->p; p++) {
        if (*p == '\n') {
            l++;
            c = 1;
        } else if ((*p & 0xC0) != 0x80) {
            c++;
        }
    }
    if (line) *line = l;
    if (col) *col = c;
    const char *why = j->error ? j->error : "no error";
    bool show = strncmp(why, "expected", 8) == 0;
    unsigned char found = j->p < j->end ? (unsigned char)*j->p : 0;
    if (!show) snprintf(out, size, "line %u column %u: %s", l, c, why);
    else if (j->p >= j->end) snprintf(out, size, "line %u column %u: %s, found the end", l, c, why);
    else if (found >= 0x20 && found < 0x7F) snprintf(out, size, "line %u column %u: %s, found '%c'", l, c, why, found);
    else snprintf(out, size, "line %u column %u: %s, found byte 0x%02X", l, c, why, found);
    return out;
}
