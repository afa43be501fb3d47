/* applier_cluster.c: the applier on a Redis Cluster. The keys of a step lie on different nodes there, so a step is one script call for each of its
   streams, and each stream has a position of its own beside it, in the hash PREFIX name POSITION_SUFFIX: the field is the journal's ID (for a made-up
   stream with ":synthetic" or ":quarantine" behind it), the value "LOG-UUID POSITION". A journal's logs are applied one after the other, so that says
   what the stream has of all of them.

   A call names the value that it expects; the script applies and writes the new one, or answers what there is and does nothing. After a start, and
   after anything that went wrong, no value is known: then the journal is gone through again from its first byte, the call asks ("?"), and what a
   stream has already is left out. So nothing but the streams' own positions decides what is applied: a node that lost its data, or the end of it,
   gets again what the journal retains, and the others get nothing twice. One step is under way at a time. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdlib.h>

struct met { /* a log that streams' positions lie in */
    char uuid[37];
    int order; /* among the journal's logs now, from 0; -1: it is gone, and was before all of them */
    uint64_t end;
};

enum { REPLIES = 3 }; /* of each master to applier_cluster_ask */

/* The log's number in a->met, where it is put on first sight; 0 without memory. */
static uint32_t meet(neap_applier *a, const char *uuid) {
    for (uint32_t i = a->met_count; i-- > 0;)
        if (strcmp(a->met[i].uuid, uuid) == 0) return i + 1;
    if (!applier_grow((void **)&a->met, &a->met_cap, a->met_count + 1, sizeof *a->met)) return 0;
    struct met *m = &a->met[a->met_count++];
    memcpy(m->uuid, uuid, 37);
    m->order = -1;
    return a->met_count;
}

int applier_cluster_begin(neap_applier *a) {
    neap_journal_log logs[64];
    size_t n = neap_journal_logs(a->j, logs, 64);
    for (uint32_t i = 0; i < a->met_count; i++) a->met[i].order = -1;
    for (size_t i = 0; i < n && i < 64; i++) {
        uint32_t k = meet(a, logs[i].uuid);
        if (!k) return NEAP_ERR_MEMORY;
        a->met[k - 1].order = (int)i;
        a->met[k - 1].end = logs[i].end;
    }
    a->here = meet(a, a->uuid);
    return a->here ? 0 : NEAP_ERR_MEMORY;
}

bool applier_cluster_has(const neap_applier *a, const stream *st, uint64_t end) {
    if (st->known != a->generation || !st->log) return false;
    if (st->log == a->here) return end <= st->pos;
    return a->met[st->log - 1].order > a->met[a->here - 1].order;
}

part *applier_cluster_part(neap_applier *a, const group *g, enum neap_source source) {
    step *s = &a->step;
    if (!applier_grow((void **)&s->part_of, &s->part_of_cap, g->place, sizeof *s->part_of)) return NULL;
    uint32_t *k = &s->part_of[g->place - 1];
    if (*k) return &s->parts[*k - 1];
    if (!applier_grow((void **)&s->parts, &s->part_cap, s->part_count + 1, sizeof *s->parts)) return NULL;
    part *p = &s->parts[s->part_count++];
    program args = p->args; /* its memory is reused */
    buf_clear(&args.text);
    args.n = 0;
    *p = (part){.place = g->place, .source = source, .args = args};
    p->asks = a->streams[g->place - 1].known != a->generation;
    *k = (uint32_t)s->part_count;
    return p;
}

/* ---- the step's commands --------------------------------------------------------------------------------------------------- */

static int put_key(neap_applier *a, const part *p, const char *suffix) {
    step *s = &a->step;
    size_t n;
    const char *name = applier_stream_name(a, p->place, &n);
    buf_clear(&s->chunk);
    return buf_puts(&s->chunk, a->stream_prefix) || buf_add(&s->chunk, name, n) || buf_puts(&s->chunk, suffix) ||
           neap_resp_str(&s->wire, s->chunk.data, s->chunk.len);
}

static int put_text(neap_buf *b, const char *text) { return neap_resp_str(b, text, strlen(text)); }

/* The position that the stream is expected to have: "" none, "?N": it is not known, N is where the step begins. */
static void expected(const neap_applier *a, const part *p, uint64_t from, char text[64]) {
    const stream *st = &a->streams[p->place - 1];
    if (p->asks) snprintf(text, 64, "?%llu", (unsigned long long)from);
    else if (st->log) snprintf(text, 64, "%s %llu", a->met[st->log - 1].uuid, (unsigned long long)st->pos);
    else text[0] = 0;
}

