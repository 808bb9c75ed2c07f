/*
 * worker.h - the threads that judge: one a lane, started together, stopped together.
 *
 * It knows when things happen, not what a handler is: that is behind the functions of
 * nq_worker_ops. The same code runs in the supervised process of the command and inside the host's
 * process for the module.
 */
#ifndef NQ_WORKER_H
#define NQ_WORKER_H

#include "host/loop.h"
#include "host/memory.h"
#include "host/settings.h"
#include "host/watchdog.h"

struct nq_worker_lane {
	unsigned number;
	int socket; /* open; the caller's */
	unsigned queue_count;
	const struct nq_queue_memory *queues; /* their numbers */
	struct nq_loop *loop;		      /* between load and unload */
	struct nq_settings *settings;	      /* one a queue, filled by load */
	void **owners;			      /* one a queue, filled by load */
	void *state;			      /* filled by load, freed by unload */
	struct nq_timers *timers;	      /* of the state; filled by load */
	void *context;			      /* the caller's */
	const struct nq_memory *memory;
	struct nq_watchdog *watchdog; /* of all lanes; NULL: there is none */
};

/*
 * Called in the lane's own thread, in this order. load makes the state and the settings, open runs
 * what must come before the first packet, close what comes after the last verdict; unload frees,
 * also after a load that failed. A failure is told by a negative errno and *failure.
 */
struct nq_worker_ops {
	int (*load)(struct nq_worker_lane *lane, struct nq_failure *failure);
	int (*open)(struct nq_worker_lane *lane, struct nq_failure *failure);
	const struct nq_loop_calls *calls; /* their context is lane->state */
	void (*close)(struct nq_worker_lane *lane);
	void (*unload)(struct nq_worker_lane *lane);
};

/*
 * Runs a thread for each lane of `memory` over sockets[lane], and blocks until they have ended:
 * because one of them stopped, or because `stop_fd` (-1: none) became readable, or because
 * `interrupted` said so. That is asked after signals and now and then; the threads block all
 * signals then. It is NULL in a process of the worker's own. No lane binds its queues before every
 * lane has loaded and opened. 0, or the first failure.
 */
int nq_worker_run(struct nq_memory *memory, const int *sockets, const struct nq_worker_ops *ops,
		  void *context, int stop_fd, bool (*interrupted)(void *context),
		  struct nq_failure *failure);

#endif
