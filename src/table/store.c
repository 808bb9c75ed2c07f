#include "table/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* In an entry: `kind` of the value, its number, or the string as content; `time` 0: no end. */
struct nq_store {
	struct nq_table table;
	size_t max_bytes;
	struct nq_lru *lru;
};

static struct nq_table *make(const void *given)
{
	const struct nq_store_options *options = given;
	struct nq_store *store = malloc(sizeof(*store));
	int error;

	if (!store)
		return NULL;
	nq_table_init(&store->table, &nq_store_class);
	store->max_bytes = options->max_bytes ? options->max_bytes : NQ_STORE_BYTES;
	store->lru = nq_lru_new(nq_lru_fit(store->max_bytes));
	if (store->lru)
		return &store->table;
	error = errno;
	free(store);
	errno = error;
	return NULL;
}

static int matches(const struct nq_table *table, const void *given)
{
	const struct nq_store_options *options = given;

	return !options->max_bytes ||
	       options->max_bytes == ((const struct nq_store *)table)->max_bytes;
}

static void destroy(struct nq_table *table)
{
	struct nq_store *store = (struct nq_store *)table;

	nq_lru_free(store->lru);
	free(store);
}

const struct nq_table_class nq_store_class = {make, matches, destroy};

size_t nq_store_max_bytes(const struct nq_store *store)
{
	return store->max_bytes;
}

static bool is_expired(const struct nq_lru_entry *entry, const struct nq_clock *clock)
{
	return entry->time && nq_clock_read(clock) >= entry->time;
}

/* Locks, and finds the entry if it is not over. An expired one is in *expired, for release later.
 */
static struct nq_lru_entry *find(struct nq_store *store, const struct nq_lru_key *key,
				 const struct nq_clock *clock, struct nq_lru_entry **expired)
{
	struct nq_lru_entry *entry = nq_lru_find(store->lru, key);

	*expired = NULL;
	if (!entry || !is_expired(entry, clock))
		return entry;
	nq_lru_remove(store->lru, key, entry);
	*expired = entry;
	return NULL;
}

static void read_number(const struct nq_lru_entry *entry, struct nq_value *value)
{
	value->kind = (enum nq_value_kind)entry->kind;
	if (value->kind == NQ_VALUE_FLOAT)
		value->real = entry->real;
	else
		value->integer = entry->integer;
}

bool nq_store_get(struct nq_store *store, const void *bytes, size_t length,
		  const struct nq_clock *clock, struct nq_value *value, char *buffer,
		  size_t capacity)
{
	struct nq_lru_key key = nq_lru_key_make(store->lru, bytes, length);
	struct nq_lru_entry *expired;
	const struct nq_lru_entry *entry = find(store, &key, clock, &expired);

	if (entry && entry->kind == NQ_VALUE_STRING) {
		value->kind = NQ_VALUE_STRING;
		value->string.length = entry->length;
		value->string.bytes = buffer;
		if (entry->length <= capacity)
			nq_lru_read(store->lru, entry, buffer);
	} else if (entry) {
		read_number(entry, value);
	}
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, expired);
	return entry != NULL;
}

static size_t content_length(const struct nq_value *value)
{
	return value->kind == NQ_VALUE_STRING ? value->string.length : 0;
}

static void write_value(struct nq_store *store, struct nq_lru_entry *entry,
			const struct nq_value *value, int64_t life, const struct nq_clock *clock)
{
	entry->kind = (uint8_t)value->kind;
	entry->time = life ? nq_clock_read(clock) + life : 0;
	if (value->kind == NQ_VALUE_STRING)
		nq_lru_write(store->lru, entry, value->string.bytes, value->string.length);
	else
		entry->length = 0;
	if (value->kind == NQ_VALUE_FLOAT)
		entry->real = value->real;
	else if (value->kind == NQ_VALUE_INTEGER)
		entry->integer = value->integer;
}

/* A new entry that holds the value; NULL: it does not fit. No stripe is locked. */
static struct nq_lru_entry *make_entry(struct nq_store *store, const struct nq_lru_key *key,
				       const struct nq_value *value, int64_t life,
				       const struct nq_clock *clock)
{
	struct nq_lru_entry *entry = nq_lru_make(store->lru, key, content_length(value));

	if (entry)
		write_value(store, entry, value, life, clock);
	return entry;
}

int nq_store_set(struct nq_store *store, const void *bytes, size_t length,
		 const struct nq_value *value, int64_t life, const struct nq_clock *clock)
{
	struct nq_lru_key key = nq_lru_key_make(store->lru, bytes, length);
	struct nq_lru_entry *entry = nq_lru_find(store->lru, &key);
	struct nq_lru_entry *fresh;

	if (entry && nq_lru_same_blocks(entry, content_length(value))) {
		write_value(store, entry, value, life, clock);
		nq_lru_unlock(store->lru, &key);
		return 0;
	}
	nq_lru_unlock(store->lru, &key);
	fresh = make_entry(store, &key, value, life, clock);
	if (!fresh)
		return -ENOSPC;
	/* Meanwhile it may have come, gone, or become another. */
	entry = nq_lru_find(store->lru, &key);
	if (entry)
		nq_lru_remove(store->lru, &key, entry);
	nq_lru_insert(store->lru, &key, fresh);
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, entry);
	return 0;
}

