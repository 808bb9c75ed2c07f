/*
 * ends.h - a bounded table of whatever belongs to two ends: found by both addresses and ports,
 * whichever end sends, and kept in lists from the longest silent to the latest.
 *
 * All memory is reserved at the start and touched as it is used. When the table is full the entry
 * goes that is first in the lists; what has been silent longer than its list's time-out goes, too.
 * It has no lock and knows nothing of what an entry holds behind its head.
 */
#ifndef NQ_TABLE_ENDS_H
#define NQ_TABLE_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"
#include "table/hash.h"

/* Both ends in one order, whichever sends; no padding. */
struct nq_ends {
	uint8_t addresses[2][16];
	uint8_t ports[2][2];
	uint8_t version;  /* of IP */
	uint8_t protocol; /* of the transport */
	uint8_t zeros[2];
};

/* Fills *ends; true when the packet's source is the second. */
bool nq_ends_of(struct nq_ends *ends, const struct nq_flow_tuple *tuple);

/* What an entry begins with; the table's. */
struct nq_entry {
	struct nq_ends ends;
	int64_t seen;	/* when it was last found, nanoseconds */
	uint32_t chain; /* next of the same hash, or of the unused ones */
	uint32_t older, newer;
	uint8_t list;
};

enum { NQ_ENDS_LISTS = 3 }; /* at most */

struct nq_ends_table {
	uint8_t *memory; /* entry 0 is not used */
	size_t stride;
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t limit, touched, count;
	uint32_t unused;
	uint32_t oldest[NQ_ENDS_LISTS], newest[NQ_ENDS_LISTS];
	int64_t timeouts[NQ_ENDS_LISTS]; /* nanoseconds; of lists that are used */
	struct nq_hash_key key;
	/* Called for an entry that goes; it may not call the table. */
	void (*forget)(void *context, struct nq_entry *entry);
	void *context;
};

/* Room for `limit` entries of `stride` bytes; the caller has set timeouts, forget and context. 0 or
 * -ENOMEM. */
int nq_ends_table_init(struct nq_ends_table *table, uint32_t limit, size_t stride);
void nq_ends_table_fini(struct nq_ends_table *table);

/* The number of an entry, from 1 to `limit`, and back. */
static inline struct nq_entry *nq_ends_table_at(const struct nq_ends_table *table, uint32_t number)
{
	return (struct nq_entry *)(void *)(table->memory + number * table->stride);
}

static inline uint32_t nq_ends_table_number(const struct nq_ends_table *table,
					    const struct nq_entry *entry)
{
	return (uint32_t)(((const uint8_t *)entry - table->memory) / (ptrdiff_t)table->stride);
}

/* The entry, which becomes the latest of its list; NULL when there is none. */
struct nq_entry *nq_ends_table_find(struct nq_ends_table *table, const struct nq_ends *ends,
				    int64_t now);

/* The same, and nothing is changed; then what nq_ends_table_find would change. */
struct nq_entry *nq_ends_table_peek(const struct nq_ends_table *table, const struct nq_ends *ends,
				    int64_t now);
void nq_ends_table_touch(struct nq_ends_table *table, struct nq_entry *entry, int64_t now);

/* A new one, zeroed behind its head, the latest of the list; where there was none. */
struct nq_entry *nq_ends_table_add(struct nq_ends_table *table, const struct nq_ends *ends,
				   uint8_t list, int64_t now);

/* Puts it into another list, as the latest. */
void nq_ends_table_move(struct nq_ends_table *table, struct nq_entry *entry, uint8_t list);

void nq_ends_table_forget(struct nq_ends_table *table, struct nq_entry *entry);

/* Lets go of one whose time is over; false when there is none. */
bool nq_ends_table_expire(struct nq_ends_table *table, int64_t now);

#endif
