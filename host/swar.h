/* swar.h: looks at eight bytes at once. A quick "nothing special here" in front of loops that judge byte by byte: false may only mean "look closer".
 */
#ifndef NEAP_SWAR_H
#define NEAP_SWAR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SWAR_ONES 0x0101010101010101ull
#define SWAR_HIGH 0x8080808080808080ull

static inline uint64_t swar_load(const char *p) {
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

/* The high bit of each byte that is c (and perhaps of bytes above such a one). */
static inline uint64_t swar_is(uint64_t x, unsigned char c) {
    x ^= SWAR_ONES * c;
    return (x - SWAR_ONES) & ~x & SWAR_HIGH;
}

/* The high bit of each byte that is not in 0x20 .. 0x7f (and perhaps of bytes above such a one). */
static inline uint64_t swar_odd(uint64_t x) { return ((x - SWAR_ONES * 0x20) | x) & SWAR_HIGH; }

/* Which byte in memory has the first of these bits; hits != 0. */
static inline int swar_first(uint64_t hits) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_ctzll(hits) / 8;
#else
    return 0; /* "above" is before in memory there: only none at all is certain */
#endif
}

/* Are all eight decimal digits? */
static inline bool swar_digits(uint64_t x) {
    uint64_t high = 0xF0F0F0F0F0F0F0F0ull;
    return ((x & high) | ((x + SWAR_ONES * 6) & high) >> 4) == SWAR_ONES * '3';
}

/* What eight digits say: pairs first, then fours, then all. */
static inline uint64_t swar_number(uint64_t x) {
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    x -= SWAR_ONES * '0';
    x = (x * 10 + (x >> 8)) & 0x00FF00FF00FF00FFull;
    x = (x * 100 + (x >> 16)) & 0x0000FFFF0000FFFFull;
    return (x * 10000 + (x >> 32)) & 0xFFFFFFFFull;
}

/* Are all n bytes printable ASCII, and none of them `a` or `b`? */
static inline bool swar_plain(const char *p, size_t n, unsigned char a, unsigned char b) {
    uint64_t hit = 0, x = 0;
    if (n < 4) {
        x = SWAR_ONES * 'x';
        for (size_t i = 0; i < n; i++) x = x << 8 | (unsigned char)p[i];
    } else if (n < 8) { /* two fours, which may overlap */
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        x = (uint64_t)last << 32 | first;
    } else {
        const char *last = p + n - 8; /* the last eight may overlap those before */
        for (; p < last; p += 8) {
            x = swar_load(p);
            hit |= swar_odd(x) | swar_is(x, 0x7f) | swar_is(x, a) | swar_is(x, b);
        }
        x = swar_load(last);
    }
    return !(hit | swar_odd(x) | swar_is(x, 0x7f) | swar_is(x, a) | swar_is(x, b));
}
#endif
