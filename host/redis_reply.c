/* redis_reply.c: reply trees, and the hiredis reader callbacks that build them.
   A root is followed in memory by its first stretch of room; more chunks are chained on need, each twice as large, so a
   reply of 100,000 entries costs some ten allocations instead of some 400,000. hiredis' own redisReply was dropped for
   that reason, and because 0.14 always frees it after the callback. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host/err.h"
#include "host/hiredis_compat.h"
#include "host/redis_reply.h"

struct chunk {
    struct chunk *next;
    char data[];
};

struct root {
    neap_reply node; /* first: a root pointer is its node's pointer */
    struct chunk *chunks;
    char *pos, *end;
    size_t grow; /* size of the next chunk */
    bool sent;
    struct root *adopted, *next; /* roots whose memory ends with this one's */
};

enum { CHUNK_MIN = 1024, CHUNK_MAX = 256 * 1024 };

neap_reply *neap_reply_new(size_t room) {
    room = (room + 7) & ~(size_t)7;
    struct root *r = malloc(sizeof *r + room);
    if (!r) return NULL;
    *r = (struct root){.node = {.type = NEAP_REPLY_NIL}, .grow = CHUNK_MIN};
    r->pos = (char *)(r + 1);
    r->end = r->pos + room;
    return &r->node;
}

