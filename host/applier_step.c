/* applier_step.c: a stretch of the journal as one script call. Batches without an idempotency key are put together, so that readings of a
   sensor share stream entries when there is much to do; a batch with a key is a unit of its own, because it is applied or skipped as one. */
#include "host/applier_priv.h"
#include "host/chunk.h"
#include "host/err.h"
#include <stdlib.h>

bool applier_grow(void **p, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t n = *cap ? *cap : 64;
    while (n < need) n *= 2;
    char *q = realloc(*p, n * size);
    if (!q) return false;
    memset(q + *cap * size, 0, (n - *cap) * size);
    *p = q;
    *cap = n;
    return true;
}

static int arg(step *s, const char *p, size_t n) {
    s->out->n++;
    return neap_resp_str(&s->out->text, p, n);
}

static int arg_int(step *s, int64_t v) {
    char text[NEAP_NUM_TEXT];
    return arg(s, text, neap_num_format_int(v, text));
}

/* Finds or makes the stream of a sensor. Its 1-based place, 0 without memory. The table has sensors' names, with a 0 byte behind that of a
   made-up stream: no sensor's name has one. */
static uint32_t find_stream(neap_applier *a, const neap_record *r) {
    char key[NEAP_NAME_MAX + 1];
    const char *name = r->name;
    size_t n = r->name_len;
    if (r->synthetic) {
        if (n > NEAP_NAME_MAX) return 0;
        memcpy(key, name, n);
        key[n++] = 0;
        name = key;
    }
    uint32_t place = neap_sensors_find(a->names, name, n);
    if (place) return place;
    place = neap_sensors_add(a->names, name, n, 0, 0);
    return place && applier_grow((void **)&a->streams, &a->stream_cap, place, sizeof *a->streams) ? place : 0;
}

/* On a cluster: the sensor's name for the set of sensors, once a generation. Also that of a stream which has everything already: the set lies
   elsewhere, on a node that may not have taken it, or have lost it. */
static int register_part(neap_applier *a, stream *st, const char *name, size_t n) {
    if (st->registered == a->generation) return 0;
    st->registered = a->generation;
    a->step.names.n++;
    return neap_resp_str(&a->step.names.text, name, n);
}

/* end: the position behind its record */
static int add_reading(neap_applier *a, const neap_record *r, uint64_t end) {
    step *s = &a->step;
    uint32_t place = find_stream(a, r);
    if (place && a->cluster && applier_cluster_has(a, &a->streams[place - 1], end))
        return register_part(a, &a->streams[place - 1], r->name, r->name_len);
    if (!place || !applier_grow((void **)&s->items, &s->item_cap, s->item_count + 1, sizeof *s->items)) return NEAP_ERR_MEMORY;
    stream *st = &a->streams[place - 1];
    if (st->seen != s->unit) {
        if (!applier_grow((void **)&s->groups, &s->group_cap, s->group_count + 1, sizeof *s->groups)) return NEAP_ERR_MEMORY;
        st->seen = s->unit;
        st->group = (uint32_t)s->group_count;
        s->groups[s->group_count++] = (group){.place = place, .name = r->name, .name_len = r->name_len};
    }
    group *g = &s->groups[st->group];
    s->items[s->item_count++] = (item){.text = (uint32_t)(r->text - s->raw.data), .text_len = r->text_len & 0xFF, .time_us = r->time_us};
    uint32_t at = (uint32_t)s->item_count;
    if (g->last) s->items[g->last - 1].next = at & 0xFFFFFF;
    else g->first = at;
    g->last = at;
    g->count++;
    s->readings++;
    return 0;
}

/* The place's index in KEYS, where it is put on first sight. 0 without memory. */
static uint32_t key_index(neap_applier *a, const group *g, bool synthetic) {
    step *s = &a->step;
    if (!applier_grow((void **)&s->key_of, &s->key_cap, g->place, sizeof *s->key_of)) return 0;
    uint32_t *k = &s->key_of[g->place - 1];
    if (*k) return *k;
    const char *suffix = synthetic ? a->synthetic_suffix : a->stream_suffix;
    buf_clear(&s->chunk);
    if (buf_puts(&s->chunk, a->stream_prefix) || buf_add(&s->chunk, g->name, g->name_len) || buf_puts(&s->chunk, suffix)) return 0;
    if (!applier_grow((void **)&s->used, &s->used_cap, s->key_used + 1, sizeof *s->used) || neap_resp_str(&s->keys, s->chunk.data, s->chunk.len))
        return 0;
    s->used[s->key_used++] = g->place;
    s->keyc++;
    return *k = (uint32_t)s->keyc + 3; /* after the three fixed keys */
}

