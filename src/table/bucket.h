/*
 * bucket.h - token buckets by key for all threads of a process, bounded in number.
 *
 * A bucket begins full with `burst` tokens and gains `rate` a second up to that. The buckets used
 * longest ago go when there are `max`; one that comes again begins full. A bucket keeps a digest of
 * its key, so that a key of any length takes the same room. Any thread.
 */
#ifndef NQ_TABLE_BUCKET_H
#define NQ_TABLE_BUCKET_H

#include <stdbool.h>

#include "table/clock.h"
#include "table/lru.h"
#include "table/registry.h"

#define NQ_BUCKET_MAX 65536 /* buckets, when nothing else is asked for */
#define NQ_BUCKET_MAX_MOST (1u << 26)

struct nq_bucket;

/* For nq_registry_get: what is 0 takes the table as it is; a new one needs `rate` (else EINVAL),
 * and has a burst of one second's tokens, at least 1. */
struct nq_bucket_options {
	double rate;  /* tokens a second */
	double burst; /* tokens */
	uint32_t max;
};

extern const struct nq_table_class nq_bucket_class;

void nq_bucket_options(const struct nq_bucket *bucket, struct nq_bucket_options *options);

/* Takes `count` tokens (not negative) from the key's bucket if it has them: whether it had. */
bool nq_bucket_take(struct nq_bucket *bucket, const void *key, size_t length, double count,
		    const struct nq_clock *clock);

void nq_bucket_stats(struct nq_bucket *bucket, struct nq_lru_stats *stats);

#endif
