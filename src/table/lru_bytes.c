#include <string.h>

#include "table/lru_parts.h"

struct cursor {
	const struct nq_lru *lru;
	uint8_t *at;
	size_t left; /* in this block */
	uint32_t more;
};

static struct cursor cursor_at(const struct nq_lru *lru, const struct nq_lru_entry *entry)
{
	return (struct cursor){.lru = lru,
			       .at = (uint8_t *)(uintptr_t)entry->data,
			       .left = NQ_LRU_INLINE,
			       .more = entry->more};
}

/* The next run of bytes, at most `wanted` (not 0), behind which the cursor then stands. */
static uint8_t *next_run(struct cursor *cursor, size_t wanted, size_t *length)
{
	uint8_t *run;

	if (!cursor->left) {
		struct nq_lru_more *more = &cursor->lru->blocks[cursor->more].more;

		cursor->at = more->data;
		cursor->left = NQ_LRU_MORE;
		cursor->more = more->more;
	}
	run = cursor->at;
	*length = wanted < cursor->left ? wanted : cursor->left;
	cursor->at += *length;
	cursor->left -= *length;
	return run;
}

static void skip(struct cursor *cursor, size_t count)
{
	size_t length;

	for (; count; count -= length)
		next_run(cursor, count, &length);
}

static void read_bytes(struct cursor *cursor, void *to, size_t count)
{
	uint8_t *at = to;
	size_t length;

	for (; count; count -= length, at += length) {
		const uint8_t *run = next_run(cursor, count, &length);

		memcpy(at, run, length);
	}
}

static void write_bytes(struct cursor *cursor, const void *from, size_t count)
{
	const uint8_t *at = from;
	size_t length;

	for (; count; count -= length, at += length) {
		uint8_t *run = next_run(cursor, count, &length);

		memcpy(run, at, length);
	}
}

bool nq_lru_is_key(const struct nq_lru *lru, const struct nq_lru_entry *entry,
		   const struct nq_lru_key *key)
{
	struct cursor cursor;
	const uint8_t *at = key->bytes;
	size_t left = key->length;
	size_t length;

	if (entry->hash != key->hash || entry->key_length != key->length)
		return false;
	cursor = cursor_at(lru, entry);
	for (; left; left -= length, at += length) {
		const uint8_t *run = next_run(&cursor, left, &length);

		if (memcmp(run, at, length) != 0)
			return false;
	}
	return true;
}

void nq_lru_read(const struct nq_lru *lru, const struct nq_lru_entry *entry, void *content)
{
	struct cursor cursor = cursor_at(lru, entry);

	skip(&cursor, entry->key_length);
	read_bytes(&cursor, content, entry->length);
}

void nq_lru_write(struct nq_lru *lru, struct nq_lru_entry *entry, const void *content,
		  size_t length)
{
	struct cursor cursor = cursor_at(lru, entry);

	skip(&cursor, entry->key_length);
	write_bytes(&cursor, content, length);
	entry->length = (uint32_t)length;
}

void nq_lru_read_key(const struct nq_lru *lru, const struct nq_lru_entry *entry, void *key)
{
	struct cursor cursor = cursor_at(lru, entry);

	read_bytes(&cursor, key, entry->key_length);
}

void nq_lru_write_key(const struct nq_lru *lru, struct nq_lru_entry *entry,
		      const struct nq_lru_key *key)
{
	struct cursor cursor = cursor_at(lru, entry);

	write_bytes(&cursor, key->bytes, key->length);
}

size_t nq_lru_blocks(size_t key_length, size_t length)
{
	size_t bytes = key_length + length;

	return 1 + (bytes > NQ_LRU_INLINE ? (bytes - NQ_LRU_INLINE + NQ_LRU_MORE - 1) / NQ_LRU_MORE
					  : 0);
}

bool nq_lru_fits(const struct nq_lru *lru, size_t key_length, size_t length)
{
	size_t most = lru->block_count > 1 ? lru->block_count / 2 : 1;

	return length <= most * NQ_LRU_MORE && nq_lru_blocks(key_length, length) <= most;
}

bool nq_lru_same_blocks(const struct nq_lru_entry *entry, size_t length)
{
	return nq_lru_blocks(entry->key_length, entry->length) ==
	       nq_lru_blocks(entry->key_length, length);
}
