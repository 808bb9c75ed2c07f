#include "host/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netlink/message.h"

enum { SEND_TRIES = 1000 };

static uint8_t *slot_at(const struct nq_loop *loop, unsigned slot)
{
	return loop->slots + (size_t)slot * NQ_SLOT_STRIDE;
}

static unsigned slot_length(const struct nq_loop *loop, unsigned slot)
{
	return loop->memory->messages[slot].msg_len;
}

/* Every store that a successor reads is made in program order; on the same machine that is enough.
 */
static void set_cursor(struct nq_loop *loop, int32_t cursor)
{
	__atomic_store_n(&loop->memory->cursor, cursor, __ATOMIC_RELEASE);
}

static struct nq_loop_queue *find_queue(struct nq_loop *loop, uint16_t number)
{
	if (loop->index)
		return loop->index[number] ? &loop->queues[loop->index[number] - 1] : NULL;
	return loop->queues[0].number == number ? &loop->queues[0] : NULL;
}

struct nq_loop *nq_loop_new(struct nq_memory *memory, unsigned lane, int socket,
			    const struct nq_settings *settings, void *const *owners,
			    nq_judge *judge, void *context)
{
	struct nq_lane_memory *shared = nq_memory_lane(memory, lane);
	struct nq_loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event event = {.events = EPOLLIN};
	struct iovec *pieces;
	int error;

	if (!loop)
		return NULL;
	loop->epoll = loop->wake = loop->proc = -1;
	loop->socket = socket;
	loop->memory = shared;
	loop->slots = (uint8_t *)memory + shared->slots;
	loop->judge = judge;
	loop->context = context;
	loop->batch = (struct nq_batch){
		.store = &shared->batch, .base = loop->slots, .fd = socket, .serial = 1};
	loop->queue_count = shared->queue_count;
	/* The iovecs lie behind the queues: one allocation, freed with them. */
	loop->queues =
		calloc(1, loop->queue_count * sizeof(*loop->queues) + NQ_SLOTS * sizeof(*pieces));
	if (!loop->queues)
		goto out;
	pieces = (struct iovec *)(loop->queues + loop->queue_count);
	for (unsigned i = 0; i < NQ_SLOTS; i++) {
		pieces[i] = (struct iovec){slot_at(loop, i), NQ_SLOT_MESSAGE};
		shared->messages[i].msg_hdr =
			(struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
	}
	if (loop->queue_count > 1) {
		loop->index = calloc(65536, sizeof(*loop->index));
		if (!loop->index)
			goto out;
	}
	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];

		queue->memory = nq_memory_queue(memory, shared->first_queue + i);
		queue->number = (uint16_t)queue->memory->number;
		queue->settings = settings[i];
		queue->owner = owners ? owners[i] : NULL;
		if (loop->index)
			loop->index[queue->number] = i + 1;
	}
	loop->proc = nq_proc_open();
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->wake < 0 || loop->epoll < 0)
		goto out;
	event.data.fd = loop->socket;
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->socket, &event) < 0)
		goto out;
	event.data.fd = loop->wake;
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) < 0)
		goto out;
	return loop;
out:
	error = errno;
	nq_loop_free(loop);
	errno = error;
	return NULL;
}

void nq_loop_free(struct nq_loop *loop)
{
	if (!loop)
		return;
	if (loop->proc >= 0)
		close(loop->proc);
	if (loop->wake >= 0)
		close(loop->wake);
	if (loop->epoll >= 0)
		close(loop->epoll);
	free(loop->index);
	free(loop->queues);
	free(loop);
}

/* Sends every verdict in the batch; want of memory is waited out, as a packet without verdict
 * stays. */
static int flush(struct nq_loop *loop)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	int error = 0;

	for (int try = 0; try < SEND_TRIES; try++) {
		error = nq_batch_flush(&loop->batch);
		if (error != -ENOBUFS && error != -ENOMEM && error != -EAGAIN)
			break;
		nanosleep(&pause, NULL);
	}
	if (error)
		nq_log(NQ_LOG_ERROR, "cannot send verdicts, so the queue is given up: %s%s",
		       strerror(-error),
		       error == -EPERM ? " (CAP_NET_ADMIN is needed for every verdict)" : "");
	return error;
}

