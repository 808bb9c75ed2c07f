/*
 * rewrite.h - TCP connections whose segments change their length on the way: sequence numbers,
 * acknowledgements and SACK blocks kept in step, what was sent once sent the same again.
 *
 * One table serves all threads of a process; it has a lock of its own. All its memory is reserved
 * at the start and touched as it is used: about 220 bytes a connection, NQ_REWRITE_KEPT bytes for
 * content in all, NQ_SEQUENCE_BYTES of these for each direction of a connection.
 */
#ifndef NQ_TABLE_REWRITE_H
#define NQ_TABLE_REWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"
#include "table/registry.h"

#define NQ_REWRITE_KEPT (64 << 20)
#define NQ_REWRITE_MAX (1 << 20) /* connections, at most */
/* Of one segment: a large one may outgrow what a packet holds. NQ_SEQUENCE_BYTES can keep it. */
#define NQ_REWRITE_CONTENT (1 << 20)

struct nq_rewrite;

struct nq_rewrite_options {
	uint32_t max;	 /* connections, 1 to NQ_REWRITE_MAX */
	int64_t timeout; /* nanoseconds without a packet */
	bool waits;	 /* data does, for what is missing in front of it */
};

/* Options: struct nq_rewrite_options. */
extern const struct nq_table_class nq_rewrite_class;

enum nq_rewritten {
	NQ_REWRITTEN,		/* it goes on as it was to be */
	NQ_REWRITTEN_AGAIN,	/* its data passed before, and goes again as it went then */
	NQ_REWRITTEN_HOLE,	/* data before it is missing: it goes without its data */
	NQ_REWRITTEN_NO_ROOM,	/* the edit cannot be kept now: it goes without its data */
	NQ_REWRITTEN_DAMAGED,	/* its checksum is wrong: it goes as it is */
	NQ_REWRITTEN_NO_STREAM, /* what it carries is no part of the stream: it goes as it is */
};

struct nq_rewrite_stats {
	uint64_t connections;			/* in the table now */
	uint64_t kept;				/* bytes of the store in use now */
	uint64_t edits;				/* taken */
	uint64_t again, hole, no_room, damaged; /* segments: see enum nq_rewritten */
	uint64_t cut;				/* segments that their content did not fit */
	uint64_t evicted;			/* connections, for want of room */
	uint64_t expired;			/* connections, by time */
};

/*
 * Edits the packet in place: numbers, and its payload; `content` (NULL: none) is to go in the place
 * of the payload. `now` is any clock's time in nanoseconds that does not go back. Returns NULL, or
 * the refusal of the edit as edit.h words it, and then nothing has happened. packet->spare must be
 * there.
 */
const char *nq_rewrite_pass(struct nq_rewrite *rewrite, struct nq_packet *packet,
			    const uint8_t *content, size_t length, int64_t now,
			    enum nq_rewritten *result);

void nq_rewrite_stats(struct nq_rewrite *rewrite, int64_t now, struct nq_rewrite_stats *stats);

#endif
