/* pattern.c: Lua's patterns (manual, 6.4.1), by backtracking as the manual's rules read. Own code instead of stock's for one reason: a pattern
   such as ("a-"):rep(30) .. "b" can run for years, no hook sees inside a C function, and so this one looks at the clock itself (rt_breathe)
   every few thousand steps. An item is read once and its kind decided outside of the loop over characters.

   Recursion is bounded as in stock Lua (200 levels, "pattern too complex"); what is only "the next item" loops. */
#include <ctype.h>
#include <string.h>
#include "host/api/pattern.h"

enum { FUEL = 4096, ESC = '%' };

#define BYTE(p) ((unsigned char)*(p))

typedef pattern_item item;

static const char *match(pattern *m, const char *s, const char *p);

static inline void burn(pattern *m, long steps) {
    if ((m->fuel -= steps) >= 0) return;
    m->fuel = FUEL;
    rt_breathe(m->L);
}

/* ---- one character --------------------------------------------------------------------------------------------------- */
static inline int in_class(unsigned char c, unsigned char letter) {
    int yes;
    switch (letter | 0x20) {
    case 'a': yes = isalpha(c); break;
    case 'c': yes = iscntrl(c); break;
    case 'd': yes = isdigit(c); break;
    case 'g': yes = isgraph(c); break;
    case 'l': yes = islower(c); break;
    case 'p': yes = ispunct(c); break;
    case 's': yes = isspace(c); break;
    case 'u': yes = isupper(c); break;
    case 'w': yes = isalnum(c); break;
    case 'x': yes = isxdigit(c); break;
    case 'z': yes = c == 0; break; /* of Lua 5.1 */
    default: return letter == c;   /* an escaped character stands for itself */
    }
    if (!isalpha(letter)) return letter == c; /* 0x20 made a letter of something else */
    return isupper(letter) ? !yes : yes != 0;
}

/* Is c in the set whose brackets are at `set` and `end`? */
static int in_set(unsigned char c, const char *set, const char *end) {
    const char *p = set + 1;
    int hit = 1;
    if (*p == '^') {
        hit = 0;
        p++;
    }
    while (p < end) {
        if (*p == ESC) {
            if (in_class(c, BYTE(p + 1))) return hit;
            p += 2;
        } else if (p + 2 < end && p[1] == '-') {
            if (BYTE(p) <= c && c <= BYTE(p + 2)) return hit;
            p += 3;
        } else {
            if (BYTE(p) == c) return hit;
            p++;
        }
    }
    return !hit;
}

/* The item at p (p < end). Raises if the pattern ends inside of it. */
static inline item read_item(pattern *m, const char *p) {
    item it = {PATTERN_CHAR, BYTE(p), NULL, NULL, p + 1};
    if (*p == '.') {
        it.kind = PATTERN_ANY;
    } else if (*p == ESC) {
        if (p + 1 == m->end) luaL_error(m->L, "malformed pattern (ends with '%%')");
        it = (item){PATTERN_CLASS, BYTE(p + 1), NULL, NULL, p + 2};
    } else if (*p == '[') {
        const char *q = p + 1;
        if (q < m->end && *q == '^') q++;
        do { /* the first character belongs to the set even if it is a bracket */
            if (q == m->end) luaL_error(m->L, "malformed pattern (missing ']')");
            if (*q++ == ESC && q < m->end) q++;
        } while (q == m->end || *q != ']');
        it = (item){PATTERN_SET, '[', p, q, q + 1};
    }
    return it;
}

static inline int fits(const item *it, unsigned char c) {
    switch (it->kind) {
    case PATTERN_ANY: return 1;
    case PATTERN_CHAR: return it->c == c;
    case PATTERN_CLASS: return in_class(c, it->c);
    default: return in_set(c, it->set, it->set_end);
    }
}

/* How many characters from s on fit. */
static inline ptrdiff_t run_of(const pattern *m, const item *it, const char *s) {
    const char *p = s, *end = m->text_end;
    switch (it->kind) {
    case PATTERN_ANY: return end - s;
    case PATTERN_CHAR:
        while (p < end && BYTE(p) == it->c) p++;
        break;
    case PATTERN_CLASS:
        while (p < end && in_class(BYTE(p), it->c)) p++;
        break;
    default:
        while (p < end && in_set(BYTE(p), it->set, it->set_end)) p++;
    }
    return p - s;
}

