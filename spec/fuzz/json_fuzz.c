/* json_fuzz.c: libFuzzer target for the JSON reader: no report on any input, and what is accepted survives writing and reading again. */
#include "host/json.h"
#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    neap_json j;
    neap_json_token t;
    neap_buf b = {0};
    neap_json_init(&j, (const char *)data, size, 0);
    while ((t = neap_json_next(&j)) > NEAP_JSON_END) {
        if (t == NEAP_JSON_STRING || t == NEAP_JSON_KEY) {
            char *out = malloc(j.len + 1);
            size_t n = neap_json_unescape(j.text, j.len, out);
            assert(n <= j.len && neap_json_utf8(out, n) == n);
            buf_clear(&b);
            assert(neap_json_put_string(&b, out, n, false) == 0);
            neap_json k;
            neap_json_init(&k, b.data, b.len, 0);
            assert(neap_json_next(&k) == NEAP_JSON_STRING && neap_json_next(&k) == NEAP_JSON_END);
            free(out);
        } else if (t == NEAP_JSON_FLOAT || t == NEAP_JSON_INT) {
            buf_clear(&b);
            neap_json k;
            assert((t == NEAP_JSON_INT ? neap_json_put_int(&b, j.i) : neap_json_put_double(&b, j.d)) == 0);
            neap_json_init(&k, b.data, b.len, 0);
            assert(neap_json_next(&k) == t && (t == NEAP_JSON_INT ? k.i == j.i : memcmp(&k.d, &j.d, 8) == 0));
        }
    }
    char why[64]; /* short on purpose */
    if (t == NEAP_JSON_ERROR) neap_json_explain(&j, why, sizeof why, NULL, NULL);
    buf_free(&b);
    return 0;
}
