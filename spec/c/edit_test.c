/* edit_test.c: the line editor against a small terminal of its own: what the editor writes is interpreted here (the few sequences it uses) into a
   grid of cells, and the checks look at the grid and the cursor, as a person would. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/buf.h"
#include "host/edit.h"
#include "spec/c/test.h"

enum { ROWS = 12, COLUMNS = 20 };
static char cell[ROWS][COLUMNS][5];
static int row, column, pending; /* pending: the last column was written, the next character wraps */

static void wipe_from(int r, int c) {
    for (; r < ROWS; r++, c = 0)
        for (int i = c; i < COLUMNS; i++) strcpy(cell[r][i], "");
}

static void reset_terminal(void) {
    row = column = pending = 0;
    wipe_from(0, 0);
}

static void down(void) {
    if (row + 1 < ROWS) {
        row++;
        return;
    }
    memmove(cell[0], cell[1], sizeof cell - sizeof cell[0]);
    wipe_from(ROWS - 1, 0);
}

static void terminal(const char *s, size_t n, void *ud) {
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        if (c == 27 && i + 1 < n && s[i + 1] == '[') {
            int number = 0, digits = 0;
            for (i += 2; s[i] >= '0' && s[i] <= '9'; i++, digits = 1) number = number * 10 + s[i] - '0';
            if (!digits) number = s[i] == 'J' ? 0 : 1;
            if (s[i] == 'A') row = row > number ? row - number : 0;
            else if (s[i] == 'C') column = column + number < COLUMNS ? column + number : COLUMNS - 1;
            else if (s[i] == 'J' && number == 0) wipe_from(row, column);
            else if (s[i] == 'J' && number == 2) wipe_from(0, 0);
            else if (s[i] == 'H') row = column = 0;
            else if (s[i] != 'm') CHECK(0, "unknown sequence ESC [ %d %c", number, s[i]);
            pending = 0;
            i++;
        } else if (c == '\r') {
            column = pending = 0;
            i++;
        } else if (c == '\n') {
            down();
            i++;
        } else {
            size_t len = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
            int width = neap_edit_columns(s + i, len);
            if (c < 32) CHECK(0, "control character %d on the screen", c);
            if (width == 0) {
                i += len;
                continue;
            }
            if (pending || column + width > COLUMNS) {
                column = pending = 0;
                down();
            }
            memcpy(cell[row][column], s + i, len);
            cell[row][column][len] = 0;
            if (width == 2 && column + 1 < COLUMNS) strcpy(cell[row][column + 1], "");
            column += width;
            if (column >= COLUMNS) column = COLUMNS - 1, pending = 1;
            i += len;
        }
    }
}

static const char *line(int r) {
    static char text[COLUMNS * 5];
    text[0] = 0;
    int last = -1;
    for (int i = 0; i < COLUMNS; i++)
        if (cell[r][i][0] && cell[r][i][0] != ' ') last = i;
    for (int i = 0; i <= last; i++)
        strcat(text, cell[r][i][0] ? cell[r][i] : (i > 0 && neap_edit_columns(cell[r][i - 1], strlen(cell[r][i - 1])) == 2) ? "" : " ");
    return text;
}

static int feed(neap_edit *e, const char *keys) {
    size_t used;
    int event = neap_edit_feed(e, keys, strlen(keys), &used);
    CHECK(used == strlen(keys), "all of %s is used", keys);
    return event;
}

static neap_edit *begin(void) {
    reset_terminal();
    neap_edit *e = neap_edit_new(terminal, NULL);
    neap_edit_resize(e, COLUMNS, ROWS);
    CHECK(neap_edit_start(e, "> ", ". ") == 0);
    return e;
}

#define TEXT(e, want) CHECK(!strcmp(neap_edit_text(e, NULL, NULL), want), "text is '%s'", neap_edit_text(e, NULL, NULL))
#define LINE(r, want) CHECK(!strcmp(line(r), want), "row %d is '%s'", r, line(r))
#define AT(r, c)      CHECK(row == (r) && column == (c), "cursor is at %d, %d", row, column)

