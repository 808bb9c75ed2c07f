#include "host/arena.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

static void set_free(struct nq_arena_free *free, uint32_t number)
{
	for (unsigned level = 0; level < free->depth; level++) {
		free->levels[level][number / 64] |= UINT64_C(1) << number % 64;
		number /= 64;
	}
}

static void set_taken(struct nq_arena_free *free, uint32_t number)
{
	for (unsigned level = 0; level < free->depth; level++) {
		uint64_t *word = &free->levels[level][number / 64];

		*word &= ~(UINT64_C(1) << number % 64);
		if (*word)
			return;
		number /= 64;
	}
}

static bool is_free(const struct nq_arena_free *free, uint32_t number)
{
	return free->levels[0][number / 64] >> number % 64 & 1;
}

static bool has_any(const struct nq_arena_free *free)
{
	return free->levels[free->depth - 1][0] != 0;
}

static uint32_t find_first(const struct nq_arena_free *free)
{
	uint32_t number = 0;

	for (unsigned level = free->depth; level-- > 0;)
		number = number * 64 + (uint32_t)__builtin_ctzll(free->levels[level][number]);
	return number;
}

static uint32_t find_last(const struct nq_arena_free *free)
{
	uint32_t number = 0;

	for (unsigned level = free->depth; level-- > 0;)
		number = number * 64 + 63 - (uint32_t)__builtin_clzll(free->levels[level][number]);
	return number;
}

static size_t description_size(const struct nq_arena *arena)
{
	return arena->word_count * sizeof(uint64_t) + arena->count;
}

/* Gives each level its place, NULL before there is memory; returns how many words all take. */
static size_t place_levels(struct nq_arena *arena)
{
	size_t at = 0;

	for (unsigned order = 0; order < arena->orders; order++) {
		struct nq_arena_free *free = &arena->free[order];
		size_t words = arena->count >> order;

		free->depth = 0;
		do {
			words = (words + 63) / 64;
			free->levels[free->depth++] = arena->words ? arena->words + at : NULL;
			at += words;
		} while (words > 1);
	}
	return at;
}

int nq_arena_init(struct nq_arena *arena, uint8_t *region, size_t size)
{
	void *description;

	*arena = (struct nq_arena){.region = region, .orders = 1};
	while (arena->orders < NQ_ARENA_ORDERS && (size_t)NQ_ARENA_LEAST << arena->orders <= size)
		arena->orders++;
	arena->count = 1u << (arena->orders - 1);
	arena->word_count = place_levels(arena);
	/* Not malloc: of these only what is touched shall cost, however often they are made. */
	description = mmap(NULL, description_size(arena), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (description == MAP_FAILED)
		return -ENOMEM;
	arena->words = description;
	arena->heads = (uint8_t *)(arena->words + arena->word_count);
	place_levels(arena);
	set_free(&arena->free[arena->orders - 1], 0);
	return 0;
}

void nq_arena_reset(struct nq_arena *arena)
{
	if (arena->used == 0)
		return; /* they have joined to one again */
	memset(arena->words, 0, description_size(arena));
	arena->used = 0;
	set_free(&arena->free[arena->orders - 1], 0);
}

void nq_arena_fini(struct nq_arena *arena)
{
	if (arena->words)
		munmap(arena->words, description_size(arena));
	arena->heads = NULL;
	arena->words = NULL;
}

/* The order, from `least` on, of the free block that lies lowest, or highest; `orders`: there is
 * none. */
static unsigned find_outermost(const struct nq_arena *arena, unsigned least, bool highest,
			       uint32_t *number)
{
	unsigned found = arena->orders;
	uint32_t best = 0;

	for (unsigned order = least; order < arena->orders; order++) {
		const struct nq_arena_free *free = &arena->free[order];
		uint32_t one, at;

		if (!has_any(free))
			continue;
		one = highest ? find_last(free) : find_first(free);
		at = one << order;
		if (found < arena->orders && (at < best) == highest)
			continue;
		found = order;
		best = at;
		*number = one;
	}
	return found;
}

void *nq_arena_take(struct nq_arena *arena, size_t size)
{
	bool is_large = size > NQ_ARENA_LARGE;
	unsigned order = 0, from;
	uint32_t number = 0;

	while (order < arena->orders && (size_t)NQ_ARENA_LEAST << order < size)
		order++;
	from = find_outermost(arena, order, is_large, &number);
	if (from >= arena->orders)
		return NULL;
	set_taken(&arena->free[from], number);
	while (from > order) {
		from--;
		number = number * 2 + is_large;
		set_free(&arena->free[from], number ^ 1);
	}
	arena->heads[(size_t)number << order] = (uint8_t)(order + 1);
	arena->used += (size_t)NQ_ARENA_LEAST << order;
	return arena->region + ((size_t)number << order) * NQ_ARENA_LEAST;
}

void nq_arena_give(struct nq_arena *arena, void *block)
{
	uint32_t index, number;
	unsigned order;

	if (!block)
		return;
	index = (uint32_t)((size_t)((uint8_t *)block - arena->region) / NQ_ARENA_LEAST);
	order = arena->heads[index] - 1u;
	arena->heads[index] = 0;
	arena->used -= (size_t)NQ_ARENA_LEAST << order;
	number = index >> order;
	for (; order + 1 < arena->orders && is_free(&arena->free[order], number ^ 1); order++) {
		set_taken(&arena->free[order], number ^ 1);
		number /= 2;
	}
	set_free(&arena->free[order], number);
}
