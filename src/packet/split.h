/*
 * split.h - a whole IP packet as fragments that fit a link: RFC 791 section 3.2, RFC 8200
 * section 4.5.
 */
#ifndef NQ_SPLIT_H
#define NQ_SPLIT_H

#include <stddef.h>
#include <stdint.h>

/* How a packet is split. Filled by nq_split_plan; `bytes` are borrowed. */
struct nq_split {
	const uint8_t *bytes;
	uint32_t length;
	uint32_t count;	       /* of fragments; 1: it fits, and is left as it is */
	uint32_t head;	       /* where the part begins that is split */
	uint32_t link;	       /* IPv6: offset of the number of what follows the head */
	uint32_t id;	       /* IPv6: of the fragment header; IPv4 has one already */
	uint32_t first, later; /* bytes of that part in the first and in each later fragment */
	uint8_t later_options[40];
	uint8_t later_options_length; /* IPv4: those that go into every fragment, padded */
};

/*
 * Plans the fragments of a packet whose IP header is all there, with `id` for IPv6's fragment
 * headers. NULL, or why not: a constant string.
 */
const char *nq_split_plan(struct nq_split *split, const uint8_t *bytes, uint32_t length,
			  uint32_t mtu, uint32_t id);

/* Writes fragment `index` (from 0), at most the mtu's bytes: its length. */
uint32_t nq_split_write(const struct nq_split *split, uint32_t index, uint8_t *out);

#endif
