/* applier_store.c: getting to know the store (its UUID, its scripts, how durable it is) and letting go of what it has safely. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- small things ------------------------------------------------------------------------------------------------------- */

static int command(neap_buf *b, int argc, const char *const *argv) {
    int err = neap_resp_begin(b, (size_t)argc);
    for (int i = 0; !err && i < argc; i++) err = neap_resp_str(b, argv[i], strlen(argv[i]));
    return err;
}
#define COMMAND(b, ...) command(b, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), (const char *const[]){__VA_ARGS__})

static int send_batch(neap_applier *a, neap_buf *b, uint32_t count, uint32_t flags, neap_redis_cb cb) {
    neap_redis_req q = {.bytes = b->data, .len = b->len, .count = count, .flags = NEAP_REDIS_BATCH | flags, .cb = cb, .ud = a};
    int err = neap_redis_send(a->redis, &q);
    buf_free(b);
    return err;
}

static const neap_reply *item_of(const neap_reply *r, uint32_t i) {
    static const neap_reply nil = {.type = NEAP_REPLY_NIL};
    return r && r->type == NEAP_REPLY_ARRAY && i < r->len ? &r->item[i] : &nil;
}

static bool is_text(const neap_reply *r) { return r->type == NEAP_REPLY_STRING || r->type == NEAP_REPLY_STATUS; }

/* The value of a line "name:value" of INFO as a number, or `missing`. */
long long applier_info(const neap_reply *r, const char *name, long long missing) {
    if (!is_text(r)) return missing;
    size_t n = strlen(name);
    for (const char *p = r->str; (p = strstr(p, name)); p += n)
        if ((p == r->str || p[-1] == '\n') && p[n] == ':') return strncmp(p + n + 1, "ok", 2) == 0 ? 1 : strtoll(p + n + 1, NULL, 10);
    return missing;
}

const char *neap_applier_class_name(enum neap_applier_class c) {
    static const char *const names[] = {"unknown", "always", "everysec", "rdb", "none"};
    return names[c];
}

static void new_uuid(char out[37]) {
    uint8_t r[16];
    if (getrandom(r, sizeof r, 0) != sizeof r) abort(); /* cannot happen for 16 bytes once the system is up */
    r[6] = (r[6] & 0x0F) | 0x40;
    r[8] = (r[8] & 0x3F) | 0x80;
    for (int i = 0, at = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out[at++] = '-';
        at += snprintf(out + at, 3, "%02x", r[i]);
    }
}

/* ---- UUIDs beside the journal: the store's, as it was last seen, and the journal's own ----------------------------------------- */

static bool load(const neap_applier *a, const char *file, char out[37]) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", neap_journal_dir(a->j), file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, 36);
    if (fd >= 0) close(fd);
    out[n == 36 ? 36 : 0] = 0;
    return n == 36;
}

/* False, and told: it cannot be written. */
static bool save(neap_applier *a, const char *file, const char *uuid) {
    char path[4096], tmp[4100];
    snprintf(path, sizeof path, "%s/%s", neap_journal_dir(a->j), file);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, uuid, 36) == 36 && fsync(fd) == 0;
    if (fd >= 0) close(fd);
    ok = ok && rename(tmp, path) == 0;
    if (!ok && !a->stopped) applier_say(a, NEAP_APPLIER_AWAY, "cannot write %s", path);
    return ok;
}

/* ---- greeting: who is there? ------------------------------------------------------------------------------------------------ */

