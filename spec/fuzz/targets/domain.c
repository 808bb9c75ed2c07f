/*
 * Files of names, read in pieces, against a reader and a search of another kind: through all names,
 * from their ends. The content is the file, and behind its last zero byte a name that is searched.
 */
#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "lists.h"
#include "table/domain.h"
#include "target.h"

enum { SELF = 1, BELOW = 2, NAME_MOST = 253 };

struct entry {
	const char *name; /* as it is written */
	size_t length;
	unsigned meaning;
};

struct entries {
	struct entry *list;
	size_t count;
};

/* Letters of ASCII alone, whatever the locale says. */
static char lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool same_name(const char *one, const char *other, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (lower(one[i]) != lower(other[i]))
			return false;
	}
	return true;
}

/* --- The file --- */

static const char *label_fault(const char *label, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)lower(label[i]);

		if (c == '*')
			return "has a '*' that is not its first label";
		if (c < 0x80 && !strchr("0123456789abcdefghijklmnopqrstuvwxyz-_", c ? c : ' '))
			return "has a character that is in no name";
	}
	return !length	     ? "has an empty label"
	       : length > 63 ? "has a label of more than 63 bytes"
			     : NULL;
}

static const char *name_fault(const char *name, size_t length)
{
	uint8_t address[16];

	if (length == 0)
		return "is no name";
	if (length > NAME_MOST)
		return "has more than 253 bytes";
	if (lists_address(name, length, address))
		return "is an address, no name";
	for (;;) {
		const char *dot = memchr(name, '.', length);
		size_t label = dot ? (size_t)(dot - name) : length;
		const char *fault = label_fault(name, label);

		if (fault || !dot)
			return fault;
		name = dot + 1;
		length -= label + 1;
	}
}

static bool read_name(struct lists_model *model, const char *word, size_t size,
		      struct entries *entries)
{
	struct entry entry = {.name = word, .length = size, .meaning = SELF | BELOW};
	const char *fault;

	if (size > 2 && !memcmp(word, "*.", 2)) {
		entry.name += 2;
		entry.length -= 2;
		entry.meaning = BELOW;
	}
	if (entry.length && entry.name[entry.length - 1] == '.')
		entry.length--;
	fault = name_fault(entry.name, entry.length);
	if (fault)
		return lists_wrong(model, word, size, fault);
	entries->list[entries->count++] = entry;
	return true;
}

static bool is_own_name(const char *word, size_t size)
{
	static const char *const names[] = {
		"0.0.0.0",	   "broadcasthost", "ip6-allhosts",	     "ip6-allnodes",
		"ip6-allrouters",  "ip6-localhost", "ip6-localnet",	     "ip6-loopback",
		"ip6-mcastprefix", "localhost",	    "localhost.localdomain", "local"};

	for (size_t i = 0; i < COUNT(names); i++) {
		if (size == strlen(names[i]) && same_name(word, names[i], size))
			return true;
	}
	return false;
}

static bool read_line(struct lists_model *model, const char *line, size_t length,
		      struct entries *entries)
{
	const char *first, *word;
	size_t at = 0, front = 0, first_size, size;
	unsigned words = 0;
	uint8_t address[16];
	bool is_host;

	for (size_t i = 0; i < length; i++) {
		if (line[i] == '#')
			length = i;
	}
	if (!lists_next_word(line, length, &at, &first, &first_size))
		return true;
	while (front < first_size && first[front] != '%')
		front++;
	is_host = lists_address(first, front, address);
	while (lists_next_word(line, length, &at, &word, &size)) {
		words++;
		if (!is_host)
			return lists_wrong(
				model, word, size,
				"follows a name: a line is one name, or an address and names");
		if (!is_own_name(word, size) && !read_name(model, word, size, entries))
			return false;
	}
	if (!is_host)
		return read_name(model, first, first_size, entries);
	return words || lists_wrong(model, first, first_size, "is an address without a name");
}

/* --- The set --- */

/* The name ends so: as a whole, or behind a dot. */
static bool ends_in(const char *name, size_t length, const struct entry *entry)
{
	size_t front = length - entry->length;

	if (entry->length > length || !same_name(name + front, entry->name, entry->length))
		return false;
	return front ? entry->meaning & BELOW && name[front - 1] == '.' : entry->meaning & SELF;
}

