/* detect_io.h: one walk over a detector's state, used in both directions. Each part has one function `..._io(io, part)`
   that names its fields in order; with `out` set it writes them, else it reads them back. So what is saved and what is
   restored cannot drift apart. Fields are the machine's own bytes (a snapshot is for the same build family,
   little-endian); the head of detect.c's snapshot carries version and checksum. */
#ifndef NEAP_DETECT_IO_H
#define NEAP_DETECT_IO_H
#include "host/buf.h"

typedef struct neap_detect_io {
    neap_buf *out;  /* writing: the bytes are appended here; NULL when reading */
    const char *in; /* reading: what is left */
    size_t left;
    int err; /* the first NEAP_ERR_*; once set, every further call does nothing */
} neap_detect_io;

/* n bytes at p, written or read. A short input sets err to NEAP_ERR_CORRUPT and leaves p alone. */
static inline void detect_io(neap_detect_io *io, void *p, size_t n) {
    if (io->err) return;
    if (io->out) {
        io->err = buf_add(io->out, p, n);
    } else if (io->left < n) {
        io->err = NEAP_ERR_CORRUPT;
    } else {
        memcpy(p, io->in, n);
        io->in += n;
        io->left -= n;
    }
}

/* After reading a count: it must hold, or the snapshot is refused. */
static inline void detect_io_check(neap_detect_io *io, int holds) {
    if (!io->err && !holds) io->err = NEAP_ERR_CORRUPT;
}
#endif
