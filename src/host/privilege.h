/*
 * privilege.h - becoming an ordinary user who may judge packets, and nothing else.
 *
 * The kernel checks CAP_NET_ADMIN at every verdict, so that one stays. CAP_NET_RAW does not: the
 * sockets that packets are sent through are open by then. It needs libcap-ng.
 */
#ifndef NQ_PRIVILEGE_H
#define NQ_PRIVILEGE_H

#include <stdbool.h>

#include "host/settings.h"

/*
 * The process becomes `user`, with that user's groups, CAP_NET_ADMIN alone (if it has it), an empty
 * bounding set and no_new_privs, which all its children inherit. 0, or -errno with *failure: 64 no
 * such user, or root; 69 a build without libcap-ng; 77 this process may not. Single-threaded.
 */
int nq_privilege_drop(const char *user, struct nq_failure *failure);

#endif
