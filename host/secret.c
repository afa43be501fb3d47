/* secret.c: see secret.h. The new file is written under a name of its own and renamed: a reader sees the old one or the new one, and at no
   moment does the text lie in a file with a wider mode (fopen and chmod afterwards would leave such a moment). Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <uv.h>
#include "host/err.h"
#include "host/secret.h"

int neap_secret_random(void *out, size_t n) { return uv_random(NULL, NULL, out, n, 0, NULL) ? NEAP_ERR_IO : 0; }

static int write_all(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return fsync(fd);
}

/* The rename itself survives a power cut only when the directory is synced too. */
static int sync_directory(const char *path) {
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(dir, slash ? path : ".", slash ? n : 1);
    dir[slash ? n : 1] = 0;
    int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int e = fsync(fd), saved = errno;
    close(fd);
    errno = saved;
    return e;
}

int neap_secret_write(const char *path, const void *data, size_t n) {
    char tmp[PATH_MAX];
    if ((size_t)snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid()) >= sizeof tmp) return NEAP_ERR_INVALID;
    unlink(tmp); /* of a process with our number that ended early */
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return NEAP_ERR_IO;
    int bad = write_all(fd, data, n), saved = errno;
    if (close(fd) && !bad) {
        bad = -1;
        saved = errno;
    }
    if (!bad && (rename(tmp, path) || sync_directory(path))) {
        bad = -1;
        saved = errno;
    }
    if (bad) unlink(tmp);
    errno = saved;
    return bad ? NEAP_ERR_IO : 0;
}

int neap_secret_lock(const char *path, int *fd) {
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0) return NEAP_ERR_IO;
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return 0;
    int e = errno == EWOULDBLOCK ? NEAP_ERR_FULL : NEAP_ERR_IO, saved = errno;
    close(*fd);
    *fd = -1;
    errno = saved;
    return e;
}
