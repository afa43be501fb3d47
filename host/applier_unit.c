/* applier_unit.c: the readings of a unit, put together by stream while they are read from the journal: each at the end of its stream's entry.
   There are ten thousand entries in the making and nobody knows how long each will get, so their text lies in pieces of a fixed size. That takes
   a third of the memory that the records themselves would, and nothing has to be looked up in them again. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdlib.h>

/* The table has sensors' names, behind which the streams of other sources than the real one have a control character: no sensor's name has one. */
uint32_t applier_stream(neap_applier *a, const neap_record *r) {
    char key[NEAP_NAME_MAX + 1];
    const char *name = r->name;
    size_t n = r->name_len;
    if (r->source != NEAP_REAL) {
        if (n > NEAP_NAME_MAX) return 0;
        memcpy(key, name, n);
        key[n++] = (char)r->source;
        name = key;
    }
    uint32_t place = neap_sensors_find_after(a->names, a->step.place, name, n);
    if (!place) place = neap_sensors_add(a->names, name, n, 0, 0);
    /* A name may be there without its stream: memory ran out between the two. */
    if (!place || (place > a->stream_cap && !applier_grow((void **)&a->streams, &a->stream_cap, place, sizeof *a->streams))) return 0;
    stream *st = &a->streams[place - 1];
    if (!st->lane) st->lane = applier_lane_of(name, n);
    return a->step.place = place;
}

const char *applier_stream_name(const neap_applier *a, uint32_t place, size_t *n) {
    const char *name = neap_sensors_name(a->names, place, n);
    if (*n && (unsigned char)name[*n - 1] < NEAP_SOURCES) --*n;
    return name;
}

/* A new piece at the end of the group's entry. NULL without memory. */
static piece *add_piece(step *s, unit *u, group *g) {
    if (!u->block || u->block_used == APPLIER_BLOCK) {
        piece_block *b = s->spare;
        if (b) s->spare = b->next;
        else if (!(b = malloc(sizeof *b))) return NULL;
        b->next = NULL;
        if (u->block) u->block->next = b;
        else u->blocks = b;
        u->block = b;
        u->block_used = 0;
    }
    piece *p = &u->block->at[u->block_used++];
    p->next = NULL;
    p->len = 0;
    if (g->piece) g->piece->next = p;
    else u->entries[g->entry - 1].first = p;
    return g->piece = p;
}

static int add_text(step *s, unit *u, group *g, const char *text, size_t n) {
    while (n) {
        piece *p = g->piece;
        if (!(p && p->len < sizeof p->text) && !(p = add_piece(s, u, g))) return NEAP_ERR_MEMORY;
        size_t room = sizeof p->text - p->len, some = room < n ? room : n;
        memcpy(p->text + p->len, text, some);
        p->len = (uint8_t)(p->len + some);
        g->len += (uint32_t)some;
        text += some;
        n -= some;
    }
    return 0;
}

/* The group's next entry, which begins with a reading of this time. */
static int begin_entry(unit *u, group *g, int64_t first_us, int64_t late_ms) {
    if (!applier_grow((void **)&u->entries, &u->entry_cap, u->entry_count + 1, sizeof *u->entries)) return NEAP_ERR_MEMORY;
    u->entries[u->entry_count++] = (entry){.first_us = first_us, .late_ms = late_ms};
    if (g->entry) u->entries[g->entry - 1].next = (uint32_t)u->entry_count;
    else g->first = (uint32_t)u->entry_count;
    g->entry = (uint32_t)u->entry_count;
    g->piece = NULL;
    g->len = 0;
    g->late_ms = late_ms;
    g->chunk = (neap_chunk){.time_us = first_us};
    return 0;
}

int applier_unit_add(neap_applier *a, const neap_record *r, uint32_t place) {
    step *s = &a->step;
    stream *st = &a->streams[place - 1];
    unit *u = &s->units[st->lane - 1];
    if (st->seen != u->number) {
        if (!applier_grow((void **)&u->groups, &u->group_cap, u->group_count + 1, sizeof *u->groups)) return NEAP_ERR_MEMORY;
        st->seen = u->number;
        st->group = (uint32_t)u->group_count;
        u->groups[u->group_count++] = (group){.place = place};
    }
    group *g = &u->groups[st->group];
    int64_t late_ms = r->arrival_us < (s->built_ms - APPLIER_LATE_MS) * 1000 ? r->arrival_us / 1000 : 0;
    bool full = g->chunk.count >= APPLIER_ENTRY_READINGS || g->len >= APPLIER_ENTRY_BYTES;
    if (late_ms != g->late_ms) full |= !late_ms || !g->late_ms || late_ms - g->late_ms >= APPLIER_SAME_MS;
    if ((!g->entry || full) && begin_entry(u, g, r->time_us, late_ms)) return NEAP_ERR_MEMORY;
    buf_clear(&s->chunk);
    if (neap_chunk_put(&g->chunk, &s->chunk, r->time_us, r->text, r->text_len) || add_text(s, u, g, s->chunk.data, s->chunk.len))
        return NEAP_ERR_MEMORY;
    g->count++;
    u->readings++;
    return 0;
}

void applier_unit_begin(step *s, int lane) {
    unit *u = &s->units[lane];
    if (u->block) {
        u->block->next = s->spare;
        s->spare = u->blocks;
    }
    u->group_count = u->entry_count = u->readings = 0;
    u->blocks = u->block = NULL;
    u->number = ++s->unit_number;
}

void applier_unit_free(step *s) {
    for (int i = 0; i < APPLIER_LANES; i++) {
        applier_unit_begin(s, i);
        free(s->units[i].groups);
        free(s->units[i].entries);
    }
    for (piece_block *b = s->spare, *next; b; b = next) {
        next = b->next;
        free(b);
    }
}
