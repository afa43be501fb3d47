/* http_route.c: the tree behind http_route.h. One node per segment; a lookup walks the path once and steps back only where a literal and a
   parameter both fit. */
#include "host/http_route.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct route {
    char method[16];
    int id, nparams;
    char *names[NEAP_ROUTE_PARAMS];
    struct route *next;
};

struct node {
    char *text; /* the literal segment; NULL for parameters */
    size_t len;
    char class;           /* parameter: 0, or 'd' 'a' 'w' 'x' */
    struct route *routes; /* that end here */
    struct route *rest;   /* "*name" below here */
    struct node *literals, *params, *next;
};

struct neap_http_router {
    struct node root;
};

neap_http_router *neap_http_router_new(void) { return calloc(1, sizeof(neap_http_router)); }

static void routes_free(struct route *r) {
    for (struct route *next; r; r = next) {
        next = r->next;
        for (int i = 0; i < r->nparams; i++) free(r->names[i]);
        free(r);
    }
}

static void node_clear(struct node *n) {
    for (int side = 0; side < 2; side++)
        for (struct node *c = side ? n->params : n->literals, *next; c; c = next) {
            next = c->next;
            node_clear(c);
            free(c);
        }
    free(n->text);
    routes_free(n->routes);
    routes_free(n->rest);
}

void neap_http_router_free(neap_http_router *r) {
    if (!r) return;
    node_clear(&r->root);
    free(r);
}

static int refuse(char *err, size_t n, const char *pattern, const char *why) {
    if (n) snprintf(err, n, "route '%s': %s", pattern, why);
    return NEAP_ERR_INVALID;
}

/* The child for a segment, made if it is missing; NULL without memory. */
static struct node *child(struct node *n, const char *text, size_t len, int class) {
    struct node **list = text ? &n->literals : &n->params, **at = list, *c;
    for (c = *list; c; at = &c->next, c = c->next)
        if (text ? c->len == len && !memcmp(c->text, text, len) : c->class == class) return c;
    if (!(c = calloc(1, sizeof *c)) || (text && !(c->text = strndup(text, len)))) {
        free(c);
        return NULL;
    }
    c->len = len;
    c->class = (char)class;
    if (class) { /* a narrower parameter is tried before the plain one */
        c->next = *list;
        *list = c;
    } else *at = c;
    return c;
}

int neap_http_router_add(neap_http_router *r, const char *method, const char *pattern, int id, char *err, size_t errlen) {
    struct node *n = &r->root;
    struct route *new = calloc(1, sizeof *new), **list = NULL;
    if (!new) return NEAP_ERR_MEMORY;
    int e = 0;
    const char *p = pattern;
    if (*p != '/') e = refuse(err, errlen, pattern, "a pattern begins with '/'");
    if (!*method || strlen(method) >= sizeof new->method) e = refuse(err, errlen, pattern, "that is no HTTP method");
    else strcpy(new->method, method);
    while (!e && *p == '/') {
        p++;
        size_t len = strcspn(p, "/");
        int special = *p == ':' || *p == '*', class = 0;
        size_t name = special ? strcspn(p + 1, "/[") : 0;
        if (special && (!name || new->nparams == NEAP_ROUTE_PARAMS)) {
            e = refuse(err, errlen, pattern, name ? "too many parameters" : "a ':' or '*' needs a name behind it");
            break;
        }
        if (special && !(new->names[new->nparams++] = strndup(p + 1, name))) {
            e = NEAP_ERR_MEMORY;
            break;
        }
        if (*p == '*') {
            if (p[len]) e = refuse(err, errlen, pattern, "'*' takes the whole rest: nothing may follow it");
            list = &n->rest;
            break;
        }
        if (special && name + 1 < len) {
            if (len == name + 5 && p[name + 1] == '[' && p[name + 2] == '%' && strchr("dawx", p[name + 3]) && p[name + 4] == ']') class = p[name + 3];
            else {
                e = refuse(err, errlen, pattern, "behind a parameter's name only [%d], [%a], [%w] or [%x] may stand");
                break;
            }
        }
        n = child(n, special ? NULL : p, len, class);
        if (!n) e = NEAP_ERR_MEMORY;
        p += len;
    }
    if (!e && !list) list = &n->routes;
    for (struct route *o = e ? NULL : *list; o; o = o->next)
        if (!strcmp(o->method, method)) e = refuse(err, errlen, pattern, "this method and path have a handler already");
    if (e) {
        routes_free(new);
        return e;
    }
    new->id = id;
    new->next = *list;
    *list = new;
    return 0;
}

