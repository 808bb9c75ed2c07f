/* A worker that ends itself, as a call into the script can be neither waited for nor interrupted.
 */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "host/overrun.h"
#include "host/worker_parts.h"

/* How long the threads may take to come to rest. */
enum { REST_MS = 40 };

/* Tells every loop that runs to stand still, or asks whether all but the lane's do. The lock is
 * held for moments only, but its holder may wait to write a line. */
static bool let_rest(struct nq_worker *worker, unsigned lane, bool tell)
{
	bool all = true;

	if (pthread_mutex_trylock(&worker->lock) != 0)
		return false;
	for (unsigned i = 0; i < worker->count; i++) {
		struct nq_lane_thread *thread = &worker->threads[i];

		if (thread->phase != NQ_JOINED)
			continue;
		if (tell)
			nq_loop_rest(thread->lane.loop);
		else if (i != lane && !nq_loop_rests(thread->lane.loop))
			all = false;
	}
	pthread_mutex_unlock(&worker->lock);
	return all;
}

/*
 * The only way to get the packet a verdict is another process. The other threads finish the packet
 * at hand first, send what they have decided and stand still; so does the thread of the call,
 * should it come back after all.
 */
void nq_worker_end(void *context, const struct nq_watched *watched)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	struct nq_worker *worker = context;
	struct nq_lane_memory *lane = nq_memory_lane(worker->memory, watched->lane);
	bool told = false;

	for (int waited = 0; waited < REST_MS; waited++) {
		if (told && let_rest(worker, watched->lane, false))
			break;
		told = told || let_rest(worker, watched->lane, true);
		nanosleep(&pause, NULL);
	}
	if (nq_watched_kind(watched) == NQ_CALL_HANDLER && lane->cursor >= 0)
		lane->overran = 1;
	nq_overrun_write(worker->memory, watched);
	(void)kill(getpid(), SIGKILL);
}
