/*
 * loop_parts.h - what the files of the loop share: loop.c (the data path), join.c (binding
 * and leaving) and request.c (asking the kernel), replace.c (another judge), answer.c (rejecting)
 * and takeover.c (after a dead worker). Not for others.
 */
#ifndef NQ_LOOP_PARTS_H
#define NQ_LOOP_PARTS_H

#include "host/clock.h"
#include "host/loop.h"
#include "netlink/message.h"

static inline uint8_t *nq_loop_slot(const struct nq_loop *loop, unsigned slot)
{
	return loop->slots + (size_t)slot * NQ_SLOT_STRIDE;
}

static inline unsigned nq_loop_slot_length(const struct nq_loop *loop, unsigned slot)
{
	return loop->memory->messages[slot].msg_len;
}

/* Whether lower ids than those of packets at hand may wait for a verdict: what is kept, and what a
 * dead worker has left. */
static inline bool nq_loop_open_below(const struct nq_loop_queue *queue)
{
	return queue->kept > 0 || queue->memory->orphans;
}

/* Every store that a successor reads is made in program order; on the same machine that is enough.
 */
static inline void nq_loop_set_cursor(struct nq_loop *loop, int32_t cursor)
{
	__atomic_store_n(&loop->memory->cursor, cursor, __ATOMIC_RELEASE);
}

/*
 * Of the barrier that this loop sends. The answer to one of a successor that died may lie in front
 * of packets that this one's barrier is behind.
 */
static inline uint32_t nq_loop_barrier_seq(const struct nq_loop *loop,
					   const struct nq_loop_queue *queue)
{
	return nq_seq(NQ_SEQ_BARRIER, queue->number, loop->memory->takeovers);
}

/* rest.c: stands still if it is told to. Between packets, with none at hand. */
static inline bool nq_loop_must_rest(const struct nq_loop *loop)
{
	return __atomic_load_n(&loop->rest, __ATOMIC_ACQUIRE);
}
void nq_loop_stand_still(struct nq_loop *loop);

struct nq_loop_queue *nq_loop_find_queue(struct nq_loop *loop, uint16_t number);

/* Sends every verdict in the batch: 0 or -errno, logged. */
int nq_loop_flush(struct nq_loop *loop);

/* The same at the end of a step: what was settled in it is gone then. */
int nq_loop_finish(struct nq_loop *loop);

void nq_loop_count_verdict(struct nq_loop_queue *queue, const struct nq_packet *packet);

/* Receives up to `most` messages into the slots from `filled` on, without waiting: number or
 * -errno. */
int nq_loop_receive(struct nq_loop *loop, unsigned most);

/* Judges slots [next, filled), sends, and leaves the slots free: 0 or -errno. */
int nq_loop_judge_received(struct nq_loop *loop);

/* Takes an answer of the kernel in: awaited, a refused verdict, or a takeover's barrier. */
void nq_loop_handle_answer(struct nq_loop *loop, const struct nq_answer *answer);

/* answer.c: sends the answer to a packet of this queue that is being rejected, if one is due. */
void nq_loop_answer(struct nq_loop *loop, const struct nq_loop_queue *queue,
		    struct nq_packet *packet);

/*
 * request.c: each sends a request and waits for its answer, while packets that come are kept in
 * their slots, or judged when those are full. 0, or -errno of the answer; -ENOBUFS when it is lost
 * again and again, -ETIMEDOUT.
 *
 * Of a queue that is not bound yet: whether the kernel has a flag (-EOPNOTSUPP); nothing is
 * changed.
 */
int nq_loop_probe_flag(struct nq_loop *loop, const struct nq_loop_queue *queue, unsigned bit);

/* -EPERM: this process may not configure any queue. */
int nq_loop_ask_privilege(struct nq_loop *loop, const struct nq_loop_queue *queue);

/* Of one that is bound, the same for all flags that are not in force yet; tells the user. */
int nq_loop_check_flags(struct nq_loop *loop, const struct nq_loop_queue *queue,
			const struct nq_queue_config *config, struct nq_failure *failure);

int nq_loop_bind(struct nq_loop *loop, const struct nq_loop_queue *queue,
		 const struct nq_queue_config *config);
int nq_loop_change(struct nq_loop *loop, const struct nq_loop_queue *queue,
		   const struct nq_queue_config *config);
int nq_loop_limit(struct nq_loop *loop, const struct nq_loop_queue *queue, uint32_t max_packets,
		  bool fail_open);
int nq_loop_unbind(struct nq_loop *loop, const struct nq_loop_queue *queue);

/* join.c: what the answer to such a request means, for the user. */
int nq_loop_fail_flag(struct nq_failure *failure, const struct nq_loop_queue *queue, unsigned bit);
int nq_loop_fail_request(struct nq_loop *loop, struct nq_failure *failure,
			 const struct nq_loop_queue *queue, int error);

/* join.c: asks for a receive buffer as large as those of all queues together. */
void nq_loop_set_buffer(struct nq_loop *loop);

/* Waits for the descriptor, or, not `armed`, only gets ready to: what is needed for it is taken
 * then. 0 or -errno. */
int nq_loop_watch(const struct nq_loop *loop, int fd, bool armed);
int nq_loop_open_timers(struct nq_timers *timers);

/* Makes the epoll descriptor readable. */
void nq_loop_wake(struct nq_loop *loop);

/* Some of them are for who judges without a script. */
static inline void nq_loop_take_settings(struct nq_loop_queue *queue,
					 const struct nq_settings *settings)
{
	queue->settings = *settings;
	queue->memory->on_error = settings->on_error;
	queue->memory->max_packets = settings->kernel.max_packets;
	queue->memory->buffer_size = settings->buffer_size;
}

static inline uint64_t nq_loop_offset(const struct nq_loop *loop, const void *place)
{
	return place ? (uint64_t)((const uint8_t *)place - loop->base) : 0;
}

static inline void *nq_loop_place(const struct nq_loop *loop, uint64_t offset)
{
	return offset ? loop->base + offset : NULL;
}

/* keep.c, for hold.c and takeover.c: a record for the packet at hand, NULL when none is left; and
 * its end, with its blocks. */
struct nq_kept *nq_keep_new(struct nq_loop *loop);
void nq_keep_free(struct nq_loop *loop, struct nq_kept *record);

/* A block for a copy, counted in the budget; NULL with -ENOMEM or -EDQUOT. And its end (NULL does
 * nothing). */
void *nq_keep_take(struct nq_loop *loop, size_t size, int *error);
void nq_keep_give(struct nq_loop *loop, void *block);

/* It is whole: from here on it waits. */
void nq_keep_begin(struct nq_loop *loop, struct nq_kept *record, enum nq_kept_kind kind,
		   int64_t due);

/* What is to be sent of a packet, in the record. Its bytes stay where they are. */
void nq_keep_write(struct nq_loop *loop, struct nq_kept *record, const struct nq_packet *packet);

/*
 * The verdict goes into the batch, and only then is the record done with: a death in between gives
 * two verdicts, of which the kernel takes the first. False when the batch is stuck, and with it the
 * loop.
 */
bool nq_keep_submit(struct nq_loop *loop, struct nq_kept *record, const struct nq_packet *packet);

/* takeover.c: judges what a dead worker left in the lane: 0 or -errno with *failure. */
int nq_loop_take_over(struct nq_loop *loop, struct nq_failure *failure);

/* The ids up to `last` that nobody has told us of get on_error: what the dead worker received in
 * its last call. */
void nq_loop_finish_takeover(struct nq_loop *loop, struct nq_loop_queue *queue, uint32_t last);

#endif
