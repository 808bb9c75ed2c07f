#include "host/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/log.h"

#define MILLISECOND INT64_C(1000000)

enum {
	LONGEST_TICK_MS = 10,
	SHORTEST_TICK_MS = 2,
	IDLE_TICKS = 16,     /* then it sleeps */
	TICK_COUNTS_MS = 50, /* at most, however long it took: the process may have stood still */
	/*
	 * From the second interruption until a call is called stuck: when its thread has gone on
	 * for a while; when it has not, and so waits for something; when it was not even
	 * interrupted, because it gets no processor.
	 */
	RUNNING_MS = 20,
	RAN_MS = 10,
	WAITING_MS = 40,
	STARVING_MS = 500,
	SIGNALS_MOST = 16, /* on their way to a thread */
};

struct nq_watchdog {
	pthread_t thread;
	int wake; /* eventfd */
	int signal;
	bool ending;
	bool asleep; /* whoever begins a call clears it and writes to `wake` */
	nq_stuck *stuck;
	void *context;
	pthread_mutex_t lock; /* of the list, and of what each in it says */
	struct nq_watched *first;
	unsigned idle; /* ticks in which nothing happened */
};

const char *nq_call_name(enum nq_call kind)
{
	static const char *const names[] = {
		[NQ_CALL_HANDLER] = "handler",
		[NQ_CALL_TIMER] = "timer",
		[NQ_CALL_LOAD] = "script's chunk",
		[NQ_CALL_OPEN] = "script's open",
		[NQ_CALL_CLOSE] = "script's close",
		[NQ_CALL_FINISH] = "finish of a flow",
		[NQ_CALL_END] = "end of the script's state",
	};

	return names[kind];
}

/* In the thread of the call, which has been interrupted in every way there is. */
static void confirm(struct nq_watched *watched)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	watched->used = (int64_t)used.tv_sec * NQ_SECOND + used.tv_nsec;
	watched->id = (int)syscall(SYS_gettid);
	__atomic_store_n(&watched->heard, watched->serial, __ATOMIC_RELEASE);
}

/* In the thread of the call. A signal of somebody else's making carries no address of ours. */
static void hear(int signal, siginfo_t *info, void *context)
{
	struct nq_watched *watched = info->si_value.sival_ptr;
	int error = errno;

	(void)signal;
	(void)context;
	if (info->si_code != SI_QUEUE || info->si_pid != getpid() || !watched)
		return;
	__atomic_fetch_sub(&watched->signals, 1, __ATOMIC_RELAXED);
	if (nq_watched_overdue(watched)) {
		bool again = watched->interrupted == watched->serial;

		watched->interrupted = watched->serial;
		if (watched->interrupt)
			watched->interrupt(watched);
		if (again && watched->heard != watched->serial)
			confirm(watched);
	}
	errno = error;
}

/*
 * A real-time signal that nobody in the process uses, or that was taken for the same use before: it
 * keeps its handler, as the code stays loaded. System calls are not resumed after it: a script that
 * waits in one is to wait no longer.
 */
static int take_signal(void)
{
	struct sigaction action = {.sa_sigaction = hear, .sa_flags = SA_SIGINFO};
	struct sigaction old;

	sigemptyset(&action.sa_mask);
	for (int number = SIGRTMAX; number >= SIGRTMIN; number--) {
		if (sigaction(number, NULL, &old) < 0)
			continue;
		if ((old.sa_flags & SA_SIGINFO) && old.sa_sigaction == hear)
			return number;
		if (!(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL &&
		    sigaction(number, &action, NULL) == 0)
			return number;
	}
	return -EBUSY;
}

int64_t nq_thread_used(pthread_t thread)
{
	struct timespec used = {0};
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) == 0)
		(void)clock_gettime(clock, &used);
	return (int64_t)used.tv_sec * NQ_SECOND + used.tv_nsec;
}

/* Its state in /proc, where that can be read. */
bool nq_thread_waits(int id)
{
	char path[64], line[512];
	const char *state;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	got = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (got <= 0)
		return true;
	line[got] = '\0';
	state = strrchr(line, ')'); /* "1234 (name) S ..." */
	return !state || state[1] == '\0' || state[2] != 'R';
}

