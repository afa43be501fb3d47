/* http_static.c: files from a directory: never outside of it (symbolic links included), never hidden ones, with ETag, Last-Modified, Range, and a
   ".gz" neighbour for clients that take gzip. Opening and stat are synchronous (page cache); the bytes go by sendfile. Loop thread only. */
#include "host/http.h"
#include "host/buf.h"
#include <fcntl.h>
#include <limits.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *neap_http_type(const char *path) {
    static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
                                           {".htm", "text/html; charset=utf-8"},
                                           {".css", "text/css; charset=utf-8"},
                                           {".js", "text/javascript; charset=utf-8"},
                                           {".mjs", "text/javascript; charset=utf-8"},
                                           {".json", "application/json"},
                                           {".svg", "image/svg+xml"},
                                           {".png", "image/png"},
                                           {".jpg", "image/jpeg"},
                                           {".jpeg", "image/jpeg"},
                                           {".gif", "image/gif"},
                                           {".webp", "image/webp"},
                                           {".ico", "image/x-icon"},
                                           {".txt", "text/plain; charset=utf-8"},
                                           {".md", "text/markdown; charset=utf-8"},
                                           {".csv", "text/csv; charset=utf-8"},
                                           {".xml", "application/xml"},
                                           {".pdf", "application/pdf"},
                                           {".wasm", "application/wasm"},
                                           {".woff2", "font/woff2"},
                                           {".woff", "font/woff"},
                                           {".gz", "application/gzip"},
                                           {".zip", "application/zip"},
                                           {".webmanifest", "application/manifest+json"},
                                           {".lua", "text/plain; charset=utf-8"}};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (!strcasecmp(dot, types[i][0])) return types[i][1];
    return "application/octet-stream";
}

/* Segments that no request may name: "..", ".", hidden ones; and bytes that no path has. */
static int clean(const char *p, size_t n) {
    if (memchr(p, 0, n) || memchr(p, NEAP_HTTP_SLASH, n) || memchr(p, '\\', n)) return 0;
    for (size_t i = 0; i < n; i++)
        if (p[i] == '.' && (i == 0 || p[i - 1] == '/')) return 0;
    return 1;
}

