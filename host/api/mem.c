/* mem.c: see mem.h. */
#include <stdlib.h>
#include <string.h>
#include "host/api/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLAIN 1
#endif
#endif

struct mem_piece {
    struct mem_piece *next;
    size_t size; /* and to keep what follows on 16 bytes */
};

enum { PIECE_FIRST = 16 * 1024, PIECE_MOST = 64 * 1024 };

static size_t class_of(size_t n) { return (n + MEM_STEP - 1) / MEM_STEP; }

/* The rest of the old piece is spread over the classes, then a new one is begun. */
static void *from_new_piece(rt_mem *m, size_t c) {
    for (size_t left; (left = (size_t)(m->end - m->pos) / MEM_STEP) > 0;) {
        size_t k = left < MEM_SMALL / MEM_STEP ? left : MEM_SMALL / MEM_STEP;
        *(void **)m->pos = m->free[k];
        m->free[k] = m->pos;
        m->pos += k * MEM_STEP;
    }
    size_t size = !m->pieces ? PIECE_FIRST : m->pieces->size < PIECE_MOST ? m->pieces->size * 2 : PIECE_MOST;
    struct mem_piece *p = malloc(size);
    if (!p) return NULL;
    p->next = m->pieces;
    p->size = size;
    m->pieces = p;
    m->pos = (char *)(p + 1);
    m->end = (char *)p + size;
    void *b = m->pos;
    m->pos += c * MEM_STEP;
    return b;
}

static void *take(rt_mem *m, size_t n) {
    size_t c = class_of(n);
    void *p = m->free[c];
    if (p) {
        m->free[c] = *(void **)p;
        __builtin_prefetch(m->free[c]); /* where the one behind it is written: that block was freed long ago */
        return p;
    }
    if ((size_t)(m->end - m->pos) < c * MEM_STEP) return from_new_piece(m, c);
    p = m->pos;
    m->pos += c * MEM_STEP;
    return p;
}

static void give(rt_mem *m, void *p, size_t n) {
    size_t c = class_of(n);
    *(void **)p = m->free[c];
    m->free[c] = p;
}

void *mem_realloc(rt_mem *m, void *ptr, size_t osize, size_t nsize) {
#ifdef PLAIN
    if (nsize) return realloc(ptr, nsize);
    free(ptr);
    return NULL;
#else
    int was_small = osize && osize <= MEM_SMALL, small = nsize && nsize <= MEM_SMALL;
    if (!nsize) {
        if (was_small) give(m, ptr, osize);
        else free(ptr);
        return NULL;
    }
    if (!osize) return small ? take(m, nsize) : malloc(nsize);
    if (!was_small && !small) return realloc(ptr, nsize);
    if (was_small && small && class_of(osize) == class_of(nsize)) return ptr;
    void *p = small ? take(m, nsize) : malloc(nsize);
    if (!p) return NULL; /* shrinking too can fail here; Lua then collects, and raises its memory error */
    memcpy(p, ptr, osize < nsize ? osize : nsize);
    if (was_small) give(m, ptr, osize);
    else free(ptr);
    return p;
#endif
}

void mem_close(rt_mem *m) {
    while (m->pieces) {
        struct mem_piece *p = m->pieces;
        m->pieces = p->next;
        free(p);
    }
}
