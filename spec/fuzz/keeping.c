/*
 * What keeps packets: the heap of timers and the blocks of copies, each against a model of its own.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "host/arena.h"
#include "host/timer.h"
#include "hostile.h"

enum {
	TIMER_ROUNDS = 400,
	TIMERS = 300,
	BLOCK_ROUNDS = 200,
	BLOCKS = 400,
	REGION = NQ_ARENA_LEAST << 9,
	SPREAD_SMALL = 200,
	SPREAD_LARGE = 50,
};

/* --- Timers --- */

struct model_timer {
	struct nq_timer timer;
	bool pending;
	int64_t due;
	uint64_t order;
};

struct model_timers {
	struct nq_timers heap;
	struct model_timer all[TIMERS];
	uint64_t order;
};

/* The one that must come first, or NULL. */
static struct model_timer *first_of(struct model_timers *model)
{
	struct model_timer *first = NULL;

	for (unsigned i = 0; i < TIMERS; i++) {
		struct model_timer *one = &model->all[i];

		if (one->pending && (!first || one->due < first->due ||
				     (one->due == first->due && one->order < first->order)))
			first = one;
	}
	return first;
}

static void check_timers(struct run *run, struct model_timers *model)
{
	const struct model_timer *first = first_of(model);
	unsigned pending = 0;

	for (unsigned i = 0; i < TIMERS; i++) {
		struct model_timer *one = &model->all[i];

		pending += one->pending;
		CHECK(run, nq_timer_pending(&one->timer) == one->pending);
		CHECK(run, nq_timers_has(&model->heap, &one->timer) == one->pending);
	}
	CHECK(run, model->heap.count == pending);
	CHECK(run, nq_timers_due(&model->heap) == (first ? first->due : NQ_NEVER));
}

static void take_timer(struct run *run, struct model_timers *model)
{
	struct model_timer *first = first_of(model);
	int64_t now = below(run, 100);
	/* Sometimes a round that began a few additions ago. */
	uint64_t before = below(run, 4) ? UINT64_MAX : model->order - below(run, 20);
	int64_t due = -1;
	struct nq_timer *got = nq_timers_take(&model->heap, now, before, &due);

	if (!first || first->due > now || first->order >= before) {
		CHECK(run, got == NULL);
		return;
	}
	CHECK(run, got == &first->timer);
	CHECK(run, due == first->due);
	first->pending = false;
}

static void test_timers(struct run *run, uint64_t percent)
{
	struct model_timers *model = hostile_take(sizeof(*model));

	begin(run, "a heap of timers");
	for (uint64_t round = 0; round < TIMER_ROUNDS * percent / 100; round++) {
		/* Few different times, so that many are equal; then many. */
		uint32_t range = round % 2 ? 10 : 100;

		memset(model, 0, sizeof(*model));
		for (unsigned step = 0; step < 3 * TIMERS; step++) {
			struct model_timer *one = &model->all[below(run, TIMERS)];

			if (below(run, 3) == 0) {
				take_timer(run, model);
			} else if (one->pending) {
				nq_timers_remove(&model->heap, &one->timer);
				one->pending = false;
			} else {
				one->due = below(run, range);
				one->order = model->order++;
				one->pending = true;
				CHECK(run, nq_timers_add(&model->heap, &one->timer, one->due) == 0);
			}
			nq_timers_remove(&model->heap, &(struct nq_timer){0});
			if (step % 50 == 0)
				check_timers(run, model);
		}
		for (struct model_timer *first; (first = first_of(model)) != NULL;) {
			int64_t due;

			CHECK(run, nq_timers_take(&model->heap, first->due - 1, UINT64_MAX, &due) ==
					   NULL);
			CHECK(run, nq_timers_take(&model->heap, NQ_NEVER, UINT64_MAX, &due) ==
					   &first->timer);
			first->pending = false;
		}
		check_timers(run, model);
		nq_timers_free(&model->heap);
	}
	free(model);
}

/* --- Blocks --- */

struct model_block {
	uint8_t *bytes; /* NULL: not taken */
	size_t size;
	uint8_t mark;
};

/* The least power of two of NQ_ARENA_LEAST that holds it. */
static size_t rounded(size_t size)
{
	size_t block = NQ_ARENA_LEAST;

	while (block < size)
		block *= 2;
	return block;
}

static bool overlap(const struct model_block *one, const struct model_block *other)
{
	return one->bytes < other->bytes + other->size && other->bytes < one->bytes + one->size;
}

