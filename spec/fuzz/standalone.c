/* standalone.c: runs a libFuzzer target without libFuzzer: every file of its corpus, then mutations of them from a fixed seed. The suite uses it for
   a short run with any compiler; `make soak` for the million under ASan and UBSan. Usage: fuzz_NAME CORPUS_DIR COUNT [SEED] */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_FILES = 4096, MAX_SIZE = 4096 };
static struct {
    uint8_t *data;
    size_t len;
} files[MAX_FILES];
static int nfiles;

static uint64_t state;
static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static size_t below(size_t n) { return n ? (size_t)(next_random() % n) : 0; }

static void load(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *e;
    char path[4096];
    while (d && (e = readdir(d)) && nfiles < MAX_FILES) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!f) continue;
        files[nfiles].data = malloc(MAX_SIZE);
        if (!files[nfiles].data) abort();
        files[nfiles].len = fread(files[nfiles].data, 1, MAX_SIZE, f);
        nfiles++;
        fclose(f);
    }
    if (d) closedir(d);
}

static size_t mutate(uint8_t *b, size_t n) {
    static const char *const words[] = {"\"",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        ":",
                                        "=",
                                        " ",
                                        "\n",
                                        "\\",
                                        "\\u",
                                        "\\ud800",
                                        "1e999",
                                        "-0",
                                        "NaN",
                                        "null",
                                        "true",
                                        "9223372036854775808",
                                        "0.1",
                                        "i",
                                        "u",
                                        "\"\"",
                                        "#",
                                        "\xff",
                                        "\xc3\x28",
                                        "1700000000000000000",
                                        "PUTVAL "};
    int times = 1 + (int)below(6);
    for (int i = 0; i < times; i++) {
        size_t at = below(n + 1);
        switch (below(6)) {
        case 0: /* flip a byte */
            if (at < n) b[at] = (uint8_t)next_random();
            break;
        case 1: /* delete a stretch */
            if (at < n) {
                size_t k = 1 + below(n - at < 16 ? n - at : 16);
                memmove(b + at, b + at + k, n - at - k);
                n -= k;
            }
            break;
        case 2: { /* insert a word */
            const char *w = words[below(sizeof words / sizeof *words)];
            size_t k = strlen(w);
            if (n + k > MAX_SIZE) break;
            memmove(b + at + k, b + at, n - at);
            memcpy(b + at, w, k);
            n += k;
            break;
        }
        case 3: /* cut */ n = at; break;
        case 4: { /* repeat a stretch */
            size_t k = below(n - at + 1);
            if (k > 64) k = 64;
            if (n + k > MAX_SIZE) break;
            memmove(b + at + k, b + at, n - at);
            n += k;
            break;
        }
        default: { /* splice with another file */
            size_t other = below((size_t)nfiles), k = files[other].len - below(files[other].len + 1);
            if (at + k > MAX_SIZE) k = MAX_SIZE - at;
            memcpy(b + at, files[other].data + files[other].len - k, k);
            n = at + k;
        }
        }
    }
    return n;
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    long count = argc > 2 ? atol(argv[2]) : 1000;
    state = argc > 3 ? (uint64_t)atol(argv[3]) : 1;
    if (argc < 2) return 2;
    load(argv[1]);
    if (!nfiles) {
        printf("%s: no corpus in %s\n", argv[0], argv[1]);
        return 1;
    }
    for (int i = 0; i < nfiles; i++) LLVMFuzzerTestOneInput(files[i].data, files[i].len);
    for (long i = 0; i < count; i++) {
        size_t f = below((size_t)nfiles), n = files[f].len;
        uint8_t *b = malloc(MAX_SIZE); /* of the exact size, so that ASan sees one byte too far */
        if (!b) abort();
        memcpy(b, files[f].data, n);
        n = mutate(b, n);
        uint8_t *exact = malloc(n ? n : 1);
        if (!exact) abort();
        memcpy(exact, b, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
        free(b);
    }
    for (int i = 0; i < nfiles; i++) free(files[i].data);
    printf("%s: %ld inputs: 1 passed, 0 failed\n", name ? name + 1 : argv[0], count + nfiles);
    return 0;
}
