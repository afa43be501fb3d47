/* num.h: numbers to text and back, exactly: int64 kept whole, doubles correctly rounded and printed as the shortest text
   that reads back to the same bits. Independent of the process locale. No allocation, thread-safe. */
#ifndef NEAP_NUM_H
#define NEAP_NUM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEAP_NUM_TEXT 40 /* room for any number's text and its NUL */

typedef struct neap_num {
    bool is_int; /* written without fraction and exponent, and fits: `i` is exact */
    int64_t i;
    double d; /* always set; infinite when the text is beyond a double's range */
} neap_num;

/* Reads a number at p. Returns the byte after it, or NULL if there is none.
   JSON's grammar; `loose` also takes leading zeros, ".5" and "5." (line protocol, firmware's idea of text). */
const char *neap_num_scan(const char *p, const char *end, bool loose, neap_num *out);

/* A whole slice as a loose number: blanks around it and one leading '+' are forgiven, nothing else is. False if it is not one. */
bool neap_num_text(const char *s, size_t n, neap_num *out);
/* Is this slice, which neap_num_scan took as loose or which is a whole number, one in the strict grammar too? */
bool neap_num_strict(const char *s, size_t n);

/* Writes a finite double; returns the length. `keep_float`: an integral value ends in ".0", so that it stays a float. */
size_t neap_num_format(double d, bool keep_float, char out[NEAP_NUM_TEXT]);
size_t neap_num_format_int(int64_t i, char out[NEAP_NUM_TEXT]);
#endif
