#include "host/keep.h"

#include <errno.h>
#include <string.h>

#include "host/loop_parts.h"
#include "packet/edit.h"

enum {
	/* Delayed packets sent before the socket is looked at again. */
	RELEASE_MOST = 8 * NQ_BATCH_ENTRIES,
	/* Nanoseconds from one release to the next wake-up for another. */
	GATHER = 250000,
};

int nq_keep_init(struct nq_loop *loop, struct nq_memory *memory)
{
	struct nq_keep *keep = &loop->keep;
	int error;

	keep->records = (struct nq_kept *)((uint8_t *)memory + loop->memory->kept);
	keep->most = nq_memory_kept_most(loop->memory);
	keep->held.alarm = keep->delayed.alarm = &keep->alarm;
	error = nq_arena_init(&keep->arena, (uint8_t *)memory + loop->memory->copies,
			      NQ_COPIES_SIZE);
	if (!error)
		error = nq_timers_reserve(&keep->held, keep->most);
	if (!error)
		error = nq_timers_reserve(&keep->delayed, keep->most);
	return error ? error : nq_alarm_open(&keep->alarm);
}

void nq_keep_fini(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;

	nq_arena_fini(&keep->arena);
	nq_timers_free(&keep->held);
	nq_timers_free(&keep->delayed);
	nq_alarm_close(&keep->alarm);
}

static struct nq_kept *record_of(struct nq_timer *timer)
{
	return (struct nq_kept *)((uint8_t *)timer - offsetof(struct nq_kept, timer));
}

static void set_kind(struct nq_kept *record, enum nq_kept_kind kind)
{
	__atomic_store_n(&record->kind, (uint32_t)kind, __ATOMIC_RELEASE);
}

/* --- Records --- */

struct nq_kept *nq_keep_new(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;
	struct nq_kept *record;

	if (keep->free) {
		record = &keep->records[keep->free - 1];
		keep->free = record->next;
	} else if (loop->memory->kept_used < keep->most) {
		record = &keep->records[loop->memory->kept_used];
		__atomic_store_n(&loop->memory->kept_used, loop->memory->kept_used + 1,
				 __ATOMIC_RELEASE);
	} else {
		return NULL;
	}
	*record = (struct nq_kept){
		.kind = NQ_KEPT_NOT,
		.id = loop->packet.id,
		.queue = (uint32_t)(loop->current - loop->queues),
	};
	return record;
}

void nq_keep_free(struct nq_loop *loop, struct nq_kept *record)
{
	struct nq_keep *keep = &loop->keep;

	nq_keep_give(loop, nq_loop_place(loop, record->block));
	nq_keep_give(loop, nq_loop_place(loop, record->room));
	record->next = keep->free;
	keep->free = (uint32_t)(record - keep->records) + 1;
}

/* What was taken from the arena since it had `before` in use; or given to it. */
static void count_copies(struct nq_loop *loop, size_t before)
{
	if (loop->budget)
		nq_budget_take_copy(loop->budget, (int64_t)loop->keep.arena.used - (int64_t)before);
}

void *nq_keep_take(struct nq_loop *loop, size_t size, int *error)
{
	struct nq_arena *arena = &loop->keep.arena;
	struct nq_budget *budget = loop->budget;
	size_t before = arena->used;
	void *block = nq_arena_take(arena, size);

	*error = block ? 0 : -ENOMEM;
	if (!block || !budget)
		return block;
	if (budget->left < (int64_t)(arena->used - before)) {
		nq_arena_give(arena, block);
		budget->refused = true;
		*error = -EDQUOT;
		return NULL;
	}
	count_copies(loop, before);
	return block;
}

void nq_keep_give(struct nq_loop *loop, void *block)
{
	size_t before = loop->keep.arena.used;

	nq_arena_give(&loop->keep.arena, block);
	count_copies(loop, before);
}

void nq_keep_begin(struct nq_loop *loop, struct nq_kept *record, enum nq_kept_kind kind,
		   int64_t due)
{
	struct nq_keep *keep = &loop->keep;

	record->due = due;
	/* There is room for a timer a record. */
	(void)nq_timers_add(kind == NQ_KEPT_HELD ? &keep->held : &keep->delayed, &record->timer,
			    due);
	set_kind(record, kind);
}

