/* json.h: JSON (RFC 8259, strict) without a tree and without an allocation.
   Reading is pull style: neap_json_next() hands out one token at a time, strings are slices of the input. Writing appends to a
   neap_buf. The tree (if anybody wants one) is the caller's: Lua tables in host/api/mod_json.c, readings in host/readings_json.c.
   A parser is a plain value on the caller's stack: nothing to free, usable from any thread. */
#ifndef NEAP_JSON_H
#define NEAP_JSON_H
#include <stdbool.h>
#include <stdint.h>
#include "host/buf.h"

enum { NEAP_JSON_DEPTH = 128, NEAP_JSON_MAX_DEPTH = 1024 };

typedef enum neap_json_token {
    NEAP_JSON_ERROR = -1, /* see neap_json_explain; the parser stays in this state */
    NEAP_JSON_END,        /* the document is complete, nothing follows it */
    NEAP_JSON_NULL,
    NEAP_JSON_BOOL,   /* .i is 0 or 1 */
    NEAP_JSON_INT,    /* .i exact, .d too; .text is the number as written */
    NEAP_JSON_FLOAT,  /* .d; .text as written */
    NEAP_JSON_STRING, /* .text/.len between the quotes; if .escaped, run it through neap_json_unescape */
    NEAP_JSON_KEY,    /* the same, and its ':' is consumed: the value's token comes next */
    NEAP_JSON_ARRAY,
    NEAP_JSON_ARRAY_END,
    NEAP_JSON_OBJECT,
    NEAP_JSON_OBJECT_END
} neap_json_token;

typedef struct neap_json {
    const char *text; /* the current token's slice of the input */
    size_t len;
    bool escaped;
    int64_t i;
    double d;
    int depth;
    /* To be set after neap_json_init by who wants single values judged, not the whole text refused for one of them. Both are within RFC 8259's
       grammar: a number beyond a double is a FLOAT whose .d is infinite, and a surrogate without its partner reads as U+FFFD. */
    bool lenient;
    /* private */
    const char *start, *p, *end, *error;
    int max_depth, expect;
    uint64_t nest[NEAP_JSON_MAX_DEPTH / 64]; /* one bit a level: 1 = object */
} neap_json;

/* Begins reading s, which must outlive the parser. max_depth 0 = NEAP_JSON_DEPTH; more than NEAP_JSON_MAX_DEPTH is cut to it. */
void neap_json_init(neap_json *j, const char *s, size_t n, int max_depth);

/* The next token. UTF-8, escapes, numbers and structure are all checked before a token is handed out. */
neap_json_token neap_json_next(neap_json *j);

/* After ARRAY or OBJECT: reads on to its end. After any other token: nothing to do. Returns 0 or NEAP_ERR_INVALID. */
int neap_json_skip(neap_json *j, neap_json_token t);

/* "line 2 column 14: expected ',' or ']', found 'x'" into out; returns out. For use after NEAP_JSON_ERROR.
   line/col (may be NULL) get the place, 1-based, columns in characters. */
const char *neap_json_explain(const neap_json *j, char *out, size_t size, unsigned *line, unsigned *col);

/* Resolves the escapes of a checked string. out has room for len bytes; returns the length written (never more). */
size_t neap_json_unescape(const char *text, size_t len, char *out);

/* Length of the valid UTF-8 prefix of s: n when all of it is valid. */
size_t neap_json_utf8(const char *s, size_t n);
/* Length of the one well-formed character at p (1-4; p < end), 0 if there is none. */
size_t neap_json_utf8_char(const char *p, const char *end);

/* Appends a quoted string. Bytes that are not UTF-8 become U+FFFD when `replace`, else NEAP_ERR_INVALID (buffer then has a torn tail). */
int neap_json_put_string(neap_buf *b, const char *s, size_t n, bool replace);
int neap_json_put_int(neap_buf *b, int64_t i);
/* NEAP_ERR_INVALID for NaN and infinities: JSON has no word for them. Integral values keep their ".0". */
int neap_json_put_double(neap_buf *b, double d);
#endif
