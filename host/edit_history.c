/* edit_history.c: what was typed before: browsing with the arrows, ^R search, and the file. In the file an entry is one line; its own newlines
   are written as \n and backslashes as \\ . */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/edit_int.h"

static int remember(neap_edit *e, const char *text) {
    if (e->history_len == e->history_cap) {
        size_t cap = e->history_cap ? e->history_cap * 2 : 64;
        char **p = realloc(e->history, cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        e->history = p;
        e->history_cap = cap;
    }
    char *copy = strdup(text);
    if (!copy) return NEAP_ERR_MEMORY;
    if (e->history_max && e->history_len >= e->history_max) {
        free(e->history[0]);
        memmove(e->history, e->history + 1, --e->history_len * sizeof *e->history);
    }
    e->history[e->history_len++] = copy;
    return 0;
}

static int escape(neap_buf *out, const char *s) {
    int err = 0;
    for (; *s; s++) err |= *s == '\n' ? buf_puts(out, "\\n") : *s == '\\' ? buf_puts(out, "\\\\") : buf_putc(out, *s);
    return err | buf_putc(out, '\n');
}

static void unescape(char *s) {
    char *to = s;
    for (; *s; s++) {
        if (*s == '\\' && s[1]) s++, *to++ = *s == 'n' ? '\n' : *s;
        else *to++ = *s;
    }
    *to = 0;
}

static int write_all(int fd, const char *s, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, s, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return NEAP_ERR_IO;
        s += k;
        n -= (size_t)k;
    }
    return 0;
}

int neap_edit_history_add(neap_edit *e, const char *text) {
    if (!*text || *text == ' ' || (e->history_len && !strcmp(e->history[e->history_len - 1], text))) return 0;
    int err = remember(e, text);
    e->browse = e->history_len;
    if (err || !e->path) return err;
    neap_buf line = {0};
    err = escape(&line, text);
    int fd = err ? -1 : open(e->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        err = write_all(fd, line.data, line.len);
        close(fd);
    }
    buf_free(&line);
    return err;
}

/* Writes the entries that are kept over the file, through a second file so that a crash loses nothing. */
static int shorten(neap_edit *e) {
    neap_buf all = {0}, name = {0};
    int err = buf_printf(&name, "%s.new", e->path);
    for (size_t i = 0; i < e->history_len && !err; i++) err = escape(&all, e->history[i]);
    int fd = err ? -1 : open(name.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) {
        err = write_all(fd, all.data ? all.data : "", all.len);
        if (close(fd) || err || rename(name.data, e->path)) unlink(name.data);
    }
    buf_free(&all);
    buf_free(&name);
    return err;
}

int neap_edit_history_load(neap_edit *e, const char *path, size_t max) {
    char *copy = strdup(path);
    if (!copy) return NEAP_ERR_MEMORY;
    free(e->path);
    e->path = copy;
    e->history_max = max;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? 0 : NEAP_ERR_IO;
    neap_buf all = {0};
    int err = 0;
    char chunk[8192];
    for (ssize_t n; (n = read(fd, chunk, sizeof chunk)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) err = NEAP_ERR_IO;
        if (n < 0 || (err = buf_add(&all, chunk, (size_t)n))) break;
    }
    close(fd);
    size_t lines = 0;
    for (char *s = all.data, *end; s && *s && !err; s = end + 1, lines++) {
        end = strchr(s, '\n');
        if (!end) end = s + strlen(s) - 1; /* the last line lacks its newline */
        else *end = 0;
        unescape(s);
        if (*s) err = remember(e, s);
    }
    buf_free(&all);
    e->browse = e->history_len;
    if (!err && max && lines > 2 * max) err = shorten(e);
    return err;
}

size_t neap_edit_history_len(const neap_edit *e) { return e->history_len; }
const char *neap_edit_history_at(const neap_edit *e, size_t i) { return i < e->history_len ? e->history[i] : NULL; }

int edit_browse(neap_edit *e, int direction) {
    if (direction < 0 ? e->browse == 0 : e->browse >= e->history_len) return 0;
    if (e->browse == e->history_len) { /* leaving the draft: keep it */
        free(e->draft);
        e->draft = strdup(e->text.data ? e->text.data : "");
        if (!e->draft) return NEAP_ERR_MEMORY;
    }
    e->browse += (size_t)direction;
    return edit_replace(e, e->browse == e->history_len ? e->draft : e->history[e->browse]);
}

/* ---- ^R ------------------------------------------------------------------------------------------------------------- */
/* The newest entry older than `below` that contains the query; history_len if there is none. */
static size_t find(neap_edit *e, size_t below) {
    for (size_t i = below; i-- > 0;)
        if (!e->query.len || strstr(e->history[i], e->query.data)) return i;
    return e->history_len;
}

int edit_search_begin(neap_edit *e) {
    free(e->before_search);
    e->before_search = strdup(e->text.data ? e->text.data : "");
    if (!e->before_search) return NEAP_ERR_MEMORY;
    buf_clear(&e->query);
    e->found = e->history_len;
    e->searching = 1;
    return 0;
}

/* Ends the search; the text is the entry that was found, or what stood there before. */
static int leave(neap_edit *e, int take) {
    e->searching = 0;
    if (take && e->found < e->history_len) {
        e->browse = e->found;
        return edit_replace(e, e->history[e->found]);
    }
    return edit_replace(e, e->before_search);
}

int edit_search_key(neap_edit *e, int key) {
    int err = 0;
    if (key == KEY_TEXT) {
        err = buf_add(&e->query, e->keys.seq, (size_t)e->keys.len);
        if (!err) e->found = find(e, e->found < e->history_len ? e->found + 1 : e->history_len);
    } else if (key == 18) { /* ^R: the next older one */
        size_t i = find(e, e->found);
        if (i < e->history_len) e->found = i;
    } else if (key == 8 || key == 127) {
        if (e->query.len) {
            e->query.len = edit_prev(e->query.data, e->query.len);
            e->query.data[e->query.len] = 0;
        }
        e->found = e->query.len ? find(e, e->history_len) : e->history_len;
    } else if (key == 7 || key == 3) { /* ^G ^C */
        err = leave(e, 0);
    } else if (key == KEY_PASTE || key == KEY_PASTE_END) {
        return 1;
    } else {
        err = leave(e, 1);
        return err ? err : 0;
    }
    return err ? err : 1;
}

void edit_history_free(neap_edit *e) {
    for (size_t i = 0; i < e->history_len; i++) free(e->history[i]);
    free(e->history);
    free(e->draft);
    free(e->path);
    free(e->before_search);
    buf_free(&e->query);
}
