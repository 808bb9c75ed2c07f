/*
 * clock.h - the time a table goes by: the system's, a loaded handler's, or one that a spec moves.
 */
#ifndef NQ_TABLE_CLOCK_H
#define NQ_TABLE_CLOCK_H

#include <stdint.h>

/*
 * Asked only where time matters. Nanoseconds, not negative; all that use a table should go by one
 * clock, and one that goes back makes time stand still.
 */
struct nq_clock {
	int64_t (*now)(void *context);
	void *context;
};

static inline int64_t nq_clock_read(const struct nq_clock *clock)
{
	return clock->now(clock->context);
}

#endif
