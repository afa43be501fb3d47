/* perm.c: keys of the shuffle (the permutation itself is in perm.h). */
#include "kernels/perm.h"

void neap_perm_init(neap_perm *p, uint32_t n, uint64_t seed, uint64_t epoch) {
    int bits = 2;
    while (bits < 32 && ((uint64_t)1 << bits) < n) bits++;
    p->n = n;
    p->bits_lo = bits / 2;
    p->mask_lo = (1u << p->bits_lo) - 1;
    p->mask_hi = (uint32_t)(((uint64_t)1 << (bits - p->bits_lo)) - 1);
    for (int r = 0; r < NEAP_PERM_ROUNDS; r++) p->key[r] = (uint32_t)(neap_random_bits(seed, 0x5348554646u + epoch, (uint64_t)r) >> 32);
}
