/* lineproto.c: the reader (see lineproto.h). Character classes are one table, so a name is scanned with one lookup a byte. */
#include "host/lineproto.h"
#include "host/err.h"
#include "host/json.h"
#include "host/num.h"
#include "host/swar.h"
#include <stdlib.h>
#include <string.h>

enum { MEASUREMENT = 1, KEY = 2, VALUE = 4, HIGH = 8 }; /* the byte ends such a token; HIGH: needs a look at UTF-8 */

static const uint8_t ends[256] = {
    [0 ... 9] = MEASUREMENT | KEY,     ['\n'] = MEASUREMENT | KEY | VALUE,
    [11 ... 12] = MEASUREMENT | KEY,   ['\r'] = MEASUREMENT | KEY | VALUE,
    [14 ... 31] = MEASUREMENT | KEY,   [' '] = MEASUREMENT | KEY | VALUE,
    [','] = MEASUREMENT | KEY | VALUE, ['='] = KEY,
    [127] = MEASUREMENT | KEY,         [128 ... 255] = HIGH,
};

void neap_lp_init(neap_lp *l, const char *s, size_t n, int64_t unit_ns) {
    *l = (neap_lp){.p = s, .end = s + n, .next_line = 1, .unit_ns = unit_ns ? unit_ns : 1};
}

void neap_lp_free(neap_lp *l) {
    free(l->tags);
    free(l->fields);
    l->tags = NULL;
    l->fields = NULL;
    l->tag_cap = l->field_cap = 0;
}

/* Refuses the line: goes on behind the next newline. */
static int bad(neap_lp *l, const char *why) {
    l->error = why;
    const char *nl = l->p < l->end ? memchr(l->p, '\n', (size_t)(l->end - l->p)) : NULL;
    l->p = nl ? nl + 1 : l->end;
    l->next_line += nl != NULL;
    return NEAP_ERR_INVALID;
}

static inline int at(const neap_lp *l) { return l->p < l->end ? (unsigned char)*l->p : -1; }

/* A line end here? Steps over it. The end of the input counts; a lone CR does not, unless it is the last byte. */
static bool line_end(neap_lp *l) {
    if (l->p >= l->end) return true;
    if (*l->p == '\r' && (l->p + 1 == l->end || l->p[1] == '\n')) l->p++;
    if (l->p >= l->end) return true;
    if (*l->p != '\n') return false;
    l->p++;
    l->next_line++;
    return true;
}

static inline bool escapable(char c, bool measurement) { return c == ',' || c == ' ' || (c == '=' && !measurement); }

/* A measurement, key or tag value. False: invalid UTF-8. */
static inline bool take_name(neap_lp *l, uint8_t stop, neap_lp_slice *out) {
    const char *p = l->p, *end = l->end;
    bool escaped = false;
    uint8_t seen = 0;
    for (uint64_t hit; end - p >= 8; p += 8) { /* what is plain in any of the three */
        uint64_t x = swar_load(p);
        if (!(hit = swar_is(x, ' ') | swar_is(x, ',') | swar_is(x, '=') | swar_is(x, '\\') | swar_odd(x) | swar_is(x, 0x7F))) continue;
        p += swar_first(hit);
        break;
    }
    for (; p < end; p++) {
        uint8_t k = ends[(unsigned char)*p];
        if (k & stop) break;
        seen |= k;
        if (*p == '\\' && p + 1 < end && escapable(p[1], stop == MEASUREMENT)) {
            escaped = true;
            p++;
        }
    }
    *out = (neap_lp_slice){l->p, (uint32_t)(p - l->p), escaped};
    l->p = p;
    return !(seen & HIGH) || neap_json_utf8(out->s, out->n) == out->n;
}

size_t neap_lp_unescape_name(neap_lp_slice s, bool measurement, char *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        if (s.s[i] == '\\' && i + 1 < s.n && escapable(s.s[i + 1], measurement)) i++;
        out[n++] = s.s[i];
    }
    return n;
}

size_t neap_lp_unescape_text(neap_lp_slice s, char *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        char c = s.s[i];
        if (c == '\\' && i + 1 < s.n) {
            char d = s.s[i + 1], r = d == '"' || d == '\\' ? d : d == 'n' ? '\n' : d == 'r' ? '\r' : d == 't' ? '\t' : 0;
            if (r) {
                c = r;
                i++;
            }
        }
        out[n++] = c;
    }
    return n;
}

