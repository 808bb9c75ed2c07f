/*
 * store.h - the sockets and the memory that outlive the supervisor too, in the descriptor store of
 * a service manager.
 *
 * A later supervisor, of another version perhaps, takes them over as a worker's successor does. It
 * looks first whether they are what it would have made itself: a memory of its own layout, for the
 * same queues and as many threads. Where they are not it says so and lets them go, and with them
 * what waits in the queues.
 */
#ifndef NQ_STORE_H
#define NQ_STORE_H

#include "host/memory.h"
#include "host/notify.h"

/*
 * Takes what was passed to this process: true with *memory, its descriptor and sockets[lane_count]
 * filled, the caller's from here on. False: there was nothing, or nothing of use (logged); then all
 * of it is closed. What is passed and not nfqueue's is closed.
 */
bool nq_store_take(const struct nq_notify *notify, unsigned lane_count, const uint16_t *numbers,
		   unsigned queue_count, struct nq_memory **memory, int *memory_fd, int *sockets);

/* Has the manager keep the memory and the sockets, and notes in the memory that it does. Logs why
 * it does not. */
void nq_store_keep(const struct nq_notify *notify, struct nq_memory *memory, int memory_fd,
		   const int *sockets);

#endif
