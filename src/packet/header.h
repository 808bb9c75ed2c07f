/*
 * header.h - the headers of a packet as handlers ask for them: where each lies, and whether it is
 * there.
 *
 * A header that is absent, cut off by the end of the bytes, or in another fragment is not there.
 * Positions come from the packet's layout, found once for each packet and again after its content
 * was replaced.
 */
#ifndef NQ_HEADER_H
#define NQ_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

enum nq_header {
	NQ_HEADER_IP, /* either version */
	NQ_HEADER_IP4,
	NQ_HEADER_IP6,
	NQ_HEADER_TCP,
	NQ_HEADER_UDP,
	NQ_HEADER_ICMP, /* either version */
};

/* The packet's layout, from memory or by reading it now. */
const struct nq_layout *nq_packet_layout(struct nq_packet *packet);

/* Whether the header is there, and if so the offset where it begins. */
bool nq_header_find(struct nq_packet *packet, enum nq_header header, uint32_t *offset);

/*
 * Offset behind the last header understood, and where the payload ends: padding of the link layer
 * is no payload, nor is what lies behind the length that UDP claims (RFC 768; RFC 9868 puts options
 * there). A later fragment's payload begins behind its IP header. False when nothing was copied.
 */
bool nq_payload_find(struct nq_packet *packet, uint32_t *offset, uint32_t *end);

#endif
