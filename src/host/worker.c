#include "host/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ASK_MS = 500 };

enum phase { LOADING, OPENED, JOINED, ENDED };

struct worker;

struct lane_thread {
	struct nq_worker_lane lane;
	struct worker *worker;
	pthread_t thread;
	bool started;
	/* Under the worker's lock. */
	enum phase phase;
	bool failed;
	struct nq_failure failure;
};

struct worker {
	struct nq_memory *memory;
	const struct nq_worker_ops *ops;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int report;	    /* eventfd: a thread changed its phase */
	enum phase allowed; /* how far threads may go */
	bool stopping;
	unsigned count;
	struct lane_thread *threads;
	struct nq_watchdog *watchdog;
};

static void enter_phase(struct lane_thread *thread, enum phase phase)
{
	struct worker *worker = thread->worker;
	uint64_t one = 1;

	pthread_mutex_lock(&worker->lock);
	thread->phase = phase;
	pthread_mutex_unlock(&worker->lock);
	(void)!write(worker->report, &one, sizeof(one));
}

static void fail_thread(struct lane_thread *thread)
{
	pthread_mutex_lock(&thread->worker->lock);
	thread->failed = true;
	pthread_mutex_unlock(&thread->worker->lock);
}

/* Waits until every other thread has come as far: false when the run is being given up instead. */
static bool wait_for(struct worker *worker, enum phase phase)
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
	struct lane_thread *thread = argument;
	struct nq_worker_lane *lane = &thread->lane;
	struct worker *worker = thread->worker;
	bool opened = false;

	if (worker->ops->load(lane, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	lane->loop = nq_loop_new(worker->memory, lane->number, lane->socket, lane->settings,
				 lane->owners, worker->ops->calls, lane->state, lane->timers);
	if (!lane->loop) {
		nq_fail(&thread->failure, 1, errno, "cannot start a queue thread: %s",
			strerror(errno));
		fail_thread(thread);
		goto out;
	}
	if (worker->ops->open(lane, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	opened = true;
	enter_phase(thread, OPENED);
	if (!wait_for(worker, JOINED))
		goto out;
	if (nq_loop_join(lane->loop, &thread->failure) != 0) {
		fail_thread(thread);
		goto out;
	}
	enter_phase(thread, JOINED);
	for (;;) {
		int error = nq_loop_run(lane->loop);

		if (error == -EINTR)
			continue; /* a debugger, or a stop and continue: signals are blocked here */
		if (error) {
			nq_fail(&thread->failure, 1, -error, "queue %u ended: %s",
				lane->queues[0].number, strerror(-error));
			fail_thread(thread);
		}
		break;
	}
	nq_loop_leave(lane->loop);
out:
	if (opened)
		worker->ops->close(lane);
	worker->ops->unload(lane);
	enter_phase(thread, ENDED);
	return NULL;
}

/* The least phase of all threads, and whether any failed or ended. */
static enum phase survey(struct worker *worker, bool *ended)
{
	enum phase least = ENDED;

	*ended = false;
	for (unsigned i = 0; i < worker->count; i++) {
		struct lane_thread *thread = &worker->threads[i];

		if (thread->phase < least)
			least = thread->phase;
		if (thread->failed || thread->phase == ENDED)
			*ended = true;
	}
	return least;
}

static void stop_all(struct worker *worker)
{
	worker->stopping = true;
	pthread_cond_broadcast(&worker->changed);
	for (unsigned i = 0; i < worker->count; i++) {
		struct lane_thread *thread = &worker->threads[i];

		/* The loop is freed after the thread is joined, so a thread past JOINED is stopped
		 * safely. */
		if (thread->phase == JOINED)
			nq_loop_stop(thread->lane.loop);
	}
}

/* Said by the command only: a library's host has its own words. */
static void log_ready(const struct worker *worker)
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

static void watch_threads(struct worker *worker, int stop_fd, bool (*interrupted)(void *context),
			  void *context)
{
	for (;;) {
		struct pollfd ready[2] = {{.fd = worker->report, .events = POLLIN},
					  {.fd = stop_fd, .events = POLLIN}};
		uint64_t count;
		enum phase least;
		bool ended;
		bool stop = false;

		/* A signal that comes just before the wait is seen at its end. */
		(void)poll(ready, 2, interrupted ? ASK_MS : -1);
		if (interrupted && interrupted(context))
			stop = true;
		if (ready[1].revents) {
			stop = true;
			stop_fd = -1; /* stays readable, and was understood */
		}
		(void)!read(worker->report, &count, sizeof(count));
		pthread_mutex_lock(&worker->lock);
		least = survey(worker, &ended);
		if (least >= OPENED && !ended && worker->allowed < JOINED) {
			worker->allowed = JOINED;
			pthread_cond_broadcast(&worker->changed);
		}
		if (least == JOINED && !ended && worker->memory->worker_state != NQ_WORKER_READY) {
			__atomic_store_n(&worker->memory->worker_state, NQ_WORKER_READY,
					 __ATOMIC_RELEASE);
			for (unsigned i = 0; i < worker->count; i++)
				nq_loop_report_buffer(worker->threads[i].lane.loop);
			if (!interrupted)
				log_ready(worker);
		}
		/* Again at each report while stopping: a thread may have joined just before it
		 * could see it. */
		if (stop || ended || worker->stopping)
			stop_all(worker);
		pthread_mutex_unlock(&worker->lock);
		if (least == ENDED)
			return;
	}
}

static int start_thread(struct worker *worker, unsigned number, int socket, void *context)
{
	struct lane_thread *thread = &worker->threads[number];
	struct nq_lane_memory *lane = nq_memory_lane(worker->memory, number);
	int error;

	thread->worker = worker;
	thread->lane = (struct nq_worker_lane){
		.number = number,
		.socket = socket,
		.queue_count = lane->queue_count,
		.queues = nq_memory_queue(worker->memory, lane->first_queue),
		.settings = calloc(lane->queue_count, sizeof(struct nq_settings)),
		.owners = calloc(lane->queue_count, sizeof(void *)),
		.context = context,
		.memory = worker->memory,
		.watchdog = worker->watchdog,
	};
	if (!thread->lane.settings || !thread->lane.owners)
		return -ENOMEM;
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

int nq_worker_run(struct nq_memory *memory, const int *sockets, const struct nq_worker_ops *ops,
		  void *context, int stop_fd, bool (*interrupted)(void *context),
		  struct nq_failure *failure)
{
	struct worker worker = {.memory = memory,
				.ops = ops,
				.lock = PTHREAD_MUTEX_INITIALIZER,
				.changed = PTHREAD_COND_INITIALIZER,
				.count = memory->lane_count};
	sigset_t all, old;
	int error = 0;

	worker.report = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker.threads = calloc(worker.count, sizeof(*worker.threads));
	if (worker.report < 0 || !worker.threads) {
		error = nq_fail(failure, 1, errno, "cannot start the queue threads: %s",
				strerror(errno));
		goto out;
	}
	worker.watchdog = nq_watchdog_new(NULL, &worker);
	if (!worker.watchdog)
		nq_log(NQ_LOG_WARN, "time_limit is not enforced: no thread can watch: %s",
		       strerror(errno));
	/*
	 * In a host's process the signals are for its main thread, which waits below. The
	 * supervised worker has no handlers, and what scripts start there shall not inherit blocked
	 * signals.
	 */
	if (interrupted)
		sigfillset(&all);
	else
		sigemptyset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	for (unsigned i = 0; i < worker.count && !error; i++) {
		error = start_thread(&worker, i, sockets[i], context);
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
		watch_threads(&worker, stop_fd, interrupted, context);
	}
	for (unsigned i = 0; i < memory->lane_count; i++) {
		struct lane_thread *thread = &worker.threads[i];

		if (thread->started)
			pthread_join(thread->thread, NULL);
		if (thread->failed && !error) {
			*failure = thread->failure;
			error = -failure->error;
		}
		nq_loop_free(thread->lane.loop);
		free(thread->lane.settings);
		free(thread->lane.owners);
	}
out:
	nq_watchdog_free(worker.watchdog);
	if (worker.report >= 0)
		close(worker.report);
	free(worker.threads);
	return error;
}
