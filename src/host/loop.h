/*
 * loop.h - one thread's data path: receive many, judge each, send all verdicts; and nothing lost.
 *
 * The loop owns time and bytes: it receives into the lane's slots, hands packets one at a time to
 * the judge (a function pointer; it does not know what is behind it), turns decisions into
 * verdicts, and waits. Everything is called from the one thread that made the loop, but
 * nq_loop_stop.
 */
#ifndef NQ_LOOP_H
#define NQ_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "host/keep.h"
#include "host/log.h"
#include "host/memory.h"
#include "host/settings.h"
#include "netlink/batch.h"
#include "netlink/proc.h"
#include "netlink/raw.h"
#include "packet/packet.h"

struct nq_loop;

/*
 * Judges what was received: calls nq_loop_next until it returns NULL, and nq_loop_settle once for
 * each packet. It may return early; the loop then calls it again for the rest, after settling the
 * packet that was out with on_error. It must not unwind through the loop.
 */
typedef void nq_judge(void *context, struct nq_loop *loop);

/* What the loop calls, with its context; none of these may unwind through it. */
struct nq_loop_calls {
	nq_judge *judge;
	/* Runs what is due of loop->timers: those that were there at the beginning, each once. */
	nq_judge *tick;
	/* A held packet that nobody settled has its verdict: `owner`'s part in it is over. */
	void (*release)(void *context, void *owner);
};

struct nq_loop_queue {
	uint16_t number;
	bool takeover;	    /* ids before the first packet may be orphans of a dead worker */
	bool barrier_known; /* id_sequence below was read */
	uint32_t barrier;   /* id sequence when the takeover began */
	uint32_t kept;	    /* packets held or delayed: ids open below those to come */
	struct nq_queue_memory *memory;
	struct nq_settings settings;
	struct nq_batch_run run;
	void *owner; /* the judge's, untouched here */
};

struct nq_loop {
	int socket;    /* the caller's: not closed here */
	int epoll;     /* readable when there is something to do */
	int wake;      /* eventfd behind nq_loop_stop */
	int proc;      /* nfnetlink_queue in /proc, or -errno */
	uint8_t *base; /* of the memory */
	struct nq_lane_memory *memory;
	uint8_t *slots;
	struct nq_loop_queue *queues;
	unsigned queue_count;
	uint32_t *index; /* by queue number, 1 + position in queues; NULL for a single queue */
	struct nq_batch batch;
	struct nq_packet packet;       /* the one being judged */
	struct nq_loop_queue *current; /* its queue; NULL when no packet is out */
	bool settled;
	bool rest;	       /* told to, by another thread: nq_loop_rest */
	bool resting;	       /* it does: every verdict is sent */
	unsigned filled, next; /* slots received, and the next to look at */
	uint64_t verdicts;     /* given since the loop was made */
	const struct nq_loop_calls *calls;
	void *context;
	struct nq_timers *timers; /* of whoever is behind the calls; NULL: none */
	struct nq_budget *budget; /* theirs too: copies are counted in it; NULL: they are not */
	struct nq_keep keep;
	int64_t now;   /* of this batch; 0: nobody has asked */
	bool stepping; /* what is decided leaves at the end of the step */
	bool leaving;
	bool doubtful; /* the verdicts at hand may have been sent already */
	bool bound;
	int failed; /* -errno: found while judging, told by the step */
	bool stop;  /* atomic */
	bool asked; /* atomic */
	struct nq_log_limit limit;
	/* Answers to rejected packets. */
	const struct nq_raw *raw;	      /* the caller's; NULL: none are sent */
	struct nq_log_limit errors;	      /* of ICMP errors, which are limited */
	struct nq_log_limit answer_reports;   /* of lines about answers that could not be sent */
	uint32_t buffer_wanted, buffer_given; /* receive buffer, bytes */
	int buffer_error;
	/* The answer that is awaited (await_answer in loop.c). */
	uint32_t awaited;
	int answer;
	bool answered;
};

/*
 * Makes a loop over a lane of `memory` and an open socket; queue i takes settings[i] and owners[i].
 * `timers`, with its alarm, stays the caller's, and may serve several loops of one thread; the loop
 * waits for them too. NULL with errno. nq_loop_free leaves queues that are still bound to the
 * socket's close.
 */
