/* The successor of a dead worker: what was decided, what was in the handler, and what nobody has
 * seen. */
#include "host/loop_parts.h"
#include "packet/print.h"

static void report_culprit(struct nq_packet *packet)
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
	nq_log(NQ_LOG_ERROR, "the worker died in the handler of packet %u of queue %u: %s (%s%s)",
	       packet->id, packet->queue, line, hex, shown < packet->length ? "..." : "");
}

/*
 * The successor of a dead worker, whose sockets and memory these are: first what was decided and
 * maybe sent, then on_error for the packet in the handler, then the handler for the rest of the
 * batch. Packets whose message died with the worker are found by id: see the barrier in
 * handle_answer and meet_packet.
 */
int nq_loop_take_over(struct nq_loop *loop)
{
	struct nq_lane_memory *memory = loop->memory;
	int32_t cursor = memory->cursor;
	int error;

	if (memory->batch.count > NQ_BATCH_ENTRIES)
		memory->batch.count = 0; /* no worker of ours wrote that */
	nq_batch_doubt(&loop->batch);
	error = nq_loop_flush(loop);
	if (error)
		return error;
	for (loop->filled = 0; loop->filled < NQ_SLOTS && nq_loop_slot_length(loop, loop->filled);)
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
		}
		/* Also what the filter passed by: it may have been decided and sent. */
		nq_batch_doubt(&loop->batch);
		loop->filled = filled;
	}
	error = nq_loop_judge_received(loop);
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
