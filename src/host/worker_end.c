/* A worker that ends itself, as a call into the script can be neither waited for nor interrupted.
 */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "host/overrun.h"
#include "host/worker_parts.h"

/*
 * How long the threads may take to come to rest; and how long at most where one that has not is
 * kept from it by want of a processor, of which it has had less than its part.
 */
enum { REST_MS = 40, LONGEST_REST_MS = 250, PART_MS = 20 };

/* Whether it could have come to rest. */
static bool had_chance(const struct nq_lane_thread *thread)
{
	return nq_thread_used(thread->thread) - thread->used >= PART_MS * INT64_C(1000000) ||
	       nq_thread_waits(thread->id);
}

/* Tells every loop that runs to stand still. The lock is held for moments only, but its holder may
 * wait to write a line: false then. */
static bool tell(struct nq_worker *worker)
{
	if (pthread_mutex_trylock(&worker->lock) != 0)
		return false;
	for (unsigned i = 0; i < worker->count; i++) {
		struct nq_lane_thread *thread = &worker->threads[i];

		if (thread->phase != NQ_JOINED)
			continue;
		thread->used = nq_thread_used(thread->thread);
		nq_loop_rest(thread->lane.loop);
	}
	pthread_mutex_unlock(&worker->lock);
	return true;
}

/* Whether nothing is to be gained by waiting any more, after `waited` milliseconds. */
static bool is_over(struct nq_worker *worker, unsigned lane, int waited)
{
	bool over = true;

	if (pthread_mutex_trylock(&worker->lock) != 0)
		return waited >= REST_MS;
	for (unsigned i = 0; i < worker->count; i++) {
		const struct nq_lane_thread *thread = &worker->threads[i];

		if (i != lane && thread->phase == NQ_JOINED && !nq_loop_rests(thread->lane.loop) &&
		    (waited < REST_MS || !had_chance(thread)))
			over = false;
	}
	pthread_mutex_unlock(&worker->lock);
	return over;
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

	for (int waited = 0; waited < LONGEST_REST_MS; waited++) {
		if (told ? is_over(worker, watched->lane, waited) : waited >= REST_MS)
			break;
		told = told || tell(worker);
		nanosleep(&pause, NULL);
	}
	if (nq_watched_kind(watched) == NQ_CALL_HANDLER && lane->cursor >= 0)
		lane->overran = 1;
	nq_overrun_write(worker->memory, watched);
	(void)kill(getpid(), SIGKILL);
}
