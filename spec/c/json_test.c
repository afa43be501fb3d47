/* json_test.c: the pull parser's tokens, its errors, and number conversion against the C library. */
#include "host/json.h"
#include "host/num.h"
#include "spec/c/test.h"
#include <locale.h>
#include <math.h>

/* The tokens of s as one letter each: nbifskaAoO, '.' at the end, '!' on error. */
static const char *shape(const char *s) {
    static char out[256];
    size_t n = 0;
    neap_json j;
    neap_json_init(&j, s, strlen(s), 8);
    for (;;) {
        neap_json_token t = neap_json_next(&j);
        out[n++] = t == NEAP_JSON_ERROR ? '!' : ".nbifskaAoO"[t];
        out[n] = 0;
        if (t == NEAP_JSON_ERROR || t == NEAP_JSON_END) return out;
    }
}

static void test_tokens(void) {
    CHECK(!strcmp(shape("{\"a\":[1,2.5,\"x\",null,true,{}],\"b\":-0}"), "okaifsnboOAkfO."), "%s", shape("{}"));
    CHECK(!strcmp(shape("[]"), "aA."));
    CHECK(!strcmp(shape(" 1 "), "i."));
    CHECK(!strcmp(shape("\xEF\xBB\xBF[1]"), "aiA."));
    CHECK(!strcmp(shape("[1}"), "ai!"));
    CHECK(!strcmp(shape("{\"a\"}"), "o!"));
    CHECK(!strcmp(shape("[[[[[[[[1]]]]]]]]"), "aaaaaaaaiAAAAAAAA."));
    CHECK(!strcmp(shape("[[[[[[[[[1]]]]]]]]]"), "aaaaaaaa!"));
    neap_json j;
    neap_json_init(&j, "[{\"a\":[1,{}]},7]", 16, 0);
    neap_json_next(&j);
    CHECK(neap_json_skip(&j, neap_json_next(&j)) == 0);
    CHECK(neap_json_next(&j) == NEAP_JSON_INT && j.i == 7 && j.d == 7.0);
}

static void test_strings(void) {
    neap_json j;
    char out[64];
    const char *s = "\"a\\u00e9\\ud83d\\ude00\\n\"";
    neap_json_init(&j, s, strlen(s), 0);
    CHECK(neap_json_next(&j) == NEAP_JSON_STRING && j.escaped);
    size_t n = neap_json_unescape(j.text, j.len, out);
    CHECK(n == 8 && !memcmp(out, "a\xC3\xA9\xF0\x9F\x98\x80\n", 8));
    CHECK(neap_json_utf8("a\xC3\xA9z\xFF", 5) == 4);
    CHECK(neap_json_utf8("\xED\xA0\x80", 3) == 0 && neap_json_utf8("\xF4\x90\x80\x80", 4) == 0 && neap_json_utf8("\xE0\x9F\x80", 3) == 0);
    neap_buf b = {0};
    CHECK(neap_json_put_string(&b, "a\"\n\x01\xFF", 5, true) == 0 && !strcmp(b.data, "\"a\\\"\\n\\u0001\xEF\xBF\xBD\""));
    buf_clear(&b);
    CHECK(neap_json_put_string(&b, "\xFF", 1, false) == NEAP_ERR_INVALID);
    CHECK(neap_json_put_double(&b, NAN) == NEAP_ERR_INVALID && neap_json_put_double(&b, INFINITY) == NEAP_ERR_INVALID);
    buf_free(&b);
}

/* Eight bytes are looked at at once: each ASCII byte at each place of strings of each length around that, written, read back, and read raw. */
static void test_every_place(void) {
    int wrong = 0;
    neap_buf b = {0};
    for (size_t len = 1; len <= 20; len++)
        for (size_t at = 0; at < len; at++)
            for (int c = 0; c < 128; c++) {
                char text[24], raw[24], back[24];
                neap_json j;
                memset(text, 'x', len);
                text[at] = (char)c;
                buf_clear(&b);
                wrong += neap_json_put_string(&b, text, len, false) != 0 || strlen(b.data) != b.len;
                neap_json_init(&j, b.data, b.len, 0);
                wrong += neap_json_next(&j) != NEAP_JSON_STRING || neap_json_unescape(j.text, j.len, back) != len || memcmp(back, text, len) != 0;
                wrong += j.escaped != (c < 0x20 || c == 0x7f || c == '"' || c == '\\');
                raw[0] = raw[len + 1] = '"';
                memcpy(raw + 1, text, len);
                neap_json_init(&j, raw, len + 2, 0);
                int good = neap_json_next(&j) == NEAP_JSON_STRING && j.len == (c == '"' ? at : len);
                wrong += good != (c >= 0x20 && c != '\\');
            }
    CHECK(wrong == 0, "%d", wrong);
    buf_free(&b);
}

