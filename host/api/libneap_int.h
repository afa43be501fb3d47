/* libneap_int.h: what libneap.c (life, running, values) and libneap_call.c (calls both ways) share. */
#ifndef NEAP_LIBNEAP_INT_H
#define NEAP_LIBNEAP_INT_H
#include <neap.h>
#include "host/api/rt_internal.h"

typedef struct pending {
    neap_ticket id;
    rt_wait *w;
    struct pending *next;
} pending;

struct neap {
    rt *R;
    neap_options o;
    char *error;
    pending *waiting; /* async calls in flight */
    neap_ticket last_ticket;
    int depth, close_wanted, stop, held;
};

#define HOST "neap.host" /* registry: light userdata */

neap *libneap_host(lua_State *L);
void libneap_keep(neap *h);                               /* after h->waiting or h->held changed */
int libneap_protect(neap *h, lua_CFunction fn, void *ud); /* fn with one light userdata, protected; 0 or NEAP_ERR_*, and the text is kept */
void libneap_report(void *ud, const char *text);          /* ud: the host */
const char *libneap_text(lua_State *L);                   /* the error value on top becomes its text; raises nothing */
void libneap_push(lua_State *L, const neap_value *v);
neap_value libneap_get(lua_State *L, int idx);        /* a string belongs to the stack slot */
neap_value *libneap_copy(const neap_value *v, int n); /* owns its strings; NULL on lack of memory */
void libneap_free(neap_value *v, int n);
#endif
