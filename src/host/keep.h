/*
 * keep.h - packets kept past their handler: held until somebody settles them, or delayed.
 *
 * Both wait in the lane's shared memory, so that a successor finds them. A held packet is a copy
 * that can be read, edited and judged like the one at hand; when its time is over it gets its own
 * verdict. A delayed one is decided; without edits nothing of it is copied. Nothing is allocated:
 * records and bytes come out of what the lane has, and when that is used up the call says so. All
 * of it belongs to the loop's thread.
 */
#ifndef NQ_KEEP_H
#define NQ_KEEP_H

#include "host/arena.h"
#include "host/budget.h"
#include "host/memory.h"
#include "host/settings.h"
#include "host/timer.h"
#include "packet/packet.h"

struct nq_loop;

/* A held packet: its place in the copies, with the message it came in behind it. */
struct nq_held {
	struct nq_packet packet; /* first: where packet->kept is set, this is around it */
	struct nq_loop *loop;
	struct nq_kept *record;
	void *owner; /* the judge's; told to its release */
};

/* What a lane keeps; part of the loop. */
struct nq_keep {
	struct nq_kept *records;
	struct nq_arena arena;
	struct nq_timers delayed, held;
	struct nq_alarm alarm;
	uint32_t most;	  /* records there are */
	uint32_t count;	  /* held or delayed at present */
	uint32_t free;	  /* 1 + index of the first free record below kept_used; 0: none */
	uint32_t settled; /* 1 + index of the first whose verdict leaves with the next flush */
};

/*
 * Holds the packet at hand for as many nanoseconds, after which it gets `verdict` (NQ_ACCEPT or
 * NQ_DROP; NQ_UNDECIDED: the queue's default). It counts as settled with the loop then, and *held
 * is the packet from here on. -ENOSPC: no record is left; -ENOMEM: no room for the copy; -EDQUOT:
 * no room for it in the state's budget.
 */
int nq_loop_hold(struct nq_loop *loop, int64_t nanoseconds, enum nq_verdict verdict, void *owner,
		 struct nq_held **held);

/* Another time, from now on, and another verdict at its end. */
void nq_held_prolong(struct nq_held *held, int64_t nanoseconds, enum nq_verdict verdict);

/* Of its queue. */
const struct nq_settings *nq_held_settings(const struct nq_held *held);

/* Gives a kept packet room for content of another length (packet->spare): 0, -ENOMEM or -EDQUOT. */
int nq_held_room(struct nq_packet *packet);

/*
 * held->packet.verdict and what goes with it are final. Inside a step the verdict leaves with it,
 * and the packet can be read until then; outside it is sent at once, and *held is gone on return.
 */
void nq_held_settle(struct nq_held *held);

/*
 * Keeps the packet at hand, whose verdict is NQ_DELAY, until packet->delay nanoseconds after the
 * batch it came in; to be called as soon as it is decided, before nq_loop_settle. Errors as of
 * nq_loop_hold.
 */
int nq_loop_delay(struct nq_loop *loop);

/* --- For the files of the loop --- */

int nq_keep_init(struct nq_loop *loop, struct nq_memory *memory);
void nq_keep_fini(struct nq_loop *loop);

/* What is due: sends delayed packets, has timers run, gives held ones their verdict. 0 or -errno.
 */
int nq_keep_run_due(struct nq_loop *loop);

/* All at once: delayed packets are accepted, held ones get their verdict. Not yet flushed. */
void nq_keep_end(struct nq_loop *loop);

/* Held ones only. */
void nq_keep_end_held(struct nq_loop *loop);

/* All of one queue, in no order. */
void nq_keep_end_queue(struct nq_loop *loop, unsigned queue);

/* After a flush: what was settled gives its place back. */
void nq_keep_sweep(struct nq_loop *loop);

/* Forgets everything, without verdicts: the queues are not bound any more, or not yet. */
void nq_keep_reset(struct nq_loop *loop);

#endif