static void learn_class(neap_applier *a, const neap_reply *aof, const neap_reply *fsync_mode, const neap_reply *save, const neap_reply *persistence) {
    const neap_reply *on = item_of(aof, 1), *mode = item_of(fsync_mode, 1), *rdb = item_of(save, 1);
    bool aof_on = is_text(on) ? strcmp(on->str, "yes") == 0 : applier_info(persistence, "aof_enabled", 0) == 1;
    enum neap_applier_class c;
    if (aof_on && is_text(mode) && strcmp(mode->str, "always") == 0) c = NEAP_DURABLE_ALWAYS;
    else if (aof_on && is_text(mode) && strcmp(mode->str, "no") == 0) c = NEAP_DURABLE_NONE; /* the kernel decides when */
    else if (aof_on) c = NEAP_DURABLE_EVERYSEC;
    else if (is_text(rdb)) c = rdb->len ? NEAP_DURABLE_RDB : NEAP_DURABLE_NONE;
    else c = NEAP_DURABLE_UNKNOWN;
    a->status.durability = c;
    a->last_save = (uint64_t)applier_info(persistence, "rdb_last_save_time", 0);
}

static void on_claimed(void *ud, int status, neap_reply *r);

/* Gives the store a UUID if it has none, and, when the store is not the one we knew, a starting position for every log. What was let go of is not
   in it, which is told once: the last log that was is entered as done. */
static void claim_store(neap_applier *a) {
    neap_journal_log logs[64];
    char fresh[37], uuid[37], text[24];
    neap_buf b = {0};
    size_t n = neap_journal_logs(a->j, logs, 64);
    uint32_t count = 2;
    new_uuid(fresh);
    int err = COMMAND(&b, "HSETNX", a->state_key, "store", fresh) || COMMAND(&b, "HGET", a->state_key, "store");
    for (size_t i = 0; !err && a->store_lost && !a->cluster && i < n && i < 64; i++, count++) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)logs[i].first);
        err = COMMAND(&b, "HSETNX", a->state_key, logs[i].uuid, text);
    }
    uint64_t end;
    if (!err && a->store_lost && !a->cluster && neap_journal_last_done(a->j, uuid, &end)) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)end);
        err = COMMAND(&b, "HSETNX", a->state_key, uuid, text);
        count++;
    }
    if (err || send_batch(a, &b, count, 0, on_claimed)) {
        buf_free(&b);
        a->greeting = false;
        applier_later(a);
    }
}

static void on_claimed(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    const neap_reply *id = item_of(r, 1);
    bool ok = status == 0 && is_text(id) && id->len == 36;
    if (ok) {
        memcpy(a->store, id->str, 37);
        memcpy(a->status.store, id->str, 37);
        ok = save(a, "store", a->store);
    } else if (!a->stopped) {
        applier_say(a, NEAP_APPLIER_AWAY, "%s", r && r->type == NEAP_REPLY_ERROR ? r->str : "Redis refuses to keep the store's identity");
    }
    neap_reply_free(r);
    if (a->stopped) return;
    a->greeting = false;
    a->greeted = ok;
    if (ok) applier_pump(a);
    else applier_later(a);
}

/* Of a cluster: what all its masters say. */
static void on_masters(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    if (!a->stopped) {
        const neap_reply *bad = status == 0 && r ? applier_cluster_learn(a, r) : r;
        bool ok = !status && !bad;
        if (!ok) applier_say(a, NEAP_APPLIER_AWAY, "%s", bad && bad->type == NEAP_REPLY_ERROR ? bad->str : neap_err_kind(status));
        if (ok && !load(a, "id", a->id)) {
            new_uuid(a->id);
            ok = save(a, "id", a->id);
        }
        if (ok) {
            claim_store(a);
        } else {
            a->greeting = false;
            applier_later(a);
        }
    }
    neap_reply_free(r);
}

/* A stored position of a log. */
static bool is_at_least(const neap_reply *r, uint64_t end) {
    positions at;
    return is_text(r) && applier_position_read(&at, r->str) && applier_least(&at) >= end;
}