struct nq_loop *nq_loop_new(struct nq_memory *memory, unsigned lane, int socket,
			    const struct nq_settings *settings, void *const *owners,
			    const struct nq_loop_calls *calls, void *context,
			    struct nq_timers *timers);
void nq_loop_free(struct nq_loop *loop);

/*
 * Binds and configures every queue, or, when a dead worker's lane is still bound, takes its packets
 * over. 0, or -errno with *failure filled and nothing left bound. Packets that arrive meanwhile
 * wait for nq_loop_step.
 */
int nq_loop_join(struct nq_loop *loop, struct nq_failure *failure);

/* After the join: warns when the system gave a smaller receive buffer than asked for. */
void nq_loop_report_buffer(const struct nq_loop *loop);

/*
 * Runs what is due, judges what waits in the slots, or receives once without waiting and judges
 * that, and sends the verdicts. Returns the number of messages received (0: nothing there), or
 * -errno when the queue cannot go on (logged).
 */
int nq_loop_step(struct nq_loop *loop);

/* What nq_loop_run returns between two batches, once, after nq_loop_ask. */
#define NQ_LOOP_ASKED 1

/* Steps and waits until stopped: 0; -EINTR when a signal interrupted the wait; another -errno. */
int nq_loop_run(struct nq_loop *loop);

/* Makes nq_loop_run return NQ_LOOP_ASKED after the batch at hand. Any thread. */
void nq_loop_ask(struct nq_loop *loop);

/* Another judge for the packets of a loop: what nq_loop_new was given for the one before. */
struct nq_loop_judge {
	const struct nq_settings *settings;
	void *const *owners;
	void *context;
	struct nq_timers *timers;
	struct nq_budget *budget; /* counts what is delayed by now, too */
};

/*
 * Between two steps. offer asks whether the kernel and this process have what it needs, and changes
 * nothing that is judged by: 0, or -errno with *failure. Then either withdraw, or replace: packets
 * that came under the settings of the old one are judged by it, those it holds get their verdict,
 * and from the next packet on the new one judges; delayed packets stay. Nothing of the old one is
 * used by the loop any more. replace returns 0, or -errno with *failure when the kernel refused a
 * setting after all; that one stays as it was.
 */
int nq_loop_offer(struct nq_loop *loop, const struct nq_loop_judge *judge,
		  struct nq_failure *failure);
void nq_loop_withdraw(struct nq_loop *loop, const struct nq_loop_judge *judge);
int nq_loop_replace(struct nq_loop *loop, const struct nq_loop_judge *judge,
		    struct nq_failure *failure);

/* Judges what the kernel still holds (not where verdicts cannot be sent), gives what is kept its
 * verdict and unbinds; no timers run. Packets that come later are the kernel's to decide. */
void nq_loop_leave(struct nq_loop *loop);

/* Makes nq_loop_run return after the batch at hand. Any thread; async-signal-safe. */
void nq_loop_stop(struct nq_loop *loop);

/*
 * Makes the loop's thread stand still for ever after the packet at hand, all verdicts sent: the
 * process is about to be ended, and shall leave a successor nothing in a handler. Any thread. Then
 * nq_loop_rests says whether it does.
 */
void nq_loop_rest(struct nq_loop *loop);
bool nq_loop_rests(const struct nq_loop *loop);

/* In a foreign event loop, before the steps: what made the descriptor readable is understood. */
void nq_loop_acknowledge(struct nq_loop *loop);

/* Nanoseconds of the monotonic clock; inside a batch the same for all of it. */
int64_t nq_loop_now(struct nq_loop *loop);

/* For the judge: the next packet, valid until the next call; NULL when there is none. */
struct nq_packet *nq_loop_next(struct nq_loop *loop);

/* For the judge: packet->verdict and what goes with it are final. Once for each packet that was not
 * held. */
void nq_loop_settle(struct nq_loop *loop);

/*
 * For the judge, in place of nq_loop_settle: the packet at hand gets on_error, in the kernel's own
 * copy. Does nothing when no packet is out.
 */
void nq_loop_settle_error(struct nq_loop *loop);

/* Copies the counters of queue `number` and what the kernel says of it: 0, or why the latter is
 * missing. */
int nq_loop_stats(const struct nq_loop *loop, const struct nq_loop_queue *queue,
		  struct nq_counters *counters, struct nq_proc_queue *kernel);

#endif
