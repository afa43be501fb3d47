/* control.h: the private door of a running host: a unix socket on which `neap attach`, `neap top` and `neap reload` talk to it. Both ends are
   here. A message is a length (4 bytes, big-endian) and that many bytes; what they mean is Lua's business.

   Who may enter: the socket is 0600 in a directory that must be ours and 0700, and each end asks the kernel for the other's user id (SO_PEERCRED):
   only our own user and root pass. Never TCP. All calls on the loop's thread. */
#ifndef NEAP_CONTROL_H
#define NEAP_CONTROL_H
#include <stddef.h>
#include <uv.h>
#include "host/err.h"

#define NEAP_CONTROL_MESSAGE_MAX (8u << 20) /* longer ones end the connection */

typedef struct neap_control neap_control; /* the listening end */
typedef struct neap_conn neap_conn;       /* one connection, of either end */

/* A connection came. It is the callee's: it calls neap_conn_watch and at the end neap_conn_close. */
typedef void (*neap_control_fn)(neap_conn *c, void *ud);
/* Messages came or the connection ended: call neap_conn_next until it says no more. May close the connection. */
typedef void (*neap_conn_fn)(neap_conn *c, void *ud);

/* Writes the directory for sockets into path: $XDG_RUNTIME_DIR/neap, else /tmp/neap-UID; makes it if `make`. 0, NEAP_ERR_INVALID when the name is
   too long, NEAP_ERR_AUTH when it is there and not ours alone, NEAP_ERR_IO. */
int neap_control_dir(char *path, size_t size, int make);

/* Listens at `path` (at most 106 bytes; a socket left behind by a dead process is replaced, a living one is NEAP_ERR_FULL). The listening socket
   keeps no loop alive. close ends it and removes the file; connections stay. */
int neap_control_listen(uv_loop_t *loop, const char *path, neap_control_fn fn, void *ud, neap_control **out);
void neap_control_close(neap_control *s);

/* Connects: 0, NEAP_ERR_CONNECTION when nobody listens there, NEAP_ERR_AUTH when the other end belongs to someone else. */
int neap_conn_open(uv_loop_t *loop, const char *path, neap_conn **out);
int neap_conn_watch(neap_conn *c, neap_conn_fn fn, void *ud); /* sets the callback and begins to read */

/* The next message: 1 and *data (valid until the next call on c), 0 when none is there yet, NEAP_ERR_CLOSED when no more will come. */
int neap_conn_next(neap_conn *c, const char **data, size_t *n);
/* Queues a copy of the message. NEAP_ERR_FULL when the other end does not read (16 MiB wait already), NEAP_ERR_CLOSED. */
int neap_conn_send(neap_conn *c, const char *data, size_t n);
void neap_conn_close(neap_conn *c); /* what is queued is sent if the socket takes it at once; no callback comes any more */
#endif
