/* hiredis_compat.h: the one file that knows which hiredis is installed. Debian 12 has 0.14.1, Debian 13 has 1.x; neap is
   written against what both share (RESP2, no timers, no push handlers), and what differs is named here.
     reader callbacks   0.14: createArray takes int            1.x: size_t, and two more callbacks (double, bool)
     output buffer      an sds in both; its length is read, and its room made, here only */
#ifndef NEAP_HIREDIS_COMPAT_H
#define NEAP_HIREDIS_COMPAT_H
#include <hiredis/hiredis.h>
#include <hiredis/async.h>
#include <hiredis/sds.h>

#if HIREDIS_MAJOR >= 1
typedef size_t neap_hiredis_count;
#else
typedef int neap_hiredis_count;
#endif

/* Bytes that hiredis still has to write. */
static inline size_t neap_hiredis_unsent(redisAsyncContext *ac) { return sdslen(ac->c.obuf); }

/* Room for n bytes more in the output buffer. hiredis begins an empty one after each write, which a turn's commands would let grow in many
   steps. Without memory nothing happens: the command that needs the room will say so. */
static inline void neap_hiredis_room(redisAsyncContext *ac, size_t n) {
#if HIREDIS_MAJOR < 1
    sds s = ac->c.obuf ? sdsMakeRoomFor(ac->c.obuf, n) : NULL;
    if (s) ac->c.obuf = s;
#endif
}
#endif
