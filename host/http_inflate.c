/* http_inflate.c: compressed request bodies, with caps on size and ratio: a kilobyte of gzip can hold a megabyte of zeros. Any thread. */
#include "host/http.h"
#include "host/buf.h"
#include <strings.h>
#include <zlib.h>

#define RATIO      200
#define RATIO_FROM (64u << 10)
#define STEP       16384

int neap_http_inflate(const char *encoding, const void *data, size_t len, size_t max, neap_buf *out) {
    z_stream z = {.next_in = (Bytef *)data, .avail_in = (uInt)len};
    buf_clear(out);
    int gzip = !strcasecmp(encoding, "gzip") || !strcasecmp(encoding, "x-gzip");
    if (!gzip && strcasecmp(encoding, "deflate")) return NEAP_ERR_UNSUPPORTED;
    if (len > UINT32_MAX / 2) return NEAP_ERR_FULL;
    /* "deflate" is zlib's format by the standard and raw by many senders: the first two bytes tell. */
    const unsigned char *p = data;
    int raw = !gzip && (len < 2 || (p[0] & 15) != 8 || (p[0] * 256 + p[1]) % 31);
    if (inflateInit2(&z, raw ? -15 : 15 + 32)) return NEAP_ERR_MEMORY;
    int e = Z_OK, err = 0;
    while (!err && e == Z_OK) {
        if (buf_reserve(out, STEP)) {
            err = NEAP_ERR_MEMORY;
            break;
        }
        z.next_out = (Bytef *)out->data + out->len;
        z.avail_out = STEP;
        e = inflate(&z, Z_NO_FLUSH);
        out->len += STEP - z.avail_out;
        out->data[out->len] = 0;
        if (out->len > max || (out->len > RATIO_FROM && out->len > len * RATIO)) err = NEAP_ERR_FULL;
        if (e == Z_STREAM_END && z.avail_in && gzip) e = inflateReset(&z); /* gzip members may follow each other */
        else if (e == Z_OK && !z.avail_in && z.avail_out) e = Z_BUF_ERROR; /* cut short */
    }
    inflateEnd(&z);
    if (!err && e != Z_STREAM_END) err = NEAP_ERR_CORRUPT;
    return err;
}