int nq_store_add(struct nq_store *store, const void *bytes, size_t length,
		 const struct nq_value *value, int64_t life, const struct nq_clock *clock)
{
	struct nq_lru_key key = nq_lru_key_make(store->lru, bytes, length);
	struct nq_lru_entry *fresh = NULL;
	struct nq_lru_entry *expired, *entry;

	entry = find(store, &key, clock, &expired);
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, expired);
	if (entry)
		return -EEXIST;
	fresh = make_entry(store, &key, value, life, clock);
	if (!fresh)
		return -ENOSPC;
	entry = find(store, &key, clock, &expired);
	if (!entry)
		nq_lru_insert(store->lru, &key, fresh);
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, expired);
	if (entry)
		nq_lru_release(store->lru, fresh);
	return entry ? -EEXIST : 0;
}

static bool is_number(unsigned kind)
{
	return kind == NQ_VALUE_INTEGER || kind == NQ_VALUE_FLOAT;
}

/* As Lua's `+`: integers wrap around, a float makes the sum one. */
static void add_number(struct nq_lru_entry *entry, const struct nq_value *by)
{
	if (entry->kind == NQ_VALUE_INTEGER && by->kind == NQ_VALUE_INTEGER) {
		entry->integer = (int64_t)((uint64_t)entry->integer + (uint64_t)by->integer);
		return;
	}
	if (entry->kind == NQ_VALUE_INTEGER)
		entry->real = (double)entry->integer;
	entry->kind = NQ_VALUE_FLOAT;
	entry->real += by->kind == NQ_VALUE_INTEGER ? (double)by->integer : by->real;
}

int nq_store_incr(struct nq_store *store, const void *bytes, size_t length,
		  const struct nq_value *by, int64_t life, const struct nq_clock *clock,
		  struct nq_value *result)
{
	struct nq_lru_key key = nq_lru_key_make(store->lru, bytes, length);
	struct nq_lru_entry *fresh = NULL;
	struct nq_lru_entry *expired;
	struct nq_lru_entry *entry = find(store, &key, clock, &expired);
	int error = 0;

	if (!entry) {
		nq_lru_unlock(store->lru, &key);
		nq_lru_release(store->lru, expired);
		fresh = make_entry(store, &key, by, life, clock);
		if (!fresh)
			return -ENOSPC;
		entry = find(store, &key, clock, &expired);
	}
	if (!entry) {
		nq_lru_insert(store->lru, &key, fresh);
		*result = *by;
		fresh = NULL;
	} else if (is_number(entry->kind)) {
		add_number(entry, by);
		read_number(entry, result);
	} else {
		result->kind = (enum nq_value_kind)entry->kind;
		error = -EDOM;
	}
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, expired);
	nq_lru_release(store->lru, fresh);
	return error;
}

bool nq_store_delete(struct nq_store *store, const void *bytes, size_t length,
		     const struct nq_clock *clock)
{
	struct nq_lru_key key = nq_lru_key_make(store->lru, bytes, length);
	struct nq_lru_entry *expired;
	struct nq_lru_entry *entry = find(store, &key, clock, &expired);

	if (entry)
		nq_lru_remove(store->lru, &key, entry);
	nq_lru_unlock(store->lru, &key);
	nq_lru_release(store->lru, expired);
	nq_lru_release(store->lru, entry);
	return entry != NULL;
}

void nq_store_flush(struct nq_store *store)
{
	nq_lru_flush(store->lru);
}

unsigned nq_store_stripes(const struct nq_store *store)
{
	return nq_lru_stripes(store->lru);
}

struct collection {
	const struct nq_store *store;
	int64_t now;
	char *buffer;
	size_t used, capacity, needed;
};

static void collect_key(void *context, const struct nq_lru_entry *entry)
{
	struct collection *keys = context;
	size_t size = sizeof(entry->key_length) + entry->key_length;

	if (entry->time && keys->now >= entry->time)
		return;
	/* Once one did not fit, none is written: the caller has to come back anyway. */
	if (keys->needed == keys->used && size <= keys->capacity - keys->used) {
		memcpy(keys->buffer + keys->used, &entry->key_length, sizeof(entry->key_length));
		nq_lru_read_key(keys->store->lru, entry,
				keys->buffer + keys->used + sizeof(entry->key_length));
		keys->used += size;
	}
	keys->needed += size;
}

size_t nq_store_keys(struct nq_store *store, unsigned stripe, const struct nq_clock *clock,
		     char *buffer, size_t capacity)
{
	struct collection keys = {.store = store,
				  .now = nq_clock_read(clock),
				  .buffer = buffer,
				  .capacity = capacity};

	nq_lru_walk(store->lru, stripe, collect_key, &keys);
	return keys.needed;
}

void nq_store_stats(struct nq_store *store, struct nq_lru_stats *stats)
{
	nq_lru_stats(store->lru, stats);
}