static void check_block(struct run *run, const uint8_t *region, const struct model_block *all,
			const struct model_block *one)
{
	CHECK(run, one->bytes >= region && one->bytes + one->size <= region + REGION);
	CHECK(run, (size_t)(one->bytes - region) % NQ_ARENA_LEAST == 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		CHECK(run, &all[i] == one || !all[i].bytes || !overlap(&all[i], one));
}

/* Every byte of a block is its holder's. */
static void give_block(struct run *run, struct nq_arena *arena, struct model_block *one)
{
	bool whole = true;

	for (size_t i = 0; i < one->size; i++)
		whole = whole && one->bytes[i] == one->mark;
	CHECK(run, whole);
	nq_arena_give(arena, one->bytes);
	one->bytes = NULL;
}

static void take_block(struct run *run, struct nq_arena *arena, struct model_block *all,
		       struct model_block *one)
{
	/* Mostly small. */
	size_t size = 1 + below(run, below(run, 8) ? 3000 : REGION / 2);
	uint8_t *bytes = nq_arena_take(arena, size);

	if (!bytes)
		return;
	*one = (struct model_block){bytes, size, (uint8_t)draw(run)};
	check_block(run, arena->region, all, one);
	memset(bytes, one->mark, size);
}

static void test_blocks(struct run *run, uint64_t percent)
{
	uint8_t *region = hostile_take(REGION);
	struct nq_arena arena;

	begin(run, "blocks of one region");
	if (!CHECK(run, nq_arena_init(&arena, region, REGION) == 0))
		goto out;
	for (uint64_t round = 0; round < BLOCK_ROUNDS * percent / 100; round++) {
		struct model_block all[BLOCKS] = {{0}};
		size_t used = 0;

		for (unsigned step = 0; step < 4 * BLOCKS; step++) {
			struct model_block *one = &all[below(run, BLOCKS)];

			if (one->bytes)
				give_block(run, &arena, one);
			else
				take_block(run, &arena, all, one);
		}
		for (unsigned i = 0; i < BLOCKS; i++)
			used += all[i].bytes ? rounded(all[i].size) : 0;
		CHECK(run, arena.used == used);
		/* Given back one by one, or all at once; either way it is one block again. */
		for (unsigned i = 0; i < BLOCKS && round % 4; i++)
			if (all[i].bytes)
				give_block(run, &arena, &all[i]);
		nq_arena_reset(&arena);
		CHECK(run, arena.used == 0);
		CHECK(run, nq_arena_take(&arena, REGION + 1) == NULL);
		CHECK(run, nq_arena_take(&arena, REGION) == region);
		CHECK(run, nq_arena_take(&arena, 1) == NULL);
		nq_arena_give(&arena, region);
		nq_arena_give(&arena, NULL);
	}
	nq_arena_fini(&arena);
out:
	free(region);
}

/*
 * Blocks that come and go in any order stay together, small ones low and large ones high, however
 * long it lasts: what has ever been touched is no more than some times what was ever in use.
 */
static void test_spread(struct run *run, uint64_t percent)
{
	static const size_t size = (size_t)256 << 20;
	uint8_t *blocks[SPREAD_SMALL + SPREAD_LARGE] = {NULL};
	uint8_t *region =
		mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t low_end = 0, high_begin = size;
	struct nq_arena arena;

	begin(run, "blocks that come and go");
	if (!CHECK(run, region != MAP_FAILED && nq_arena_init(&arena, region, size) == 0))
		return;
	for (uint64_t i = 0; i < 50000 * percent; i++) {
		uint32_t which = below(run, COUNT(blocks));
		size_t at;

		if (blocks[which]) {
			nq_arena_give(&arena, blocks[which]);
			blocks[which] = NULL;
			continue;
		}
		blocks[which] =
			nq_arena_take(&arena, which < SPREAD_SMALL ? 1 + below(run, 2048) : 65531);
		at = (size_t)(blocks[which] - region);
		if (which < SPREAD_SMALL && at > low_end)
			low_end = at;
		if (which >= SPREAD_SMALL && at < high_begin)
			high_begin = at;
	}
	CHECK(run, low_end < 2 * SPREAD_SMALL * (size_t)2048);
	CHECK(run, size - high_begin <= SPREAD_LARGE * (size_t)65536);
	nq_arena_fini(&arena);
	munmap(region, size);
}

void hostile_test_keeping(struct run *run, uint64_t percent)
{
	test_timers(run, percent);
	test_blocks(run, percent);
	test_spread(run, percent);
}