/* ---- repetitions ------------------------------------------------------------------------------------------------------ */
/* As many as possible, at least `least`, so that the rest matches. */
static const char *longest(pattern *m, const char *s, const item *it, ptrdiff_t least) {
    ptrdiff_t n = run_of(m, it, s);
    burn(m, n >> 3);
    for (; n >= least; n--) {
        const char *e = match(m, s + n, it->next + 1);
        if (e) return e;
    }
    return NULL;
}

static const char *shortest(pattern *m, const char *s, const item *it) {
    for (;; s++) {
        const char *e = match(m, s, it->next + 1);
        if (e) return e;
        if (s >= m->text_end || !fits(it, BYTE(s))) return NULL;
    }
}

/* ---- captures ----------------------------------------------------------------------------------------------------------- */
static const char *capture_begin(pattern *m, const char *s, const char *p, ptrdiff_t len) {
    if (m->n >= PATTERN_CAPTURES) luaL_error(m->L, "too many captures");
    m->cap[m->n].at = s;
    m->cap[m->n].len = len;
    m->n++;
    const char *e = match(m, s, p);
    if (!e) m->n--;
    return e;
}

static const char *capture_end(pattern *m, const char *s, const char *p) {
    int i = m->n - 1;
    while (i >= 0 && m->cap[i].len != CAPTURE_OPEN) i--;
    if (i < 0) luaL_error(m->L, "invalid pattern capture");
    m->cap[i].len = s - m->cap[i].at;
    const char *e = match(m, s, p);
    if (!e) m->cap[i].len = CAPTURE_OPEN;
    return e;
}

/* %1 ..: the text of a capture once more; NULL if it does not stand here. */
static const char *same_again(pattern *m, const char *s, char digit) {
    int i = digit - '1';
    if (i < 0 || i >= m->n || m->cap[i].len == CAPTURE_OPEN) luaL_error(m->L, "invalid capture index %%%d", i + 1);
    size_t len = (size_t)m->cap[i].len; /* of a position capture: more than any text has left */
    if ((size_t)(m->text_end - s) < len) return NULL;
    burn(m, (long)(len >> 4));
    return memcmp(m->cap[i].at, s, len) ? NULL : s + len;
}

/* ---- %b and %f -------------------------------------------------------------------------------------------------------------- */
static const char *balanced(pattern *m, const char *s, const char *p) { /* p: the two characters */
    if (m->end - p < 2) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->text_end || *s != p[0]) return NULL;
    const char *from = s;
    for (long open = 1; ++s < m->text_end;) {
        if (*s == p[1]) {
            if (--open == 0) {
                burn(m, (s - from) >> 3);
                return s + 1;
            }
        } else if (*s == p[0]) {
            open++;
        }
    }
    burn(m, (s - from) >> 3);
    return NULL;
}

