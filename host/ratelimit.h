/* ratelimit.h: so many a second for each key, with a burst; one table for all threads of the process that open it under the same name.

   One number a key: the time at which its burst would be whole again (the "generic cell rate algorithm"). Keys are kept as hashes under a seed of
   the table's own, in places of a fixed number: a key whose burst is whole again gives its place up, and newcomers that find none share one
   allowance, so addresses cannot fill the memory. Alternative dropped: a table in each worker, which multiplies every limit by the workers. */
#ifndef NEAP_RATELIMIT_H
#define NEAP_RATELIMIT_H
#include <stddef.h>

typedef struct neap_ratelimit neap_ratelimit;

/* name: those who open the same one share it (the first one's number of keys counts); NULL: a table of its own. 0 or NEAP_ERR_MEMORY. */
int neap_ratelimit_open(const char *name, size_t keys, neap_ratelimit **out);
void neap_ratelimit_close(neap_ratelimit *t); /* the last one frees it */

/* Takes one for the key. 0: taken; else the seconds until it would be. interval: seconds that one costs; slack: how far ahead the key may be
   ((burst - 1) * interval). now: seconds of a clock that all callers share. Any thread. */
double neap_ratelimit_take(neap_ratelimit *t, const char *key, size_t n, double now, double interval, double slack);
#endif