static int put_part(neap_applier *a, const part *p, uint64_t from, uint64_t to) {
    neap_buf *w = &a->step.wire;
    char field[64], want[64], next[64];
    static const char *const of[NEAP_SOURCES] = {"", ":synthetic", ":quarantine"};
    snprintf(field, sizeof field, "%s%s", a->id, of[p->source]);
    expected(a, p, from, want);
    snprintf(next, sizeof next, "%s %llu", a->uuid, (unsigned long long)to);
    return neap_resp_begin(w, 3 + 3 + 8 + p->args.n) || put_text(w, "EVALSHA") || put_text(w, a->sha) || neap_resp_int(w, 3) ||
                   put_key(a, p, a->position_suffix) || put_key(a, p, a->dead_suffix) || put_key(a, p, a->suffix[p->source]) || put_text(w, field) ||
                   put_text(w, a->uuid) || put_text(w, want) || put_text(w, next) || put_key(a, p, a->once_suffix) || neap_resp_int(w, a->once_s) ||
                   neap_resp_int(w, (int64_t)a->keep) || neap_resp_int(w, a->step.built_ms) || buf_add(w, p->args.text.data, p->args.text.len)
               ? NEAP_ERR_MEMORY
               : 0;
}

int applier_cluster_wire(neap_applier *a, uint64_t from, uint64_t to) {
    step *s = &a->step;
    int err = 0;
    buf_clear(&s->wire);
    for (size_t i = 0; !err && i < s->part_count; i++) err = put_part(a, &s->parts[i], from, to);
    s->commands = (uint32_t)s->part_count + (s->names.n ? 1 : 0);
    if (!err && s->names.n)
        err = neap_resp_begin(&s->wire, 2 + s->names.n) || put_text(&s->wire, "SADD") || put_text(&s->wire, a->sensors_key) ||
              buf_add(&s->wire, s->names.text.data, s->names.text.len);
    s->bytes = s->wire.data;
    s->len = s->wire.len;
    return err ? NEAP_ERR_MEMORY : 0;
}

/* ---- its answers ------------------------------------------------------------------------------------------------------------- */

/* Takes the position that Redis answered with. False: it is none of ours, or lies beyond what its log holds. */
static bool take_position(neap_applier *a, stream *st, const char *text) {
    char uuid[37];
    unsigned long long pos = 0;
    st->known = a->generation;
    st->log = 0;
    st->pos = 0;
    if (!*text) return true;
    if (sscanf(text, "%36[0-9a-f-] %llu", uuid, &pos) != 2 || strlen(uuid) != 36) return false;
    st->log = meet(a, uuid);
    st->pos = pos;
    if (!st->log) return false;
    const struct met *m = &a->met[st->log - 1];
    neap_journal_log logs[64];
    size_t n = neap_journal_logs(a->j, logs, 64);
    for (size_t i = 0; i < n && i < 64; i++)
        if (strcmp(logs[i].uuid, m->uuid) == 0 && pos > logs[i].end) return !logs[i].own;
    return true;
}

enum applier_outcome applier_cluster_done(neap_applier *a, const flight *f, const neap_reply *r, const neap_reply **refusal) {
    step *s = &a->step;
    enum applier_outcome out = APPLIER_DONE;
    bool gone = false;
    for (uint32_t i = 0; i < r->len; i++)
        if (r->item[i].type == NEAP_REPLY_ERROR) {
            *refusal = &r->item[i];
            out = APPLIER_REFUSED;
        }
    for (uint32_t i = 0; i < s->part_count && i < r->len; i++) {
        const part *p = &s->parts[i];
        const neap_reply *n = &r->item[i], *word = n->type == NEAP_REPLY_ARRAY && n->len >= 2 ? &n->item[0] : NULL;
        stream *st = &a->streams[p->place - 1];
        if (word && strcmp(word->str, "ok") == 0 && n->len >= 4) {
            a->status.readings += (uint64_t)n->item[1].integer;
            a->status.duplicates += (uint64_t)n->item[2].integer;
            a->status.dead += (uint64_t)n->item[3].integer;
            st->known = a->generation;
            st->log = a->here;
            st->pos = f->to;
        } else if (word && strcmp(word->str, "at") == 0 && n->item[1].type == NEAP_REPLY_STRING) {
            bool knew = !p->asks;
            gone = gone || (knew && st->log && !n->item[1].len);
            if (!take_position(a, st, n->item[1].str)) {
                size_t len;
                const char *name = applier_stream_name(a, p->place, &len);
                applier_say(
                    a, NEAP_APPLIER_STOPPED,
                    "Redis has position '%s' of this journal for sensor %.*s, beyond what the journal holds: one of them is an old copy. Nothing "
                    "is applied until that is put right",
                    n->item[1].str, (int)(len < 80 ? len : 80), name);
                return APPLIER_AGAIN;
            }
            if (knew && out != APPLIER_REFUSED) out = APPLIER_AGAIN;
            else if (out == APPLIER_DONE) out = APPLIER_REBUILD;
        }
    }
    if (gone) {
        a->status.replays++;
        a->told_lost = true;
        applier_say(a, NEAP_APPLIER_AWAY, "a node of the cluster has lost its data: what the journal retains is applied to it again");
    } else if (out == APPLIER_AGAIN) {
        a->status.rewinds++;
    }
    return out;
}

