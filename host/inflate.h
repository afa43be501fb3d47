/* inflate.h: gzip and deflate request bodies, fed piece by piece, with a cap on size and on the ratio, so that a small body cannot
   become a large one. No thread of its own; one stream a body. */
#ifndef NEAP_INFLATE_H
#define NEAP_INFLATE_H
#include "host/buf.h"

typedef struct neap_inflate neap_inflate;

enum { NEAP_INFLATE_RATIO = 200, NEAP_INFLATE_FREE = 1 << 20 }; /* the ratio is looked at from this output size on */

/* encoding: "gzip", "x-gzip" or "deflate" (with or without zlib's frame: clients send both), any case.
   NULL without memory, or with *err = NEAP_ERR_UNSUPPORTED for another encoding. */
neap_inflate *neap_inflate_new(const char *encoding, size_t max_bytes, int *err);
void neap_inflate_free(neap_inflate *z);

/* Appends what the piece unpacks to. 0, NEAP_ERR_FULL (beyond a cap: answer 413), NEAP_ERR_CORRUPT, NEAP_ERR_MEMORY. After an error
   only free it. */
int neap_inflate_feed(neap_inflate *z, const void *data, size_t n, neap_buf *out);

/* The three calls above for a whole body: out gets what it unpacks to. Errors as above, NEAP_ERR_UNSUPPORTED for another encoding. */
int neap_inflate_all(const char *encoding, const void *data, size_t n, size_t max_bytes, neap_buf *out);

/* Was the stream complete? 0 or NEAP_ERR_CORRUPT. */
int neap_inflate_end(neap_inflate *z);
#endif
