/* perm.h: shuffling without an index array. A Feistel network over the smallest power of two that holds n, cycle walking for the rest; round keys
   are hashed from (seed, epoch): raw keys or few rounds are measurably non-uniform for small n. Included by each backend so that its compiler
   vectorises the rounds; integer arithmetic, hence the same order everywhere. */
#ifndef NEAP_PERM_H
#define NEAP_PERM_H
#include "kernels/kernels.h"

#ifdef __CUDACC__
#define PERM_FN __device__ static inline
#else
#define PERM_FN static inline __attribute__((unused))
#endif

PERM_FN uint32_t perm_mix(uint32_t v, uint32_t key) {
    uint32_t t = (v ^ key) * 0x85EBCA6Bu;
    t = (t ^ (t >> 15)) * 0xC2B2AE35u;
    return t ^ (t >> 16);
}

PERM_FN uint32_t perm_walk(const neap_perm *p, uint32_t x) {
    do {
        uint32_t lo = x & p->mask_lo, hi = x >> p->bits_lo;
        for (int r = 0; r < NEAP_PERM_ROUNDS; r += 2) {
            lo ^= perm_mix(hi, p->key[r]) & p->mask_lo;
            hi ^= perm_mix(lo, p->key[r + 1]) & p->mask_hi;
        }
        x = hi << p->bits_lo | lo;
    } while (x >= p->n);
    return x;
}

#ifndef __CUDACC__
#define PERM_BLOCK 1024 /* positions that walk together: the last few take as long as many */

typedef uint32_t perm_vec __attribute__((vector_size(64), aligned(4)));

/* x[16 * vectors] through the network once; `vectors` is a constant, so that all rounds run in registers. */
static inline __attribute__((always_inline, unused)) void perm_rounds(const neap_perm *p, uint32_t *x, const int vectors) {
    perm_vec lo[8], hi[8];
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++) {
        perm_vec v = *(perm_vec *)(x + 16 * i);
        lo[i] = v & p->mask_lo, hi[i] = v >> (uint32_t)p->bits_lo & p->mask_hi;
    }
    for (int r = 0; r < NEAP_PERM_ROUNDS; r += 2) {
        uint32_t even = p->key[r], odd = p->key[r + 1];
#define PERM_ROUND(to, from, key, mask)                                                                                                              \
    _Pragma("GCC unroll 8") for (int i = 0; i < vectors; i++) {                                                                                      \
        perm_vec t = (from[i] ^ key) * 0x85EBCA6Bu;                                                                                                  \
        t = (t ^ (t >> 15)) * 0xC2B2AE35u;                                                                                                           \
        to[i] ^= (t ^ (t >> 16)) & mask;                                                                                                             \
    }
        PERM_ROUND(lo, hi, even, p->mask_lo)
        PERM_ROUND(hi, lo, odd, p->mask_hi)
#undef PERM_ROUND
    }
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++) *(perm_vec *)(x + 16 * i) = hi[i] << (uint32_t)p->bits_lo | lo[i];
}

/* Positions first..first+n-1 of the permutation. Those that fall outside walk on together, in ever fewer vectors. */
static inline __attribute__((unused)) void perm_fill(const neap_perm *p, uint32_t first, int n, uint32_t *out) {
    for (; n > 0; first += PERM_BLOCK, out += PERM_BLOCK, n -= PERM_BLOCK) {
        uint32_t x[PERM_BLOCK];
        int slot[PERM_BLOCK], open = n < PERM_BLOCK ? n : PERM_BLOCK;
        for (int j = 0; j < PERM_BLOCK; j++) x[j] = first + (uint32_t)j, slot[j] = j;
        while (open > 0) {
            int still = 0, walking = open;
            for (int at = 0; at < walking;) {
                int left = walking - at, vectors = left > 64 ? 8 : left > 16 ? 4 : 1;
                if (vectors == 8) perm_rounds(p, x + at, 8);
                else if (vectors == 4) perm_rounds(p, x + at, 4);
                else perm_rounds(p, x + at, 1);
                at += 16 * vectors;
            }
            for (int j = 0; j < walking; j++) { /* in place: still <= j */
                uint32_t value = x[j];
                int s = slot[j];
                out[s] = value;
                x[still] = value;
                slot[still] = s;
                still += value >= p->n;
            }
            open = still;
        }
    }
}
#endif
#endif
