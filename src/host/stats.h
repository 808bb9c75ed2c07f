/*
 * stats.h - what the supervisor tells of a running instance: from the memory that it shares with
 * the worker, and from the kernel. The worker is not asked.
 */
#ifndef NQ_STATS_H
#define NQ_STATS_H

#include <sys/types.h>

#include "host/memory.h"

struct nq_stats_source {
	struct nq_memory *memory;
	const char *name;   /* of the instance */
	const char *script; /* path */
	const char *state;  /* a word */
	pid_t worker;	    /* 0: none */
	int proc;	    /* of nq_proc_open */
};

/* "word value" lines: of the instance, then for each queue, beginning with "queue N". A string from
 * malloc; NULL: not enough memory. */
char *nq_stats_text(const struct nq_stats_source *source);

/* The names of struct nq_counters, in its order, up to a NULL. */
extern const char *const nq_counter_names[];

#endif
