/* test.h: the whole C test harness. A test program includes it, calls CHECK(...) and returns test_end(). */
#ifndef NEAP_TEST_H
#define NEAP_TEST_H
#include <stdio.h>

static _Atomic int test_passed, test_failed; /* atomic: some tests have threads */

/* One check: counts, and on failure prints where and what. The rest of the program goes on. */
#define CHECK(cond, ...)                                                                                                                             \
    do {                                                                                                                                             \
        if (cond) {                                                                                                                                  \
            test_passed++;                                                                                                                           \
        } else {                                                                                                                                     \
            test_failed++;                                                                                                                           \
            printf("%s:%d: failed: %s ", __FILE__, __LINE__, #cond);                                                                                 \
            printf(" " __VA_ARGS__);                                                                                                                 \
            printf("\n");                                                                                                                            \
        }                                                                                                                                            \
    } while (0)

/* Prints the closing line that the Makefile adds up; returns the exit code. */
static inline int test_end(const char *name) {
    printf("%s: %d passed, %d failed\n", name, test_passed, test_failed);
    return test_failed != 0;
}
#endif