static int compare(const neap_lp_slice *a, const neap_lp_slice *b) {
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

/* Adds a tag in key order; nearly every client sends them sorted. Compared as written: nobody escapes one key in two ways. */
static int add_tag(neap_lp *l, neap_lp_tag t) {
    if (l->tag_count == l->tag_cap) {
        size_t cap = l->tag_cap ? l->tag_cap * 2 : 16;
        neap_lp_tag *p = realloc(l->tags, cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        l->tags = p;
        l->tag_cap = cap;
    }
    size_t i = l->tag_count++;
    for (; i > 0; i--) {
        int c = compare(&l->tags[i - 1].key, &t.key);
        if (c == 0) return NEAP_ERR_INVALID;
        if (c < 0) break;
        l->tags[i] = l->tags[i - 1];
    }
    l->tags[i] = t;
    return 0;
}

static neap_lp_field *add_field(neap_lp *l) {
    if (l->field_count == l->field_cap) {
        size_t cap = l->field_cap ? l->field_cap * 2 : 16;
        neap_lp_field *p = realloc(l->fields, cap * sizeof *p);
        if (!p) return NULL;
        l->fields = p;
        l->field_cap = cap;
    }
    return &l->fields[l->field_count++];
}

static const char out_of_range[] = "this whole number is out of range";

static const char *whole_number(const char *p, const char *end, bool neg_ok, uint64_t limit_pos, uint64_t limit_neg, neap_lp_field *f) {
    bool neg = neg_ok && p < end && *p == '-';
    uint64_t v = 0, limit = neg ? limit_neg : limit_pos, x;
    p += neg;
    if (p == end) return "a number has no digits";
    for (int i = 0; i < 2 && end - p >= 8 && swar_digits(x = swar_load(p)); i++, p += 8) v = v * 100000000 + swar_number(x); /* 16 digits fit */
    for (; p < end; p++) {
        unsigned d = (unsigned)(*p - '0');
        if (d > 9) return "malformed whole number";
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, d, &v)) return out_of_range;
    }
    if (v > limit) return out_of_range;
    f->i = neg ? (int64_t)(0 - v) : (int64_t)v;
    f->d = neg ? -(double)v : (double)v;
    return NULL;
}

static const char *read_bool(neap_lp_field *f) {
    static const char *const words[] = {"f", "F", "false", "False", "FALSE", "t", "T", "true", "True", "TRUE"};
    for (int i = 0; i < 10; i++)
        if (strlen(words[i]) == f->text.n && memcmp(words[i], f->text.s, f->text.n) == 0) {
            f->i = i >= 5;
            return NULL;
        }
    return "a field value is neither a number, true, false nor a quoted text";
}

static const char *read_text(neap_lp *l, neap_lp_field *f) {
    const char *p = ++l->p;
    bool escaped = false;
    uint32_t newlines = 0;
    for (; p < l->end && *p != '"'; p++) {
        newlines += *p == '\n';
        if (*p == '\\' && p + 1 < l->end && (p[1] == '"' || p[1] == '\\')) {
            p++;
            escaped = true;
        } else if (*p == '\\') {
            escaped = true;
        }
    }
    f->text = (neap_lp_slice){l->p, (uint32_t)(p - l->p), escaped};
    if (p >= l->end) return "a quoted text is not closed";
    l->p = p + 1;
    l->next_line += newlines;
    return neap_json_utf8(f->text.s, f->text.n) == f->text.n ? NULL : "invalid UTF-8";
}

