/* err.h: the error codes that every function of the C core returns: 0, or one of these (negative). */
#ifndef NEAP_ERR_H
#define NEAP_ERR_H

enum {
    NEAP_OK = 0,
    NEAP_ERR_MEMORY = -1,     /* an allocation failed */
    NEAP_ERR_INVALID = -2,    /* an argument or input is malformed */
    NEAP_ERR_IO = -3,         /* the operating system said no: errno has it */
    NEAP_ERR_CLOSED = -4,     /* the object is closed */
    NEAP_ERR_TIMEOUT = -5,    /* the deadline passed */
    NEAP_ERR_CANCELLED = -6,  /* the waiter went away */
    NEAP_ERR_CONNECTION = -7, /* the peer is away or went away */
    NEAP_ERR_AUTH = -8,       /* the peer refuses our credentials */
    NEAP_ERR_FULL = -9,       /* a bound is reached: try later */
    NEAP_ERR_CORRUPT = -10,   /* a checksum or a format does not hold */
    NEAP_ERR_SHAPE = -11,     /* shapes or dtypes do not fit together */
    NEAP_ERR_REPLY = -12,     /* the peer answered with an error */
    NEAP_ERR_UNSUPPORTED = -13
};

/* A short lower-case word for a code ("timeout"), static storage; "error" for unknown codes. It is an error object's
 * `kind` in Lua. */
const char *neap_err_kind(int code);
#endif
