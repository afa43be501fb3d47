/* readings_test.c: the decoders on samples, on every prefix of them, and on 60,000 mutations (the fuzz target's own checks). */
#include "spec/fuzz/readings_fuzz.c"
#include "host/lineproto.h"
#include "spec/c/test.h"
#include <string.h>

static const struct {
    int (*decode)(neap_readings *, const char *, size_t, const neap_decode_opts *);
    const char *pick, *text;
    size_t count, refused;
} samples[] = {
    {neap_readings_json, "\x05",
     "[{\"sensor_name\":\"t\",\"sensor_output\":\"21.5\",\"ts\":\"2023-11-14T22:13:20Z\"},{\"values\":{\"a\":1},\"ts\":1},3]", 2, 1},
    {neap_readings_json, "\x05", "{\"\\u0061\":1,\"b\":{\"c\":2e0},\"d\":\"nan\",\"e\":[{}]}", 2, 2},
    {neap_readings_ndjson, "\x01", "{\"t\":1}\n\n{\"t\":}\n{\"sensordatavalues\":[{\"value_type\":\"P1\",\"value\":\"7\"}]}", 2, 1},
    {neap_readings_lines, "\x02", "w,r=b,c=a value=21.5,hum=40i,on=t,s=\"x\ny\" 17\n# note\nm\\ x v=1u,w=-.5e3\nbad\n", 4, 1},
    {neap_readings_collectd, "\x03",
     "[{\"values\":[2.5,null],\"dsnames\":[\"a\",\"value\"],\"time\":1.5,\"host\":\"h\",\"plugin\":\"p\",\"type\":\"t\"},{}]", 1, 1},
    {neap_readings_putval, "\x04", "PUTVAL \"h/a b/c\" interval=1 1700000000.5:2.48:U:1 N:7\nNOTHING\n", 3, 1},
};
enum { SAMPLES = sizeof samples / sizeof *samples };

/* A batch's sensors are found whatever their order, and whichever place the one before had. */
static void test_places(void) {
    static const char *const names[] = {"s1", "s10", "s", "s2"};
    neap_sensors *t = neap_sensors_new();
    CHECK(neap_sensors_find_after(t, 0, "s1", 2) == 0, "of none");
    for (uint32_t i = 0; i < 4; i++) CHECK(neap_sensors_add(t, names[i], strlen(names[i]), -1, 1) == i + 1);
    for (uint32_t before = 0; before <= 4; before++) {
        for (uint32_t i = 0; i < 4; i++)
            CHECK(neap_sensors_find_after(t, before, names[i], strlen(names[i])) == i + 1, "%s after %u", names[i], before);
        CHECK(neap_sensors_find_after(t, before, "s11", 3) == 0 && neap_sensors_find_after(t, before, "", 0) == 0);
    }
    size_t n;
    CHECK(strcmp(neap_sensors_name(t, 2, &n), "s10") == 0 && n == 3);
    neap_sensors_free(t);
}

