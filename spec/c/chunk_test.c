/* chunk_test.c: readings to a field of a stream entry and back. */
#include "host/chunk.h"
#include <stdlib.h>
#include <string.h>
#include "test.h"

static void test_text(void) {
    static const int64_t times[] = {1000, 2000, 3000, 3500, 3500, 3500, 1};
    static const char *const values[] = {"21.5", "-1", "2e5", "0", "7", "8", "9"};
    neap_buf b = {0};
    neap_chunk c = {.time_us = times[0]};
    for (size_t i = 0; i < 7; i++) CHECK(neap_chunk_put(&c, &b, times[i], values[i], strlen(values[i])) == 0);
    static const char want[] = "21.5 -1@1000 2e5 0@500 7@0 8 9@-3499";
    CHECK(b.len == sizeof want - 1 && memcmp(b.data, want, b.len) == 0, "%.*s", (int)b.len, b.data);
    neap_chunk_reader r;
    size_t n = 0;
    for (neap_chunk_read(&r, times[0], b.data, b.len); neap_chunk_next(&r); n++)
        CHECK(n < 7 && r.time_us == times[n] && r.text_len == strlen(values[n]) && memcmp(r.text, values[n], r.text_len) == 0, "%zu", n);
    CHECK(n == 7);
    buf_free(&b);
}

/* Any times there are, the far ends too, come back. */
static void test_any(void) {
    static const int64_t edge[] = {0, INT64_MAX, INT64_MIN, -1, 1763900000000000};
    int64_t times[500];
    neap_buf b = {0};
    srand(7);
    for (int i = 0; i < 500; i++) times[i] = i % 3 ? (int64_t)rand() * rand() - RAND_MAX : edge[rand() % 5];
    neap_chunk c = {.time_us = times[0]};
    for (int i = 0; i < 500; i++) CHECK(neap_chunk_put(&c, &b, times[i], "1", 1) == 0);
    neap_chunk_reader r;
    int n = 0;
    for (neap_chunk_read(&r, times[0], b.data, b.len); neap_chunk_next(&r); n++) CHECK(n < 500 && r.time_us == times[n], "%d", n);
    CHECK(n == 500);
    buf_free(&b);
}

static void test_strange(void) {
    static const struct {
        const char *text;
        int n;
    } all[] = {{"", 0}, {" ", 1}, {"1", 1}, {"1 2@x 3", 1}, {"1@5 2", 2}, {"@", 0}, {"1 2@", 1}, {"a b c", 3}, {"1  2", 3}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        neap_chunk_reader r;
        int n = 0;
        size_t len = strlen(all[i].text);
        char *exact = malloc(len ? len : 1); /* no byte behind it: a sanitizer sees a read too far */
        memcpy(exact, all[i].text, len);
        for (neap_chunk_read(&r, 1, exact, len); neap_chunk_next(&r);) n++;
        CHECK(n == all[i].n, "'%s': %d", all[i].text, n);
        free(exact);
    }
    int64_t t;
    CHECK(neap_chunk_time("17", 2, &t) && t == 17 && neap_chunk_time("-17", 3, &t) && t == -17 && !neap_chunk_time("1.5", 3, &t));
}

int main(void) {
    test_text();
    test_any();
    test_strange();
    return test_end("chunk");
}
