/* chunk.c: see chunk.h. */
#include "host/chunk.h"
#include <string.h>
#include "host/err.h"
#include "host/num.h"

int neap_chunk_put(neap_chunk *c, neap_buf *out, int64_t time_us, const char *text, size_t n) {
    int64_t step = (int64_t)((uint64_t)time_us - (uint64_t)c->time_us);  /* wraps, and wraps back when read */
    if (buf_reserve(out, n + 2 + NEAP_NUM_TEXT)) return NEAP_ERR_MEMORY; /* nothing below fails */
    char *p = out->data + out->len;
    if (c->count) *p++ = ' ';
    memcpy(p, text, n);
    p += n;
    if (c->count && step != c->step) {
        *p++ = '@';
        p += neap_num_format_int(step, p);
        c->step = step;
    }
    out->len = (size_t)(p - out->data);
    c->time_us = time_us;
    c->count++;
    return 0;
}

/* Most are digits only. */
bool neap_chunk_time(const char *s, size_t n, int64_t *out) {
    neap_num x;
    uint64_t v = 0;
    if (n && n < 19) {
        size_t i = 0;
        for (; i < n && s[i] >= '0' && s[i] <= '9'; i++) v = v * 10 + (uint64_t)(s[i] - '0');
        if (i == n) {
            *out = (int64_t)v;
            return true;
        }
    }
    if (!neap_num_text(s, n, &x) || !x.is_int) return false;
    *out = x.i;
    return true;
}

void neap_chunk_read(neap_chunk_reader *r, int64_t time_us, const char *s, size_t n) {
    *r = (neap_chunk_reader){.p = s, .end = s + n, .time_us = time_us};
}

bool neap_chunk_next(neap_chunk_reader *r) {
    if (r->p >= r->end) return false;
    const char *stop = memchr(r->p, ' ', (size_t)(r->end - r->p));
    if (!stop) stop = r->end;
    const char *at = memchr(r->p, '@', (size_t)(stop - r->p));
    if (at && !neap_chunk_time(at + 1, (size_t)(stop - at - 1), &r->step)) {
        r->p = r->end;
        return false;
    }
    if (r->count++) r->time_us = (int64_t)((uint64_t)r->time_us + (uint64_t)r->step);
    r->text = r->p;
    r->text_len = (size_t)((at ? at : stop) - r->p);
    r->p = stop < r->end ? stop + 1 : stop;
    return true;
}
