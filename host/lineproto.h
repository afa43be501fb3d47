/* lineproto.h: Influx line protocol, one point at a time. A point's parts are slices of the input; escapes are resolved on demand.
   Grammar and verdicts follow the public corpus of influxdata/line-protocol: blanks between the parts are spaces only, a raw newline
   is legal inside a quoted text, and after an error the reader goes on behind the next newline. Zero-initialise through
   neap_lp_init, release with neap_lp_free. */
#ifndef NEAP_LINEPROTO_H
#define NEAP_LINEPROTO_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct neap_lp_slice {
    const char *s;
    uint32_t n;
    bool escaped;
} neap_lp_slice;

typedef struct neap_lp_tag {
    neap_lp_slice key, value;
} neap_lp_tag;

typedef enum neap_lp_type { NEAP_LP_FLOAT, NEAP_LP_INT, NEAP_LP_UINT, NEAP_LP_BOOL, NEAP_LP_TEXT } neap_lp_type;

typedef struct neap_lp_field {
    neap_lp_slice key, text; /* text: the value as written, without quotes and type letter */
    neap_lp_type type;
    double d;  /* FLOAT, INT, UINT */
    int64_t i; /* INT; UINT's bits; BOOL: 0 or 1 */
} neap_lp_field;

typedef struct neap_lp {
    neap_lp_slice measurement;
    neap_lp_tag *tags; /* in key order; a key given twice is an error */
    neap_lp_field *fields;
    size_t tag_count, field_count;
    bool has_time;
    int64_t time_ns;
    uint32_t line;     /* where the point starts, 1-based */
    const char *error; /* why the last line was refused */
    /* private */
    const char *p, *end;
    uint32_t next_line;
    int64_t unit_ns;
    size_t tag_cap, field_cap;
} neap_lp;

/* unit_ns: nanoseconds in one unit of the timestamps (0 = 1). The text must outlive the reader. */
void neap_lp_init(neap_lp *l, const char *s, size_t n, int64_t unit_ns);
void neap_lp_free(neap_lp *l);

/* 1: a point was read. 0: the end. NEAP_ERR_INVALID: a bad line (line, error), call again for the next one. NEAP_ERR_MEMORY. */
int neap_lp_next(neap_lp *l);

/* Resolves a key, tag value or measurement into out (room for n bytes); returns the length. The escapable characters differ. */
size_t neap_lp_unescape_name(neap_lp_slice s, bool measurement, char *out);
size_t neap_lp_unescape_text(neap_lp_slice s, char *out); /* a quoted field value */
#endif
