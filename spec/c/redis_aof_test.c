/* redis_aof_test.c: the end of an append-only file, torn at every byte: a block that is not complete goes as a whole, all else stays as it is. */
#include "host/redis_private.h"
#include "spec/c/test.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file[] = "appendonlydir/appendonly.aof.2.incr.aof";

static void put(const char *path, const char *data, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n, "%s", path);
    close(fd);
}

/* What is left of these bytes. */
static long left(const char *data, size_t n) {
    struct stat st;
    put(file, data, n);
    long long cut = neap_redis_aof_mend();
    CHECK(stat(file, &st) == 0 && (long long)n - cut == st.st_size, "%zu bytes, %lld cut, %lld left", n, cut, (long long)st.st_size);
    return (long)st.st_size;
}

int main(void) {
    char dir[] = "/tmp/neap-aof-XXXXXX";
    CHECK(mkdtemp(dir) && chdir(dir) == 0);
    CHECK(neap_redis_aof_mend() == 0, "no file at all");
    CHECK(mkdir("appendonlydir", 0700) == 0);
    static const char before[] = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n#TS:1700000000\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9\r\n*1\r\n$5\r\nM\r\n";
    static const char block[] =
        "*1\r\n$5\r\nMULTI\r\n*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$3\r\n1-0\r\n$1\r\n7\r\n$2\r\n21\r\n*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n"
        "$1\r\nf\r\n$0\r\n\r\n*1\r\n$4\r\nEXEC\r\n";
    static const char after[] = "*1\r\n$8\r\nFLUSHALL\r\n*1\r\n$5\r\nmulti\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nexec\r\n";
    char all[1000];
    size_t n = (size_t)snprintf(all, sizeof all, "%s%s%s", before, block, after), b = strlen(before), e = b + strlen(block);
    size_t second = e + (size_t)(strstr(after, "*1\r\n$5\r\nmulti") - after), first_open = b + strlen("*1\r\n$5\r\nMULTI\r\n");
    put("appendonlydir/appendonly.aof.1.incr.aof", block, 30); /* an older one is nobody's business */
    for (size_t cut = 0; cut <= n; cut++) {
        size_t want = cut;
        if (cut >= first_open && cut < e) want = b;
        if (cut >= second + strlen("*1\r\n$5\r\nmulti\r\n") && cut < n) want = second;
        CHECK(left(all, cut) == (long)want, "cut at %zu of %zu: %zu wanted", cut, n, want);
    }
    static const char foreign[] = "*1\r\n$5\r\nMULTI\r\n*1\r\n$3\r\nSETnonsense";
    CHECK(left(foreign, sizeof foreign - 1) == sizeof foreign - 1, "what is no append-only file is left alone");
    CHECK(left("REDIS0010 a preamble", 20) == 20);
    CHECK(chdir("/") == 0);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    CHECK(system(cmd) == 0);
    return test_end("redis_aof");
}
