/*
 * What tables promise, while several threads pull at them: each test lets all threads loose on one
 * table, and then counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "table/lru_parts.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 20000 };

/* --- Stores --- */

static void count_up(void *context, unsigned number)
{
	struct nq_value one = {.kind = NQ_VALUE_INTEGER, .integer = 1};
	struct nq_value result;

	(void)number;
	for (int i = 0; i < ROUNDS; i++)
		CHECK(nq_store_incr(context, "count", 5, &one, 0, &threads_clock, &result) == 0);
}

/* Each key is made by one of them, while the others want to. */
static void begin_counts(void *context, unsigned number)
{
	struct nq_value one = {.kind = NQ_VALUE_INTEGER, .integer = 1};
	struct nq_value result;

	(void)number;
	for (int i = 0; i < ROUNDS; i++)
		CHECK(nq_store_incr(context, &i, sizeof(i), &one, 0, &threads_clock, &result) == 0);
}

static void test_incr(void)
{
	struct nq_store *store = threads_store(4 << 20);
	struct nq_value value;

	threads_run(THREADS, begin_counts, store);
	for (int i = 0; i < ROUNDS; i++) {
		CHECK(nq_store_get(store, &i, sizeof(i), &threads_clock, &value, NULL, 0));
		CHECK(value.integer == THREADS);
	}
	threads_run(THREADS, count_up, store);
	CHECK(nq_store_get(store, "count", 5, &threads_clock, &value, NULL, 0));
	CHECK(value.kind == NQ_VALUE_INTEGER && value.integer == THREADS * ROUNDS);
	nq_table_release((struct nq_table *)store);
}

struct claims {
	struct nq_store *store;
	int won[THREADS];
};

static void claim(void *context, unsigned number)
{
	struct claims *claims = context;
	struct nq_value mine = {.kind = NQ_VALUE_INTEGER, .integer = number};

	for (int i = 0; i < ROUNDS / 4; i++) {
		int error = nq_store_add(claims->store, &i, sizeof(i), &mine, 0, &threads_clock);

		CHECK(error == 0 || error == -EEXIST);
		claims->won[number] += error == 0;
	}
}

static void test_add(void)
{
	struct claims claims = {.store = threads_store(4 << 20)};
	int won = 0;

	threads_run(THREADS, claim, &claims);
	for (unsigned i = 0; i < THREADS; i++)
		won += claims.won[i];
	CHECK(won == ROUNDS / 4);
	nq_table_release((struct nq_table *)claims.store);
}

enum { LONGEST = 2000 };

/* A value tells whose it is in every byte: half of one and half of another would show. */
static void make_value(char *bytes, uint32_t key, uint32_t length)
{
	memset(bytes, (int)('a' + key % 26), length);
}

static void check_value(const char *bytes, size_t length, uint32_t key)
{
	for (size_t i = 0; i < length; i++)
		CHECK(bytes[i] == (char)('a' + key % 26));
}

/* A store too small for what is put in, so that each goes at any time. */
static void come_and_go(void *context, unsigned number)
{
	struct nq_store *store = context;
	uint64_t seed = number + 1;
	char bytes[LONGEST];
	char key[64];

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t which = threads_below(&seed, 2000);
		struct nq_value value = {.kind = NQ_VALUE_STRING};
		struct nq_lru_stats stats;
		size_t length;

		length =
			(size_t)snprintf(key, sizeof(key), "%u %.*s", which, (int)(which % 50),
					 "a key that may be longer than what a block has room for");
		switch (threads_below(&seed, 5)) {
		case 0:
		case 1:
			value.string.length =
				threads_below(&seed, which % 10 ? 200 : (uint32_t)LONGEST);
			value.string.bytes = bytes;
			make_value(bytes, which, (uint32_t)value.string.length);
			CHECK(nq_store_set(store, key, length, &value,
					   threads_below(&seed, 2) ? 5 : 0, &threads_clock) == 0);
			break;
		case 2:
		case 3:
			if (nq_store_get(store, key, length, &threads_clock, &value, bytes,
					 sizeof(bytes)))
				check_value(bytes, value.string.length, which);
			break;
		default:
			nq_store_delete(store, key, length, &threads_clock);
		}
		if (i % 1000 == 0) {
			nq_store_stats(store, &stats);
			CHECK(stats.bytes <= nq_store_max_bytes(store));
		}
		if (number == 0 && i % 5000 == 4999)
			nq_store_flush(store);
	}
}