static void test_numbers(void) {
    uint64_t seed = 88172645463325252ull;
    int wrong = 0;
    for (int i = 0; i < 200000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char text[64];
        double d, back;
        neap_num v;
        if (i & 1) { /* what sensors send: few digits */
            d = (double)(int64_t)(seed % 2000001) / 1000.0 - 1000;
        } else {
            memcpy(&d, &seed, 8);
            if (!isfinite(d)) continue;
        }
        size_t n = neap_num_format(d, i & 2, text);
        const char *e = neap_num_scan(text, text + n, false, &v);
        back = v.is_int ? (double)v.i : v.d;
        wrong += e != text + n || memcmp(&back, &d, 8) != 0 || strtod(text, NULL) != d;
        n = (size_t)snprintf(text, sizeof text, "%.*e", (int)(seed % 25), d); /* more digits than a double has */
        e = neap_num_scan(text, text + n, false, &v);
        back = strtod(text, NULL);
        wrong += e != text + n || memcmp(&v.d, &back, 8) != 0;
    }
    CHECK(wrong == 0, "%d of 200000", wrong);
    neap_num v;
    static const char *const bad[] = {"", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "-.5", "NaN", "inf"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *end = bad[i] + strlen(bad[i]), *e = neap_num_scan(bad[i], end, false, &v);
        CHECK(e != end, "%s", bad[i]);
    }
    CHECK(neap_num_text(" +21.50\r\n", 9, &v) && v.d == 21.5);
    CHECK(neap_num_text(".5", 2, &v) && v.d == 0.5 && neap_num_text("5.", 2, &v) && v.d == 5 && neap_num_text("007", 3, &v) && v.i == 7);
    CHECK(!neap_num_text("nan", 3, &v) && !neap_num_text("", 0, &v) && !neap_num_text("1 2", 3, &v) && !neap_num_text("+-1", 3, &v) &&
          !neap_num_text("0x1", 3, &v) && !neap_num_text(".", 1, &v));
    const char *max = "9223372036854775807", *min = "-9223372036854775808", *over = "9223372036854775808";
    CHECK(neap_num_scan(max, max + 19, false, &v) && v.is_int && v.i == INT64_MAX);
    CHECK(neap_num_scan(min, min + 20, false, &v) && v.is_int && v.i == INT64_MIN);
    CHECK(neap_num_scan(over, over + 19, false, &v) && !v.is_int && v.d == 9223372036854775808.0);
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") || setlocale(LC_NUMERIC, "C.UTF-8")) { /* a decimal comma must change nothing */
        char text[NEAP_NUM_TEXT];
        neap_num_format(1.0 / 3, true, text);
        CHECK(!strcmp(text, "0.3333333333333333"), "%s", text);
    }
    setlocale(LC_NUMERIC, "C");
}

static void test_errors(void) {
    neap_json j;
    char why[200];
    unsigned line, col;
    neap_json_init(&j, "[1,\n\"\xC3\xBC\" 2]", 11, 0);
    while (neap_json_next(&j) != NEAP_JSON_ERROR) {}
    neap_json_explain(&j, why, sizeof why, &line, &col);
    CHECK(line == 2 && col == 5 && strstr(why, "expected ',' or ']', found '2'"), "%s", why);
    CHECK(neap_json_next(&j) == NEAP_JSON_ERROR); /* stays failed */
}

int main(void) {
    test_tokens();
    test_strings();
    test_every_place();
    test_numbers();
    test_errors();
    return test_end("json");
}
