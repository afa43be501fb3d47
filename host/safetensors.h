/* safetensors.h: named tensors and string metadata in one file, as the safetensors format defines it (8 bytes little-endian header length, a JSON
   header, the data), so that PyTorch and numpy read it. Ours add a checksum of the whole file in the metadata ("neap.sha256").

   Writing is atomic: a temporary file beside the target, fsync, rename, fsync of the directory. A crash leaves the old file or the new one.
   Reading is strict: every offset, shape and byte of the header is checked before use; a truncated, bit-flipped or foreign file gives
   NEAP_ERR_CORRUPT and a sentence that says what is wrong. Files of others, without our checksum, are read too. */
#ifndef NEAP_SAFETENSORS_H
#define NEAP_SAFETENSORS_H
#include "host/tensor.h"

typedef struct neap_safe_entry {
    char *name;
    neap_tensor tensor;
} neap_safe_entry;

typedef struct neap_safe_meta {
    char *key, *value; /* UTF-8, NUL-terminated */
} neap_safe_meta;

/* A file's contents. Zero-initialise; free with neap_safe_free. */
typedef struct neap_safe {
    neap_safe_entry *entry;
    int entries;
    neap_safe_meta *meta;
    int metas;
    int checked;     /* the file carried our checksum, and it holds */
    char error[160]; /* after a failure: what is wrong, without the file's name */
} neap_safe;

/* Both copy the names; the tensor gets a reference. 0 or NEAP_ERR_MEMORY; NEAP_ERR_INVALID for a name given twice or not UTF-8. */
int neap_safe_add(neap_safe *s, const char *name, const neap_tensor *t);
int neap_safe_add_meta(neap_safe *s, const char *key, const char *value);
const neap_tensor *neap_safe_get(const neap_safe *s, const char *name); /* NULL: not there */
const char *neap_safe_get_meta(const neap_safe *s, const char *key);    /* NULL: not there */
void neap_safe_free(neap_safe *s);

/* 0 or NEAP_ERR_IO (errno), NEAP_ERR_MEMORY. */
int neap_safe_write(neap_safe *s, const char *path);

/* Into an empty *s. 0 or NEAP_ERR_IO (errno), NEAP_ERR_CORRUPT, NEAP_ERR_UNSUPPORTED (a dtype we lack), NEAP_ERR_MEMORY; s->error says more. */
int neap_safe_read(neap_safe *s, const char *path);

/* The same from memory: what fuzzing and tests call. */
int neap_safe_parse(neap_safe *s, const unsigned char *data, size_t n);
#endif
