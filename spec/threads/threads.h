/*
 * threads.h - what the tests of tables under several threads share: threads that start together,
 * checks, random numbers, a clock that stands still.
 */
#ifndef THREADS_H
#define THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "table/bucket.h"
#include "table/cidr.h"
#include "table/domain.h"
#include "table/store.h"

enum { THREADS_MAX = 16 };

/* Ends the program with the place when it does not hold. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			threads_fail(__FILE__, __LINE__, #condition);                              \
	} while (0)

_Noreturn void threads_fail(const char *file, int line, const char *condition);

/* Runs work(context, 0), work(context, 1), ... in a thread each, started together; returns when all
 * have ended. */
void threads_run(unsigned count, void (*work)(void *context, unsigned number), void *context);

/* 0 to limit - 1. Each thread has a seed of its own, not 0. */
uint32_t threads_below(uint64_t *seed, uint32_t limit);

/* Stands at a second. */
extern const struct nq_clock threads_clock;

/* The system's. Seconds. */
double threads_now(void);

struct nq_store *threads_store(size_t max_bytes);
struct nq_bucket *threads_bucket(double rate, double burst, uint32_t max);
struct nq_set *threads_cidrset(void);
struct nq_set *threads_domainset(void);

/* Parts of the program: 0, or the status it ends with. */
int threads_stress(void);
int threads_contend(void);
int threads_churn(double seconds);

#endif
