#include "table/values.h"

#include <stdbool.h>
#include <string.h>

#include "table/memory.h"

struct nq_stored_value {
	uint8_t kind;
	uint32_t length;
	union {
		int64_t integer;
		double real;
		uint64_t offset; /* in the pool */
	};
};

void nq_values_init(struct nq_values *values)
{
	memset(values, 0, sizeof(*values));
	nq_hash_key_make(&values->key);
}

void nq_values_fini(struct nq_values *values)
{
	nq_block_free(values->list);
	nq_block_free(values->pool);
	nq_block_free(values->index);
	values->list = NULL;
	values->pool = NULL;
	values->index = NULL;
}

void nq_values_get(const struct nq_values *values, uint32_t number, struct nq_value *value)
{
	const struct nq_stored_value *stored = &values->list[number - 1];

	value->kind = (enum nq_value_kind)stored->kind;
	if (value->kind == NQ_VALUE_FLOAT) {
		value->real = stored->real;
	} else if (value->kind == NQ_VALUE_STRING) {
		value->string.bytes = values->pool ? values->pool + stored->offset : "";
		value->string.length = stored->length;
	} else {
		value->integer = stored->integer;
	}
}

static uint64_t hash_value(const struct nq_values *values, const struct nq_value *value)
{
	uint64_t words[2] = {(uint64_t)value->kind, 0};

	if (value->kind == NQ_VALUE_STRING)
		return nq_hash(&values->key, value->string.bytes, value->string.length);
	if (value->kind == NQ_VALUE_FLOAT)
		memcpy(&words[1], &value->real, sizeof(words[1]));
	else if (value->kind == NQ_VALUE_INTEGER)
		words[1] = (uint64_t)value->integer;
	return nq_hash(&values->key, words, sizeof(words));
}

static bool is_same(const struct nq_value *one, const struct nq_value *other)
{
	if (one->kind != other->kind)
		return false;
	switch (one->kind) {
	case NQ_VALUE_STRING:
		return one->string.length == other->string.length &&
		       memcmp(one->string.bytes, other->string.bytes, one->string.length) == 0;
	case NQ_VALUE_FLOAT: /* bit by bit: 0.0 is not -0.0 */
		return memcmp(&one->real, &other->real, sizeof(one->real)) == 0;
	case NQ_VALUE_INTEGER:
		return one->integer == other->integer;
	default:
		return true;
	}
}

/* The place of the value in the index, or the free one where it belongs. */
static uint32_t *find_place(const struct nq_values *values, const struct nq_value *value)
{
	size_t at = (size_t)hash_value(values, value) & (values->index_size - 1);

	while (values->index[at]) {
		struct nq_value there;

		nq_values_get(values, values->index[at], &there);
		if (is_same(&there, value))
			break;
		at = (at + 1) & (values->index_size - 1);
	}
	return &values->index[at];
}

static bool grow_index(struct nq_values *values)
{
	size_t size = values->index_size ? values->index_size * 2 : 64;
	uint32_t *index = nq_block_new(size, sizeof(*index));

	if (!index)
		return false;
	nq_block_free(values->index);
	values->index = index;
	values->index_size = size;
	for (uint32_t number = 1; number <= values->count; number++) {
		struct nq_value value;

		nq_values_get(values, number, &value);
		*find_place(values, &value) = number;
	}
	return true;
}

static bool grow_list(struct nq_values *values)
{
	uint32_t capacity = values->capacity ? values->capacity * 2 : 16;
	struct nq_stored_value *list = nq_block_resize(values->list, capacity, sizeof(*list));

	if (!list)
		return false;
	values->list = list;
	values->capacity = capacity;
	return true;
}

static bool grow_pool(struct nq_values *values, size_t length)
{
	size_t capacity = values->pool_capacity ? values->pool_capacity : 256;
	char *pool;

	while (capacity - values->pool_length < length)
		capacity *= 2;
	pool = nq_block_resize(values->pool, capacity, 1);
	if (!pool)
		return false;
	values->pool = pool;
	values->pool_capacity = capacity;
	return true;
}

uint32_t nq_values_add(struct nq_values *values, const struct nq_value *value)
{
	struct nq_stored_value *stored;
	uint32_t *place;

	/* At most half of the places are taken. */
	if ((size_t)values->count * 2 >= values->index_size && !grow_index(values))
		return 0;
	place = find_place(values, value);
	if (*place != 0)
		return *place;
	if (values->count == values->capacity && !grow_list(values))
		return 0;
	stored = &values->list[values->count];
	memset(stored, 0, sizeof(*stored));
	stored->kind = (uint8_t)value->kind;
	if (value->kind == NQ_VALUE_STRING) {
		size_t length = value->string.length;

		if (length > UINT32_MAX || (values->pool_capacity - values->pool_length < length &&
					    !grow_pool(values, length)))
			return 0;
		if (length)
			memcpy(values->pool + values->pool_length, value->string.bytes, length);
		stored->offset = values->pool_length;
		stored->length = (uint32_t)length;
		values->pool_length += length;
	} else if (value->kind == NQ_VALUE_FLOAT) {
		stored->real = value->real;
	} else if (value->kind == NQ_VALUE_INTEGER) {
		stored->integer = value->integer;
	}
	*place = ++values->count;
	return values->count;
}

void nq_values_seal(struct nq_values *values)
{
	struct nq_stored_value *list;
	char *pool;

	nq_block_free(values->index);
	values->index = NULL;
	/* Shrinking that fails leaves what there was. */
	list = values->count ? nq_block_resize(values->list, values->count, sizeof(*list)) : NULL;
	if (list)
		values->list = list;
	pool = values->pool_length ? nq_block_resize(values->pool, values->pool_length, 1) : NULL;
	if (pool)
		values->pool = pool;
}
