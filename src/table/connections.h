/*
 * connections.h - a bounded table of TCP connections whose content is rewritten, found by both
 * ends' addresses and ports.
 *
 * All memory is reserved at the start. When it is full the one that has been silent longest goes:
 * of those that are closed, else of those never edited, which then pass as they are, and only when
 * there are no others of those that are edited. What has been silent longer than the time-out is
 * gone. It has no lock: its owner has.
 */
#ifndef NQ_TABLE_CONNECTIONS_H
#define NQ_TABLE_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "table/hash.h"
#include "table/sequence.h"

/* Both ends in one order, whichever sends; no padding. */
struct nq_ends {
	uint8_t addresses[2][16];
	uint8_t ports[2][2];
	uint8_t version[4]; /* of IP, and zeros */
};

/* Lists from the longest silent to the latest, in the order in which they give room. */
enum nq_connection_list {
	NQ_CONNECTIONS_CLOSED, /* reset, or both directions have ended */
	NQ_CONNECTIONS_PLAIN,
	NQ_CONNECTIONS_EDITED,
	NQ_CONNECTIONS_LISTS,
};

struct nq_connection {
	struct nq_ends ends;
	/* What each end sends, in the order of `ends`. */
	struct nq_sequence directions[2];
	int8_t scales[2];     /* of the windows that each end announces; -1: not known */
	uint16_t segments[2]; /* MSS that each end announced; 0: not known */
	bool has_syn;	      /* a SYN came that may be the beginning of a new connection: */
	uint8_t syn_direction;
	uint32_t syn;
	int64_t seen;	/* when the last packet came, nanoseconds */
	uint32_t chain; /* next of the same hash; or of the unused ones */
	uint32_t older, newer;
	uint8_t list; /* enum nq_connection_list */
};

struct nq_connections {
	struct nq_connection *memory; /* 0 is not used */
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t limit, touched, count;
	uint32_t unused;
	uint32_t oldest[NQ_CONNECTIONS_LISTS], newest[NQ_CONNECTIONS_LISTS];
	struct nq_hash_key key;
	struct nq_blocks *blocks; /* where the sequences keep their content */
	int64_t timeout;	  /* nanoseconds */
	int64_t reclaim_after;	  /* when nq_connections_reclaim may look again */
	uint64_t evicted, expired;
};

/* Room for `limit` connections, at least one; 0 or -ENOMEM. */
int nq_connections_init(struct nq_connections *connections, uint32_t limit, int64_t timeout,
			struct nq_blocks *blocks);
void nq_connections_fini(struct nq_connections *connections);

/* The connection, NULL when there is none; it becomes the latest. */
struct nq_connection *nq_connections_find(struct nq_connections *connections,
					  const struct nq_ends *ends, int64_t now);

/* A new one, where there was none, in the place of an old one if need be. */
struct nq_connection *nq_connections_add(struct nq_connections *connections,
					 const struct nq_ends *ends, int64_t now);

/* Forgets what it knows of both directions; it stays in the table, as a plain one. */
void nq_connection_restart(struct nq_connections *connections, struct nq_connection *connection);

/* Puts it into another list, as the latest. */
void nq_connection_move(struct nq_connections *connections, struct nq_connection *connection,
			enum nq_connection_list list);

/*
 * For want of room for content: lets go of those that hold some and have been silent for longer
 * than a sender that waits for an acknowledgement is, so that ends that went away without a word
 * take it from no one else. Whether there were any; looks once a second.
 */
bool nq_connections_reclaim(struct nq_connections *connections, int64_t now);

/* Lets go of all whose time is over. */
void nq_connections_expire(struct nq_connections *connections, int64_t now);

#endif