/* Large enough for several stripes. */
static void test_eviction(void)
{
	struct nq_store *store = threads_store(160000);
	struct nq_lru_stats stats;

	CHECK(nq_store_stripes(store) > 1);
	threads_run(THREADS, come_and_go, store);
	nq_store_stats(store, &stats);
	CHECK(stats.evicted > 0);
	nq_store_flush(store);
	nq_store_stats(store, &stats);
	CHECK(stats.entries == 0 && stats.bytes == 0);
	nq_table_release((struct nq_table *)store);
}

/* --- The order of use, by one thread --- */

static struct nq_lru_key key_of(const struct nq_lru *lru, const uint64_t *number)
{
	return nq_lru_key_make(lru, number, sizeof(*number));
}

/* Whether it is there, which makes it the newest. */
static bool use(struct nq_lru *lru, uint64_t number)
{
	struct nq_lru_key key = key_of(lru, &number);
	bool found = nq_lru_find(lru, &key) != NULL;

	nq_lru_unlock(lru, &key);
	return found;
}

static void insert(struct nq_lru *lru, uint64_t number)
{
	struct nq_lru_key key = key_of(lru, &number);
	struct nq_lru_entry *entry = nq_lru_make(lru, &key, 0);

	CHECK(entry && !nq_lru_find(lru, &key));
	nq_lru_insert(lru, &key, entry);
	nq_lru_unlock(lru, &key);
}

/* With several stripes, and a count of insertions that begins anew among them. */
static void test_order(void)
{
	enum { BLOCKS = 8192, HOT = 100 };
	struct nq_lru *lru = nq_lru_new(BLOCKS);

	CHECK(lru && nq_lru_stripes(lru) > 1);
	atomic_store(&lru->tick, (uint32_t)-BLOCKS);
	for (uint64_t i = 0; i < 3 * (uint64_t)BLOCKS; i++) {
		insert(lru, i);
		if (i % 1000 != 999)
			continue;
		for (uint64_t hot = 0; hot < HOT; hot++)
			CHECK(use(lru, hot));
		/* All others are there that were inserted since the table was full. */
		for (uint64_t k = 0; k < BLOCKS - HOT; k += 500)
			CHECK(k > i || use(lru, i - k));
		CHECK(i < 2 * (uint64_t)BLOCKS || !use(lru, HOT));
	}
	nq_lru_free(lru);
}

/* --- Buckets --- */

struct takers {
	struct nq_bucket *bucket;
	int taken[THREADS];
};

static void take_tokens(void *context, unsigned number)
{
	struct takers *takers = context;

	for (int i = 0; i < ROUNDS; i++) {
		/* Others come and go beside it. */
		takers->taken[number] +=
			nq_bucket_take(takers->bucket, "source", 6, 1, &threads_clock);
		nq_bucket_take(takers->bucket, &i, sizeof(i), 1, &threads_clock);
	}
}

static void test_bucket(void)
{
	struct takers takers = {.bucket = threads_bucket(1, 12345, 4096)};
	struct nq_lru_stats stats;
	int taken = 0;

	threads_run(THREADS, take_tokens, &takers);
	for (unsigned i = 0; i < THREADS; i++)
		taken += takers.taken[i];
	CHECK(taken == 12345);
	nq_bucket_stats(takers.bucket, &stats);
	CHECK(stats.entries <= 4096 && stats.evicted > 0);
	nq_table_release((struct nq_table *)takers.bucket);
}

/* --- Sets --- */

struct searched {
	struct nq_set *cidrset, *domainset;
	char paths[2][64];
	atomic_bool done;
};

