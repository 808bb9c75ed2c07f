#include "table/cidr_flatten.h"

#include "table/memory.h"

/* --- Sorting: by address, then length, equal ones in the order in which they came --- */

enum { KEY_BYTES = 17 };

static unsigned key_byte(const struct nq_cidr_item *item, unsigned number)
{
	if (number == 0)
		return item->length;
	if (number <= 8)
		return item->low >> 8 * (number - 1) & 0xff;
	return item->high >> 8 * (number - 9) & 0xff;
}

static void count_bytes(const struct nq_cidr_items *items, uint32_t (*counts)[256])
{
	for (size_t i = 0; i < items->count; i++) {
		for (unsigned k = 0; k < KEY_BYTES; k++)
			counts[k][key_byte(&items->list[i], k)]++;
	}
}

static void scatter(const struct nq_cidr_item *from, struct nq_cidr_item *to, size_t count,
		    unsigned number, uint32_t counts[256])
{
	uint32_t before = 0;

	for (unsigned value = 0; value < 256; value++) {
		uint32_t here = counts[value];

		counts[value] = before;
		before += here;
	}
	for (size_t i = 0; i < count; i++)
		to[counts[key_byte(&from[i], number)]++] = from[i];
}

/* A radix sort from the last byte on, which leaves out bytes that are the same everywhere. */
static bool sort(struct nq_cidr_items *items)
{
	struct nq_cidr_item *other;
	uint32_t(*counts)[256];

	if (items->count < 2)
		return true;
	other = nq_block_new(items->count, sizeof(*other));
	counts = nq_block_new(KEY_BYTES, sizeof(*counts));
	if (!other || !counts) {
		nq_block_free(other);
		nq_block_free(counts);
		return false;
	}
	count_bytes(items, counts);
	for (unsigned k = 0; k < KEY_BYTES; k++) {
		struct nq_cidr_item *sorted = other;

		if (counts[k][key_byte(&items->list[0], k)] == items->count)
			continue;
		scatter(items->list, sorted, items->count, k, counts[k]);
		other = items->list;
		items->list = sorted;
		items->capacity = items->count;
	}
	nq_block_free(other);
	nq_block_free(counts);
	return true;
}

/* --- Flattening --- */

static void emit(struct nq_cidr_ranges *ranges, uint64_t high, uint64_t low, uint32_t number)
{
	struct nq_cidr_range *last = ranges->count ? &ranges->list[ranges->count - 1] : NULL;

	if (last && last->high == high && last->low == low) {
		/* Something longer begins here, too. */
		last->number = number;
		if (ranges->count > 1 ? last[-1].number == number : number == 0)
			ranges->count--;
		return;
	}
	if ((last ? last->number : 0) != number)
		ranges->list[ranges->count++] =
			(struct nq_cidr_range){.high = high, .low = low, .number = number};
}

/* Prefixes that hold the present one, each within the one before: at most one of a length. */
struct nest {
	struct {
		uint64_t high, low; /* the last address */
		uint32_t number;
	} open[129];
	unsigned depth;
	uint64_t step_high, step_low; /* from an address to the next */
};

/* Ends the innermost prefix: what was around it goes on. */
static void leave(struct nest *nest, struct nq_cidr_ranges *ranges)
{
	uint64_t high = nest->open[nest->depth - 1].high + nest->step_high;
	uint64_t low = nest->open[nest->depth - 1].low + nest->step_low;

	nest->depth--;
	high += low < nest->step_low;
	/* Behind the last address of all there is nothing. */
	if (high || low)
		emit(ranges, high, low, nest->depth ? nest->open[nest->depth - 1].number : 0);
}

static bool is_behind(const struct nest *nest, const struct nq_cidr_item *item)
{
	uint64_t high = nest->open[nest->depth - 1].high;
	uint64_t low = nest->open[nest->depth - 1].low;

	return item->high > high || (item->high == high && item->low > low);
}

static bool is_same_prefix(const struct nq_cidr_item *one, const struct nq_cidr_item *other)
{
	return one->high == other->high && one->low == other->low && one->length == other->length;
}

static struct nq_prefix prefix_of(const struct nq_cidr_item *item, uint8_t bits)
{
	return (struct nq_prefix){
		.address = {.high = item->high, .low = item->low, .bits = bits},
		.length = item->length,
	};
}

static void flatten(const struct nq_cidr_items *items, uint8_t bits, struct nq_cidr_ranges *ranges)
{
	struct nest nest = {.depth = 0,
			    .step_high = bits == 32 ? (uint64_t)1 << 32 : 0,
			    .step_low = bits == 32 ? 0 : 1};

	for (size_t i = 0; i < items->count; i++) {
		const struct nq_cidr_item *item = &items->list[i];
		struct nq_prefix prefix = prefix_of(item, bits);

		if (i + 1 < items->count && is_same_prefix(item, item + 1)) {
			if (item->number != item[1].number) {
				ranges->conflicting = true;
				ranges->conflict = prefix;
			}
			continue;
		}
		ranges->prefixes++;
		while (nest.depth && is_behind(&nest, item))
			leave(&nest, ranges);
		nq_prefix_end(&prefix, &nest.open[nest.depth].high, &nest.open[nest.depth].low);
		nest.open[nest.depth++].number = item->number;
		emit(ranges, item->high, item->low, item->number);
	}
	while (nest.depth)
		leave(&nest, ranges);
}

bool nq_cidr_flatten(struct nq_cidr_items *items, uint8_t bits, struct nq_cidr_ranges *ranges)
{
	*ranges = (struct nq_cidr_ranges){.count = 0};
	if (!sort(items))
		return false;
	/* Each prefix begins one and ends one. */
	ranges->list = nq_block_new(2 * items->count, sizeof(*ranges->list));
	if (!ranges->list)
		return false;
	flatten(items, bits, ranges);
	return true;
}
