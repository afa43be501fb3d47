/* mhd_compat.h: the one place that knows differences between libmicrohttpd 0.9.75 (Debian 12) and 1.0 (Debian 13). */
#ifndef NEAP_MHD_COMPAT_H
#define NEAP_MHD_COMPAT_H
#include <sys/types.h>
#include <sys/socket.h>
#include <microhttpd.h>

#if MHD_VERSION < 0x00097500
#error "libmicrohttpd 0.9.75 or newer is needed (Debian: libmicrohttpd-dev)"
#endif

/* 1.0 names the buffer modes in functions of their own; the old one stays but is deprecated. */
#if MHD_VERSION >= 0x01000000
#define mhd_response_copy(n, p)   MHD_create_response_from_buffer_copy((n), (p))
#define mhd_response_static(n, p) MHD_create_response_from_buffer_static((n), (p))
#else
#define mhd_response_copy(n, p)   MHD_create_response_from_buffer((n), (void *)(p), MHD_RESPMEM_MUST_COPY)
#define mhd_response_static(n, p) MHD_create_response_from_buffer((n), (void *)(p), MHD_RESPMEM_PERSISTENT)
#endif
#define mhd_response_malloced(n, p) MHD_create_response_from_buffer((n), (p), MHD_RESPMEM_MUST_FREE)

/* The guard's layout checks (http_guard.c) read how 0.9.75 leaves a head in memory; http.c tests at start whether they hold and leaves them out
   if not. From 0.9.77 on MHD does those checks itself at discipline level 1. */
#endif
