/* record.c: see record.h. Little-endian, packed: head {version, source, key length, count, arrival}, key, runs {name length, count, name,
   readings {time, text length, text}}. Version 1 had no arrival. */
#include "host/record.h"
#include "host/err.h"

enum { VERSION = 2, HEAD = 16, OLD_HEAD = 8, RUN_HEAD = 4, RUN_MAX = 65535 };

int neap_record_begin(neap_record_writer *w, neap_buf *out, const neap_record_opts *o) {
    size_t key_len = o && o->key ? o->key_len : 0;
    *w = (neap_record_writer){.out = out, .start = out->len};
    if (key_len > NEAP_RECORD_KEY_MAX) return NEAP_ERR_INVALID;
    char head[HEAD] = {VERSION, (char)(o ? o->source : NEAP_REAL)};
    uint16_t k = (uint16_t)key_len;
    memcpy(head + 2, &k, 2);
    if (o) memcpy(head + 8, &o->arrival_us, 8);
    return buf_add(out, head, HEAD) || (key_len && buf_add(out, o->key, key_len)) ? NEAP_ERR_MEMORY : 0;
}

static void put_run_count(neap_record_writer *w, uint16_t n) { memcpy(w->out->data + w->run + 2, &n, 2); }

int neap_record_add(neap_record_writer *w, const char *name, size_t n, int64_t time_us, const char *text, size_t text_len) {
    uint16_t count = 0, len = (uint16_t)n;
    if (n == 0 || n > NEAP_NAME_MAX || text_len == 0 || text_len > 64) return NEAP_ERR_INVALID;
    if (w->run) memcpy(&count, w->out->data + w->run + 2, 2);
    if (buf_reserve(w->out, RUN_HEAD + n + 9 + text_len)) return NEAP_ERR_MEMORY; /* nothing below fails */
    if (!w->run || count == RUN_MAX || n != w->name_len || memcmp(name, w->out->data + w->run + RUN_HEAD, n) != 0) {
        w->run = w->out->len;
        buf_add(w->out, &len, 2);
        count = 0;
        buf_add(w->out, &count, 2);
        buf_add(w->out, name, n);
    }
    w->name_len = n;
    put_run_count(w, (uint16_t)(count + 1));
    char *p = w->out->data + w->out->len;
    memcpy(p, &time_us, 8);
    p[8] = (char)text_len;
    memcpy(p + 9, text, text_len);
    w->out->len += 9 + text_len;
    w->out->data[w->out->len] = 0;
    w->count++;
    return 0;
}

void neap_record_end(neap_record_writer *w) {
    uint32_t n = (uint32_t)w->count;
    if (n) {
        memcpy(w->out->data + w->start + 4, &n, 4);
    } else { /* an empty record is none */
        w->out->len = w->start;
    }
}

long neap_record_write(neap_buf *out, const neap_readings *b, const neap_record_opts *o, int64_t stamp_us) {
    neap_record_writer w;
    int err = neap_record_begin(&w, out, o);
    for (size_t i = 0; !err && i < b->count; i++) {
        const neap_reading *r = &b->at[i];
        if (r->flags & NEAP_READING_REFUSED) continue;
        char number[NEAP_NUM_TEXT];
        bool as_written = r->raw && r->raw_len < NEAP_NUM_TEXT;
        size_t n = as_written ? r->raw_len : neap_num_format(r->value, false, number);
        err = neap_record_add(&w, r->name, r->name_len, r->time_us == NEAP_NO_TIME ? stamp_us++ : r->time_us, as_written ? r->raw : number, n);
    }
    if (err) {
        out->len = w.start;
        return err;
    }
    neap_record_end(&w);
    return w.count;
}

int neap_record_open(neap_record *r, const char *data, size_t n) {
    uint16_t key_len;
    *r = (neap_record){0};
    if (n < OLD_HEAD || data[0] < 1 || data[0] > VERSION || data[1] < 0 || data[1] >= NEAP_SOURCES) return NEAP_ERR_CORRUPT;
    size_t head = data[0] == 1 ? OLD_HEAD : HEAD;
    if (n < head) return NEAP_ERR_CORRUPT;
    if (head == HEAD) memcpy(&r->arrival_us, data + 8, 8);
    memcpy(&key_len, data + 2, 2);
    memcpy(&r->count, data + 4, 4);
    if (n < head + (size_t)key_len) return NEAP_ERR_CORRUPT;
    r->source = (enum neap_source)data[1];
    r->key = data + head;
    r->key_len = key_len;
    r->p = data + head + key_len;
    r->end = data + n;
    return 0;
}

bool neap_record_next(neap_record *r) {
    uint16_t n, count;
    if (!r->left) {
        if (r->end - r->p < RUN_HEAD) return false;
        memcpy(&n, r->p, 2);
        memcpy(&count, r->p + 2, 2);
        if (r->end - r->p < RUN_HEAD + n) return false;
        r->name = r->p + RUN_HEAD;
        r->name_len = n;
        r->left = count;
        r->p += RUN_HEAD + n;
    }
    if (!r->left || r->end - r->p < 9 || r->end - r->p < 9 + (unsigned char)r->p[8]) return false;
    memcpy(&r->time_us, r->p, 8);
    r->text_len = (unsigned char)r->p[8];
    r->text = r->p + 9;
    r->p += 9 + r->text_len;
    r->left--;
    return true;
}
