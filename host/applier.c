/* applier.c: the applier's state machine (see applier.h): greet the store, take the stored position of the oldest log, then keep up to two
   steps under way; whatever goes wrong ends in waiting for the steps that are out and beginning again with the greeting. */
#include "host/applier_priv.h"
#include "host/err.h"
#include <stdarg.h>
#include <stdlib.h>

enum { PAUSE_MS = 100 };

void applier_say(neap_applier *a, enum neap_applier_state s, const char *fmt, ...) {
    char text[sizeof a->status.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bool news = s != a->status.state || strcmp(text, a->status.text) != 0;
    a->status.state = s;
    memcpy(a->status.text, text, sizeof text);
    neap_journal_set_live(a->j, s == NEAP_APPLIER_RUNNING);
    if (news && a->report) a->report(a->ud, s, text);
}

static void ask_position(neap_applier *a);

/* ---- steps -------------------------------------------------------------------------------------------------------------- */

/* Up to here everything of the present log is applied, or on its way. */
uint64_t applier_applied_to(const neap_applier *a) { return a->cluster ? a->pos : applier_least(&a->sent); }

static bool starts(const neap_reply *r, const char *word) { return strncmp(r->str, word, strlen(word)) == 0; }

/* All steps are back after one of them failed. */
static void drained(neap_applier *a) {
    a->drain = false;
    applier_distrust(a);
    if (a->greeted) ask_position(a);
    else applier_later(a);
}

void applier_again(neap_applier *a) {
    a->status.rewinds++;
    a->generation++;
    a->greeted = false;
    a->drain = a->flying > 0;
    if (!a->flying) drained(a);
}

static void running(neap_applier *a) {
    if (a->status.state != NEAP_APPLIER_RUNNING) applier_say(a, NEAP_APPLIER_RUNNING, "%s", "");
}

static void moved(neap_applier *a, const char *uuid, uint64_t to) {
    neap_journal_set_applied(a->j, uuid, to);
    applier_applied(a, uuid, to);
}

static void step_done(neap_applier *a, const flight *f, const neap_reply *r) {
    a->status.steps++;
    if (!a->cluster && r->len >= 4) {
        a->status.readings += (uint64_t)r->item[1].integer;
        a->status.duplicates += (uint64_t)r->item[2].integer;
        a->status.dead += (uint64_t)r->item[3].integer;
    }
    uint64_t took = uv_now(a->loop) - f->sent_ms;
    a->took_ms = took > a->took_ms ? took : a->took_ms - (a->took_ms - took) / 4; /* one slow step is not forgotten at once */
    moved(a, f->uuid, f->to);
    running(a);
}

static void step_refused(neap_applier *a, int status, const neap_reply *r) {
    const char *text = r && r->type == NEAP_REPLY_ERROR ? r->str : neap_err_kind(status);
    a->drain = true;
    a->greeted = false;
    a->generation++;                                                    /* what was registered in a step that failed may not be */
    if (status == NEAP_ERR_REPLY && r && starts(r, "NOSCRIPT")) return; /* loaded again by the greeting */
    bool person = status == NEAP_ERR_REPLY && r && (starts(r, "NEAP") || starts(r, "WRONGTYPE") || starts(r, "NOPERM"));
    applier_say(a, person ? NEAP_APPLIER_STOPPED : NEAP_APPLIER_AWAY, "%s", text);
}

/* The answers of a step on a cluster: one for each stream. */
static void parts_done(neap_applier *a, const flight *f, int status, const neap_reply *r) {
    const neap_reply *refusal = r;
    enum applier_outcome out = status || !r || r->type != NEAP_REPLY_ARRAY ? APPLIER_REFUSED : applier_cluster_done(a, f, r, &refusal);
    if (out == APPLIER_DONE) step_done(a, f, r);
    if (out == APPLIER_REBUILD) a->pos = f->from; /* without what is there already */
    if (out == APPLIER_REFUSED) step_refused(a, status ? status : NEAP_ERR_REPLY, refusal);
    if (out != APPLIER_AGAIN) return;
    a->drain = true;
    a->greeted = false;
    a->generation++;
}

static void on_step(void *ud, int status, neap_reply *r) {
    flight *f = ud;
    neap_applier *a = f->a;
    if (!a->stopped) {
        const neap_reply *word = !a->cluster && status == 0 && r && r->type == NEAP_REPLY_ARRAY && r->len >= 2 ? &r->item[0] : NULL;
        a->flying--;
        a->first_flight = (a->first_flight + 1) % APPLIER_FLIGHTS;
        if (a->cluster) {
            parts_done(a, f, status, r);
        } else if (word && strcmp(word->str, "ok") == 0) {
            step_done(a, f, r);
        } else if (word && strcmp(word->str, "at") == 0) {
            if (!a->drain) a->status.rewinds++;
            a->drain = true;
            a->generation++;
        } else if (word) { /* "store": it changed under us */
            a->drain = true;
            a->greeted = false;
        } else {
            step_refused(a, status, r);
        }
        if (!a->drain) applier_pump(a);
        else if (!a->flying) drained(a);
    }
    neap_reply_free(r);
}

/* After a step in a hurry: longer if its entries were thin, shorter if they were full; to a half or sixteen times at most. The small steps of quiet
   times say nothing of it: a wait that grew by them would be what the first of the next flood have to wait for. */
static void adapt_wait(neap_applier *a) {
    const step *s = &a->step;
    if (!a->hurry) a->wait_ms = APPLIER_GATHER_MIN_MS;
    if (!a->hurry || !s->entered) return;
    uint64_t full = s->readings / s->entered, wait = full ? a->wait_ms * APPLIER_DENSE / full : 16 * a->wait_ms;
    uint64_t most = a->took_ms < APPLIER_LAG_MS ? APPLIER_LAG_MS - a->took_ms : 0;
    if (wait < a->wait_ms / 2) wait = a->wait_ms / 2;
    if (wait > 16 * a->wait_ms) wait = 16 * a->wait_ms;
    if (wait > most) wait = most;
    a->wait_ms = wait < APPLIER_GATHER_MIN_MS ? APPLIER_GATHER_MIN_MS : wait;
}

/* Builds and sends one step. False if there is nothing to do, or it has to wait. */
static bool send_step(neap_applier *a) {
    uint64_t to, damaged = 0;
    int err = applier_build(a, a->due, &to, &damaged);
    if (err == NEAP_ERR_CLOSED && !a->own) { /* an older log, of which Redis has all: it was let go of */
        applier_distrust(a);
        ask_position(a);
        return false;
    }
    if (err) {
        applier_say(a, err == NEAP_ERR_MEMORY ? NEAP_APPLIER_AWAY : NEAP_APPLIER_STOPPED, "cannot read the journal %s at %llu: %s", a->uuid,
                    (unsigned long long)a->pos, neap_err_kind(err));
        a->greeted = false;
        a->generation++;
        a->drain = a->flying > 0;
        if (!a->flying) applier_later(a);
        return false;
    }
    const step *s = &a->step;
    if (to == a->pos && (a->cluster || memcmp(&s->next, &a->sent, sizeof s->next) == 0)) {
        if (!a->flying) running(a);
        if (a->cluster || applier_least(&a->sent) == a->pos) return false;
        applier_turn_taken(a, uv_now(a->loop)); /* others hold something: on to their turn */
        return true;
    }
    if (damaged) {
        a->status.damaged_bytes += damaged;
        applier_say(a, a->status.state, "%llu bytes of the journal %s before %llu are damaged and were passed over", (unsigned long long)damaged,
                    a->uuid, (unsigned long long)to);
    }
    if (!s->commands) { /* a cluster has all of it already */
        moved(a, a->uuid, to);
        a->pos = to;
        return true;
    }
    flight *f = &a->flights[(a->first_flight + a->flying) % APPLIER_FLIGHTS];
    *f = (flight){.a = a, .from = applier_applied_to(a), .to = a->cluster ? to : applier_least(&s->next)};
    memcpy(f->uuid, a->uuid, 37);
    neap_redis_req q = {.bytes = s->bytes, .len = s->len, .count = s->commands, .cb = on_step, .ud = f};
    if (a->cluster) q.flags = NEAP_REDIS_BATCH;
    if ((err = neap_redis_send(a->redis, &q))) {
        step_refused(a, err, NULL);
        if (!a->flying) drained(a);
        return false;
    }
    a->flying++;
    a->sent_ms = f->sent_ms = uv_now(a->loop);
    applier_turn_taken(a, a->sent_ms);
    adapt_wait(a);
    a->pos = to;
    a->sent = s->next;
    memcpy(a->expected, s->next_text, sizeof a->expected);
    return true;
}

static void on_gathered(uv_timer_t *t) { applier_pump(t->data); }

/* How fast the own log grows, over APPLIER_MEASURE_MS and more, or sooner if so much has come that it is plain: up to a point readings are moved at
   once, beyond it they are gathered. */
static void measure(neap_applier *a, uint64_t end) {
    uint64_t now = uv_now(a->loop), took = now - a->grown_ms, grown = end - a->grown_to;
    uint64_t from = a->step.commands < APPLIER_CALLS ? APPLIER_HURRY : APPLIER_HURRY / 10;
    if (took < APPLIER_MEASURE_MS && grown <= from * APPLIER_MEASURE_MS) return;
    bool hurry = grown > (a->hurry ? from * 2 / 3 : from) * (took > APPLIER_MEASURE_MS ? took : APPLIER_MEASURE_MS);
    if (hurry != a->hurry) neap_journal_set_hurry(a->j, hurry);
    a->hurry = hurry;
    a->grown_ms = now;
    a->grown_to = end;
}

/* More is worth waiting for before the next step. If not, a->due says of which lanes it shall be. */
static bool gathering(neap_applier *a) {
    neap_journal_stats s;
    a->due = APPLIER_ALL;
    if (!a->own) return false;
    neap_journal_get_stats(a->j, &s);
    measure(a, s.durable);
    uint64_t now = uv_now(a->loop), waited = now - a->sent_ms, rest;
    if (!a->hurry) return false;
    if (a->flying) return true; /* Redis is at work: its answer is when to look again. Two great steps at once would be much memory */
    if (s.durable - a->pos >= APPLIER_STEP_BYTES) return false;
    if (a->cluster) rest = waited >= a->wait_ms ? 0 : a->wait_ms - waited;
    else rest = applier_turn(a, now);
    if (rest && (!uv_is_active((uv_handle_t *)&a->gather) || uv_timer_get_due_in(&a->gather) > rest))
        uv_timer_start(&a->gather, on_gathered, rest, 0);
    return rest > 0;
}

void applier_pump(neap_applier *a) {
    if (a->stopped || a->drain || !a->greeted) return;
    if (!a->have_log) {
        ask_position(a);
        return;
    }
    while (a->flying < (a->cluster ? 1 : APPLIER_FLIGHTS) && !gathering(a) && send_step(a)) {}
    if (a->flying == 0 && !a->own && a->have_log && a->greeted && !a->drain) ask_position(a); /* this older log is done: the next one */
}

/* ---- the stored position ------------------------------------------------------------------------------------------------ */

/* Can the log, which goes up to `end`, be read from each lane's position on? */
static int check_position(neap_applier *a, const positions *at, uint64_t end) {
    int err = 0;
    for (int i = 0; !err && i < APPLIER_LANES; i++)
        if (at->lane[i] <= end && (i == 0 || at->lane[i] != at->lane[i - 1])) err = neap_journal_check(a->j, a->uuid, at->lane[i]);
    return err;
}

static void on_position(void *ud, int status, neap_reply *r) {
    neap_applier *a = ud;
    neap_journal_log logs[64];
    if (a->stopped) {
        neap_reply_free(r);
        return;
    }
    a->greeting = false;
    if (status || !r || (r->type != NEAP_REPLY_STRING && r->type != NEAP_REPLY_NIL)) {
        step_refused(a, status ? status : NEAP_ERR_REPLY, r);
        neap_reply_free(r);
        drained(a);
        return;
    }
    size_t n = neap_journal_logs(a->j, logs, 64), i = 0;
    while (i < n && i < 64 && strcmp(logs[i].uuid, a->uuid) != 0) i++;
    if (i == n || i == 64) { /* released in the meantime: look again */
        neap_reply_free(r);
        a->uuid[0] = 0;
        applier_later(a);
        return;
    }
    bool stored = r->type == NEAP_REPLY_STRING;
    char text[APPLIER_POSITION_TEXT];
    positions at;
    applier_position_all(&at, logs[i].first);
    snprintf(text, sizeof text, "%s", stored ? r->str : "");
    bool odd = stored && (r->len >= sizeof text || !applier_position_read(&at, text));
    neap_reply_free(r);
    bool lost = !stored && logs[i].first > 0 && logs[i].first != logs[i].end;
    bool ahead = applier_most(&at) > logs[i].end && !logs[i].own;
    if (ahead && !logs[i].loose && strcmp(a->told_ahead, a->uuid) != 0) { /* seen in /health */
        a->status.damaged_bytes += applier_most(&at) - logs[i].end;
        memcpy(a->told_ahead, a->uuid, 37);
    }
    if (ahead) { /* so much is not left to apply. A lane that is ahead of the log stays where it is: somebody may have the rest */
        applier_say(a, a->status.state,
                    logs[i].loose
                        ? "a power cut took the end of the journal %s, which did not wait for the disk: Redis has it up to %llu, it ends at %llu"
                        : "the journal %s is an old copy, or its end was damaged: Redis has it up to %llu, it ends at %llu. What Redis has "
                          "stays, and nothing of it is applied again",
                    a->uuid, (unsigned long long)applier_most(&at), (unsigned long long)logs[i].end);
        if (applier_least(&at) >= logs[i].end) applier_position_all(&at, logs[i].end);
    }
    if (odd || (!ahead && applier_most(&at) > logs[i].end) || applier_least(&at) < logs[i].first || lost) {
        bool before = lost || applier_least(&at) < logs[i].first;
        applier_say(
            a, NEAP_APPLIER_STOPPED,
            "Redis has position %.40s of the journal %s, which holds %llu to %llu: one of them is an old copy. Nothing is applied until that is "
            "put right. To go on with what the journal holds: redis-cli HSET %s %s %llu",
            lost ? "nothing" : text, a->uuid, (unsigned long long)logs[i].first, (unsigned long long)logs[i].end, a->state_key, a->uuid,
            (unsigned long long)(before ? logs[i].first : logs[i].end));
        applier_later(a);
        return;
    }
    int err = check_position(a, &at, logs[i].end);
    if (err) {
        bool across = err == NEAP_ERR_CORRUPT;
        applier_say(
            a, err == NEAP_ERR_MEMORY ? NEAP_APPLIER_AWAY : NEAP_APPLIER_STOPPED,
            across ? "Redis has position %.40s of the journal %s, which is in the middle of a record: it was not written by this journal. Nothing "
                     "is applied until that is put right%s"
                   : "cannot read the journal at %.40s of %s: %s",
            text, a->uuid, across ? "" : neap_err_kind(err));
        applier_later(a);
        return;
    }
    applier_begin_at(a, &at, text);
    a->have_log = true;
    if (stored) applier_applied(a, a->uuid, a->pos);
    neap_journal_set_applied(a->j, a->uuid, a->pos);
    applier_say(a, NEAP_APPLIER_RUNNING, "%s", "");
    applier_pump(a);
}

static void ask_position(neap_applier *a) {
    char before[37];
    bool had = a->have_log;
    if (a->greeting || a->flying) return;
    memcpy(before, a->uuid, 37);
    if (!applier_pick_log(a)) return;
    if (a->cluster) { /* its streams have positions of their own: from the first byte on */
        if (had && strcmp(before, a->uuid) == 0) return;
        neap_journal_log logs[64];
        size_t n = neap_journal_logs(a->j, logs, 64), i = 0;
        while (i < n && i < 64 && strcmp(logs[i].uuid, a->uuid) != 0) i++;
        if (i == n || i == 64) return;
        positions first;
        applier_position_all(&first, logs[i].first);
        applier_begin_at(a, &first, "");
        a->have_log = true;
        applier_pump(a);
        return;
    }
    const char *argv[] = {"HGET", a->state_key, a->uuid};
    a->have_log = false;
    a->greeting = true;
    if (neap_redis_command(a->redis, 3, argv, NULL, NEAP_REDIS_RETRY, on_position, a)) {
        a->greeting = false;
        applier_later(a);
    }
}

void applier_tick(uv_timer_t *t) {
    neap_applier *a = t->data;
    if (!a->greeted && !a->greeting && !a->flying) applier_greet(a);
    else if (a->greeted && !a->have_log && !a->greeting && !a->flying) ask_position(a);
    else if (a->greeted && a->have_log) applier_pump(a);
    if (a->greeted) applier_probe(a);
    uv_timer_start(t, applier_tick, APPLIER_TICK_MS, 0);
}

void applier_later(neap_applier *a) {
    if (a->stopped) return;
    a->greeted = false;
    uv_timer_start(&a->tick, applier_tick, PAUSE_MS, 0);
}