void neap_reply_free(neap_reply *root) {
    if (!root) return;
    struct root *r = (struct root *)root;
    for (struct root *a = r->adopted, *after; a; a = after) {
        after = a->next;
        neap_reply_free(&a->node);
    }
    for (struct chunk *c = r->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(r);
}

bool neap_reply_sent(const neap_reply *root) { return root && ((const struct root *)root)->sent; }

static void *take(struct root *r, size_t n) {
    n = (n + 7) & ~(size_t)7;
    if ((size_t)(r->end - r->pos) < n) {
        bool own = n > r->grow / 4; /* large pieces get a chunk of their own and leave the current one in use */
        size_t size = own ? n : r->grow;
        struct chunk *c = malloc(sizeof *c + size);
        if (!c) return NULL;
        c->next = r->chunks;
        r->chunks = c;
        if (own) return c->data;
        if (r->grow < CHUNK_MAX) r->grow *= 2;
        r->pos = c->data;
        r->end = c->data + size;
    }
    void *p = r->pos;
    r->pos += n;
    return p;
}

int neap_reply_set_string(neap_reply *root, neap_reply *node, int type, const char *s, size_t len) {
    char *p = take((struct root *)root, len + 1);
    if (!p) return NEAP_ERR_MEMORY;
    memcpy(p, s, len);
    p[len] = 0;
    node->type = type;
    node->len = (uint32_t)len;
    node->str = p;
    return 0;
}

int neap_reply_set_array(neap_reply *root, neap_reply *node, size_t n) {
    neap_reply *item = NULL;
    if (n > UINT32_MAX) return NEAP_ERR_MEMORY;
    if (n) {
        item = take((struct root *)root, n * sizeof *item);
        if (!item) return NEAP_ERR_MEMORY;
        for (size_t i = 0; i < n; i++) item[i] = (neap_reply){.type = NEAP_REPLY_NIL};
    }
    node->type = NEAP_REPLY_ARRAY;
    node->len = (uint32_t)n;
    node->item = item;
    return 0;
}

neap_reply *neap_reply_error(bool sent, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    neap_reply *root = neap_reply_new(len + 1);
    if (!root) return NULL;
    neap_reply_set_string(root, root, NEAP_REPLY_ERROR, text, len);
    ((struct root *)root)->sent = sent;
    return root;
}

void neap_reply_lift(neap_reply *root, uint32_t i) { *root = root->item[i]; }

void neap_reply_adopt(neap_reply *root, neap_reply *other) {
    if (!other) return;
    struct root *r = (struct root *)root, *o = (struct root *)other;
    o->next = r->adopted;
    r->adopted = o;
}

/* ---- hiredis' own objects ------------------------------------------------------------------------------------------ */

/* Protocol types of both versions folded to ours: RESP3 does not occur on our connections, but a proxy might. */
static int fold_type(int t) {
    switch (t) {
    case REDIS_REPLY_INTEGER: return NEAP_REPLY_INTEGER;
    case REDIS_REPLY_NIL: return NEAP_REPLY_NIL;
    case REDIS_REPLY_STATUS: return NEAP_REPLY_STATUS;
    case REDIS_REPLY_ERROR: return NEAP_REPLY_ERROR;
    case REDIS_REPLY_ARRAY: return NEAP_REPLY_ARRAY;
    default: return NEAP_REPLY_STRING;
    }
}

static int copy_node(neap_reply *root, neap_reply *to, const redisReply *from) {
    switch (fold_type(from->type)) {
    case NEAP_REPLY_NIL: to->type = NEAP_REPLY_NIL; return 0;
    case NEAP_REPLY_INTEGER:
        to->type = NEAP_REPLY_INTEGER;
        to->integer = from->integer;
        return 0;
    case NEAP_REPLY_ARRAY:
        if (neap_reply_set_array(root, to, from->elements)) return NEAP_ERR_MEMORY;
        for (size_t i = 0; i < from->elements; i++)
            if (copy_node(root, &to->item[i], from->element[i])) return NEAP_ERR_MEMORY;
        return 0;
    default: return neap_reply_set_string(root, to, fold_type(from->type), from->str ? from->str : "", from->str ? (size_t)from->len : 0);
    }
}

neap_reply *neap_reply_copy_hiredis(const void *redis_reply) {
    neap_reply *root = neap_reply_new(128);
    if (root && copy_node(root, root, redis_reply)) {
        neap_reply_free(root);
        return NULL;
    }
    return root;
}

/* ---- reader callbacks ---------------------------------------------------------------------------------------------- */
/* hiredis calls these while it parses; a task without a parent begins a reply. What they return becomes task->obj, which
   children reach through task->parent; NULL means out of memory and ends the connection. hiredis is never given a root of
   ours, only `mark` in its place: it frees what it holds after the callback, when the tree may have a new owner, or none. */

static redisReplyObjectFunctions defaults; /* hiredis' own; set once */
static int mark = NEAP_REPLY_NIL;          /* stands for a root in hiredis' hands, and for nodes that went to a sink */

static neap_reply *place(const redisReadTask *t, neap_reply_builder *b, size_t room) {
    if (t->parent) return &(t->parent->obj == &mark ? b->top : (neap_reply *)t->parent->obj)->item[t->idx];
    if (!b->root) {
        b->root = neap_reply_new(room);
        b->top = b->root;
    }
    return b->root ? b->top : NULL;
}

static void *given(const redisReadTask *t, neap_reply *node) { return node && !t->parent ? (void *)&mark : node; }

/* At the start of a reply: asks the client whom it is for. Returns false if hiredis is to build its own object. */
static bool ours(const redisReadTask *t, neap_reply_builder *b) {
    if (!t->parent) {
        b->sinking = false;
        b->sink = NULL;
        b->foreign = !b->begin(b);
    }
    return !b->foreign;
}

/* Hands a node below a sunk root on. Depth is counted by walking up: sinks take replies three levels deep. */
static bool sink(const redisReadTask *t, neap_reply_builder *b, int type, const char *s, size_t len, int64_t n) {
    if (!b->sinking || !t->parent) return false;
    int depth = 0;
    for (const redisReadTask *p = t->parent; p; p = p->parent) depth++;
    if (b->sink) b->sink->node(b->sink->ud, depth, t->idx, type, s, len, n);
    return true;
}

static void *on_string(const redisReadTask *t, char *s, size_t len) {
    neap_reply_builder *b = t->privdata;
    if (!ours(t, b)) return defaults.createString(t, s, len);
    int type = fold_type(t->type);
    if (sink(t, b, type, s, len, 0)) return &mark;
    neap_reply *node = place(t, b, len + 1);
    return given(t, node && !neap_reply_set_string(b->root, node, type, s, len) ? node : NULL);
}

static void *on_array(const redisReadTask *t, neap_hiredis_count n) {
    neap_reply_builder *b = t->privdata;
    if (!ours(t, b)) return defaults.createArray(t, n);
    if ((long long)n < 0) n = 0;
    if (sink(t, b, NEAP_REPLY_ARRAY, NULL, (size_t)n, 0)) return &mark;
    if (!t->parent && b->sink) { /* the root of a sunk reply stays an empty array in the tree */
        neap_reply *node = place(t, b, 0);
        if (!node) return NULL;
        neap_reply_set_array(b->root, node, 0);
        b->sinking = true;
        b->sink->node(b->sink->ud, 0, 0, NEAP_REPLY_ARRAY, NULL, (size_t)n, 0);
        return &mark;
    }
    /* room for the items and a guess of their strings: most replies then are one allocation */
    size_t room = n < 64 ? (size_t)n * (sizeof(neap_reply) + 24) : (size_t)n * sizeof(neap_reply);
    neap_reply *node = place(t, b, room);
    return given(t, node && !neap_reply_set_array(b->root, node, (size_t)n) ? node : NULL);
}

static void *on_integer(const redisReadTask *t, long long v) {
    neap_reply_builder *b = t->privdata;
    if (!ours(t, b)) return defaults.createInteger(t, v);
    if (sink(t, b, NEAP_REPLY_INTEGER, NULL, 0, v)) return &mark;
    neap_reply *node = place(t, b, 0);
    if (node) *node = (neap_reply){.type = NEAP_REPLY_INTEGER, .integer = v};
    return given(t, node);
}

static void *on_nil(const redisReadTask *t) {
    neap_reply_builder *b = t->privdata;
    if (!ours(t, b)) return defaults.createNil(t);
    if (sink(t, b, NEAP_REPLY_NIL, NULL, 0, 0)) return &mark;
    neap_reply *node = place(t, b, 0);
    if (node) *node = (neap_reply){.type = NEAP_REPLY_NIL};
    return given(t, node);
}

#if HIREDIS_MAJOR >= 1
static void *on_double(const redisReadTask *t, double v, char *s, size_t len) { return on_string(t, s, len); }
static void *on_bool(const redisReadTask *t, int v) { return on_integer(t, v); }
#endif

/* Our trees belong to the builder until the client takes them, so hiredis frees only what is its own. */
static void on_free(void *obj) {
    if (obj != &mark) defaults.freeObject(obj);
}

static redisReplyObjectFunctions functions = {
    .createString = on_string,
    .createArray = on_array,
    .createInteger = on_integer,
    .createNil = on_nil,
    .freeObject = on_free,
#if HIREDIS_MAJOR >= 1
    .createDouble = on_double,
    .createBool = on_bool,
#endif
};

static void find_defaults(void) {
    redisReader *r = redisReaderCreate();
    if (!r) abort(); /* a few hundred bytes, once in the process' life */
    defaults = *r->fn;
    redisReaderFree(r);
}

void neap_reply_attach(struct redisReader *reader, neap_reply_builder *b) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_defaults);
    reader->fn = &functions;
    reader->privdata = b;
}
