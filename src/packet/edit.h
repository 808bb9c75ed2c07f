/*
 * edit.h - changing a packet's bytes so that what leaves is correct, or refusing with the reason.
 *
 * The kernel reports no failed edit (a bad payload is a silent drop), so every check is here,
 * before sending. A refusal is a constant string that completes the sentence "cannot edit this
 * packet: ..."; NULL means done. Nothing is changed by a refused call.
 */
#ifndef NQ_EDIT_H
#define NQ_EDIT_H

#include "packet/packet.h"

/*
 * Overwrites `length` bytes at `offset` (both already within the packet) and marks the packet
 * dirty. Refused on truncated packets and where the kernel insists on the old bytes: IPv4 header
 * length, fragment bits and options, IPv6 extension headers, and behind the IP header of a
 * fragment.
 */
const char *nq_edit_patch(struct nq_packet *packet, uint32_t offset, const uint8_t *bytes,
			  uint32_t length);

/* The refusal of every edit of a packet that nq_packet_truncated tells. */
const char *nq_edit_truncated(const struct nq_packet *packet);

/* Writes a checksum (host order) that leaves as it is, fixup or not: at `offset` in the IPv4 header
 * (NQ_KEEP_IP) or the transport's (NQ_KEEP_TRANSPORT). Refused as nq_edit_patch. */
const char *nq_edit_checksum(struct nq_packet *packet, uint32_t offset, uint16_t checksum,
			     uint8_t keep);

/*
 * Makes `bytes` the payload (see nq_payload_find), in place or, of another length, in
 * packet->spare, which must be there; they must not overlap the packet. What followed the old
 * payload (padding, UDP's surplus area) is left out then. Another length is refused for fragments,
 * and for TCP unless the caller keeps the connection's sequence numbers in step (`follows`).
 */
const char *nq_edit_payload(struct nq_packet *packet, const uint8_t *bytes, size_t length,
			    bool follows);

/*
 * Gives the TCP header the option `kind` with this value, in the place of the old one or behind the
 * others; a NULL value takes it away. The header may grow and shrink, so packet->spare must be
 * there; the payload stays. Refused when the 40 bytes for options do not suffice or the present
 * options are malformed.
 */
const char *nq_edit_option(struct nq_packet *packet, uint8_t kind, const uint8_t *value,
			   size_t length);

/*
 * Makes `bytes` the packet's content, copying them to packet->spare, and asks for them to be sent.
 * With `fixup` lengths and checksums are completed and an edit that cannot come out right is
 * refused; without it the bytes go out as they are, whatever the kernel makes of them.
 */
const char *nq_edit_replace(struct nq_packet *packet, const uint8_t *bytes, size_t length,
			    bool fixup);

/* Before a dirty packet leaves: completes it (with `fixup`) and asks for its bytes to be sent. */
const char *nq_edit_finish(struct nq_packet *packet, bool fixup);

/*
 * Writes the lengths and checksums of IPv4, IPv6, TCP, UDP (0 as 0xffff, RFC 768), ICMP and ICMPv6
 * into `length` bytes that begin with the network header. Fragments get the IP header's only. Other
 * transports and non-IP bytes are left as they are; SCTP's checksum is written too.
 */
const char *nq_edit_complete(uint8_t *bytes, uint32_t length);

#endif
