/*
 * offload.h - what the kernel leaves to the network card, for packets that go out again as bytes:
 * the checksum, and cutting one large TCP segment into those that a link carries.
 *
 * Local packets are delivered with no more than the sum of their pseudo header, and with GSO whole
 * up to 64 KB; a raw socket sends neither like that. Nothing is allocated.
 */
#ifndef NQ_OFFLOAD_H
#define NQ_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/layout.h"

struct nq_offload {
	struct nq_layout layout;
	const uint8_t *bytes; /* borrowed */
	uint32_t length;
	uint16_t checksum; /* of the whole, in memory order; with `complete` */
	bool complete;	   /* a checksum that is only the pseudo header's becomes this one */
	uint32_t count;	   /* of pieces; 1: not cut */
	uint32_t head;	   /* cut: the headers, with which every piece begins */
	uint32_t share;	   /* cut: bytes of payload in every piece but the last */
};

/* Looks at a packet, whose bytes begin with its network header: one piece. */
void nq_offload_begin(struct nq_offload *offload, const uint8_t *bytes, uint32_t length);

/*
 * Cuts it into pieces of at most `mtu` bytes, as the kernel would (RFC 9293: the same headers,
 * sequence numbers in step). False for what is no TCP segment with data, or one with SYN, RST or
 * URG, and for fragments.
 */
bool nq_offload_cut(struct nq_offload *offload, uint32_t mtu);

/* Whether it can go out as the bytes that were given. */
static inline bool nq_offload_is_plain(const struct nq_offload *offload)
{
	return offload->count == 1 && !offload->complete;
}

/* Writes piece `index` to `out`, which holds offload->length bytes. Returns its length. */
uint32_t nq_offload_write(const struct nq_offload *offload, uint32_t index, uint8_t *out);

#endif
