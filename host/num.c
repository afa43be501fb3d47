/* num.c: number conversion. The usual sensor value (up to 19 digits, a small exponent) takes an exact short cut; the rest goes
   through the C library under the "C" locale. A table-driven converter (Ryu, Eisel-Lemire) would only speed up the rest. */
#include "host/num.h"
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Powers of ten that a double holds exactly. */
static const double ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                             1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline bool digit(const char *p, const char *end) { return p < end && (unsigned char)(*p - '0') < 10; }

/* strtod on a copy of [s, s+n). glibc hands out its static "C" locale object, so newlocale costs nothing here. */
static double slow_double(const char *s, size_t n) {
    char stack[128], *copy = n < sizeof stack ? stack : malloc(n + 1);
    if (!copy) return NAN; /* read as "not a number" by every caller */
    memcpy(copy, s, n);
    copy[n] = 0;
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double d = strtod_l(copy, NULL, c);
    freelocale(c);
    if (copy != stack) free(copy);
    return d;
}

const char *neap_num_scan(const char *p, const char *end, bool loose, neap_num *out) {
    const char *start = p;
    bool neg = p < end && *p == '-';
    if (neg) p++;
    uint64_t mant = 0;
    int digits = 0; /* significant ones held in mant; past 19 it would overflow */
    long exp10 = 0;
    bool exact = true, is_int = true;
    const char *first = p;
    for (; digit(p, end); p++) {
        if (digits < 19) {
            mant = mant * 10 + (uint64_t)(*p - '0');
            digits += mant != 0;
        } else {
            exact = false;
        }
    }
    size_t whole = (size_t)(p - first);
    if (!loose && (whole == 0 || (whole > 1 && *first == '0'))) return NULL;
    if (p < end && *p == '.' && (loose ? whole || digit(p + 1, end) : digit(p + 1, end))) {
        is_int = false;
        for (p++; digit(p, end); p++) {
            if (digits < 19) {
                mant = mant * 10 + (uint64_t)(*p - '0');
                digits += mant != 0;
                exp10--;
            } else {
                exact = false;
            }
        }
    } else if (!whole) {
        return NULL;
    } else if (p < end && *p == '.') {
        return NULL; /* strict: a digit must follow the point */
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        const char *e = p + 1;
        bool eneg = e < end && *e == '-';
        if (e < end && (*e == '+' || *e == '-')) e++;
        if (!digit(e, end)) return NULL;
        long x = 0;
        for (; digit(e, end); e++)
            if (x < 100000) x = x * 10 + (*e - '0');
        exp10 += eneg ? -x : x;
        is_int = false;
        p = e;
    }
    out->is_int = false;
    if (is_int && exact && mant <= (uint64_t)INT64_MAX + neg && !(neg && mant == 0)) { /* "-0" has to stay a float */
        out->is_int = true;
        out->i = neg ? (int64_t)(0 - mant) : (int64_t)mant;
        out->d = (double)out->i;
    } else if (exact && mant <= (1ull << 53) && exp10 >= -22 && exp10 <= 22) {
        double d = (double)mant; /* both operands exact: one rounding, so the result is the nearest double */
        d = exp10 < 0 ? d / ten[-exp10] : d * ten[exp10];
        out->d = neg ? -d : d;
    } else {
        out->d = slow_double(start, (size_t)(p - start));
        if (isnan(out->d)) return NULL;
    }
    return p;
}

bool neap_num_strict(const char *s, size_t n) {
    const char *end = s + n;
    s += s < end && *s == '-';
    if (!digit(s, end) || (*s == '0' && digit(s + 1, end))) return false;
    while (digit(s, end)) s++;
    return s == end || *s != '.' || digit(s + 1, end);
}

bool neap_num_text(const char *s, size_t n, neap_num *out) {
    const char *end = s + n;
    while (s < end && (*s == ' ' || *s == '\t')) s++;
    while (s < end && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n')) end--;
    if (end - s > 1 && *s == '+' && s[1] != '-') s++;
    return s < end && neap_num_scan(s, end, true, out) == end;
}

size_t neap_num_format_int(int64_t i, char out[NEAP_NUM_TEXT]) {
    char tmp[24], *p = tmp + sizeof tmp;
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    do *--p = (char)('0' + u % 10);
    while (u /= 10);
    if (i < 0) *--p = '-';
    size_t n = (size_t)(tmp + sizeof tmp - p);
    memcpy(out, p, n);
    out[n] = 0;
    return n;
}

/* i / 10^k as text, k decimals. */
static size_t format_decimal(int64_t i, int k, bool neg, bool keep_float, char *out) {
    char digits[NEAP_NUM_TEXT];
    size_t n = neap_num_format_int(i, digits), len = 0;
    if (neg) out[len++] = '-';
    if ((size_t)k >= n) {
        out[len++] = '0';
        out[len++] = '.';
        for (size_t z = (size_t)k - n; z; z--) out[len++] = '0';
        memcpy(out + len, digits, n);
        len += n;
    } else {
        memcpy(out + len, digits, n - (size_t)k);
        len += n - (size_t)k;
        if (k || keep_float) out[len++] = '.';
        if (k) {
            memcpy(out + len, digits + n - k, (size_t)k);
            len += (size_t)k;
        } else if (keep_float) {
            out[len++] = '0';
        }
    }
    out[len] = 0;
    return len;
}

size_t neap_num_format(double d, bool keep_float, char out[NEAP_NUM_TEXT]) {
    /* Below 1e15 the product is off by less than a quarter, so rounding finds the only candidate; the division then proves it. */
    double a = fabs(d);
    for (int k = 0; k <= 6; k++) {
        double x = a * ten[k];
        if (!(x < 1e15)) break;
        int64_t i = (int64_t)(x + 0.5);
        if ((double)i / ten[k] != a) continue;
        if (k && a < 1e-4) break; /* 1e-05 is shorter */
        return format_decimal(i, k, signbit(d), keep_float, out);
    }
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), old = uselocale(c);
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(out, NEAP_NUM_TEXT, "%.*g", digits, d);
        if (strtod(out, NULL) == d) break;
    }
    uselocale(old);
    freelocale(c);
    if (keep_float && !strpbrk(out, ".en")) {
        memcpy(out + n, ".0", 3);
        n += 2;
    }
    return (size_t)n;
}
