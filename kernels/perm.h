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
/* x[64] through the network once; loops of 64 run in vector registers. */
static inline __attribute__((unused)) void perm_rounds(const neap_perm *p, uint32_t *x) {
    uint32_t lo[64], hi[64];
    for (int j = 0; j < 64; j++) lo[j] = x[j] & p->mask_lo, hi[j] = (x[j] >> p->bits_lo) & p->mask_hi;
    for (int r = 0; r < NEAP_PERM_ROUNDS; r += 2) {
        for (int j = 0; j < 64; j++) lo[j] ^= perm_mix(hi[j], p->key[r]) & p->mask_lo;
        for (int j = 0; j < 64; j++) hi[j] ^= perm_mix(lo[j], p->key[r + 1]) & p->mask_hi;
    }
    for (int j = 0; j < 64; j++) x[j] = hi[j] << p->bits_lo | lo[j];
}

/* Positions first..first+n-1 of the permutation. Those that fall outside walk on together, in ever fewer vectors. */
static inline __attribute__((unused)) void perm_fill(const neap_perm *p, uint32_t first, int n, uint32_t *out) {
    for (; n > 0; first += 64, out += 64, n -= 64) {
        uint32_t x[64];
        int slot[64], m = n < 64 ? n : 64, open = 0;
        for (int j = 0; j < 64; j++) x[j] = first + (uint32_t)j;
        perm_rounds(p, x);
        for (int j = 0; j < m; j++) {
            out[j] = x[j];
            slot[open] = j;
            open += x[j] >= p->n;
        }
        while (open > 3) {
            int still = 0;
            for (int j = 0; j < open; j++) x[j] = out[slot[j]];
            perm_rounds(p, x);
            for (int j = 0; j < open; j++) {
                int s = slot[j];
                out[s] = x[j];
                slot[still] = s;
                still += x[j] >= p->n;
            }
            open = still;
        }
        for (int j = 0; j < open; j++) out[slot[j]] = perm_walk(p, out[slot[j]]);
    }
}
#endif
#endif
