/*
 * clock.h - the time that everything here is measured in: monotonic, nanoseconds.
 */
#ifndef NQ_CLOCK_H
#define NQ_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NQ_SECOND INT64_C(1000000000)

static inline int64_t nq_clock_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * NQ_SECOND + time.tv_nsec;
}

#endif
