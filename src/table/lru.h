/*
 * lru.h - a bounded table of byte strings, shared by threads: what was used longest ago goes first.
 *
 * All memory is mapped at the start and touched as it fills, so the bound is exact, and nothing is
 * allocated or moved later. An entry is a chain of blocks of 64 bytes; entries hang from heads that
 * are divided into stripes, each with its own lock, its own order of use and its own share of the
 * hash:
 *
 *     lock of stripe 0 ── heads ──▶ entry ──▶ entry        newest ◀──▶ ... ◀──▶ oldest
 *     lock of stripe 1 ── heads ──▶ entry
 *     lock of blocks   ── free blocks                      a lock of blocks is never waited for
 *                                                           inside a stripe
 *
 * A new entry is filled before it is inserted, so a stripe is locked for the few memory accesses of
 * a look-up. When no blocks are free, the oldest entry of all stripes is taken out. "Oldest" is
 * exact in a stripe; across stripes, reads between the same two writes count as one moment.
 *
 * Beyond the lock of the stripe this knows nothing of what an entry holds: see store.h and
 * bucket.h.
 */
#ifndef NQ_TABLE_LRU_H
#define NQ_TABLE_LRU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NQ_LRU_BLOCK 64
#define NQ_LRU_INLINE 16 /* bytes of key and content in an entry's first block */
#define NQ_LRU_KEY_MAX 65535
#define NQ_LRU_BLOCKS_MAX (1u << 30)

struct nq_lru;

struct nq_lru_key {
	const void *bytes;
	uint16_t length;
	uint32_t hash; /* of nq_lru_key_make, or any number that the key determines */
};

/* One block. The first fields are this unit's. */
struct nq_lru_entry {
	uint32_t more; /* next block of the entry; index, 0: none */
	uint32_t chain;
	uint32_t older, newer;
	uint32_t hash;
	uint32_t used;
	/* The owner's, under the lock of the stripe once the entry is inserted. */
	uint32_t length; /* of the content, bytes behind the key */
	uint16_t key_length;
	uint8_t kind;
	uint8_t unused;
	int64_t time;
	union {
		int64_t integer;
		double real;
	};
	uint8_t data[NQ_LRU_INLINE]; /* the key, then the content; the rest lies in further blocks
				      */
};

struct nq_lru_stats {
	uint64_t entries;
	uint64_t bytes; /* of blocks in use */
	uint64_t evicted;
};

/* The most blocks that fit `bytes`, everything included; 0: not even one. */
uint32_t nq_lru_fit(size_t bytes);

/* NULL with errno. `blocks`: from 1 to NQ_LRU_BLOCKS_MAX. */
struct nq_lru *nq_lru_new(uint32_t blocks);
void nq_lru_free(struct nq_lru *lru);

/* A key of the table's own hash. `bytes` stays the caller's. */
struct nq_lru_key nq_lru_key_make(const struct nq_lru *lru, const void *bytes, size_t length);

/*
 * Locks the key's stripe and finds its entry, which becomes the newest; NULL: there is none. Until
 * nq_lru_unlock the caller calls nothing but nq_lru_insert, nq_lru_remove, nq_lru_read and
 * nq_lru_write of this key.
 */
struct nq_lru_entry *nq_lru_find(struct nq_lru *lru, const struct nq_lru_key *key);
void nq_lru_unlock(struct nq_lru *lru, const struct nq_lru_key *key);

/*
 * An entry for the key with room for `length` bytes of content, not yet inserted; older ones go for
 * it. NULL: it does not fit (nq_lru_fits), or all blocks are in entries that other threads are
 * filling. No stripe is locked by the caller.
 */
struct nq_lru_entry *nq_lru_make(struct nq_lru *lru, const struct nq_lru_key *key, size_t length);

/* Of an entry that is not inserted, or not any more. No stripe is locked. NULL: does nothing. */
void nq_lru_release(struct nq_lru *lru, struct nq_lru_entry *entry);

/* The key's stripe is locked; the key has no other entry. */
void nq_lru_insert(struct nq_lru *lru, const struct nq_lru_key *key, struct nq_lru_entry *entry);

/* The key's stripe is locked. The entry is the caller's to release. */
void nq_lru_remove(struct nq_lru *lru, const struct nq_lru_key *key, struct nq_lru_entry *entry);

/* Whether an entry may be as large: half of the table. */
bool nq_lru_fits(const struct nq_lru *lru, size_t key_length, size_t length);

/* Whether content of another length needs the blocks that the entry has. */
bool nq_lru_same_blocks(const struct nq_lru_entry *entry, size_t length);

/* Content: entry->length bytes are read; written are `length`, which becomes entry->length. */
void nq_lru_read(const struct nq_lru *lru, const struct nq_lru_entry *entry, void *content);
void nq_lru_write(struct nq_lru *lru, struct nq_lru_entry *entry, const void *content,
		  size_t length);

/* The key: entry->key_length bytes. The stripe is locked. */
void nq_lru_read_key(const struct nq_lru *lru, const struct nq_lru_entry *entry, void *key);

unsigned nq_lru_stripes(const struct nq_lru *lru);

/* Calls `visit` for each entry of a stripe, newest first, with the stripe locked. */
void nq_lru_walk(struct nq_lru *lru, unsigned stripe,
		 void (*visit)(void *context, const struct nq_lru_entry *entry), void *context);

/* Takes out all entries that are there when their stripe's turn comes. */
void nq_lru_flush(struct nq_lru *lru);

void nq_lru_stats(struct nq_lru *lru, struct nq_lru_stats *stats);

#endif