/* Whether an interruption had every chance, and no effect. */
static bool is_stuck(struct nq_watched *watched)
{
	int64_t past;

	if (__atomic_load_n(&watched->heard, __ATOMIC_ACQUIRE) != watched->seen)
		return watched->elapsed - watched->since >= STARVING_MS * MILLISECOND;
	if (!watched->acknowledged) {
		watched->acknowledged = true;
		watched->since = watched->elapsed;
	}
	past = watched->elapsed - watched->since;
	if (past >= STARVING_MS * MILLISECOND ||
	    (past >= WAITING_MS * MILLISECOND && nq_thread_waits(watched->id)))
		return true;
	return past >= RUNNING_MS * MILLISECOND &&
	       nq_thread_used(__atomic_load_n(&watched->thread, __ATOMIC_RELAXED)) -
			       watched->used >=
		       RAN_MS * MILLISECOND;
}

/*
 * What cannot be queued now is sent with the next tick. A thread that keeps signals off gets a few
 * only: the system has room for so many of all processes of a user.
 */
static void send_signal(const struct nq_watchdog *watchdog, struct nq_watched *watched)
{
	union sigval value = {.sival_ptr = watched};

	if (__atomic_load_n(&watched->signals, __ATOMIC_RELAXED) >= SIGNALS_MOST)
		return;
	/* Counted first: it may come before the call returns. */
	__atomic_fetch_add(&watched->signals, 1, __ATOMIC_RELAXED);
	if (pthread_sigqueue(__atomic_load_n(&watched->thread, __ATOMIC_RELAXED), watchdog->signal,
			     value) != 0)
		__atomic_fetch_sub(&watched->signals, 1, __ATOMIC_RELAXED);
}

/* As long as the call goes on: a script may have caught the error, or taken the hook away. */
static void interrupt(const struct nq_watchdog *watchdog, struct nq_watched *watched)
{
	if (watched->target != watched->seen) {
		watched->since = watched->elapsed;
		watched->acknowledged = false;
		__atomic_store_n(&watched->target, watched->seen, __ATOMIC_RELEASE);
	}
	send_signal(watchdog, watched);
	if (watched->stuck || !is_stuck(watched))
		return;
	watched->stuck = true;
	if (watchdog->stuck)
		watchdog->stuck(watchdog->context, watched);
	else
		nq_log(NQ_LOG_ERROR,
		       "the %s has exceeded its time limit of %g s and cannot be interrupted: it "
		       "is in C code, or in a finalizer",
		       nq_call_name(nq_watched_kind(watched)),
		       (double)nq_watched_allowed(watched) / (double)NQ_SECOND);
}

/* Looks at one: whether something has happened since the last look. */
static bool look(const struct nq_watchdog *watchdog, struct nq_watched *watched, int64_t passed)
{
	uint64_t serial = __atomic_load_n(&watched->serial, __ATOMIC_SEQ_CST);
	bool changed = serial != watched->seen;

	if (changed) {
		watched->seen = serial;
		watched->elapsed = 0;
		watched->stuck = false;
	} else if (serial & 1) {
		watched->elapsed += passed;
		if (watched->elapsed >= __atomic_load_n(&watched->limit, __ATOMIC_RELAXED))
			interrupt(watchdog, watched);
	}
	return changed || (serial & 1);
}

/* How long to wait until the next look, nanoseconds: an eighth of a limit, the rest of one that is
 * about to be reached, and little while a call is being interrupted. */
static int64_t tick_of(const struct nq_watchdog *watchdog)
{
	int64_t tick = LONGEST_TICK_MS * MILLISECOND;

	for (const struct nq_watched *watched = watchdog->first; watched; watched = watched->next) {
		int64_t limit = __atomic_load_n(&watched->limit, __ATOMIC_RELAXED);

		if (!(watched->seen & 1) || watched->stuck)
			continue;
		if (limit / 8 < tick)
			tick = limit / 8;
		if (limit - watched->elapsed < tick)
			tick = limit - watched->elapsed;
	}
	return tick < SHORTEST_TICK_MS * MILLISECOND ? SHORTEST_TICK_MS * MILLISECOND : tick;
}

