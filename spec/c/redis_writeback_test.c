/* redis_writeback_test.c: an append-only file that grows reaches the disk without anybody's fsync; a newer increment is found. The kernel
   says what is still dirty (cachestat, Linux 6.5); where it cannot, or the file system never writes back, there is nothing to be seen. */
#include "host/redis_private.h"
#include "spec/c/test.h"
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, CACHESTAT = 451 };

/* Bytes of the file that the disk has not got yet; -1: not known. */
static long dirty(int fd) {
    uint64_t range[2] = {0, 0}, out[5] = {0};
    return syscall(CACHESTAT, fd, range, out, 0) ? -1 : (long)((out[1] + out[2]) * (uint64_t)sysconf(_SC_PAGESIZE));
}

static int append(const char *path, size_t n) {
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);
    char *data = calloc(1, n);
    CHECK(fd >= 0 && data && write(fd, data, n) == (ssize_t)n, "%s", path);
    free(data);
    return fd;
}

/* Waits, for up to 10 s, until less than a piece is dirty: the kernel by itself waits for 30 s. */
static bool settles(int fd) {
    for (int i = 0; i < 1000 && dirty(fd) >= MIB / 2; i++) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return dirty(fd) < MIB / 2;
}

int main(void) {
    char dir[] = "/var/tmp/neap-writeback-XXXXXX", away[64];
    if (!mkdtemp(dir) || chdir(dir) || mkdir("appendonlydir", 0700)) return 1;
    snprintf(away, sizeof away, "rm -rf %s", dir);
    int old = append("appendonlydir/appendonly.aof.9.incr.aof", 0), probe = append("probe", 8 * MIB);
    if (dirty(probe) < 8 * MIB) {
        printf("redis_writeback: what is dirty cannot be seen here\n");
        return system(away) || test_end("redis_writeback");
    }
    redis_write_back();
    for (int i = 0; i < 3; i++) {
        close(append("appendonlydir/appendonly.aof.9.incr.aof", 8 * MIB));
        CHECK(settles(old), "%ld bytes wait", dirty(old));
    }
    int newer = append("appendonlydir/appendonly.aof.10.incr.aof", 0);
    int other = append("appendonlydir/appendonly.aof.11.base.rdb", 8 * MIB);
    close(append("appendonlydir/appendonly.aof.10.incr.aof", 8 * MIB));
    CHECK(settles(newer), "%ld bytes wait", dirty(newer));
    CHECK(dirty(probe) == 8 * MIB && dirty(other) == 8 * MIB, "files that are not the append-only file's increment are left alone");
    return system(away) || test_end("redis_writeback");
}
