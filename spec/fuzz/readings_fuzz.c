/* readings_fuzz.c: libFuzzer target for every ingest decoder; the first byte picks it. What is accepted must be sound: finite values,
   names within bounds, slices that point into the body or the arena, counts that add up. */
#include "host/err.h"
#include "host/inflate.h"
#include "host/readings.h"
#include <assert.h>
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const neap_readings *b) {
    for (size_t i = 0; i < b->count; i++) {
        const neap_reading *r = &b->at[i];
        assert(isfinite(r->value) && !neap_readings_bad_name(r->name, r->name_len) && r->item >= 1);
        neap_num v;
        if (r->raw) assert(neap_num_scan(r->raw, r->raw + r->raw_len, false, &v) == r->raw + r->raw_len && v.d == r->value);
    }
    assert(b->refused_kept <= b->refused_count);
    for (size_t i = 0; i < b->refused_kept; i++) {
        assert(b->refused[i].reason && *b->refused[i].reason);
        for (size_t k = 0; k < b->refused[i].name_len; k++) (void)*(volatile const char *)&b->refused[i].name[k];
    }
}

static void unpack(const uint8_t *data, size_t size, const char *encoding) {
    int err;
    neap_buf out = {0};
    neap_inflate *z = neap_inflate_new(encoding, 1 << 20, &err);
    size_t half = size / 2;
    if (!(err = neap_inflate_feed(z, data, half, &out)) && !(err = neap_inflate_feed(z, data + half, size - half, &out))) err = neap_inflate_end(z);
    assert(out.len <= (1 << 20) + 65536);
    neap_inflate_free(z);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int (*const decoders[])(neap_readings *, const char *, size_t, const neap_decode_opts *) = {
        neap_readings_json, neap_readings_ndjson, neap_readings_lines, neap_readings_collectd, neap_readings_putval};
    if (!size) return 0;
    unsigned pick = data[0] % 16;
    data++, size--;
    if (pick >= 14) {
        unpack(data, size, pick == 14 ? "gzip" : "deflate");
        return 0;
    }
    neap_decode_opts o = {.unit_ns = pick % 3 ? 1000000 : 0};
    if (pick >= 7) o.prefix = "p/", o.prefix_len = 2;
    char *body = malloc(size ? size : 1); /* exactly as long as the body, so that every read past it is seen */
    memcpy(body, data, size);
    neap_readings b;
    neap_readings_init(&b);
    int err = decoders[pick % 5](&b, body, size, &o);
    assert(err == 0 || (err == NEAP_ERR_INVALID && b.error[0] && b.count == 0));
    check(&b);
    neap_readings_free(&b);
    free(body);
    return 0;
}
