/* applier_step.c: a stretch of the journal as one script call. Batches without an idempotency key are put together, so that readings of a
   sensor share stream entries when there is much to do; a batch with a key is a unit of its own, because it is applied or skipped as one. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdlib.h>
#include <time.h>

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

/* On a cluster: the sensor's name for the set of sensors, once a generation. Also that of a stream which has everything already: the set lies
   elsewhere, on a node that may not have taken it, or have lost it. */
static int register_part(neap_applier *a, uint32_t place) {
    stream *st = &a->streams[place - 1];
    size_t n;
    if (st->registered == a->generation) return 0;
    st->registered = a->generation;
    a->step.names.n++;
    const char *name = applier_stream_name(a, place, &n);
    return neap_resp_str(&a->step.names.text, name, n);
}

/* end: the position behind its record */
static int add_reading(neap_applier *a, const neap_record *r, uint64_t end) {
    uint32_t place = applier_stream(a, r);
    if (!place) return NEAP_ERR_MEMORY;
    const stream *st = &a->streams[place - 1];
    if (a->cluster && applier_cluster_has(a, st, end)) return register_part(a, place);
    if (!a->cluster && end <= a->sent.lane[st->lane - 1]) return 0; /* its lane has it already */
    return applier_unit_add(a, r, place);
}

/* Ends the open run of entries, if there is one: only now their number is known. */
static void close_block(step *s) {
    char text[9];
    if (!s->block_op) return;
    s->block_op = 0;
    snprintf(text, sizeof text, "%08u", s->block_count % 100000000);
    memcpy(s->out->text.data + s->block_at, text, 8);
}

/* Entries follow, trimmed or not, with an ID or without: opens a run of them, or goes on with the one that is open. */
static int open_block(step *s, char op) {
    if (s->block_op == op) return 0;
    close_block(s);
    if (arg(s, &op, 1) || arg(s, "00000000", 8)) return NEAP_ERR_MEMORY;
    s->block_op = op;
    s->block_count = 0;
    s->block_at = s->out->text.len - 10; /* before its line end */
    return 0;
}

static int put_entry(neap_applier *a, stream *st, const entry *e) {
    step *s = &a->step;
    bool trim = a->keep && ++st->entries >= APPLIER_TRIM_EVERY;
    if (trim) st->entries = 0;
    buf_clear(&s->chunk);
    for (const piece *p = e->first; p; p = p->next)
        if (buf_add(&s->chunk, p->text, p->len)) return NEAP_ERR_MEMORY;
    char id[32] = "";
    if (e->late_ms) snprintf(id, sizeof id, "%lld-*", (long long)e->late_ms);
    int err = open_block(s, "eElL"[(*id ? 2 : 0) + trim]) || (*id && arg(s, id, strlen(id))) || arg_int(s, e->first_us) ||
              arg(s, s->chunk.data, s->chunk.len);
    s->block_count++;
    s->entered++;
    return err;
}

/* The key of each entry. */
static int put_keys(neap_applier *a, const unit *u, const group *g, enum neap_source source) {
    step *s = &a->step;
    size_t n;
    const char *name = applier_stream_name(a, g->place, &n);
    buf_clear(&s->chunk);
    int err = buf_puts(&s->chunk, a->stream_prefix) || buf_add(&s->chunk, name, n) || buf_puts(&s->chunk, a->suffix[source]);
    for (uint32_t at = g->first; !err && at; at = u->entries[at - 1].next, s->keyc++) err = neap_resp_str(&s->keys, s->chunk.data, s->chunk.len);
    return err;
}

static int put_group(neap_applier *a, const unit *u, const group *g) {
    int err = 0;
    for (uint32_t at = g->first; !err && at; at = u->entries[at - 1].next) err = put_entry(a, &a->streams[g->place - 1], &u->entries[at - 1]);
    return err;
}

/* A lane's unit as parts of the streams' own programs. */
static int flush_parts(neap_applier *a, const unit *u, const char *once, size_t once_len, enum neap_source source) {
    step *s = &a->step;
    int err = 0;
    for (size_t i = 0; !err && i < u->group_count; i++) {
        const group *g = &u->groups[i];
        part *p = applier_cluster_part(a, g, source);
        if (!p) return NEAP_ERR_MEMORY;
        s->out = &p->args;
        err = arg(s, "u", 1) || arg(s, once, once_len) || arg_int(s, g->count) || put_group(a, u, g);
        s->readings += g->count;
        close_block(s);
        err = err || register_part(a, g->place);
    }
    return err;
}

