/* Held packets: copied once, edited and settled by their holder. */
#include <errno.h>
#include <string.h>

#include "host/loop_parts.h"

static enum nq_verdict last_verdict(const struct nq_loop *loop, struct nq_kept *record,
				    enum nq_verdict verdict)
{
	record->standard = verdict == NQ_UNDECIDED;
	return record->standard ? loop->queues[record->queue].settings.default_verdict : verdict;
}

/* The same place in the copy of a message. */
static void *moved(const void *pointer, const uint8_t *from, uint8_t *to)
{
	return pointer ? to + ((const uint8_t *)pointer - from) : NULL;
}

/* The packet at hand with the message it lies in, copied into blocks of the record; NULL with
 * *error: no room. */
static struct nq_held *copy_packet(struct nq_loop *loop, struct nq_kept *record, int *error)
{
	const struct nq_packet *packet = &loop->packet;
	const uint8_t *message = nq_loop_slot(loop, loop->next - 1);
	size_t length = nq_loop_slot_length(loop, loop->next - 1);
	bool replaced = packet->data && packet->data == packet->spare;
	struct nq_held *held = nq_keep_take(loop, sizeof(*held) + length, error);
	uint8_t *room = held && replaced ? nq_keep_take(loop, NQ_PACKET_MAX, error) : NULL;
	uint8_t *copy;

	if (!held || (replaced && !room)) {
		nq_keep_give(loop, held);
		return NULL;
	}
	copy = (uint8_t *)(held + 1);
	memcpy(copy, message, length);
	held->packet = *packet;
	held->packet.kept = true;
	held->packet.spare = room;
	if (replaced) {
		memcpy(room, packet->data, packet->length);
		held->packet.data = room;
	} else {
		held->packet.data = moved(packet->data, message, copy);
	}
	held->packet.l2header = moved(packet->l2header, message, copy);
	held->packet.secctx = moved(packet->secctx, message, copy);
	held->packet.ct = moved(packet->ct, message, copy);
	held->loop = loop;
	held->record = record;
	record->block = nq_loop_offset(loop, held);
	record->room = nq_loop_offset(loop, room);
	return held;
}

int nq_loop_hold(struct nq_loop *loop, int64_t nanoseconds, enum nq_verdict verdict, void *owner,
		 struct nq_held **held)
{
	struct nq_kept *record = nq_keep_new(loop);
	int error;

	if (!record)
		return -ENOSPC;
	*held = copy_packet(loop, record, &error);
	if (!*held) {
		nq_keep_free(loop, record);
		return error;
	}
	(*held)->owner = owner;
	record->verdict = (uint8_t)last_verdict(loop, record, verdict);
	/* Not the batch's time: the handler may have taken long, and the time is the packet's. */
	nq_keep_begin(loop, record, NQ_KEPT_HELD, nq_clock_now() + nanoseconds);
	loop->current->kept++;
	loop->keep.count++;
	loop->current->memory->counters.held++;
	loop->settled = true;
	return 0;
}

void nq_held_prolong(struct nq_held *held, int64_t nanoseconds, enum nq_verdict verdict)
{
	struct nq_loop *loop = held->loop;
	struct nq_kept *record = held->record;

	nq_timers_remove(&loop->keep.held, &record->timer);
	record->verdict = (uint8_t)last_verdict(loop, record, verdict);
	nq_keep_begin(loop, record, NQ_KEPT_HELD, nq_clock_now() + nanoseconds);
}

const struct nq_settings *nq_held_settings(const struct nq_held *held)
{
	return &held->loop->queues[held->record->queue].settings;
}

int nq_held_room(struct nq_packet *packet)
{
	struct nq_held *held = (struct nq_held *)packet;
	int error = 0;

	if (!packet->spare) {
		packet->spare = nq_keep_take(held->loop, NQ_PACKET_MAX, &error);
		held->record->room = nq_loop_offset(held->loop, packet->spare);
	}
	return error;
}

void nq_held_settle(struct nq_held *held)
{
	struct nq_loop *loop = held->loop;
	struct nq_kept *record = held->record;
	struct nq_packet *packet = &held->packet;

	held->owner = NULL;
	nq_timers_remove(&loop->keep.held, &record->timer);
	if (packet->verdict == NQ_REJECT)
		nq_loop_answer(loop, &loop->queues[record->queue], packet);
	nq_loop_count_verdict(&loop->queues[record->queue], packet);
	if (packet->verdict == NQ_DELAY) {
		nq_keep_write(loop, record, packet);
		nq_keep_begin(loop, record, NQ_KEPT_DELAYED, nq_loop_now(loop) + packet->delay);
		return;
	}
	if (nq_keep_submit(loop, record, packet) && !loop->stepping) {
		int error = nq_loop_finish(loop);

		if (error)
			loop->failed = error;
	}
}
