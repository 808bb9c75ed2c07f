#include "table/domain.h"

#include <stdlib.h>
#include <string.h>

#include "table/domain_parts.h"
#include "table/memory.h"

bool nq_domain_normalize(const char *name, size_t *length, char normal[NQ_DOMAIN_MAX])
{
	size_t count = *length;

	if (count > 0 && name[count - 1] == '.')
		count--;
	if (count == 0 || count > NQ_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < count; i++)
		normal[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
	*length = count;
	return true;
}

/* What the bytes with this hash stand for, 0: nothing. */
static unsigned find_meaning(const struct nq_domains *domains, uint32_t hash, const char *name,
			     size_t length)
{
	uint8_t tag = nq_domain_tag(hash);
	size_t at = hash & domains->mask;

	for (; domains->tags[at]; at = (at + 1) & domains->mask) {
		const uint8_t *there;

		if (domains->tags[at] != tag)
			continue;
		there = domains->pool + domains->names[at];
		if (there[1] == length && memcmp(there + NQ_DOMAIN_HEAD, name, length) == 0)
			return there[0];
	}
	return 0;
}

bool nq_domain_has(const struct nq_domains *domains, const char *name, size_t length)
{
	char normal[NQ_DOMAIN_MAX];
	struct nq_domain_walk walk = {.name = normal};

	if (!domains->count || !nq_domain_normalize(name, &length, normal))
		return false;
	walk.start = length;
	for (unsigned i = 0; i < domains->most_labels && nq_domain_next(&domains->key, &walk);
	     i++) {
		unsigned meaning = find_meaning(domains, (uint32_t)walk.hash, normal + walk.start,
						length - walk.start);

		if (meaning & (walk.start ? NQ_DOMAIN_BELOW : NQ_DOMAIN_SELF))
			return true;
	}
	return false;
}

size_t nq_domain_count(const struct nq_domains *domains)
{
	return domains->count;
}

uint64_t nq_domain_fingerprint(const struct nq_domains *domains)
{
	static const struct nq_hash_key key = {{0}};
	uint64_t sum = 0;

	/* A sum: the order in the table is that of its own hash. */
	for (size_t i = 0; domains->count && i <= domains->mask; i++) {
		const uint8_t *name;

		if (!domains->names[i])
			continue;
		name = domains->pool + domains->names[i];
		sum += nq_hash(&key, name, (size_t)NQ_DOMAIN_HEAD + name[1]);
	}
	return sum ? sum : 1;
}

void nq_domain_free(struct nq_domains *domains)
{
	if (!domains)
		return;
	nq_block_free(domains->tags);
	nq_block_free(domains->names);
	nq_block_free(domains->pool);
	free(domains);
}
