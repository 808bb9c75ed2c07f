/*
 * memory.h - the memory a supervisor shares with its worker, and keeps when the worker dies.
 *
 *     nq_memory | nq_lane_memory ... | nq_queue_memory ... | receive slots of lane 0 | of lane 1
 * ...
 *
 * A lane is the data path of one thread: its socket's receive slots, the cursor that says which
 * slot is in the handler, and the verdicts decided but not sent. Each part has one writer, the
 * thread that owns the lane, with plain stores in the order that loop.c keeps; a successor reads
 * them once the writer is known to be dead. Everything is found by offset, and `version` changes
 * with the layout.
 */
#ifndef NQ_MEMORY_H
#define NQ_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "netlink/batch.h"

#define NQ_MEMORY_MAGIC 0x6e66716du /* "nfqm" */
#define NQ_MEMORY_VERSION 2u

#define NQ_SLOTS 64
/* A message: NQ_PACKET_MAX bytes of payload and up to 4 KB of other attributes. */
#define NQ_SLOT_MESSAGE (65536 + 4096)
/* Then room for content of another length, and an odd number of cache lines: equal offsets in all
 * slots would meet in the same few sets of the cache. */
#define NQ_SLOT_STRIDE (NQ_SLOT_MESSAGE + 65536 + 320)

/* Values of nq_lane_memory.cursor beside the index of the slot in the handler. */
#define NQ_CURSOR_RECEIVING (-1)  /* slots with a length have not been looked at */
#define NQ_CURSOR_DONE (NQ_SLOTS) /* every slot has its verdict */

struct nq_counters {
	uint64_t packets, bytes;
	uint64_t accepted, dropped, modified, again, requeued, rejected;
	uint64_t undecided, errors, truncated, refused, lost;
	uint64_t injected; /* packets sent by nfqueue.send */
};

struct nq_queue_memory {
	uint32_t number;
	uint32_t seen;	  /* whether last_id means something */
	uint32_t last_id; /* of the packet received last */
	uint32_t unused;
	struct nq_counters counters;
};

struct nq_lane_memory {
	int32_t cursor;
	uint32_t first_queue; /* index of its first nq_queue_memory */
	uint32_t queue_count;
	uint32_t joined; /* the queues are bound and configured: a successor takes over */
	uint64_t enobufs;
	uint64_t slots;			   /* offset of slot 0 */
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
	uint32_t unused;
	uint64_t workers_lost;
};

/*
 * Maps zeroed memory for `lane_count` lanes that serve the `queue_count` numbers (each once) in
 * turn: queue i belongs to lane i % lane_count. NULL with errno on failure. Pages cost only when
 * touched.
 */
struct nq_memory *nq_memory_new(unsigned lane_count, const uint16_t *numbers, unsigned queue_count);
void nq_memory_free(struct nq_memory *memory);

struct nq_lane_memory *nq_memory_lane(struct nq_memory *memory, unsigned lane);
struct nq_queue_memory *nq_memory_queue(struct nq_memory *memory, unsigned queue);

#endif