static void write_lists(struct searched *searched)
{
	for (int which = 0; which < 2; which++) {
		FILE *file;
		int fd;

		snprintf(searched->paths[which], sizeof(searched->paths[which]),
			 "/tmp/nfqueue-threads-XXXXXX");
		fd = mkstemp(searched->paths[which]);
		CHECK(fd >= 0);
		file = fdopen(fd, "w");
		CHECK(file);
		/* The same prefixes, with values that tell which of the two files is searched. */
		for (int i = 0; i < 20000; i++)
			fprintf(file, "10.%d.%d.0/24 list %d\n", i / 256, i % 256, which);
		CHECK(fclose(file) == 0);
	}
}

/* All of one search comes from one list, and every search finds something. */
static void search_cidrset(void *context, unsigned number)
{
	struct searched *searched = context;
	struct nq_set_reader reader;
	uint64_t seed = number + 1;

	nq_set_join(searched->cidrset, &reader);
	while (!atomic_load(&searched->done)) {
		struct nq_address address = {
			.high = (uint64_t)(0x0a000000 | threads_below(&seed, 20000) << 8) << 32,
			.bits = 32};
		const void *content = nq_set_pin(searched->cidrset, &reader);
		struct nq_value value;

		CHECK(nq_cidr_find(content, &address, &value));
		CHECK(value.kind == NQ_VALUE_STRING && value.string.length == 6);
		CHECK(memcmp(value.string.bytes, "list ", 5) == 0);
		nq_set_unpin(&reader);
		if (threads_below(&seed, 1000) == 0) {
			nq_set_leave(searched->cidrset, &reader);
			nq_set_join(searched->cidrset, &reader);
		}
	}
	nq_set_leave(searched->cidrset, &reader);
}

static void replace_and_search(void *context, unsigned number)
{
	struct searched *searched = context;
	struct nq_list list;
	const char *failed;

	if (number > 0) {
		search_cidrset(context, number);
		return;
	}
	for (int i = 0; i < 40; i++) {
		const char *path = searched->paths[i % 2];

		CHECK(nq_set_load(searched->cidrset, &path, 1, &list, &failed) == 0);
	}
	atomic_store(&searched->done, true);
}

static void test_replacement(void)
{
	struct searched searched = {.cidrset = threads_cidrset()};
	const char *path = searched.paths[1];
	struct nq_list list;
	const char *failed;

	write_lists(&searched);
	CHECK(nq_set_load(searched.cidrset, &path, 1, &list, &failed) == 0);
	threads_run(THREADS, replace_and_search, &searched);
	nq_table_release((struct nq_table *)searched.cidrset);
	unlink(searched.paths[0]);
	unlink(searched.paths[1]);
}

/* What tells one version of a file from another. */
static void test_versions(void)
{
	const struct nq_list_source one = {1, 2, 3, 4, 5, true};
	struct nq_list_source others[6] = {one, one, one, one, one, one};

	CHECK(nq_list_same(&one, &others[0]));
	others[0].device++;
	others[1].inode++;
	others[2].size++;
	others[3].modified++;
	others[4].changed++;
	others[5].stable = false;
	for (unsigned i = 0; i < 6; i++)
		CHECK(!nq_list_same(&one, &others[i]) && !nq_list_same(&others[i], &one));
}