/* Whole numbers around 8, 16 and 19 digits and the limits, and names around eight bytes: what is read eight bytes at a time. */
static void test_whole_numbers(void) {
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } times[] = {{"1", true, 1},
                 {"12345678", true, 12345678},
                 {"123456789", true, 123456789},
                 {"-1234567890123456", true, -1234567890123456},
                 {"12345678901234567", true, 12345678901234567},
                 {"0000000000000000000000000017", true, 17},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"-9223372036854775809", false, 0},
                 {"18446744073709551616", false, 0},
                 {"1234567/", false, 0},
                 {"12345678:", false, 0},
                 {"1234567-12345678", false, 0},
                 {"99999999999999999999999999999999", false, 0}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[80];
        neap_lp l;
        neap_lp_init(&l, text, (size_t)snprintf(text, sizeof text, "w v=1 %s\n", times[i].text), 1);
        int got = neap_lp_next(&l);
        CHECK(got == (times[i].good ? 1 : NEAP_ERR_INVALID) && (got != 1 || l.time_ns == times[i].value), "%s: %d", times[i].text, got);
        neap_lp_free(&l);
        neap_lp_init(&l, text, (size_t)snprintf(text, sizeof text, "w v=%si\n", times[i].text), 1);
        got = neap_lp_next(&l);
        CHECK(got == (times[i].good ? 1 : NEAP_ERR_INVALID) && (got != 1 || l.fields[0].i == times[i].value), "%si: %d", times[i].text, got);
        neap_lp_free(&l);
    }
    for (int n = 1; n < 30; n++) {
        char text[80];
        neap_lp l;
        int len = snprintf(text, sizeof text, "%.*s,%.*s=\\,%.*s v=1\n", n, "abcdefghijklmnopqrstuvwxyz0123", n, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_./-",
                           n % 9, "~!@#$%^&");
        neap_lp_init(&l, text, (size_t)len, 1);
        CHECK(neap_lp_next(&l) == 1 && l.measurement.n == (uint32_t)n && l.tag_count == 1 && l.tags[0].key.n == (uint32_t)n &&
                  l.tags[0].value.n == (uint32_t)(n % 9) + 2 && l.tags[0].value.escaped,
              "%s", text);
        neap_lp_free(&l);
    }
}

/* Texts that the loose grammar takes: neap_num_strict knows which of them the strict one takes too. */
static void test_strict_numbers(void) {
    static const char letters[] = "0012.-+eE";
    uint64_t seed = 20240229;
    int loose = 0, strict = 0;
    for (int i = 0; i < 200000; i++) {
        char text[12];
        size_t n = 1 + i % 8;
        for (size_t k = 0; k < n; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[k] = letters[(seed >> 40) % (sizeof letters - 1)];
        }
        neap_num v;
        if (neap_num_scan(text, text + n, true, &v) != text + n) continue;
        bool want = neap_num_scan(text, text + n, false, &v) == text + n;
        loose++;
        strict += want;
        if (neap_num_strict(text, n) != want) CHECK(false, "%.*s", (int)n, text);
    }
    CHECK(strict > 1000 && loose - strict > 1000, "%d of %d", strict, loose);
}

int main(void) {
    uint64_t seed = 88172645463325252ull;
    for (int i = 0; i < SAMPLES; i++) {
        const char *text = samples[i].text;
        size_t n = strlen(text);
        neap_readings b;
        neap_readings_init(&b);
        int err = samples[i].decode(&b, text, n, NULL);
        CHECK(err == 0 && b.count == samples[i].count && b.refused_count == samples[i].refused, "sample %d: %d, %zu readings, %zu refused %s", i, err,
              b.count, b.refused_count, b.error);
        neap_readings_free(&b);
        uint8_t buf[512];
        memcpy(buf, samples[i].pick, 1);
        memcpy(buf + 1, text, n);
        for (size_t cut = 0; cut <= n; cut++) LLVMFuzzerTestOneInput(buf, cut + 1);
        for (int k = 0; k < 10000; k++) {
            memcpy(buf + 1, text, n);
            for (int m = 0; m < 3; m++) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                buf[1 + (seed >> 8) % n] = seed & 1 ? (uint8_t)(seed >> 40) : (uint8_t)text[(seed >> 40) % n];
            }
            LLVMFuzzerTestOneInput(buf, n + 1);
        }
    }
    test_places();
    test_whole_numbers();
    test_strict_numbers();
    neap_readings b; /* more than fit in place, and more refusals than are kept */
    neap_readings_init(&b);
    for (uint32_t i = 1; i <= 3000; i++) {
        neap_readings_add(&b, "s", 1, i, i);
        neap_readings_refuse(&b, i, NULL, 0, "no");
    }
    CHECK(b.count == 3000 && b.at[2999].value == 3000 && b.refused_count == 3000 && b.refused_kept == NEAP_REFUSALS_KEPT && !b.memory);
    neap_readings_drop(&b, 7, "late");
    neap_readings_drop(&b, 7, "late");
    CHECK(b.dropped == 1 && b.refused_count == 3001);
    neap_readings_free(&b);
    return test_end("readings");
}