static void check_name(struct run *run, const struct nq_domains *domains,
		       const struct entries *entries, const char *name, size_t length)
{
	uint8_t *block = hostile_take_bytes((const uint8_t *)name, length);
	bool has = nq_domain_has(domains, (const char *)block, length);
	bool wanted = false;

	if (length && name[length - 1] == '.')
		length--;
	for (size_t i = 0; i < entries->count && length <= NAME_MOST && !wanted; i++)
		wanted = ends_in(name, length, &entries->list[i]);
	CHECK(run, has == wanted);
	hostile_give_bytes(block);
}

/* The name, what is below it and above it, and what only looks so. */
static void check_names(struct run *run, const struct nq_domains *domains,
			const struct entries *entries, const struct entry *entry)
{
	static const char *const fronts[] = {"", ".", "a.", "A", "x.y.z.", "*."};
	static const char *const ends[] = {"", ".", "..", ".a", "a"};
	const char *dot = memchr(entry->name, '.', entry->length);
	char name[NAME_MOST + 16];

	for (size_t i = 0; i < COUNT(fronts); i++) {
		for (size_t k = 0; k < COUNT(ends); k++) {
			size_t front = strlen(fronts[i]);

			memcpy(name, fronts[i], front);
			memcpy(name + front, entry->name, entry->length);
			memcpy(name + front + entry->length, ends[k], strlen(ends[k]));
			check_name(run, domains, entries, name,
				   front + entry->length + strlen(ends[k]));
		}
	}
	if (dot)
		check_name(run, domains, entries, dot + 1,
			   entry->length - (size_t)(dot + 1 - entry->name));
}

static void check_set(struct run *run, struct nq_domain_builder *builder,
		      const struct entries *entries, const char *searched, size_t searched_length)
{
	struct nq_domain_builder *builder2 = nq_domain_builder_new();
	struct nq_domains *domains = nq_domain_build(builder), *other;
	size_t count = 0;

	for (size_t i = entries->count; i-- > 0;) {
		const struct entry *entry = &entries->list[i];
		uint8_t *name = hostile_take_bytes(NULL, entry->length + 2);
		const char *problem;
		size_t later = i + 1, front = entry->meaning & SELF ? 0 : 2;

		memcpy(name, "*.", front);
		memcpy(name + front, entry->name, entry->length);
		CHECK(run, nq_domain_add(builder2, (const char *)name, front + entry->length,
					 &problem) == 0);
		while (later < entries->count &&
		       (entries->list[later].length != entry->length ||
			!same_name(entries->list[later].name, entry->name, entry->length)))
			later++;
		count += later == entries->count;
		hostile_give_bytes(name);
	}
	other = nq_domain_build(builder2);
	CHECK(run, nq_domain_count(domains) == count && nq_domain_count(other) == count);
	CHECK(run, nq_domain_fingerprint(domains) == nq_domain_fingerprint(other));
	for (size_t i = 0; i < entries->count; i++)
		check_names(run, domains, entries, &entries->list[i]);
	check_name(run, domains, entries, searched, searched_length);
	nq_domain_free(domains);
	nq_domain_free(other);
	nq_domain_builder_free(builder2);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("names", input, size);
	const uint8_t *zero = target.length ? memrchr(target.bytes, 0, target.length) : NULL;
	size_t length = zero ? (size_t)(zero - target.bytes) : target.length;
	const char *searched = zero ? (const char *)zero + 1 : "";
	size_t searched_length = zero ? target.length - length - 1 : 0;
	struct nq_domain_builder *builder = nq_domain_builder_new();
	uint8_t *text = lists_take_text(target.run, target.bytes, &length);
	struct lists_model model = {.text = (const char *)text, .end = (const char *)text + length};
	/* A name has two bytes at least, with what is behind it. */
	struct entries entries = {.list = hostile_take((length + 1) * sizeof(struct entry))};
	struct nq_list list;
	const char *line;
	size_t line_length;
	int result;

	result = lists_read(target.run, nq_domain_parse, builder, text, length, &list);
	while (lists_next_line(&model, &line, &line_length) &&
	       read_line(&model, line, line_length, &entries))
		;
	if (lists_agree(target.run, &model, result, &list))
		check_set(target.run, builder, &entries, searched, searched_length);
	nq_domain_builder_free(builder);
	free(entries.list);
	hostile_give_bytes(text);
	target_end(&target);
	return 0;
}
