/*
 * Stores, buckets and sets under several threads, without Lua.
 *
 *     threads stress             what they promise, while all threads pull at once; also under
 * sanitizers threads contend            nanoseconds an operation with 1, 2 and 4 threads threads
 * churn [SECONDS]    resident memory while everything comes and goes: flat, or it fails
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "threads.h"

void threads_fail(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
	exit(1);
}

struct start {
	pthread_barrier_t *barrier;
	void (*work)(void *context, unsigned number);
	void *context;
	unsigned number;
};

static void *run(void *argument)
{
	const struct start *start = argument;

	pthread_barrier_wait(start->barrier);
	start->work(start->context, start->number);
	return NULL;
}

void threads_run(unsigned count, void (*work)(void *context, unsigned number), void *context)
{
	struct start starts[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	pthread_barrier_t barrier;

	CHECK(count <= THREADS_MAX);
	pthread_barrier_init(&barrier, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		starts[i] = (struct start){&barrier, work, context, i};
		CHECK(pthread_create(&threads[i], NULL, run, &starts[i]) == 0);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
}

uint32_t threads_below(uint64_t *seed, uint32_t limit)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (uint32_t)((*seed >> 32) % limit);
}

static int64_t one_second(void *context)
{
	(void)context;
	return 1000000000;
}

const struct nq_clock threads_clock = {.now = one_second};

double threads_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct nq_store *threads_store(size_t max_bytes)
{
	struct nq_store_options options = {.max_bytes = max_bytes};
	struct nq_table *table = nq_store_class.make(&options);

	CHECK(table);
	return (struct nq_store *)table;
}

struct nq_bucket *threads_bucket(double rate, double burst, uint32_t max)
{
	struct nq_bucket_options options = {.rate = rate, .burst = burst, .max = max};
	struct nq_table *table = nq_bucket_class.make(&options);

	CHECK(table);
	return (struct nq_bucket *)table;
}

static struct nq_set *make_set(const struct nq_table_class *class, const struct nq_set_kind *kind)
{
	void *builder = kind->builder_new();
	void *content = builder ? kind->build(builder) : NULL;
	struct nq_set_options options = {.kind = kind, .content = &content};
	struct nq_table *table;

	CHECK(content);
	kind->builder_free(builder);
	table = class->make(&options);
	CHECK(table);
	return (struct nq_set *)table;
}

struct nq_set *threads_cidrset(void)
{
	return make_set(&nq_cidrset_class, &nq_cidr_kind);
}

struct nq_set *threads_domainset(void)
{
	return make_set(&nq_domainset_class, &nq_domain_kind);
}

int main(int argc, char **argv)
{
	const char *part = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (strcmp(part, "stress") == 0)
		return threads_stress();
	if (strcmp(part, "contend") == 0)
		return threads_contend();
	if (strcmp(part, "churn") == 0)
		return threads_churn(argc > 2 ? strtod(argv[2], NULL) : 600);
	fprintf(stderr, "usage: threads stress | contend | churn [SECONDS]\n");
	return 64;
}
