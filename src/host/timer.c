#include "host/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "host/clock.h"

enum { CHILDREN = 4, FIRST_CAPACITY = 64 };

int nq_alarm_open(struct nq_alarm *alarm)
{
	alarm->armed = NQ_NEVER;
	alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return alarm->fd < 0 ? -errno : 0;
}

void nq_alarm_close(struct nq_alarm *alarm)
{
	if (alarm->fd >= 0)
		close(alarm->fd);
	alarm->fd = -1;
}

void nq_alarm_set(struct nq_alarm *alarm, int64_t due)
{
	struct itimerspec at = {0};

	if (alarm->fd < 0 || alarm->armed == due)
		return;
	/* All zero disarms; a time that has passed makes it readable at once. */
	if (due != NQ_NEVER && due < 1)
		due = 1;
	if (due != NQ_NEVER) {
		at.it_value.tv_sec = due / NQ_SECOND;
		at.it_value.tv_nsec = due % NQ_SECOND;
	}
	alarm->armed = due;
	if (timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
		alarm->armed = NQ_ALARM_UNKNOWN;
}

int nq_timers_reserve(struct nq_timers *timers, uint32_t capacity)
{
	struct nq_timer_entry *entries;

	if (capacity <= timers->capacity)
		return 0;
	entries = realloc(timers->entries, capacity * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	timers->entries = entries;
	timers->capacity = capacity;
	return 0;
}

void nq_timers_free(struct nq_timers *timers)
{
	free(timers->entries);
	timers->entries = NULL;
	timers->count = timers->capacity = 0;
}

static bool is_before(const struct nq_timer_entry *one, const struct nq_timer_entry *other)
{
	return one->due < other->due || (one->due == other->due && one->order < other->order);
}

static void put(struct nq_timers *timers, uint32_t at, const struct nq_timer_entry *entry)
{
	timers->entries[at] = *entry;
	entry->timer->position = at + 1;
}

/* Puts the entry at `at` or above: whatever it comes before moves down. */
static void rise(struct nq_timers *timers, uint32_t at, const struct nq_timer_entry *entry)
{
	while (at > 0) {
		uint32_t parent = (at - 1) / CHILDREN;

		if (!is_before(entry, &timers->entries[parent]))
			break;
		put(timers, at, &timers->entries[parent]);
		at = parent;
	}
	put(timers, at, entry);
}

/* Puts the entry at `at` or below: what comes before it moves up. */
static void sink(struct nq_timers *timers, uint32_t at, const struct nq_timer_entry *entry)
{
	for (;;) {
		uint32_t child = at * CHILDREN + 1;
		uint32_t end = child + CHILDREN < timers->count ? child + CHILDREN : timers->count;
		uint32_t first = child;

		if (child >= timers->count)
			break;
		while (++child < end) {
			if (is_before(&timers->entries[child], &timers->entries[first]))
				first = child;
		}
		if (!is_before(&timers->entries[first], entry))
			break;
		put(timers, at, &timers->entries[first]);
		at = first;
	}
	put(timers, at, entry);
}

int nq_timers_add(struct nq_timers *timers, struct nq_timer *timer, int64_t due)
{
	struct nq_timer_entry entry = {.due = due, .order = timers->order, .timer = timer};

	if (timers->count == timers->capacity) {
		int error = nq_timers_reserve(timers, timers->capacity ? timers->capacity * 2
								       : FIRST_CAPACITY);

		if (error)
			return error;
	}
	timers->order++;
	rise(timers, timers->count++, &entry);
	if (timers->alarm)
		nq_alarm_at(timers->alarm, due);
	return 0;
}

void nq_timers_remove(struct nq_timers *timers, struct nq_timer *timer)
{
	uint32_t at = timer->position - 1;
	struct nq_timer_entry last;

	if (!timer->position)
		return;
	timer->position = 0;
	last = timers->entries[--timers->count];
	if (at == timers->count)
		return;
	if (at > 0 && is_before(&last, &timers->entries[(at - 1) / CHILDREN]))
		rise(timers, at, &last);
	else
		sink(timers, at, &last);
}

struct nq_timer *nq_timers_take(struct nq_timers *timers, int64_t now, uint64_t before,
				int64_t *due)
{
	struct nq_timer *timer;

	if (nq_timers_due(timers) > now || timers->count == 0 || timers->entries[0].order >= before)
		return NULL;
	timer = timers->entries[0].timer;
	*due = timers->entries[0].due;
	nq_timers_remove(timers, timer);
	return timer;
}
