/* edit.c: the text, the cursor and the commands of the line editor (see edit.h). Drawing is in edit_view.c, history in edit_history.c. */
#include <ctype.h>
#include "host/edit_int.h"

neap_edit *neap_edit_new(neap_edit_write_fn write, void *ud) {
    neap_edit *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->write = write;
    e->ud = ud;
    e->columns = 80;
    e->rows = 24;
    if (buf_puts(&e->text, "")) {
        free(e);
        return NULL;
    }
    return e;
}

static void drop_undo(neap_edit *e) {
    while (e->undo_len > 0) free(e->undo[--e->undo_len].text);
    e->typing = 0;
}

void neap_edit_free(neap_edit *e) {
    if (!e) return;
    drop_undo(e);
    edit_history_free(e);
    buf_free(&e->text);
    buf_free(&e->kill);
    buf_free(&e->out);
    free(e->prompt);
    free(e->more);
    free(e);
}

int neap_edit_start(neap_edit *e, const char *prompt, const char *more) {
    char *p = strdup(prompt), *m = strdup(more);
    if (!p || !m) {
        free(p);
        free(m);
        return NEAP_ERR_MEMORY;
    }
    free(e->prompt);
    free(e->more);
    e->prompt = p;
    e->more = m;
    buf_clear(&e->text);
    e->cursor = 0;
    e->browse = e->history_len;
    drop_undo(e);
    return edit_draw(e);
}