static const char *frontier(pattern *m, const char *s, const char *p) { /* p: the set; the pattern behind it, or NULL */
    if (p >= m->end || *p != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
    item it = read_item(m, p);
    unsigned char before = s == m->text ? 0 : BYTE(s - 1), here = s < m->text_end ? BYTE(s) : 0;
    return !in_set(before, it.set, it.set_end) && in_set(here, it.set, it.set_end) ? it.next : NULL;
}

/* ---- the matcher ------------------------------------------------------------------------------------------------------------ */
static const char *match_items(pattern *m, const char *s, const char *p) {
    for (; p < m->end; burn(m, 1)) {
        switch (*p) {
        case '(': return p + 1 < m->end && p[1] == ')' ? capture_begin(m, s, p + 2, CAPTURE_POSITION) : capture_begin(m, s, p + 1, CAPTURE_OPEN);
        case ')': return capture_end(m, s, p + 1);
        case '$':
            if (p + 1 == m->end) return s == m->text_end ? s : NULL;
            break;
        case ESC:
            if (p + 1 == m->end) break;
            if (p[1] == 'b') {
                if (!(s = balanced(m, s, p + 2))) return NULL;
                p += 4;
                continue;
            }
            if (p[1] == 'f') {
                if (!(p = frontier(m, s, p + 2))) return NULL;
                continue;
            }
            if (isdigit(BYTE(p + 1))) {
                if (!(s = same_again(m, s, p[1]))) return NULL;
                p += 2;
                continue;
            }
            break;
        default: break;
        }
        item it = read_item(m, p);
        char mark = it.next < m->end ? *it.next : 0;
        if (s >= m->text_end || !fits(&it, BYTE(s))) {
            if (mark != '*' && mark != '?' && mark != '-') return NULL;
            p = it.next + 1; /* none of it */
            continue;
        }
        const char *e;
        switch (mark) {
        case '*': return longest(m, s, &it, 0);
        case '+': return longest(m, s, &it, 1);
        case '-': return shortest(m, s, &it);
        case '?':
            if ((e = match(m, s + 1, it.next + 1))) return e;
            p = it.next + 1;
            break;
        default: s++; p = it.next;
        }
    }
    return s;
}

static const char *match(pattern *m, const char *s, const char *p) {
    if (m->depth-- == 0) luaL_error(m->L, "pattern too complex");
    const char *e = match_items(m, s, p);
    m->depth++;
    return e;
}

void pattern_init(pattern *m, lua_State *L, const char *text, size_t len, const char *pat, size_t pat_len) {
    m->L = L;
    m->text = text;
    m->text_end = text + len;
    m->end = pat + pat_len;
    m->fuel = FUEL;
    m->skips = -1;
}

const char *pattern_match(pattern *m, const char *s, const char *pat) {
    m->n = 0;
    m->depth = PATTERN_DEPTH;
    burn(m, 1);
    return match(m, s, pat);
}

/* Whether every match begins with one certain item; looked at once, at the first character that the pattern is tried at, so that a malformed
   item is found when stock Lua finds it. */
static int look(pattern *m, const char *p) {
    if (p + 1 < m->end && *p == '(' && p[1] != ')') p++;
    if (p >= m->end || *p == '(' || *p == ')' || *p == '$') return 0;
    if (*p == ESC && p + 1 < m->end && (p[1] == 'b' || p[1] == 'f' || isdigit(BYTE(p + 1)))) return 0;
    m->first = read_item(m, p);
    if (m->first.kind == PATTERN_ANY) return 0;
    const char *next = m->first.next;
    return !(next < m->end && (*next == '*' || *next == '?' || *next == '-'));
}

const char *pattern_next(pattern *m, const char *s, const char *p) {
    if (s > m->text_end) return s;
    if (m->skips < 0) m->skips = look(m, p);
    if (!m->skips) return s;
    const item *it = &m->first;
    const char *from = s, *end = m->text_end;
    if (it->kind == PATTERN_CHAR) {
        s = memchr(s, it->c, (size_t)(end - s));
        return s ? s : end + 1;
    }
    if (it->kind == PATTERN_CLASS) {
        while (s < end && !in_class(BYTE(s), it->c)) s++;
    } else {
        while (s < end && !in_set(BYTE(s), it->set, it->set_end)) s++;
    }
    burn(m, (s - from) >> 3);
    return s < end ? s : end + 1;
}

const char *pattern_capture(pattern *m, int i, const char *s, const char *e, ptrdiff_t *len) {
    if (i >= m->n) {
        if (i != 0) luaL_error(m->L, "invalid capture index %%%d", i + 1);
        *len = e - s;
        return s;
    }
    *len = m->cap[i].len;
    if (*len == CAPTURE_OPEN) luaL_error(m->L, "unfinished capture");
    if (*len == CAPTURE_POSITION) lua_pushinteger(m->L, m->cap[i].at - m->text + 1);
    return m->cap[i].at;
}

int pattern_push(pattern *m, const char *s, const char *e) {
    int n = m->n == 0 && s ? 1 : m->n;
    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++) {
        ptrdiff_t len;
        const char *at = pattern_capture(m, i, s, e, &len);
        if (len != CAPTURE_POSITION) lua_pushlstring(m->L, at, (size_t)len);
    }
    return n;
}
