#include "table/cidr.h"

#include <stdlib.h>

#include "table/cidr_parts.h"
#include "table/memory.h"

/*
 * How many of `count` ascending numbers are not above a value. The halves are chosen by arithmetic:
 * with addresses from the network a branch would be mispredicted every other time.
 */
static size_t count_small(const uint32_t *starts, size_t count, uint32_t address)
{
	const uint32_t *base = starts;

	while (count > 1) {
		size_t half = count / 2;

		base += base[half - 1] <= address ? half : 0;
		count -= half;
	}
	return (size_t)(base - starts) + (count && *base <= address);
}

static size_t count_group(const uint16_t *starts, size_t count, uint32_t lower)
{
	const uint16_t *base = starts;

	while (count > 1) {
		size_t half = count / 2;

		base += base[half - 1] <= lower ? half : 0;
		count -= half;
	}
	return (size_t)(base - starts) + (*base <= lower);
}

static size_t count_narrow(const uint64_t *starts, size_t count, uint64_t high)
{
	const uint64_t *base = starts;

	while (count > 1) {
		size_t half = count / 2;

		base += base[half - 1] <= high ? half : 0;
		count -= half;
	}
	return (size_t)(base - starts) + (count && *base <= high);
}

static bool is_not_above(const struct nq_cidr_start *start, const struct nq_address *address)
{
	return (start->high < address->high) |
	       ((start->high == address->high) & (start->low <= address->low));
}

static size_t count_wide(const struct nq_cidr_start *starts, size_t count,
			 const struct nq_address *address)
{
	const struct nq_cidr_start *base = starts;

	while (count > 1) {
		size_t half = count / 2;

		base += is_not_above(&base[half - 1], address) ? half : 0;
		count -= half;
	}
	return (size_t)(base - starts) + (count && is_not_above(base, address));
}

/* All of it is waited for at once; a search waits for one line after the other. */
static void fetch(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += 64)
		__builtin_prefetch(bytes + i);
}

/* The same for `left` starts or as many as there are in a run. */
static size_t count_run(const struct nq_cidr *cidr, const uint8_t *starts, size_t left,
			const struct nq_address *address)
{
	size_t count = left < NQ_CIDR_FANOUT ? left : NQ_CIDR_FANOUT;
	const void *run = starts;

	return cidr->ip6.wide ? count_wide(run, count, address)
			      : count_narrow(run, count, address->high);
}

static uint32_t find_ip4(const struct nq_cidr *cidr, uint32_t address)
{
	uint32_t top = address >> 16;
	const uint8_t *group;
	const void *starts;
	size_t count, at;

	if (!cidr->ip4.index) {
		at = count_small(cidr->ip4.starts, cidr->ip4.count, address);
		return at ? nq_cidr_get_number(cidr, cidr->ip4.numbers, at - 1) : 0;
	}
	group = cidr->ip4.groups + cidr->ip4.index[top];
	/* Both halves of the group are waited for at once. */
	__builtin_prefetch(group);
	__builtin_prefetch(group + 64);
	count = nq_cidr_group_count(cidr, cidr->ip4.index[top + 1] - cidr->ip4.index[top]);
	starts = group;
	at = count_group(starts, count, address & 0xffff) - 1;
	return nq_cidr_get_number(cidr, group + count * sizeof(uint16_t), at);
}

static uint32_t find_ip6(const struct nq_cidr *cidr, const struct nq_address *address)
{
	size_t size = nq_cidr_start_size(cidr);
	size_t at = 0; /* where the run begins that is looked at */
	const uint8_t *block;

	if (!cidr->ip6.count)
		return 0;
	for (unsigned level = cidr->ip6.level_count; level-- > 0;) {
		const uint8_t *run = cidr->ip6.levels[level] + at * size;
		size_t count;

		fetch(run, NQ_CIDR_FANOUT * size);
		count = count_run(cidr, run, cidr->ip6.sizes[level] - at, address);
		/* Only the very first start can be above: what leads to a run is its first. */
		if (at + count == 0)
			return 0;
		at += count - 1;
		if (level > 0)
			at *= NQ_CIDR_FANOUT;
	}
	block = cidr->ip6.blocks + at * cidr->ip6.stride;
	fetch(block, cidr->ip6.stride);
	at = count_run(cidr, block, cidr->ip6.count - at * NQ_CIDR_FANOUT, address) - 1;
	return nq_cidr_get_number(cidr, block + NQ_CIDR_FANOUT * size, at);
}

