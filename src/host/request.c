/* Requests to the kernel about a queue, each sent until it is answered. */
#include <errno.h>
#include <poll.h>

#include "host/loop_parts.h"

enum { ANSWER_TRIES = 100, BIND_TRIES = 3 };

/*
 * Waits for the answer to request `seq`; packets that come before it are kept in their slots, or
 * judged when those are full. The answer's errno as -errno, -ENOBUFS when it may be lost,
 * -ETIMEDOUT.
 */
static int await_answer(struct nq_loop *loop, uint32_t seq)
{
	struct pollfd ready = {.fd = loop->socket, .events = POLLIN};
	uint64_t overruns = loop->memory->enobufs;

	loop->awaited = seq;
	loop->answered = false;
	while (!loop->answered) {
		struct nq_packet packet = {0};
		struct nq_answer answer;
		unsigned slot = loop->filled;
		int got;

		if (slot == NQ_SLOTS) {
			int error = nq_loop_judge_received(loop);

			if (error)
				return error;
			continue;
		}
		got = nq_loop_receive(loop, 1);
		if (got < 0)
			return got;
		if (loop->memory->enobufs != overruns)
			return -ENOBUFS;
		if (got == 0) {
			int count = poll(&ready, 1, 2000);

			if (count < 0 && errno != EINTR)
				return -errno;
			if (count == 0)
				return -ETIMEDOUT;
			continue;
		}
		switch (nq_message_read(&packet, &answer, nq_loop_slot(loop, slot),
					nq_loop_slot_length(loop, slot))) {
		case NQ_MESSAGE_PACKET:
		case NQ_MESSAGE_BROKEN:
			continue;
		case NQ_MESSAGE_ANSWER:
			nq_loop_handle_answer(loop, &answer);
			break;
		case NQ_MESSAGE_IGNORED:
			break;
		}
		loop->memory->messages[slot].msg_len = 0;
		loop->filled = slot;
	}
	loop->awaited = 0;
	return -loop->answer;
}

static uint32_t config_seq(const struct nq_loop_queue *queue, uint32_t what)
{
	return nq_seq(NQ_SEQ_CONFIG, queue->number, what);
}

/* One request: what it is about, and how it is sent. */
struct request {
	uint16_t queue;
	uint32_t value; /* a flag, or max_packets */
	bool fail_open;
	const struct nq_queue_config *config;
	int (*send)(int fd, const struct request *request, uint32_t seq);
};

static int send_probe(int fd, const struct request *request, uint32_t seq)
{
	return nq_config_probe_flag(fd, request->queue, request->value, seq);
}

static int send_limit(int fd, const struct request *request, uint32_t seq)
{
	return nq_config_limit(fd, request->queue, request->value, request->fail_open, seq);
}

static int send_unbind(int fd, const struct request *request, uint32_t seq)
{
	return nq_config_unbind(fd, request->queue, seq);
}

static int send_bind(int fd, const struct request *request, uint32_t seq)
{
	struct nq_queue_config config = {
		.max_packets = 1, .copy_range = 1, .flags = request->value};

	return nq_config_bind(fd, request->queue, &config, seq);
}

static int send_change(int fd, const struct request *request, uint32_t seq)
{
	return nq_config_change(fd, request->queue, request->config, seq);
}

/* Sends until the answer comes: an overrun can take it along, and reading clears that. */
static int ask(struct nq_loop *loop, const struct request *request, uint32_t seq)
{
	int error = -ENOBUFS;

	for (int try = 0; try < ANSWER_TRIES && error == -ENOBUFS; try++) {
		error = request->send(loop->socket, request, seq);
		if (!error)
			error = await_answer(loop, seq);
	}
	return error;
}

static int send_privilege(int fd, const struct request *request, uint32_t seq)
{
	(void)request;
	return nq_config_ask_privilege(fd, seq);
}

int nq_loop_ask_privilege(struct nq_loop *loop, const struct nq_loop_queue *queue)
{
	struct request request = {.send = send_privilege};

	return ask(loop, &request, config_seq(queue, 36 + NQ_FLAG_COUNT));
}

int nq_loop_probe_flag(struct nq_loop *loop, const struct nq_loop_queue *queue, unsigned bit)
{
	struct request request = {.queue = queue->number, .value = 1u << bit, .send = send_probe};

	return ask(loop, &request, config_seq(queue, 1 + bit));
}

int nq_loop_limit(struct nq_loop *loop, const struct nq_loop_queue *queue, uint32_t max_packets,
		  bool fail_open)
{
	struct request request = {.queue = queue->number,
				  .value = max_packets,
				  .fail_open = fail_open,
				  .send = send_limit};

	queue->memory->kernel.max_packets = max_packets;
	if (fail_open)
		queue->memory->kernel.flags |= NQ_FLAG_FAIL_OPEN;
	return ask(loop, &request, config_seq(queue, 32));
}

int nq_loop_unbind(struct nq_loop *loop, const struct nq_loop_queue *queue)
{
	struct request request = {.queue = queue->number, .send = send_unbind};
	int error = ask(loop, &request, config_seq(queue, 33));

	return error == -ENODEV ? 0 : error;
}

int nq_loop_bind(struct nq_loop *loop, const struct nq_loop_queue *queue,
		 const struct nq_queue_config *config)
{
	uint32_t seq = config_seq(queue, 34);
	int error = 0;

	for (int try = 0; try < BIND_TRIES; try++) {
		error = nq_config_bind(loop->socket, queue->number, config, seq);
		if (!error)
			error = await_answer(loop, seq);
		/* If only the answer was lost the queue is ours and takes its length again; else it
		 * was the request. */
		if (error == -ENOBUFS) {
			error = nq_loop_limit(loop, queue, config->max_packets, false);
			if (error == -ENODEV)
				continue;
		}
		/* Ours already, from a worker that died while binding or leaving: bind it anew. */
		if (error != -EBUSY || nq_loop_unbind(loop, queue) != 0)
			break;
	}
	if (!error)
		queue->memory->kernel = *config;
	return error;
}

/* Flags come before the command, which fails as the queue is bound: nothing is changed. */
static int check_flag(struct nq_loop *loop, const struct nq_loop_queue *queue, unsigned bit)
{
	struct request request = {.queue = queue->number, .value = 1u << bit, .send = send_bind};
	int error = ask(loop, &request, config_seq(queue, 35 + bit));

	return error == -EBUSY ? 0 : error;
}

int nq_loop_check_flags(struct nq_loop *loop, const struct nq_loop_queue *queue,
			const struct nq_queue_config *config, struct nq_failure *failure)
{
	uint32_t more = config->flags & ~queue->memory->kernel.flags;

	for (unsigned bit = 0; bit < NQ_FLAG_COUNT; bit++) {
		int error = more & 1u << bit ? check_flag(loop, queue, bit) : 0;

		if (error == -EOPNOTSUPP)
			return nq_loop_fail_flag(failure, queue, bit);
		if (error)
			return nq_loop_fail_request(loop, failure, queue, error);
	}
	return 0;
}

int nq_loop_change(struct nq_loop *loop, const struct nq_loop_queue *queue,
		   const struct nq_queue_config *config)
{
	struct request request = {.queue = queue->number, .config = config, .send = send_change};

	struct nq_queue_config before = queue->memory->kernel;
	int error;

	/* A death on the way leaves none that another is equal to. */
	queue->memory->kernel.max_packets = 0;
	error = ask(loop, &request, config_seq(queue, 35 + NQ_FLAG_COUNT));
	queue->memory->kernel = error ? before : *config;
	return error;
}
