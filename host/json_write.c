/* json_write.c: the writing half of json.h: strings, integers and floats appended to a buffer. Structure is the caller's. */
#include "host/json.h"
#include "host/num.h"
#include "host/swar.h"
#include <math.h>

int neap_json_put_string(neap_buf *b, const char *s, size_t n, bool replace) {
    static const char hex[] = "0123456789abcdef";
    if (buf_reserve(b, n + 2)) return NEAP_ERR_MEMORY;
    if (swar_plain(s, n, '"', '\\')) { /* as most are: nothing to escape or to check */
        char *to = b->data + b->len;
        *to = '"';
        memcpy(to + 1, s, n);
        memcpy(to + 1 + n, "\"", 2);
        b->len += n + 2;
        return 0;
    }
    buf_putc(b, '"');
    const char *end = s + n, *run = s;
    while (s < end) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') {
            s++;
            continue;
        }
        if (c >= 0x80) {
            size_t ok = neap_json_utf8_char(s, end);
            if (ok) {
                s += ok;
                continue;
            }
            if (!replace) return NEAP_ERR_INVALID;
        }
        if (buf_add(b, run, (size_t)(s - run))) return NEAP_ERR_MEMORY;
        char esc[7];
        const char *text = esc;
        switch (c) {
        case '"': text = "\\\""; break;
        case '\\': text = "\\\\"; break;
        case '\b': text = "\\b"; break;
        case '\f': text = "\\f"; break;
        case '\n': text = "\\n"; break;
        case '\r': text = "\\r"; break;
        case '\t': text = "\\t"; break;
        default:
            if (c >= 0x80) {
                text = "\xEF\xBF\xBD";
            } else {
                memcpy(esc, "\\u00", 4);
                esc[4] = hex[c >> 4];
                esc[5] = hex[c & 15];
                esc[6] = 0;
            }
        }
        if (buf_puts(b, text)) return NEAP_ERR_MEMORY;
        run = ++s;
    }
    if (buf_add(b, run, (size_t)(s - run))) return NEAP_ERR_MEMORY;
    return buf_putc(b, '"');
}

int neap_json_put_int(neap_buf *b, int64_t i) {
    if (buf_reserve(b, NEAP_NUM_TEXT)) return NEAP_ERR_MEMORY;
    b->len += neap_num_format_int(i, b->data + b->len);
    return 0;
}

int neap_json_put_double(neap_buf *b, double d) {
    if (!isfinite(d)) return NEAP_ERR_INVALID;
    if (buf_reserve(b, NEAP_NUM_TEXT)) return NEAP_ERR_MEMORY;
    b->len += neap_num_format(d, true, b->data + b->len);
    return 0;
}
