/* The successor of a dead worker: what was decided, what was in the handler, and what nobody has
 * seen. */
#include <linux/netlink.h>
#include <string.h>

#include "host/loop_parts.h"
#include "packet/print.h"

enum { ORPHANS_MOST = 4096 };

static void report_culprit(struct nq_packet *packet, bool overran)
{
	static const char digits[] = "0123456789abcdef";
	char hex[2 * 64 + 1] = "";
	char line[NQ_PRINT_SIZE];
	uint32_t shown = packet->length < 64 ? packet->length : 64;

	for (uint32_t i = 0; i < shown; i++) {
		hex[2 * i] = digits[packet->data[i] >> 4];
		hex[2 * i + 1] = digits[packet->data[i] & 15];
		hex[2 * i + 2] = '\0';
	}
	nq_packet_print(packet, line);
	nq_log(NQ_LOG_ERROR, "%s packet %u of queue %u: %s (%s%s)",
	       overran ? "the handler overran its time and could not be interrupted at"
		       : "the worker died in the handler of",
	       packet->id, packet->queue, line, hex, shown < packet->length ? "..." : "");
}

/*
 * Its verdict is in the batch: should this worker die before it is through with the others, the
 * next one takes the packet for none, and neither reports nor counts it again.
 */
static void retire_slot(struct nq_loop *loop, unsigned slot)
{
	uint16_t type = NLMSG_NOOP;

	memcpy(nq_loop_slot(loop, slot) + offsetof(struct nlmsghdr, nlmsg_type), &type,
	       sizeof(type));
}

/* What no worker of ours wrote is left alone. */
static bool is_sound(const struct nq_loop *loop, const struct nq_kept *record)
{
	uint64_t first = loop->memory->copies;

	if (record->queue >= loop->queue_count)
		return false;
	if (record->kind == NQ_KEPT_HELD)
		return record->verdict == NQ_ACCEPT || record->verdict == NQ_DROP;
	if (record->kind != NQ_KEPT_DELAYED)
		return false;
	return !(record->send & NQ_SEND_BYTES) ||
	       (record->bytes >= first && record->bytes - first < NQ_COPIES_SIZE &&
		record->length <= NQ_PACKET_MAX &&
		record->length <= NQ_COPIES_SIZE - (record->bytes - first));
}

/* All are counted before the first gets a verdict: a batch verdict would be one for others too. */
static void adopt_kept(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;

	if (loop->memory->kept_used > keep->most)
		loop->memory->kept_used = 0;
	for (uint32_t i = 0; i < loop->memory->kept_used; i++) {
		struct nq_kept *record = &keep->records[i];

		record->timer = (struct nq_timer){0};
		if (!is_sound(loop, record)) {
			record->kind = NQ_KEPT_NOT;
			continue;
		}
		loop->queues[record->queue].kept++;
		keep->count++;
		if (record->kind == NQ_KEPT_DELAYED)
			nq_keep_begin(loop, record, NQ_KEPT_DELAYED, record->due);
	}
}

/* Held packets get their verdict, in the kernel's own copy: edits may be half made. Delayed ones
 * are accepted as they were decided. */
static int settle_kept(struct nq_loop *loop)
{
	int error;

	adopt_kept(loop);
	/* Some may have had their verdict: the packet in the handler, and what was in the batch. */
	loop->doubtful = true;
	for (uint32_t i = 0; i < loop->memory->kept_used; i++) {
		struct nq_kept *record = &loop->keep.records[i];
		struct nq_loop_queue *queue;
		struct nq_packet packet;

		if (record->kind != NQ_KEPT_HELD)
			continue;
		queue = &loop->queues[record->queue];
		packet = (struct nq_packet){.id = record->id,
					    .queue = queue->number,
					    .verdict = (enum nq_verdict)record->verdict};
		queue->memory->counters.expired++;
		queue->memory->counters.undecided += record->standard;
		nq_loop_count_verdict(queue, &packet);
		if (!nq_keep_submit(loop, record, &packet))
			break;
	}
	nq_keep_end(loop);
	error = loop->failed ? loop->failed : nq_loop_flush(loop);
	loop->doubtful = false;
	nq_keep_reset(loop);
	return error;
}

static int fail_takeover(struct nq_failure *failure, int error)
{
	return nq_fail(failure, 1, -error, "cannot take the queues over: %s", strerror(-error));
}

/*
 * The successor of a dead worker, whose sockets and memory these are: first what was decided and
 * maybe sent, then on_error for the packet in the handler, then what was held and delayed, then the
 * handler for the rest of the batch. Packets whose message died with the worker are found by id:
 * see the barrier in nq_loop_handle_answer, and meet_packet in loop.c.
 */
