/*
 * watchdog.h - a thread that sees calls into scripts overrun their time, and has them interrupted.
 *
 * A thread that enters a script keeps a serial number: odd while a call is on, another for each
 * call. That is all it does: no clock is read, no lock taken and no system call made per packet.
 * The watchdog looks at the numbers a hundred times a second, and not at all while nothing is
 * called. Where a number stands still for longer than the limit, it sends the thread a signal, in
 * whose handler `interrupt` is called; so what that does is as if the thread did it, between two
 * instructions. Where that has no effect, the call is stuck: in C code, or in what cannot be
 * interrupted.
 *
 * Time in which the whole process stands still (a stop and continue, a machine that is suspended)
 * does not count.
 */
#ifndef NQ_WATCHDOG_H
#define NQ_WATCHDOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum nq_call {
	NQ_CALL_HANDLER,
	NQ_CALL_TIMER,
	NQ_CALL_LOAD,
	NQ_CALL_OPEN,
	NQ_CALL_CLOSE,
	NQ_CALL_FINISH,
	NQ_CALL_END, /* of the state: its finalizers */
};

/* As in "the handler". */
const char *nq_call_name(enum nq_call kind);

struct nq_watchdog;
struct nq_watched;

/* In the signal's handler, in the thread of the call: async-signal-safe. Again and again, as long
 * as the call goes on. */
typedef void nq_interrupt(struct nq_watched *watched);

/* In the watchdog's thread, once a call: it cannot be interrupted. */
typedef void nq_stuck(void *context, const struct nq_watched *watched);

/* One a thread. Zeroed, but for `interrupt` and `lane`, before it is added. */
struct nq_watched {
	/* The thread's; what is below the serial is set before a call. */
	uint64_t serial; /* odd: a call is on */
	int64_t limit;	 /* nanoseconds */
	uint32_t kind;	 /* enum nq_call */
	pthread_t thread;
	struct nq_watchdog *watchdog; /* NULL: nobody watches */
	nq_interrupt *interrupt;      /* NULL: no call of it can be interrupted */
	unsigned lane;		      /* for whoever is told of a stuck call */
	/* The thread's, of the call that was interrupted last. */
	uint64_t interrupted; /* its serial */
	uint64_t heard;	      /* the same, once it was interrupted a second time */
	int id;		      /* of the thread, as the system numbers it, then */
	int64_t used;	      /* processor time of the thread then, nanoseconds */
	uint32_t signals;     /* that were sent and have not come; both threads count */
	/* The watchdog's. */
	uint64_t target; /* serial of the call that is to be interrupted; read by its thread too */
	uint64_t seen;	 /* serial at the last look */
	int64_t elapsed; /* since the call was seen first */
	int64_t since;	 /* `elapsed` when it was to be interrupted, and then when that was heard */
	bool acknowledged; /* that it was heard is known */
	bool stuck;	   /* was told */
	struct nq_watched *next;
};

/*
 * Starts the thread. `stuck` is called inside the watchdog's lock, and may end the process; NULL: a
 * line is logged. NULL with errno on failure.
 */
struct nq_watchdog *nq_watchdog_new(nq_stuck *stuck, void *context);

/* Ends the thread. Nothing may be watched any more. NULL: nothing is done. */
void nq_watchdog_free(struct nq_watchdog *watchdog);

/* From the thread of the calls, outside of any. After the removal no interrupt comes. */
void nq_watchdog_add(struct nq_watchdog *watchdog, struct nq_watched *watched);
void nq_watchdog_remove(struct nq_watched *watched);

/* It sleeps, and something has begun. */
void nq_watchdog_wake(struct nq_watchdog *watchdog);

/* Whether it wants to be woken by the call that begins. */
bool nq_watchdog_asleep(const struct nq_watchdog *watchdog);

/* Of a thread of this process: whether it waits for something, not for a processor (`id`: as the
 * system numbers it); and the processor time that it has used, nanoseconds. */
bool nq_thread_waits(int id);
int64_t nq_thread_used(pthread_t thread);

/* Whether a call is on. In its own thread. */
static inline bool nq_watched_busy(const struct nq_watched *watched)
{
	return watched->serial & 1;
}

/*
 * A call begins: `limit` nanoseconds. A call inside a call belongs to the outer one: false, and
 * there is nothing to end.
 */
static inline bool nq_watched_begin(struct nq_watched *watched, enum nq_call kind, int64_t limit)
{
	if (nq_watched_busy(watched))
		return false;
	__atomic_store_n(&watched->limit, limit, __ATOMIC_RELAXED);
	__atomic_store_n(&watched->kind, kind, __ATOMIC_RELAXED);
	__atomic_store_n(&watched->thread, pthread_self(), __ATOMIC_RELAXED);
	/* In one order with the watchdog's going to sleep, which looks at the serial after it has
	 * said so. */
	__atomic_fetch_add(&watched->serial, 1, __ATOMIC_SEQ_CST);
	if (watched->watchdog && nq_watchdog_asleep(watched->watchdog))
		nq_watchdog_wake(watched->watchdog);
	return true;
}

/* The call that was begun last is over, and another begins: the next packet. */
static inline void nq_watched_next(struct nq_watched *watched)
{
	__atomic_store_n(&watched->serial, watched->serial + 2, __ATOMIC_RELEASE);
}

static inline void nq_watched_limit(struct nq_watched *watched, int64_t limit)
{
	__atomic_store_n(&watched->limit, limit, __ATOMIC_RELAXED);
}

/* What the call at hand is, and how long it may take, as other threads see it. */
static inline enum nq_call nq_watched_kind(const struct nq_watched *watched)
{
	return __atomic_load_n(&watched->kind, __ATOMIC_RELAXED);
}

static inline int64_t nq_watched_allowed(const struct nq_watched *watched)
{
	return __atomic_load_n(&watched->limit, __ATOMIC_RELAXED);
}

static inline void nq_watched_end(struct nq_watched *watched)
{
	__atomic_store_n(&watched->serial, watched->serial + 1, __ATOMIC_RELEASE);
}

/* Whether the present call is the one to be interrupted: what was meant for an earlier one is not
 * for this. In its own thread. */
static inline bool nq_watched_overdue(const struct nq_watched *watched)
{
	return nq_watched_busy(watched) &&
	       __atomic_load_n(&watched->target, __ATOMIC_RELAXED) == watched->serial;
}

#endif
