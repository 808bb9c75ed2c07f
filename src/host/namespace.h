/*
 * namespace.h - a private network namespace for this process and its children.
 */
#ifndef NQ_NAMESPACE_H
#define NQ_NAMESPACE_H

/*
 * Moves a single-threaded process into a new network and mount namespace; an ordinary user gets a
 * user namespace too, as its root. /sys then shows the new namespace, and an ordinary user's /run
 * is an empty one it can write to. 0 or -errno.
 */
int nq_namespace_enter(void);

#endif