bool nq_cidr_find(const struct nq_cidr *cidr, const struct nq_address *address,
		  struct nq_value *value)
{
	uint32_t number = address->bits == 32 ? find_ip4(cidr, (uint32_t)(address->high >> 32))
					      : find_ip6(cidr, address);

	if (!number)
		return false;
	nq_values_get(&cidr->values, number, value);
	return true;
}

size_t nq_cidr_count(const struct nq_cidr *cidr)
{
	return cidr->prefixes;
}

static uint64_t add_hash(uint64_t sum, uint64_t kind, uint64_t one, uint64_t other)
{
	static const struct nq_hash_key key = {{0}};
	uint64_t words[4] = {sum, kind, one, other};

	return nq_hash(&key, words, sizeof(words));
}

/* Numbers depend on the order in which values came, the values do not. */
static uint64_t add_value(uint64_t sum, const struct nq_cidr *cidr, uint32_t number)
{
	static const struct nq_hash_key key = {{0}};
	struct nq_value value;

	if (!number)
		return add_hash(sum, UINT64_MAX, 0, 0);
	nq_values_get(&cidr->values, number, &value);
	if (value.kind == NQ_VALUE_STRING)
		return add_hash(sum, (uint64_t)value.kind, value.string.length,
				nq_hash(&key, value.string.bytes, value.string.length));
	return add_hash(sum, (uint64_t)value.kind, (uint64_t)value.integer, 0);
}

static uint64_t add_group(uint64_t sum, const struct nq_cidr *cidr, size_t top)
{
	const uint8_t *group = cidr->ip4.groups + cidr->ip4.index[top];
	size_t count = nq_cidr_group_count(cidr, cidr->ip4.index[top + 1] - cidr->ip4.index[top]);
	uint16_t lower;

	for (size_t i = 0; i < count; i++) {
		memcpy(&lower, group + i * sizeof(lower), sizeof(lower));
		sum = add_hash(sum, 4, top << 16 | lower, 0);
		sum = add_value(sum, cidr,
				nq_cidr_get_number(cidr, group + count * sizeof(lower), i));
	}
	return sum;
}

uint64_t nq_cidr_fingerprint(const struct nq_cidr *cidr)
{
	size_t size = nq_cidr_start_size(cidr);
	uint64_t sum = 0;

	for (size_t i = 0; i < cidr->ip4.count; i++) {
		sum = add_hash(sum, 4, cidr->ip4.starts[i], 0);
		sum = add_value(sum, cidr, nq_cidr_get_number(cidr, cidr->ip4.numbers, i));
	}
	for (size_t top = 0; cidr->ip4.index && top < 65536; top++)
		sum = add_group(sum, cidr, top);
	for (size_t i = 0; i < cidr->ip6.count; i++) {
		const uint8_t *block = cidr->ip6.blocks + i / NQ_CIDR_FANOUT * cidr->ip6.stride;
		struct nq_cidr_start start = {.low = 0};

		memcpy(&start, block + i % NQ_CIDR_FANOUT * size, size);
		sum = add_hash(sum, 6, start.high, start.low);
		sum = add_value(sum, cidr,
				nq_cidr_get_number(cidr, block + NQ_CIDR_FANOUT * size,
						   i % NQ_CIDR_FANOUT));
	}
	return sum ? sum : 1;
}

void nq_cidr_free(struct nq_cidr *cidr)
{
	if (!cidr)
		return;
	nq_values_fini(&cidr->values);
	nq_block_free(cidr->ip4.starts);
	nq_block_free(cidr->ip4.numbers);
	nq_block_free(cidr->ip4.index);
	nq_block_free(cidr->ip4.groups);
	nq_block_free(cidr->ip6.blocks);
	for (unsigned i = 0; i < NQ_CIDR_LEVELS; i++)
		nq_block_free(cidr->ip6.levels[i]);
	free(cidr);
}