/* The names of a lane's new sensors, for the set of sensors: before the first entry, as Redis' half gives up for an error only if it wrote nothing.
 */
static int put_names(neap_applier *a, const unit *u, bool once) {
    step *s = &a->step;
    int err = 0;
    for (size_t i = 0; !err && i < u->group_count; i++) {
        stream *st = &a->streams[u->groups[i].place - 1];
        size_t n;
        if (st->registered == a->generation) continue;
        if (!once) st->registered = a->generation; /* a batch that may be skipped as a duplicate must not be the one that registers */
        const char *name = applier_stream_name(a, u->groups[i].place, &n);
        err = arg(s, "r", 1) || arg(s, name, n);
    }
    return err;
}

/* What these lanes hold in the one program. */
static int flush_single(neap_applier *a, uint32_t lanes, const char *once, size_t once_len, enum neap_source source) {
    step *s = &a->step;
    size_t n = 0;
    for (int i = 0; i < APPLIER_LANES; i++) n += lanes >> i & 1 ? s->units[i].readings : 0;
    int err = n ? arg(s, "u", 1) || arg(s, once, once_len) || arg_int(s, (int64_t)n) : 0;
    for (int i = 0; !err && i < APPLIER_LANES; i++)
        if (lanes >> i & 1) err = put_names(a, &s->units[i], once_len > 0);
    for (int i = 0; i < APPLIER_LANES; i++) {
        const unit *u = &s->units[i];
        for (size_t k = 0; !err && lanes >> i & 1 && k < u->group_count; k++)
            err = put_keys(a, u, &u->groups[k], source) || put_group(a, u, &u->groups[k]);
    }
    close_block(s);
    s->readings += n;
    return err;
}

/* Writes what these lanes hold as one unit, and begins the next. */
static int flush(neap_applier *a, uint32_t lanes, const char *once, size_t once_len, enum neap_source source) {
    step *s = &a->step;
    int err = a->cluster ? 0 : flush_single(a, lanes, once, once_len, source);
    for (int i = 0; i < APPLIER_LANES; i++) {
        if (!(lanes >> i & 1)) continue;
        if (!err && a->cluster) err = flush_parts(a, &s->units[i], once, once_len, source);
        applier_unit_begin(s, i);
    }
    return err ? NEAP_ERR_MEMORY : 0;
}

/* Takes whole records, in order. */
typedef struct collect {
    neap_applier *a;
    size_t readings;         /* held before, and read */
    enum neap_source source; /* the unit being collected */
    int err;
} collect;

static bool is_full(const collect *c) {
    const step *s = &c->a->step;
    size_t entries = 0;
    for (int i = 0; i < APPLIER_LANES; i++) entries += s->units[i].entry_count;
    return c->readings >= APPLIER_STEP_READINGS ||
           s->args.n + s->keyc + 6 * entries >= APPLIER_STEP_ARGS; /* key, ID, time, text, and "r" with a name */
}

static int take_record(void *ud, uint64_t end, const char *data, size_t n) {
    collect *c = ud;
    neap_record r;
    if (neap_record_open(&r, data, n)) {
        c->a->status.damaged_bytes += n; /* sound on disk, but of a version that we do not know */
        return 0;
    }
    bool alone = r.key_len != 0;
    if (alone || r.source != NEAP_REAL) c->a->step.lanes = APPLIER_ALL; /* no lane may be ahead of such a one */
    if (alone || r.source != c->source) c->err = flush(c->a, APPLIER_ALL, "", 0, c->source);
    c->source = r.source;
    c->readings += r.count;
    while (!c->err && neap_record_next(&r)) c->err = add_reading(c->a, &r, end);
    if (!c->err && alone) c->err = flush(c->a, APPLIER_ALL, r.key, r.key_len, c->source);
    return c->err || is_full(c);
}

/* What stands before the program is known only now that it is done. Room was left for as much as the step before had there: some megabytes are
   neither copied nor held twice. */