static void count_verdict(struct nq_counters *counters, const struct nq_packet *packet)
{
	switch (packet->verdict) {
	case NQ_DROP:
		counters->dropped++;
		break;
	case NQ_AGAIN:
		counters->again++;
		break;
	case NQ_REQUEUE:
		counters->requeued++;
		break;
	default:
		if (packet->send & NQ_SEND_BYTES)
			counters->modified++;
		else
			counters->accepted++;
	}
}

void nq_loop_settle(struct nq_loop *loop)
{
	count_verdict(&loop->current->memory->counters, &loop->packet);
	nq_batch_add(&loop->batch, &loop->current->run, &loop->packet, false);
	loop->verdicts++;
	loop->settled = true;
}

void nq_loop_settle_error(struct nq_loop *loop)
{
	struct nq_packet *packet = &loop->packet;

	if (!loop->current || loop->settled)
		return;
	packet->verdict = loop->current->settings.on_error;
	packet->send = 0;
	loop->current->memory->counters.errors++;
	nq_loop_settle(loop);
}

static void finish_takeover(struct nq_loop *loop, struct nq_loop_queue *queue, uint32_t last)
{
	queue->takeover = false;
	nq_batch_add_id(&loop->batch, queue->number, last, queue->settings.on_error, true);
}

static void handle_answer(struct nq_loop *loop, const struct nq_answer *answer)
{
	struct nq_loop_queue *queue = find_queue(loop, nq_seq_queue(answer->seq));

	if (loop->awaited == answer->seq) {
		loop->answered = true;
		loop->answer = answer->error;
		return;
	}
	switch (nq_seq_class(answer->seq)) {
	case NQ_SEQ_VERDICT:
		if (queue && answer->error)
			queue->memory->counters.refused++;
		break;
	case NQ_SEQ_BARRIER:
		/* No packet came before the answer: what was numbered up to the barrier has no
		 * other reader. */
		if (queue && queue->takeover && queue->barrier_known)
			finish_takeover(loop, queue, queue->barrier);
		break;
	default:
		break;
	}
}

static void meet_packet(struct nq_loop *loop, struct nq_loop_queue *queue)
{
	struct nq_packet *packet = &loop->packet;
	struct nq_queue_memory *memory = queue->memory;

	if (queue->takeover)
		finish_takeover(loop, queue, packet->id - 1);
	if (memory->seen)
		memory->counters.lost += packet->id - memory->last_id - 1;
	memory->seen = 1;
	memory->last_id = packet->id;
	memory->counters.packets++;
	memory->counters.bytes +=
		packet->have & NQ_HAVE_WIRE_LENGTH ? packet->wire_length : packet->length;
	if (nq_packet_truncated(packet))
		memory->counters.truncated++;
	loop->current = queue;
	loop->settled = false;
}

struct nq_packet *nq_loop_next(struct nq_loop *loop)
{
	nq_loop_settle_error(loop);
	loop->current = NULL;
	while (loop->next < loop->filled) {
		unsigned slot = loop->next++;
		struct nq_loop_queue *queue;
		struct nq_answer answer;

		set_cursor(loop, (int32_t)slot);
		if (loop->next < loop->filled)
			__builtin_prefetch(slot_at(loop, loop->next));
		loop->packet.spare = slot_at(loop, slot) + NQ_SLOT_MESSAGE;
		switch (nq_message_read(&loop->packet, &answer, slot_at(loop, slot),
					slot_length(loop, slot))) {
		case NQ_MESSAGE_ANSWER:
			handle_answer(loop, &answer);
			break;
		case NQ_MESSAGE_PACKET:
			queue = find_queue(loop, loop->packet.queue);
			if (!queue)
				break;
			meet_packet(loop, queue);
			return &loop->packet;
		case NQ_MESSAGE_BROKEN:
			queue = find_queue(loop, loop->packet.queue);
			if (!queue)
				break;
			meet_packet(loop, queue);
			nq_loop_settle_error(loop);
			loop->current = NULL;
			break;
		case NQ_MESSAGE_IGNORED:
			break;
		}
	}
	return NULL;
}

