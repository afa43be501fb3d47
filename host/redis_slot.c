/* redis_slot.c: the slot of a Redis Cluster that a key lies in, and a command by its first key. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "host/redis_priv.h"

enum { SLOTS = REDIS_SLOTS };

/* CRC-16/XMODEM: polynomial 0x1021, from 0, four bits at a time. */
static uint16_t crc16(const char *s, size_t n) {
    static const uint16_t t[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                   0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    uint16_t c = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)s[i];
        c = (uint16_t)(c << 4) ^ t[(c >> 12) ^ (b >> 4)];
        c = (uint16_t)(c << 4) ^ t[(c >> 12) ^ (b & 15)];
    }
    return c;
}

int redis_key_slot(const char *key, size_t len) {
    const char *open = memchr(key, '{', len);
    if (open) {
        const char *close = memchr(open, '}', len - (size_t)(open - key));
        if (close && close > open + 1) return crc16(open + 1, (size_t)(close - open - 1)) % SLOTS;
    }
    return crc16(key, len) % SLOTS;
}

struct arg {
    const char *s;
    size_t len;
};

/* Reads "*argc" and up to max arguments of the command at p; returns the byte after the whole command. The bytes are ours: well-formed. */
static const char *parse(const char *p, struct arg *args, int max, int *argc) {
    *argc = atoi(p + 1);
    p = strchr(p, '\n') + 1;
    for (int i = 0; i < *argc; i++) {
        size_t len = strtoul(p + 1, NULL, 10);
        p = strchr(p, '\n') + 1;
        if (i < max) args[i] = (struct arg){p, len};
        p += len + 2;
    }
    return p;
}

static bool is(struct arg a, const char *words) { /* "FOO BAR": is a one of them? */
    for (const char *w = words; *w;) {
        size_t n = strcspn(w, " ");
        if (n == a.len && !strncasecmp(w, a.s, n)) return true;
        w += n + (w[n] == ' ');
    }
    return false;
}

int redis_command_slot(const char *bytes, const char **after) {
    enum { MAX = 24 };
    struct arg a[MAX];
    int argc, key = 1;
    const char *end = parse(bytes, a, MAX, &argc);
    if (after) *after = end;
    if (is(a[0], "PING ECHO INFO CONFIG CLIENT CLUSTER COMMAND DBSIZE FLUSHALL FLUSHDB KEYS SCAN RANDOMKEY SCRIPT TIME PUBLISH PUBSUB WAIT LASTSAVE "
                 "SAVE BGSAVE "
                 "BGREWRITEAOF SHUTDOWN SLOWLOG LATENCY ACL AUTH SELECT HELLO RESET QUIT MULTI EXEC DISCARD UNWATCH ASKING READONLY READWRITE "
                 "FUNCTION MODULE ROLE "
                 "DEBUG LOLWUT FAILOVER REPLICAOF"))
        return -1;
    if (is(a[0], "EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO")) {
        if (argc < 4 || (a[2].len == 1 && *a[2].s == '0')) return -1;
        key = 3;
    } else if (is(a[0], "XREAD XREADGROUP")) {
        for (int i = 1; i < argc && i < MAX; i++)
            if (is(a[i], "STREAMS")) key = i + 1;
    } else if (is(a[0], "XGROUP XINFO OBJECT MEMORY BITOP ZUNION ZINTER ZDIFF SINTERCARD ZINTERCARD LMPOP ZMPOP")) {
        key = 2;
    } else if (is(a[0], "BLMPOP BZMPOP")) {
        key = 3;
    }
    return key < argc && key < MAX ? redis_key_slot(a[key].s, a[key].len) : -1;
}
