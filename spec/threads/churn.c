/*
 * Resident memory while keys come and go, values change their size, buckets overflow and lists are
 * read again and again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "threads.h"

enum { THREADS = 4 };

struct churn {
	struct nq_store *store;
	struct nq_bucket *bucket;
	struct nq_set *cidrset, *domainset;
	double end;
	long first; /* kilobytes once everything is full */
	long most;
	const char *prefixes, *names;
	atomic_ullong operations;
	atomic_bool done;
};

static long resident(void)
{
	long size = 0, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file && fscanf(file, "%ld %ld", &size, &pages) == 2);
	fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void use_tables(struct churn *churn, unsigned number)
{
	static const char text[3000] = "x";
	uint64_t seed = number + 1;

	while (!atomic_load_explicit(&churn->done, memory_order_relaxed)) {
		for (int i = 0; i < 1000; i++) {
			/* New ones for ever, of all lengths, most of them short. */
			uint64_t key[3] = {seed, number, 0};
			size_t length = 9 + threads_below(&seed, 16);
			struct nq_value value = {.kind = NQ_VALUE_STRING};

			value.string.bytes = text;
			value.string.length = threads_below(
				&seed, threads_below(&seed, 100) ? 100 : sizeof(text));
			nq_store_set(churn->store, key, length, &value, 0, &threads_clock);
			nq_bucket_take(churn->bucket, key, length, 1, &threads_clock);
			if (i % 3 == 0)
				nq_store_delete(churn->store, key, length, &threads_clock);
		}
		atomic_fetch_add(&churn->operations, 1000);
	}
}

/* A list is another one each time, as if it had been downloaded. */
static void write_list(const char *path, unsigned round, const char *form)
{
	FILE *file = fopen(path, "w");

	CHECK(file);
	for (unsigned i = 0; i < 50000; i++)
		fprintf(file, form, (i + round) / 256 % 256, (i + round) % 256, i % 100);
	CHECK(fclose(file) == 0);
}

static void load_lists(struct churn *churn, unsigned round)
{
	struct nq_list list;
	const char *failed;

	write_list(churn->prefixes, round, "10.%u.%u.0/24 value %u\n");
	write_list(churn->names, round, "name%u.of%u.example%u\n");
	CHECK(nq_set_load(churn->cidrset, &churn->prefixes, 1, &list, &failed) == 0);
	CHECK(nq_set_load(churn->domainset, &churn->names, 1, &list, &failed) == 0);
}

static void work(void *context, unsigned number)
{
	struct churn *churn = context;
	double shown = 0;

	if (number > 0) {
		use_tables(churn, number);
		return;
	}
	for (unsigned round = 0; threads_now() < churn->end; round++) {
		struct nq_lru_stats stats;
		long now;

		load_lists(churn, round);
		now = resident();
		nq_store_stats(churn->store, &stats);
		CHECK(stats.bytes <= nq_store_max_bytes(churn->store));
		/* Full, and every thread has had its share of the allocator. */
		if (!churn->first && stats.evicted > 100000 && round >= 20)
			churn->first = now;
		churn->most = now > churn->most ? now : churn->most;
		if (threads_now() >= shown + 10) {
			shown = threads_now();
			printf("%8.0f s left: %6ld KB resident, %llu operations, %llu evicted\n",
			       churn->end - shown, now,
			       (unsigned long long)atomic_load(&churn->operations),
			       (unsigned long long)stats.evicted);
		}
	}
	atomic_store(&churn->done, true);
}

int threads_churn(double seconds)
{
	char prefixes[] = "/tmp/nfqueue-churn-XXXXXX", names[] = "/tmp/nfqueue-churn-XXXXXX";
	struct churn churn = {
		.store = threads_store(8 << 20),
		.bucket = threads_bucket(1, 10, 50000),
		.cidrset = threads_cidrset(),
		.domainset = threads_domainset(),
		.end = threads_now() + seconds,
		.prefixes = prefixes,
		.names = names,
	};

	CHECK(close(mkstemp(prefixes)) == 0 && close(mkstemp(names)) == 0);
	threads_run(THREADS, work, &churn);
	unlink(prefixes);
	unlink(names);
	nq_table_release((struct nq_table *)churn.store);
	nq_table_release((struct nq_table *)churn.bucket);
	nq_table_release((struct nq_table *)churn.cidrset);
	nq_table_release((struct nq_table *)churn.domainset);
	printf("%ld KB when full, %ld KB at most\n", churn.first, churn.most);
	CHECK(churn.first > 0);
	/* The allocator's leftovers vary by some megabytes with when a list is replaced. */
	return churn.most < churn.first + 8192 ? 0 : 1;
}
