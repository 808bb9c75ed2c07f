/*
 * domain_parts.h - the content of a name set in memory: what domain_build.c writes and domain.c
 * searches.
 */
#ifndef NQ_TABLE_DOMAIN_PARTS_H
#define NQ_TABLE_DOMAIN_PARTS_H

#include "table/domain.h"
#include "table/hash.h"

enum { NQ_DOMAIN_SELF = 1, NQ_DOMAIN_BELOW = 2 }; /* what a name stands for */

/* In the pool: a byte of the above, one of the length, and the name in lower case. */
enum { NQ_DOMAIN_HEAD = 2 };

/*
 * A hash table with the names' places in the pool (0: free) and, apart from it and so small that it
 * stays in the cache, a byte of each one's hash (0: free): most searches look at nothing else.
 */
struct nq_domains {
	struct nq_hash_key key;
	uint8_t *tags;
	uint32_t *names;
	size_t mask; /* their number, a power of two, less one */
	uint8_t *pool;
	size_t count;
	unsigned most_labels;
};

static inline uint8_t nq_domain_tag(uint32_t hash)
{
	uint8_t tag = (uint8_t)(hash >> 24);

	return tag ? tag : 1;
}

/* A name's ends, from the last label to all of it. */
struct nq_domain_walk {
	const char *name; /* in lower case */
	size_t start;	  /* of the present end; the name's length before the first */
	uint64_t hash;	  /* of the present end */
};

static inline bool nq_domain_next(const struct nq_hash_key *key, struct nq_domain_walk *walk)
{
	/* The end before takes part through the key. */
	struct nq_hash_key mixed = {{key->words[0] ^ walk->hash, key->words[1]}};
	size_t stop = walk->start;

	if (stop == 0)
		return false;
	if (walk->name[stop - 1] == '.')
		stop--; /* the one in front of the end before */
	walk->start = stop;
	while (walk->start > 0 && walk->name[walk->start - 1] != '.')
		walk->start--;
	walk->hash = nq_hash(&mixed, walk->name + walk->start, stop - walk->start);
	return true;
}

/* Without a dot at the end, in lower case; false: too long, or empty. */
bool nq_domain_normalize(const char *name, size_t *length, char normal[NQ_DOMAIN_MAX]);

#endif
