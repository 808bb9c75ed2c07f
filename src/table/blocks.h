/*
 * blocks.h - a bounded store of bytes in small blocks, so that content can be kept without
 * allocating while packets pass.
 *
 * One stretch of memory is reserved at the start and touched only as it is used. A chain of blocks
 * holds one piece of content. It has no lock of its own: whoever owns it has one.
 */
#ifndef NQ_TABLE_BLOCKS_H
#define NQ_TABLE_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum { NQ_BLOCK_SIZE = 128, NQ_BLOCK_BYTES = NQ_BLOCK_SIZE - sizeof(uint32_t) };

struct nq_block {
	uint32_t next; /* number of the next in the chain; 0: the last */
	uint8_t bytes[NQ_BLOCK_BYTES];
};

struct nq_blocks {
	struct nq_block *memory; /* block 0 is not used */
	uint32_t limit;		 /* how many there may be */
	uint32_t touched;	 /* how many have ever been used */
	uint32_t used;		 /* how many are in use */
	uint32_t unused;	 /* those given back: head of their chain, or 0 */
};

/* Room for `bytes`; 0 or -ENOMEM. */
int nq_blocks_init(struct nq_blocks *blocks, size_t bytes);
void nq_blocks_fini(struct nq_blocks *blocks);

/* How many blocks hold `length` bytes; one for none. */
static inline uint32_t nq_blocks_count(size_t length)
{
	return length ? (uint32_t)((length - 1) / NQ_BLOCK_BYTES) + 1 : 1;
}

/* A chain of `count` blocks, at least one, with its number; 0 when there is no room. */
uint32_t nq_blocks_take(struct nq_blocks *blocks, uint32_t count);

/* Gives a chain back; returns how many blocks it had. */
uint32_t nq_blocks_give(struct nq_blocks *blocks, uint32_t chain);

static inline struct nq_block *nq_blocks_at(const struct nq_blocks *blocks, uint32_t number)
{
	return &blocks->memory[number];
}

/* Copies bytes [offset, offset + length) of a chain, all of which are there, from or to memory. */
void nq_blocks_write(struct nq_blocks *blocks, uint32_t chain, size_t offset, const void *bytes,
		     size_t length);
void nq_blocks_read(const struct nq_blocks *blocks, uint32_t chain, size_t offset, void *bytes,
		    size_t length);

#endif
