#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table/cidr_flatten.h"
#include "table/cidr_parts.h"
#include "table/memory.h"

struct nq_cidr_builder {
	struct nq_cidr_items ip4, ip6;
	struct nq_values values;
	bool conflicting;
	struct nq_prefix conflict;
};

struct nq_cidr_builder *nq_cidr_builder_new(void)
{
	struct nq_cidr_builder *builder = calloc(1, sizeof(*builder));

	if (builder)
		nq_values_init(&builder->values);
	return builder;
}

void nq_cidr_builder_free(struct nq_cidr_builder *builder)
{
	if (!builder)
		return;
	nq_block_free(builder->ip4.list);
	nq_block_free(builder->ip6.list);
	nq_values_fini(&builder->values);
	free(builder);
}

int nq_cidr_add(struct nq_cidr_builder *builder, const struct nq_prefix *prefix,
		const struct nq_value *value)
{
	struct nq_cidr_items *items = prefix->address.bits == 32 ? &builder->ip4 : &builder->ip6;
	uint32_t number;

	if (builder->ip4.count + builder->ip6.count >= NQ_SET_ENTRIES_MAX)
		return -E2BIG;
	if (items->count == items->capacity) {
		size_t capacity = items->capacity ? items->capacity + items->capacity / 2 : 64;
		struct nq_cidr_item *list = nq_block_resize(items->list, capacity, sizeof(*list));

		if (!list)
			return -ENOMEM;
		items->list = list;
		items->capacity = capacity;
	}
	number = nq_values_add(&builder->values, value);
	if (!number)
		return -ENOMEM;
	items->list[items->count++] = (struct nq_cidr_item){
		.high = prefix->address.high,
		.low = prefix->address.low,
		.number = number,
		.length = prefix->length,
	};
	return 0;
}

bool nq_cidr_conflict(const struct nq_cidr_builder *builder, struct nq_prefix *prefix)
{
	*prefix = builder->conflict;
	return builder->conflicting;
}

/* --- Lines --- */

/* Length of the line in front of a word that begins a comment, and of the blanks before it. */
static size_t without_comment(const char *line, size_t length)
{
	size_t end = 0; /* of the last word that counts */
	size_t at = 0;

	while (at < length) {
		size_t word = nq_list_word(line + at, length - at);

		if (word && (line[at] == '#' || line[at] == ';'))
			break;
		at += word;
		if (word)
			end = at;
		else
			at++;
	}
	return end;
}

static int fail_prefix(struct nq_list *list, const char *word, size_t length,
		       enum nq_prefix_result result, const struct nq_prefix *prefix)
{
	char what[48 + NQ_PREFIX_TEXT];
	char text[NQ_PREFIX_TEXT];

	if (result == NQ_PREFIX_NO_ADDRESS)
		return nq_list_fail(list, word, length, "is no IPv4 or IPv6 address or prefix");
	if (result == NQ_PREFIX_BAD_LENGTH)
		return nq_list_fail(list, word, length,
				    prefix->address.bits == 32
					    ? "has a prefix length that is not from 0 to 32"
					    : "has a prefix length that is not from 0 to 128");
	nq_prefix_print(prefix, text);
	snprintf(what, sizeof(what), "has bits set behind its prefix length (%s?)", text);
	return nq_list_fail(list, word, length, what);
}

static int parse_line(struct nq_cidr_builder *builder, const char *line, size_t length,
		      struct nq_list *list)
{
	const char *start = line;
	size_t word = nq_list_word(line, length);
	struct nq_value value = {.kind = NQ_VALUE_TRUE};
	enum nq_prefix_result result;
	struct nq_prefix prefix;
	int error;

	result = nq_prefix_parse(line, word, &prefix);
	if (result != NQ_PREFIX_OK)
		return fail_prefix(list, line, word, result, &prefix);
	line += word;
	length -= word;
	/* Blanks are where words are empty; the line ends in none. */
	while (length && !nq_list_word(line, length)) {
		line++;
		length--;
	}
	if (length > NQ_CIDR_VALUE_MAX)
		return nq_list_fail(list, line, length, "is a value of more than 255 bytes");
	if (length) {
		value.kind = NQ_VALUE_STRING;
		value.string.bytes = line;
		value.string.length = length;
	}
	error = nq_cidr_add(builder, &prefix, &value);
	if (error == -E2BIG)
		return nq_list_fail(list, start, word, "is one prefix too many (16777216)");
	return error;
}

