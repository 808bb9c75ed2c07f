/*
 * arena.h - blocks of memory out of one region that never grows: a buddy allocator.
 *
 * Copies of held packets lie in it. Nothing is asked of the system; pages of the region cost when
 * they are touched, so of the blocks that fit the lowest in the region is taken, and the highest
 * for large ones, of which most often little is written: what is in use stays together however long
 * it comes and goes, and small blocks do not wander over the pages of large ones. What describes
 * the region lies outside it, so nothing written into a block can break it. One thread.
 */
#ifndef NQ_ARENA_H
#define NQ_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum {
	NQ_ARENA_LEAST = 512,	/* bytes; every block is this times a power of two */
	NQ_ARENA_ORDERS = 20,	/* sizes there are */
	NQ_ARENA_LARGE = 32768, /* bytes; what is more is large */
	NQ_ARENA_LEVELS = 4,
};

/* Which blocks of one size are free: a bit each, and above them a bit for each word that is not 0,
 * up to the one word of level `depth - 1`. */
struct nq_arena_free {
	uint64_t *levels[NQ_ARENA_LEVELS];
	unsigned depth;
};

struct nq_arena {
	uint8_t *region;
	uint32_t count;	 /* of least blocks in it: a power of two */
	unsigned orders; /* sizes in use: the largest is the whole region */
	struct nq_arena_free free[NQ_ARENA_ORDERS];
	uint8_t *heads;	 /* one a least block: 1 + order of the block taken that begins there */
	uint64_t *words; /* all of the above, in one piece */
	size_t word_count;
	size_t used; /* bytes in blocks that are taken */
};

/* The region is the caller's: NQ_ARENA_LEAST times a power of two, at least, bytes. 0 or -ENOMEM.
 */
int nq_arena_init(struct nq_arena *arena, uint8_t *region, size_t size);
void nq_arena_fini(struct nq_arena *arena);

/* As if none had been taken. */
void nq_arena_reset(struct nq_arena *arena);

/* A block of at least `size` bytes, aligned to NQ_ARENA_LEAST in the region; NULL: used up. */
void *nq_arena_take(struct nq_arena *arena, size_t size);

/* NULL does nothing. */
void nq_arena_give(struct nq_arena *arena, void *block);

#endif
