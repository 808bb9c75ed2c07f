/*
 * segment.h - a TCP packet as the rewriter reads it, and what it changes in it.
 *
 * Reads and edits packets; knows no connection.
 */
#ifndef NQ_TABLE_SEGMENT_H
#define NQ_TABLE_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"
#include "table/ends.h"

/* Flags of a TCP header (RFC 9293 section 3.1). */
enum {
	NQ_TCP_FIN = 1,
	NQ_TCP_SYN = 2,
	NQ_TCP_RST = 4,
	NQ_TCP_PSH = 8,
	NQ_TCP_ACK = 16,
	NQ_TCP_URG = 32,
};

enum { NQ_SACKS_MAX = 4 }; /* as many as 40 bytes of options hold (RFC 2018 section 3) */

struct nq_sack {
	uint32_t left, right;
};

struct nq_tcp {
	struct nq_ends ends;
	unsigned direction; /* which of the ends sent it */
	uint8_t version;
	uint8_t flags;
	uint32_t transport, payload; /* offsets */
	uint32_t length;	     /* of the payload */
	uint32_t seq, ack;
	uint16_t window, urgent;
	uint16_t mss; /* of a SYN; 0: none */
	bool has_scale;
	uint8_t scale;
	bool is_signed, is_multipath;
	uint8_t sack_count;
	uint32_t sack_at; /* offset of the option, its kind byte */
	struct nq_sack sacks[NQ_SACKS_MAX];
};

/* The header and the payload as they are to be. */
struct nq_changes {
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t urgent;
	const uint8_t *bytes; /* payload; may lie in the packet */
	uint32_t length;
	bool has_sacks; /* they replace those of the packet */
	uint8_t sack_count;
	struct nq_sack sacks[NQ_SACKS_MAX];
};

/* NULL, or why it can be no segment of a connection that is followed, as edit.h words it. */
const char *nq_tcp_read(struct nq_packet *packet, struct nq_tcp *tcp);

/* Whether it was delivered with a checksum that is wrong: then nothing in it can be believed. */
bool nq_tcp_damaged(const struct nq_packet *packet, const struct nq_tcp *tcp);

/* Changes that change nothing. */
void nq_changes_begin(struct nq_changes *changes, const struct nq_packet *packet,
		      const struct nq_tcp *tcp);

/*
 * Edits what differs. `buffer` holds NQ_PACKET_MAX bytes; changes->bytes may lie in it from its
 * start. NULL, or a refusal.
 */
const char *nq_changes_apply(const struct nq_changes *changes, struct nq_packet *packet,
			     const struct nq_tcp *tcp, uint8_t *buffer);

#endif