static const struct route *by_method(const struct route *r, const char *method) {
    const struct route *any = NULL, *get = NULL;
    for (; r; r = r->next) {
        if (!strcmp(r->method, method)) return r;
        if (!strcmp(r->method, "ANY")) any = r;
        if (!strcmp(r->method, "GET")) get = r;
    }
    return get && !strcmp(method, "HEAD") ? get : any;
}

static void add_allow(neap_http_match *m, const char *method) {
    size_t n = strlen(m->allow), k = strlen(method);
    char *at = strstr(m->allow, method);
    if (at && (at == m->allow || at[-1] == ' ') && (!at[k] || at[k] == ',')) return;
    if (n + k + 3 < sizeof m->allow) sprintf(m->allow + n, "%s%s", n ? ", " : "", method);
}

static int fits(char class, const char *p, size_t n) {
    if (!n) return 0;
    for (size_t i = 0; class && i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (class == 'd' ? !isdigit(c) : class == 'a' ? !isalpha(c) : class == 'x' ? !isxdigit(c) : !isalnum(c)) return 0;
    }
    return 1;
}

/* The route that `list` gives this method; notes what is allowed if it gives none. */
static const struct route *pick(const struct route *list, const char *method, neap_http_match *m) {
    const struct route *r = by_method(list, method);
    if (!r)
        for (; list; list = list->next) {
            add_allow(m, list->method);
            if (!strcmp(list->method, "GET")) add_allow(m, "HEAD");
        }
    return r;
}

/* `at` is behind the '/' that leads into n's children, or behind the end of the path. */
static const struct route *walk(const struct node *n, const char *method, const char *path, size_t len, size_t at, int depth, neap_http_match *m) {
    const struct route *r;
    if (at > len) {
        m->nparams = depth;
        if (n->routes && (r = pick(n->routes, method, m))) return r;
    } else {
        const char *seg = path + at, *slash = memchr(seg, '/', len - at);
        size_t k = slash ? (size_t)(slash - seg) : len - at;
        for (const struct node *c = n->literals; c; c = c->next)
            if (c->len == k && !memcmp(c->text, seg, k)) {
                if ((r = walk(c, method, path, len, at + k + 1, depth, m))) return r;
                break;
            }
        for (const struct node *c = n->params; c; c = c->next)
            if (fits(c->class, seg, k)) {
                m->param[depth].off = at;
                m->param[depth].len = k;
                if ((r = walk(c, method, path, len, at + k + 1, depth + 1, m))) return r;
            }
    }
    if (n->rest && (r = pick(n->rest, method, m))) {
        m->param[depth].off = at > len ? len : at;
        m->param[depth].len = at > len ? 0 : len - at;
        m->nparams = depth + 1;
        return r;
    }
    return NULL;
}

int neap_http_router_match(const neap_http_router *r, const char *method, const char *path, size_t len, neap_http_match *m) {
    const struct route *found = NULL;
    m->allow[0] = 0;
    m->nparams = 0;
    if (len && path[0] == '/') found = walk(&r->root, method, path, len, 1, 0, m);
    if (!found && !m->allow[0] && len > 1 && path[len - 1] == '/' && path[len - 2] != '/') found = walk(&r->root, method, path, len - 1, 1, 0, m);
    if (!found) {
        if (m->allow[0]) add_allow(m, "OPTIONS");
        return m->allow[0] ? -1 : 0;
    }
    m->id = found->id;
    m->nparams = found->nparams;
    m->names = (const char *const *)found->names;
    return 1;
}
