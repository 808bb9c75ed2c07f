#include "table/ends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/bytes.h"

bool nq_ends_of(struct nq_ends *ends, const struct nq_flow_tuple *tuple)
{
	uint8_t ports[2][2];
	int order = memcmp(tuple->src, tuple->dst, sizeof(tuple->src));
	unsigned source;

	nq_put_u16(ports[0], tuple->sport);
	nq_put_u16(ports[1], tuple->dport);
	if (order == 0)
		order = memcmp(ports[0], ports[1], sizeof(ports[0]));
	source = order > 0;
	*ends = (struct nq_ends){.version = tuple->version, .protocol = tuple->protocol};
	memcpy(ends->addresses[source], tuple->src, sizeof(tuple->src));
	memcpy(ends->addresses[!source], tuple->dst, sizeof(tuple->dst));
	memcpy(ends->ports[source], ports[0], sizeof(ports[0]));
	memcpy(ends->ports[!source], ports[1], sizeof(ports[1]));
	return source;
}

int nq_ends_table_init(struct nq_ends_table *table, uint32_t limit, size_t stride)
{
	uint32_t buckets = 16;

	while (buckets < limit && buckets < 1U << 31)
		buckets *= 2;
	table->limit = limit;
	table->stride = stride;
	table->bucket_mask = buckets - 1;
	table->touched = table->count = table->unused = 0;
	memset(table->oldest, 0, sizeof(table->oldest));
	memset(table->newest, 0, sizeof(table->newest));
	nq_hash_key_make(&table->key);
	/* Zeroed memory is mapped page by page when it is first written. */
	table->memory = calloc((size_t)limit + 1, stride);
	table->buckets = calloc(buckets, sizeof(uint32_t));
	if (table->memory && table->buckets)
		return 0;
	nq_ends_table_fini(table);
	return -ENOMEM;
}

void nq_ends_table_fini(struct nq_ends_table *table)
{
	free(table->memory);
	free(table->buckets);
	table->memory = NULL;
	table->buckets = NULL;
}

static uint32_t *find_bucket(const struct nq_ends_table *table, const struct nq_ends *ends)
{
	return &table->buckets[nq_hash(&table->key, ends, sizeof(*ends)) & table->bucket_mask];
}

static void unlink_entry(struct nq_ends_table *table, struct nq_entry *entry)
{
	if (entry->older)
		nq_ends_table_at(table, entry->older)->newer = entry->newer;
	else
		table->oldest[entry->list] = entry->newer;
	if (entry->newer)
		nq_ends_table_at(table, entry->newer)->older = entry->older;
	else
		table->newest[entry->list] = entry->older;
}

static void link_entry(struct nq_ends_table *table, struct nq_entry *entry, uint8_t list)
{
	uint32_t number = nq_ends_table_number(table, entry);

	entry->list = list;
	entry->newer = 0;
	entry->older = table->newest[list];
	if (entry->older)
		nq_ends_table_at(table, entry->older)->newer = number;
	else
		table->oldest[list] = number;
	table->newest[list] = number;
}

void nq_ends_table_forget(struct nq_ends_table *table, struct nq_entry *entry)
{
	uint32_t number = nq_ends_table_number(table, entry);
	uint32_t *link = find_bucket(table, &entry->ends);

	if (table->forget)
		table->forget(table->context, entry);
	while (*link != number)
		link = &nq_ends_table_at(table, *link)->chain;
	*link = entry->chain;
	unlink_entry(table, entry);
	entry->chain = table->unused;
	table->unused = number;
	table->count--;
}

static bool is_over(const struct nq_ends_table *table, const struct nq_entry *entry, int64_t now)
{
	/* Not the difference: INT64_MAX means that all are. */
	return now > entry->seen && now - entry->seen > table->timeouts[entry->list];
}

static struct nq_entry *look_up(const struct nq_ends_table *table, const struct nq_ends *ends)
{
	uint32_t number = *find_bucket(table, ends);

	while (number && memcmp(&nq_ends_table_at(table, number)->ends, ends, sizeof(*ends)) != 0)
		number = nq_ends_table_at(table, number)->chain;
	return number ? nq_ends_table_at(table, number) : NULL;
}

struct nq_entry *nq_ends_table_peek(const struct nq_ends_table *table, const struct nq_ends *ends,
				    int64_t now)
{
	struct nq_entry *entry = look_up(table, ends);

	return entry && !is_over(table, entry, now) ? entry : NULL;
}

void nq_ends_table_touch(struct nq_ends_table *table, struct nq_entry *entry, int64_t now)
{
	entry->seen = now;
	if (table->newest[entry->list] != nq_ends_table_number(table, entry)) {
		unlink_entry(table, entry);
		link_entry(table, entry, entry->list);
	}
}

struct nq_entry *nq_ends_table_find(struct nq_ends_table *table, const struct nq_ends *ends,
				    int64_t now)
{
	struct nq_entry *entry = look_up(table, ends);

	if (!entry)
		return NULL;
	if (is_over(table, entry, now)) {
		nq_ends_table_forget(table, entry);
		return NULL;
	}
	nq_ends_table_touch(table, entry, now);
	return entry;
}

struct nq_entry *nq_ends_table_add(struct nq_ends_table *table, const struct nq_ends *ends,
				   uint8_t list, int64_t now)
{
	struct nq_entry *entry;
	uint32_t *bucket = find_bucket(table, ends);
	uint32_t number;

	for (unsigned i = 0; table->count >= table->limit && i < NQ_ENDS_LISTS; i++) {
		if (table->oldest[i])
			nq_ends_table_forget(table, nq_ends_table_at(table, table->oldest[i]));
	}
	number = table->unused;
	if (number)
		table->unused = nq_ends_table_at(table, number)->chain;
	else
		number = ++table->touched;
	entry = nq_ends_table_at(table, number);
	memset(entry, 0, table->stride);
	entry->ends = *ends;
	entry->seen = now;
	entry->chain = *bucket;
	*bucket = number;
	link_entry(table, entry, list);
	table->count++;
	return entry;
}

void nq_ends_table_move(struct nq_ends_table *table, struct nq_entry *entry, uint8_t list)
{
	if (entry->list == list)
		return;
	unlink_entry(table, entry);
	link_entry(table, entry, list);
}

bool nq_ends_table_expire(struct nq_ends_table *table, int64_t now)
{
	for (unsigned list = 0; list < NQ_ENDS_LISTS; list++) {
		struct nq_entry *entry = nq_ends_table_at(table, table->oldest[list]);

		if (table->oldest[list] && is_over(table, entry, now)) {
			nq_ends_table_forget(table, entry);
			return true;
		}
	}
	return false;
}
