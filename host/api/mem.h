/* mem.h: memory for one Lua state. Lua tells the size of what it frees, so small blocks need no header and no search: a list of free ones per size
   class, filled from larger pieces. A request makes some twenty short-lived objects; malloc and free were a fifth of its CPU time.

   Pieces go back to the system when the state closes, not before: what a peak took stays for the state's next small objects. Blocks above
   MEM_SMALL are malloc's. Under the address sanitizer everything is malloc's, so that it sees each block. One thread. */
#ifndef NEAP_API_MEM_H
#define NEAP_API_MEM_H
#include <stddef.h>

enum { MEM_STEP = 16, MEM_SMALL = 512 };

typedef struct rt_mem {
    void *free[MEM_SMALL / MEM_STEP + 1]; /* by class: size / MEM_STEP, rounded up */
    char *pos, *end;                      /* what is left of the newest piece */
    struct mem_piece *pieces;
} rt_mem;

/* As lua_Alloc, but osize is 0 for a new block: NULL and nsize is 0: freed. A zeroed rt_mem is ready. */
void *mem_realloc(rt_mem *m, void *ptr, size_t osize, size_t nsize);
void mem_close(rt_mem *m);
#endif
