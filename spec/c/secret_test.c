/* secret_test.c: random bytes differ, and a secret file is replaced whole, by its owner's mode. */
#include "host/secret.h"
#include "host/err.h"
#include "spec/c/test.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t read_back(const char *path, char *out, size_t n) {
    FILE *f = fopen(path, "rb");
    size_t k = f ? fread(out, 1, n, f) : 0;
    if (f) fclose(f);
    return k;
}

int main(void) {
    unsigned char a[16], b[16], zero[16] = {0};
    CHECK(neap_secret_random(a, sizeof a) == 0 && neap_secret_random(b, sizeof b) == 0);
    CHECK(memcmp(a, b, sizeof a) && memcmp(a, zero, sizeof a));

    char dir[] = "/tmp/neap-secret-XXXXXX", path[64], text[8192], back[8192];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/tokens", dir);
    memset(text, 'x', sizeof text);
    CHECK(neap_secret_write(path, text, sizeof text) == 0);
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "mode %o", st.st_mode & 0777u);
    CHECK(read_back(path, back, sizeof back) == sizeof text && !memcmp(text, back, sizeof text));

    CHECK(chmod(path, 0644) == 0); /* a wider mode does not survive the next writing */
    CHECK(neap_secret_write(path, "new", 3) == 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_size == 3);

    char missing[96], big[5000];
    snprintf(missing, sizeof missing, "%s/no/tokens", dir);
    CHECK(neap_secret_write(missing, "x", 1) == NEAP_ERR_IO);
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = 0;
    CHECK(neap_secret_write(big, "x", 1) == NEAP_ERR_INVALID);
    unlink(path);
    CHECK(rmdir(dir) == 0, "a temporary file was left behind");
    return test_end("secret");
}
