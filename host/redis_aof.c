/* redis_aof.c: the end of the private redis-server's append-only file, before redis-server reads it. A kill or a power cut may leave a MULTI block
   there whose last command is torn. Redis 7.0 drops the torn command and what is open of the block from memory, but cuts the file behind the last
   whole command: the block stays open in the file, commands are added behind it, and at the start after that the next EXEC carries out its
   beginning, which has been done anew since: readings twice. So the file is cut in front of such a block here. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/redis_private.h"

int neap_redis_aof_open(int flags) {
    char path[300] = "appendonly.aof";
    long newest = -1;
    DIR *dir = opendir("appendonlydir");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        long n;
        int end = 0;
        if (sscanf(e->d_name, "appendonly.aof.%ld.incr.aof%n", &n, &end) != 1 || !end || e->d_name[end] || n <= newest) continue;
        newest = n;
        snprintf(path, sizeof path, "appendonlydir/%s", e->d_name);
    }
    if (dir) closedir(dir);
    return open(path, flags | O_CLOEXEC);
}

enum { WHOLE, TORN, FOREIGN };

/* "*3\r\n" or "$5\r\n" at *p. */
static int number(const char **p, const char *end, char mark, size_t *out) {
    const char *s = *p;
    if (s == end) return TORN;
    if (*s++ != mark) return FOREIGN;
    for (*out = 0; s < end && isdigit((unsigned char)*s) && *out < 1u << 30; s++) *out = *out * 10 + (size_t)(*s - '0');
    if (end - s < 2) return TORN;
    if (s[0] != '\r' || s[1] != '\n') return FOREIGN;
    *p = s + 2;
    return WHOLE;
}

/* The command at *p; its name. Lines that begin with '#' are notes of the time. */
static int command(const char **p, const char *end, const char **name, size_t *len) {
    size_t argc, n;
    *len = 0;
    if (**p == '#') {
        const char *nl = memchr(*p, '\n', (size_t)(end - *p));
        *p = nl ? nl + 1 : end;
        return nl ? WHOLE : TORN;
    }
    int is = number(p, end, '*', &argc);
    for (size_t i = 0; is == WHOLE && i < argc; i++) {
        if ((is = number(p, end, '$', &n)) != WHOLE) break;
        if ((size_t)(end - *p) < n + 2) return TORN;
        if (i == 0) *name = *p, *len = n;
        *p += n;
        if ((*p)[0] != '\r' || (*p)[1] != '\n') return FOREIGN;
        *p += 2;
    }
    return is;
}

long long neap_redis_aof_mend(void) {
    struct stat st;
    int fd = neap_redis_aof_open(O_RDWR);
    if (fd < 0 || fstat(fd, &st) || st.st_size == 0) {
        if (fd >= 0) close(fd);
        return 0;
    }
    size_t size = (size_t)st.st_size, keep = 0;
    char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        close(fd);
        return 0;
    }
    madvise(data, size, MADV_SEQUENTIAL);
    const char *p = data, *end = data + size, *name = NULL;
    bool open = false; /* within a block */
    int is = WHOLE;
    while (is == WHOLE && p < end) {
        size_t n;
        if (!open) keep = (size_t)(p - data);
        is = command(&p, end, &name, &n);
        if (is != WHOLE) break;
        if (n == 5 && !strncasecmp(name, "multi", 5)) open = true;
        else if (n == 4 && !strncasecmp(name, "exec", 4)) open = false;
    }
    munmap(data, size);
    bool cut = open && is != FOREIGN && ftruncate(fd, (off_t)keep) == 0;
    if (cut && fdatasync(fd)) cut = false;
    close(fd);
    return cut ? (long long)(size - keep) : 0;
}
