/*
 * complete.h - the lengths and checksums of a packet, written so that every layer is right.
 *
 * Sums anew, or brings an old checksum along with what changed (RFC 1624). Decides nothing about
 * what may be edited: that is edit.h.
 */
#ifndef NQ_COMPLETE_H
#define NQ_COMPLETE_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

/* Whether it is part of a datagram whose other parts are elsewhere. */
static inline bool nq_is_fragment(const struct nq_layout *layout)
{
	return layout->more_fragments || layout->frag_offset;
}

/* NULL when `length` bytes can be completed: IP, and the transport's own header all there unless
 * it is a fragment. Else what is wrong with them, as edit.h words it. */
const char *nq_complete_check(const struct nq_layout *layout, const uint8_t *bytes,
			      uint32_t length);

/* The partial sum of the pseudo-header of a transport of `length` bytes: RFC 9293, RFC 768 (IPv4),
 * RFC 8200 section 8.1 (IPv6). */
uint64_t nq_pseudo_header_sum(const struct nq_layout *layout, const uint8_t *bytes,
			      uint32_t length);

/*
 * Writes the lengths and checksums of IPv4, IPv6, TCP, UDP (0 as 0xffff, RFC 768), ICMP, ICMPv6 and
 * SCTP (CRC32c, RFC 9260 appendix A) into bytes that nq_complete_check takes. Fragments get the IP
 * header's only, and a first fragment its transport checksum where `change` follows it. Other
 * transports are left as they are. `change` may be NULL: all is summed anew.
 */
void nq_complete(const struct nq_layout *layout, uint8_t *bytes, uint32_t length,
		 const struct nq_change *change);

/*
 * Starts following: *change is filled from bytes that nothing was changed in. With `exact` the
 * transport checksum covers all of the packet's bytes, so that it can be followed; a first
 * fragment's is followed in any case.
 *
 * `gso`: they are cut apart later. For TCP segments the kernel sums anew then; for UDP datagrams it
 * goes on from a sum of the pseudo-header alone, and leaves 0 (a tunnel without checksums) as it
 * is, so that is what leaves.
 */
void nq_change_begin(struct nq_change *change, const struct nq_layout *layout, const uint8_t *bytes,
		     uint32_t length, bool exact, bool gso);

/* NULL, or why the checksum of a first fragment cannot follow a change of what it covers, as edit.h
 * words it. */
const char *nq_change_check(const struct nq_layout *layout, uint32_t length);

/*
 * The folded sum of what the transport checksum covers in [from, to) of the bytes, the checksum
 * itself left out: to be told to nq_change_add before and after [from, to) changes.
 */
uint16_t nq_change_sum(const struct nq_change *change, const struct nq_layout *layout,
		       const uint8_t *bytes, uint32_t from, uint32_t to);
void nq_change_add(struct nq_change *change, uint16_t before, uint16_t after);

/*
 * What the transport checksum of a packet is that was neither cut short nor edited. UNKNOWN: it has
 * none, or (SCTP, fragments) none that can be told here. PARTIAL: only the sum of the pseudo
 * header, as the kernel leaves it in packets whose checksum the network card writes.
 */
enum nq_checksum_state {
	NQ_CHECKSUM_UNKNOWN,
	NQ_CHECKSUM_RIGHT,
	NQ_CHECKSUM_PARTIAL,
	NQ_CHECKSUM_WRONG,
};

/* *right, unless NULL: what it should be, in memory order; written when it is not UNKNOWN. */
enum nq_checksum_state nq_checksum_check(const struct nq_layout *layout, const uint8_t *bytes,
					 uint32_t length, uint16_t *right);

/* Offset of the checksum in a transport header; 0: none that is completed as an Internet checksum.
 */
uint32_t nq_checksum_offset(const struct nq_layout *layout);

#endif
