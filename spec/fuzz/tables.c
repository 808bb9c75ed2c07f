/*
 * Addresses, prefixes and lists of prefixes and names, each text in a block that ends where it
 * does, against the C library's readers and a search through everything.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hostile.h"
#include "table/address.h"
#include "table/cidr.h"
#include "table/domain.h"
#include "table/hash.h"

enum { TEXT_MAX = 600, PREFIXES_MAX = 64 };

/* --- SipHash, anew: the reference of the paper's appendix, with its rounds as parameters --- */

static void sip_round(uint64_t v[4])
{
	static const unsigned turns[2][2] = {{13, 16}, {17, 21}};

	for (unsigned half = 0; half < 2; half++) {
		unsigned a = half ? 2 : 0, c = half ? 0 : 2;

		v[a] += v[1];
		v[1] = (v[1] << turns[half][0] | v[1] >> (64 - turns[half][0])) ^ v[a];
		v[a] = v[a] << 32 | v[a] >> 32;
		v[c] += v[3];
		v[3] = (v[3] << turns[half][1] | v[3] >> (64 - turns[half][1])) ^ v[c];
	}
}

static uint64_t sip(const uint8_t key[16], const uint8_t *bytes, size_t length, unsigned rounds,
		    unsigned last_rounds)
{
	static const char constant[33] = "uespemosmodnarodarenegylsetybdet";
	uint64_t v[4];

	for (unsigned i = 0; i < 4; i++) {
		v[i] = 0;
		for (unsigned k = 8; k-- > 0;)
			v[i] = v[i] << 8 | (key[i % 2 * 8 + k] ^ (uint8_t)constant[i * 8 + k]);
	}
	for (size_t at = 0; at <= length; at += 8) {
		uint64_t word = 0;

		for (size_t k = 0; k < 8 && at + k < length; k++)
			word |= (uint64_t)bytes[at + k] << 8 * k;
		if (length - at < 8)
			word |= (uint64_t)length << 56;
		v[3] ^= word;
		for (unsigned i = 0; i < rounds; i++)
			sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (unsigned i = 0; i < last_rounds; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void test_hash(struct run *run)
{
	uint8_t bytes[64], key_bytes[16];
	struct nq_hash_key key;

	begin(run, "hashes");
	for (unsigned i = 0; i < 64; i++)
		bytes[i] = (uint8_t)i;
	/* The paper's own vector, for the reference above. */
	CHECK(run, sip(bytes, bytes, 15, 2, 4) == 0xa129ca6149be45e5);
	for (unsigned i = 0; i < 2000; i++) {
		size_t length = below(run, 65);
		uint8_t *block;

		fill(run, key_bytes, sizeof(key_bytes));
		fill(run, bytes, sizeof(bytes));
		memcpy(&key, key_bytes, sizeof(key));
		block = hostile_take_bytes(bytes, length);
		CHECK(run, nq_hash(&key, block, length) == sip(key_bytes, block, length, 1, 3));
		hostile_give_bytes(block);
	}
}

/* --- Texts --- */

/* What could be an address, a prefix or a name, or nearly. */
static size_t make_word(struct run *run, char text[TEXT_MAX])
{
	static const char *const pieces[] = {
		"0",	"1",  "25",    "255",  "256",  "192",	  ".",	   ".",	   ":",
		"::",	"a",  "ff",    "ffff", "fe80", "/",	  "/8",	   "/32",  "/128",
		"/129", "-",  "_",     "com",  "*.",   "example", "local", "%lo0", "#",
		";",	"\t", "\x80x", "x",    "00",   "12345"};
	size_t length = 0;
	unsigned count = 1 + below(run, 14);

	while (count-- > 0) {
		const char *piece = pieces[below(run, COUNT(pieces))];

		memcpy(text + length, piece, strlen(piece));
		length += strlen(piece);
	}
	if (one_in(run, 20))
		text[below(run, (uint32_t)length)] = (char)below(run, 256);
	return length;
}

static size_t print_address(struct run *run, char text[TEXT_MAX], uint8_t bytes[16], int family)
{
	fill(run, bytes, 16);
	for (unsigned i = 0; i < 16; i++) {
		if (one_in(run, 2))
			bytes[i] = 0;
	}
	inet_ntop(family, bytes, text, TEXT_MAX);
	return strlen(text);
}

/* --- Addresses --- */

static void check_address(struct run *run, const char *text, size_t length)
{
	uint8_t *block = hostile_take_bytes((const uint8_t *)text, length);
	struct nq_address address;
	uint8_t wanted[16], read[16];
	char copy[TEXT_MAX + 1];
	bool is_text = !memchr(text, 0, length);
	int family = 0;

	run->bytes = block;
	run->length = length;
	memcpy(copy, text, length);
	copy[length] = '\0';
	if (is_text && inet_pton(AF_INET, copy, wanted) == 1)
		family = 32;
	else if (is_text && inet_pton(AF_INET6, copy, wanted) == 1)
		family = 128;
	CHECK(run, nq_address_parse((const char *)block, length, &address) == (family != 0));
	if (family) {
		uint64_t halves[2] = {htobe64(address.high), htobe64(address.low)};

		memcpy(read, halves, sizeof(read));
		CHECK(run, address.bits == family);
		CHECK(run, same_bytes(read, wanted, (size_t)family / 8));
		CHECK(run, family == 128 || !address.low);
	}
	hostile_give_bytes(block);
}

static void test_addresses(struct run *run, uint64_t percent)
{
	uint8_t bytes[16];
	char text[TEXT_MAX];

	begin(run, "addresses");
	for (uint64_t i = 0; i < 3000 * percent; i++) {
		size_t length = one_in(run, 2) ? make_word(run, text)
					       : print_address(run, text, bytes,
							       one_in(run, 2) ? AF_INET : AF_INET6);

		if (one_in(run, 4))
			text[below(run, (uint32_t)length)] = (char)("0:./ag"[below(run, 6)]);
		check_address(run, text, length);
	}
	run->bytes = NULL;
}

/* --- Lists --- */

static size_t make_list(struct run *run, char *text, size_t capacity)
{
	size_t length = 0;

	while (length + TEXT_MAX < capacity && !one_in(run, 12)) {
		uint8_t bytes[16];

		switch (below(run, 6)) {
		case 0:
			length += make_word(run, text + length);
			break;
		case 1:
			length += print_address(run, text + length, bytes, AF_INET);
			break;
		case 2:
			length += print_address(run, text + length, bytes, AF_INET6);
			break;
		case 3:
			length += (size_t)sprintf(text + length, "%u.0.0.0/8 value %u",
						  below(run, 256), below(run, 3));
			break;
		case 4:
			length += (size_t)sprintf(text + length, "0.0.0.0 name%u.example",
						  below(run, 9));
			break;
		default:
			length += (size_t)sprintf(text + length, "%sname%u.example",
						  one_in(run, 3) ? "*." : "", below(run, 9));
		}
		text[length++] = " \n\n\n\r#\t"[below(run, 7)];
	}
	return length;
}

/* Whole, and in two pieces at the end of a line: the same is read, or the same is wrong. */
static void check_list(struct run *run, const struct nq_set_kind *kind, const char *text,
		       size_t length)
{
	uint8_t *block = hostile_take_bytes((const uint8_t *)text, length);
	const char *line = memchr(text, '\n', length);
	size_t first = line ? (size_t)(line + 1 - text) : length;
	uint8_t *begin_block = hostile_take_bytes(block, first);
	uint8_t *end_block = hostile_take_bytes(block + first, length - first);
	struct nq_list list = {.line = 0}, list2 = {.line = 0};
	void *builder = kind->builder_new(), *builder2 = kind->builder_new();
	int error, error2;

	run->bytes = block;
	run->length = length;
	error = kind->parse(builder, (const char *)block, length, &list);
	error2 = kind->parse(builder2, (const char *)begin_block, first, &list2);
	if (error2 == 0)
		error2 = kind->parse(builder2, (const char *)end_block, length - first, &list2);
	CHECK(run, error == 0 || error == -EBADMSG);
	CHECK(run, error == error2 && list.line == list2.line);
	if (error) {
		CHECK(run, strcmp(list.problem, list2.problem) == 0);
		for (const char *at = list.problem; *at; at++)
			CHECK(run, *at >= ' ' && *at <= '~');
	} else {
		void *content = kind->build(builder), *content2 = kind->build(builder2);

		CHECK(run, kind->count(content) == kind->count(content2));
		kind->content_free(content);
		kind->content_free(content2);
	}
	kind->builder_free(builder);
	kind->builder_free(builder2);
	hostile_give_bytes(begin_block);
	hostile_give_bytes(end_block);
	hostile_give_bytes(block);
}

static void test_lists(struct run *run, uint64_t percent)
{
	char text[8 * TEXT_MAX];

	begin(run, "lists");
	for (uint64_t i = 0; i < 300 * percent; i++) {
		size_t length = make_list(run, text, sizeof(text));

		check_list(run, &nq_cidr_kind, text, length);
		check_list(run, &nq_domain_kind, text, length);
	}
	run->bytes = NULL;
}

/* --- Searches --- */

static bool holds(const struct nq_prefix *prefix, const struct nq_address *address)
{
	uint64_t high, low;

	if (prefix->address.bits != address->bits)
		return false;
	nq_prefix_end(prefix, &high, &low);
	if (address->high < prefix->address.high || address->high > high)
		return false;
	return (address->high > prefix->address.high || address->low >= prefix->address.low) &&
	       (address->high < high || address->low <= low);
}

/* Ends of bits are met often, and so are neighbours. */
static void make_prefix(struct run *run, struct nq_prefix *prefix)
{
	static const uint64_t halves[] = {0, 1, UINT64_MAX, 0x8000000000000000, 0x0a00000000000000};
	uint64_t high = halves[below(run, COUNT(halves))] + below(run, 2);
	char text[TEXT_MAX];
	uint64_t words[2];

	*prefix = (struct nq_prefix){.address = {.bits = one_in(run, 2) ? 32 : 128}};
	prefix->length = (uint8_t)below(run, prefix->address.bits + 1u);
	words[0] = htobe64(one_in(run, 4) ? draw(run) : high);
	words[1] = htobe64(halves[below(run, COUNT(halves))]);
	inet_ntop(prefix->address.bits == 32 ? AF_INET : AF_INET6, words, text, sizeof(text));
	sprintf(text + strlen(text), "/%u", prefix->length);
	/* Also one with bits behind its length comes out without them. */
	CHECK(run, nq_prefix_parse(text, strlen(text), prefix) != NQ_PREFIX_NO_ADDRESS);
}

static void check_search(struct run *run, const struct nq_cidr *cidr,
			 const struct nq_prefix *prefixes, unsigned count,
			 const struct nq_address *address)
{
	struct nq_value value = {.integer = -1};
	int wanted = -1;

	for (unsigned i = 0; i < count; i++) {
		if (holds(&prefixes[i], address) &&
		    (wanted < 0 || prefixes[i].length >= prefixes[wanted].length))
			wanted = (int)i;
	}
	CHECK(run, nq_cidr_find(cidr, address, &value) == (wanted >= 0));
	CHECK(run, value.integer == wanted);
}

static void test_searches(struct run *run, uint64_t percent)
{
	struct nq_prefix prefixes[PREFIXES_MAX];

	begin(run, "searches");
	for (uint64_t i = 0; i < 60 * percent; i++) {
		struct nq_cidr_builder *builder = nq_cidr_builder_new();
		unsigned count = below(run, PREFIXES_MAX);
		struct nq_cidr *cidr;

		for (unsigned k = 0; k < count; k++) {
			struct nq_value value = {.kind = NQ_VALUE_INTEGER, .integer = k};

			make_prefix(run, &prefixes[k]);
			CHECK(run, nq_cidr_add(builder, &prefixes[k], &value) == 0);
		}
		cidr = nq_cidr_build(builder);
		for (unsigned k = 0; k < count; k++) {
			struct nq_address address = prefixes[k].address;

			check_search(run, cidr, prefixes, count, &address);
			nq_prefix_end(&prefixes[k], &address.high, &address.low);
			check_search(run, cidr, prefixes, count, &address);
			/* One behind, and one before. */
			address.high += address.bits == 32 ? (uint64_t)1 << 32 : ++address.low == 0;
			check_search(run, cidr, prefixes, count, &address);
			address = prefixes[k].address;
			address.high -= address.bits == 32 ? (uint64_t)1 << 32 : address.low-- == 0;
			check_search(run, cidr, prefixes, count, &address);
		}
		nq_cidr_free(cidr);
		nq_cidr_builder_free(builder);
	}
}

static void test_names(struct run *run, uint64_t percent)
{
	struct nq_domain_builder *builder = nq_domain_builder_new();
	const char *problem;
	struct nq_domains *domains;
	char text[TEXT_MAX];

	begin(run, "names");
	CHECK(run, nq_domain_add(builder, "example.com", 11, &problem) == 0);
	CHECK(run, nq_domain_add(builder, "*.1.example", 11, &problem) == 0);
	domains = nq_domain_build(builder);
	for (uint64_t i = 0; i < 2000 * percent; i++) {
		size_t length = make_word(run, text);
		uint8_t *block;
		size_t dot;
		bool wanted;

		if (one_in(run, 4)) {
			memcpy(text + length, ".example.com", 12);
			length += 12;
		}
		block = hostile_take_bytes((const uint8_t *)text, length);
		run->bytes = block;
		run->length = length;
		dot = length > 0 && text[length - 1] == '.';
		length -= dot;
		wanted = (length == 11 && memcmp(text, "example.com", 11) == 0) ||
			 (length > 11 && memcmp(text + length - 12, ".example.com", 12) == 0) ||
			 (length > 9 && memcmp(text + length - 10, ".1.example", 10) == 0);
		CHECK(run, nq_domain_has(domains, (const char *)block, length + dot) ==
				   (wanted && length <= NQ_DOMAIN_MAX));
		hostile_give_bytes(block);
	}
	run->bytes = NULL;
	nq_domain_free(domains);
	nq_domain_builder_free(builder);
}

void hostile_test_tables(struct run *run, uint64_t percent)
{
	test_hash(run);
	test_addresses(run, percent);
	test_lists(run, percent);
	test_searches(run, percent);
	test_names(run, percent);
}
