/* journal_read.c: reading a log, and finding the true end of one that a crash left behind.
   A damaged record is passed over by searching for the next one whose CRC holds at its place; what was passed over is counted. At
   the very end of the last segment it is a torn write, which nobody was told was safe. */
#include "host/journal_priv.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/crc32c.h"

uint32_t journal_crc(const jlog *g, uint64_t pos, const char *data, uint32_t n) {
    char seed[28];
    memcpy(seed, g->id, 16);
    memcpy(seed + 16, &pos, 8);
    memcpy(seed + 24, &n, 4);
    return neap_crc32c(neap_crc32c(0, seed, sizeof seed), data, n);
}

void journal_segment_path(const jlog *g, uint64_t start, char *out, size_t size) {
    snprintf(out, size, "%s/%016llx.seg", g->dir, (unsigned long long)start);
}

int journal_add_segment(jlog *g, uint64_t start, uint64_t end, int fd) {
    if (g->seg_count == g->seg_cap) {
        size_t cap = g->seg_cap ? g->seg_cap * 2 : 8;
        jsegment *p = realloc(g->segs, cap * sizeof *p);
        if (!p) return NEAP_ERR_MEMORY;
        g->segs = p;
        g->seg_cap = cap;
    }
    g->segs[g->seg_count++] = (jsegment){start, end, fd};
    return 0;
}