/* Looks at all: nanoseconds until the next look, -1 when nothing needs one. */
static int64_t look_round(struct nq_watchdog *watchdog, int64_t passed)
{
	bool happened = false;

	for (struct nq_watched *watched = watchdog->first; watched; watched = watched->next)
		happened |= look(watchdog, watched, passed);
	watchdog->idle = happened ? 0 : watchdog->idle + 1;
	if (watchdog->idle < IDLE_TICKS)
		return tick_of(watchdog);
	/* Who begins a call counts it and then asks; here it is said first, and then looked. */
	__atomic_store_n(&watchdog->asleep, true, __ATOMIC_SEQ_CST);
	for (struct nq_watched *watched = watchdog->first; watched; watched = watched->next) {
		if (__atomic_load_n(&watched->serial, __ATOMIC_SEQ_CST) != watched->seen) {
			__atomic_store_n(&watchdog->asleep, false, __ATOMIC_SEQ_CST);
			return 0;
		}
	}
	return -1;
}

static void *watch(void *argument)
{
	struct nq_watchdog *watchdog = argument;
	int64_t before = nq_clock_now();
	int64_t pause = 0;

	while (!__atomic_load_n(&watchdog->ending, __ATOMIC_ACQUIRE)) {
		struct pollfd ready = {.fd = watchdog->wake, .events = POLLIN};
		int64_t now, passed;
		uint64_t count;
		struct timespec left = {pause / NQ_SECOND, pause % NQ_SECOND};

		if (ppoll(&ready, 1, pause < 0 ? NULL : &left, NULL) > 0)
			(void)!read(watchdog->wake, &count, sizeof(count));
		now = nq_clock_now();
		passed = now - before;
		before = now;
		if (passed > TICK_COUNTS_MS * MILLISECOND)
			passed = TICK_COUNTS_MS * MILLISECOND;
		pthread_mutex_lock(&watchdog->lock);
		pause = look_round(watchdog, passed);
		pthread_mutex_unlock(&watchdog->lock);
	}
	return NULL;
}

struct nq_watchdog *nq_watchdog_new(nq_stuck *stuck, void *context)
{
	struct nq_watchdog *watchdog = calloc(1, sizeof(*watchdog));
	sigset_t all, old;
	int error = ENOMEM;

	if (!watchdog)
		goto out;
	watchdog->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	watchdog->stuck = stuck;
	watchdog->context = context;
	watchdog->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = errno;
	if (watchdog->wake < 0)
		goto out;
	watchdog->signal = take_signal();
	error = -watchdog->signal;
	if (error > 0)
		goto out;
	/* Signals are for others. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	error = pthread_create(&watchdog->thread, NULL, watch, watchdog);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error)
		goto out;
	(void)pthread_setname_np(watchdog->thread, "watchdog");
	return watchdog;
out:
	if (watchdog && watchdog->wake >= 0)
		close(watchdog->wake);
	free(watchdog);
	errno = error;
	return NULL;
}

void nq_watchdog_wake(struct nq_watchdog *watchdog)
{
	uint64_t one = 1;

	if (__atomic_exchange_n(&watchdog->asleep, false, __ATOMIC_SEQ_CST))
		(void)!write(watchdog->wake, &one, sizeof(one));
}

bool nq_watchdog_asleep(const struct nq_watchdog *watchdog)
{
	return __atomic_load_n(&watchdog->asleep, __ATOMIC_SEQ_CST);
}

void nq_watchdog_free(struct nq_watchdog *watchdog)
{
	uint64_t one = 1;

	if (!watchdog)
		return;
	__atomic_store_n(&watchdog->ending, true, __ATOMIC_RELEASE);
	(void)!write(watchdog->wake, &one, sizeof(one));
	pthread_join(watchdog->thread, NULL);
	close(watchdog->wake);
	pthread_mutex_destroy(&watchdog->lock);
	free(watchdog);
}

void nq_watchdog_add(struct nq_watchdog *watchdog, struct nq_watched *watched)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, watchdog->signal);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_mutex_lock(&watchdog->lock);
	watched->watchdog = watchdog;
	watched->seen = watched->serial;
	watched->next = watchdog->first;
	watchdog->first = watched;
	pthread_mutex_unlock(&watchdog->lock);
}

void nq_watchdog_remove(struct nq_watched *watched)
{
	struct nq_watchdog *watchdog = watched->watchdog;
	struct nq_watched **place;

	if (!watchdog)
		return;
	pthread_mutex_lock(&watchdog->lock);
	for (place = &watchdog->first; *place != watched; place = &(*place)->next)
		;
	*place = watched->next;
	pthread_mutex_unlock(&watchdog->lock);
	watched->watchdog = NULL;
	/* A signal that was sent before is taken at the latest on return from a system call. */
	(void)syscall(SYS_gettid);
}
