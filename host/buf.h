/* buf.h: a growable byte buffer, kept NUL-terminated. Zero-initialise it; free with buf_free. Every append returns 0 or
   NEAP_ERR_MEMORY and leaves the buffer as it was on failure. Not thread-safe. */
#ifndef NEAP_BUF_H
#define NEAP_BUF_H
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <stdarg.h>
#include "host/err.h"

typedef struct neap_buf {
    char *data;
    size_t len, cap;
} neap_buf;

static inline int buf_reserve(neap_buf *b, size_t more) {
    if (more < b->cap && b->len < b->cap - more) return 0;
    if (more > (size_t)-1 / 4 || b->len > (size_t)-1 / 4) return NEAP_ERR_MEMORY;
    size_t want = b->len + more + 1;
    if (want <= b->cap) return 0;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < want) cap *= 2;
    char *p = realloc(b->data, cap);
    if (!p) return NEAP_ERR_MEMORY;
    b->data = p;
    b->cap = cap;
    return 0;
}

static inline int buf_add(neap_buf *b, const void *p, size_t n) {
    if (buf_reserve(b, n)) return NEAP_ERR_MEMORY;
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

static inline int buf_puts(neap_buf *b, const char *s) { return buf_add(b, s, strlen(s)); }

static inline int buf_putc(neap_buf *b, char c) {
    if (buf_reserve(b, 1)) return NEAP_ERR_MEMORY;
    b->data[b->len++] = c;
    b->data[b->len] = 0;
    return 0;
}

__attribute__((format(printf, 2, 3))) static inline int buf_printf(neap_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || buf_reserve(b, (size_t)n)) return NEAP_ERR_MEMORY;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

static inline void buf_clear(neap_buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

static inline void buf_free(neap_buf *b) {
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}
#endif
