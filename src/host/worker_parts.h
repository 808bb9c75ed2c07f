/*
 * worker_parts.h - what the files of the worker share: worker.c (threads started and stopped
 * together), reload.c (another script for all of them) and worker_end.c (an end by the watchdog).
 * Not for others.
 */
#ifndef NQ_WORKER_PARTS_H
#define NQ_WORKER_PARTS_H

#include <pthread.h>

#include "host/worker.h"

enum nq_phase { NQ_LOADING, NQ_OPENED, NQ_JOINED, NQ_ENDED };

enum nq_reload_stage {
	NQ_RELOAD_NONE,
	NQ_RELOAD_PREPARE, /* every lane loads and opens the script, and goes on with the old one */
	NQ_RELOAD_COMMIT,  /* every lane changes to it */
	NQ_RELOAD_ABORT,   /* or gives it up */
};

struct nq_worker;

struct nq_lane_thread {
	struct nq_worker_lane lane;
	struct nq_worker *worker;
	pthread_t thread;
	bool started;
	int id;	      /* as the system numbers it */
	int64_t used; /* processor time when it was told to come to rest, nanoseconds */
	/* Its own: the script that it may change to; `state` is NULL when there is none. */
	struct nq_worker_lane next;
	/* Under the worker's lock. */
	enum nq_phase phase;
	bool failed;
	struct nq_failure failure;
	enum nq_reload_stage reached; /* of the reload that is on */
	bool refused;
	struct nq_failure refusal;
};

struct nq_worker {
	const struct nq_worker_job *job;
	struct nq_memory *memory;
	const struct nq_worker_ops *ops;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int report;	       /* eventfd: a thread has something to tell */
	enum nq_phase allowed; /* how far threads may go */
	bool stopping;
	unsigned count;
	struct nq_lane_thread *threads;
	struct nq_watchdog *watchdog;
	/* The script that is changed to; the main thread's, but what lanes read when asked. */
	enum nq_reload_stage stage; /* under the lock */
	uint32_t generation;
	struct nq_text script;
};

/* Allocates what load fills: 0 or -ENOMEM. */
int nq_worker_lane_init(struct nq_worker_lane *lane);
void nq_worker_lane_fini(struct nq_worker_lane *lane);

/* A lane's thread tells the main thread that there is something to look at. */
void nq_worker_tell(struct nq_worker *worker);

/* --- worker_end.c --- */

/* The watchdog's thread: ends the process, after the other lanes have come to rest. An nq_stuck. */
void nq_worker_end(void *context, const struct nq_watched *watched);

/* --- reload.c --- */

/* The main thread: a script came through the channel. False: the other end was closed. */
bool nq_reload_receive(struct nq_worker *worker);

/* The main thread, under the lock: as far as the lanes have come. */
void nq_reload_advance(struct nq_worker *worker);

/* A lane's thread, between two batches: its part of the reload that is on. */
void nq_reload_serve(struct nq_lane_thread *thread);

/* A lane's thread, which ends: gives up what it was about to change to. */
void nq_reload_leave(struct nq_lane_thread *thread);

#endif