bool nq_keep_submit(struct nq_loop *loop, struct nq_kept *record, const struct nq_packet *packet)
{
	struct nq_loop_queue *queue = &loop->queues[record->queue];
	struct nq_keep *keep = &loop->keep;

	if (nq_batch_full(&loop->batch)) {
		int error = nq_loop_flush(loop);

		if (error) {
			loop->failed = error;
			return false;
		}
	}
	queue->kept--;
	keep->count--;
	nq_batch_add(&loop->batch, &queue->run, packet, nq_loop_open_below(queue));
	set_kind(record, NQ_KEPT_NOT);
	record->next = keep->settled;
	keep->settled = (uint32_t)(record - keep->records) + 1;
	loop->verdicts++;
	return true;
}

void nq_keep_sweep(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;

	while (keep->settled) {
		struct nq_kept *record = &keep->records[keep->settled - 1];

		keep->settled = record->next;
		nq_keep_free(loop, record);
	}
}

/* --- Delaying --- */

void nq_keep_write(struct nq_loop *loop, struct nq_kept *record, const struct nq_packet *packet)
{
	record->send = packet->send;
	record->send_mark = packet->send_mark;
	record->send_priority = packet->send_priority;
	record->connmark = packet->connmark;
	record->connmask = packet->connmask;
	record->label = packet->label;
	if (packet->send & NQ_SEND_BYTES) {
		record->bytes = nq_loop_offset(loop, packet->data);
		record->length = packet->length;
	}
}

int nq_loop_delay(struct nq_loop *loop)
{
	const struct nq_packet *packet = &loop->packet;
	struct nq_kept *record = nq_keep_new(loop);

	if (!record)
		return -ENOSPC;
	nq_keep_write(loop, record, packet);
	if (packet->send & NQ_SEND_BYTES) {
		int error;
		uint8_t *copy = nq_keep_take(loop, packet->length, &error);

		if (!copy) {
			nq_keep_free(loop, record);
			return error;
		}
		memcpy(copy, packet->data, packet->length);
		record->block = record->bytes = nq_loop_offset(loop, copy);
	}
	nq_keep_begin(loop, record, NQ_KEPT_DELAYED, nq_loop_now(loop) + packet->delay);
	loop->current->kept++;
	loop->keep.count++;
	return 0;
}

static bool send_delayed(struct nq_loop *loop, struct nq_kept *record)
{
	struct nq_packet packet = {
		.id = record->id,
		.queue = loop->queues[record->queue].number,
		.verdict = NQ_ACCEPT,
		.send = record->send,
		.send_mark = record->send_mark,
		.send_priority = record->send_priority,
		.connmark = record->connmark,
		.connmask = record->connmask,
		.label = record->label,
		.data = nq_loop_place(loop, record->bytes),
		.length = record->length,
	};

	return nq_keep_submit(loop, record, &packet);
}

/* --- The end of both --- */

/* Nobody settled it in time. */
static bool expire(struct nq_loop *loop, struct nq_kept *record)
{
	struct nq_loop_queue *queue = &loop->queues[record->queue];
	struct nq_held *held = nq_loop_place(loop, record->block);
	struct nq_packet *packet = &held->packet;
	void *owner = held->owner;
	bool done;

	held->owner = NULL;
	packet->verdict = (enum nq_verdict)record->verdict;
	if (packet->verdict == NQ_DROP) {
		packet->send = 0;
	} else if (packet->dirty && nq_edit_finish(packet, true)) {
		/* Edits that cannot leave: what a handler's error does. */
		packet->verdict = queue->settings.on_error;
		packet->send = 0;
		queue->memory->counters.errors++;
	}
	queue->memory->counters.expired++;
	queue->memory->counters.undecided += record->standard;
	nq_loop_count_verdict(queue, packet);
	done = nq_keep_submit(loop, record, packet);
	if (owner)
		loop->calls->release(loop->context, owner);
	return done;
}

static bool end_record(struct nq_loop *loop, struct nq_kept *record)
{
	return record->kind == NQ_KEPT_HELD ? expire(loop, record) : send_delayed(loop, record);
}

