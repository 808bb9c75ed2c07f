#include "host/standin.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "host/loop.h"

static void judge(void *context, struct nq_loop *loop)
{
	(void)context;
	while (nq_loop_next(loop))
		nq_loop_settle_error(loop);
}

/* Nothing here has timers or holds packets. */
static void do_nothing(void *context, struct nq_loop *loop)
{
	(void)context;
	(void)loop;
}

static void release_nothing(void *context, void *owner)
{
	(void)context;
	(void)owner;
}

static const struct nq_loop_calls calls = {
	.judge = judge,
	.tick = do_nothing,
	.release = release_nothing,
};

/* As the queues are bound, and judged by whoever has a script. NULL with errno. */
static struct nq_loop *make_loop(struct nq_memory *memory, unsigned number, int socket)
{
	const struct nq_lane_memory *lane = nq_memory_lane(memory, number);
	struct nq_settings *settings = calloc(lane->queue_count, sizeof(*settings));
	struct nq_loop *loop;
	int error;

	if (!settings)
		return NULL;
	for (unsigned i = 0; i < lane->queue_count; i++) {
		const struct nq_queue_memory *queue =
			nq_memory_queue(memory, lane->first_queue + i);

		settings[i] = (struct nq_settings){
			.kernel = queue->kernel,
			.default_verdict = (enum nq_verdict)queue->on_error,
			.on_error = (enum nq_verdict)queue->on_error,
			.buffer_size = queue->buffer_size,
		};
		/* Not known when its worker died while changing it. */
		settings[i].kernel.max_packets = queue->max_packets;
	}
	loop = nq_loop_new(memory, number, socket, settings, NULL, &calls, NULL, NULL);
	error = errno;
	free(settings);
	errno = error;
	return loop;
}

/* One loop after the other until none has anything, then whatever comes next: 0 or -errno. */
static int judge_all(struct nq_loop **loops, struct pollfd *ready, unsigned count)
{
	while (!ready[count].revents) {
		int most = 0;

		for (unsigned i = 0; i < count; i++) {
			int got;

			nq_loop_acknowledge(loops[i]);
			got = nq_loop_step(loops[i]);
			if (got < 0)
				return got;
			if (got > most)
				most = got;
		}
		if (poll(ready, count + 1, most ? 0 : -1) < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

int nq_stand_in(struct nq_memory *memory, const int *sockets, int stop_fd)
{
	struct nq_loop **loops = calloc(memory->lane_count, sizeof(struct nq_loop *));
	struct pollfd *ready = calloc(memory->lane_count + 1, sizeof(*ready));
	struct nq_failure failure = {.status = 0};
	unsigned count = 0;
	int error = -ENOMEM;

	if (!loops || !ready)
		goto out;
	for (unsigned i = 0; i < memory->lane_count; i++) {
		/* What no worker had bound, or what one had begun to leave, stays as it is. */
		if (!nq_memory_lane(memory, i)->joined)
			continue;
		loops[count] = make_loop(memory, i, sockets[i]);
		if (!loops[count]) {
			error = -errno;
			goto out;
		}
		ready[count] = (struct pollfd){.fd = loops[count]->epoll, .events = POLLIN};
		error = nq_loop_join(loops[count++], &failure);
		if (error)
			goto out;
	}
	ready[count] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
	error = judge_all(loops, ready, count);
	for (unsigned i = 0; i < count && !error; i++)
		nq_loop_leave(loops[i]);
out:
	if (error)
		nq_log(NQ_LOG_ERROR, "cannot stand in for the worker: %s",
		       failure.status ? failure.message : strerror(-error));
	for (unsigned i = 0; loops && i < count; i++)
		nq_loop_free(loops[i]);
	free(loops);
	free(ready);
	return error ? 1 : 0;
}
