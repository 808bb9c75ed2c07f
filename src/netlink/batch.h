/*
 * batch.h - verdicts on their way: decided, packed into one datagram, not yet sent.
 *
 * The store lies in memory that outlives the process which decided (see host/memory.h): an entry is
 * written first and counted after, so whoever reads the store later finds whole verdicts only.
 *
 *     wire     | nlmsghdr | nfgenmsg | verdict hdr | [mark] [priority] [ct] [payload attr head] |
 * next ... entries    start, length of that; payload: where the bytes of the payload lie
 *
 * A run of plain accepts (or drops) of one queue becomes one batch-verdict message, which settles
 * every packet of the queue up to its id; so it is only used while no packet with a lower id is
 * open.
 */
#ifndef NQ_BATCH_H
#define NQ_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

#define NQ_BATCH_ENTRIES 128
#define NQ_BATCH_ENTRY_SIZE 128 /* no message without its payload is longer */

struct nq_batch_entry {
	uint32_t start;
	uint32_t length;
	uint64_t payload; /* offset from the base address given to the batch; meaningful when
			     payload_length */
	uint32_t payload_length;
	uint32_t queue;
};

struct nq_batch_store {
	uint32_t count;
	uint32_t unused;
	struct nq_batch_entry entries[NQ_BATCH_ENTRIES];
	uint8_t wire[NQ_BATCH_ENTRIES * NQ_BATCH_ENTRY_SIZE];
};

struct nq_batch {
	struct nq_batch_store *store;
	uint8_t *base; /* payloads are stored as offsets from here */
	int fd;
	uint64_t serial; /* counts flushes, from 1 */
};

/* The last entry of one queue, for runs: kept by the caller, one a queue, zeroed at start. */
struct nq_batch_run {
	uint64_t serial; /* the batch it lies in; valid while that is the present one */
	uint32_t entry;
	uint32_t verdict;
};

/* Whether one more verdict fits; if not, flush first. */
static inline bool nq_batch_full(const struct nq_batch *batch)
{
	const struct nq_batch_store *store = batch->store;
	const struct nq_batch_entry *last;

	if (store->count == 0)
		return false;
	last = &store->entries[store->count - 1];
	/* What a flush could not send keeps its place, so the wire can be full before the entries.
	 */
	return store->count == NQ_BATCH_ENTRIES ||
	       last->start + last->length + NQ_BATCH_ENTRY_SIZE > sizeof(store->wire);
}

/*
 * Adds the decision that `packet` carries. `open`: whether a packet of this queue with a lower id
 * still waits for a verdict. Bytes to send must stay where they are, above batch->base, until the
 * flush.
 */
void nq_batch_add(struct nq_batch *batch, struct nq_batch_run *run, const struct nq_packet *packet,
		  bool open);

/*
 * Adds a plain verdict for an id alone; `batched`: for all ids up to it. It is one of those that
 * may find nothing (NQ_SEQ_DOUBTFUL).
 */
void nq_batch_add_id(struct nq_batch *batch, uint16_t queue, uint32_t id, enum nq_verdict verdict,
		     bool batched);

/* Marks every entry as maybe sent already, by the class of its sequence number. */
void nq_batch_doubt(struct nq_batch *batch);

/*
 * Sends everything, in order, in as few datagrams as the socket takes. 0: sent, the store is empty.
 * -errno: entries from the first unsent one on are still in the store.
 */
int nq_batch_flush(struct nq_batch *batch);

#endif