static void typing_and_moving(void) {
    neap_edit *e = begin();
    CHECK(feed(e, "hello world") == NEAP_EDIT_MORE);
    LINE(0, "> hello world");
    AT(0, 13);
    feed(e, "\001X\005Y"); /* ^A ^E */
    LINE(0, "> Xhello worldY");
    feed(e, "\033b\033bZ"); /* M-b */
    LINE(0, "> ZXhello worldY");
    neap_edit_free(e);

    e = begin();
    feed(e, "ab\033[D\033[Dc\033[Cd\033[3~");
    TEXT(e, "cad");
    feed(e, "\177\010\010");
    TEXT(e, "");
    CHECK(feed(e, "\177") == 0);
    CHECK(feed(e, "\004") == NEAP_EDIT_EOF);
    neap_edit_free(e);
}

static void killing(void) {
    neap_edit *e = begin();
    feed(e, "one two three\027\027"); /* ^W twice collects */
    TEXT(e, "one ");
    feed(e, "\031"); /* ^Y */
    TEXT(e, "one two three");
    feed(e, "\025"); /* ^U */
    TEXT(e, "");
    feed(e, "\031\001\013\031\031"); /* ^Y ^A ^K ^Y ^Y */
    TEXT(e, "one two threeone two three");
    feed(e, "\025ab cd\001\033d\033u"); /* M-d kills a word, M-u raises the next */
    TEXT(e, " CD");
    feed(e, "\024"); /* ^T at the end swaps the last two */
    TEXT(e, " DC");
    neap_edit_free(e);
}

static void undoing(void) {
    neap_edit *e = begin();
    feed(e, "first\027second\037"); /* the typed run is one step */
    TEXT(e, "");
    feed(e, "\037");
    TEXT(e, "first");
    feed(e, "\037\037\037\037");
    TEXT(e, "");
    for (int i = 0; i < 300; i++) feed(e, "a \027");
    for (int i = 0; i < 700; i++) feed(e, "\037");
    neap_edit_free(e);
}

static void utf8(void) {
    neap_edit *e = begin();
    feed(e, "t\xC3"); /* half a character */
    TEXT(e, "t");
    feed(e, "\xA9"
            "\xE6\xB8\xA9"
            "e\xCC\x81!");
    LINE(0, "> t\xC3\xA9\xE6\xB8\xA9"
            "e!");
    AT(0, 8);
    feed(e, "\177\177\177\177"); /* '!', the accent, 'e', the wide one */
    TEXT(e, "t\xC3\xA9");
    AT(0, 4);
    feed(e, "\002\177");
    TEXT(e, "\xC3\xA9");
    feed(e, "\xFF\xC3(\xED");
    TEXT(e, "(\xC3\xA9");
    neap_edit_free(e);
}

static void wrapping(void) {
    neap_edit *e = begin();
    feed(e, "012345678901234567"); /* fills the row exactly: the cursor stands on the next */
    LINE(0, "> 012345678901234567");
    AT(1, 0);
    feed(e, "89");
    LINE(1, "89");
    AT(1, 2);
    feed(e, "\001");
    AT(0, 2);
    feed(e, "\013");
    LINE(0, ">");
    LINE(1, "");
    feed(e, "\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9\xE6\xB8\xA9"
            "x"
            "\xE6\xB8\xA9");
    LINE(1, "\xE6\xB8\xA9"); /* a wide character never stands across the edge */
    neap_edit_free(e);
}

static void tall_text_scrolls(void) {
    neap_edit *e = begin();
    for (int i = 0; i < 40; i++) feed(e, "x\033\r"); /* M-Enter: a new line unasked */
    feed(e, "end");
    LINE(ROWS - 1, ". end");
    AT(ROWS - 1, 5);
    feed(e, "\033<");
    LINE(0, "> x");
    AT(0, 3 - 1);
    neap_edit_free(e);
}

