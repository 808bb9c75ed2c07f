#include "table/lru.h"

#include <string.h>
#include <sys/mman.h>

#include "table/lru_parts.h"

/* Fewer blocks a stripe, and some would be full long before others. */
#define STRIPE_BLOCKS 1024

#define OLDEST_SET ((uint64_t)1 << 32)

struct layout {
	size_t stripes, heads, blocks, size;
	uint32_t stripe_bits, head_bits;
};

static struct layout lay_out(uint32_t blocks)
{
	struct layout layout = {.stripe_bits = 0, .head_bits = 0};

	while (1u << layout.stripe_bits < NQ_LRU_STRIPES &&
	       blocks >> (layout.stripe_bits + 1) >= STRIPE_BLOCKS)
		layout.stripe_bits++;
	/* As many heads as blocks, rounded down to a power of two. */
	while (blocks >> (layout.stripe_bits + layout.head_bits + 1) > 0)
		layout.head_bits++;
	layout.stripes = sizeof(struct nq_lru);
	layout.heads = layout.stripes + (sizeof(struct nq_lru_stripe) << layout.stripe_bits);
	layout.blocks =
		layout.heads + (sizeof(uint32_t) << (layout.stripe_bits + layout.head_bits));
	layout.blocks = (layout.blocks + NQ_LRU_LINE - 1) & ~(size_t)(NQ_LRU_LINE - 1);
	layout.size = layout.blocks + (size_t)blocks * NQ_LRU_BLOCK;
	return layout;
}

uint32_t nq_lru_fit(size_t bytes)
{
	size_t blocks = bytes / NQ_LRU_BLOCK;

	if (blocks > NQ_LRU_BLOCKS_MAX)
		blocks = NQ_LRU_BLOCKS_MAX;
	while (blocks > 0) {
		size_t size = lay_out((uint32_t)blocks).size;
		size_t excess = size > bytes ? (size - bytes + NQ_LRU_BLOCK - 1) / NQ_LRU_BLOCK : 0;

		if (!excess)
			break;
		blocks -= excess < blocks ? excess : blocks;
	}
	return (uint32_t)blocks;
}

