/* applier_lanes.c: where in a log the applier is, and whose turn it is. A stream entry costs Redis the same however many readings it has, so in a
   flood readings are gathered. Of some hundred sensors a few milliseconds give full entries. Of ten thousand they cannot be had within the time that
   readings may take, and one step for all of them, which holds Redis for thirty milliseconds, would take half of that time for itself. So streams are
   dealt out to lanes, which take turns: each gathers for nearly all of the time, and a step is short. With few sensors that is worth something too:
   neither Redis nor this loop works for a millisecond at a stretch, which answers would have to wait for.
   A position is therefore one of each lane: "1200" if they are level, else what all have and what each has: "1200 1500 1200 1300 ..". A step expects
   the position that the one before it wrote, and writes its own, as one text: Redis' half (applier_script.c) only compares. Whoever begins again with
   such a position reads from what all have on and leaves out what a lane has already. Batches with an idempotency key and made-up readings are never
   ahead in some lanes only: the step that comes upon one is for all. */
#include "host/applier_priv.h"
#include "host/crc32c.h"
#include <inttypes.h>
#include <stdlib.h>

uint32_t applier_lane_of(const char *name, size_t n) { return neap_crc32c(0, name, n) % APPLIER_LANES + 1; }

void applier_position_all(positions *p, uint64_t at) {
    for (int i = 0; i < APPLIER_LANES; i++) p->lane[i] = at;
}

uint64_t applier_least(const positions *p) {
    uint64_t least = p->lane[0];
    for (int i = 1; i < APPLIER_LANES; i++)
        if (p->lane[i] < least) least = p->lane[i];
    return least;
}

uint64_t applier_most(const positions *p) {
    uint64_t most = p->lane[0];
    for (int i = 1; i < APPLIER_LANES; i++)
        if (p->lane[i] > most) most = p->lane[i];
    return most;
}

void applier_position_text(const positions *p, char out[APPLIER_POSITION_TEXT]) {
    uint64_t least = applier_least(p);
    int n = snprintf(out, APPLIER_POSITION_TEXT, "%" PRIu64, least);
    for (int i = 0; least != applier_most(p) && i < APPLIER_LANES; i++)
        n += snprintf(out + n, (size_t)(APPLIER_POSITION_TEXT - n), " %" PRIu64, p->lane[i]);
}

/* A whole number, as far as a blank or the end. */
static bool number(const char **s, uint64_t *out) {
    char *end;
    if (**s < '0' || **s > '9') return false;
    *out = strtoull(*s, &end, 10);
    *s = end;
    return *end == ' ' || *end == 0;
}

bool applier_position_read(positions *p, const char *s) {
    uint64_t least;
    if (!number(&s, &least)) return false;
    applier_position_all(p, least);
    if (!*s) return true;
    for (int i = 0; i < APPLIER_LANES; i++) {
        if (*s++ != ' ' || !number(&s, &p->lane[i]) || p->lane[i] < least) return false;
    }
    return !*s && applier_least(p) == least;
}

void applier_begin_at(neap_applier *a, const positions *p, const char *stored) {
    for (int i = 0; i < APPLIER_LANES; i++) applier_unit_begin(&a->step, i);
    a->sent = *p;
    a->pos = applier_least(p);
    snprintf(a->expected, sizeof a->expected, "%s", stored);
}

/* ---- turns ---------------------------------------------------------------------------------------------------------------- */

static uint64_t turn_ms(const neap_applier *a) { return a->wait_ms < APPLIER_LANES ? 1 : a->wait_ms / APPLIER_LANES; }

uint64_t applier_turn(neap_applier *a, uint64_t now) {
    uint64_t since = now - a->turn_ms, each = turn_ms(a), n = since / each;
    if (n > APPLIER_LANES) n = APPLIER_LANES; /* after a step that took long */
    if (since < APPLIER_TURN_MS) n = 0;
    a->due = 0;
    for (unsigned i = 0; i < n; i++) a->due |= 1u << (a->next_lane + i) % APPLIER_LANES;
    if (n) return 0;
    return (each < APPLIER_TURN_MS ? APPLIER_TURN_MS : each) - since;
}

void applier_turn_taken(neap_applier *a, uint64_t now) {
    unsigned n = (unsigned)__builtin_popcount(a->step.lanes);
    a->turn_ms = n == APPLIER_LANES ? now : a->turn_ms + n * turn_ms(a);
    a->next_lane = (a->next_lane + n) % APPLIER_LANES;
}