static void on_greeting(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    const neap_reply *sha = item_of(r, 0), *id = item_of(r, 1), *cluster = item_of(r, 6), *bad = NULL;
    if (a->stopped) {
        neap_reply_free(r);
        return;
    }
    if (r && r->type == NEAP_REPLY_ERROR) bad = r;
    else if (sha->type == NEAP_REPLY_ERROR) bad = sha;
    else if (id->type == NEAP_REPLY_ERROR) bad = id;
    enum neap_applier_state s =
        bad == id && id->type == NEAP_REPLY_ERROR && strncmp(id->str, "WRONGTYPE", 9) == 0 ? NEAP_APPLIER_STOPPED : NEAP_APPLIER_AWAY;
    a->cluster = applier_info(cluster, "cluster_enabled", 0) == 1;
    if (status || bad || !is_text(sha) || sha->len != 40) {
        applier_say(a, s, "%s", bad ? bad->str : "Redis did not answer the greeting");
    } else {
        char known[37];
        bool had = load(a, "store", known);
        memcpy(a->sha, sha->str, 41);
        learn_class(a, item_of(r, 2), item_of(r, 3), item_of(r, 4), item_of(r, 5));
        a->store_lost = had && !(is_text(id) && strcmp(id->str, known) == 0);
        a->status.old_copy = had && !a->store_lost && !a->cluster && a->done_to && !is_at_least(item_of(r, 7), a->done_to);
        if (a->store_lost && !a->told_lost) {
            a->status.replays++;
            a->generation++;
            applier_say(a, a->status.state,
                        is_text(id) ? "this is another store than before: what the journal retains is applied to it from the start"
                                    : "the store has lost its identity, and with it its data: what the journal retains is applied again");
        }
        a->told_lost = false;
        neap_reply_free(r);
        if (!a->cluster) claim_store(a);
        if (!a->cluster || applier_cluster_ask(a, on_masters) == 0) return;
        r = NULL;
    }
    neap_reply_free(r);
    a->greeting = false;
    applier_later(a);
}

void applier_greet(neap_applier *a) {
    neap_buf b = {0};
    char done[37] = "";
    if (a->greeting || a->stopped) return;
    if (!neap_journal_last_done(a->j, done, &a->done_to)) a->done_to = 0;
    a->greeting = true;
    a->greeted = false;
    applier_distrust(a);
    int err = COMMAND(&b, "SCRIPT", "LOAD", applier_script) || COMMAND(&b, "HGET", a->state_key, "store") ||
              COMMAND(&b, "CONFIG", "GET", "appendonly") || COMMAND(&b, "CONFIG", "GET", "appendfsync") || COMMAND(&b, "CONFIG", "GET", "save") ||
              COMMAND(&b, "INFO", "persistence") || COMMAND(&b, "INFO", "cluster") || COMMAND(&b, "HGET", a->state_key, done);
    if (err || send_batch(a, &b, 8, 0, on_greeting)) {
        buf_free(&b);
        a->greeting = false;
        applier_later(a);
    }
}

/* What we believed to be applied has to be asked again, from the oldest log on: a crash of Redis may have taken some of it back. */
void applier_distrust(neap_applier *a) {
    neap_journal_doubt(a->j);
    a->have_log = false;
    a->uuid[0] = 0;
    a->applied_first = a->applied_count = 0;
}

/* Moves to the log to be applied: stays with the present one, or takes the next one if `pos` is at an older log's end. False: no log. */
bool applier_pick_log(neap_applier *a) {
    neap_journal_log logs[64];
    size_t n = neap_journal_logs(a->j, logs, 64), i = 0;
    if (n > 64) n = 64;
    while (a->uuid[0] && i < n && strcmp(logs[i].uuid, a->uuid) != 0) i++;
    if (i == n) i = 0;
    if (a->have_log && i + 1 < n && a->pos == logs[i].end) i++;
    if (!n) return false;
    memcpy(a->uuid, logs[i].uuid, 37);
    a->own = logs[i].own;
    return true;
}

/* ---- letting go ------------------------------------------------------------------------------------------------------------- */

static void release_first(neap_applier *a) {
    applied *e = &a->applied[a->applied_first];
    neap_journal_release(a->j, e->uuid, e->to); /* the position stays in Redis: a copy of the log may turn up */
    a->applied_first = (a->applied_first + 1) % APPLIER_DURABLE_MAX;
    a->applied_count--;
}

