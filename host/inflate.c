/* inflate.c: zlib behind two caps (see inflate.h). gzip's several members in a row are one body, as RFC 1952 says. */
#include "host/inflate.h"
#include <stdbool.h>
#include <strings.h>
#include <zlib.h>

struct neap_inflate {
    z_stream z;
    size_t max_bytes, in, out;
    bool gzip, started, done;
};

neap_inflate *neap_inflate_new(const char *encoding, size_t max_bytes, int *err) {
    bool gzip = strcasecmp(encoding, "gzip") == 0 || strcasecmp(encoding, "x-gzip") == 0;
    *err = NEAP_ERR_UNSUPPORTED;
    if (!gzip && strcasecmp(encoding, "deflate") != 0) return NULL;
    *err = NEAP_ERR_MEMORY;
    neap_inflate *z = calloc(1, sizeof *z);
    if (!z) return NULL;
    z->gzip = gzip;
    z->max_bytes = max_bytes;
    *err = 0;
    return z;
}

void neap_inflate_free(neap_inflate *z) {
    if (!z) return;
    if (z->started) inflateEnd(&z->z);
    free(z);
}

/* Needs the first two bytes of a deflate body to tell zlib's frame from a bare stream: deflate's first byte 0x78-like with a good
   header check is a frame; a one-byte first piece is taken as a frame, which is what the RFC asks for. */
static int start(neap_inflate *z, const unsigned char *p, size_t n) {
    int bits = z->gzip ? 15 + 16 : 15;
    if (!z->gzip && n >= 2 && ((p[0] & 15) != 8 || (p[0] * 256 + p[1]) % 31 != 0)) bits = -15;
    if (inflateInit2(&z->z, bits) != Z_OK) return NEAP_ERR_MEMORY;
    z->started = true;
    return 0;
}

int neap_inflate_feed(neap_inflate *z, const void *data, size_t n, neap_buf *out) {
    if (!n) return 0;
    if (!z->started && start(z, data, n)) return NEAP_ERR_MEMORY;
    z->in += n;
    z->z.next_in = (Bytef *)data;
    z->z.avail_in = (uInt)n;
    while (z->z.avail_in || z->z.avail_out == 0) {
        if (z->done) { /* more bytes behind the end: another gzip member, or rubbish */
            if (!z->gzip || inflateReset(&z->z) != Z_OK) return NEAP_ERR_CORRUPT;
            z->done = false;
        }
        size_t room = out->cap - out->len > 4096 ? out->cap - out->len - 1 : 16384;
        if (buf_reserve(out, room)) return NEAP_ERR_MEMORY;
        z->z.next_out = (Bytef *)(out->data + out->len);
        z->z.avail_out = (uInt)room;
        int r = inflate(&z->z, Z_NO_FLUSH);
        size_t got = room - z->z.avail_out;
        out->len += got;
        out->data[out->len] = 0;
        z->out += got;
        if (z->out > z->max_bytes || (z->out > NEAP_INFLATE_FREE && z->out / NEAP_INFLATE_RATIO > z->in)) return NEAP_ERR_FULL;
        if (r == Z_STREAM_END) {
            z->done = true;
            if (!z->z.avail_in) break;
        } else if (r == Z_MEM_ERROR) {
            return NEAP_ERR_MEMORY;
        } else if (r == Z_BUF_ERROR) {
            break; /* wants more input */
        } else if (r != Z_OK) {
            return NEAP_ERR_CORRUPT;
        }
    }
    return 0;
}

int neap_inflate_end(neap_inflate *z) { return z->started && z->done ? 0 : NEAP_ERR_CORRUPT; }

int neap_inflate_all(const char *encoding, const void *data, size_t n, size_t max_bytes, neap_buf *out) {
    int err;
    neap_inflate *z = neap_inflate_new(encoding, max_bytes, &err);
    if (!z) return err;
    if (!(err = neap_inflate_feed(z, data, n, out))) err = neap_inflate_end(z);
    neap_inflate_free(z);
    return err;
}
