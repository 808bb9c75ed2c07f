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
#include "host/text.h"
#include "host/watchdog.h"

/* A script and the lane that it judges for. */
struct nq_worker_lane {
	unsigned number;
	int socket; /* open; the caller's */
	unsigned queue_count;
	const struct nq_queue_memory *queues; /* their numbers */
	struct nq_loop *loop;		      /* there between open and unload */
	struct nq_settings *settings;	      /* one a queue, filled by load */
	void **owners;			      /* one a queue, filled by load */
	void *state;			      /* filled by load, freed by unload */
	struct nq_timers *timers;	      /* of the state; filled by load */
	struct nq_budget *budget;	      /* the same */
	void *context;			      /* the caller's */
	const struct nq_memory *memory;
	struct nq_watchdog *watchdog; /* of all lanes; NULL: there is none */
	const struct nq_text *script; /* during load */
	uint32_t generation;	      /* of the script: later ones have a higher number */
};

/*
 * Called in the lane's own thread, in this order. load makes the state and the settings, open runs
 * what must come before the first packet, close what comes after the last verdict, for as much as
 * open has opened; unload frees, also after a load that failed. A failure is told by a negative
 * errno and *failure. A script that is loaded anew is a second struct nq_worker_lane beside the
 * first, with the same loop: its load and open come before the other's close and unload.
 */
struct nq_worker_ops {
	int (*load)(struct nq_worker_lane *lane, struct nq_failure *failure);
	int (*open)(struct nq_worker_lane *lane, struct nq_failure *failure);
	const struct nq_loop_calls *calls; /* their context is lane->state */
	void (*close)(struct nq_worker_lane *lane);
	void (*unload)(struct nq_worker_lane *lane);
	/* In the main thread: script `generation` judges in every lane, or it was given up. */
	void (*settle)(void *context, uint32_t generation, bool taken);
};

struct nq_worker_job {
	struct nq_memory *memory;
	const int *sockets; /* one a lane */
	const struct nq_worker_ops *ops;
	void *context; /* of ops */
	struct nq_text script;
	uint32_t generation; /* of that script */
	int channel;	     /* to a supervisor (channel.h); -1: there is none */
	/* Whether all shall end. Asked after signals and now and then; the threads block all
	 * signals then. NULL in a process of the worker's own. */
	bool (*interrupted)(void *context);
};

/*
 * Runs a thread for each lane of the memory, and blocks until they have ended: because one of them
 * stopped, or because the supervisor closed the channel, or because `interrupted` said so. No lane
 * binds its queues before every lane has loaded and opened. Scripts that come through the channel
 * take the place of the first when they are loaded and opened in every lane. 0, or the first
 * failure; that it judges is reported through the channel.
 */
int nq_worker_run(const struct nq_worker_job *job, struct nq_failure *failure);

#endif
