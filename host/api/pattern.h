/* pattern.h: Lua's patterns, matched with a look at the clock now and then (pattern.c). For lib_string.c only. */
#ifndef NEAP_PATTERN_H
#define NEAP_PATTERN_H
#include "host/api/rt.h"

enum { PATTERN_CAPTURES = 32, PATTERN_DEPTH = 200 }; /* as stock */

/* One item of a pattern that fits a single character. */
enum pattern_kind { PATTERN_ANY, PATTERN_CHAR, PATTERN_CLASS, PATTERN_SET };
typedef struct pattern_item {
    enum pattern_kind kind;
    unsigned char c;           /* the character, or the class' letter */
    const char *set, *set_end; /* [ and ] of a set */
    const char *next;          /* what follows: perhaps a repetition mark */
} pattern_item;

typedef struct pattern {
    lua_State *L;
    const char *text, *text_end; /* the subject */
    const char *end;             /* of the pattern */
    int skips;                   /* 1: a match can only begin with `first`; -1: not known; 0: anywhere */
    pattern_item first;
    long fuel; /* steps until the next look at the clock */
    int depth; /* how deep it may still recurse */
    int n;     /* captures begun */
    struct {
        const char *at;
        ptrdiff_t len; /* or one of the two below */
    } cap[PATTERN_CAPTURES];
} pattern;
enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

void pattern_init(pattern *m, lua_State *L, const char *text, size_t len, const char *pat, size_t pat_len);
/* Where the match that begins at s ends, or NULL. Raises for a malformed pattern, and when the task's time is over. */
const char *pattern_match(pattern *m, const char *s, const char *pat);
/* The first place from s on (s <= text_end) where the pattern could match: text_end + 1 if nowhere. */
const char *pattern_next(pattern *m, const char *s, const char *pat);
/* Capture i (0-based) of the match s..e, or the whole match for 0 when the pattern has none: its start and length; for a position capture
   the length is CAPTURE_POSITION and the position is pushed. */
const char *pattern_capture(pattern *m, int i, const char *s, const char *e, ptrdiff_t *len);
/* Pushes all captures; s not NULL: the whole match if there are none. Returns how many. */
int pattern_push(pattern *m, const char *s, const char *e);
#endif