/* A list that nobody touched for a while is not read again, one that somebody touched is. */
static void test_unchanged(void)
{
	struct searched searched = {.cidrset = threads_cidrset()};
	const char *paths[2] = {searched.paths[0], searched.paths[1]};
	double start = threads_now();
	struct nq_list list;
	const char *failed;
	const void *content;

	test_versions();
	write_lists(&searched);
	CHECK(nq_set_load(searched.cidrset, paths, 2, &list, &failed) == 0);
	content = atomic_load(&searched.cidrset->content);
	CHECK(nq_set_load(searched.cidrset, paths, 2, &list, &failed) == 0);
	CHECK(content != atomic_load(&searched.cidrset->content));
	while (threads_now() < start + 2.5)
		usleep(10000);
	CHECK(nq_set_load(searched.cidrset, paths, 2, &list, &failed) == 0);
	content = atomic_load(&searched.cidrset->content);
	CHECK(nq_set_load(searched.cidrset, paths, 2, &list, &failed) == 0);
	CHECK(content == atomic_load(&searched.cidrset->content));
	CHECK(nq_set_load(searched.cidrset, paths, 1, &list, &failed) == 0);
	CHECK(content != atomic_load(&searched.cidrset->content));
	content = atomic_load(&searched.cidrset->content);
	CHECK(utimensat(AT_FDCWD, paths[0], NULL, 0) == 0);
	CHECK(nq_set_load(searched.cidrset, paths, 1, &list, &failed) == 0);
	CHECK(content != atomic_load(&searched.cidrset->content));
	nq_table_release((struct nq_table *)searched.cidrset);
	unlink(paths[0]);
	unlink(paths[1]);
}

/* --- The registry --- */

static void open_and_close(void *context, unsigned number)
{
	struct nq_registry *registry = context;
	uint64_t seed = number + 1;

	for (int i = 0; i < 2000; i++) {
		struct nq_store_options options = {.max_bytes = 8192};
		struct nq_table *table;
		char name[8];

		snprintf(name, sizeof(name), "%u", threads_below(&seed, 50));
		CHECK(nq_registry_get(registry, &nq_store_class, name, threads_below(&seed, 2),
				      &options, &table) == 0);
		CHECK(strcmp(table->name, name) == 0);
		options.max_bytes = 16384;
		nq_table_release(table);
		CHECK(nq_registry_get(registry, &nq_store_class, name, 0, &options, &table) !=
		      -ENOSPC);
		nq_table_release(table);
	}
}

/* The store "x" of the registry for a script of this generation; releases it again. */
static struct nq_table *get_table(struct nq_registry *registry, unsigned generation,
				  size_t max_bytes, int wanted)
{
	struct nq_store_options options = {.max_bytes = max_bytes};
	struct nq_table *table = NULL;

	CHECK(nq_registry_get(registry, &nq_store_class, "x", generation, &options, &table) ==
	      wanted);
	nq_table_release(table);
	return table;
}

/* A script that is loaded anew may ask for other sizes; what asks for the same keeps what is there.
 */
static void test_generations(struct nq_registry *registry)
{
	struct nq_table *first = get_table(registry, 0, 8192, 0);
	struct nq_table *second;

	CHECK(get_table(registry, 0, 8192, 0) == first && get_table(registry, 0, 0, 0) == first);
	CHECK(get_table(registry, 0, 9000, -EEXIST) == first);
	CHECK(get_table(registry, 1, 8192, 0) == first);
	/* It is the new script's now, and the old one takes what there is. */
	CHECK(get_table(registry, 1, 9000, -EEXIST) == first);
	CHECK(get_table(registry, 0, 9000, 0) == first);
	nq_table_hold(first);
	second = get_table(registry, 2, 9000, 0);
	CHECK(second != first && get_table(registry, 1, 8192, 0) == second);
	/* Who holds the old one keeps it. */
	CHECK(nq_store_max_bytes((struct nq_store *)first) == 8192);
	nq_table_release(first);
}

static void test_registry(void)
{
	struct nq_registry *registry = nq_registry_new();

	CHECK(registry);
	test_generations(registry);
	threads_run(THREADS, open_and_close, registry);
	nq_registry_release(registry);
}

int threads_stress(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{"no increment is lost", test_incr},
		{"of all that add, one does", test_add},
		{"values are whole while entries come and go", test_eviction},
		{"what was used longest ago goes first", test_order},
		{"no token is given twice", test_bucket},
		{"searches go on while the content is replaced", test_replacement},
		{"what did not change is not read again", test_unchanged},
		{"tables are found by name", test_registry},
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		tests[i].run();
		printf("ok: %s\n", tests[i].name);
	}
	return 0;
}
