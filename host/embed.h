/* embed.h: the files that travel inside the binary (lua/neap and scripts), made by embed.sh at build time. */
#ifndef NEAP_EMBED_H
#define NEAP_EMBED_H
#include <stddef.h>

struct neap_embedded_file {
    const char *name; /* path as in the source tree, e.g. "lua/neap/store.lua"; NULL ends the table */
    const char *data; /* a NUL follows the last byte */
    size_t len;
};
extern const struct neap_embedded_file neap_embedded[];
#endif