const char *neap_edit_text(const neap_edit *e, size_t *len, size_t *cursor) {
    if (len) *len = e->text.len;
    if (cursor) *cursor = e->cursor;
    return e->text.data;
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */
static int insert(neap_edit *e, const char *s, size_t n) {
    if (buf_reserve(&e->text, n)) return NEAP_ERR_MEMORY;
    char *at = e->text.data + e->cursor;
    memmove(at + n, at, e->text.len - e->cursor + 1);
    memcpy(at, s, n);
    e->text.len += n;
    e->cursor += n;
    return 0;
}

static void cut(neap_edit *e, size_t from, size_t to) {
    memmove(e->text.data + from, e->text.data + to, e->text.len - to + 1);
    e->text.len -= to - from;
    e->cursor = from;
}

int edit_replace(neap_edit *e, const char *text) {
    size_t n = strlen(text);
    if (n > e->text.len && buf_reserve(&e->text, n - e->text.len)) return NEAP_ERR_MEMORY;
    memmove(e->text.data, text, n + 1);
    e->text.len = e->cursor = n;
    return 0;
}

int neap_edit_set(neap_edit *e, const char *text) {
    int err = edit_replace(e, text);
    return err ? err : e->shown ? edit_draw(e) : 0;
}

/* Remembers the present text for ^_ . The oldest step falls out of the ring. */
static int save_undo(neap_edit *e) {
    char *copy = strdup(e->text.data);
    if (!copy) return NEAP_ERR_MEMORY;
    if (e->undo_len == EDIT_UNDO_MAX) {
        free(e->undo[0].text);
        memmove(e->undo, e->undo + 1, --e->undo_len * sizeof *e->undo);
    }
    e->undo[e->undo_len++] = (edit_undo){copy, e->cursor};
    return 0;
}

static int undo(neap_edit *e) {
    if (e->undo_len == 0) return 0;
    edit_undo u = e->undo[--e->undo_len];
    int err = edit_replace(e, u.text);
    e->cursor = u.cursor;
    free(u.text);
    return err;
}

/* Cuts [from, to) into the kill buffer; kills in a row collect there, before or after what it holds. */
static int kill_range(neap_edit *e, size_t from, size_t to, int before) {
    if (from == to) return 0;
    int err = save_undo(e);
    if (!e->killing) buf_clear(&e->kill);
    size_t n = to - from, had = e->kill.len;
    err |= buf_add(&e->kill, e->text.data + from, n);
    if (err) return NEAP_ERR_MEMORY;
    if (before && had) {
        memmove(e->kill.data + n, e->kill.data, had);
        memcpy(e->kill.data, e->text.data + from, n);
    }
    cut(e, from, to);
    e->killing = 2;
    return 0;
}

static int word_byte(char c) { return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 128; }

static size_t word_left(const neap_edit *e) {
    size_t i = e->cursor;
    while (i > 0 && !word_byte(e->text.data[i - 1])) i--;
    while (i > 0 && word_byte(e->text.data[i - 1])) i--;
    return i;
}

static size_t word_right(const neap_edit *e) {
    size_t i = e->cursor;
    while (i < e->text.len && !word_byte(e->text.data[i])) i++;
    while (i < e->text.len && word_byte(e->text.data[i])) i++;
    return i;
}

static size_t line_start(const neap_edit *e, size_t i) {
    while (i > 0 && e->text.data[i - 1] != '\n') i--;
    return i;
}

static size_t line_end(const neap_edit *e, size_t i) {
    while (i < e->text.len && e->text.data[i] != '\n') i++;
    return i;
}

/* Up and down move inside a text of several lines, and at its edge walk through the history. */
static int vertical(neap_edit *e, int direction) {
    size_t start = line_start(e, e->cursor), end = line_end(e, e->cursor);
    if (direction < 0 ? start == 0 : end == e->text.len) return edit_browse(e, direction);
    int want = neap_edit_columns(e->text.data + start, e->cursor - start);
    size_t i = direction < 0 ? line_start(e, start - 1) : end + 1, stop = line_end(e, i), used;
    for (int column = 0; i < stop && column < want; i += used) column += edit_width(e->text.data + i, stop - i, &used);
    e->cursor = i;
    return 0;
}

static int transpose(neap_edit *e) {
    size_t b = e->cursor == e->text.len ? edit_prev(e->text.data, e->cursor) : e->cursor;
    if (b == 0) return 0;
    size_t a = edit_prev(e->text.data, b), end = edit_next(e->text.data, e->text.len, b);
    char left[8];
    if (b - a > sizeof left || save_undo(e)) return b - a > sizeof left ? 0 : NEAP_ERR_MEMORY;
    memcpy(left, e->text.data + a, b - a);
    memmove(e->text.data + a, e->text.data + b, end - b);
    memcpy(e->text.data + a + (end - b), left, b - a);
    e->cursor = end;
    return 0;
}

static int change_case(neap_edit *e, int key) {
    size_t end = word_right(e);
    int err = save_undo(e), first = 1;
    for (; !err && e->cursor < end; e->cursor++) {
        char *c = &e->text.data[e->cursor];
        if ((unsigned char)*c >= 128 || !word_byte(*c)) continue;
        *c = (char)(key == 'u' || (key == 'c' && first) ? toupper((unsigned char)*c) : tolower((unsigned char)*c));
        first = 0;
    }
    return err;
}

/* ---- keys ----------------------------------------------------------------------------------------------------------- */
static int meta(neap_edit *e, int c) {
    switch (c) {
    case 'b':
    case 'B': e->cursor = word_left(e); return 0;
    case 'f':
    case 'F': e->cursor = word_right(e); return 0;
    case 'd':
    case 'D': return kill_range(e, e->cursor, word_right(e), 0);
    case 127:
    case 8: return kill_range(e, word_left(e), e->cursor, 1);
    case '<': e->cursor = 0; return 0;
    case '>': e->cursor = e->text.len; return 0;
    case 'u':
    case 'l':
    case 'c': return change_case(e, c);
    case '\r':
    case '\n': return insert(e, "\n", 1); /* a new line without asking whether the text is complete */
    }
    return 0;
}

static int text_key(neap_edit *e) {
    if (!e->typing && save_undo(e)) return NEAP_ERR_MEMORY;
    e->typing = 2;
    return insert(e, (char *)e->keys.seq, (size_t)e->keys.len);
}

static int kill_back_to_blank(neap_edit *e) { /* ^W, as a terminal does it */
    size_t i = e->cursor;
    while (i > 0 && isspace((unsigned char)e->text.data[i - 1])) i--;
    while (i > 0 && !isspace((unsigned char)e->text.data[i - 1])) i--;
    return kill_range(e, i, e->cursor, 1);
}

static int erase(neap_edit *e, size_t from, size_t to) {
    if (from == to) return 0;
    if (save_undo(e)) return NEAP_ERR_MEMORY;
    cut(e, from, to);
    return 0;
}

static int yank(neap_edit *e) {
    if (!e->kill.len) return 0;
    return save_undo(e) ? NEAP_ERR_MEMORY : insert(e, e->kill.data, e->kill.len);
}

static int clear_screen(neap_edit *e) {
    e->write("\033[H\033[2J", 7, e->ud);
    e->cursor_row = 0;
    return 0;
}

/* One key. Returns an event, 0, or a negative error. */
static int press(neap_edit *e, int key) {
    const char *s = e->text.data;
    if (key & KEY_META) return meta(e, key & 255);
    switch (key) {
    case KEY_TEXT: return text_key(e);
    case 1:
    case KEY_HOME: e->cursor = line_start(e, e->cursor); return 0;
    case 5:
    case KEY_END: e->cursor = line_end(e, e->cursor); return 0;
    case 2:
    case KEY_LEFT: e->cursor = edit_prev(s, e->cursor); return 0;
    case 6:
    case KEY_RIGHT: e->cursor = edit_next(s, e->text.len, e->cursor); return 0;
    case 3: return NEAP_EDIT_INTERRUPT;
    case 4:
        if (e->text.len == 0) return NEAP_EDIT_EOF;
        /* fall through */
    case KEY_DELETE: return erase(e, e->cursor, edit_next(s, e->text.len, e->cursor));
    case 8:
    case 127: return erase(e, edit_prev(s, e->cursor), e->cursor);
    case 9: return NEAP_EDIT_TAB;
    case 10:
    case 13: return NEAP_EDIT_ENTER;
    case 11: {
        size_t end = line_end(e, e->cursor);
        return kill_range(e, e->cursor, end == e->cursor && end < e->text.len ? end + 1 : end, 0);
    }
    case 12: return clear_screen(e);
    case 14:
    case KEY_DOWN: return vertical(e, 1);
    case 16:
    case KEY_UP: return vertical(e, -1);
    case 18: return edit_search_begin(e);
    case 20: return transpose(e);
    case 21: return kill_range(e, line_start(e, e->cursor), e->cursor, 1);
    case 23: return kill_back_to_blank(e);
    case 25: return yank(e);
    case 26: return NEAP_EDIT_SUSPEND;
    case 31: return undo(e);
    case KEY_WORD_LEFT: e->cursor = word_left(e); return 0;
    case KEY_WORD_RIGHT: e->cursor = word_right(e); return 0;
    }
    return 0;
}

int neap_edit_feed(neap_edit *e, const char *bytes, size_t n, size_t *used) {
    int event = 0;
    size_t i = 0;
    while (i < n && event == 0) {
        int key = edit_key_next(&e->keys, (unsigned char)bytes[i++]);
        if (key == KEY_NONE) continue;
        if (e->searching) {
            event = edit_search_key(e, key);
            if (event > 0) event = 0;
            else if (event == 0) event = press(e, key);
        } else {
            event = press(e, key);
        }
        if (e->killing) e->killing--; /* 2 set by this key, 1 left for the next, then over */
        if (e->typing) e->typing--;
        if (event < 0) break;
    }
    *used = i;
    if (event < 0) return event;
    /* A redraw before ENTER or INTERRUPT would be wiped at once by finish or abandon, which draw the end themselves. */
    int err = event == NEAP_EDIT_ENTER || event == NEAP_EDIT_INTERRUPT || event == NEAP_EDIT_EOF ? 0 : edit_draw(e);
    return err ? err : event;
}

int neap_edit_newline(neap_edit *e) {
    e->cursor = e->text.len;
    int err = insert(e, "\n", 1);
    return err ? err : edit_draw(e);
}

int neap_edit_finish(neap_edit *e, int remember) {
    edit_end(e, "\r\n");
    int err = remember ? neap_edit_history_add(e, e->text.data) : 0;
    buf_clear(&e->text);
    e->cursor = 0;
    return err;
}

void neap_edit_abandon(neap_edit *e) {
    edit_end(e, e->text.len ? "^C\r\n" : "\r\n");
    buf_clear(&e->text);
    e->cursor = 0;
    e->searching = 0;
}

/* ---- completion ----------------------------------------------------------------------------------------------------- */
/* The words in columns under the line. */
static int list_words(neap_edit *e, const char *const *words, size_t n) {
    int widest = 1;
    for (size_t i = 0; i < n; i++) {
        int w = neap_edit_columns(words[i], strlen(words[i]));
        if (w > widest) widest = w;
    }
    size_t most = (size_t)e->rows * 2, shown = n > most ? most : n;
    int per_row = e->columns / (widest + 2);
    if (per_row < 1) per_row = 1;
    size_t rows = (shown + (size_t)per_row - 1) / (size_t)per_row;
    neap_buf out = {0};
    int err = 0;
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = r; i < shown; i += rows) {
            err |= buf_puts(&out, words[i]);
            int blanks = i + rows < shown ? widest + 2 - neap_edit_columns(words[i], strlen(words[i])) : 0;
            while (blanks-- > 0) err |= buf_putc(&out, ' ');
        }
        err |= buf_puts(&out, "\r\n");
    }
    if (n > shown) err |= buf_printf(&out, "... %zu more\r\n", n - shown);
    size_t cursor = e->cursor;
    edit_end(e, "\r\n");
    e->cursor = cursor;
    if (!err) e->write(out.data, out.len, e->ud);
    buf_free(&out);
    return err ? NEAP_ERR_MEMORY : edit_draw(e);
}

int neap_edit_complete(neap_edit *e, size_t from, const char *const *words, size_t n) {
    if (n == 0 || from > e->cursor) return 0;
    size_t common = strlen(words[0]);
    for (size_t i = 1; i < n; i++) {
        size_t k = 0;
        while (k < common && words[i][k] == words[0][k]) k++;
        common = k;
    }
    while (common > 0 && ((unsigned char)words[0][common] & 0xC0) == 0x80) common--; /* not inside a character */
    size_t have = e->cursor - from;
    int grows = common > have || (n == 1 && (common != have || memcmp(words[0], e->text.data + from, have)));
    if (grows && common >= have) {
        int err = save_undo(e);
        if (err) return err;
        cut(e, from, e->cursor);
        err = insert(e, words[0], common);
        return err ? err : edit_draw(e);
    }
    if (n == 1) return 0;
    return list_words(e, words, n);
}