uint64_t journal_log_bytes(const jlog *g) {
    uint64_t n = 0;
    for (size_t i = 0; i < g->seg_count; i++) n += JOURNAL_HEAD + g->segs[i].end - g->segs[i].start;
    return n;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

/* Length of the whole record at p, which lies at position pos; 0 if there is no sound one within n bytes. *more: more bytes could change that. */
static size_t sound_record(const jlog *g, uint64_t pos, const char *p, size_t n, bool *more) {
    uint32_t magic, len, crc;
    *more = n < JOURNAL_RECORD_HEAD;
    if (*more) return 0;
    memcpy(&magic, p, 4);
    memcpy(&len, p + 4, 4);
    memcpy(&crc, p + 8, 4);
    if (magic != JOURNAL_RECORD_MAGIC || len == 0 || len > NEAP_JOURNAL_RECORD_MAX) return 0;
    *more = n - JOURNAL_RECORD_HEAD < len;
    if (*more || journal_crc(g, pos, p + JOURNAL_RECORD_HEAD, len) != crc) return 0;
    return JOURNAL_RECORD_HEAD + len;
}

static ssize_t read_at(const jsegment *s, uint64_t pos, char *out, size_t n) {
    size_t got = 0;
    while (got < n) {
        ssize_t k = pread(s->fd, out + got, n - got, JOURNAL_HEAD + (off_t)(pos - s->start + got));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        if (k == 0) break;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

/* Reads [pos, end of segment) or the first `want` bytes of it into b (replacing what is there). 0 or an error. */
static int load(const jsegment *s, uint64_t pos, size_t want, neap_buf *b) {
    uint64_t left = s->end - pos;
    size_t n = left < want ? (size_t)left : want;
    buf_clear(b);
    if (buf_reserve(b, n)) return NEAP_ERR_MEMORY;
    ssize_t got = read_at(s, pos, b->data, n);
    if (got < 0) return NEAP_ERR_IO;
    b->len = (size_t)got;
    return 0;
}

/* The first sound record at or behind `from` in segment s; its position, or s->end if there is none. Loads the rest of the segment at
   once: this is the rare path. UINT64_MAX after an error (in *err). */
static uint64_t resync(const jlog *g, const jsegment *s, uint64_t from, int *err) {
    neap_buf b = {0};
    uint64_t found = s->end;
    uint32_t magic = JOURNAL_RECORD_MAGIC;
    *err = load(s, from, (size_t)(s->end - from), &b);
    for (const char *p = b.data; !*err && p && p < b.data + b.len;) {
        bool more;
        p = memmem(p, (size_t)(b.data + b.len - p), &magic, 4);
        if (!p) break;
        uint64_t pos = from + (uint64_t)(p - b.data);
        if (sound_record(g, pos, p, (size_t)(b.data + b.len - p), &more)) {
            found = pos;
            break;
        }
        p++;
    }
    buf_free(&b);
    return *err ? UINT64_MAX : found;
}

/* Hands out the records of one segment from pos on. Returns 0 and moves *next; 1 if `each` had enough. */
static int read_segment(const jlog *g, const jsegment *s, size_t max_bytes, neap_buf *b, neap_journal_each each, void *ud, uint64_t *next,
                        uint64_t *skipped) {
    int err = load(s, *next, max_bytes, b);
    size_t at = 0;
    uint64_t base = *next;
    while (!err && at < b->len) {
        bool more;
        size_t n = sound_record(g, base + at, b->data + at, b->len - at, &more);
        if (n) {
            int enough = each(ud, base + at + n, b->data + at + JOURNAL_RECORD_HEAD, n - JOURNAL_RECORD_HEAD);
            at += n;
            *next = base + at;
            if (enough) return 1;
            continue;
        }
        if (more && base + b->len < s->end) { /* cut by the size of the chunk */
            if (at) return 0;
            uint32_t len;
            memcpy(&len, b->data + 4, 4);
            err = load(s, base, JOURNAL_RECORD_HEAD + (b->len >= 8 ? len : 4096), b);
            if (!err && b->len <= max_bytes) return NEAP_ERR_IO; /* the file has become shorter under us */
            max_bytes = b->len;
            continue;
        }
        uint64_t found = resync(g, s, base + at + 1, &err);
        if (err) return err;
        *skipped += found - (base + at);
        *next = found;
        return 0;
    }
    return err;
}

/* Copies the segment that holds *at; fd -1: *at is the log's end. Bytes that are missing between two segments are stepped over: *at moves.
   NEAP_ERR_INVALID if *at is before the first byte or beyond the end. */
static int find_segment(neap_journal *j, const char *uuid, uint64_t *at, jlog **log, jsegment *s) {
    int err = NEAP_ERR_CLOSED;
    uint64_t pos = *at;
    pthread_mutex_lock(&j->mutex);
    for (size_t i = 0; i < j->log_count; i++) {
        jlog *g = j->logs[i];
        if (strcmp(g->uuid, uuid) != 0) continue;
        *log = g;
        err = pos == g->end ? 0 : NEAP_ERR_INVALID;
        s->fd = -1;
        for (size_t k = 0; k < g->seg_count && pos < g->end; k++) {
            if (g->segs[k].end <= pos) continue;
            if (g->segs[k].start > pos && k == 0) break;
            if (g->segs[k].start > pos) *at = g->segs[k].start;
            *s = g->segs[k];
            err = 0;
            break;
        }
        break;
    }
    pthread_mutex_unlock(&j->mutex);
    return err;
}

int neap_journal_read(neap_journal *j, const char *uuid, uint64_t pos, size_t max_bytes, neap_journal_each each, void *ud, uint64_t *next,
                      uint64_t *skipped) {
    neap_buf b = {0};
    uint64_t from = pos;
    int err = 0;
    *next = pos;
    *skipped = 0;
    if (max_bytes < 64) max_bytes = 64;
    for (;;) {
        jlog *g = NULL;
        jsegment s;
        uint64_t at = *next;
        if ((err = find_segment(j, uuid, &at, &g, &s)) || s.fd < 0) break;
        *skipped += at - *next;
        *next = at;
        err = read_segment(g, &s, max_bytes, &b, each, ud, next, skipped);
        if (err || *next - from >= max_bytes || b.len == 0) break;
    }
    buf_free(&b);
    return err == 1 ? 0 : err;
}

struct across {
    uint64_t pos;
    bool yes;
};

static int find_across(void *ud, uint64_t end, const char *data, size_t n) {
    struct across *a = ud;
    if (end > a->pos) a->yes = end - n - JOURNAL_RECORD_HEAD < a->pos;
    return end >= a->pos;
}

int neap_journal_check(neap_journal *j, const char *uuid, uint64_t pos) {
    jlog *g = NULL;
    jsegment s;
    neap_buf b = {0};
    bool more;
    uint64_t at = pos;
    int err = find_segment(j, uuid, &at, &g, &s);
    if (err || s.fd < 0 || at != pos || pos == s.start) return err;
    err = load(&s, pos, JOURNAL_RECORD_HEAD, &b);
    if (!err && !sound_record(g, pos, b.data, b.len, &more) && more) { /* a head: now the whole record */
        uint32_t len;
        memcpy(&len, b.data + 4, 4);
        err = load(&s, pos, JOURNAL_RECORD_HEAD + (size_t)len, &b);
    }
    if (!err && !sound_record(g, pos, b.data, b.len, &more)) { /* the rare path: the segment is walked from its start */
        struct across a = {pos, false};
        uint64_t next = s.start, skipped = 0;
        while (!err && next < pos) err = read_segment(g, &s, 1 << 20, &b, find_across, &a, &next, &skipped);
        err = err == 1 ? 0 : err;
        if (!err && a.yes) err = NEAP_ERR_CORRUPT;
    }
    buf_free(&b);
    return err;
}

/* ---- recovery --------------------------------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b) {
    const jsegment *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* A sound head that says another place: a file on its way from one segment to the next, whose old name a power cut brought back. */
static bool is_elsewhere(int fd, uint64_t start) {
    char head[JOURNAL_HEAD];
    uint64_t at;
    uint32_t crc;
    if (pread(fd, head, sizeof head, 0) != sizeof head) return false;
    memcpy(&at, head + 24, 8);
    memcpy(&crc, head + 32, 4);
    return memcmp(head, JOURNAL_SEGMENT_MAGIC, 8) == 0 && crc == neap_crc32c(0, head, 32) && at != start;
}

static int open_segments(jlog *g) {
    DIR *d = opendir(g->dir);
    int err = 0;
    if (!d) return NEAP_ERR_IO;
    for (struct dirent *e; !err && (e = readdir(d));) {
        unsigned long long start;
        int used = 0;
        struct stat st;
        if (sscanf(e->d_name, "%16llx.seg%n", &start, &used) != 1 || used != 20 || e->d_name[20]) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st)) {
            err = NEAP_ERR_IO;
            if (fd >= 0) close(fd);
            break;
        }
        if (is_elsewhere(fd, start)) {
            unlinkat(dirfd(d), e->d_name, 0);
            close(fd);
            continue;
        }
        uint64_t bytes = st.st_size > JOURNAL_HEAD ? (uint64_t)st.st_size - JOURNAL_HEAD : 0;
        if ((err = journal_add_segment(g, start, start + bytes, fd))) close(fd);
    }
    closedir(d);
    if (g->seg_count) qsort(g->segs, g->seg_count, sizeof *g->segs, by_start);
    return err;
}

/* Counts nothing, stops at nothing: only to walk. */
static int walk(void *ud, uint64_t end, const char *data, size_t n) {
    *(uint64_t *)ud = end;
    return 0;
}

int journal_recover(jlog *g) {
    int err = open_segments(g);
    if (err || !g->seg_count) return err;
    /* A segment that was given up after a failed write may have more bytes than the next one's start allows. */
    for (size_t i = 0; i + 1 < g->seg_count; i++)
        if (g->segs[i].end > g->segs[i + 1].start) g->segs[i].end = g->segs[i + 1].start;
    jsegment *last = &g->segs[g->seg_count - 1];
    uint64_t end = last->start, next = last->start, skipped = 0;
    neap_buf b = {0};
    while (!err && next < last->end) err = read_segment(g, last, 1 << 20, &b, walk, &end, &next, &skipped);
    buf_free(&b);
    g->end = last->end = end;
    g->released = g->segs[0].start;
    return err;
}
