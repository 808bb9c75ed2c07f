#include "host/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/log.h"

enum { SHORT_LIFE_MS = 1000, FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 5000, ECHO_MS = 20 };

/* A worker that has judged so many packets did not die at once, however short its life. */
enum { PROGRESS = NQ_SLOTS };

struct supervisor {
	struct nq_memory *memory;
	const int *sockets;
	nq_worker_main *main;
	void *context;
	sigset_t signals, old_signals;
	int signal_fd; /* where those are read, as they come */
	pid_t worker;  /* 0: none alive */
	int stop_fd;   /* the worker stops when it is closed; -1: it is */
	int64_t started_ms, stopped_ms;
	int64_t restart_ms;	  /* without a worker: when the next is started */
	pid_t stopped_by;	  /* who asked first; 0: the kernel, for a terminal */
	uint64_t started_packets; /* received before the worker started */
	int pause_ms;
	bool stopping;
	bool ever_ready; /* a worker has judged */
	bool done;	 /* with `result` as exit status */
	int result;
};

static int64_t now_ms(void)
{
	return nq_clock_now() / 1000000;
}

static uint64_t count_packets(struct nq_memory *memory)
{
	uint64_t packets = 0;

	for (unsigned i = 0; i < memory->queue_count; i++)
		packets += nq_memory_queue(memory, i)->counters.packets;
	return packets;
}

static void do_nothing(int signal)
{
	(void)signal;
}

/*
 * A signal that shall have no effect here gets an empty handler: unlike being ignored, that ends
 * with exec, and what a script starts hears the signal again.
 */
static void disregard(int signal)
{
	struct sigaction action = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};

	sigaction(signal, &action, NULL);
}

/*
 * The worker's process. It leaves cleanly when the pipe behind `stop_fd` is closed: by its
 * supervisor, which asks for it so, or by the kernel when there is no supervisor any more. A signal
 * to the whole process group or cgroup, a terminal's Ctrl-C for one, is the supervisor's to hear.
 */
static int run_worker(struct supervisor *supervisor, int stop_fd)
{
	int status;

	disregard(SIGINT);
	disregard(SIGTERM);
	close(supervisor->signal_fd);
	sigprocmask(SIG_SETMASK, &supervisor->old_signals, NULL);
	status = supervisor->main(supervisor->context, supervisor->memory, supervisor->sockets,
				  stop_fd);
	if (status == 0)
		__atomic_store_n(&supervisor->memory->worker_state, NQ_WORKER_DONE,
				 __ATOMIC_RELEASE);
	return status;
}

static int start_worker(struct supervisor *supervisor)
{
	int ends[2];
	pid_t pid;

	supervisor->memory->worker_state = NQ_WORKER_STARTING;
	supervisor->started_ms = now_ms();
	supervisor->started_packets = count_packets(supervisor->memory);
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		_exit(run_worker(supervisor, ends[0]));
	}
	close(ends[0]);
	if (pid < 0) {
		int error = errno;

		close(ends[1]);
		return -error;
	}
	supervisor->worker = pid;
	supervisor->stop_fd = ends[1];
	return 0;
}

static void ask_to_stop(struct supervisor *supervisor)
{
	if (supervisor->stop_fd >= 0)
		close(supervisor->stop_fd);
	supervisor->stop_fd = -1;
}

