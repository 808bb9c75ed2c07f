#include "table/blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nq_blocks_init(struct nq_blocks *blocks, size_t bytes)
{
	uint32_t limit = (uint32_t)(bytes / NQ_BLOCK_SIZE);

	*blocks = (struct nq_blocks){.limit = limit};
	/* Zeroed memory of this size is mapped page by page when it is first written. */
	blocks->memory = calloc((size_t)limit + 1, sizeof(struct nq_block));
	return blocks->memory ? 0 : -ENOMEM;
}

void nq_blocks_fini(struct nq_blocks *blocks)
{
	free(blocks->memory);
	*blocks = (struct nq_blocks){0};
}

uint32_t nq_blocks_take(struct nq_blocks *blocks, uint32_t count)
{
	uint32_t chain = 0;

	if (count > blocks->limit - blocks->used)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t number = blocks->unused;

		if (number)
			blocks->unused = nq_blocks_at(blocks, number)->next;
		else
			number = ++blocks->touched;
		nq_blocks_at(blocks, number)->next = chain;
		chain = number;
	}
	blocks->used += count;
	return chain;
}

uint32_t nq_blocks_give(struct nq_blocks *blocks, uint32_t chain)
{
	uint32_t count = 0;

	while (chain) {
		uint32_t next = nq_blocks_at(blocks, chain)->next;

		nq_blocks_at(blocks, chain)->next = blocks->unused;
		blocks->unused = chain;
		chain = next;
		count++;
	}
	blocks->used -= count;
	return count;
}

/* The block of a chain in which byte `*offset` lies; *offset becomes its place there. */
static struct nq_block *find_block(const struct nq_blocks *blocks, uint32_t chain, size_t *offset)
{
	struct nq_block *block = nq_blocks_at(blocks, chain);

	for (; *offset >= NQ_BLOCK_BYTES; *offset -= NQ_BLOCK_BYTES)
		block = nq_blocks_at(blocks, block->next);
	return block;
}

void nq_blocks_write(struct nq_blocks *blocks, uint32_t chain, size_t offset, const void *bytes,
		     size_t length)
{
	const uint8_t *from = bytes;

	if (length == 0)
		return;
	for (struct nq_block *block = find_block(blocks, chain, &offset);;
	     block = nq_blocks_at(blocks, block->next), offset = 0) {
		size_t part = NQ_BLOCK_BYTES - offset < length ? NQ_BLOCK_BYTES - offset : length;

		memcpy(block->bytes + offset, from, part);
		from += part;
		length -= part;
		if (length == 0)
			return;
	}
}

void nq_blocks_read(const struct nq_blocks *blocks, uint32_t chain, size_t offset, void *bytes,
		    size_t length)
{
	uint8_t *to = bytes;

	if (length == 0)
		return;
	for (const struct nq_block *block = find_block(blocks, chain, &offset);;
	     block = nq_blocks_at(blocks, block->next), offset = 0) {
		size_t part = NQ_BLOCK_BYTES - offset < length ? NQ_BLOCK_BYTES - offset : length;

		memcpy(to, block->bytes + offset, part);
		to += part;
		length -= part;
		if (length == 0)
			return;
	}
}