/* Opens root/rel as a regular file inside of root: the descriptor, or -1. */
static int open_inside(const char *root, const char *rel, struct stat *st) {
    char joined[PATH_MAX], real[PATH_MAX], base[PATH_MAX];
    if (!realpath(root, base)) return -1;
    if (snprintf(joined, sizeof joined, "%s/%s", base, rel) >= (int)sizeof joined || !realpath(joined, real)) return -1;
    size_t n = strlen(base);
    if (n == 1) n = 0;
    if (strncmp(real, base, n) || real[n] != '/') return -1;
    int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && (fstat(fd, st) || !S_ISREG(st->st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int takes_gzip(neap_http_req *r) {
    const char *p = neap_http_header(r, "Accept-Encoding");
    const char *at = p ? strcasestr(p, "gzip") : NULL;
    return at && strncmp(at + 4, ";q=0", 4) != 0;
}

/* A list of entity tags contains ours (weak comparison). */
static int tag_listed(const char *list, const char *tag) {
    size_t n = strlen(tag);
    if (!strcmp(list, "*")) return 1;
    for (const char *p = list; (p = strstr(p, tag)); p += n)
        if (p[n] == 0 || p[n] == ',' || p[n] == ' ') return 1;
    return 0;
}

/* "bytes=a-b", one range. 1: *from..*to; 0: none or not understood (send all); -1: outside of the file. */
static int range(const char *h, uint64_t size, uint64_t *from, uint64_t *to) {
    char *end;
    if (!h || strncasecmp(h, "bytes=", 6) || strchr(h, ',')) return 0;
    h += 6;
    if (*h == '-') {
        if (h[1] < '0' || h[1] > '9') return 0;
        uint64_t n = strtoull(h + 1, &end, 10);
        if (*end || !n || !size) return *end ? 0 : -1;
        *from = n > size ? 0 : size - n;
        *to = size - 1;
        return 1;
    }
    if (*h < '0' || *h > '9') return 0;
    *from = strtoull(h, &end, 10);
    if (*end != '-') return 0;
    *to = end[1] ? strtoull(end + 1, &end, 10) : size - 1;
    if (*end != '-' && *end) return 0;
    if (*from >= size) return -1;
    if (*to < *from) return 0;
    if (*to >= size) *to = size - 1;
    return 1;
}

int neap_http_serve(neap_http_req *r, const char *root, const char *path, size_t len, const char *index, const char *cache) {
    char rel[PATH_MAX], gz[PATH_MAX], tag[64], date[64], span[80];
    struct stat st, gst;
    const char *method = neap_http_method(r);
    while (len && path[0] == '/') path++, len--;
    if (len >= sizeof rel - 64 || !clean(path, len)) return NEAP_ERR_INVALID;
    memcpy(rel, path, len);
    rel[len] = 0;
    if (!len || rel[len - 1] == '/') {
        if (!index || !*index) return NEAP_ERR_INVALID;
        snprintf(rel + len, sizeof rel - len, "%s", index);
    }
    int fd = open_inside(root, rel, &st), packed = 0;
    if (fd < 0) return NEAP_ERR_INVALID;
    if (strcmp(method, "GET") && strcmp(method, "HEAD")) {
        close(fd);
        return NEAP_ERR_UNSUPPORTED;
    }
    if (takes_gzip(r) && snprintf(gz, sizeof gz, "%s.gz", rel) < (int)sizeof gz) {
        int g = open_inside(root, gz, &gst);
        if (g >= 0 && gst.st_mtime >= st.st_mtime) {
            close(fd);
            fd = g;
            st = gst;
            packed = 1;
        } else if (g >= 0) close(g);
    }
    struct tm tm;
    snprintf(tag, sizeof tag, "\"%llx-%llx%s\"", (unsigned long long)st.st_size,
             (unsigned long long)st.st_mtim.tv_sec * 1000000000ull + (unsigned long long)st.st_mtim.tv_nsec, packed ? "g" : "");
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&st.st_mtime, &tm));
    neap_http_header_kv h[9] = {{"ETag", tag}, {"Last-Modified", date}, {"Vary", "Accept-Encoding"}, {"X-Content-Type-Options", "nosniff"}};
    int n = 4;
    if (cache && *cache) h[n++] = (neap_http_header_kv){"Cache-Control", cache};
    const char *none = neap_http_header(r, "If-None-Match"), *since = neap_http_header(r, "If-Modified-Since"),
               *if_range = neap_http_header(r, "If-Range");
    if (none ? tag_listed(none, tag) : since && !strcmp(since, date)) {
        close(fd);
        return neap_http_respond(r, 304, h, n, "", 0, NEAP_HTTP_STATIC);
    }
    h[n++] = (neap_http_header_kv){"Content-Type", neap_http_type(rel)};
    h[n++] = (neap_http_header_kv){"Accept-Ranges", "bytes"};
    if (packed) h[n++] = (neap_http_header_kv){"Content-Encoding", "gzip"};
    uint64_t size = (uint64_t)st.st_size, from = 0, to = 0;
    int part = !if_range || !strcmp(if_range, tag) || !strcmp(if_range, date) ? range(neap_http_header(r, "Range"), size, &from, &to) : 0;
    if (part < 0) {
        close(fd);
        snprintf(span, sizeof span, "bytes */%llu", (unsigned long long)size);
        h[0] = (neap_http_header_kv){"Content-Range", span};
        return neap_http_respond(r, 416, h, 1, "", 0, NEAP_HTTP_STATIC);
    }
    if (part) {
        snprintf(span, sizeof span, "bytes %llu-%llu/%llu", (unsigned long long)from, (unsigned long long)to, (unsigned long long)size);
        h[n++] = (neap_http_header_kv){"Content-Range", span};
    }
    return neap_http_respond_file(r, part ? 206 : 200, h, n, fd, from, part ? to - from + 1 : size);
}