/* Judges slots [next, filled), sends, and leaves the slots free. */
static int judge_received(struct nq_loop *loop)
{
	int error;

	while (loop->next < loop->filled) {
		unsigned before = loop->next;

		loop->judge(loop->context, loop);
		nq_loop_settle_error(loop);
		loop->current = NULL;
		if (loop->next == before) {
			/* A judge that takes nothing would loop for ever: this packet is the
			 * policy's. */
			(void)nq_loop_next(loop);
			nq_loop_settle_error(loop);
			loop->current = NULL;
		}
	}
	set_cursor(loop, NQ_CURSOR_DONE);
	error = flush(loop);
	for (unsigned i = 0; i < loop->filled; i++)
		loop->memory->messages[i].msg_len = 0;
	loop->filled = loop->next = 0;
	return error;
}

static void count_overrun(struct nq_loop *loop)
{
	uint64_t suppressed;

	loop->memory->enobufs++;
	if (nq_log_allow(&loop->limit, 1, &suppressed))
		nq_log(NQ_LOG_WARN,
		       "receive buffer overrun on queue %u: the kernel dropped packets; raise "
		       "buffer_size "
		       "(asked for %u bytes)",
		       loop->queues[0].number, loop->queues[0].settings.buffer_size);
}

/* Receives up to `most` messages into the slots from `filled` on, without waiting: their number or
 * -errno. */
static int receive(struct nq_loop *loop, unsigned most)
{
	for (;;) {
		int got;

		/* Before the call: a death on return from it must not look as if all were judged.
		 */
		set_cursor(loop, NQ_CURSOR_RECEIVING);
		got = recvmmsg(loop->socket, loop->memory->messages + loop->filled, most,
			       MSG_DONTWAIT, NULL);
		if (got >= 0) {
			loop->filled += (unsigned)got;
			return got;
		}
		if (errno == EAGAIN)
			return 0;
		if (errno == ENOBUFS)
			count_overrun(loop);
		else if (errno != EINTR)
			return -errno;
	}
}

int nq_loop_step(struct nq_loop *loop)
{
	int got = (int)(loop->filled - loop->next);
	int error;

	if (got == 0) {
		got = receive(loop, NQ_SLOTS);
		if (got < 0) {
			nq_log(NQ_LOG_ERROR, "cannot receive, so the queue is given up: %s",
			       strerror(-got));
			return got;
		}
		if (got == 0)
			return 0;
	}
	error = judge_received(loop);
	return error ? error : got;
}

int nq_loop_run(struct nq_loop *loop)
{
	while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		struct epoll_event events[2];
		int got = nq_loop_step(loop);

		if (got < 0)
			return got;
		if (got == NQ_SLOTS)
			continue; /* there may be more: no need to ask */
		if (epoll_wait(loop->epoll, events, 2, -1) < 0)
			return -errno;
	}
	return 0;
}

static void wake(struct nq_loop *loop)
{
	uint64_t one = 1;

	/* The counter cannot be full; it only adds to what is read after each batch anyway. */
	(void)!write(loop->wake, &one, sizeof(one));
}

void nq_loop_stop(struct nq_loop *loop)
{
	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	wake(loop);
}