int nq_cidr_parse(void *context, const char *text, size_t length, struct nq_list *list)
{
	const char *end = text + length;
	const char *line;
	size_t size;
	int error = 0;

	while (error == 0 && nq_list_next(&text, end, &line, &size, list)) {
		size = without_comment(line, size);
		if (size)
			error = parse_line(context, line, size, list);
	}
	return error;
}

/* --- The content --- */

static bool write_small(struct nq_cidr *cidr, const struct nq_cidr_ranges *ranges)
{
	cidr->ip4.starts = nq_block_new(ranges->count, sizeof(*cidr->ip4.starts));
	cidr->ip4.numbers = nq_block_new(ranges->count, cidr->number_width);
	if (!cidr->ip4.starts || !cidr->ip4.numbers)
		return false;
	cidr->ip4.count = ranges->count;
	for (size_t i = 0; i < ranges->count; i++) {
		cidr->ip4.starts[i] = (uint32_t)(ranges->list[i].high >> 32);
		nq_cidr_put_number(cidr, cidr->ip4.numbers, i, ranges->list[i].number);
	}
	return true;
}

/* The ranges from `first` on that start with these upper 16 bits. */
static size_t count_top(const struct nq_cidr_ranges *ranges, size_t first, uint32_t top)
{
	size_t at = first;

	while (at < ranges->count && ranges->list[at].high >> 48 == top)
		at++;
	return at - first;
}

/* Whether what comes from before is to be written in front of the group's own ranges. */
static bool begins_within(const struct nq_cidr_ranges *ranges, size_t first, size_t count)
{
	return !count || (ranges->list[first].high >> 32 & 0xffff) != 0;
}

static void write_group(struct nq_cidr *cidr, const struct nq_cidr_ranges *ranges, size_t first,
			size_t count, uint8_t *group)
{
	size_t more = begins_within(ranges, first, count);
	uint8_t *numbers = group + (count + more) * sizeof(uint16_t);

	if (more) {
		memset(group, 0, sizeof(uint16_t));
		nq_cidr_put_number(cidr, numbers, 0, first ? ranges->list[first - 1].number : 0);
	}
	for (size_t i = 0; i < count; i++) {
		uint16_t lower = (uint16_t)(ranges->list[first + i].high >> 32);

		memcpy(group + (more + i) * sizeof(lower), &lower, sizeof(lower));
		nq_cidr_put_number(cidr, numbers, more + i, ranges->list[first + i].number);
	}
}

static bool write_ip4(struct nq_cidr *cidr, const struct nq_cidr_ranges *ranges)
{
	size_t size = 0;
	size_t at = 0;

	if (ranges->count <= NQ_CIDR_SMALL)
		return write_small(cidr, ranges);
	cidr->ip4.index = nq_block_new(65537, sizeof(*cidr->ip4.index));
	if (!cidr->ip4.index)
		return false;
	for (uint32_t top = 0; top < 65536; top++) {
		size_t count = count_top(ranges, at, top);

		cidr->ip4.index[top] = (uint32_t)size;
		size += nq_cidr_group_size(cidr, count + begins_within(ranges, at, count));
		at += count;
	}
	cidr->ip4.index[65536] = (uint32_t)size;
	cidr->ip4.groups = nq_block_new(size, 1);
	if (!cidr->ip4.groups)
		return false;
	at = 0;
	for (uint32_t top = 0; top < 65536; top++) {
		size_t count = count_top(ranges, at, top);

		write_group(cidr, ranges, at, count, cidr->ip4.groups + cidr->ip4.index[top]);
		at += count;
	}
	return true;
}

static bool is_wide(const struct nq_cidr_ranges *ranges)
{
	for (size_t i = 0; i < ranges->count; i++) {
		if (ranges->list[i].low)
			return true;
	}
	return false;
}

