/*
 * layout.h - where the headers of a packet lie: the one walk over IPv4 and IPv6 headers.
 *
 * It reads the network header and the chain of extension headers (of IPv6; in IPv4 only the
 * authentication header, RFC 4302, stands between) and says where the transport header begins and
 * how far the packet reaches. It does not read fields for users and changes
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
	uint32_t header; /* length of the IP header: IPv4 with options, IPv6 without extensions */
	uint32_t transport; /* offset of the transport header; valid unless version is 0 or cut */
	/*
	 * Length that the network header claims, itself included; 0 where it does not tell (IPv4's
	 * total length 0: segments that the network card is to cut). Headers are read beyond it.
	 */
	uint32_t total;
	uint32_t fragment_header; /* IPv6: offset of the first fragment header; 0: none */
	/*
	 * Offsets of the addresses of the two ends, which the transport's checksum covers: those of
	 * the IP header, or what stands for them: the home address of a mobile node (RFC 6275
	 * section 11.3.1); the last stop of a packet still on its way through a routing header (RFC
	 * 8200 section 8.1) or an IPv4 source route (RFC 791 section 3.1).
	 */
	uint32_t origin, target;
};

/* Fills *layout from `length` bytes at `bytes`, which begin with the network header. */
void nq_layout_read(struct nq_layout *layout, const uint8_t *bytes, size_t length);

/*
 * Of a layout whose version is not 0, read from `length` bytes: whether what must stay of the
 * packet reaches beyond them: IPv4's header, IPv6's chain of extension headers.
 */
static inline bool nq_layout_header_cut(const struct nq_layout *layout, size_t length)
{
	return layout->cut &&
	       (layout->version == 6 || layout->header < 20 || layout->header > length);
}

/*
 * What kernels that check payload edits insist on: same version, same IPv4 header length, options
 * and fragment bits, same chain of IPv6 extension headers. Returns NULL, or in words what must
 * stay. nq_layout_header_cut must be false of both.
 */
const char *nq_layout_difference(const struct nq_layout *before, const uint8_t *old,
				 const struct nq_layout *after, const uint8_t *now);

#endif
