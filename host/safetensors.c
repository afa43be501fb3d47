/* safetensors.c: the container of safetensors.h and its writer. The reader is safetensors_read.c. */
#include "host/safetensors.h"
#include "host/buf.h"
#include "host/sha256.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int neap_safe_add(neap_safe *s, const char *name, const neap_tensor *t) {
    if (neap_safe_get(s, name) || !strcmp(name, "__metadata__")) return NEAP_ERR_INVALID;
    neap_safe_entry *e = realloc(s->entry, (size_t)(s->entries + 1) * sizeof *e);
    if (!e) return NEAP_ERR_MEMORY;
    s->entry = e;
    e += s->entries;
    e->name = strdup(name);
    if (!e->name) return NEAP_ERR_MEMORY;
    e->tensor = neap_tensor_ref(t);
    s->entries++;
    return 0;
}

int neap_safe_add_meta(neap_safe *s, const char *key, const char *value) {
    if (neap_safe_get_meta(s, key)) return NEAP_ERR_INVALID;
    neap_safe_meta *m = realloc(s->meta, (size_t)(s->metas + 1) * sizeof *m);
    if (!m) return NEAP_ERR_MEMORY;
    s->meta = m;
    m += s->metas;
    m->key = strdup(key);
    m->value = strdup(value);
    if (!m->key || !m->value) {
        free(m->key), free(m->value);
        return NEAP_ERR_MEMORY;
    }
    s->metas++;
    return 0;
}

const neap_tensor *neap_safe_get(const neap_safe *s, const char *name) {
    for (int i = 0; i < s->entries; i++)
        if (!strcmp(s->entry[i].name, name)) return &s->entry[i].tensor;
    return NULL;
}

const char *neap_safe_get_meta(const neap_safe *s, const char *key) {
    for (int i = 0; i < s->metas; i++)
        if (!strcmp(s->meta[i].key, key)) return s->meta[i].value;
    return NULL;
}

void neap_safe_free(neap_safe *s) {
    for (int i = 0; i < s->entries; i++) {
        free(s->entry[i].name);
        neap_tensor_unref(&s->entry[i].tensor);
    }
    for (int i = 0; i < s->metas; i++) free(s->meta[i].key), free(s->meta[i].value);
    free(s->entry), free(s->meta);
    memset(s, 0, sizeof *s);
}

/* ---- writing ---- */

static int put_string(neap_buf *b, const char *s) {
    int rc = buf_putc(b, '"');
    for (; *s && !rc; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') rc = buf_printf(b, "\\%c", c);
        else if (c < 0x20 || c == 0x7F) rc = buf_printf(b, "\\u%04x", c);
        else rc = buf_putc(b, (char)c);
    }
    return rc ? rc : buf_putc(b, '"');
}

/* Larger element types first, as the format's own writer does: data stays aligned without holes. */
static int by_size(const neap_safe *s, int *order) {
    int n = 0;
    for (int size = 8; size; size /= 2)
        for (int i = 0; i < s->entries; i++)
            if ((int)neap_dtype_size(s->entry[i].tensor.dtype) == size) order[n++] = i;
    return n;
}

#define ZERO_SUM "0000000000000000000000000000000000000000000000000000000000000000"

/* The header with a checksum of zeros; *sum_at is where the digits stand. */
static int build_header(const neap_safe *s, const int *order, neap_buf *b, size_t *sum_at) {
    static const char *const names[NEAP_DTYPES] = {"U8", "I64", "F32", "F64"};
    uint64_t at = 0;
    int rc = buf_puts(b, "{\"__metadata__\":{\"neap.sha256\":\"");
    *sum_at = b->len;
    if (!rc) rc = buf_puts(b, ZERO_SUM "\"");
    for (int i = 0; i < s->metas && !rc; i++) {
        if (!strcmp(s->meta[i].key, "neap.sha256")) continue;
        rc = buf_putc(b, ',');
        if (!rc) rc = put_string(b, s->meta[i].key);
        if (!rc) rc = buf_putc(b, ':');
        if (!rc) rc = put_string(b, s->meta[i].value);
    }
    if (!rc) rc = buf_putc(b, '}');
    for (int i = 0; i < s->entries && !rc; i++) {
        const neap_safe_entry *e = &s->entry[order[i]];
        uint64_t bytes = (uint64_t)neap_tensor_count(&e->tensor) * neap_dtype_size(e->tensor.dtype);
        rc = buf_putc(b, ',');
        if (!rc) rc = put_string(b, e->name);
        if (!rc) rc = buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", names[e->tensor.dtype]);
        for (int d = 0; d < e->tensor.dims && !rc; d++) rc = buf_printf(b, "%s%lld", d ? "," : "", (long long)e->tensor.shape[d]);
        if (!rc) rc = buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + bytes));
        at += bytes;
    }
    if (!rc) rc = buf_putc(b, '}');
    while (!rc && b->len % 8) rc = buf_putc(b, ' ');
    return rc;
}

static int build_file(const neap_safe *s, neap_buf *file) {
    neap_buf head = {0};
    size_t sum_at = 0;
    int *order = malloc(sizeof *order * (size_t)(s->entries + 1));
    int rc = order ? 0 : NEAP_ERR_MEMORY;
    if (!rc) by_size(s, order), rc = build_header(s, order, &head, &sum_at);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)head.len >> (8 * i));
    if (!rc) rc = buf_add(file, length, 8);
    if (!rc) rc = buf_add(file, head.data, head.len);
    for (int i = 0; i < s->entries && !rc; i++) {
        neap_tensor flat;
        rc = neap_tensor_contiguous(&flat, &s->entry[order[i]].tensor);
        if (rc) break;
        rc = buf_add(file, neap_tensor_data(&flat), (size_t)neap_tensor_count(&flat) * neap_dtype_size(flat.dtype));
        neap_tensor_unref(&flat);
    }
    if (!rc) {
        neap_sha256 sum;
        char hex[65];
        neap_sha256_init(&sum);
        neap_sha256_add(&sum, file->data, file->len);
        neap_sha256_hex(&sum, hex);
        memcpy(file->data + 8 + sum_at, hex, 64);
    }
    free(order);
    buf_free(&head);
    return rc;
}

static int write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return NEAP_ERR_IO;
        p += w, n -= (size_t)w;
    }
    return 0;
}

static int sync_directory_of(const char *path) {
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (!dir) return NEAP_ERR_MEMORY;
    if (slash) slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = fd < 0 || fsync(fd) ? NEAP_ERR_IO : 0;
    if (rc && errno == EINVAL) rc = 0; /* a file system without directory sync */
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

int neap_safe_write(neap_safe *s, const char *path) {
    neap_buf file = {0}, temp = {0};
    int fd = -1, rc = build_file(s, &file);
    if (!rc) rc = buf_printf(&temp, "%s.XXXXXX", path);
    if (!rc && (fd = mkostemp(temp.data, O_CLOEXEC)) < 0) rc = NEAP_ERR_IO;
    if (fd >= 0) {
        rc = write_all(fd, file.data, file.len);
        if (!rc && (fchmod(fd, 0644) || fsync(fd))) rc = NEAP_ERR_IO;
        int saved = errno;
        if (close(fd) && !rc) rc = NEAP_ERR_IO, saved = errno;
        if (!rc && rename(temp.data, path)) rc = NEAP_ERR_IO, saved = errno;
        if (rc) unlink(temp.data);
        errno = saved;
        if (!rc) rc = sync_directory_of(path);
    }
    int saved = errno;
    buf_free(&file);
    buf_free(&temp);
    errno = saved;
    return rc;
}
