/* edit.h: a line editor without a terminal of its own. Bytes that were typed go in (feed), bytes to show come out (the write callback), and
   what the editor cannot decide alone comes back as an event. So it runs inside any event loop, and a test drives it with plain strings.

   Emacs keys, history with ^R search, bracketed paste, several lines, UTF-8, undo. The caller owns the terminal (neap_tty_* at the end), decides
   on Enter whether the text is complete, and finds completions; both may take their time. One thread; the object is the caller's.

   readline is GPL and a blocking library; hence this. */
#ifndef NEAP_EDIT_H
#define NEAP_EDIT_H
#include <stddef.h>
#include "host/err.h"

typedef struct neap_edit neap_edit;

/* What feed found. After ENTER call finish or newline; after TAB maybe complete; after INTERRUPT abandon. The others need no answer. */
enum {
    NEAP_EDIT_MORE = 0,      /* all bytes are used up */
    NEAP_EDIT_ENTER = 1,     /* is the text complete? then finish, else newline */
    NEAP_EDIT_TAB = 2,       /* completion wanted at the cursor */
    NEAP_EDIT_EOF = 3,       /* ^D on an empty line */
    NEAP_EDIT_INTERRUPT = 4, /* ^C */
    NEAP_EDIT_SUSPEND = 5    /* ^Z */
};

typedef void (*neap_edit_write_fn)(const char *bytes, size_t n, void *ud);

/* New editor that shows nothing yet; NULL when memory is short. `write` must not call back into the editor. */
neap_edit *neap_edit_new(neap_edit_write_fn write, void *ud);
void neap_edit_free(neap_edit *e); /* NULL is fine; shows nothing */

/* Shows an empty line behind `prompt`; lines after the first get `more`. Both are copied. 0 or NEAP_ERR_MEMORY. */
int neap_edit_start(neap_edit *e, const char *prompt, const char *more);

/* Takes typed bytes up to the first event; *used says how many. Returns an event or a negative NEAP_ERR_*. Redraws once. */
int neap_edit_feed(neap_edit *e, const char *bytes, size_t n, size_t *used);

const char *neap_edit_text(const neap_edit *e, size_t *len, size_t *cursor); /* borrowed until the next call; bytes */
int neap_edit_newline(neap_edit *e);                                         /* after ENTER: the text goes on in a new line */
int neap_edit_finish(neap_edit *e, int remember);  /* after ENTER: leaves the text on the screen, puts it into the history, hides the editor */
void neap_edit_abandon(neap_edit *e);              /* after INTERRUPT or EOF: leaves the text on the screen, forgets it, hides the editor */
int neap_edit_set(neap_edit *e, const char *text); /* replaces the text (a line fetched from somewhere); cursor at its end */

/* After TAB: `words` can stand for text[from..cursor]. Inserts what they have in common; with nothing to insert, lists them under the line. */
int neap_edit_complete(neap_edit *e, size_t from, const char *const *words, size_t n);

/* Wipes the prompt and text off the screen and puts them back: around anything that others print. Both may be called twice. */
void neap_edit_hide(neap_edit *e);
int neap_edit_show(neap_edit *e);
void neap_edit_resize(neap_edit *e, int columns, int rows); /* at start and on SIGWINCH; shows anew if shown */

/* History. An entry equal to the one before it, or that starts with a blank, is not kept. With a path every entry is appended to that file at
   once (mode 0600), so that two prompts share it; load keeps the newest `max` entries and shortens a file that has grown to twice that. */
int neap_edit_history_load(neap_edit *e, const char *path, size_t max); /* a missing file is an empty one; NEAP_ERR_IO with errno otherwise */
int neap_edit_history_add(neap_edit *e, const char *text);
size_t neap_edit_history_len(const neap_edit *e);
const char *neap_edit_history_at(const neap_edit *e, size_t i); /* 0 = oldest; NULL past the end */

/* Columns that UTF-8 text takes (wide 2, combining 0, control and broken bytes as the editor shows them). */
int neap_edit_columns(const char *text, size_t n);

/* The terminal. raw saves the settings of fd once and turns line mode, echo and signals off, bracketed paste on; cooked gives the settings back
   (safe to call at any time, also from an exit handler). 0 or NEAP_ERR_IO. */
int neap_tty_raw(int fd);
void neap_tty_cooked(int fd);
int neap_tty_size(int fd, int *columns, int *rows); /* 0, or NEAP_ERR_IO where fd is no terminal */
#endif
