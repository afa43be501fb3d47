/* readings_time.c: event times as devices write them, to microseconds since 1970 (UTC). */
#include "host/readings.h"
#include <math.h>

bool neap_time_number(const neap_num *v, int64_t *us) {
    double a = fabs(v->d);
    if (v->is_int) {
        if (a < 1e11) *us = v->i * 1000000;
        else if (a < 1e14) *us = v->i * 1000;
        else if (a < 1e17) *us = v->i;
        else *us = v->i / 1000;
        return true;
    }
    if (!(a < 1e19)) return false;
    *us = llround(a < 1e11 ? v->d * 1e6 : a < 1e14 ? v->d * 1e3 : a < 1e17 ? v->d : v->d / 1e3);
    return true;
}

/* `width` digits at s[*i]; -1 if they are not there. */
static int digits(const char *s, size_t n, size_t *i, int width) {
    int v = 0;
    for (int k = 0; k < width; k++, (*i)++) {
        if (*i >= n || s[*i] < '0' || s[*i] > '9') return -1;
        v = v * 10 + (s[*i] - '0');
    }
    return v;
}

static bool take(const char *s, size_t n, size_t *i, char c) { return *i < n && s[*i] == c && ++*i; }

/* Days since 1970-01-01 in the Gregorian calendar. Years counted from March, so that the leap day comes last. */
static int64_t days(int y, int m, int d) {
    int64_t year = m > 2 ? y : y - 1;
    int month = (m + 9) % 12;                    /* March = 0 */
    int64_t day = (153 * month + 2) / 5 + d - 1; /* months of 31,30,31,30,31 days repeat every 153 */
    return year * 365 + year / 4 - year / 100 + year / 400 + day - 719468;
}

bool neap_time_iso(const char *s, size_t n, int64_t *us) {
    static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    size_t i = 0;
    int y = digits(s, n, &i, 4);
    if (!take(s, n, &i, '-')) return false;
    int m = digits(s, n, &i, 2);
    if (!take(s, n, &i, '-')) return false;
    int d = digits(s, n, &i, 2);
    if (y < 0 || m < 1 || m > 12 || d < 1 || d > month_days[m - 1]) return false;
    if (m == 2 && d == 29 && (y % 4 || (y % 100 == 0 && y % 400))) return false;
    int64_t t = days(y, m, d) * 86400, micro = 0;
    if (i < n) {
        if (!take(s, n, &i, 'T') && !take(s, n, &i, 't') && !take(s, n, &i, ' ')) return false;
        int hh = digits(s, n, &i, 2), ss = 0;
        if (!take(s, n, &i, ':')) return false;
        int mm = digits(s, n, &i, 2);
        if (take(s, n, &i, ':')) {
            ss = digits(s, n, &i, 2);
            if (take(s, n, &i, '.') || take(s, n, &i, ',')) {
                int64_t unit = 100000;
                size_t first = i;
                for (; i < n && s[i] >= '0' && s[i] <= '9'; i++, unit /= 10) micro += unit * (s[i] - '0');
                if (i == first) return false;
            }
        }
        if (hh < 0 || hh > 23 || mm < 0 || mm > 59 || ss < 0 || ss > 60) return false; /* 60: a leap second */
        t += hh * 3600 + mm * 60 + ss;
        if (i < n && (s[i] == '+' || s[i] == '-')) {
            int sign = s[i++] == '+' ? 1 : -1, zh = digits(s, n, &i, 2), zm = 0;
            bool colon = take(s, n, &i, ':');
            if (colon || i < n) zm = digits(s, n, &i, 2);
            if (zh < 0 || zh > 23 || zm < 0 || zm > 59) return false;
            t -= sign * (zh * 3600 + zm * 60);
        } else if (!take(s, n, &i, 'Z')) {
            take(s, n, &i, 'z');
        }
    }
    *us = t * 1000000 + micro;
    return i == n;
}
