/*
 * cidr_parts.h - the content of an address set in memory: what cidr_build.c writes and cidr.c
 * searches.
 *
 * A search is as slow as the memory it touches is large, so starts are kept as narrow as they can
 * be, and the numbers of values too.
 */
#ifndef NQ_TABLE_CIDR_PARTS_H
#define NQ_TABLE_CIDR_PARTS_H

#include <string.h>

#include "table/cidr.h"
#include "table/values.h"

#define NQ_CIDR_SMALL 4096
/* So many that what leads to the blocks of a million ranges, a quarter of a megabyte, stays in the
 * cache, and a search waits for memory once; the lines of a block come at once. */
#define NQ_CIDR_FANOUT 64
#define NQ_CIDR_LEVELS 4 /* FANOUT to this power: not fewer blocks than there can be */

/* Where an IPv6 range starts, when not all of them start with 64 zero bits at the end. */
struct nq_cidr_start {
	uint64_t high, low;
};

/* A range reaches to the next one's start; what is in front of the first is in no prefix. */
struct nq_cidr {
	struct nq_values values;
	size_t prefixes;
	unsigned number_width; /* of a value's number: 1, 2 or 4 bytes */
	struct {
		/* Up to NQ_CIDR_SMALL ranges: their starts and numbers, and no more. */
		size_t count;
		uint32_t *starts;
		uint8_t *numbers;
		/* More: for each value of the upper 16 bits the lower 16 bits of the starts there,
		 * the first one always 0, and then their numbers. index[t] is the offset of t's,
		 * index[65536] of the end. */
		uint32_t *index;
		uint8_t *groups;
	} ip4;
	struct {
		size_t count;
		/* Blocks of FANOUT starts and then their FANOUT numbers. A start is a uint64_t, the
		 * upper half, or, if `wide`, a struct nq_cidr_start. */
		bool wide;
		size_t stride; /* bytes of a block */
		uint8_t *blocks;
		/* levels[0] are the first starts of the blocks, levels[i + 1] every FANOUT-th of
		 * levels[i]; the last one has at most that many. */
		uint8_t *levels[NQ_CIDR_LEVELS];
		size_t sizes[NQ_CIDR_LEVELS];
		unsigned level_count;
	} ip6;
};

static inline size_t nq_cidr_start_size(const struct nq_cidr *cidr)
{
	return cidr->ip6.wide ? sizeof(struct nq_cidr_start) : sizeof(uint64_t);
}

/* Bytes of a group of IPv4 ranges. The numbers of bytes may be odd; starts are aligned to their
 * two. */
static inline size_t nq_cidr_group_size(const struct nq_cidr *cidr, size_t count)
{
	return (count * (sizeof(uint16_t) + cidr->number_width) + 1) & ~(size_t)1;
}

static inline size_t nq_cidr_group_count(const struct nq_cidr *cidr, size_t size)
{
	/* Constants: a division by a variable takes as long as all the rest. */
	return cidr->number_width == 1 ? size / 3 : cidr->number_width == 2 ? size / 4 : size / 6;
}

static inline uint32_t nq_cidr_get_number(const struct nq_cidr *cidr, const uint8_t *numbers,
					  size_t at)
{
	uint32_t number;
	uint16_t half;

	if (cidr->number_width == 1)
		return numbers[at];
	if (cidr->number_width == 2) {
		memcpy(&half, numbers + 2 * at, sizeof(half));
		return half;
	}
	memcpy(&number, numbers + 4 * at, sizeof(number));
	return number;
}

static inline void nq_cidr_put_number(const struct nq_cidr *cidr, uint8_t *numbers, size_t at,
				      uint32_t number)
{
	uint16_t half = (uint16_t)number;

	if (cidr->number_width == 1)
		numbers[at] = (uint8_t)number;
	else if (cidr->number_width == 2)
		memcpy(numbers + 2 * at, &half, sizeof(half));
	else
		memcpy(numbers + 4 * at, &number, sizeof(number));
}

#endif
