#include "table/bucket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "table/hash.h"

/* In an entry: `time` when its tokens were counted last, `real` how many there were. */
struct nq_bucket {
	struct nq_table table;
	struct nq_bucket_options options;
	struct nq_hash_key key;
	struct nq_lru *lru;
};

static struct nq_table *make(const void *given)
{
	const struct nq_bucket_options *options = given;
	struct nq_bucket *bucket;
	int error;

	if (options->rate <= 0) {
		errno = EINVAL;
		return NULL;
	}
	bucket = malloc(sizeof(*bucket));
	if (!bucket)
		return NULL;
	nq_table_init(&bucket->table, &nq_bucket_class);
	bucket->options = *options;
	if (!options->burst)
		bucket->options.burst = options->rate > 1 ? options->rate : 1;
	if (!options->max)
		bucket->options.max = NQ_BUCKET_MAX;
	nq_hash_key_make(&bucket->key);
	/* A block for each, since a digest fits its first. */
	bucket->lru = nq_lru_new(bucket->options.max);
	if (bucket->lru)
		return &bucket->table;
	error = errno;
	free(bucket);
	errno = error;
	return NULL;
}

static int matches(const struct nq_table *table, const void *given)
{
	const struct nq_bucket_options *asked = given;
	const struct nq_bucket_options *have = &((const struct nq_bucket *)table)->options;

	return (!asked->rate || asked->rate == have->rate) &&
	       (!asked->burst || asked->burst == have->burst) &&
	       (!asked->max || asked->max == have->max);
}

static void destroy(struct nq_table *table)
{
	struct nq_bucket *bucket = (struct nq_bucket *)table;

	nq_lru_free(bucket->lru);
	free(bucket);
}

const struct nq_table_class nq_bucket_class = {make, matches, destroy};

void nq_bucket_options(const struct nq_bucket *bucket, struct nq_bucket_options *options)
{
	*options = bucket->options;
}

/* The entry is locked, or nobody else's yet. */
static bool take(const struct nq_bucket *bucket, struct nq_lru_entry *entry, double count,
		 int64_t now)
{
	int64_t elapsed = now > entry->time ? now - entry->time : 0;
	double tokens = entry->real + (double)elapsed / 1e9 * bucket->options.rate;

	if (tokens > bucket->options.burst)
		tokens = bucket->options.burst;
	/* Ten tenths of a token are one, whatever rounding says. */
	if (tokens * (1 + 1e-12) < count)
		return false;
	/* Written only now: refused ones add no rounding of theirs. */
	entry->real = tokens > count ? tokens - count : 0;
	entry->time += elapsed;
	return true;
}

bool nq_bucket_take(struct nq_bucket *bucket, const void *bytes, size_t length, double count,
		    const struct nq_clock *clock)
{
	int64_t now = nq_clock_read(clock);
	struct nq_lru_entry *fresh = NULL;
	struct nq_lru_entry *entry;
	uint8_t digest[16];
	struct nq_lru_key key = {.bytes = digest, .length = sizeof(digest)};
	bool taken;

	nq_hash_wide(&bucket->key, bytes, length, digest);
	memcpy(&key.hash, digest, sizeof(key.hash));
	entry = nq_lru_find(bucket->lru, &key);
	if (!entry) {
		nq_lru_unlock(bucket->lru, &key);
		fresh = nq_lru_make(bucket->lru, &key, 0);
		entry = nq_lru_find(bucket->lru, &key);
	}
	if (!entry && fresh) {
		fresh->time = now;
		fresh->real = bucket->options.burst;
		nq_lru_insert(bucket->lru, &key, fresh);
		entry = fresh;
		fresh = NULL;
	}
	/* Without an entry all `max` are being made by other threads at this moment: this one would
	 * be the first to go. */
	taken = entry ? take(bucket, entry, count, now) : count <= bucket->options.burst;
	nq_lru_unlock(bucket->lru, &key);
	nq_lru_release(bucket->lru, fresh);
	return taken;
}

void nq_bucket_stats(struct nq_bucket *bucket, struct nq_lru_stats *stats)
{
	nq_lru_stats(bucket->lru, stats);
}
