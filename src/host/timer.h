/*
 * timer.h - what is due when: a heap of timers, and a descriptor that is readable when one is.
 *
 * Timers are the caller's; the heap refers to them and knows no clock. Times are nanoseconds of
 * whatever clock the caller keeps. Of equal times the one added first comes first. One thread.
 */
#ifndef NQ_TIMER_H
#define NQ_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#define NQ_NEVER INT64_MAX
/* nq_alarm.armed after it could not be set: it is set again at the next chance. */
#define NQ_ALARM_UNKNOWN INT64_MIN

/* Zeroed at start; stays where it is while it is in a heap. */
struct nq_timer {
	uint32_t position; /* 1 + index in the heap; 0: in none */
};

static inline bool nq_timer_pending(const struct nq_timer *timer)
{
	return timer->position != 0;
}

/* A timerfd on CLOCK_MONOTONIC: readable from `armed` on until it is armed for later. */
struct nq_alarm {
	int fd; /* -1: none */
	int64_t armed;
};

/* 0 or -errno. */
int nq_alarm_open(struct nq_alarm *alarm);
void nq_alarm_close(struct nq_alarm *alarm);

/* Exactly then; NQ_NEVER: not at all. Costs a system call unless it is armed for that. */
void nq_alarm_set(struct nq_alarm *alarm, int64_t due);

/* Then at the latest. */
static inline void nq_alarm_at(struct nq_alarm *alarm, int64_t due)
{
	if (due < alarm->armed || alarm->armed == NQ_ALARM_UNKNOWN)
		nq_alarm_set(alarm, due);
}

/* After what was due is done: `due` is the next. One that is armed too early is left so. */
static inline void nq_alarm_renew(struct nq_alarm *alarm, int64_t due, int64_t now)
{
	if (alarm->armed <= now || due < alarm->armed)
		nq_alarm_set(alarm, due);
}

struct nq_timer_entry {
	int64_t due;
	uint64_t order;
	struct nq_timer *timer;
};

/* Zeroed at start, but for the alarm. */
struct nq_timers {
	struct nq_timer_entry *entries; /* a heap of four children each */
	uint32_t count, capacity;
	uint64_t order;		/* of the next to be added */
	struct nq_alarm *alarm; /* armed when an earlier one is added; may be NULL */
};

/* Room for as many, so that adding cannot fail: 0 or -ENOMEM. Pages cost only when touched. */
int nq_timers_reserve(struct nq_timers *timers, uint32_t capacity);

/* Forgets all timers, which may be gone already, and frees the room. */
void nq_timers_free(struct nq_timers *timers);

/* 0, or -ENOMEM where the room must grow and cannot. */
int nq_timers_add(struct nq_timers *timers, struct nq_timer *timer, int64_t due);

/* Whether it is in this heap, whatever its position says. */
static inline bool nq_timers_has(const struct nq_timers *timers, const struct nq_timer *timer)
{
	return timer->position - 1 < timers->count &&
	       timers->entries[timer->position - 1].timer == timer;
}

/* Does nothing for one that is in no heap. */
void nq_timers_remove(struct nq_timers *timers, struct nq_timer *timer);

/* When the first is due; NQ_NEVER: there is none. */
static inline int64_t nq_timers_due(const struct nq_timers *timers)
{
	return timers->count ? timers->entries[0].due : NQ_NEVER;
}

/*
 * Takes the first out if it is due at `now` and was added before the count `before` of additions
 * (timers->order at the beginning of a round ends the round); *due is its time. Else NULL.
 */
struct nq_timer *nq_timers_take(struct nq_timers *timers, int64_t now, uint64_t before,
				int64_t *due);

#endif