static void lines_and_enter(void) {
    neap_edit *e = begin();
    CHECK(feed(e, "for i = 1, 3 do\r") == NEAP_EDIT_ENTER);
    CHECK(neap_edit_newline(e) == 0);
    LINE(0, "> for i = 1, 3 do");
    LINE(1, ".");
    feed(e, "end\033[A");
    AT(0, 5);
    feed(e, "\033[B\005");
    CHECK(feed(e, "\r") == NEAP_EDIT_ENTER);
    CHECK(neap_edit_finish(e, 1) == 0);
    AT(2, 0);
    CHECK(neap_edit_history_len(e) == 1);
    CHECK(!strcmp(neap_edit_history_at(e, 0), "for i = 1, 3 do\nend"));
    neap_edit_start(e, "> ", ". ");
    CHECK(feed(e, "abc\003") == NEAP_EDIT_INTERRUPT);
    neap_edit_abandon(e);
    LINE(2, "> abc^C");
    AT(3, 0);
    TEXT(e, "");
    size_t used;
    neap_edit_start(e, "> ", ". ");
    CHECK(neap_edit_feed(e, "a\rb\r", 4, &used) == NEAP_EDIT_ENTER && used == 2, "stops behind the first event");
    neap_edit_free(e);
}

static void pasting(void) {
    neap_edit *e = begin();
    CHECK(feed(e, "\033[200~a = 1\rb\t= 2\n\033[201~") == NEAP_EDIT_MORE, "a pasted newline is no Enter");
    TEXT(e, "a = 1\nb\t= 2\n");
    LINE(0, "> a = 1");
    LINE(1, ". b = 2");
    CHECK(feed(e, "\033[200~\001\003\004\033[201~") == NEAP_EDIT_MORE, "pasted control characters are no commands");
    TEXT(e, "a = 1\nb\t= 2\n");
    feed(e, "\037");
    neap_edit_free(e);
}

static void browsing(void) {
    neap_edit *e = begin();
    neap_edit_history_add(e, "one");
    neap_edit_history_add(e, "two");
    neap_edit_history_add(e, "two");
    neap_edit_history_add(e, " secret");
    CHECK(neap_edit_history_len(e) == 2);
    neap_edit_start(e, "> ", ". ");
    feed(e, "draft\033[A");
    TEXT(e, "two");
    feed(e, "\020\020\020");
    TEXT(e, "one");
    feed(e, "\016\016\016");
    TEXT(e, "draft");
    neap_edit_free(e);
}

static void searching(void) {
    neap_edit *e = begin();
    neap_edit_history_add(e, "redis.get 'a'");
    neap_edit_history_add(e, "plot(x)");
    neap_edit_history_add(e, "redis.get 'b'");
    neap_edit_start(e, "> ", ". ");
    feed(e, "kept\022get");
    LINE(0, "(search 'get') redis");
    feed(e, "\022");
    CHECK(feed(e, "\r") == NEAP_EDIT_ENTER);
    TEXT(e, "redis.get 'a'");
    neap_edit_set(e, "kept");
    feed(e, "\022plot\007"); /* ^G gives up */
    TEXT(e, "kept");
    feed(e, "\022nothing-like-it");
    LINE(0, "(no match for 'nothi");
    feed(e, "\003");
    TEXT(e, "kept");
    feed(e, "\022pl\005!"); /* any other key takes the match and works on it */
    TEXT(e, "plot(x)!");
    neap_edit_free(e);
}

static void completing(void) {
    neap_edit *e = begin();
    CHECK(feed(e, "x = ta\t") == NEAP_EDIT_TAB);
    const char *one[] = {"table"}, *many[] = {"table.concat", "table.insert"};
    CHECK(neap_edit_complete(e, 4, one, 1) == 0);
    TEXT(e, "x = table");
    neap_edit_complete(e, 4, many, 2);
    TEXT(e, "x = table.");
    neap_edit_complete(e, 4, many, 2);
    TEXT(e, "x = table.");
    LINE(0, "> x = table.");
    LINE(1, "table.concat");
    LINE(2, "table.insert");
    LINE(3, "> x = table.");
    AT(3, 12);
    CHECK(neap_edit_complete(e, 0, NULL, 0) == 0);
    feed(e, "\037");
    TEXT(e, "x = table");
    neap_edit_free(e);
}

