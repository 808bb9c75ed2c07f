/*
 * Another script for all lanes, or for none: each loads and opens it beside the one that judges;
 * when all have, each changes between two packets.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/channel.h"
#include "host/worker_parts.h"

/* --- The main thread --- */

static void start_stage(struct nq_worker *worker, enum nq_reload_stage stage)
{
	worker->stage = stage;
	for (unsigned i = 0; i < worker->count; i++)
		nq_loop_ask(worker->threads[i].lane.loop);
}

static void finish_reload(struct nq_worker *worker, const struct nq_failure *failure)
{
	(void)nq_channel_send_report(worker->job->channel, worker->generation, failure);
	worker->stage = NQ_RELOAD_NONE;
}

bool nq_reload_receive(struct nq_worker *worker)
{
	struct nq_failure failure = {0};
	struct nq_text script = {0};
	uint32_t generation = 0;
	int got = nq_channel_take_script(worker->job->channel, &generation, &script);

	if (got == -EPIPE)
		return false;
	if (got == 0)
		return true;
	pthread_mutex_lock(&worker->lock);
	if (got < 0)
		nq_fail(&failure, 1, -got, "the script did not reach the worker: %s",
			strerror(-got));
	else if (worker->stopping)
		nq_fail(&failure, 69, ESHUTDOWN, "the queues are being left");
	else if (worker->stage != NQ_RELOAD_NONE || worker->allowed < NQ_JOINED)
		nq_fail(&failure, 1, EBUSY, "another script is being loaded");
	if (failure.status) {
		(void)nq_channel_send_report(worker->job->channel, generation, &failure);
		nq_text_free(&script);
	} else {
		nq_text_free(&worker->script);
		worker->script = script;
		worker->generation = generation;
		for (unsigned i = 0; i < worker->count; i++) {
			worker->threads[i].reached = NQ_RELOAD_NONE;
			worker->threads[i].refused = false;
		}
		start_stage(worker, NQ_RELOAD_PREPARE);
	}
	pthread_mutex_unlock(&worker->lock);
	return true;
}

/* Whether every lane has come to the stage, and the first that refused; NULL: none. */
static bool survey(const struct nq_worker *worker, const struct nq_lane_thread **refused)
{
	bool all = true;

	*refused = NULL;
	for (unsigned i = 0; i < worker->count; i++) {
		const struct nq_lane_thread *thread = &worker->threads[i];

		all = all && thread->reached == worker->stage;
		if (thread->refused && !*refused)
			*refused = thread;
	}
	return all;
}

void nq_reload_advance(struct nq_worker *worker)
{
	static const struct nq_failure none = {0};
	const struct nq_lane_thread *refused;

	if (worker->stage == NQ_RELOAD_NONE)
		return;
	if (worker->stopping) {
		struct nq_failure failure;

		/* Lanes may be loading it still: its text stays. */
		nq_fail(&failure, 69, ESHUTDOWN, "the queues are being left");
		finish_reload(worker, &failure);
		return;
	}
	if (!survey(worker, &refused))
		return;
	if (worker->stage == NQ_RELOAD_PREPARE) {
		start_stage(worker, refused ? NQ_RELOAD_ABORT : NQ_RELOAD_COMMIT);
		return;
	}
	worker->ops->settle(worker->job->context, worker->generation,
			    worker->stage == NQ_RELOAD_COMMIT);
	finish_reload(worker, refused ? &refused->refusal : &none);
}

/* --- A lane's thread --- */

static struct nq_loop_judge judge_of(const struct nq_worker_lane *lane)
{
	return (struct nq_loop_judge){.settings = lane->settings,
				      .owners = lane->owners,
				      .context = lane->state,
				      .timers = lane->timers,
				      .budget = lane->budget};
}

/* The script's end, whether it has judged or not. */
static void end_script(struct nq_lane_thread *thread, struct nq_worker_lane *lane)
{
	thread->worker->ops->close(lane);
	thread->worker->ops->unload(lane);
	nq_worker_lane_fini(lane);
}

static int prepare(struct nq_lane_thread *thread, struct nq_failure *failure)
{
	const struct nq_worker_ops *ops = thread->worker->ops;
	struct nq_worker_lane *next = &thread->next;
	struct nq_loop_judge judge;

	*next = thread->lane;
	next->state = NULL;
	next->timers = NULL;
	next->budget = NULL;
	next->script = &thread->worker->script;
	next->generation = thread->worker->generation;
	if (nq_worker_lane_init(next) != 0) {
		nq_fail(failure, 1, ENOMEM, "not enough memory");
	} else if (ops->load(next, failure) == 0) {
		judge = judge_of(next);
		if (nq_loop_offer(next->loop, &judge, failure) == 0) {
			if (ops->open(next, failure) == 0)
				return 0;
			nq_loop_withdraw(next->loop, &judge);
		}
		ops->close(next);
	}
	ops->unload(next);
	nq_worker_lane_fini(next);
	return -failure->error;
}

void nq_reload_leave(struct nq_lane_thread *thread)
{
	struct nq_loop_judge judge;

	if (!thread->next.state)
		return;
	judge = judge_of(&thread->next);
	nq_loop_withdraw(thread->next.loop, &judge);
	end_script(thread, &thread->next);
}

static void commit(struct nq_lane_thread *thread)
{
	struct nq_worker_lane old = thread->lane;
	struct nq_loop_judge judge = judge_of(&thread->next);
	struct nq_failure failure;

	if (nq_loop_replace(old.loop, &judge, &failure) != 0)
		nq_log(NQ_LOG_ERROR, "%s; the script is changed without that", failure.message);
	pthread_mutex_lock(&thread->worker->lock); /* the main thread looks for the loop */
	thread->lane = thread->next;
	pthread_mutex_unlock(&thread->worker->lock);
	thread->next = (struct nq_worker_lane){0};
	end_script(thread, &old);
}

void nq_reload_serve(struct nq_lane_thread *thread)
{
	struct nq_worker *worker = thread->worker;
	struct nq_failure failure = {0};
	enum nq_reload_stage stage;
	int error = 0;
	bool due;

	pthread_mutex_lock(&worker->lock);
	stage = worker->stage;
	due = stage != NQ_RELOAD_NONE && stage != thread->reached;
	pthread_mutex_unlock(&worker->lock);
	if (!due)
		return;
	if (stage == NQ_RELOAD_PREPARE)
		error = prepare(thread, &failure);
	else if (stage == NQ_RELOAD_ABORT)
		nq_reload_leave(thread);
	else
		commit(thread);
	pthread_mutex_lock(&worker->lock);
	thread->reached = stage;
	if (error) {
		thread->refused = true;
		thread->refusal = failure;
	}
	pthread_mutex_unlock(&worker->lock);
	nq_worker_tell(worker);
}
