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

#include "table/ends.h"
#include "table/sequence.h"

/* In the order in which they give room. */
enum nq_connection_list {
	NQ_CONNECTIONS_CLOSED, /* reset, or both directions have ended */
	NQ_CONNECTIONS_PLAIN,
	NQ_CONNECTIONS_EDITED,
};

struct nq_connection {
	struct nq_entry entry; /* its list: enum nq_connection_list */
	/* What each end sends, in the order of `entry.ends`. */
	struct nq_sequence directions[2];
	int8_t scales[2];     /* of the windows that each end announces; -1: not known */
	uint16_t segments[2]; /* MSS that each end announced; 0: not known */
	bool has_syn;	      /* a SYN came that may be the beginning of a new connection: */
	uint8_t syn_direction;
	uint32_t syn;
};

struct nq_connections {
	struct nq_ends_table table;
	struct nq_blocks *blocks; /* where the sequences keep their content */
	int64_t reclaim_after;	  /* when nq_connections_reclaim may look again */
	uint64_t evicted, expired;
};

/* Room for `limit` connections, at least one; `timeout`: nanoseconds. 0 or -ENOMEM. The table stays
 * where it is. */
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
