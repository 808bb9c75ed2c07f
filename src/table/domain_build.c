#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "table/address.h"
#include "table/domain_parts.h"
#include "table/memory.h"

struct slot {
	uint32_t hash;
	uint32_t name; /* offset in the pool, 0: free */
};

struct nq_domain_builder {
	struct nq_hash_key key;
	struct slot *slots;
	size_t mask; /* their number, a power of two, less one */
	uint8_t *pool;
	size_t pool_length, pool_capacity;
	size_t count; /* names, and slots taken */
	unsigned most_labels;
};

struct nq_domain_builder *nq_domain_builder_new(void)
{
	struct nq_domain_builder *builder = calloc(1, sizeof(*builder));

	if (!builder)
		return NULL;
	nq_hash_key_make(&builder->key);
	builder->pool_length = 1; /* offset 0 means none */
	builder->mask = 63;
	builder->slots = nq_block_new(builder->mask + 1, sizeof(struct slot));
	if (builder->slots)
		return builder;
	free(builder);
	return NULL;
}

void nq_domain_builder_free(struct nq_domain_builder *builder)
{
	if (!builder)
		return;
	nq_block_free(builder->slots);
	nq_block_free(builder->pool);
	free(builder);
}

static const char *find_fault(const char *name, size_t length)
{
	size_t label = 0;

	if (length > NQ_DOMAIN_MAX)
		return "has more than 253 bytes";
	for (size_t i = 0; i <= length; i++) {
		unsigned char c = i < length ? (unsigned char)name[i] : '.';

		if (c == '.') {
			if (label == 0)
				return "has an empty label";
			if (label > NQ_DOMAIN_LABEL_MAX)
				return "has a label of more than 63 bytes";
			label = 0;
			continue;
		}
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '_' ||
		      c >= 0x80))
			return c == '*' ? "has a '*' that is not its first label"
					: "has a character that is in no name";
		label++;
	}
	return NULL;
}

static bool is_address(const char *text, size_t length)
{
	struct nq_address address;

	return nq_address_parse(text, length, &address);
}

/* The slot of these bytes, or the free one where they belong. */
static struct slot *find_slot(const struct nq_domain_builder *builder, uint32_t hash,
			      const char *name, size_t length)
{
	size_t at = hash & builder->mask;

	for (; builder->slots[at].name; at = (at + 1) & builder->mask) {
		const uint8_t *there = builder->pool + builder->slots[at].name;

		if (builder->slots[at].hash == hash && there[1] == length &&
		    memcmp(there + NQ_DOMAIN_HEAD, name, length) == 0)
			break;
	}
	return &builder->slots[at];
}

static bool grow_slots(struct nq_domain_builder *builder)
{
	size_t size = (builder->mask + 1) * 2;
	struct slot *old = builder->slots;
	struct slot *slots = nq_block_new(size, sizeof(*slots));

	if (!slots)
		return false;
	for (size_t i = 0; i <= builder->mask; i++) {
		size_t at = old[i].hash & (size - 1);

		if (!old[i].name)
			continue;
		while (slots[at].name)
			at = (at + 1) & (size - 1);
		slots[at] = old[i];
	}
	nq_block_free(old);
	builder->slots = slots;
	builder->mask = size - 1;
	return true;
}

static bool grow_pool(struct nq_domain_builder *builder)
{
	size_t capacity = builder->pool_capacity ? builder->pool_capacity * 3 / 2 : 4096;
	uint8_t *pool;

	/* Offsets have 32 bits. */
	if (capacity > UINT32_MAX)
		return false;
	pool = nq_block_resize(builder->pool, capacity, 1);
	if (!pool)
		return false;
	builder->pool = pool;
	builder->pool_capacity = capacity;
	return true;
}

static int add_name(struct nq_domain_builder *builder, const char *name, size_t length,
		    uint8_t meaning)
{
	struct nq_domain_walk walk = {.name = name, .start = length};
	unsigned labels = 0;
	struct slot *slot;
	uint8_t *place;

	/* At most three quarters of the slots are taken. */
	if (builder->count >= (builder->mask + 1) / 4 * 3 && !grow_slots(builder))
		return -ENOMEM;
	if (builder->pool_capacity < builder->pool_length + NQ_DOMAIN_HEAD + NQ_DOMAIN_MAX &&
	    !grow_pool(builder))
		return -ENOMEM;
	while (nq_domain_next(&builder->key, &walk))
		labels++;
	slot = find_slot(builder, (uint32_t)walk.hash, name, length);
	if (slot->name) {
		builder->pool[slot->name] |= meaning;
		return 0;
	}
	place = builder->pool + builder->pool_length;
	place[0] = meaning;
	place[1] = (uint8_t)length;
	memcpy(place + NQ_DOMAIN_HEAD, name, length);
	slot->hash = (uint32_t)walk.hash;
	slot->name = (uint32_t)builder->pool_length;
	builder->pool_length += NQ_DOMAIN_HEAD + length;
	builder->count++;
	if (labels > builder->most_labels)
		builder->most_labels = labels;
	return 0;
}