void nq_loop_acknowledge(struct nq_loop *loop)
{
	uint64_t count;

	(void)!read(loop->wake, &count, sizeof(count));
}

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
			int error = judge_received(loop);

			if (error)
				return error;
			continue;
		}
		got = receive(loop, 1);
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
		switch (nq_message_read(&packet, &answer, slot_at(loop, slot),
					slot_length(loop, slot))) {
		case NQ_MESSAGE_PACKET:
		case NQ_MESSAGE_BROKEN:
			continue;
		case NQ_MESSAGE_ANSWER:
			handle_answer(loop, &answer);
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

static int probe_flag(struct nq_loop *loop, const struct nq_loop_queue *queue, unsigned bit)
{
	uint32_t seq = config_seq(queue, 1 + bit);
	int error = nq_config_probe_flag(loop->socket, queue->number, 1u << bit, seq);

	return error ? error : await_answer(loop, seq);
}

static int limit_queue(struct nq_loop *loop, const struct nq_loop_queue *queue,
		       uint32_t max_packets, bool fail_open)
{
	uint32_t seq = config_seq(queue, 32);
	int error;

	do {
		error = nq_config_limit(loop->socket, queue->number, max_packets, fail_open, seq);
		if (!error)
			error = await_answer(loop, seq);
	} while (error == -ENOBUFS); /* the answer fell to an overrun that reading has cleared */
	return error;
}

static int unbind_queue(struct nq_loop *loop, const struct nq_loop_queue *queue)
{
	uint32_t seq = config_seq(queue, 33);
	int error;

	do {
		error = nq_config_unbind(loop->socket, queue->number, seq);
		if (!error)
			error = await_answer(loop, seq);
	} while (error == -ENOBUFS);
	return error == -ENODEV ? 0 : error;
}

static int send_bind(struct nq_loop *loop, const struct nq_loop_queue *queue,
		     const struct nq_queue_config *config)
{
	uint32_t seq = config_seq(queue, 34);
	int error = nq_config_bind(loop->socket, queue->number, config, seq);

	if (!error)
		error = await_answer(loop, seq);
	/* If only the answer was lost the queue is ours and takes its length again. */
	return error == -ENOBUFS ? limit_queue(loop, queue, config->max_packets, false) : error;
}

static int fail_flag(struct nq_failure *failure, const struct nq_loop_queue *queue, unsigned bit)
{
	return nq_fail(failure, 69, EOPNOTSUPP,
		       "this kernel does not support %s (queue %u): it needs %s", nq_flag_name(bit),
		       queue->number, nq_flag_requirement(bit));
}

/* EPERM means no privilege or another holder; a request that needs only privilege tells them apart.
 */
static int fail_permission(struct nq_loop *loop, struct nq_failure *failure,
			   const struct nq_loop_queue *queue)
{
	struct nq_proc_queue line;
	char name[32];
	pid_t pid;

	if (nq_config_check_privilege() == -EPERM)
		return nq_fail(failure, 77, EPERM,
			       "no privilege to use queue %u: it needs CAP_NET_ADMIN in this "
			       "network namespace "
			       "(run as root, or try it without root inside `nfqueue lab`)",
			       queue->number);
	if (loop->proc < 0 || nq_proc_read(loop->proc, queue->number, &line) != 0)
		return nq_fail(failure, 69, EBUSY,
			       "queue %u is held by another process; as root, `cat "
			       "/proc/net/netfilter/nfnetlink_queue` shows its port id in the "
			       "second column, "
			       "usually the process id",
			       queue->number);
	pid = nq_proc_holder(line.portid, name);
	if (!pid)
		return nq_fail(failure, 69, EBUSY,
			       "queue %u is held by another process with netlink port id %u "
			       "(usually its process "
			       "id); as root, `ss -A netlink -p` shows its name",
			       queue->number, line.portid);
	return nq_fail(failure, 69, EBUSY,
		       "queue %u is held by %s (pid %d); stop it or use another number",
		       queue->number, pid == getpid() ? "this process itself" : name, (int)pid);
}

static int fail_request(struct nq_loop *loop, struct nq_failure *failure,
			const struct nq_loop_queue *queue, int error)
{
	switch (error) {
	case -EPERM:
		return fail_permission(loop, failure, queue);
	case -EINVAL:
		return nq_fail(failure, 69, EINVAL,
			       "this kernel has no nfnetlink_queue: it needs "
			       "CONFIG_NETFILTER_NETLINK_QUEUE (as "
			       "root, try `modprobe nfnetlink_queue`)");
	case -EBUSY:
		return nq_fail(failure, 69, EBUSY, "queue %u is already bound here", queue->number);
	default:
		return nq_fail(failure, 1, -error, "cannot configure queue %u: %s", queue->number,
			       strerror(-error));
	}
}

/*
 * Kernels that look for the queue before its flags cannot be asked about a flag beforehand: bind
 * without any and set each alone.
 */
static int name_refused_flag(struct nq_loop *loop, struct nq_failure *failure,
			     const struct nq_loop_queue *queue)
{
	struct nq_queue_config plain = queue->settings.kernel;
	int error;

	plain.flags = 0;
	(void)unbind_queue(loop, queue);
	error = send_bind(loop, queue, &plain);
	if (error)
		return fail_request(loop, failure, queue, error);
	for (unsigned bit = 0; bit < NQ_FLAG_COUNT; bit++) {
		if (queue->settings.kernel.flags & 1u << bit &&
		    probe_flag(loop, queue, bit) == -EOPNOTSUPP) {
			(void)unbind_queue(loop, queue);
			return fail_flag(failure, queue, bit);
		}
	}
	return 0;
}

static int bind_queue(struct nq_loop *loop, const struct nq_loop_queue *queue,
		      struct nq_failure *failure)
{
	int error;

	for (unsigned bit = 0; bit < NQ_FLAG_COUNT; bit++) {
		if (!(queue->settings.kernel.flags & 1u << bit))
			continue;
		error = probe_flag(loop, queue, bit);
		if (error == -EOPNOTSUPP)
			return fail_flag(failure, queue, bit);
		if (error != 0 && error != -ENODEV)
			return fail_request(loop, failure, queue, error);
	}
	error = send_bind(loop, queue, &queue->settings.kernel);
	if (error == -EOPNOTSUPP)
		return name_refused_flag(loop, failure, queue);
	return error ? fail_request(loop, failure, queue, error) : 0;
}

static void set_buffer(struct nq_loop *loop)
{
	uint64_t wanted = 0;
	uint32_t got = 0;
	int error;

	for (unsigned i = 0; i < loop->queue_count; i++)
		wanted += loop->queues[i].settings.buffer_size;
	if (wanted > INT32_MAX / 2)
		wanted = INT32_MAX / 2;
	error = nq_socket_set_buffer(loop->socket, (uint32_t)wanted, &got);
	if (error)
		nq_log(NQ_LOG_WARN, "cannot set the receive buffer of queue %u: %s",
		       loop->queues[0].number, strerror(-error));
	else if (got < wanted)
		nq_log(NQ_LOG_WARN,
		       "receive buffer of queue %u: asked for %u bytes, the system gave %u; raise "
		       "net.core.rmem_max or run with CAP_NET_ADMIN, else bursts are lost",
		       loop->queues[0].number, (uint32_t)wanted, got);
	for (unsigned i = 0; !error && i < loop->queue_count; i++)
		if (got < wanted)
			loop->queues[i].settings.buffer_size = got / loop->queue_count;
}

static void unbind_all(struct nq_loop *loop, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int error = unbind_queue(loop, &loop->queues[i]);

		if (error)
			nq_log(NQ_LOG_WARN, "cannot leave queue %u: %s", loop->queues[i].number,
			       strerror(-error));
	}
	loop->bound = false;
	loop->memory->joined = 0;
	/* What lies unread was dropped by the unbinding; the gap is counted, not judged. */
	for (unsigned i = 0; i < loop->filled; i++)
		loop->memory->messages[i].msg_len = 0;
	loop->filled = loop->next = 0;
	set_cursor(loop, NQ_CURSOR_DONE);
}

