/*
 * log.h - one line an event on standard error, with a journal priority when the journal reads it.
 *
 * Lines are written with one write(2) each, so threads and processes do not mix theirs. No state:
 * what is below the level in the environment variable NFQUEUE_LOG (debug, info, warn, error;
 * default info) is not written.
 */
#ifndef NQ_LOG_H
#define NQ_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum nq_log_level { NQ_LOG_DEBUG, NQ_LOG_INFO, NQ_LOG_WARN, NQ_LOG_ERROR };

/* Whether lines of this level are written. */
bool nq_log_enabled(enum nq_log_level level);

void nq_log(enum nq_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * A limit for lines that hostile traffic could cause: a token bucket of `burst` lines that refills
 * at `burst` lines a second. Zeroed at start; one thread. *suppressed tells how many were refused
 * since the last that was allowed.
 */
struct nq_log_limit {
	int64_t nanoseconds; /* of the last refill, monotonic */
	double tokens;
	uint64_t suppressed;
	bool started;
};

bool nq_log_allow(struct nq_log_limit *limit, double burst, uint64_t *suppressed);

#endif
