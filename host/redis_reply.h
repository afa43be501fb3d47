/* redis_reply.h: one Redis reply as a compact tree. A reply is a single allocation for the usual short answers and a few
   chunks for large ones; strings are binary-safe and NUL-terminated. The hiredis reader builds it directly (no
   intermediate redisReply). A tree belongs to whoever received it from a callback: release it with neap_reply_free. */
#ifndef NEAP_REDIS_REPLY_H
#define NEAP_REDIS_REPLY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values above 255 never equal one of hiredis' own reply types, so that hiredis never mistakes a tree for its redisReply. */
enum { NEAP_REPLY_NIL = 256, NEAP_REPLY_STRING, NEAP_REPLY_STATUS, NEAP_REPLY_INTEGER, NEAP_REPLY_ARRAY, NEAP_REPLY_ERROR };

typedef struct neap_reply {
    int type;
    uint32_t len; /* bytes of a string, status or error; items of an array */
    union {
        int64_t integer;
        const char *str;
        struct neap_reply *item;
    };
} neap_reply;

/* Frees a tree by its root; NULL is allowed. Never call it on an inner node. */
void neap_reply_free(neap_reply *root);

/* A root of type ERROR with a printf-made text; `sent` as in neap_reply_sent. NULL when out of memory. */
neap_reply *neap_reply_error(bool sent, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Of a failed request's reply: true if the command had left for the server, so it may have run. */
bool neap_reply_sent(const neap_reply *root);

/* ---- building (used by the client and by tests) ---- */

/* An empty root with room for `room` bytes of strings and items; NULL when out of memory. */
neap_reply *neap_reply_new(size_t room);
/* Make `node` (the root itself or one below it) a string-like node or an array of n NIL items. 0 or NEAP_ERR_MEMORY. */
int neap_reply_set_string(neap_reply *root, neap_reply *node, int type, const char *s, size_t len);
int neap_reply_set_array(neap_reply *root, neap_reply *node, size_t n);
/* The root becomes its own item i; the rest of its memory stays with it. */
void neap_reply_lift(neap_reply *root, uint32_t i);
/* Ties other's memory to root: nodes of other may be copied into root's items. NULL is allowed. */
void neap_reply_adopt(neap_reply *root, neap_reply *other);
/* Deep copy of a hiredis redisReply (subscriber connections use hiredis' own objects). NULL when out of memory. */
neap_reply *neap_reply_copy_hiredis(const void *redis_reply);

/* A consumer of one array reply as it arrives, for replies too big to hold twice (see redis_columns.h). The root array is
   announced at depth 0 and every node below with its depth and its index in the parent. `s` is not NUL-terminated and
   valid during the call. Called on the loop thread; it must not call the client. */
typedef struct neap_reply_sink {
    void (*node)(void *ud, int depth, int index, int type, const char *s, size_t len, int64_t integer);
    void *ud;
} neap_reply_sink;

/* ---- the hiredis reader's side: one builder per connection ---- */
struct redisReader;
typedef struct neap_reply_builder {
    neap_reply *root;            /* the reply being read (or the batch it belongs to), NULL between replies */
    neap_reply *top;             /* the node that the current reply's outermost value fills */
    const neap_reply_sink *sink; /* takes the nodes of the current reply; NULL: build the tree */
    bool sinking, foreign;       /* state of the reply being read */
    /* Asked when a reply begins: sets `root` and `top` (a batch's next slot) or leaves them NULL for a fresh root, sets
       `sink`; returns false if no request waits for a reply (hiredis then handles its own object). */
    bool (*begin)(struct neap_reply_builder *b);
    void *owner;
} neap_reply_builder;

/* Makes the reader of an async context build trees through b, which must outlive it. */
void neap_reply_attach(struct redisReader *reader, neap_reply_builder *b);
#endif
