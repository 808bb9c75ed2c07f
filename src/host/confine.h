/*
 * confine.h - the worker's confinement: which system calls it may make, and on which files.
 *
 * What starts a process or a program, looks into another one or opens a socket kills the worker.
 * What else the judging of packets does not need fails with EPERM and is told once, one line a
 * call. Everything the worker itself uses beyond that is open before: sockets, /proc. It needs
 * libseccomp and Landlock.
 */
#ifndef NQ_CONFINE_H
#define NQ_CONFINE_H

#include "host/landlock.h"
#include "host/settings.h"

/*
 * Whether nq_confine_enter can work, for the supervisor: 0, or -errno with *failure: 66 a path that
 * is not there; 69 a kernel without Landlock or seccomp filters, a build without libseccomp.
 */
int nq_confine_check(const struct nq_landlock *files, struct nq_failure *failure);

/* Confines this process, still single-threaded, for good; sets no_new_privs. As above. */
int nq_confine_enter(const struct nq_landlock *files, struct nq_failure *failure);

#endif
