/*
 * Files of prefixes, read in pieces, against a reader and a search of another kind: through all
 * prefixes, bit by bit. The content is the file.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "lists.h"
#include "table/cidr.h"
#include "target.h"

enum { MANY = 4200, SEARCHED = 12 };

struct entry {
	unsigned bits, length;
	uint8_t address[16];
	struct nq_value value;
};

struct entries {
	struct entry *list;
	size_t count;
};

static bool bit_of(const uint8_t *address, unsigned bit)
{
	return address[bit / 8] & 128 >> bit % 8;
}

/* --- The file --- */

/* Digits behind the slash: no zero in front of others, and no more than `most`. */
static bool read_length(const char *text, size_t size, unsigned most, unsigned *length)
{
	char again[16];
	int used = 0;

	if (size == 0 || size > 3 ||
	    sscanf(memcpy(memset(again, 0, 16), text, size), "%u%n", length, &used) != 1)
		return false;
	snprintf(again, sizeof(again), "%u", *length);
	return *length <= most && used == (int)size && strlen(again) == size &&
	       !memcmp(again, text, size);
}

/* Clears the bits behind the length; whether there were any. */
static bool clear_bits(struct entry *entry)
{
	bool any = false;

	for (unsigned bit = entry->length; bit < entry->bits; bit++) {
		any |= bit_of(entry->address, bit);
		entry->address[bit / 8] &= (uint8_t) ~(128 >> bit % 8);
	}
	return any;
}

static bool read_prefix(struct lists_model *model, const char *word, size_t size,
			struct entry *entry)
{
	size_t front = 0;
	char text[64], what[128];

	while (front < size && word[front] != '/')
		front++;
	entry->bits = lists_address(word, front, entry->address);
	if (!entry->bits)
		return lists_wrong(model, word, size, "is no IPv4 or IPv6 address or prefix");
	entry->length = entry->bits;
	if (front < size &&
	    !read_length(word + front + 1, size - front - 1, entry->bits, &entry->length))
		return lists_wrong(model, word, size,
				   entry->bits == 32
					   ? "has a prefix length that is not from 0 to 32"
					   : "has a prefix length that is not from 0 to 128");
	if (!clear_bits(entry))
		return true;
	inet_ntop(entry->bits == 32 ? AF_INET : AF_INET6, entry->address, text, sizeof(text));
	snprintf(what, sizeof(what), "has bits set behind its prefix length (%s/%u?)", text,
		 entry->length);
	return lists_wrong(model, word, size, what);
}

static bool read_line(struct lists_model *model, const char *line, size_t length,
		      struct entries *entries)
{
	struct entry *entry = &entries->list[entries->count];
	const char *first = NULL, *second = NULL, *word;
	size_t at = 0, size, first_size = 0, value_size = 0;

	while (lists_next_word(line, length, &at, &word, &size)) {
		if (*word == '#' || *word == ';')
			break;
		if (!first) {
			first = word;
			first_size = size;
			continue;
		}
		second = second ? second : word;
		value_size = (size_t)(word + size - second);
	}
	if (!first)
		return true;
	if (!read_prefix(model, first, first_size, entry))
		return false;
	if (value_size > 255)
		return lists_wrong(model, second, value_size, "is a value of more than 255 bytes");
	entry->value = (struct nq_value){.kind = NQ_VALUE_TRUE};
	if (second) {
		entry->value.kind = NQ_VALUE_STRING;
		entry->value.string.bytes = second;
		entry->value.string.length = value_size;
	}
	entries->count++;
	return true;
}

/* --- The set --- */

static bool same_value(const struct nq_value *one, const struct nq_value *other)
{
	if (one->kind != other->kind)
		return false;
	if (one->kind == NQ_VALUE_STRING)
		return one->string.length == other->string.length &&
		       same_bytes(one->string.bytes, other->string.bytes, one->string.length);
	return one->kind != NQ_VALUE_INTEGER || one->integer == other->integer;
}

static struct nq_address address_of(const struct entry *entry)
{
	struct nq_address address = {.bits = (uint8_t)entry->bits};

	for (unsigned i = 0; i < 8; i++) {
		address.high = address.high << 8 | entry->address[i];
		address.low = address.low << 8 | entry->address[8 + i];
	}
	return address;
}

static void add_entry(struct run *run, struct nq_cidr_builder *builder, const struct entry *entry)
{
	const struct nq_prefix prefix = {.address = address_of(entry),
					 .length = (uint8_t)entry->length};

	CHECK(run, nq_cidr_add(builder, &prefix, &entry->value) == 0);
}

static bool same_prefix(const struct entry *one, const struct entry *other)
{
	return one->bits == other->bits && one->length == other->length &&
	       !memcmp(one->address, other->address, 16);
}

static bool holds(const struct entry *entry, const struct entry *address)
{
	unsigned whole = entry->length / 8;

	if (entry->bits != address->bits || memcmp(entry->address, address->address, whole) != 0)
		return false;
	for (unsigned bit = 8 * whole; bit < entry->length; bit++) {
		if (bit_of(entry->address, bit) != bit_of(address->address, bit))
			return false;
	}
	return true;
}