static bool write_levels(struct nq_cidr *cidr, size_t blocks)
{
	size_t size = nq_cidr_start_size(cidr);
	const uint8_t *below = cidr->ip6.blocks;
	size_t step = cidr->ip6.stride;
	size_t count = blocks;

	for (unsigned level = 0;; level++) {
		uint8_t *starts = nq_block_new(count, size);

		if (!starts)
			return false;
		for (size_t i = 0; i < count; i++)
			memcpy(starts + i * size, below + i * step, size);
		cidr->ip6.levels[level] = starts;
		cidr->ip6.sizes[level] = count;
		cidr->ip6.level_count = level + 1;
		if (count <= NQ_CIDR_FANOUT)
			return true;
		below = starts;
		step = NQ_CIDR_FANOUT * size;
		count = (count + NQ_CIDR_FANOUT - 1) / NQ_CIDR_FANOUT;
	}
}

static bool write_ip6(struct nq_cidr *cidr, const struct nq_cidr_ranges *ranges)
{
	size_t blocks = (ranges->count + NQ_CIDR_FANOUT - 1) / NQ_CIDR_FANOUT;
	size_t size;

	cidr->ip6.wide = is_wide(ranges);
	size = nq_cidr_start_size(cidr);
	/* A multiple of 8: starts are aligned. */
	cidr->ip6.stride = NQ_CIDR_FANOUT * (size + cidr->number_width);
	cidr->ip6.blocks = nq_block_new(blocks, cidr->ip6.stride);
	if (!cidr->ip6.blocks)
		return false;
	cidr->ip6.count = ranges->count;
	for (size_t i = 0; i < ranges->count; i++) {
		const struct nq_cidr_range *range = &ranges->list[i];
		struct nq_cidr_start start = {.high = range->high, .low = range->low};
		uint8_t *block = cidr->ip6.blocks + i / NQ_CIDR_FANOUT * cidr->ip6.stride;

		memcpy(block + i % NQ_CIDR_FANOUT * size, &start, size);
		nq_cidr_put_number(cidr, block + NQ_CIDR_FANOUT * size, i % NQ_CIDR_FANOUT,
				   range->number);
	}
	return write_levels(cidr, blocks);
}

static bool add_family(struct nq_cidr *cidr, struct nq_cidr_builder *builder,
		       struct nq_cidr_items *items, uint8_t bits)
{
	struct nq_cidr_ranges ranges;
	bool fine;

	if (!items->count)
		return true;
	if (!nq_cidr_flatten(items, bits, &ranges))
		return false;
	nq_block_free(items->list);
	*items = (struct nq_cidr_items){.list = NULL};
	cidr->prefixes += ranges.prefixes;
	if (ranges.conflicting) {
		builder->conflicting = true;
		builder->conflict = ranges.conflict;
	}
	fine = bits == 32 ? write_ip4(cidr, &ranges) : write_ip6(cidr, &ranges);
	nq_block_free(ranges.list);
	return fine;
}

struct nq_cidr *nq_cidr_build(struct nq_cidr_builder *builder)
{
	struct nq_cidr *cidr = calloc(1, sizeof(*cidr));

	if (!cidr)
		return NULL;
	cidr->number_width = builder->values.count < 256     ? 1
			     : builder->values.count < 65536 ? 2
							     : 4;
	if (!add_family(cidr, builder, &builder->ip4, 32) ||
	    !add_family(cidr, builder, &builder->ip6, 128)) {
		nq_cidr_free(cidr);
		return NULL;
	}
	nq_values_seal(&builder->values);
	cidr->values = builder->values;
	nq_values_init(&builder->values);
	return cidr;
}

static void *new_builder(void)
{
	return nq_cidr_builder_new();
}

static void free_builder(void *builder)
{
	nq_cidr_builder_free(builder);
}

static void *build(void *builder)
{
	return nq_cidr_build(builder);
}

static void free_content(void *content)
{
	nq_cidr_free(content);
}

static size_t count_content(const void *content)
{
	return nq_cidr_count(content);
}

const struct nq_set_kind nq_cidr_kind = {
	.builder_new = new_builder,
	.builder_free = free_builder,
	.parse = nq_cidr_parse,
	.build = build,
	.content_free = free_content,
	.count = count_content,
};
