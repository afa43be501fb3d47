/* record_fuzz.c: libFuzzer target for journal records: reading any bytes stays inside them, and what is read can be written and read again. */
#include "host/record.h"
#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    neap_record r, again;
    char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    if (neap_record_open(&r, copy, size) == 0) {
        neap_buf out = {0};
        neap_record_writer w;
        neap_record_opts o = {.key = r.key, .key_len = r.key_len, .source = r.source, .arrival_us = r.arrival_us};
        if (neap_record_begin(&w, &out, &o) == 0) {
            neap_record first = r;
            while (neap_record_next(&r)) (void)neap_record_add(&w, r.name, r.name_len, r.time_us, r.text, r.text_len);
            neap_record_end(&w);
            long n = 0;
            if (w.count) {
                assert(neap_record_open(&again, out.data, out.len) == 0 && again.count == (uint32_t)w.count && again.arrival_us == r.arrival_us);
                while (neap_record_next(&again)) {
                    do assert(neap_record_next(&first));
                    while (first.name_len == 0 || first.name_len > NEAP_NAME_MAX || first.text_len == 0 || first.text_len > 64);
                    assert(first.time_us == again.time_us && first.name_len == again.name_len && !memcmp(first.name, again.name, again.name_len));
                    n++;
                }
                assert(n == w.count);
            }
        }
        buf_free(&out);
    }
    free(copy);
    return 0;
}
