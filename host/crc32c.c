/* crc32c.c: four bits a step from a table of sixteen words, or the processor's own instruction. The small table is constant data, so
   there is nothing to initialise and nothing shared. */
#include "host/crc32c.h"
#include <string.h>

/* table[i]: the remainder of i as the top four bits of the reflected polynomial 0x82F63B78. */
static const uint32_t table[16] = {0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
                                   0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75};

uint32_t neap_crc32c_portable(uint32_t crc, const void *data, size_t n) {
    const uint8_t *p = data;
    crc = ~crc;
    while (n--) {
        crc ^= *p++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t c = (uint32_t)~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        c = __builtin_ia32_crc32di(c, x);
    }
    while (n--) c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return ~(uint32_t)c;
}

uint32_t neap_crc32c(uint32_t crc, const void *data, size_t n) {
    return __builtin_cpu_supports("sse4.2") ? by_instruction(crc, data, n) : neap_crc32c_portable(crc, data, n);
}
#else
uint32_t neap_crc32c(uint32_t crc, const void *data, size_t n) { return neap_crc32c_portable(crc, data, n); }
#endif
