/*
 * standin.h - a worker without a script, for when workers with one die again and again: it gives
 * every packet on_error.
 *
 * It is a successor like any other, in a process of its own, so that what kills it is not the
 * supervisor's death either: first it settles what the dead one left, held and delayed packets as
 * they must. The supervisor may kill it at any time; the worker after it takes over from it.
 */
#ifndef NQ_STANDIN_H
#define NQ_STANDIN_H

#include "host/memory.h"

/*
 * Judges the queues that are bound until `stop_fd` becomes readable, then drains and leaves them:
 * 0. 1 when it cannot go on (logged).
 */
int nq_stand_in(struct nq_memory *memory, const int *sockets, int stop_fd);

#endif
