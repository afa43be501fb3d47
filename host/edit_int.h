/* edit_int.h: the editor's insides, shared by edit.c (text and commands), edit_key.c (bytes to keys), edit_view.c (drawing) and
   edit_history.c. Nobody else includes it. */
#ifndef NEAP_EDIT_INT_H
#define NEAP_EDIT_INT_H
#include "host/edit.h"
#include "host/buf.h"

/* Keys: control characters and DEL are themselves, text is KEY_TEXT with its bytes beside it, the rest: */
enum {
    KEY_NONE = -1,
    KEY_TEXT = 256,
    KEY_UP,
    KEY_DOWN,
    KEY_LEFT,
    KEY_RIGHT,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_PASTE_END,
    KEY_PASTE,
    KEY_META = 512 /* | the byte */
};

/* Turns bytes into keys, one byte at a time; half a sequence stays in `seq` until its rest comes. */
typedef struct edit_keys {
    unsigned char seq[32];
    int len;
    int need;    /* bytes that the UTF-8 character in seq still needs */
    int pasting; /* between the two marks of a bracketed paste */
} edit_keys;

int edit_key_next(edit_keys *k, unsigned char byte); /* a key or KEY_NONE; for KEY_TEXT the bytes are seq[0..len) until the next call */

typedef struct edit_undo {
    char *text;
    size_t cursor;
} edit_undo;

#define EDIT_UNDO_MAX 64

struct neap_edit {
    neap_edit_write_fn write;
    void *ud;
    edit_keys keys;
    neap_buf text;
    size_t cursor;
    char *prompt, *more;
    neap_buf kill; /* ^Y gives it back */
    int killing;   /* the last command killed too: the next one appends */
    edit_undo undo[EDIT_UNDO_MAX];
    int undo_len, typing; /* typing: the last command inserted text, no new undo step yet */
    /* view */
    int columns, rows;     /* the terminal's */
    int shown, cursor_row; /* is it on the screen, and in which of its rows the cursor stands */
    neap_buf out;
    /* history */
    char **history;
    size_t history_len, history_cap, history_max;
    size_t browse; /* entry shown, == history_len: the draft */
    char *draft, *path;
    /* ^R search */
    int searching;
    neap_buf query;
    size_t found; /* entry, or history_len for none */
    char *before_search;
};

int edit_draw(neap_edit *e);                           /* redraws prompt, text and cursor: 0 or NEAP_ERR_MEMORY */
void edit_end(neap_edit *e, const char *tail);         /* cursor behind the last row, then tail; the editor is off the screen */
int edit_width(const char *s, size_t n, size_t *used); /* columns of the first character; its bytes in *used */
int edit_replace(neap_edit *e, const char *text);      /* whole text, cursor at its end */
int edit_browse(neap_edit *e, int direction);          /* -1 older, 1 newer */
int edit_search_key(neap_edit *e, int key);            /* 1: the key belonged to the search, 0: search is over, treat the key; < 0: error */
int edit_search_begin(neap_edit *e);
void edit_history_free(neap_edit *e);

/* Character boundaries of UTF-8 text. */
static inline size_t edit_prev(const char *s, size_t i) {
    if (i == 0) return 0;
    do i--;
    while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
    return i;
}
static inline size_t edit_next(const char *s, size_t len, size_t i) {
    if (i >= len) return len;
    do i++;
    while (i < len && ((unsigned char)s[i] & 0xC0) == 0x80);
    return i;
}
#endif