static void check_search(struct run *run, const struct nq_cidr *cidr, const struct entries *entries,
			 const struct entry *searched)
{
	struct nq_address address = address_of(searched);
	const struct entry *wanted = NULL;
	struct nq_value value;
	bool found = nq_cidr_find(cidr, &address, &value);

	for (size_t i = 0; i < entries->count; i++) {
		const struct entry *entry = &entries->list[i];

		if ((!wanted || entry->length >= wanted->length) && holds(entry, searched))
			wanted = entry;
	}
	if (CHECK(run, found == (wanted != NULL)) && found)
		CHECK(run, same_value(&value, &wanted->value));
}

/* The address before or behind; what is before the first is the last. */
static struct entry step(struct entry entry, int by)
{
	for (unsigned i = entry.bits / 8; i-- > 0 && by;) {
		int sum = entry.address[i] + by;

		entry.address[i] = (uint8_t)sum;
		by = sum > 255 ? 1 : sum < 0 ? -1 : 0;
	}
	return entry;
}

static void check_ends(struct run *run, const struct nq_cidr *cidr, const struct entries *entries,
		       const struct entry *prefix)
{
	struct entry last = *prefix, before = step(*prefix, -1), behind;

	for (unsigned bit = prefix->length; bit < prefix->bits; bit++)
		last.address[bit / 8] |= (uint8_t)(128 >> bit % 8);
	behind = step(last, 1);
	check_search(run, cidr, entries, prefix);
	check_search(run, cidr, entries, &last);
	check_search(run, cidr, entries, &before);
	check_search(run, cidr, entries, &behind);
}

/* The same content made of each prefix once, backwards, which answers alike. */
static void check_again(struct run *run, const struct nq_cidr *cidr, const struct entries *entries,
			bool conflicting)
{
	struct nq_cidr_builder *builder = nq_cidr_builder_new();
	struct nq_cidr *other;
	struct nq_prefix conflict;
	bool differ = false;
	size_t count = 0;

	for (size_t i = entries->count; i-- > 0;) {
		size_t later = i + 1;

		while (later < entries->count &&
		       !same_prefix(&entries->list[i], &entries->list[later]))
			later++;
		if (later < entries->count) {
			differ |= !same_value(&entries->list[i].value, &entries->list[later].value);
			continue;
		}
		add_entry(run, builder, &entries->list[i]);
		count++;
	}
	other = nq_cidr_build(builder);
	CHECK(run, nq_cidr_count(cidr) == count && nq_cidr_count(other) == count);
	CHECK(run, nq_cidr_fingerprint(cidr) == nq_cidr_fingerprint(other));
	CHECK(run, conflicting == differ && !nq_cidr_conflict(builder, &conflict));
	nq_cidr_free(other);
	nq_cidr_builder_free(builder);
}

/* So many more that ranges are kept in another form. */
static void add_many(struct run *run, struct nq_cidr_builder *builder, struct entries *entries)
{
	unsigned bits = below(run, 2) ? 128 : 32;
	unsigned width = 1 + below(run, 3);
	unsigned step_bytes = 1 + below(run, bits / 8 - 2);
	uint32_t values = 1 + below(run, 1000);
	struct entry entry = {.bits = bits, .length = bits - below(run, 9)};

	entries->list = realloc(entries->list, (entries->count + MANY) * sizeof(entry));
	fill(run, entry.address, bits / 8);
	for (unsigned i = 0; i < MANY; i++) {
		unsigned carry = width;

		for (unsigned k = step_bytes + 2; k-- > 0 && carry; carry >>= 8) {
			carry += entry.address[k];
			entry.address[k] = (uint8_t)carry;
		}
		entry.value = (struct nq_value){.kind = NQ_VALUE_INTEGER, .integer = i % values};
		entries->list[entries->count] = entry;
		(void)clear_bits(&entries->list[entries->count]);
		add_entry(run, builder, &entries->list[entries->count++]);
	}
}

static void check_set(struct run *run, struct nq_cidr_builder *builder, struct entries *entries)
{
	bool many = below(run, 32) == 31;
	struct nq_cidr *cidr;
	struct nq_prefix conflict;

	if (many)
		add_many(run, builder, entries);
	cidr = nq_cidr_build(builder);
	for (size_t i = 0; i < entries->count; i += many ? entries->count / SEARCHED : 1)
		check_ends(run, cidr, entries, &entries->list[i]);
	for (unsigned i = below(run, 8); i > 0; i--) {
		struct entry searched = {.bits = below(run, 2) ? 128 : 32};

		fill(run, searched.address, searched.bits / 8);
		check_search(run, cidr, entries, &searched);
	}
	if (!many)
		check_again(run, cidr, entries, nq_cidr_conflict(builder, &conflict));
	nq_cidr_free(cidr);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("prefixes", input, size);
	struct nq_cidr_builder *builder = nq_cidr_builder_new();
	size_t length = target.length;
	uint8_t *text = lists_take_text(target.run, target.bytes, &length);
	struct lists_model model = {.text = (const char *)text, .end = (const char *)text + length};
	/* A line has two bytes at least, and the last one may lack its newline. */
	struct entries entries = {.list = hostile_take((length / 2 + 1) * sizeof(struct entry))};
	struct nq_list list;
	const char *line;
	size_t line_length;
	int result;

	result = lists_read(target.run, nq_cidr_parse, builder, text, length, &list);
	while (lists_next_line(&model, &line, &line_length) &&
	       read_line(&model, line, line_length, &entries))
		;
	if (lists_agree(target.run, &model, result, &list))
		check_set(target.run, builder, &entries);
	nq_cidr_builder_free(builder);
	free(entries.list);
	hostile_give_bytes(text);
	target_end(&target);
	return 0;
}
