/*
 * text.h - a script's file, read whole once: every thread and every later worker gets the same
 * text, whatever becomes of the file.
 */
#ifndef NQ_TEXT_H
#define NQ_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "host/settings.h"

/* A file that is larger is no script. */
#define NQ_TEXT_MOST ((size_t)64 << 20)

/* Zeroed: none. */
struct nq_text {
	char *bytes; /* from malloc */
	size_t length;
};

/*
 * Reads the file to its end; `again`: it has been read before, so that it must be a regular file,
 * and nothing is waited for. 0, or -errno with *failure (66: it cannot be read).
 */
int nq_text_read(const char *path, bool again, struct nq_text *text, struct nq_failure *failure);

/* The same from a descriptor's beginning: 0 or -errno. */
int nq_text_read_fd(int fd, struct nq_text *text);

void nq_text_free(struct nq_text *text);

#endif
