/* secret.h: what keeping secrets takes: bytes that nobody can guess, and a file that only its owner can read. (Sums: sha256.h.) */
#ifndef NEAP_SECRET_H
#define NEAP_SECRET_H
#include <stddef.h>

/* n bytes from the kernel, blocking until it has enough entropy. 0 or NEAP_ERR_IO. */
int neap_secret_random(void *out, size_t n);

/* Replaces the file at path by n bytes, whole or not at all, with mode 0600. On disk when it returns 0; else NEAP_ERR_IO (errno) or
   NEAP_ERR_INVALID (the path is too long), and the old file is as it was. Blocking. */
int neap_secret_write(const char *path, const void *data, size_t n);

/* Locks the file at path (made with mode 0600 if missing) against other processes and threads; the kernel drops the lock when *fd is closed, however
   its holder ends. 0; NEAP_ERR_FULL: somebody else has it; NEAP_ERR_IO (errno). */
int neap_secret_lock(const char *path, int *fd);
#endif
