/* edit_view.c: the editor on the screen, and the terminal's modes. Every change redraws everything from the first row: with one write per batch
   of keys that is cheap, never flickers, and there is no second model of the screen that could be wrong. */
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "host/edit_int.h"

static unsigned decode(const unsigned char *s, size_t n, size_t *used) {
    unsigned c = s[0];
    *used = 1;
    if (c >= 0xC2 && c <= 0xDF && n >= 2) {
        *used = 2;
        return (c & 0x1F) << 6 | (s[1] & 0x3Fu);
    }
    if (c >= 0xE0 && c <= 0xEF && n >= 3) {
        *used = 3;
        return (c & 0x0F) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
    }
    if (c >= 0xF0 && c <= 0xF4 && n >= 4) {
        *used = 4;
        return (c & 0x07) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
    }
    return c;
}

int edit_width(const char *s, size_t n, size_t *used) {
    static const unsigned zero[][2] = {{0x300, 0x36F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}};
    static const unsigned wide[][2] = {{0x1100, 0x115F}, {0x2E80, 0xA4CF}, {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},  {0xFE30, 0xFE6F},
                                       {0xFF00, 0xFF60}, {0xFFE0, 0xFFE6}, {0x1F300, 0x1FAFF}, {0x20000, 0x3FFFD}};
    unsigned c = decode((const unsigned char *)s, n, used);
    if (c < 0x20 || c == 0x7F) return 2; /* shown as ^X */
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++)
        if (c >= zero[i][0] && c <= zero[i][1]) return 0;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (c >= wide[i][0] && c <= wide[i][1]) return 2;
    return 1;
}

int neap_edit_columns(const char *text, size_t n) {
    int columns = 0;
    size_t used;
    for (size_t i = 0; i < n; i += used) columns += edit_width(text + i, n - i, &used);
    return columns;
}

/* ---- layout --------------------------------------------------------------------------------------------------------- */
/* Where drawing stands: the rows that fit on the screen are written, all are counted. */
typedef struct pen {
    neap_buf *out;
    int row, column, columns;
    int first, last; /* rows that are written */
    int cursor_row, cursor_column;
    int err;
} pen;

static void put(pen *p, const char *s, size_t n) {
    if (p->row >= p->first && p->row <= p->last) p->err |= buf_add(p->out, s, n);
}

static void next_row(pen *p) {
    p->row++;
    p->column = 0;
    if (p->row > p->first && p->row <= p->last) p->err |= buf_puts(p->out, "\r\n");
}

static void put_char(pen *p, const char *s, size_t n, int width) {
    if (p->column + width > p->columns) next_row(p);
    put(p, s, n);
    p->column += width;
}

static void put_prompt(pen *p, const char *s) {
    for (size_t n = strlen(s), used, i = 0; i < n; i += used) {
        if (s[i] == 27) { /* a colour: no columns */
            used = 1;
            while (i + used < n && !(s[i + used] >= 0x40 && s[i + used] <= 0x7E && s[i + used] != '[')) used++;
            if (i + used < n) used++;
            put(p, s + i, used);
        } else {
            int width = edit_width(s + i, n - i, &used);
            put_char(p, s + i, used, width);
        }
    }
}

static void put_text(pen *p, const neap_edit *e, const char *s, size_t len, size_t cursor) {
    for (size_t i = 0, used; i <= len; i += used) {
        if (i == cursor) {
            if (p->column >= p->columns) next_row(p);
            p->cursor_row = p->row;
            p->cursor_column = p->column;
        }
        if (i == len) break;
        used = 1;
        if (s[i] == '\n') {
            next_row(p);
            put_prompt(p, e->more);
        } else if (s[i] == '\t') {
            do put_char(p, " ", 1, 1);
            while (p->column % 4);
        } else if ((unsigned char)s[i] < 32 || s[i] == 127) {
            char shown[2] = {'^', (char)(s[i] ^ 64)};
            put_char(p, shown, 2, 2);
        } else {
            int width = edit_width(s + i, len - i, &used);
            put_char(p, s + i, used, width);
        }
    }
}

static void lay_out(neap_edit *e, pen *p) {
    if (e->searching) {
        const char *match = e->found < e->history_len ? e->history[e->found] : "";
        const char *hit = e->query.len ? strstr(match, e->query.data) : NULL;
        put_prompt(p, *match || !e->query.len ? "(search '" : "(no match for '");
        put_text(p, e, e->query.len ? e->query.data : "", e->query.len, (size_t)-1);
        put_prompt(p, "') ");
        put_text(p, e, match, strlen(match), hit ? (size_t)(hit - match) : strlen(match));
        return;
    }
    put_prompt(p, e->prompt);
    put_text(p, e, e->text.data ? e->text.data : "", e->text.len, e->cursor);
}