static void hiding(void) {
    neap_edit *e = begin();
    feed(e, "012345678901234567890");
    neap_edit_hide(e);
    neap_edit_hide(e);
    AT(0, 0);
    LINE(0, "");
    LINE(1, "");
    terminal("news\r\n", 6, NULL);
    neap_edit_show(e);
    LINE(0, "news");
    LINE(1, "> 012345678901234567");
    LINE(2, "890");
    AT(2, 3);
    neap_edit_free(e);
}

static void history_file(void) {
    char path[] = "/tmp/neap_edit_XXXXXX";
    int fd = mkstemp(path);
    close(fd);
    unlink(path);
    neap_edit *e = begin();
    CHECK(neap_edit_history_load(e, path, 3) == 0, "a missing file is an empty one");
    neap_edit_history_add(e, "a\nb \\n c");
    neap_edit_history_add(e, "two");
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    neap_edit *other = begin(); /* a second prompt on the same file */
    neap_edit_history_load(other, path, 3);
    CHECK(neap_edit_history_len(other) == 2 && !strcmp(neap_edit_history_at(other, 0), "a\nb \\n c"));
    for (int i = 0; i < 10; i++) {
        char text[8];
        snprintf(text, sizeof text, "n%d", i);
        neap_edit_history_add(other, text);
    }
    neap_edit_free(other);
    neap_edit *third = begin();
    neap_edit_history_load(third, path, 3);
    CHECK(neap_edit_history_len(third) == 3 && !strcmp(neap_edit_history_at(third, 2), "n9"));
    CHECK(stat(path, &st) == 0 && st.st_size == 9, "the file was shortened to %ld bytes", (long)st.st_size);
    neap_edit_free(third);
    neap_edit_free(e);
    unlink(path);
    e = begin();
    CHECK(neap_edit_history_load(e, "/", 3) == NEAP_ERR_IO);
    neap_edit_free(e);
}

/* Random keys: nothing may crash, the text stays valid, the cursor inside it, and a redraw changes nothing. */
static void anything(void) {
    static const char *const keys[] = {
        "a",      "\xC3\xA9",  "\xE6\xB8\xA9", " ",      "\001",      "\005",      "\002",   "\006",          "\004",    "\010",  "\013",  "\025",
        "\027",   "\031",      "\024",         "\037",   "\033b",     "\033f",     "\033d",  "\033\177",      "\033<",   "\033>", "\033u", "\033\r",
        "\033[A", "\033[B",    "\033[C",       "\033[D", "\033[1;5C", "\033[1;5D", "\033[H", "\033[F",        "\033[3~", "\022",  "\007",  "\014",
        "\t",     "\033[200~", "\033[201~",    "\r",     "\003",      "\xC3",      "\033",   "\033[999;999x", "\033[",   "\020",  "\016"};
    unsigned seed = 1;
    neap_edit *e = begin();
    for (int i = 0; i < 30000; i++) {
        seed = seed * 1664525u + 1013904223u;
        const char *key = keys[(seed >> 16) % (sizeof keys / sizeof *keys)];
        size_t used, len, cursor;
        int event = neap_edit_feed(e, key, strlen(key), &used);
        const char *text = neap_edit_text(e, &len, &cursor);
        if (cursor > len || strlen(text) != len || (cursor < len && ((unsigned char)text[cursor] & 0xC0) == 0x80)) {
            CHECK(0, "step %d: cursor %zu of %zu", i, cursor, len);
            break;
        }
        if (event == NEAP_EDIT_ENTER) neap_edit_finish(e, 1), neap_edit_start(e, "> ", ". ");
        else if (event == NEAP_EDIT_INTERRUPT || event == NEAP_EDIT_EOF) neap_edit_abandon(e), neap_edit_start(e, "> ", ". ");
        else if (event == NEAP_EDIT_TAB && cursor > 0) neap_edit_complete(e, cursor - 1, keys, 3);
        if (len > 400) neap_edit_set(e, "");
    }
    CHECK(1);
    neap_edit_free(e);
}

int main(void) {
    typing_and_moving();
    killing();
    undoing();
    utf8();
    wrapping();
    tall_text_scrolls();
    lines_and_enter();
    pasting();
    browsing();
    searching();
    completing();
    hiding();
    history_file();
    anything();
    return test_end("edit");
}