int nq_domain_add(struct nq_domain_builder *builder, const char *name, size_t length,
		  const char **problem)
{
	uint8_t meaning = NQ_DOMAIN_SELF | NQ_DOMAIN_BELOW;
	char normal[NQ_DOMAIN_MAX];

	if (length > 2 && name[0] == '*' && name[1] == '.') {
		meaning = NQ_DOMAIN_BELOW;
		name += 2;
		length -= 2;
	}
	*problem = "has more than 253 bytes";
	if (length > NQ_DOMAIN_MAX + 1)
		return -EINVAL;
	*problem = "is no name";
	if (!nq_domain_normalize(name, &length, normal)) {
		if (length > NQ_DOMAIN_MAX)
			*problem = "has more than 253 bytes";
		return -EINVAL;
	}
	if (is_address(normal, length)) {
		*problem = "is an address, no name";
		return -EINVAL;
	}
	*problem = find_fault(normal, length);
	if (*problem)
		return -EINVAL;
	if (builder->count >= NQ_SET_ENTRIES_MAX)
		return -E2BIG;
	return add_name(builder, normal, length, meaning);
}

/* --- Lines --- */

/* Names of hosts files that speak of the machine itself, and would match other things as ends. */
static bool is_own_name(const char *name, size_t length)
{
	static const char *const names[] = {
		"localhost",	 "localhost.localdomain", "local",	  "broadcasthost",
		"ip6-localhost", "ip6-loopback",	  "ip6-localnet", "ip6-mcastprefix",
		"ip6-allnodes",	 "ip6-allrouters",	  "ip6-allhosts", "0.0.0.0",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == length && strncasecmp(names[i], name, length) == 0)
			return true;
	}
	return false;
}

static int parse_name(struct nq_domain_builder *builder, const char *name, size_t length,
		      struct nq_list *list)
{
	const char *problem;
	int error = nq_domain_add(builder, name, length, &problem);

	if (error == -EINVAL)
		return nq_list_fail(list, name, length, problem);
	if (error == -E2BIG)
		return nq_list_fail(list, name, length, "is one name too many (16777216)");
	return error;
}

/* The next word of the line; false: none is left. */
static bool next_word(const char **line, size_t *left, const char **word, size_t *length)
{
	while (*left && !nq_list_word(*line, *left)) {
		++*line;
		--*left;
	}
	*word = *line;
	*length = nq_list_word(*line, *left);
	*line += *length;
	*left -= *length;
	return *length > 0;
}

/* In front of a name: an address, with the interface of a link-local one ("fe80::1%lo0"). */
static bool is_host_address(const char *word, size_t length)
{
	const char *zone = memchr(word, '%', length);

	return is_address(word, zone ? (size_t)(zone - word) : length);
}

static int parse_line(struct nq_domain_builder *builder, const char *line, size_t left,
		      struct nq_list *list)
{
	const char *first, *word;
	size_t first_length, length;
	int error = 0;

	next_word(&line, &left, &first, &first_length);
	if (!is_host_address(first, first_length)) {
		if (next_word(&line, &left, &word, &length))
			return nq_list_fail(
				list, word, length,
				"follows a name: a line is one name, or an address and names");
		return parse_name(builder, first, first_length, list);
	}
	if (!next_word(&line, &left, &word, &length))
		return nq_list_fail(list, first, first_length, "is an address without a name");
	do {
		if (!is_own_name(word, length))
			error = parse_name(builder, word, length, list);
	} while (error == 0 && next_word(&line, &left, &word, &length));
	return error;
}

int nq_domain_parse(void *builder, const char *text, size_t length, struct nq_list *list)
{
	const char *end = text + length;
	const char *line;
	size_t size;
	int error = 0;

	while (error == 0 && nq_list_next(&text, end, &line, &size, list)) {
		const char *comment = memchr(line, '#', size);

		if (comment)
			size = (size_t)(comment - line);
		/* A line of blanks is one of no words. */
		while (size && !nq_list_word(line + size - 1, 1))
			size--;
		if (size)
			error = parse_line(builder, line, size, list);
	}
	return error;
}

struct nq_domains *nq_domain_build(struct nq_domain_builder *builder)
{
	struct nq_domains *domains = calloc(1, sizeof(*domains));
	size_t size = builder->mask + 1;

	if (!domains)
		return NULL;
	domains->key = builder->key;
	domains->mask = builder->mask;
	domains->count = builder->count;
	domains->most_labels = builder->most_labels;
	domains->tags = nq_block_new(size, sizeof(*domains->tags));
	domains->names = nq_block_new(size, sizeof(*domains->names));
	/* At least one byte, so that it is there. */
	domains->pool = nq_block_resize(builder->pool, builder->pool_length, 1);
	if (domains->pool)
		builder->pool = NULL;
	if (!domains->tags || !domains->names || !domains->pool) {
		nq_domain_free(domains);
		return NULL;
	}
	for (size_t i = 0; i < size; i++) {
		domains->names[i] = builder->slots[i].name;
		domains->tags[i] =
			builder->slots[i].name ? nq_domain_tag(builder->slots[i].hash) : 0;
	}
	return domains;
}

static void *new_builder(void)
{
	return nq_domain_builder_new();
}

static void free_builder(void *builder)
{
	nq_domain_builder_free(builder);
}

static void *build(void *builder)
{
	return nq_domain_build(builder);
}

static void free_content(void *content)
{
	nq_domain_free(content);
}

static size_t count_content(const void *content)
{
	return nq_domain_count(content);
}

const struct nq_set_kind nq_domain_kind = {
	.builder_new = new_builder,
	.builder_free = free_builder,
	.parse = nq_domain_parse,
	.build = build,
	.content_free = free_content,
	.count = count_content,
};
