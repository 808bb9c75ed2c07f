#include "host/loop_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SEND_TRIES = 1000 };

struct nq_loop_queue *nq_loop_find_queue(struct nq_loop *loop, uint16_t number)
{
	if (loop->index)
		return loop->index[number] ? &loop->queues[loop->index[number] - 1] : NULL;
	return loop->queues[0].number == number ? &loop->queues[0] : NULL;
}

int nq_loop_watch(const struct nq_loop *loop, int fd, bool armed)
{
	struct epoll_event event = {.events = armed ? EPOLLIN : 0, .data.fd = fd};

	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ||
	    (errno == EEXIST && epoll_ctl(loop->epoll, EPOLL_CTL_MOD, fd, &event) == 0))
		return 0;
	return -errno;
}

/* Timers may have been added before there was a loop to wait for them. */
int nq_loop_open_timers(struct nq_timers *timers)
{
	int error = nq_alarm_open(timers->alarm);

	if (!error)
		nq_alarm_at(timers->alarm, nq_timers_due(timers));
	return error;
}

struct nq_loop *nq_loop_new(struct nq_memory *memory, unsigned lane, int socket,
			    const struct nq_settings *settings, void *const *owners,
			    const struct nq_loop_calls *calls, void *context,
			    struct nq_timers *timers)
{
	struct nq_lane_memory *shared = nq_memory_lane(memory, lane);
	struct nq_loop *loop = calloc(1, sizeof(*loop));
	struct iovec *pieces;
	int error;

	if (!loop)
		return NULL;
	loop->epoll = loop->wake = loop->proc = loop->keep.alarm.fd = -1;
	loop->socket = socket;
	loop->memory = shared;
	loop->base = (uint8_t *)memory;
	loop->slots = loop->base + shared->slots;
	loop->calls = calls;
	loop->context = context;
	loop->timers = timers;
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
		pieces[i] = (struct iovec){nq_loop_slot(loop, i), NQ_SLOT_MESSAGE};
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
		nq_loop_take_settings(queue, &settings[i]);
		queue->owner = owners ? owners[i] : NULL;
		if (loop->index)
			loop->index[queue->number] = i + 1;
	}
	loop->proc = nq_proc_open();
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->wake < 0 || loop->epoll < 0)
		goto out;
	errno = -nq_keep_init(loop, memory);
	if (!errno && timers && timers->alarm->fd < 0)
		errno = -nq_loop_open_timers(timers);
	if (errno)
		goto out;
	errno = -nq_loop_watch(loop, loop->socket, true);
	if (!errno)
		errno = -nq_loop_watch(loop, loop->wake, true);
	if (!errno)
		errno = -nq_loop_watch(loop, loop->keep.alarm.fd, true);
	if (!errno && timers)
		errno = -nq_loop_watch(loop, timers->alarm->fd, true);
	if (errno)
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
	nq_keep_fini(loop);
	free(loop->index);
	free(loop->queues);
	free(loop);
}

/* Sends every verdict in the batch; want of memory is waited out, as a packet without verdict
 * stays. */
int nq_loop_flush(struct nq_loop *loop)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	int error = 0;

	if (loop->doubtful)
		nq_batch_doubt(&loop->batch);
	for (int try = 0; try < SEND_TRIES; try++) {
		error = nq_batch_flush(&loop->batch);
		if (error != -ENOBUFS && error != -ENOMEM && error != -EAGAIN && error != -EMSGSIZE)
			break;
		nanosleep(&pause, NULL);
	}
	if (error)
		nq_log(NQ_LOG_ERROR, "cannot send verdicts, so the queue is given up: %s%s",
		       strerror(-error),
		       error == -EPERM ? " (CAP_NET_ADMIN is needed for every verdict)" : "");
	return error;
}

int nq_loop_finish(struct nq_loop *loop)
{
	int error = nq_loop_flush(loop);

	/* What could not be sent refers to the copies. */
	if (!error && loop->keep.settled)
		nq_keep_sweep(loop);
	return error;
}