/* Those of one kind that are due at `now`, in order, at most so many. */
static void end_due(struct nq_loop *loop, struct nq_timers *timers, int64_t now, uint32_t most)
{
	struct nq_timer *timer;
	int64_t due;

	while (most-- > 0 && (timer = nq_timers_take(timers, now, UINT64_MAX, &due)) != NULL) {
		if (!end_record(loop, record_of(timer)))
			return;
	}
}

void nq_keep_end(struct nq_loop *loop)
{
	end_due(loop, &loop->keep.delayed, NQ_NEVER, UINT32_MAX);
	nq_keep_end_held(loop);
}

void nq_keep_end_held(struct nq_loop *loop)
{
	end_due(loop, &loop->keep.held, NQ_NEVER, UINT32_MAX);
}

void nq_keep_end_queue(struct nq_loop *loop, unsigned queue)
{
	struct nq_keep *keep = &loop->keep;

	for (uint32_t i = 0; i < loop->memory->kept_used; i++) {
		struct nq_kept *record = &keep->records[i];

		if (record->kind == NQ_KEPT_NOT || record->queue != queue)
			continue;
		nq_timers_remove(record->kind == NQ_KEPT_HELD ? &keep->held : &keep->delayed,
				 &record->timer);
		if (!end_record(loop, record))
			return;
	}
}

static bool has_timers(const struct nq_timers *timers)
{
	return timers && (timers->count || timers->alarm->armed != NQ_NEVER);
}

int nq_keep_run_due(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;
	int error = 0;
	int64_t now, due;

	/* Who keeps nothing and has no timers reads no clock. An alarm may be left of what is gone.
	 */
	if ((!keep->count && keep->alarm.armed == NQ_NEVER && !has_timers(loop->timers)) ||
	    loop->leaving)
		return 0;
	loop->stepping = true;
	loop->now = 0;
	now = nq_loop_now(loop);
	if (nq_timers_due(&keep->delayed) <= now) {
		end_due(loop, &keep->delayed, now, RELEASE_MOST);
		/* At once: the script's timers may take their time. */
		error = nq_loop_finish(loop);
	}
	if (!error && loop->timers && nq_timers_due(loop->timers) <= now)
		loop->calls->tick(loop->context, loop);
	if (!error && nq_timers_due(&keep->held) <= now)
		end_due(loop, &keep->held, now, UINT32_MAX);
	if (!error)
		error = nq_loop_finish(loop);
	loop->stepping = false;
	due = nq_timers_due(&keep->delayed);
	if (nq_timers_due(&keep->held) < due)
		due = nq_timers_due(&keep->held);
	/* In a dense stream several leave with one wake-up, which costs as much as several
	 * verdicts. */
	if (due > now && due < now + GATHER)
		due = now + GATHER;
	nq_alarm_renew(&keep->alarm, due, now);
	if (loop->timers)
		nq_alarm_renew(loop->timers->alarm, nq_timers_due(loop->timers), now);
	return error;
}

void nq_keep_reset(struct nq_loop *loop)
{
	struct nq_keep *keep = &loop->keep;
	uint32_t used = loop->memory->kept_used;
	size_t before;

	for (uint32_t i = 0; i < used && i < keep->most; i++) {
		struct nq_kept *record = &keep->records[i];

		/* Those of a dead worker have no owner here, nor a timer in this heap. */
		if (record->kind == NQ_KEPT_HELD && nq_timers_has(&keep->held, &record->timer)) {
			struct nq_held *held = nq_loop_place(loop, record->block);

			if (held->owner)
				loop->calls->release(loop->context, held->owner);
		}
		record->timer = (struct nq_timer){0};
		record->kind = NQ_KEPT_NOT;
	}
	loop->memory->kept_used = 0;
	for (unsigned i = 0; i < loop->queue_count; i++)
		loop->queues[i].kept = 0;
	keep->held.count = keep->delayed.count = 0;
	keep->count = keep->free = keep->settled = 0;
	nq_alarm_set(&keep->alarm, NQ_NEVER);
	before = keep->arena.used;
	nq_arena_reset(&keep->arena);
	count_copies(loop, before);
}
