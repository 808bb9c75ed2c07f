/*
 * arena.h - blocks of memory out of one region that never grows: a buddy allocator.
 *
 * Copies of held packets lie in it. Nothing is asked of the system; pages of the region cost when
 * they are touched. What describes the region lies outside it, so nothing written into a block can
 * break it. One thread.
 */
#ifndef NQ_ARENA_H
#define NQ_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum {
	NQ_ARENA_LEAST = 512, /* bytes; every block is this times a power of two */
	NQ_ARENA_ORDERS = 20, /* sizes there are */
};

struct nq_arena {
	uint8_t *region;
	uint32_t count;	 /* of least blocks in it: a power of two */
	unsigned orders; /* sizes in use: the largest is the whole region */
	/* One a least block: 1 + order of the block that begins there, with FREE; 0 inside one. */
	uint8_t *heads;
	struct nq_arena_link *links;	/* one a least block; of free blocks, by size */
	uint32_t free[NQ_ARENA_ORDERS]; /* 1 + first of that size; 0: none */
	size_t used;			/* bytes in blocks that are taken */
};

struct nq_arena_link {
	uint32_t next, previous; /* 1 + index; 0: none */
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