int64_t nq_loop_now(struct nq_loop *loop)
{
	if (!loop->stepping)
		return nq_clock_now();
	if (!loop->now)
		loop->now = nq_clock_now();
	return loop->now;
}

void nq_loop_count_verdict(struct nq_loop_queue *queue, const struct nq_packet *packet)
{
	struct nq_counters *counters = &queue->memory->counters;

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
	case NQ_REJECT:
		counters->rejected++;
		break;
	case NQ_DELAY:
		counters->delayed++;
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
	struct nq_loop_queue *queue = loop->current;

	if (loop->packet.verdict != NQ_DELAY) {
		/* Full only when a flush has failed, and with it the loop: see
		 * nq_loop_judge_received. */
		if (nq_batch_full(&loop->batch) && nq_loop_flush(loop) != 0)
			return;
		if (loop->packet.verdict == NQ_REJECT)
			nq_loop_answer(loop, queue, &loop->packet);
		nq_batch_add(&loop->batch, &queue->run, &loop->packet, nq_loop_open_below(queue));
		loop->verdicts++;
	}
	nq_loop_count_verdict(queue, &loop->packet);
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

void nq_loop_handle_answer(struct nq_loop *loop, const struct nq_answer *answer)
{
	struct nq_loop_queue *queue = nq_loop_find_queue(loop, nq_seq_queue(answer->seq));

	if (loop->awaited && loop->awaited == answer->seq) {
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
		if (answer->error) {
			/* Not ours any more: its worker died while leaving. The next one binds
			 * anew. */
			loop->memory->joined = 0;
			loop->failed = -answer->error;
			break;
		}
		if (queue && answer->seq == nq_loop_barrier_seq(loop, queue))
			queue->memory->kernel = queue->settings.kernel;
		/* No packet came first: what was numbered up to the barrier has no other reader. */
		if (queue && queue->takeover && queue->barrier_known &&
		    answer->seq == nq_loop_barrier_seq(loop, queue))
			nq_loop_finish_takeover(loop, queue, queue->barrier);
		break;
	default:
		break;
	}
}

static void count_packet(struct nq_queue_memory *memory, const struct nq_packet *packet)
{
	struct nq_counters *counters = &memory->counters;

	if (memory->seen)
		counters->lost += packet->id - memory->last_id - 1;
	memory->seen = 1;
	memory->last_id = packet->id;
	counters->packets++;
	counters->bytes +=
		packet->have & NQ_HAVE_WIRE_LENGTH ? packet->wire_length : packet->length;
	if (nq_packet_truncated(packet))
		counters->truncated++;
}

static void meet_packet(struct nq_loop *loop, struct nq_loop_queue *queue)
{
	struct nq_packet *packet = &loop->packet;
	struct nq_queue_memory *memory = queue->memory;

	if (queue->takeover)
		nq_loop_finish_takeover(loop, queue, packet->id - 1);
	/* The packet a worker died with was counted by it. */
	if (!memory->seen || packet->id != memory->last_id)
		count_packet(memory, packet);
	loop->current = queue;
	loop->settled = false;
}

struct nq_packet *nq_loop_next(struct nq_loop *loop)
{
	nq_loop_settle_error(loop);
	loop->current = NULL;
	if (nq_loop_must_rest(loop))
		nq_loop_stand_still(loop);
	while (loop->next < loop->filled) {
		unsigned slot = loop->next++;
		struct nq_loop_queue *queue;
		struct nq_answer answer;

		nq_loop_set_cursor(loop, (int32_t)slot);
		if (loop->next < loop->filled)
			__builtin_prefetch(nq_loop_slot(loop, loop->next));
		loop->packet.spare = nq_loop_slot(loop, slot) + NQ_SLOT_MESSAGE;
		switch (nq_message_read(&loop->packet, &answer, nq_loop_slot(loop, slot),
					nq_loop_slot_length(loop, slot))) {
		case NQ_MESSAGE_ANSWER:
			nq_loop_handle_answer(loop, &answer);
			break;
		case NQ_MESSAGE_PACKET:
			queue = nq_loop_find_queue(loop, loop->packet.queue);
			if (!queue)
				break;
			meet_packet(loop, queue);
			if (!queue->settings.filter ||
			    nq_filter_takes(queue->settings.filter, &loop->packet))
				return &loop->packet;
			loop->packet.verdict = NQ_ACCEPT;
			nq_loop_settle(loop);
			loop->current = NULL;
			break;
		case NQ_MESSAGE_BROKEN:
			queue = nq_loop_find_queue(loop, loop->packet.queue);
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
int nq_loop_judge_received(struct nq_loop *loop)
{
	int error;

	loop->stepping = true;
	loop->now = 0;
	while (loop->next < loop->filled) {
		unsigned before = loop->next;

		loop->calls->judge(loop->context, loop);
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
	nq_loop_set_cursor(loop, NQ_CURSOR_DONE);
	error = nq_loop_finish(loop);
	loop->stepping = false;
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
int nq_loop_receive(struct nq_loop *loop, unsigned most)
{
	for (;;) {
		int got;

		/* Before the call: a death on return from it must not look as if all were judged.
		 */
		nq_loop_set_cursor(loop, NQ_CURSOR_RECEIVING);
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
	int error = nq_keep_run_due(loop);
	int got = (int)(loop->filled - loop->next);

	if (error)
		return error;
	if (loop->failed)
		return loop->failed; /* of a verdict sent outside */
	if (got == 0) {
		got = nq_loop_receive(loop, NQ_SLOTS);
		if (got < 0) {
			nq_log(NQ_LOG_ERROR, "cannot receive, so the queue is given up: %s",
			       strerror(-got));
			return got;
		}
		if (got == 0)
			return 0;
	}
	error = nq_loop_judge_received(loop);
	if (!error)
		error = loop->failed;
	return error ? error : got;
}

int nq_loop_run(struct nq_loop *loop)
{
	while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		struct epoll_event events[2];
		int got;

		if (__atomic_load_n(&loop->asked, __ATOMIC_ACQUIRE)) {
			__atomic_store_n(&loop->asked, false, __ATOMIC_RELEASE);
			return NQ_LOOP_ASKED;
		}
		if (nq_loop_must_rest(loop))
			nq_loop_stand_still(loop);
		got = nq_loop_step(loop);

		if (got < 0)
			return got;
		if (got == NQ_SLOTS)
			continue; /* there may be more: no need to ask */
		if (epoll_wait(loop->epoll, events, 2, -1) < 0)
			return -errno;
		nq_loop_acknowledge(loop); /* a stop is seen by its flag */
	}
	return 0;
}

void nq_loop_wake(struct nq_loop *loop)
{
	uint64_t one = 1;

	/* The counter cannot be full; it only adds to what is read after each batch anyway. */
	(void)!write(loop->wake, &one, sizeof(one));
}

void nq_loop_stop(struct nq_loop *loop)
{
	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	nq_loop_wake(loop);
}

void nq_loop_ask(struct nq_loop *loop)
{
	__atomic_store_n(&loop->asked, true, __ATOMIC_RELEASE);
	nq_loop_wake(loop);
}

void nq_loop_acknowledge(struct nq_loop *loop)
{
	uint64_t count;

	(void)!read(loop->wake, &count, sizeof(count));
}

int nq_loop_stats(const struct nq_loop *loop, const struct nq_loop_queue *queue,
		  struct nq_counters *counters, struct nq_proc_queue *kernel)
{
	*counters = queue->memory->counters;
	return loop->proc < 0 ? loop->proc : nq_proc_read(loop->proc, queue->number, kernel);
}
