/*
 * control_parts.h - what both sides of the control socket share: control.c (who is asked) and
 * ask.c (who asks). Not for others.
 */
#ifndef NQ_CONTROL_PARTS_H
#define NQ_CONTROL_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#define NQ_CONTROL_FOLDER 256

/*
 * The folders where it may lie, in order: NFQUEUE_RUNTIME_DIR alone where that is set; else
 * /run/nfqueue for root, and nfqueue in XDG_RUNTIME_DIR. False: there are no more.
 */
bool nq_control_folder(unsigned which, char folder[NQ_CONTROL_FOLDER]);

/* The socket's path there: 0 or -ENAMETOOLONG. */
int nq_control_file(const char *folder, const char *name, char *path, size_t size);

/* A descriptor, which never waits, or -errno. -EAGAIN: somebody listens, and has no time. */
int nq_control_connect(const char *path);

#endif