static int take_received(struct nq_loop *loop)
{
	struct nq_lane_memory *memory = loop->memory;
	int32_t cursor = memory->cursor;
	int error;

	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_queue_memory *queue = loop->queues[i].memory;

		/* A worker may have died before it had found those of the one before it. */
		if (!queue->orphans)
			queue->orphans_above = queue->seen ? queue->last_id : 0;
		queue->orphans = 1;
	}
	if (memory->batch.count > NQ_BATCH_ENTRIES)
		memory->batch.count = 0; /* no worker of ours wrote that */
	nq_batch_doubt(&loop->batch);
	error = nq_loop_flush(loop);
	if (error)
		return error;
	for (loop->filled = 0; loop->filled < NQ_SLOTS && nq_loop_slot_length(loop, loop->filled);)
		loop->filled++;
	/* Below 0: NQ_CURSOR_BEFORE, of which RECEIVING is the first. */
	loop->next = cursor < 0 ? (unsigned)(-1 - cursor) : (unsigned)cursor;
	if (loop->next > loop->filled)
		loop->next = loop->filled;
	if (cursor >= 0 && loop->next < loop->filled) {
		/* One slot only: nq_loop_next would go on past a message that is no packet. */
		unsigned filled = loop->filled;

		loop->filled = loop->next + 1;
		if (nq_loop_next(loop)) {
			report_culprit(&loop->packet, memory->overran);
			if (memory->overran)
				loop->current->memory->counters.timeouts++;
			nq_loop_settle_error(loop);
			retire_slot(loop, loop->next - 1);
			loop->current = NULL;
		}
		/* Also what the filter passed by: it may have been decided and sent. */
		nq_batch_doubt(&loop->batch);
		loop->filled = filled;
	}
	memory->overran = 0;
	/* On its own: what is kept has lower ids, and no run goes backwards. */
	error = nq_loop_flush(loop);
	if (!error)
		error = settle_kept(loop);
	return error ? error : nq_loop_judge_received(loop);
}

/* Another script may have other settings. Either request's answer is the barrier. */
static int send_barrier(const struct nq_loop *loop, const struct nq_loop_queue *queue)
{
	uint32_t seq = nq_loop_barrier_seq(loop, queue);

	if (nq_config_equal(&queue->memory->kernel, &queue->settings.kernel))
		return nq_config_limit(loop->socket, queue->number,
				       queue->settings.kernel.max_packets, false, seq);
	queue->memory->kernel.max_packets = 0; /* not known until it is answered */
	return nq_config_change(loop->socket, queue->number, &queue->settings.kernel, seq);
}

int nq_loop_take_over(struct nq_loop *loop, struct nq_failure *failure)
{
	int error = take_received(loop);

	if (error)
		return fail_takeover(failure, error);
	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];

		error = nq_loop_check_flags(loop, queue, &queue->settings.kernel, failure);
		if (error)
			return error;
	}
	loop->memory->takeovers++;
	for (unsigned i = 0; i < loop->queue_count; i++) {
		struct nq_loop_queue *queue = &loop->queues[i];
		struct nq_proc_queue line;

		queue->takeover = true;
		queue->barrier_known =
			loop->proc >= 0 && nq_proc_read(loop->proc, queue->number, &line) == 0;
		queue->barrier = queue->barrier_known ? line.id_sequence : 0;
		error = send_barrier(loop, queue);
		if (error)
			return fail_takeover(failure, error);
	}
	loop->bound = true;
	return 0;
}

/* An id up to which, or which alone, nobody else will give a verdict. */
static bool settle_orphan(struct nq_loop *loop, const struct nq_loop_queue *queue, uint32_t id,
			  bool batched)
{
	/* Full when many queues finish at once; if it cannot be emptied the loop has failed anyway.
	 */
	if (nq_batch_full(&loop->batch) && nq_loop_flush(loop) != 0)
		return false;
	nq_batch_add_id(&loop->batch, queue->number, id, queue->settings.on_error, batched);
	return true;
}

/*
 * Packets of the dead worker's last batch are kept, and a batch verdict would settle them: the ids
 * up to `last` one by one, those that we keep left out.
 */
static void settle_orphans(struct nq_loop *loop, struct nq_loop_queue *queue, uint32_t last)
{
	uint32_t above = queue->memory->orphans_above;
	uint32_t count = last - above;
	uint8_t kept[ORPHANS_MOST] = {0};

	for (uint32_t i = 0; i < loop->memory->kept_used; i++) {
		const struct nq_kept *record = &loop->keep.records[i];

		if (record->kind != NQ_KEPT_NOT && &loop->queues[record->queue] == queue &&
		    record->id - above - 1 < count)
			kept[record->id - above - 1] = 1;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (!kept[i] && !settle_orphan(loop, queue, above + 1 + i, false))
			return;
	}
}

void nq_loop_finish_takeover(struct nq_loop *loop, struct nq_loop_queue *queue, uint32_t last)
{
	bool many = last - queue->memory->orphans_above > ORPHANS_MOST;

	if (queue->kept && many)
		nq_keep_end_queue(loop, (unsigned)(queue - loop->queues));
	if (queue->kept && !many)
		settle_orphans(loop, queue, last);
	else
		(void)settle_orphan(loop, queue, last, true);
	queue->takeover = false;
	queue->memory->orphans = 0;
}
