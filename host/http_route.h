/* http_route.h: which handler a request belongs to. A radix tree over path segments: literal before ":name" before "*rest".

   Patterns: "/sensors/:name/readings", "/n/:n[%d]" (digits only; also [%a] [%w] [%x]), and a last segment "*path" (the rest, may be empty).
   "/a" also answers "/a/" unless that is a route itself. Not thread-safe; lookups do not allocate. */
#ifndef NEAP_HTTP_ROUTE_H
#define NEAP_HTTP_ROUTE_H
#include <stddef.h>
#include "host/err.h"

#define NEAP_ROUTE_PARAMS 16

typedef struct neap_http_router neap_http_router;

typedef struct neap_http_match {
    int id; /* the route's id */
    int nparams;
    const char *const *names; /* the route's own, valid while the router lives */
    struct {
        size_t off, len; /* in the path that was looked up */
    } param[NEAP_ROUTE_PARAMS];
    char allow[96]; /* after a method that is not allowed: the methods that are, "GET, HEAD, POST, OPTIONS" */
} neap_http_match;

neap_http_router *neap_http_router_new(void); /* NULL without memory */
void neap_http_router_free(neap_http_router *r);
/* Adds a route; `method` "ANY" takes every method that has no route of its own there. NEAP_ERR_INVALID (why in err) for a bad or double pattern. */
int neap_http_router_add(neap_http_router *r, const char *method, const char *pattern, int id, char *err, size_t errlen);
/* 1: found; 0: no such path; -1: the path exists, this method does not (m->allow tells which do). GET answers HEAD too. */
int neap_http_router_match(const neap_http_router *r, const char *method, const char *path, size_t len, neap_http_match *m);
#endif