static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
#ifdef __GLIBC__
	/* What is done under it takes less than going to sleep. */
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
	pthread_mutex_init(lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

struct nq_lru *nq_lru_new(uint32_t blocks)
{
	struct layout layout = lay_out(blocks);
	struct nq_lru *lru = mmap(NULL, layout.size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (lru == MAP_FAILED)
		return NULL;
#ifdef MADV_HUGEPAGE
	/* Finding the page of a random place costs more than the place; small ones do not matter.
	 */
	if (layout.size >= (size_t)4 << 20)
		(void)madvise(lru, layout.size, MADV_HUGEPAGE);
#endif
	lru->size = layout.size;
	nq_hash_key_make(&lru->key);
	lru->stripes = (struct nq_lru_stripe *)((char *)lru + layout.stripes);
	lru->heads = (uint32_t *)((char *)lru + layout.heads);
	/* Index 0 means none, so block 1 is the first. */
	lru->blocks = (union nq_lru_block *)((char *)lru + layout.blocks) - 1;
	lru->block_count = blocks;
	lru->stripe_bits = layout.stripe_bits;
	lru->head_bits = layout.head_bits;
	lru->fresh = 1;
	init_lock(&lru->lock);
	for (unsigned i = 0; i < nq_lru_stripes(lru); i++)
		init_lock(&lru->stripes[i].lock);
	return lru;
}

void nq_lru_free(struct nq_lru *lru)
{
	if (!lru)
		return;
	for (unsigned i = 0; i < nq_lru_stripes(lru); i++)
		pthread_mutex_destroy(&lru->stripes[i].lock);
	pthread_mutex_destroy(&lru->lock);
	munmap(lru, lru->size);
}

unsigned nq_lru_stripes(const struct nq_lru *lru)
{
	return 1u << lru->stripe_bits;
}

struct nq_lru_key nq_lru_key_make(const struct nq_lru *lru, const void *bytes, size_t length)
{
	return (struct nq_lru_key){
		.bytes = bytes,
		.length = (uint16_t)length,
		.hash = (uint32_t)nq_hash(&lru->key, bytes, length),
	};
}

static uint32_t index_of(const struct nq_lru *lru, const struct nq_lru_entry *entry)
{
	return (uint32_t)((const union nq_lru_block *)entry - lru->blocks);
}

/* The top bits of the hash choose the stripe, those at the bottom the head. */
static unsigned stripe_of(const struct nq_lru *lru, uint32_t hash)
{
	return lru->stripe_bits ? hash >> (32 - lru->stripe_bits) : 0;
}

static uint32_t *head_of(const struct nq_lru *lru, uint32_t hash)
{
	return &lru->heads[((size_t)stripe_of(lru, hash) << lru->head_bits) +
			   (hash & ((1u << lru->head_bits) - 1))];
}

/* --- The order of use; the stripe is locked --- */

static void note_oldest(struct nq_lru *lru, unsigned number)
{
	uint32_t oldest = lru->stripes[number].oldest;
	uint64_t noted = oldest ? OLDEST_SET | nq_lru_at(lru, oldest)->used : 0;

	atomic_store_explicit(&lru->oldest[number], noted, memory_order_relaxed);
}

static void link_newest(struct nq_lru *lru, struct nq_lru_stripe *stripe,
			struct nq_lru_entry *entry)
{
	uint32_t index = index_of(lru, entry);

	entry->newer = 0;
	entry->older = stripe->newest;
	if (stripe->newest)
		nq_lru_at(lru, stripe->newest)->newer = index;
	else
		stripe->oldest = index;
	stripe->newest = index;
}

static void unlink_entry(struct nq_lru *lru, struct nq_lru_stripe *stripe,
			 struct nq_lru_entry *entry)
{
	if (entry->newer)
		nq_lru_at(lru, entry->newer)->older = entry->older;
	else
		stripe->newest = entry->older;
	if (entry->older)
		nq_lru_at(lru, entry->older)->newer = entry->newer;
	else
		stripe->oldest = entry->newer;
}

static void touch(struct nq_lru *lru, unsigned number, struct nq_lru_entry *entry)
{
	struct nq_lru_stripe *stripe = &lru->stripes[number];
	bool was_oldest = !entry->older;

	entry->used = atomic_load_explicit(&lru->tick, memory_order_relaxed) + 1;
	if (entry->newer) {
		unlink_entry(lru, stripe, entry);
		link_newest(lru, stripe, entry);
	}
	if (was_oldest)
		note_oldest(lru, number);
}

struct nq_lru_entry *nq_lru_find(struct nq_lru *lru, const struct nq_lru_key *key)
{
	unsigned number = stripe_of(lru, key->hash);
	uint32_t index;

	pthread_mutex_lock(&lru->stripes[number].lock);
	index = *head_of(lru, key->hash);
	while (index && !nq_lru_is_key(lru, nq_lru_at(lru, index), key))
		index = nq_lru_at(lru, index)->chain;
	if (!index)
		return NULL;
	touch(lru, number, nq_lru_at(lru, index));
	return nq_lru_at(lru, index);
}

void nq_lru_unlock(struct nq_lru *lru, const struct nq_lru_key *key)
{
	pthread_mutex_unlock(&lru->stripes[stripe_of(lru, key->hash)].lock);
}

void nq_lru_insert(struct nq_lru *lru, const struct nq_lru_key *key, struct nq_lru_entry *entry)
{
	unsigned number = stripe_of(lru, key->hash);
	uint32_t *head = head_of(lru, key->hash);

	entry->used = atomic_fetch_add_explicit(&lru->tick, 2, memory_order_relaxed) + 2;
	entry->chain = *head;
	*head = index_of(lru, entry);
	link_newest(lru, &lru->stripes[number], entry);
	lru->stripes[number].entries++;
	if (!entry->older)
		note_oldest(lru, number);
}

static void take_out(struct nq_lru *lru, unsigned number, struct nq_lru_entry *entry)
{
	uint32_t *link = head_of(lru, entry->hash);
	uint32_t index = index_of(lru, entry);

	while (*link != index)
		link = &nq_lru_at(lru, *link)->chain;
	*link = entry->chain;
	unlink_entry(lru, &lru->stripes[number], entry);
	lru->stripes[number].entries--;
	note_oldest(lru, number);
}

void nq_lru_remove(struct nq_lru *lru, const struct nq_lru_key *key, struct nq_lru_entry *entry)
{
	take_out(lru, stripe_of(lru, key->hash), entry);
}

/* --- Blocks; lru->lock is held where it says so --- */

/* Locked. */
static void give_back(struct nq_lru *lru, struct nq_lru_entry *entry)
{
	uint32_t last = index_of(lru, entry);
	uint32_t count = 1;

	while (lru->blocks[last].more.more) {
		last = lru->blocks[last].more.more;
		count++;
	}
	lru->blocks[last].more.more = lru->free;
	lru->free = index_of(lru, entry);
	lru->free_count += count;
}

/* Locked. Takes out the oldest entry of all: false when there is none. */
static bool evict(struct nq_lru *lru)
{
	uint32_t tick = atomic_load_explicit(&lru->tick, memory_order_relaxed);
	unsigned stripes = nq_lru_stripes(lru);
	struct nq_lru_entry *entry = NULL;
	unsigned victim = stripes;
	int32_t most = 0;

	for (unsigned i = 0; i < stripes; i++) {
		uint64_t oldest = atomic_load_explicit(&lru->oldest[i], memory_order_relaxed);
		/* Below 0: it came after `tick` was read. */
		int32_t age = (int32_t)(tick + 1 - (uint32_t)oldest);

		if (oldest && (victim == stripes || age > most)) {
			victim = i;
			most = age;
		}
	}
	if (victim == stripes)
		return false;
	pthread_mutex_lock(&lru->stripes[victim].lock);
	if (lru->stripes[victim].oldest) {
		entry = nq_lru_at(lru, lru->stripes[victim].oldest);
		take_out(lru, victim, entry);
	}
	pthread_mutex_unlock(&lru->stripes[victim].lock);
	/* Without an entry: its owner was quicker, and what he noted is seen in the next round. */
	if (entry) {
		give_back(lru, entry);
		lru->evicted++;
	}
	return true;
}

/* Locked. */
static uint32_t available(const struct nq_lru *lru)
{
	return lru->free_count + (lru->block_count + 1 - lru->fresh);
}

/* Locked; there is one. */
static uint32_t take_block(struct nq_lru *lru)
{
	uint32_t index = lru->free;

	if (!index)
		return lru->fresh++;
	lru->free = lru->blocks[index].more.more;
	lru->free_count--;
	return index;
}

struct nq_lru_entry *nq_lru_make(struct nq_lru *lru, const struct nq_lru_key *key, size_t length)
{
	size_t count = nq_lru_blocks(key->length, length);
	struct nq_lru_entry *entry;
	uint32_t last = 0;

	if (!nq_lru_fits(lru, key->length, length))
		return NULL;
	pthread_mutex_lock(&lru->lock);
	while (available(lru) < count) {
		if (!evict(lru)) {
			pthread_mutex_unlock(&lru->lock);
			return NULL;
		}
	}
	for (size_t i = 0; i < count; i++) {
		uint32_t index = take_block(lru);

		lru->blocks[index].more.more = last;
		last = index;
	}
	pthread_mutex_unlock(&lru->lock);
	entry = nq_lru_at(lru, last);
	entry->hash = key->hash;
	entry->key_length = key->length;
	entry->length = (uint32_t)length;
	entry->kind = 0;
	entry->time = 0;
	entry->integer = 0;
	nq_lru_write_key(lru, entry, key);
	return entry;
}

void nq_lru_release(struct nq_lru *lru, struct nq_lru_entry *entry)
{
	if (!entry)
		return;
	pthread_mutex_lock(&lru->lock);
	give_back(lru, entry);
	pthread_mutex_unlock(&lru->lock);
}

/* --- All entries --- */

void nq_lru_walk(struct nq_lru *lru, unsigned stripe,
		 void (*visit)(void *context, const struct nq_lru_entry *entry), void *context)
{
	pthread_mutex_lock(&lru->stripes[stripe].lock);
	for (uint32_t index = lru->stripes[stripe].newest; index;
	     index = nq_lru_at(lru, index)->older)
		visit(context, nq_lru_at(lru, index));
	pthread_mutex_unlock(&lru->stripes[stripe].lock);
}

void nq_lru_flush(struct nq_lru *lru)
{
	for (unsigned i = 0; i < nq_lru_stripes(lru); i++) {
		struct nq_lru_stripe *stripe = &lru->stripes[i];
		uint32_t index;

		pthread_mutex_lock(&stripe->lock);
		index = stripe->newest;
		memset(&lru->heads[(size_t)i << lru->head_bits], 0,
		       sizeof(uint32_t) << lru->head_bits);
		stripe->newest = stripe->oldest = 0;
		stripe->entries = 0;
		note_oldest(lru, i);
		pthread_mutex_unlock(&stripe->lock);
		/* They hang together by `older`, and nobody finds them any more. */
		pthread_mutex_lock(&lru->lock);
		while (index) {
			struct nq_lru_entry *entry = nq_lru_at(lru, index);

			index = entry->older;
			give_back(lru, entry);
		}
		pthread_mutex_unlock(&lru->lock);
	}
}

void nq_lru_stats(struct nq_lru *lru, struct nq_lru_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	for (unsigned i = 0; i < nq_lru_stripes(lru); i++) {
		pthread_mutex_lock(&lru->stripes[i].lock);
		stats->entries += lru->stripes[i].entries;
		pthread_mutex_unlock(&lru->stripes[i].lock);
	}
	pthread_mutex_lock(&lru->lock);
	stats->bytes = (uint64_t)(lru->block_count - available(lru)) * NQ_LRU_BLOCK;
	stats->evicted = lru->evicted;
	pthread_mutex_unlock(&lru->lock);
}