/* The value at l->p into f. NULL or what is wrong. */
static const char *read_value(neap_lp *l, neap_lp_field *f) {
    int c = at(l);
    if (c == '"') {
        f->type = NEAP_LP_TEXT;
        return read_text(l, f);
    }
    const char *s = l->p, *p = s;
    neap_num v;
    if (c == '-' || c == '.' || (c >= '0' && c <= '9')) {
        const char *e = neap_num_scan(s, l->end, true, &v);
        if (e && (e == l->end || ends[(unsigned char)*e] & VALUE)) { /* the usual case */
            if (v.d - v.d != 0) return "this number is too large for a double";
            f->type = NEAP_LP_FLOAT;
            f->d = v.d;
            f->text = (neap_lp_slice){s, (uint32_t)(e - s), false};
            l->p = e;
            return NULL;
        }
        while (p < l->end && !(ends[(unsigned char)*p] & VALUE)) p++;
        l->p = p;
        f->text = (neap_lp_slice){s, (uint32_t)(p - s - 1), false};
        f->type = p[-1] == 'i' ? NEAP_LP_INT : NEAP_LP_UINT;
        if (p[-1] == 'i') return whole_number(s, p - 1, true, INT64_MAX, (uint64_t)INT64_MAX + 1, f);
        if (p[-1] == 'u') return whole_number(s, p - 1, false, UINT64_MAX, 0, f);
        return "malformed number";
    }
    if (c < 0 || ends[c] & VALUE) return "a field has no value";
    while (p < l->end && !(ends[(unsigned char)*p] & VALUE)) p++;
    l->p = p;
    f->text = (neap_lp_slice){s, (uint32_t)(p - s), false};
    f->type = NEAP_LP_BOOL;
    return read_bool(f);
}

static int read_tags(neap_lp *l) {
    neap_lp_tag t;
    while (at(l) == ',') {
        l->p++;
        if (!take_name(l, KEY, &t.key)) return bad(l, "invalid UTF-8");
        if (!t.key.n) return bad(l, "expected a tag key after ','");
        if (at(l) != '=') return bad(l, "expected '=' after a tag key");
        l->p++;
        if (!take_name(l, KEY, &t.value)) return bad(l, "invalid UTF-8");
        if (!t.value.n) return bad(l, "a tag has no value");
        int err = add_tag(l, t);
        if (err) return err == NEAP_ERR_MEMORY ? err : bad(l, "a tag key is given twice");
    }
    return 0;
}

static int read_fields(neap_lp *l) {
    for (;;) {
        neap_lp_slice key;
        if (!take_name(l, KEY, &key)) return bad(l, "invalid UTF-8");
        if (!key.n) return bad(l, "expected a field key");
        if (at(l) != '=') return bad(l, "expected '=' after a field key");
        l->p++;
        neap_lp_field *f = add_field(l);
        if (!f) return NEAP_ERR_MEMORY;
        f->key = key;
        const char *why = read_value(l, f);
        if (why) return bad(l, why);
        if (at(l) != ',') return 0;
        l->p++;
    }
}

static int read_time(neap_lp *l) {
    neap_lp_field f;
    const char *s = l->p;
    while (l->p < l->end && (*l->p == '-' || (unsigned)(*l->p - '0') < 10)) l->p++;
    const char *why = whole_number(s, l->p, true, INT64_MAX, (uint64_t)INT64_MAX + 1, &f);
    if (why || __builtin_mul_overflow(f.i, l->unit_ns, &l->time_ns)) return bad(l, "malformed timestamp, or out of range");
    while (at(l) == ' ') l->p++;
    l->has_time = true;
    return line_end(l) ? 1 : bad(l, "unexpected text after the timestamp");
}

static int read_point(neap_lp *l) {
    if (!take_name(l, MEASUREMENT, &l->measurement)) return bad(l, "invalid UTF-8");
    if (!l->measurement.n) return bad(l, "expected a measurement name");
    int err = read_tags(l);
    if (err) return err;
    if (at(l) != ' ') return bad(l, "expected a space before the fields");
    while (at(l) == ' ') l->p++;
    if ((err = read_fields(l))) return err;
    if (line_end(l)) return 1;
    if (at(l) != ' ') return bad(l, "unexpected character after a field value");
    while (at(l) == ' ') l->p++;
    return line_end(l) ? 1 : read_time(l);
}

int neap_lp_next(neap_lp *l) {
    l->tag_count = l->field_count = 0;
    l->has_time = false;
    l->error = NULL;
    for (;;) { /* blank lines and comments */
        while (at(l) == ' ') l->p++;
        l->line = l->next_line;
        if (l->p >= l->end) return 0;
        if (*l->p == '#') {
            while (l->p < l->end && !((unsigned char)*l->p < 0x20 || *l->p == 0x7F)) l->p++;
            if (!line_end(l)) return bad(l, "control character in a comment");
        } else if (*l->p == '\n' || *l->p == '\r') {
            if (!line_end(l)) return bad(l, "a lone carriage return");
        } else {
            return read_point(l);
        }
    }
}