/* Ends the open block of entries, if there is one: only now their number is known. */
static void close_block(step *s) {
    char text[9];
    if (!s->block_op) return;
    s->block_op = 0;
    snprintf(text, sizeof text, "%08u", s->block_count % 100000000);
    memcpy(s->out->text.data + s->block_at, text, 8);
}

/* Entries follow, trimmed or not: opens a block of them, or goes on with the one that is open. */
static int open_block(step *s, char op) {
    if (s->block_op == op) return 0;
    close_block(s);
    if (arg(s, &op, 1) || arg(s, "00000000", 8)) return NEAP_ERR_MEMORY;
    s->block_op = op;
    s->block_count = 0;
    s->block_at = s->out->text.len - 10; /* before its line end */
    return 0;
}

/* One stream entry, from the reading *at on: as many as it may hold. *at moves. */
static int put_entry(neap_applier *a, stream *st, uint32_t k, uint32_t *at) {
    step *s = &a->step;
    int64_t first_us = s->items[*at - 1].time_us;
    neap_chunk c = {.time_us = first_us};
    bool trim = a->keep && ++st->entries >= APPLIER_TRIM_EVERY;
    int err = 0;
    if (trim) st->entries = 0;
    buf_clear(&s->chunk);
    do {
        const item *it = &s->items[*at - 1];
        err = neap_chunk_put(&c, &s->chunk, it->time_us, s->raw.data + it->text, it->text_len);
        *at = it->next;
    } while (!err && *at && c.count < APPLIER_ENTRY_READINGS && s->chunk.len < APPLIER_ENTRY_BYTES);
    err = err || open_block(s, trim ? 'E' : 'e') || arg_int(s, k) || arg_int(s, first_us) || arg(s, s->chunk.data, s->chunk.len);
    s->block_count++;
    s->entries++;
    return err;
}

static int put_group(neap_applier *a, const group *g, uint32_t k) {
    int err = 0;
    for (uint32_t at = g->first; !err && at;) err = put_entry(a, &a->streams[g->place - 1], k, &at);
    return err;
}

/* The unit as parts of the streams' own programs. */
static int flush_parts(neap_applier *a, const char *once, size_t once_len, bool synthetic) {
    step *s = &a->step;
    int err = 0;
    for (size_t i = 0; !err && i < s->group_count; i++) {
        const group *g = &s->groups[i];
        stream *st = &a->streams[g->place - 1];
        part *p = applier_cluster_part(a, g, synthetic);
        if (!p) return NEAP_ERR_MEMORY;
        s->out = &p->args;
        err = arg(s, "u", 1) || arg(s, once, once_len) || arg_int(s, g->count) || put_group(a, g, 3); /* KEYS[3] is the stream */
        close_block(s);
        err = err || register_part(a, st, g->name, g->name_len);
    }
    return err;
}

/* The unit in the one program. */
static int flush_single(neap_applier *a, const char *once, size_t once_len, bool synthetic) {
    step *s = &a->step;
    int err = s->group_count ? arg(s, "u", 1) || arg(s, once, once_len) || arg_int(s, (int64_t)s->item_count) : 0;
    for (size_t i = 0; !err && i < s->group_count; i++) {
        const group *g = &s->groups[i];
        stream *st = &a->streams[g->place - 1];
        if (st->registered == a->generation) continue;
        if (!once_len) st->registered = a->generation; /* a batch that may be skipped as a duplicate must not be the one that registers */
        err = arg(s, "r", 1) || arg(s, g->name, g->name_len);
    }
    for (size_t i = 0; !err && i < s->group_count; i++) {
        uint32_t k = key_index(a, &s->groups[i], synthetic);
        if (!k) return NEAP_ERR_MEMORY;
        err = put_group(a, &s->groups[i], k);
    }
    close_block(s);
    return err;
}

/* Writes the unit that was collected, and begins the next. */
static int flush_unit(neap_applier *a, const char *once, size_t once_len, bool synthetic) {
    step *s = &a->step;
    int err = (a->cluster ? flush_parts : flush_single)(a, once, once_len, synthetic);
    s->group_count = s->item_count = 0;
    if (++s->unit == 0) s->unit = 1;
    return err ? NEAP_ERR_MEMORY : 0;
}

/* Collects whole records: their bytes are copied, as the reader's buffer moves on. */
typedef struct collect {
    step *s;
    uint64_t to;
    size_t readings;
    int err;
} collect;

static int take_record(void *ud, uint64_t end, const char *data, size_t n) {
    collect *c = ud;
    neap_record r;
    uint32_t len = (uint32_t)n;
    if (buf_add(&c->s->raw, &end, 8) || buf_add(&c->s->raw, &len, 4) || buf_add(&c->s->raw, data, n)) {
        c->err = NEAP_ERR_MEMORY;
        return 1;
    }
    c->to = end;
    if (!neap_record_open(&r, data, n)) c->readings += r.count;
    return c->readings >= APPLIER_STEP_READINGS;
}

