/*
 * memory.h - the memory a supervisor shares with its worker, and keeps when the worker dies.
 *
 *     nq_memory | nq_lane_memory ... | nq_queue_memory ... | receive slots of lane 0 | of lane 1
 * ... | nq_kept records and copies of lane 0 | of lane 1 ...
 *
 * A lane is the data path of one thread: its socket's receive slots, the cursor that says which
 * slot is in the handler, the verdicts decided but not sent, and what is kept for later: held and
 * delayed packets. Each part has one writer, the thread that owns the lane, with plain stores in
 * the order that loop.c and keep.c keep; a successor reads them once the writer is known to be
 * dead. Everything is found by offset, and `version` changes with the layout.
 */
#ifndef NQ_MEMORY_H
#define NQ_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "host/timer.h"
#include "netlink/batch.h"
#include "netlink/config.h"

#define NQ_MEMORY_MAGIC 0x6e66716du /* "nfqm" */
#define NQ_MEMORY_VERSION 2u

#define NQ_SLOTS 64
/* A message: NQ_PACKET_MAX bytes of payload and up to 4 KB of other attributes. */
#define NQ_SLOT_MESSAGE (65536 + 4096)
/* Then room for content of another length, and an odd number of cache lines: equal offsets in all
 * slots would meet in the same few sets of the cache. */
#define NQ_SLOT_STRIDE (NQ_SLOT_MESSAGE + 65536 + 320)

/* Values of nq_lane_memory.cursor beside the index of the slot in the handler. */
#define NQ_CURSOR_RECEIVING (-1) /* slots with a length have not been looked at */
/* Those below this one have their verdict, sent; those from it on have not been looked at. */
#define NQ_CURSOR_BEFORE(slot) (-1 - (int32_t)(slot))
#define NQ_CURSOR_DONE (NQ_SLOTS) /* every slot has its verdict */

/* Records a queue: as many packets as the kernel holds for it, whatever max_packets says; and at
 * most for a lane. */
#define NQ_KEPT_QUEUE 65536u
#define NQ_KEPT_LANE 262144u
/* Bytes of a lane for copies of packets; a power of two. */
#define NQ_COPIES_SIZE ((size_t)256 << 20)

struct nq_counters {
	uint64_t packets, bytes;
	uint64_t accepted, dropped, modified, again, requeued, rejected, delayed;
	uint64_t held, expired, undecided, errors, timeouts, truncated, refused, lost;
	uint64_t injected; /* packets sent by nfqueue.send */
};

struct nq_queue_memory {
	uint32_t number;
	uint32_t seen;	  /* whether last_id means something */
	uint32_t last_id; /* of the packet received last */
	/* Workers died, and what they received in their last call may wait: ids above
	 * orphans_above, up to the first packet or the barrier that their successor meets. */
	uint32_t orphans;
	uint32_t orphans_above;
	struct nq_queue_config kernel; /* in force while the queue is bound */
	/* Of the settings, for who has no script to ask (standin.h). */
	uint32_t on_error; /* enum nq_verdict */
	uint32_t max_packets, buffer_size;
	struct nq_counters counters;
};

enum nq_kept_kind {
	NQ_KEPT_NOT, /* free, or its verdict is in the batch */
	NQ_KEPT_HELD,
	NQ_KEPT_DELAYED,
};

/*
 * A packet that waits for its verdict beyond its handler. `kind` is written last when it begins and
 * first when it ends, so a successor finds whole records only. Offsets are from the beginning of
 * struct nq_memory, 0: none.
 */
struct nq_kept {
	uint32_t kind; /* enum nq_kept_kind */
	uint32_t id;
	uint32_t queue; /* index among the lane's */
	uint32_t next;	/* 1 + index: among the free, or those that end with the next flush */
	struct nq_timer timer; /* the living worker's */
	int64_t due;
	uint8_t verdict; /* held: NQ_ACCEPT or NQ_DROP, when nobody settles it */
	bool standard;	 /* held: that is the queue's default */
	uint8_t label;
	uint8_t unused;
	/* Delayed: what goes out with it, as in struct nq_packet. */
	uint32_t send, send_mark, send_priority, connmark, connmask;
	uint32_t length; /* of the bytes to send, with NQ_SEND_BYTES */
	uint64_t bytes;	 /* where they lie */
	/* Its blocks among the copies: held packet and message; content of another length. */
	uint64_t block, room;
};

struct nq_lane_memory {
	int32_t cursor;
	uint32_t first_queue; /* index of its first nq_queue_memory */
	uint32_t queue_count;
	uint32_t joined; /* the queues are bound and configured: a successor takes over */
	uint64_t enobufs;
	uint64_t slots;	    /* offset of slot 0 */
	uint64_t kept;	    /* offset of its records, nq_memory_kept_most(lane) */
	uint64_t copies;    /* offset of NQ_COPIES_SIZE bytes, aligned to a page */
	uint32_t kept_used; /* records from here on have never been used */
	uint32_t takeovers; /* by successors; in the barriers they send, so that they know their own
			     */
	uint32_t overran;   /* a worker was ended because the handler at the cursor could not be
			       interrupted */
	uint32_t unused;
	struct mmsghdr messages[NQ_SLOTS]; /* msg_len is written by the kernel */
	struct nq_batch_store batch;
};

/* DONE: it drained and left; only then its exit status says that all is well. */
enum nq_worker_state { NQ_WORKER_STARTING, NQ_WORKER_READY, NQ_WORKER_DONE };

struct nq_memory {
	uint32_t magic;
	uint32_t version;
	uint64_t size;
	uint32_t lane_count;
	uint32_t queue_count;
	uint64_t lanes;	       /* offset */
	uint64_t queues;       /* offset */
	uint32_t worker_state; /* enum nq_worker_state */
	/* A service manager keeps the sockets for a later run: a worker that leaves leaves the
	 * queues bound. */
	uint32_t stored;
	uint64_t workers_lost;
	uint64_t reloads; /* scripts that took the place of another */
	/* See overrun.h. */
	uint32_t overrun, overrun_lane;
	int64_t overrun_limit; /* nanoseconds */
};

/*
 * Maps zeroed memory for `lane_count` lanes that serve the `queue_count` numbers (each once) in
 * turn: queue i belongs to lane i % lane_count. NULL with errno on failure. Pages cost only when
 * touched. With `fd` it is a file without a name that cannot change its size: *fd, close-on-exec,
 * is the caller's.
 */
struct nq_memory *nq_memory_new(unsigned lane_count, const uint16_t *numbers, unsigned queue_count,
				int *fd);
void nq_memory_free(struct nq_memory *memory);

/*
 * Maps the memory of an earlier supervisor, once no process of its is alive that may write there:
 * what is left of them is killed. NULL with *why, part of a sentence, when nq_memory_new for the
 * same lanes and queues would lay it out otherwise, or what lies in it is not sound.
 */
struct nq_memory *nq_memory_adopt(int fd, unsigned lane_count, const uint16_t *numbers,
				  unsigned queue_count, const char **why);

/* Marks this process, until it ends, as the one that writes: 0 or -errno. */
int nq_memory_claim(int fd);

static inline uint32_t nq_memory_kept_most(const struct nq_lane_memory *lane)
{
	return lane->queue_count < NQ_KEPT_LANE / NQ_KEPT_QUEUE ? lane->queue_count * NQ_KEPT_QUEUE
								: NQ_KEPT_LANE;
}

struct nq_lane_memory *nq_memory_lane(struct nq_memory *memory, unsigned lane);
struct nq_queue_memory *nq_memory_queue(struct nq_memory *memory, unsigned queue);

#endif
