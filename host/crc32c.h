/* crc32c.h: CRC-32C (Castagnoli), as iSCSI and ext4 use it. Uses SSE 4.2 where the processor has it. Thread-safe. */
#ifndef NEAP_CRC32C_H
#define NEAP_CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* Continues from crc (0 at first). crc32c(0, "123456789", 9) == 0xE3069283. */
uint32_t neap_crc32c(uint32_t crc, const void *data, size_t n);
/* The same without special instructions, for tests. */
uint32_t neap_crc32c_portable(uint32_t crc, const void *data, size_t n);
#endif
