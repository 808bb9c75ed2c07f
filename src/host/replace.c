/* Another judge for a loop that is bound, between two packets. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "host/loop_parts.h"

/* What came while an answer was awaited: still the old judge's. */
static int judge_earlier(struct nq_loop *loop)
{
	int error = loop->next < loop->filled ? nq_loop_judge_received(loop) : 0;

	if (error)
		loop->failed = error;
	return error;
}

int nq_loop_offer(struct nq_loop *loop, const struct nq_loop_judge *judge,
		  struct nq_failure *failure)
{
	int error = 0;

	if (judge->timers->alarm->fd < 0)
		error = nq_loop_open_timers(judge->timers);
	if (!error)
		error = nq_loop_watch(loop, judge->timers->alarm->fd, false);
	if (error)
		return nq_fail(failure, 1, -error, "cannot wait for the script's timers: %s",
			       strerror(-error));
	for (unsigned i = 0; i < loop->queue_count && !error; i++)
		error = nq_loop_check_flags(loop, &loop->queues[i], &judge->settings[i].kernel,
					    failure);
	(void)judge_earlier(loop);
	if (error)
		nq_loop_withdraw(loop, judge);
	return error;
}

void nq_loop_withdraw(struct nq_loop *loop, const struct nq_loop_judge *judge)
{
	if (judge->timers->alarm->fd >= 0)
		(void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, judge->timers->alarm->fd, NULL);
}

/* The kernel's answer lies behind every packet that it copied under the old settings. */
static int change_kernel(struct nq_loop *loop, const struct nq_loop_judge *judge,
			 struct nq_failure *failure)
{
	int result = 0;

	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];
		const struct nq_queue_config *config = &judge->settings[i].kernel;
		int error = nq_config_equal(&queue->memory->kernel, config)
				    ? 0
				    : nq_loop_change(loop, queue, config);

		if (error)
			result = nq_loop_fail_request(loop, failure, queue, error);
	}
	return result;
}

static void take_settings(struct nq_loop *loop, const struct nq_loop_judge *judge)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < loop->queue_count; i++)
		sum += judge->settings[i].buffer_size;
	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];
		uint32_t given = queue->settings.buffer_size;

		nq_loop_take_settings(queue, &judge->settings[i]);
		queue->settings.kernel = queue->memory->kernel;
		queue->owner = judge->owners[i];
		/* What the system gave, when as much is asked for as before. */
		if (sum == loop->buffer_wanted)
			queue->settings.buffer_size = given;
	}
	if (sum != loop->buffer_wanted) {
		nq_loop_set_buffer(loop);
		nq_loop_report_buffer(loop);
	}
}

/* Those of delayed packets, which stay. */
static void move_copies(struct nq_loop *loop, struct nq_budget *budget)
{
	int64_t used = (int64_t)loop->keep.arena.used;

	if (loop->budget)
		nq_budget_take_copy(loop->budget, -used);
	if (budget)
		nq_budget_take_copy(budget, used);
	loop->budget = budget;
}

int nq_loop_replace(struct nq_loop *loop, const struct nq_loop_judge *judge,
		    struct nq_failure *failure)
{
	int error = change_kernel(loop, judge, failure);

	if (judge_earlier(loop) == 0) {
		nq_keep_end_held(loop);
		loop->failed = loop->failed ? loop->failed : nq_loop_finish(loop);
	}
	if (loop->timers && loop->timers->alarm->fd >= 0)
		(void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, loop->timers->alarm->fd, NULL);
	take_settings(loop, judge);
	move_copies(loop, judge->budget);
	loop->context = judge->context;
	loop->timers = judge->timers;
	/* Room for it was taken by the offer. */
	(void)nq_loop_watch(loop, loop->timers->alarm->fd, true);
	return error;
}
