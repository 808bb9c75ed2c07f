#include "host/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netlink/proc.h"

const char *const nq_counter_names[] = {
	"packets",   "bytes",	"accepted", "dropped",	"modified",  "again",  "requeued",
	"rejected",  "delayed", "held",	    "expired",	"undecided", "errors", "timeouts",
	"truncated", "refused", "lost",	    "injected", NULL,
};

_Static_assert(sizeof(nq_counter_names) / sizeof(nq_counter_names[0]) - 1 ==
		       sizeof(struct nq_counters) / sizeof(uint64_t),
	       "every counter has a name");

/* Queues of which the kernel is asked: each costs reading a file of as many lines. */
enum { ASKED_MOST = 256 };

static void print_queue(FILE *file, const struct nq_stats_source *source,
			const struct nq_queue_memory *queue)
{
	/* The struct is nothing but uint64_t; the worker writes it meanwhile. */
	const uint64_t *values = (const uint64_t *)&queue->counters;
	struct nq_proc_queue kernel;

	fprintf(file, "queue %u\n", queue->number);
	for (unsigned i = 0; nq_counter_names[i]; i++)
		fprintf(file, "%s %llu\n", nq_counter_names[i],
			(unsigned long long)__atomic_load_n(&values[i], __ATOMIC_RELAXED));
	if (source->proc >= 0 && source->memory->queue_count <= ASKED_MOST &&
	    nq_proc_read(source->proc, (uint16_t)queue->number, &kernel) == 0)
		fprintf(file, "kernel_queue_dropped %u\nkernel_user_dropped %u\nwaiting %u\n",
			kernel.queue_dropped, kernel.user_dropped, kernel.waiting);
}

char *nq_stats_text(const struct nq_stats_source *source)
{
	struct nq_memory *memory = source->memory;
	uint64_t enobufs = 0;
	char *text = NULL;
	size_t length;
	FILE *file = open_memstream(&text, &length);

	if (!file)
		return NULL;
	for (unsigned i = 0; i < memory->lane_count; i++)
		enobufs += __atomic_load_n(&nq_memory_lane(memory, i)->enobufs, __ATOMIC_RELAXED);
	fprintf(file, "name %s\nversion %s\npid %d\nstate %s\n", source->name, NQ_VERSION,
		(int)getpid(), source->state);
	if (source->worker)
		fprintf(file, "worker_pid %d\n", (int)source->worker);
	/* A line is a line. */
	if (!strchr(source->script, '\n'))
		fprintf(file, "script %s\n", source->script);
	fprintf(file, "threads %u\nworkers_lost %llu\nreloads %llu\nenobufs %llu\n",
		memory->lane_count, (unsigned long long)memory->workers_lost,
		(unsigned long long)memory->reloads, (unsigned long long)enobufs);
	for (unsigned i = 0; i < memory->queue_count; i++)
		print_queue(file, source, nq_memory_queue(memory, i));
	if (fclose(file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
