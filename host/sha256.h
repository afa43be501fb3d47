/* sha256.h: SHA-256 (FIPS 180-4), for checkpoint checksums and golden weights. */
#ifndef NEAP_SHA256_H
#define NEAP_SHA256_H
#include <stddef.h>
#include <stdint.h>

typedef struct neap_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    unsigned char block[64];
} neap_sha256;

void neap_sha256_init(neap_sha256 *s);
void neap_sha256_add(neap_sha256 *s, const void *data, size_t n);
/* Ends the sum: 64 lower-case hex digits and a NUL. */
void neap_sha256_hex(neap_sha256 *s, char out[65]);
#endif
