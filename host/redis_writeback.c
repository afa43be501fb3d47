/* redis_writeback.c: the private redis-server's append-only file, given to the disk as it grows. With `everysec` Redis asks for it once a second:
   at a million readings a second 12 MB, which hold the disk for some 6 ms, and every answer that waits for the journal's fdatasync stands behind
   them. Begun a piece at a time, little is left when the second is over. It makes nothing durable, and nothing waits for it. */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "host/redis_private.h"

enum { PIECE = 256 << 10, PAGE = 4096, BUSY_MS = 10, QUIET_MS = 320, LOOK_MS = 1000 };

static void *write_back(void *unused) {
    int fd = -1;
    off_t begun = 0;
    ino_t file = 0;
    struct stat now;
    long wait = QUIET_MS, since = LOOK_MS;
    for (;; nanosleep(&(struct timespec){.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000}, NULL), since += wait) {
        if (since >= LOOK_MS) { /* is there a newer one? */
            int newer = neap_redis_aof_open(O_RDONLY);
            if (fd >= 0) close(fd);
            fd = newer;
            since = 0;
            if (fd >= 0 && fstat(fd, &now) == 0 && now.st_ino != file) begun = 0; /* what the disk has costs nothing */
        }
        if (fd < 0 || fstat(fd, &now)) {
            wait = QUIET_MS;
            continue;
        }
        file = now.st_ino;
        off_t whole = now.st_size / PAGE * PAGE;
        if (whole < begun) begun = whole; /* it was cut */
        bool busy = whole - begun >= PIECE;
        wait = busy ? BUSY_MS : wait < QUIET_MS ? wait * 2 : QUIET_MS;
        if (!busy) continue;
        if (sync_file_range(fd, begun, whole - begun, SYNC_FILE_RANGE_WRITE)) break; /* a file system that has no such thing */
        begun = whole;
    }
    close(fd);
    return unused;
}

void redis_write_back(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, write_back, NULL) == 0) pthread_detach(thread);
}