static void log_death(const struct supervisor *supervisor, int status)
{
	if (WIFSIGNALED(status))
		nq_log(NQ_LOG_ERROR,
		       "the worker (pid %d) was killed by signal %d (%s); starting another",
		       (int)supervisor->worker, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		nq_log(NQ_LOG_ERROR,
		       "the worker (pid %d) ended with status %d (os.exit in the script?); "
		       "starting another",
		       (int)supervisor->worker, WEXITSTATUS(status));
}

static void finish(struct supervisor *supervisor, int result)
{
	supervisor->done = true;
	supervisor->result = result;
}

/* After a death: all is over, or another worker is due. */
static void finish_worker(struct supervisor *supervisor, int status)
{
	bool exited = WIFEXITED(status);

	supervisor->ever_ready |= supervisor->memory->worker_state != NQ_WORKER_STARTING;
	if (exited && WEXITSTATUS(status) == 0 &&
	    supervisor->memory->worker_state == NQ_WORKER_DONE) {
		finish(supervisor, 0);
		return;
	}
	if (supervisor->stopping || !supervisor->ever_ready) {
		if (!exited)
			nq_log(NQ_LOG_ERROR, "the worker (pid %d) was killed by signal %d (%s)",
			       (int)supervisor->worker, WTERMSIG(status),
			       strsignal(WTERMSIG(status)));
		else if (WEXITSTATUS(status) == 0)
			nq_log(NQ_LOG_ERROR, "the script ended its process (os.exit?) instead of "
					     "returning");
		finish(supervisor, exited && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
		return;
	}
	log_death(supervisor, status);
	supervisor->memory->workers_lost++;
	if (now_ms() - supervisor->started_ms >= SHORT_LIFE_MS ||
	    count_packets(supervisor->memory) - supervisor->started_packets >= PROGRESS) {
		supervisor->pause_ms = 0;
	} else if (supervisor->pause_ms == 0) {
		supervisor->pause_ms = FIRST_PAUSE_MS;
	} else {
		supervisor->pause_ms *= 2;
		if (supervisor->pause_ms > LONGEST_PAUSE_MS)
			supervisor->pause_ms = LONGEST_PAUSE_MS;
	}
	supervisor->restart_ms = now_ms() + supervisor->pause_ms;
}

static void handle_stop(struct supervisor *supervisor, const struct signalfd_siginfo *info)
{
	int64_t now = now_ms();
	pid_t sender = info->ssi_code <= 0 ? (pid_t)info->ssi_pid : 0;

	if (!supervisor->stopping) {
		supervisor->stopping = true;
		supervisor->stopped_ms = now;
		supervisor->stopped_by = sender;
		nq_log(NQ_LOG_INFO, "%s: draining the queues", strsignal((int)info->ssi_signo));
		ask_to_stop(supervisor);
		return;
	}
	/* timeout(1) signals a process, then its group: that is one wish. */
	if (sender && sender == supervisor->stopped_by && now - supervisor->stopped_ms < ECHO_MS)
		return;
	nq_log(NQ_LOG_WARN, "second signal: leaving at once, what waits in the queue is dropped");
	if (supervisor->worker)
		kill(supervisor->worker, SIGKILL);
}

/* Everything that has come; SIGCHLD is only a reason to look (reap_worker). */
static void read_signals(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;

	while (read(supervisor->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			handle_stop(supervisor, &info);
	}
}

static void reap_worker(struct supervisor *supervisor)
{
	int status;

	if (!supervisor->worker ||
	    waitpid(supervisor->worker, &status, WNOHANG) != supervisor->worker)
		return;
	finish_worker(supervisor, status);
	supervisor->worker = 0;
	ask_to_stop(supervisor); /* the pipe of the dead one */
}

static void replace_worker(struct supervisor *supervisor)
{
	int error;

	if (supervisor->done || supervisor->worker)
		return;
	if (supervisor->stopping) {
		finish(supervisor, 1); /* nobody to drain: the queue goes with its socket */
		return;
	}
	if (now_ms() < supervisor->restart_ms)
		return;
	error = start_worker(supervisor);
	if (error) {
		nq_log(NQ_LOG_ERROR, "cannot start the worker, trying again: %s", strerror(-error));
		supervisor->pause_ms = LONGEST_PAUSE_MS;
		supervisor->restart_ms = now_ms() + supervisor->pause_ms;
	}
}

/* Milliseconds until something is due that no descriptor tells of; -1: nothing. */
static int time_left(const struct supervisor *supervisor)
{
	int64_t left;

	if (supervisor->worker)
		return -1;
	left = supervisor->restart_ms - now_ms();
	return left > 0 ? (int)left : 0;
}

/* One place to wait, one turn a wake-up: signals, deaths, then what is due. */
static int watch(struct supervisor *supervisor)
{
	while (!supervisor->done) {
		struct pollfd ready = {.fd = supervisor->signal_fd, .events = POLLIN};

		/* A failure, an interruption: all there is to do is looked for anyway. */
		(void)poll(&ready, 1, time_left(supervisor));
		read_signals(supervisor);
		reap_worker(supervisor);
		replace_worker(supervisor);
	}
	return supervisor->result;
}

int nq_supervise(struct nq_memory *memory, const int *sockets, nq_worker_main *main, void *context)
{
	struct supervisor supervisor = {.memory = memory,
					.sockets = sockets,
					.main = main,
					.context = context,
					.stop_fd = -1};
	int result = 1;
	int error;

	/* A log or an output that nobody reads any more must not end the judging. */
	disregard(SIGPIPE);
	sigemptyset(&supervisor.signals);
	sigaddset(&supervisor.signals, SIGTERM);
	sigaddset(&supervisor.signals, SIGINT);
	sigaddset(&supervisor.signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &supervisor.signals, &supervisor.old_signals);
	supervisor.signal_fd = signalfd(-1, &supervisor.signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (supervisor.signal_fd < 0) {
		nq_log(NQ_LOG_ERROR, "cannot read signals: %s", strerror(errno));
		return 1;
	}
	error = start_worker(&supervisor);
	if (error)
		nq_log(NQ_LOG_ERROR, "cannot start the worker: %s", strerror(-error));
	else
		result = watch(&supervisor);
	close(supervisor.signal_fd);
	return result;
}