static int build_program(neap_applier *a) {
    step *s = &a->step;
    int err = 0;
    bool synthetic = false; /* of the unit being collected */
    for (const char *p = s->raw.data, *end = p + s->raw.len; !err && p < end;) {
        uint32_t n;
        uint64_t upto;
        neap_record r;
        memcpy(&upto, p, 8);
        memcpy(&n, p + 8, 4);
        p += 12;
        if (neap_record_open(&r, p, n) == 0) {
            bool alone = r.key_len != 0;
            if (alone || r.synthetic != synthetic) err = flush_unit(a, "", 0, synthetic);
            synthetic = r.synthetic;
            while (!err && neap_record_next(&r)) err = add_reading(a, &r, upto);
            if (!err && alone) err = flush_unit(a, r.key, r.key_len, synthetic);
        } else {
            a->status.damaged_bytes += n; /* sound on disk, but of a version that we do not know */
        }
        p += n;
    }
    return err ? err : flush_unit(a, "", 0, synthetic);
}

static int put_wire(neap_applier *a, uint64_t from, uint64_t to) {
    step *s = &a->step;
    char text[24], number[24];
    buf_clear(&s->wire);
    s->commands = 1;
    int err = neap_resp_begin(&s->wire, 3 + 3 + s->keyc + 7 + s->args.n) || neap_resp_str(&s->wire, "EVALSHA", 7) ||
              neap_resp_str(&s->wire, a->sha, 40) || neap_resp_int(&s->wire, (int64_t)s->keyc + 3) ||
              neap_resp_str(&s->wire, a->state_key, strlen(a->state_key)) || neap_resp_str(&s->wire, a->dead_key, strlen(a->dead_key)) ||
              neap_resp_str(&s->wire, a->sensors_key, strlen(a->sensors_key)) || buf_add(&s->wire, s->keys.data, s->keys.len);
    int n = a->stored || from ? snprintf(text, sizeof text, "%llu", (unsigned long long)from) : 0;
    if (!a->stored) n = 0; /* nothing stored for this log yet: the script expects nothing */
    int m = snprintf(number, sizeof number, "%llu", (unsigned long long)to);
    return err || neap_resp_str(&s->wire, a->uuid, 36) || neap_resp_str(&s->wire, a->store, 36) || neap_resp_str(&s->wire, text, (size_t)n) ||
                   neap_resp_str(&s->wire, number, (size_t)m) || neap_resp_str(&s->wire, a->once_prefix, strlen(a->once_prefix)) ||
                   neap_resp_int(&s->wire, a->once_s) || neap_resp_int(&s->wire, (int64_t)a->keep) ||
                   buf_add(&s->wire, s->args.text.data, s->args.text.len)
               ? NEAP_ERR_MEMORY
               : 0;
}

int applier_build(neap_applier *a, uint64_t from, uint64_t *to, uint64_t *damaged, size_t *readings) {
    step *s = &a->step;
    collect c = {.s = s, .to = from};
    uint64_t next = from, before;
    buf_clear(&s->raw);
    buf_clear(&s->args.text);
    buf_clear(&s->names.text);
    buf_clear(&s->keys);
    for (size_t i = 0; i < s->key_used; i++) s->key_of[s->used[i] - 1] = 0;
    s->block_op = 0;
    s->out = &s->args;
    s->args.n = s->names.n = s->part_count = s->keyc = s->key_used = s->readings = s->entries = s->item_count = s->group_count = 0;
    if (++s->unit == 0) s->unit = 1;
    int err = a->cluster ? applier_cluster_begin(a) : 0;
    if (err) return err;
    do {
        uint64_t skipped;
        before = next;
        err = neap_journal_read(a->j, a->uuid, before, APPLIER_READ_BYTES, take_record, &c, &next, &skipped);
        *damaged += skipped;
        if (!err) err = c.err;
    } while (!err && next > before && next - from < APPLIER_STEP_BYTES && c.readings < APPLIER_STEP_READINGS);
    if (!err) err = build_program(a);
    if (!err) err = (a->cluster ? applier_cluster_wire : put_wire)(a, from, next);
    *to = next;
    *readings = s->readings;
    return err;
}

void applier_free_step(step *s) {
    buf_free(&s->raw);
    buf_free(&s->args.text);
    buf_free(&s->names.text);
    for (size_t i = 0; i < s->part_cap; i++) buf_free(&s->parts[i].args.text);
    free(s->parts);
    buf_free(&s->keys);
    buf_free(&s->chunk);
    buf_free(&s->wire);
    free(s->key_of);
    free(s->used);
    free(s->items);
    free(s->groups);
}
