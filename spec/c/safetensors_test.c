/* safetensors_test.c: files come back as they went, and no damaged file gets through: every truncation and every single flipped bit of a checkpoint
   is refused with a sentence, never a crash (run under the sanitizers too). */
#include "host/safetensors.h"
#include "host/mlp.h"
#include "host/sha256.h"
#include "spec/c/test.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/neap-safe-XXXXXX";
static char path[64];

static unsigned char *slurp(size_t *n) {
    FILE *f = fopen(path, "rb");
    unsigned char *p = malloc(1 << 20);
    *n = f ? fread(p, 1, 1 << 20, f) : 0;
    if (f) fclose(f);
    return p;
}

static void sha256_knows_its_vectors(void) {
    static const char *const want[] = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                       "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"};
    static const char *const text[] = {"", "abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"};
    for (int i = 0; i < 3; i++)
        for (size_t cut = 0; cut <= strlen(text[i]); cut++) {
            neap_sha256 s;
            char hex[65];
            neap_sha256_init(&s);
            neap_sha256_add(&s, text[i], cut);
            neap_sha256_add(&s, text[i] + cut, strlen(text[i]) - cut);
            neap_sha256_hex(&s, hex);
            CHECK(!strcmp(hex, want[i]));
        }
}

static void tensors_come_back(void) {
    neap_safe s = {0}, r = {0};
    neap_tensor a, b, t, e, z;
    CHECK(!neap_tensor_new(&a, NEAP_F32, 2, (int64_t[]){3, 5}) && !neap_tensor_new(&b, NEAP_U8, 1, (int64_t[]){3}));
    CHECK(!neap_tensor_new(&e, NEAP_I64, 2, (int64_t[]){0, 4}) && !neap_tensor_new(&z, NEAP_F64, 0, NULL));
    for (int i = 0; i < 15; i++) neap_tensor_put(&a, i, i * 0.5);
    for (int i = 0; i < 3; i++) neap_tensor_put(&b, i, 200 + i);
    neap_tensor_put(&z, 0, 1.0 / 3);
    CHECK(!neap_tensor_transpose(&t, &a, 0, 1)); /* strided */
    CHECK(!neap_safe_add(&s, "b", &b) && !neap_safe_add(&s, "t\"\\\n\xC3\xBC", &t) && !neap_safe_add(&s, "empty", &e) && !neap_safe_add(&s, "z", &z));
    CHECK(neap_safe_add(&s, "b", &b) == NEAP_ERR_INVALID);
    CHECK(!neap_safe_add_meta(&s, "note", "line 1\nline 2 \x01 \xE2\x82\xAC"));
    CHECK(neap_safe_write(&s, path) == 0);
    CHECK(neap_safe_read(&r, path) == 0, "%s", r.error);
    CHECK(r.checked && r.entries == 4 && !strcmp(neap_safe_get_meta(&r, "note"), "line 1\nline 2 \x01 \xE2\x82\xAC"));
    const neap_tensor *got = neap_safe_get(&r, "t\"\\\n\xC3\xBC");
    CHECK(got && got->dims == 2 && got->shape[0] == 5 && got->shape[1] == 3);
    for (int i = 0; got && i < 15; i++) CHECK(neap_tensor_get(got, i) == (i % 3 * 5 + i / 3) * 0.5);
    CHECK(neap_tensor_get(neap_safe_get(&r, "z"), 0) == 1.0 / 3 && neap_tensor_get(neap_safe_get(&r, "b"), 2) == 202);
    CHECK(neap_safe_get(&r, "empty")->shape[1] == 4 && !neap_safe_get(&r, "none"));
    neap_tensor_unref(&a), neap_tensor_unref(&b), neap_tensor_unref(&t), neap_tensor_unref(&e), neap_tensor_unref(&z);
    neap_safe_free(&s), neap_safe_free(&r);
}

static int loads(const unsigned char *data, size_t n) {
    neap_safe s = {0};
    neap_mlp *m = NULL;
    int rc = neap_safe_parse(&s, data, n);
    if (!rc) rc = neap_mlp_from_safe(&m, &s);
    CHECK(rc == 0 || s.error[0], "no sentence for %d", rc);
    neap_mlp_unref(m);
    neap_safe_free(&s);
    return rc;
}