static void report_culprit(const struct nq_packet *packet)
{
	char hex[3 * 64 + 1] = "";
	uint32_t shown = packet->length < 64 ? packet->length : 64;

	for (uint32_t i = 0; i < shown; i++) {
		static const char digits[] = "0123456789abcdef";

		hex[2 * i] = digits[packet->data[i] >> 4];
		hex[2 * i + 1] = digits[packet->data[i] & 15];
		hex[2 * i + 2] = '\0';
	}
	nq_log(NQ_LOG_ERROR,
	       "the worker died in the handler of packet %u of queue %u, %u bytes: %s%s",
	       packet->id, packet->queue, packet->length, hex, shown < packet->length ? "..." : "");
}

/*
 * The successor of a dead worker, whose sockets and memory these are: first what was decided and
 * maybe sent, then on_error for the packet in the handler, then the handler for the rest of the
 * batch. Packets whose message died with the worker are found by id: see the barrier in
 * handle_answer and meet_packet.
 */
static int take_over(struct nq_loop *loop)
{
	struct nq_lane_memory *memory = loop->memory;
	int32_t cursor = memory->cursor;
	int error;

	nq_batch_doubt(&loop->batch);
	error = flush(loop);
	if (error)
		return error;
	for (loop->filled = 0; loop->filled < NQ_SLOTS && slot_length(loop, loop->filled);)
		loop->filled++;
	loop->next = cursor < 0 ? 0 : (unsigned)cursor;
	if (loop->next > loop->filled)
		loop->next = loop->filled;
	if (cursor >= 0 && loop->next < loop->filled) {
		/* One slot only: nq_loop_next would go on past a message that is no packet. */
		unsigned filled = loop->filled;

		loop->filled = loop->next + 1;
		if (nq_loop_next(loop)) {
			report_culprit(&loop->packet);
			nq_loop_settle_error(loop);
			loop->current = NULL;
			nq_batch_doubt(&loop->batch);
		}
		loop->filled = filled;
	}
	error = judge_received(loop);
	if (error)
		return error;
	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];
		struct nq_proc_queue line;

		queue->takeover = true;
		queue->barrier_known =
			loop->proc >= 0 && nq_proc_read(loop->proc, queue->number, &line) == 0;
		queue->barrier = queue->barrier_known ? line.id_sequence : 0;
		error = nq_config_limit(loop->socket, queue->number,
					queue->settings.kernel.max_packets, false,
					nq_seq(NQ_SEQ_BARRIER, queue->number, 0));
		if (error)
			return error;
	}
	loop->bound = true;
	return 0;
}

