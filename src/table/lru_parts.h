/*
 * lru_parts.h - the memory of a table: what lru.c and lru_bytes.c share.
 */
#ifndef NQ_TABLE_LRU_PARTS_H
#define NQ_TABLE_LRU_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "table/hash.h"
#include "table/lru.h"

#define NQ_LRU_LINE 64 /* bytes that processors exchange at a time */
#define NQ_LRU_MORE (NQ_LRU_BLOCK - sizeof(uint32_t))
#define NQ_LRU_STRIPES 64

struct nq_lru_more {
	uint32_t more;
	uint8_t data[NQ_LRU_MORE];
};

union nq_lru_block {
	struct nq_lru_entry entry;
	struct nq_lru_more more;
};

_Static_assert(sizeof(union nq_lru_block) == NQ_LRU_BLOCK, "a block is a cache line");

struct nq_lru_stripe {
	_Alignas(NQ_LRU_LINE) pthread_mutex_t lock;
	uint32_t newest, oldest;
	uint64_t entries;
};

struct nq_lru {
	/* Constant. */
	size_t size; /* of the mapping this begins */
	struct nq_hash_key key;
	union nq_lru_block *blocks; /* 1 to block_count */
	uint32_t *heads;	    /* of all stripes, one stripe behind the other */
	struct nq_lru_stripe *stripes;
	uint32_t block_count;
	uint32_t head_bits; /* of a stripe */
	uint32_t stripe_bits;
	/* Each stripe's oldest entry: OLDEST_SET | its `used`, or 0. Written under the stripe's
	 * lock. */
	_Alignas(NQ_LRU_LINE) _Atomic uint64_t oldest[NQ_LRU_STRIPES];
	/* Blocks. */
	_Alignas(NQ_LRU_LINE) pthread_mutex_t lock;
	uint32_t free;	     /* first of a chain by `more` */
	uint32_t free_count; /* in the chain */
	uint32_t fresh;	     /* the first block that was never used */
	uint64_t evicted;
	/* Counts insertions by two: what is used between them has the odd number. Wraps after two
	 * thousand million, by when whatever was not used has long been evicted. */
	_Alignas(NQ_LRU_LINE) _Atomic uint32_t tick;
};

static inline struct nq_lru_entry *nq_lru_at(const struct nq_lru *lru, uint32_t index)
{
	return &lru->blocks[index].entry;
}

/* Whether the entry is the key's. */
bool nq_lru_is_key(const struct nq_lru *lru, const struct nq_lru_entry *entry,
		   const struct nq_lru_key *key);

void nq_lru_write_key(const struct nq_lru *lru, struct nq_lru_entry *entry,
		      const struct nq_lru_key *key);

/* Blocks for so many bytes of key and content. */
size_t nq_lru_blocks(size_t key_length, size_t length);

#endif
