#include "host/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { FREE = 0x80 };

static void add_free(struct nq_arena *arena, uint32_t index, unsigned order)
{
	uint32_t next = arena->free[order];

	arena->links[index] = (struct nq_arena_link){.next = next};
	if (next)
		arena->links[next - 1].previous = index + 1;
	arena->free[order] = index + 1;
	arena->heads[index] = (uint8_t)(FREE | (order + 1));
}

static void remove_free(struct nq_arena *arena, uint32_t index, unsigned order)
{
	struct nq_arena_link link = arena->links[index];

	if (link.previous)
		arena->links[link.previous - 1].next = link.next;
	else
		arena->free[order] = link.next;
	if (link.next)
		arena->links[link.next - 1].previous = link.previous;
	arena->heads[index] = 0;
}

static size_t description_size(const struct nq_arena *arena)
{
	return arena->count * (sizeof(*arena->links) + sizeof(*arena->heads));
}

int nq_arena_init(struct nq_arena *arena, uint8_t *region, size_t size)
{
	*arena = (struct nq_arena){.region = region, .orders = 1};
	while (arena->orders < NQ_ARENA_ORDERS && (size_t)NQ_ARENA_LEAST << arena->orders <= size)
		arena->orders++;
	arena->count = 1u << (arena->orders - 1);
	/* Not malloc: of these only what is touched shall cost, however often they are made. */
	arena->links = mmap(NULL, description_size(arena), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arena->links == MAP_FAILED) {
		arena->links = NULL;
		return -ENOMEM;
	}
	arena->heads = (uint8_t *)(arena->links + arena->count);
	add_free(arena, 0, arena->orders - 1);
	return 0;
}

void nq_arena_reset(struct nq_arena *arena)
{
	if (arena->used == 0)
		return; /* they have joined to one again */
	memset(arena->heads, 0, arena->count * sizeof(*arena->heads));
	memset(arena->free, 0, sizeof(arena->free));
	arena->used = 0;
	add_free(arena, 0, arena->orders - 1);
}

void nq_arena_fini(struct nq_arena *arena)
{
	if (arena->links)
		munmap(arena->links, description_size(arena));
	arena->heads = NULL;
	arena->links = NULL;
}

void *nq_arena_take(struct nq_arena *arena, size_t size)
{
	unsigned order = 0, from;
	uint32_t index;

	while (order < arena->orders && (size_t)NQ_ARENA_LEAST << order < size)
		order++;
	for (from = order; from < arena->orders && !arena->free[from];)
		from++;
	if (from >= arena->orders)
		return NULL;
	index = arena->free[from] - 1;
	remove_free(arena, index, from);
	while (from > order) {
		from--;
		add_free(arena, index + (1u << from), from);
	}
	arena->heads[index] = (uint8_t)(order + 1);
	arena->used += (size_t)NQ_ARENA_LEAST << order;
	return arena->region + (size_t)index * NQ_ARENA_LEAST;
}

void nq_arena_give(struct nq_arena *arena, void *block)
{
	uint32_t index;
	unsigned order;

	if (!block)
		return;
	index = (uint32_t)((size_t)((uint8_t *)block - arena->region) / NQ_ARENA_LEAST);
	order = arena->heads[index] - 1u;
	arena->used -= (size_t)NQ_ARENA_LEAST << order;
	arena->heads[index] = 0;
	for (; order + 1 < arena->orders; order++) {
		uint32_t buddy = index ^ 1u << order;

		if (arena->heads[buddy] != (FREE | (order + 1)))
			break;
		remove_free(arena, buddy, order);
		index &= ~(1u << order);
	}
	add_free(arena, index, order);
}
