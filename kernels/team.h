/* team.h: threads that share one large batch. Members meet at barriers a few microseconds apart, so they spin; a team lives for one training call.
   Work is cut over samples going forward and over weight rows going back, never over a reduction: any team size gives the same bits. */
#ifndef NEAP_TEAM_H
#define NEAP_TEAM_H
#include "kernels/kernels.h"

#define NEAP_TEAM_ROWS  512  /* batches below this are not worth a team */
#define NEAP_TEAM_CHUNK 1024 /* samples between barriers */

/* `threads` members in all, the caller included. NULL if none could be started (the caller then works alone). */
neap_team *neap_team_new(int threads);
void neap_team_free(neap_team *team);
int neap_team_size(const neap_team *team);

/* Runs fn(arg, member, size) on every member, the caller as member 0, and returns when all are done. */
void neap_team_run(neap_team *team, void (*fn)(void *arg, int member, int size), void *arg);

/* All members meet here. Only inside neap_team_run. */
void neap_team_barrier(neap_team *team);
#endif
