/*
 * Nanoseconds an operation takes while 1, 2 and 4 threads do it at once. Wall-clock time of one
 * thread's operation: with more threads than processors they also wait for these.
 */
#include <stdio.h>
#include <string.h>

#include "threads.h"

enum { OPERATIONS = 400000, KEYS = 1000 };

struct figure {
	const char *name;
	void (*work)(void *context, unsigned number);
};

struct context {
	struct nq_store *store;
	struct nq_bucket *bucket;
};

static size_t write_key(char key[32], unsigned thread, unsigned number)
{
	return (size_t)snprintf(key, 32, "10.%u.%u.%u", thread, number / 256, number % 256);
}

static void incr_same(void *given, unsigned number)
{
	struct nq_value one = {.kind = NQ_VALUE_INTEGER, .integer = 1}, result;
	struct context *context = given;

	(void)number;
	for (int i = 0; i < OPERATIONS; i++)
		nq_store_incr(context->store, "10.0.0.1", 8, &one, 0, &threads_clock, &result);
}

static void get_same(void *given, unsigned number)
{
	struct context *context = given;
	struct nq_value value;

	(void)number;
	for (int i = 0; i < OPERATIONS; i++)
		nq_store_get(context->store, "10.0.0.1", 8, &threads_clock, &value, NULL, 0);
}

static void work_own(struct context *context, unsigned number, bool write)
{
	struct nq_value one = {.kind = NQ_VALUE_INTEGER, .integer = 1}, result;
	static const char form[] = "10.x.yy";
	char key[sizeof(form)];

	memcpy(key, form, sizeof(form));
	key[3] = (char)('0' + number);
	for (unsigned i = 0; i < OPERATIONS; i++) {
		key[5] = (char)('0' + i % 37);
		key[6] = (char)('0' + i % 27);
		if (write)
			nq_store_incr(context->store, key, 7, &one, 0, &threads_clock, &result);
		else
			nq_store_get(context->store, key, 7, &threads_clock, &result, NULL, 0);
	}
}

static void incr_own(void *context, unsigned number)
{
	work_own(context, number, true);
}

static void get_own(void *context, unsigned number)
{
	work_own(context, number, false);
}

static void set_new(void *given, unsigned number)
{
	struct nq_value value = {.kind = NQ_VALUE_INTEGER, .integer = 1};
	struct context *context = given;

	for (uint64_t i = 0; i < OPERATIONS; i++) {
		uint64_t key = (uint64_t)number << 56 | i;

		nq_store_set(context->store, &key, sizeof(key), &value, 0, &threads_clock);
	}
}

static void take_same(void *given, unsigned number)
{
	struct context *context = given;

	(void)number;
	for (int i = 0; i < OPERATIONS; i++)
		nq_bucket_take(context->bucket, "10.0.0.1", 8, 1, &threads_clock);
}

static void take_many(void *given, unsigned number)
{
	struct context *context = given;
	char key[32];

	for (unsigned i = 0; i < OPERATIONS; i++)
		nq_bucket_take(context->bucket, key, write_key(key, number, i % KEYS), 1,
			       &threads_clock);
}

static double measure(const struct figure *figure, struct context *context, unsigned threads)
{
	double least = 1e9;

	for (int i = 0; i < 5; i++) {
		double start = threads_now();

		threads_run(threads, figure->work, context);
		start = threads_now() - start;
		least = start < least ? start : least;
	}
	return least / OPERATIONS * 1e9;
}

int threads_contend(void)
{
	static const struct figure figures[] = {
		{"get, the same key", get_same},	   {"get, 1,000 keys a thread", get_own},
		{"incr, the same key", incr_same},	   {"incr, 1,000 keys a thread", incr_own},
		{"set of a new key, full store", set_new}, {"take, the same key", take_same},
		{"take, 1,000 keys a thread", take_many},
	};
	static const unsigned threads[] = {1, 2, 4};

	printf("nanoseconds an operation of one thread, least of 5 runs, without Lua\n");
	printf("%-32s %10s %10s %10s\n", "", "1 thread", "2 threads", "4 threads");
	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
		struct context context = {.store = threads_store(16 << 20),
					  .bucket = threads_bucket(1e9, 1e9, 65536)};

		printf("%-32s", figures[i].name);
		for (size_t k = 0; k < sizeof(threads) / sizeof(threads[0]); k++)
			printf(" %10.0f", measure(&figures[i], &context, threads[k]));
		printf("\n");
		nq_table_release((struct nq_table *)context.store);
		nq_table_release((struct nq_table *)context.bucket);
	}
	return 0;
}
