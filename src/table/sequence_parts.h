/*
 * sequence_parts.h - what sequence.c (beginnings, the two numberings, acknowledgements) and
 * sequence_pass.c (what becomes of a segment) share. Not for others.
 */
#ifndef NQ_TABLE_SEQUENCE_PARTS_H
#define NQ_TABLE_SEQUENCE_PARTS_H

#include <string.h>

#include "table/sequence.h"

/*
 * Kept edits reach back at most one receive window (2^30, RFC 7323), what lies before them is
 * mapped as far as retransmissions are to be expected.
 */
#define NQ_SEQUENCE_REACH 0x20000000U
#define NQ_SEQUENCE_REACH_MOST 0x60000000U

/* In front of an edit's content, in its chain of blocks. */
struct nq_sequence_edit {
	uint32_t next; /* the chain of the next edit; 0: none */
	uint32_t in, in_length;
	uint32_t out, out_length;
};

static inline struct nq_sequence_edit nq_sequence_load(const struct nq_blocks *blocks,
						       uint32_t chain)
{
	struct nq_sequence_edit edit;

	memcpy(&edit, nq_blocks_at(blocks, chain)->bytes, sizeof(edit));
	return edit;
}

static inline void nq_sequence_store(struct nq_blocks *blocks, uint32_t chain,
				     const struct nq_sequence_edit *edit)
{
	memcpy(nq_blocks_at(blocks, chain)->bytes, edit, sizeof(*edit));
}

static inline uint32_t nq_least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t nq_most(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* The later of two numbers, and the earlier. */
static inline uint32_t nq_later(uint32_t a, uint32_t b)
{
	return nq_before(a, b) ? b : a;
}

static inline uint32_t nq_earlier(uint32_t a, uint32_t b)
{
	return nq_before(a, b) ? a : b;
}

#endif