void applier_applied(neap_applier *a, const char *uuid, uint64_t to) {
    if (a->applied_count) { /* the same second of the same log: one entry will do */
        applied *last = &a->applied[(a->applied_first + a->applied_count - 1) % APPLIER_DURABLE_MAX];
        if (strcmp(last->uuid, uuid) == 0 && (last->at_ms / 1000 == uv_now(a->loop) / 1000 || a->applied_count == APPLIER_DURABLE_MAX)) {
            last->to = to;
            last->at_ms = uv_now(a->loop);
            last->saves = a->saves;
            return;
        }
    }
    if (a->applied_count == APPLIER_DURABLE_MAX) return; /* released later, with its successors */
    applied *e = &a->applied[(a->applied_first + a->applied_count++) % APPLIER_DURABLE_MAX];
    memcpy(e->uuid, uuid, 37);
    e->to = to;
    e->at_ms = uv_now(a->loop);
    e->saves = a->saves;
    while (a->status.durability == NEAP_DURABLE_ALWAYS && a->applied_count) release_first(a);
}

/* position: what Redis has of the log that was asked for */
static void release_durable(neap_applier *a, bool aof_ok, uint64_t position) {
    while (a->applied_count) {
        const applied *e = &a->applied[a->applied_first];
        neap_journal_stats s;
        neap_journal_get_stats(a->j, &s);
        enum neap_applier_class c = a->status.durability;
        bool go = c == NEAP_DURABLE_ALWAYS;
        if (c == NEAP_DURABLE_EVERYSEC) go = aof_ok && e->at_ms + 3000 <= a->probe_ms;
        /* a save that was running when the step was applied does not have it, the one after that does */
        if (c == NEAP_DURABLE_RDB) go = a->saves >= e->saves + 2;
        if (c == NEAP_DURABLE_NONE || c == NEAP_DURABLE_UNKNOWN) go = s.retained > s.max_bytes / 4 * 3;
        if (!go || (!a->cluster && (strcmp(e->uuid, a->probe_uuid) != 0 || e->to > position))) break;
        release_first(a);
    }
}

static void on_probe(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    const neap_reply *text = item_of(r, 0);
    a->probing = false;
    if (!a->stopped && a->greeted && status == 0) {
        uint64_t save = (uint64_t)applier_info(text, "rdb_last_save_time", 0), masters = 0;
        bool aof_ok = applier_info(text, "aof_last_write_status", 0) == 1;
        if (a->cluster) masters = applier_cluster_masters(r, 1, 0, &aof_ok);
        if (save && save != a->last_save) {
            a->last_save = save;
            a->saves++;
        }
        a->status.unsaved = a->status.durability == NEAP_DURABLE_EVERYSEC && !aof_ok;
        /* Does Redis still have what it had? A crash may have taken it back while nothing else was written. */
        uint64_t position = is_text(item_of(r, 1)) ? strtoull(item_of(r, 1)->str, NULL, 10) : 0;
        if (a->cluster ? masters == a->masters : position >= a->probe_to) release_durable(a, aof_ok, position);
        else applier_again(a);
    }
    neap_reply_free(r);
}

void applier_probe(neap_applier *a) {
    neap_buf b = {0};
    if (a->probing || !a->applied_count) return;
    a->probing = true;
    a->probe_ms = uv_now(a->loop); /* what was applied 3 s before the question was asked */
    memcpy(a->probe_uuid, a->applied[a->applied_first].uuid, 37);
    a->probe_to = a->applied[a->applied_first].to;
    bool whole = a->cluster;
    int err = whole ? COMMAND(&b, "INFO") : COMMAND(&b, "INFO", "persistence") || COMMAND(&b, "HGET", a->state_key, a->probe_uuid);
    if (err || send_batch(a, &b, whole ? 1 : 2, whole ? NEAP_REDIS_MASTERS : 0, on_probe)) {
        buf_free(&b);
        a->probing = false;
    }
}