int nq_loop_join(struct nq_loop *loop, struct nq_failure *failure)
{
	set_buffer(loop);
	if (loop->memory->joined) {
		int error = take_over(loop);

		return error ? nq_fail(failure, 1, -error, "cannot take the queues over: %s",
				       strerror(-error))
			     : 0;
	}
	for (unsigned i = 0; i < loop->queue_count; i++) {
		int error = bind_queue(loop, &loop->queues[i], failure);

		if (error) {
			unbind_all(loop, i);
			return error;
		}
	}
	loop->bound = true;
	loop->memory->joined = 1;
	if (loop->filled)
		wake(loop); /* they are no longer in the socket, which would tell of them */
	return 0;
}

void nq_loop_leave(struct nq_loop *loop)
{
	int64_t budget = 0;
	int got;

	if (!loop->bound)
		return;
	/*
	 * Where unjudged packets may pass, the kernel lets them pass from here on and what it holds
	 * is judged. Where they may not, judging goes on until nothing waits; what comes in the
	 * instant before the unbinding is dropped, as it would be by on_error. The budget ends it
	 * under constant overload.
	 */
	for (unsigned i = 0; i < loop->queue_count; i++) {
		const struct nq_loop_queue *queue = &loop->queues[i];

		budget += queue->settings.kernel.max_packets + NQ_SLOTS;
		if (queue->settings.on_error == NQ_ACCEPT)
			(void)limit_queue(loop, queue, 0, true);
	}
	do {
		got = nq_loop_step(loop);
		budget -= got;
	} while (got > 0 && budget > 0);
	unbind_all(loop, loop->queue_count);
}

int nq_loop_stats(const struct nq_loop *loop, const struct nq_loop_queue *queue,
		  struct nq_counters *counters, struct nq_proc_queue *kernel)
{
	*counters = queue->memory->counters;
	return loop->proc < 0 ? loop->proc : nq_proc_read(loop->proc, queue->number, kernel);
}