static void damage_is_refused(void) {
    neap_mlp *m, *back;
    neap_safe s = {0}, r = {0};
    char before[65], after[65];
    CHECK(!neap_mlp_new(&m, (int[]){5, 9, 2}, 2, NEAP_ACT_GELU, 0.01f, 77));
    double loss;
    float x[5] = {1, 2, 3, 4, 5}, y[2] = {1, -1};
    for (int i = 0; i < 3; i++) CHECK(!neap_mlp_step(m, &m->hyper, x, 5, y, 1, &loss));
    CHECK(!neap_safe_add_meta(&s, "sensor", "temp") && !neap_mlp_to_safe(m, &s, 1) && !neap_safe_write(&s, path));
    CHECK(!neap_safe_read(&r, path) && !neap_mlp_from_safe(&back, &r), "%s", r.error);
    neap_mlp_hash(m, before), neap_mlp_hash(back, after);
    CHECK(!strcmp(before, after) && back->state.t == 3 && back->act == NEAP_ACT_GELU && back->seed == 77);
    CHECK(!neap_mlp_step(m, &m->hyper, x, 5, y, 1, &loss) && !neap_mlp_step(back, &m->hyper, x, 5, y, 1, &loss));
    neap_mlp_hash(m, before), neap_mlp_hash(back, after);
    CHECK(!strcmp(before, after), "with its optimiser a loaded model goes on exactly");

    size_t n;
    unsigned char *data = slurp(&n);
    CHECK(loads(data, n) == 0);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *copy = malloc(cut + 1); /* a block of its own, so that ASan sees a read past it */
        memcpy(copy, data, cut);
        if (!loads(copy, cut)) CHECK(0, "cut at %zu got through", cut);
        free(copy);
    }
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            data[at] ^= (unsigned char)(1 << bit);
            if (!loads(data, n)) CHECK(0, "byte %zu bit %d got through", at, bit);
            data[at] ^= (unsigned char)(1 << bit);
        }
    CHECK(loads(data, n) == 0);
    uint64_t seed = 1;
    for (int round = 0; round < 3000; round++) { /* several bytes at once, in the header mostly */
        unsigned char *copy = malloc(n);
        memcpy(copy, data, n);
        for (int k = 0; k < 4; k++)
            copy[neap_random_bits(seed, 1, (uint64_t)(round * 8 + k)) % (round % 2 ? n : 400)] =
                "{}[]\":,0189\\u\xFF\x80"[neap_random_bits(seed, 2, (uint64_t)(round * 8 + k)) % 16];
        if (memcmp(copy, data, n) && !loads(copy, n)) CHECK(0, "round %d got through", round);
        free(copy);
    }
    free(data);
    neap_mlp_unref(m), neap_mlp_unref(back);
    neap_safe_free(&s), neap_safe_free(&r);
}

/* Files that others write: no checksum, other order, spaces; and lies in the header. */
static int parse_text(const char *header, size_t data_bytes) {
    size_t h = strlen(header);
    unsigned char *file = calloc(1, 8 + h + data_bytes);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(h >> (8 * i));
    memcpy(file + 8, header, h);
    neap_safe s = {0};
    int rc = neap_safe_parse(&s, file, 8 + h + data_bytes);
    CHECK(rc == 0 || s.error[0]);
    neap_safe_free(&s);
    free(file);
    return rc;
}

static void foreign_files(void) {
    CHECK(parse_text(" {}", 0) == NEAP_ERR_CORRUPT);
    CHECK(parse_text("{}", 0) == 0);
    CHECK(parse_text("{\"a\" : {\"shape\":[2, 1],\"dtype\":\"F32\" , \"data_offsets\":[0,8]}}   ", 8) == 0);
    CHECK(parse_text("{\"a\":{\"shape\":[2],\"dtype\":\"BF16\",\"data_offsets\":[0,4]}}", 4) == NEAP_ERR_UNSUPPORTED);
    static const char *const lies[] = {
        "{\"a\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[0,9]}}",
        "{\"a\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[8,0]}}",
        "{\"a\":{\"shape\":[-2],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"a\":{\"shape\":[3],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"a\":{\"shape\":[4503599627370497,4503599627370497],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"a\":{\"shape\":[1],\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
        "{\"a\":{\"shape\":[1],\"dtype\":\"F32\",\"data_offsets\":[4,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"a\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[0,8]},}",
        "{\"a\":3}",
        "[1]",
        "{",
        "{\"a\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[0,8]},\"a\":{\"shape\":[0],\"dtype\":\"F32\",\"data_offsets\":[8,8]}}",
        "{\"\xFF\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"\\ud800\":{\"shape\":[2],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}",
        "{\"__metadata__\":{\"a\":1}}",
        "{\"a\":{\"shape\":[1e1],\"dtype\":\"F32\",\"data_offsets\":[0,8]}}"};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) CHECK(parse_text(lies[i], 8) == NEAP_ERR_CORRUPT, "%s", lies[i]);
}

static void a_failed_write_leaves_the_old_file(void) {
    neap_safe s = {0};
    size_t n, after;
    unsigned char *old = slurp(&n);
    CHECK(neap_safe_write(&s, "/nonexistent/x.safetensors") == NEAP_ERR_IO);
    char wrong[96];
    snprintf(wrong, sizeof wrong, "%s/sub", dir);
    CHECK(mkdir(wrong, 0755) == 0 && neap_safe_write(&s, wrong) == NEAP_ERR_IO); /* a directory in the way */
    rmdir(wrong);
    unsigned char *now = slurp(&after);
    CHECK(n == after && !memcmp(old, now, n));
    free(old), free(now);
    neap_safe r = {0};
    CHECK(neap_safe_read(&r, dir) == NEAP_ERR_CORRUPT && neap_safe_read(&r, "/nonexistent") == NEAP_ERR_IO);
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    sha256_knows_its_vectors();
    tensors_come_back();
    damage_is_refused();
    foreign_files();
    a_failed_write_leaves_the_old_file();
    unlink(path);
    CHECK(rmdir(dir) == 0, "temporary files were left");
    return test_end("safetensors");
}
