#include "host/blocks.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { FREE = 0x80 };

static void add_free(struct nq_blocks *blocks, uint32_t index, unsigned order)
{
	uint32_t next = blocks->free[order];

	blocks->links[index] = (struct nq_block_link){.next = next};
	if (next)
		blocks->links[next - 1].previous = index + 1;
	blocks->free[order] = index + 1;
	blocks->heads[index] = (uint8_t)(FREE | (order + 1));
}

static void remove_free(struct nq_blocks *blocks, uint32_t index, unsigned order)
{
	struct nq_block_link link = blocks->links[index];

	if (link.previous)
		blocks->links[link.previous - 1].next = link.next;
	else
		blocks->free[order] = link.next;
	if (link.next)
		blocks->links[link.next - 1].previous = link.previous;
	blocks->heads[index] = 0;
}

static size_t description_size(const struct nq_blocks *blocks)
{
	return blocks->count * (sizeof(*blocks->links) + sizeof(*blocks->heads));
}

int nq_blocks_init(struct nq_blocks *blocks, uint8_t *region, size_t size)
{
	*blocks = (struct nq_blocks){.region = region, .orders = 1};
	while (blocks->orders < NQ_BLOCK_ORDERS && (size_t)NQ_BLOCK_LEAST << blocks->orders <= size)
		blocks->orders++;
	blocks->count = 1u << (blocks->orders - 1);
	/* Not malloc: of these only what is touched shall cost, however often they are made. */
	blocks->links = mmap(NULL, description_size(blocks), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (blocks->links == MAP_FAILED) {
		blocks->links = NULL;
		return -ENOMEM;
	}
	blocks->heads = (uint8_t *)(blocks->links + blocks->count);
	add_free(blocks, 0, blocks->orders - 1);
	return 0;
}

void nq_blocks_reset(struct nq_blocks *blocks)
{
	if (blocks->used == 0)
		return; /* they have joined to one again */
	memset(blocks->heads, 0, blocks->count * sizeof(*blocks->heads));
	memset(blocks->free, 0, sizeof(blocks->free));
	blocks->used = 0;
	add_free(blocks, 0, blocks->orders - 1);
}

void nq_blocks_fini(struct nq_blocks *blocks)
{
	if (blocks->links)
		munmap(blocks->links, description_size(blocks));
	blocks->heads = NULL;
	blocks->links = NULL;
}

void *nq_blocks_take(struct nq_blocks *blocks, size_t size)
{
	unsigned order = 0, from;
	uint32_t index;

	while (order < blocks->orders && (size_t)NQ_BLOCK_LEAST << order < size)
		order++;
	for (from = order; from < blocks->orders && !blocks->free[from];)
		from++;
	if (from >= blocks->orders)
		return NULL;
	index = blocks->free[from] - 1;
	remove_free(blocks, index, from);
	while (from > order) {
		from--;
		add_free(blocks, index + (1u << from), from);
	}
	blocks->heads[index] = (uint8_t)(order + 1);
	blocks->used += (size_t)NQ_BLOCK_LEAST << order;
	return blocks->region + (size_t)index * NQ_BLOCK_LEAST;
}

void nq_blocks_give(struct nq_blocks *blocks, void *block)
{
	uint32_t index;
	unsigned order;

	if (!block)
		return;
	index = (uint32_t)((size_t)((uint8_t *)block - blocks->region) / NQ_BLOCK_LEAST);
	order = blocks->heads[index] - 1u;
	blocks->used -= (size_t)NQ_BLOCK_LEAST << order;
	blocks->heads[index] = 0;
	for (; order + 1 < blocks->orders; order++) {
		uint32_t buddy = index ^ 1u << order;

		if (blocks->heads[buddy] != (FREE | (order + 1)))
			break;
		remove_free(blocks, buddy, order);
		index &= ~(1u << order);
	}
	add_free(blocks, index, order);
}
