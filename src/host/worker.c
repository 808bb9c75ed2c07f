#include "host/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/channel.h"
#include "host/worker_parts.h"

enum { ASK_MS = 500 };

void nq_worker_tell(struct nq_worker *worker)
{
	uint64_t one = 1;

	(void)!write(worker->report, &one, sizeof(one));
}

static void enter_phase(struct nq_lane_thread *thread, enum nq_phase phase)
{
	struct nq_worker *worker = thread->worker;

	pthread_mutex_lock(&worker->lock);
	thread->phase = phase;
	pthread_mutex_unlock(&worker->lock);
	nq_worker_tell(worker);
}

static void fail_thread(struct nq_lane_thread *thread)
{
	pthread_mutex_lock(&thread->worker->lock);
	thread->failed = true;
	pthread_mutex_unlock(&thread->worker->lock);
}

/* Waits until every other thread has come as far: false when the run is being given up instead. */
static bool wait_for(struct nq_worker *worker, enum nq_phase phase)
{
	bool go;

	pthread_mutex_lock(&worker->lock);
	while (worker->allowed < phase && !worker->stopping)
		pthread_cond_wait(&worker->changed, &worker->lock);
	go = !worker->stopping;
	pthread_mutex_unlock(&worker->lock);
	return go;
}

/* The life of a lane: state and script, loop, `open`; then the kernel; then all of it backwards. */
static void *run_lane(void *argument)
{
	struct nq_lane_thread *thread = argument;
	struct nq_worker_lane *lane = &thread->lane;
	struct nq_worker *worker = thread->worker;
	bool loaded = false;
	int error;

	thread->id = (int)syscall(SYS_gettid);
	if (worker->ops->load(lane, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	loaded = true;
	lane->loop = nq_loop_new(worker->memory, lane->number, lane->socket, lane->settings,
				 lane->owners, worker->ops->calls, lane->state, lane->timers);
	if (!lane->loop) {
		nq_fail(&thread->failure, 1, errno, "cannot start a queue thread: %s",
			strerror(errno));
		fail_thread(thread);
		goto out;
	}
	lane->loop->budget = lane->budget;
	if (worker->ops->open(lane, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	enter_phase(thread, NQ_OPENED);
	if (!wait_for(worker, NQ_JOINED))
		goto out;
	if (nq_loop_join(lane->loop, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	enter_phase(thread, NQ_JOINED);
	for (;;) {
		error = nq_loop_run(lane->loop);
		if (error == -EINTR)
			continue; /* a debugger, or a stop and continue: signals are blocked here */
		if (error == NQ_LOOP_ASKED) {
			nq_reload_serve(thread);
			continue;
		}
		if (error) {
			nq_fail(&thread->failure, 1, -error, "queue %u ended: %s",
				lane->queues[0].number, strerror(-error));
			fail_thread(thread);
		}
		break;
	}
	/* A successor, where there is one, takes the queues as they are: what is decided and could
	 * not be sent, and what waits unread, would be dropped with the binding. */
	if (!error || worker->job->interrupted)
		nq_loop_leave(lane->loop);
	nq_reload_leave(thread);
out:
	if (loaded)
		worker->ops->close(lane);
	worker->ops->unload(lane);
	enter_phase(thread, NQ_ENDED);
	return NULL;
}

/* The least phase of all threads, and whether any failed or ended. */
static enum nq_phase survey(struct nq_worker *worker, bool *ended)
{
	enum nq_phase least = NQ_ENDED;

	*ended = false;
	for (unsigned i = 0; i < worker->count; i++) {
		struct nq_lane_thread *thread = &worker->threads[i];

		if (thread->phase < least)
			least = thread->phase;
		if (thread->failed || thread->phase == NQ_ENDED)
			*ended = true;
	}
	return least;
}

static void stop_all(struct nq_worker *worker)
{
	worker->stopping = true;
	pthread_cond_broadcast(&worker->changed);
	for (unsigned i = 0; i < worker->count; i++) {
		struct nq_lane_thread *thread = &worker->threads[i];

		/* The loop is freed after the thread is joined, so a thread past NQ_JOINED is
		 * stopped safely. */
		if (thread->phase == NQ_JOINED)
			nq_loop_stop(thread->lane.loop);
	}
}

/* Said by the command only: a library's host has its own words. */
static void log_ready(const struct nq_worker *worker)
{
	const struct nq_memory *memory = worker->memory;
	const char *threads = memory->lane_count == 1 ? "" : "s";

	if (memory->workers_lost)
		nq_log(NQ_LOG_WARN, "this worker starts with empty stores, flows and buckets: the "
				    "dead one took its own along");
	if (memory->queue_count == 1)
		nq_log(NQ_LOG_INFO, "ready: queue %u, %u thread%s, worker pid %d",
		       worker->threads[0].lane.queues[0].number, memory->lane_count, threads,
		       (int)getpid());
	else
		nq_log(NQ_LOG_INFO, "ready: %u queues, %u thread%s, worker pid %d",
		       memory->queue_count, memory->lane_count, threads, (int)getpid());
}

/* Under the lock: all judge. */
static void tell_ready(struct nq_worker *worker)
{
	static const struct nq_failure none = {0};

	__atomic_store_n(&worker->memory->worker_state, NQ_WORKER_READY, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < worker->count; i++)
		nq_loop_report_buffer(worker->threads[i].lane.loop);
	if (worker->job->interrupted)
		return;
	log_ready(worker);
	(void)nq_channel_send_report(worker->job->channel, worker->job->generation, &none);
}

/* Whether a dead worker has left packets: they are judged before this one stops, whoever asks. */
static bool is_successor(const struct nq_worker *worker)
{
	for (unsigned i = 0; i < worker->count; i++) {
		if (nq_memory_lane(worker->memory, i)->joined)
			return true;
	}
	return false;
}

static void watch_threads(struct nq_worker *worker)
{
	const struct nq_worker_job *job = worker->job;
	bool successor = is_successor(worker);
	bool asked = false;
	int channel = job->channel;

	for (;;) {
		struct pollfd ready[2] = {{.fd = worker->report, .events = POLLIN},
					  {.fd = channel, .events = POLLIN}};
		uint64_t count;
		enum nq_phase least;
		bool ended;
		bool stop = false;

		/* A signal that comes just before the wait is seen at its end. */
		(void)poll(ready, 2, job->interrupted ? ASK_MS : -1);
		if (job->interrupted && job->interrupted(job->context))
			stop = true;
		if (ready[1].revents && !nq_reload_receive(worker)) {
			stop = true;
			channel = -1; /* stays readable, and was understood */
		}
		(void)!read(worker->report, &count, sizeof(count));
		pthread_mutex_lock(&worker->lock);
		least = survey(worker, &ended);
		if (least >= NQ_OPENED && !ended && worker->allowed < NQ_JOINED) {
			worker->allowed = NQ_JOINED;
			pthread_cond_broadcast(&worker->changed);
		}
		if (least == NQ_JOINED && !ended && worker->memory->worker_state != NQ_WORKER_READY)
			tell_ready(worker);
		/* Again at each report while stopping: a thread may have joined just before it
		 * could see it. */
		asked |= stop;
		if (ended || worker->stopping || (asked && (!successor || least >= NQ_JOINED)))
			stop_all(worker);
		nq_reload_advance(worker);
		pthread_mutex_unlock(&worker->lock);
		if (least == NQ_ENDED)
			return;
	}
}

int nq_worker_lane_init(struct nq_worker_lane *lane)
{
	lane->settings = calloc(lane->queue_count, sizeof(*lane->settings));
	lane->owners = calloc(lane->queue_count, sizeof(*lane->owners));
	return lane->settings && lane->owners ? 0 : -ENOMEM;
}

void nq_worker_lane_fini(struct nq_worker_lane *lane)
{
	free(lane->settings);
	free(lane->owners);
	lane->settings = NULL;
	lane->owners = NULL;
}

static int start_thread(struct nq_worker *worker, unsigned number)
{
	struct nq_lane_thread *thread = &worker->threads[number];
	struct nq_lane_memory *lane = nq_memory_lane(worker->memory, number);
	int error;

	thread->worker = worker;
	thread->lane = (struct nq_worker_lane){
		.number = number,
		.socket = worker->job->sockets[number],
		.queue_count = lane->queue_count,
		.queues = nq_memory_queue(worker->memory, lane->first_queue),
		.context = worker->job->context,
		.memory = worker->memory,
		.watchdog = worker->watchdog,
		.script = &worker->job->script,
		.generation = worker->job->generation,
	};
	error = nq_worker_lane_init(&thread->lane);
	if (error)
		return error;
	error = pthread_create(&thread->thread, NULL, run_lane, thread);
	thread->started = error == 0;
	if (thread->started) {
		char name[16];

		snprintf(name, sizeof(name), "queue %u",
			 lane->queue_count ? thread->lane.queues[0].number : 0);
		(void)pthread_setname_np(thread->thread, name);
	}
	return -error;
}

int nq_worker_run(const struct nq_worker_job *job, struct nq_failure *failure)
{
	struct nq_worker worker = {.job = job,
				   .memory = job->memory,
				   .ops = job->ops,
				   .lock = PTHREAD_MUTEX_INITIALIZER,
				   .changed = PTHREAD_COND_INITIALIZER,
				   .count = job->memory->lane_count};
	sigset_t all, old;
	int error = 0;

	worker.report = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker.threads = calloc(worker.count, sizeof(*worker.threads));
	if (worker.report < 0 || !worker.threads) {
		error = nq_fail(failure, 1, errno, "cannot start the queue threads: %s",
				strerror(errno));
		goto out;
	}
	/* A host's process is not ours to end. */
	worker.watchdog = nq_watchdog_new(job->interrupted ? NULL : nq_worker_end, &worker);
	if (!worker.watchdog)
		nq_log(NQ_LOG_WARN, "time_limit is not enforced: no thread can watch: %s",
		       strerror(errno));
	/*
	 * In a host's process the signals are for its main thread, which waits below. The
	 * supervised worker has no handlers, and what scripts start there shall not inherit blocked
	 * signals.
	 */
	if (job->interrupted)
		sigfillset(&all);
	else
		sigemptyset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	for (unsigned i = 0; i < worker.count && !error; i++) {
		error = start_thread(&worker, i);
		if (error) {
			nq_fail(failure, 1, -error, "cannot start queue thread %u: %s", i,
				strerror(-error));
			worker.count = i;
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error) {
		pthread_mutex_lock(&worker.lock);
		stop_all(&worker);
		pthread_mutex_unlock(&worker.lock);
	} else {
		watch_threads(&worker);
	}
	for (unsigned i = 0; i < job->memory->lane_count; i++) {
		struct nq_lane_thread *thread = &worker.threads[i];

		if (thread->started)
			pthread_join(thread->thread, NULL);
		if (thread->failed && !error) {
			*failure = thread->failure;
			error = -failure->error;
		}
		nq_loop_free(thread->lane.loop);
		nq_worker_lane_fini(&thread->lane);
	}
out:
	nq_watchdog_free(worker.watchdog);
	if (worker.report >= 0)
		close(worker.report);
	free(worker.threads);
	nq_text_free(&worker.script);
	return error;
}
