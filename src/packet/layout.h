/*
 * layout.h - where the headers of a packet lie: the one walk over IPv4 and IPv6 headers.
 *
 * It reads the network header and the IPv6 extension header chain and says where the transport
 * header begins and how far the packet reaches. It does not read fields for users and changes
 * nothing. Every read is within the bytes given, whatever they are.
 */
#ifndef NQ_LAYOUT_H
#define NQ_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nq_layout {
	uint8_t version;  /* 4 or 6; 0: not IP, or its fixed header is not all there */
	uint8_t protocol; /* of the transport, behind extension headers (IANA protocol numbers) */
	bool more_fragments; /* MF (IPv4), M (IPv6 fragment header) */
	bool dont_fragment;  /* DF, IPv4 only */
	bool cut; /* an extension header chain or the IPv4 options reach beyond the bytes */
	uint16_t frag_offset; /* bytes */
	uint32_t transport;   /* offset of the transport header; valid unless version is 0 or cut */
	uint32_t total; /* length the network header claims, header included; 0 for a jumbogram */
	uint32_t fragment_header; /* IPv6: offset of the first fragment header; 0: none */
	uint32_t routing_dest;	  /* IPv6: offset of the final destination address when a routing
				     header names one still to come (RFC 8200 section 8.1), else 0 */
};

/* Fills *layout from `length` bytes at `bytes`, which begin with the network header. */
void nq_layout_read(struct nq_layout *layout, const uint8_t *bytes, size_t length);

/*
 * What kernels that check payload edits insist on: same version, same IPv4 header length, options
 * and fragment bits, same chain of IPv6 extension headers. Returns NULL, or in words what must
 * stay. Both layouts must not be cut.
 */
const char *nq_layout_difference(const struct nq_layout *before, const uint8_t *old,
				 const struct nq_layout *after, const uint8_t *now);

#endif