static int put_head(step *s, const neap_buf *head) {
    neap_buf *text = &s->args.text;
    size_t more = head->len > s->room ? head->len - s->room : 0;
    if (buf_reserve(text, more)) return NEAP_ERR_MEMORY;
    if (more) memmove(text->data + s->room + more, text->data + s->room, text->len - s->room);
    text->len += more;
    s->room += more;
    memcpy(text->data + s->room - head->len, head->data, head->len);
    s->bytes = text->data + s->room - head->len;
    s->len = text->len - s->room + head->len;
    s->room = head->len;
    return 0;
}

static int put_wire(neap_applier *a) {
    step *s = &a->step;
    buf_clear(&s->wire);
    s->commands = 1;
    int err = neap_resp_begin(&s->wire, 3 + 3 + s->keyc + 8 + s->args.n) || neap_resp_str(&s->wire, "EVALSHA", 7) ||
              neap_resp_str(&s->wire, a->sha, 40) || neap_resp_int(&s->wire, (int64_t)s->keyc + 3) ||
              neap_resp_str(&s->wire, a->state_key, strlen(a->state_key)) || neap_resp_str(&s->wire, a->dead_key, strlen(a->dead_key)) ||
              neap_resp_str(&s->wire, a->sensors_key, strlen(a->sensors_key)) || buf_add(&s->wire, s->keys.data, s->keys.len) ||
              neap_resp_str(&s->wire, a->uuid, 36) || neap_resp_str(&s->wire, a->store, 36) ||
              neap_resp_str(&s->wire, a->expected, strlen(a->expected)) || neap_resp_str(&s->wire, s->next_text, strlen(s->next_text)) ||
              neap_resp_str(&s->wire, a->once_prefix, strlen(a->once_prefix)) || neap_resp_int(&s->wire, a->once_s) ||
              neap_resp_int(&s->wire, (int64_t)a->keep) || neap_resp_int(&s->wire, s->built_ms) || put_head(s, &s->wire);
    return err ? NEAP_ERR_MEMORY : 0;
}

/* What the lanes have after the step. One that was ahead stays so. */
static void put_next(neap_applier *a, uint64_t to) {
    step *s = &a->step;
    s->next = a->sent;
    for (int i = 0; i < APPLIER_LANES; i++)
        if (s->lanes >> i & 1 && s->next.lane[i] < to) s->next.lane[i] = to;
    applier_position_text(&s->next, s->next_text);
}

int applier_build(neap_applier *a, uint32_t lanes, uint64_t *to, uint64_t *damaged) {
    step *s = &a->step;
    collect c = {.a = a};
    uint64_t next = a->pos, before;
    if (buf_reserve(&s->args.text, s->room)) return NEAP_ERR_MEMORY;
    s->args.text.len = s->room;
    buf_clear(&s->names.text);
    buf_clear(&s->keys);
    for (size_t i = 0; i < s->part_count; i++) s->part_of[s->parts[i].place - 1] = 0;
    s->block_op = 0;
    s->out = &s->args;
    s->args.n = s->names.n = s->part_count = s->keyc = s->readings = s->entered = 0;
    s->lanes = lanes;
    for (int i = 0; i < APPLIER_LANES; i++) c.readings += s->units[i].readings;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s->built_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    int err = a->cluster ? applier_cluster_begin(a) : 0;
    while (!err && next - a->pos < APPLIER_STEP_BYTES && !is_full(&c)) {
        uint64_t skipped;
        before = next;
        err = neap_journal_read(a->j, a->uuid, before, APPLIER_READ_BYTES, take_record, &c, &next, &skipped);
        *damaged += skipped;
        if (!err) err = c.err;
        if (next == before) break;
    }
    if (!err) err = flush(a, s->lanes, "", 0, c.source);
    put_next(a, next);
    if (!err) err = a->cluster ? applier_cluster_wire(a, a->pos, next) : put_wire(a);
    *to = next;
    return err;
}

void applier_free_step(step *s) {
    buf_free(&s->args.text);
    buf_free(&s->names.text);
    for (size_t i = 0; i < s->part_cap; i++) buf_free(&s->parts[i].args.text);
    free(s->parts);
    free(s->part_of);
    buf_free(&s->keys);
    buf_free(&s->chunk);
    buf_free(&s->wire);
    applier_unit_free(s);
}
