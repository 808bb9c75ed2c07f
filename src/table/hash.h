/*
 * hash.h - SipHash-1-3 (Aumasson and Bernstein, 2012) with a key of the table's own.
 *
 * Keys come from the network, so an unkeyed hash would let a stranger fill one chain. 64 bits find
 * a place in a table; 128 bits stand for the key itself.
 */
#ifndef NQ_TABLE_HASH_H
#define NQ_TABLE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct nq_hash_key {
	uint64_t words[2];
};

/* A key nobody knows. */
void nq_hash_key_make(struct nq_hash_key *key);

/* `bytes` may be NULL when `length` is 0. */
uint64_t nq_hash(const struct nq_hash_key *key, const void *bytes, size_t length);

/*
 * The 128-bit variant. Two different keys with the same digest are not to be expected: with a
 * million keys their chance is about 1 in 10^26.
 */
void nq_hash_wide(const struct nq_hash_key *key, const void *bytes, size_t length,
		  uint8_t digest[16]);

#endif