int edit_draw(neap_edit *e) {
    pen measure = {&e->out, 0, 0, e->columns, 1, 0, 0, 0, 0}; /* first > last: counts only */
    lay_out(e, &measure);
    int rows = measure.row + 1, first = 0;
    if (rows > e->rows) { /* taller than the screen: the part around the cursor */
        first = measure.cursor_row - e->rows / 2;
        if (first > rows - e->rows) first = rows - e->rows;
        if (first < 0) first = 0;
    }
    int last = rows > e->rows ? first + e->rows - 1 : rows - 1;
    buf_clear(&e->out);
    int err = buf_puts(&e->out, "\r");
    if (e->shown && e->cursor_row > 0) err |= buf_printf(&e->out, "\033[%dA", e->cursor_row);
    err |= buf_puts(&e->out, "\033[J");
    pen p = {&e->out, 0, 0, e->columns, first, last, 0, 0, 0};
    lay_out(e, &p);
    int up = last - p.cursor_row;
    err |= buf_puts(&e->out, "\r");
    if (up > 0) err |= buf_printf(&e->out, "\033[%dA", up);
    if (p.cursor_column > 0) err |= buf_printf(&e->out, "\033[%dC", p.cursor_column);
    if (err || p.err) return NEAP_ERR_MEMORY;
    e->write(e->out.data, e->out.len, e->ud);
    e->shown = 1;
    e->cursor_row = p.cursor_row - first;
    return 0;
}

void neap_edit_hide(neap_edit *e) {
    if (!e->shown) return;
    char s[32];
    int n = e->cursor_row > 0 ? snprintf(s, sizeof s, "\r\033[%dA\033[J", e->cursor_row) : snprintf(s, sizeof s, "\r\033[J");
    e->write(s, (size_t)n, e->ud);
    e->shown = 0;
    e->cursor_row = 0;
}

int neap_edit_show(neap_edit *e) { return e->shown || !e->prompt ? 0 : edit_draw(e); }

void edit_end(neap_edit *e, const char *tail) {
    if (e->shown) {
        e->cursor = e->text.len;
        edit_draw(e);
        e->write(tail, strlen(tail), e->ud);
    }
    e->shown = 0;
    e->cursor_row = 0;
}

void neap_edit_resize(neap_edit *e, int columns, int rows) {
    int narrower = columns < e->columns;
    e->columns = columns > 4 ? columns : 4;
    e->rows = rows > 1 ? rows : 1;
    if (!e->shown) return;
    if (narrower) { /* the terminal may have wrapped our rows anew: start on a fresh line rather than wipe what is not ours */
        e->write("\r\n", 2, e->ud);
        e->cursor_row = 0;
    }
    edit_draw(e);
}

/* ---- the terminal --------------------------------------------------------------------------------------------------- */
/* The process has one controlling terminal; its settings are process-wide by nature, so this is the one static of the file. */
static struct termios saved;
static volatile int saved_fd = -1;

static void say(int fd, const char *s, size_t n) {
    int out = isatty(STDOUT_FILENO) ? STDOUT_FILENO : fd;
    ssize_t wrote = write(out, s, n);
    (void)wrote; /* a terminal that is gone needs no paste mode */
}

int neap_tty_raw(int fd) {
    struct termios t;
    if (tcgetattr(fd, &t)) return NEAP_ERR_IO;
    if (saved_fd == -1) {
        saved = t;
        saved_fd = fd;
    }
    t.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    t.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    t.c_cflag |= CS8;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    if (tcsetattr(fd, TCSADRAIN, &t)) return NEAP_ERR_IO;
    say(fd, "\033[?2004h", 8);
    return 0;
}

void neap_tty_cooked(int fd) {
    if (saved_fd != fd) return;
    say(fd, "\033[?2004l", 8);
    tcsetattr(fd, TCSADRAIN, &saved);
    saved_fd = -1;
}

int neap_tty_size(int fd, int *columns, int *rows) {
    struct winsize w;
    if (ioctl(fd, TIOCGWINSZ, &w) || w.ws_col == 0) return NEAP_ERR_IO;
    *columns = w.ws_col;
    *rows = w.ws_row ? w.ws_row : 24;
    return 0;
}
