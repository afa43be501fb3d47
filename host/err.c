/* err.c: error codes to words. */
#include "host/err.h"

const char *neap_err_kind(int code) {
    switch (code) {
    case NEAP_OK: return "ok";
    case NEAP_ERR_MEMORY: return "memory";
    case NEAP_ERR_INVALID: return "invalid";
    case NEAP_ERR_IO: return "io";
    case NEAP_ERR_CLOSED: return "closed";
    case NEAP_ERR_TIMEOUT: return "timeout";
    case NEAP_ERR_CANCELLED: return "cancelled";
    case NEAP_ERR_CONNECTION: return "connection";
    case NEAP_ERR_AUTH: return "auth";
    case NEAP_ERR_FULL: return "full";
    case NEAP_ERR_CORRUPT: return "corrupt";
    case NEAP_ERR_SHAPE: return "shape";
    case NEAP_ERR_REPLY: return "reply";
    case NEAP_ERR_UNSUPPORTED: return "unsupported";
    default: return "error";
    }
}