/* ---- all masters ------------------------------------------------------------------------------------------------------------- */

int applier_cluster_ask(neap_applier *a, neap_redis_cb cb) {
    neap_buf b = {0};
    int err = neap_resp_begin(&b, 3) || put_text(&b, "SCRIPT") || put_text(&b, "LOAD") || put_text(&b, applier_cluster_script) ||
              neap_resp_begin(&b, 3) || put_text(&b, "CONFIG") || put_text(&b, "GET") || put_text(&b, "append*") || neap_resp_begin(&b, 1) ||
              put_text(&b, "INFO");
    neap_redis_req q = {.bytes = b.data, .len = b.len, .count = REPLIES, .flags = NEAP_REDIS_BATCH | NEAP_REDIS_MASTERS, .cb = cb, .ud = a};
    err = err ? NEAP_ERR_MEMORY : neap_redis_send(a->redis, &q);
    buf_free(&b);
    return err;
}

uint64_t applier_cluster_masters(const neap_reply *r, uint32_t stride, uint32_t at, bool *aof_ok) {
    uint64_t sum = 0;
    *aof_ok = r->len > 0;
    for (; at < r->len; at += stride) {
        const neap_reply *text = &r->item[at];
        const char *id = text->type == NEAP_REPLY_STRING ? strstr(text->str, "run_id:") : NULL;
        if (!id) return 0;
        uint64_t h = 14695981039346656037u; /* FNV-1a */
        for (const char *c = id; *c && *c != '\r' && *c != '\n'; c++) h = (h ^ (uint8_t)*c) * 1099511628211u;
        sum += h;
        *aof_ok = *aof_ok && applier_info(text, "aof_enabled", 0) == 1 && applier_info(text, "aof_last_write_status", 0) == 1;
    }
    return sum ? sum : 1;
}

static const char *setting(const neap_reply *r, const char *name) {
    for (uint32_t i = 0; r->type == NEAP_REPLY_ARRAY && i + 1 < r->len; i += 2)
        if (r->item[i].type == NEAP_REPLY_STRING && r->item[i + 1].type == NEAP_REPLY_STRING && strcmp(r->item[i].str, name) == 0)
            return r->item[i + 1].str;
    return "";
}

/* The cluster is as durable as its least durable master. */
const neap_reply *applier_cluster_learn(neap_applier *a, const neap_reply *r) {
    static const neap_reply odd = {.type = NEAP_REPLY_ERROR, .str = "the cluster's masters did not answer the greeting", .len = 49};
    bool off = false, always = true, aof_ok;
    if (r->type != NEAP_REPLY_ARRAY || r->len < REPLIES) return &odd;
    for (uint32_t i = 0; i + REPLIES <= r->len; i += REPLIES) {
        const neap_reply *sha = &r->item[i], *info = &r->item[i + 2];
        if (sha->type == NEAP_REPLY_ERROR) return sha;
        if (info->type == NEAP_REPLY_ERROR) return info;
        if (sha->type != NEAP_REPLY_STRING || sha->len != 40) return &odd;
        memcpy(a->sha, sha->str, 41);
        const char *mode = setting(&r->item[i + 1], "appendfsync");
        if (applier_info(info, "aof_enabled", 0) != 1 || strcmp(mode, "no") == 0) off = true;
        if (strcmp(mode, "always") != 0) always = false;
    }
    a->status.durability = off ? NEAP_DURABLE_NONE : always ? NEAP_DURABLE_ALWAYS : NEAP_DURABLE_EVERYSEC;
    a->masters = applier_cluster_masters(r, REPLIES, REPLIES - 1, &aof_ok);
    return a->masters ? NULL : &odd;
}
