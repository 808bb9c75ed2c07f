#include "host/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/channel.h"
#include "host/overrun.h"
#include "host/supervisor_parts.h"

enum { ECHO_MS = 20, REPORTS_MOST = 16 };

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

void nq_supervisor_shed(const struct nq_supervisor *supervisor)
{
	disregard(SIGINT);
	disregard(SIGTERM);
	if (!supervisor->ignores_hangup)
		disregard(SIGHUP);
	close(supervisor->signal_fd);
	nq_control_close(supervisor->control, false);
	if (supervisor->job->proc >= 0)
		close(supervisor->job->proc);
	sigprocmask(SIG_SETMASK, &supervisor->old_signals, NULL);
	if (supervisor->job->memory_fd >= 0) {
		int error = nq_memory_claim(supervisor->job->memory_fd);

		if (error) {
			nq_log(NQ_LOG_ERROR, "another worker is alive: %s", strerror(-error));
			_exit(1);
		}
	}
}

/*
 * The worker's process. It leaves cleanly when the other end of the channel is closed: by its
 * supervisor, which asks for it so, or by the kernel when there is no supervisor any more. A signal
 * to the whole process group or cgroup, a terminal's Ctrl-C for one, is the supervisor's to hear.
 */
static int run_worker(struct nq_supervisor *supervisor, const struct nq_worker_start *start)
{
	struct nq_failure failure = {0};

	nq_supervisor_shed(supervisor);
	if (supervisor->job->main(supervisor->job->context, start, &failure) == 0) {
		__atomic_store_n(&supervisor->memory->worker_state, NQ_WORKER_DONE,
				 __ATOMIC_RELEASE);
		return 0;
	}
	if (!failure.status)
		failure.status = 1;
	/* The supervisor tells of a script that was tried. */
	if (supervisor->tryout.on)
		(void)nq_channel_send_report(start->channel, start->generation, &failure);
	else
		nq_log(NQ_LOG_ERROR, "%s", failure.message);
	return failure.status;
}

static int start_worker(struct nq_supervisor *supervisor)
{
	const struct nq_tryout *tryout = &supervisor->tryout;
	struct nq_worker_start start = {
		.memory = supervisor->memory,
		.sockets = supervisor->job->sockets,
		.script = tryout->on ? &tryout->script : &supervisor->script,
		.generation = tryout->generation,
	};
	int ends[2];
	int error;
	pid_t pid;

	supervisor->memory->worker_state = NQ_WORKER_STARTING;
	supervisor->started_ms = nq_supervisor_now();
	supervisor->started_packets = nq_backoff_count_packets(supervisor->memory);
	supervisor->ready = false;
	error = nq_channel_open(ends);
	if (error)
		return error;
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		start.channel = ends[0];
		_exit(run_worker(supervisor, &start));
	}
	error = errno;
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return -error;
	}
	supervisor->worker = pid;
	supervisor->channel = ends[1];
	return 0;
}

static void ask_to_stop(struct nq_supervisor *supervisor)
{
	if (supervisor->channel >= 0)
		close(supervisor->channel);
	supervisor->channel = -1;
}

/* "was killed by signal 9 (Killed)" */
static void describe_death(int status, char how[NQ_OVERRUN_TEXT])
{
	if (WIFSIGNALED(status))
		snprintf(how, NQ_OVERRUN_TEXT, "was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, NQ_OVERRUN_TEXT, "ended with status %d (os.exit in the script?)",
			 WEXITSTATUS(status));
}

static void finish(struct nq_supervisor *supervisor, int result)
{
	supervisor->done = true;
	supervisor->result = result;
}

static bool is_bound(struct nq_memory *memory)
{
	for (unsigned i = 0; i < memory->lane_count; i++) {
		if (nq_memory_lane(memory, i)->joined)
			return true;
	}
	return false;
}

/* After a death: all is over, or another worker is due. */
static void finish_worker(struct nq_supervisor *supervisor, int status)
{
	bool exited = WIFEXITED(status);
	char how[NQ_OVERRUN_TEXT];
	bool loading = false;
	bool overrun = nq_overrun_take(supervisor->memory, how, &loading);

	supervisor->ever_ready |= supervisor->memory->worker_state != NQ_WORKER_STARTING;
	if (exited && WEXITSTATUS(status) == 0 &&
	    supervisor->memory->worker_state == NQ_WORKER_DONE) {
		finish(supervisor, 0);
		return;
	}
	if (!overrun)
		describe_death(status, how);
	/* What waits behind that packet is still judged, by one more worker. */
	supervisor->draining = supervisor->stopping && overrun && !loading &&
			       !supervisor->hurried && is_bound(supervisor->memory);
	if (supervisor->stopping && supervisor->ever_ready && !exited && !supervisor->hurried &&
	    !overrun) {
		nq_log(NQ_LOG_ERROR, "the worker (pid %d) %s; what waits gets on_error",
		       (int)supervisor->worker, how);
		return;
	}
	if ((supervisor->stopping && !supervisor->draining) || !supervisor->ever_ready) {
		if (!exited)
			nq_log(NQ_LOG_ERROR, "the worker (pid %d) %s", (int)supervisor->worker,
			       how);
		else if (WEXITSTATUS(status) == 0)
			nq_log(NQ_LOG_ERROR, "the script ended its process (os.exit?) instead of "
					     "returning");
		if (overrun && loading)
			finish(supervisor, 65);
		else
			finish(supervisor, exited && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
		return;
	}
	if (supervisor->gave_up) {
		supervisor->restart_ms = 0; /* with the script in force */
		return;
	}
	nq_log(NQ_LOG_ERROR, "the worker (pid %d) %s; starting another", (int)supervisor->worker,
	       how);
	supervisor->memory->workers_lost++;
	if (supervisor->tryout.on)
		nq_tryout_lose(supervisor, how);
	/* One that overran has lived as long as that took: it did not die at once. */
	if (overrun && !loading)
		supervisor->restart_ms = 0;
	else
		nq_backoff_pause(supervisor);
}

void nq_supervisor_stop(struct nq_supervisor *supervisor, const char *why)
{
	supervisor->stopping = true;
	supervisor->stopped_ms = nq_supervisor_now();
	nq_log(NQ_LOG_INFO, "%s: draining the queues", why);
	ask_to_stop(supervisor);
	nq_backoff_ask_to_stop(supervisor);
}

static void handle_stop(struct nq_supervisor *supervisor, const struct signalfd_siginfo *info)
{
	int64_t now = nq_supervisor_now();
	pid_t sender = info->ssi_code <= 0 ? (pid_t)info->ssi_pid : 0;

	if (!supervisor->stopping) {
		supervisor->stopped_by = sender;
		nq_supervisor_stop(supervisor, strsignal((int)info->ssi_signo));
		return;
	}
	/* timeout(1) signals a process, then its group: that is one wish. */
	if (sender && sender == supervisor->stopped_by && now - supervisor->stopped_ms < ECHO_MS)
		return;
	nq_log(NQ_LOG_WARN, "second signal: leaving at once, what waits in the queue is dropped");
	supervisor->hurried = true;
	supervisor->draining = false;
	if (supervisor->worker)
		kill(supervisor->worker, SIGKILL);
	nq_backoff_end(supervisor);
}

static void handle_hangup(struct nq_supervisor *supervisor, const struct signalfd_siginfo *info)
{
	if (info->ssi_code <= 0)
		supervisor->tryout.asked = true;
	else if (!supervisor->ignores_hangup)
		handle_stop(supervisor, info); /* the kernel's: the terminal is gone */
}

/* Everything that has come; SIGCHLD is only a reason to look (reap_worker). */
static void read_signals(struct nq_supervisor *supervisor)
{
	struct signalfd_siginfo info;

	while (read(supervisor->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			handle_stop(supervisor, &info);
		else if (info.ssi_signo == SIGHUP)
			handle_hangup(supervisor, &info);
	}
}

static void read_reports(struct nq_supervisor *supervisor)
{
	struct nq_failure failure;
	uint32_t generation;

	/* A worker that talks all the time is not listened to all the time. */
	for (int i = 0; i < REPORTS_MOST && supervisor->channel >= 0 &&
			nq_channel_take_report(supervisor->channel, &generation, &failure) > 0;
	     i++) {
		const struct nq_tryout *tryout = &supervisor->tryout;

		if (failure.status == 0) {
			if (!supervisor->ready)
				supervisor->ready_ms = nq_supervisor_now();
			supervisor->ready = true;
			nq_wishes_report(supervisor);
		}
		if (!tryout->on || generation != tryout->generation)
			continue;
		supervisor->gave_up = failure.status != 0 && tryout->begun;
		nq_tryout_conclude(supervisor, &failure);
	}
}

static void reap_worker(struct nq_supervisor *supervisor)
{
	int status;

	if (!supervisor->worker ||
	    waitpid(supervisor->worker, &status, WNOHANG) != supervisor->worker)
		return;
	read_reports(supervisor); /* its last words */
	finish_worker(supervisor, status);
	supervisor->worker = 0;
	supervisor->ready = supervisor->gave_up = false;
	supervisor->silent = false; /* the next one's channel is another */
	ask_to_stop(supervisor);    /* the channel to the dead one */
}

static void replace_worker(struct nq_supervisor *supervisor)
{
	int error;

	if (supervisor->done || supervisor->worker)
		return;
	if (supervisor->stopping && !supervisor->draining) {
		int result;

		if (nq_backoff_drain(supervisor, &result))
			finish(supervisor, result);
		return;
	}
	if (nq_supervisor_now() < supervisor->restart_ms)
		return;
	nq_backoff_end(supervisor);
	error = start_worker(supervisor);
	if (error) {
		nq_log(NQ_LOG_ERROR, "cannot start the worker, trying again: %s", strerror(-error));
		nq_backoff_pause(supervisor);
	}
}

/* One that was started to judge what waits is asked to leave once it has taken over. */
static void stop_successor(struct nq_supervisor *supervisor)
{
	if (supervisor->draining && supervisor->worker && supervisor->ready)
		ask_to_stop(supervisor);
}

/* Milliseconds until something is due that no descriptor tells of; -1: nothing. */
static int time_left(const struct nq_supervisor *supervisor)
{
	int64_t left;

	if (supervisor->worker || (supervisor->stopping && !supervisor->draining))
		return -1;
	left = supervisor->restart_ms - nq_supervisor_now();
	return left > 0 ? (int)left : 0;
}

/* One place to wait, one turn a wake-up: signals, reports, deaths, then what is due. */
static int watch(struct nq_supervisor *supervisor)
{
	while (!supervisor->done) {
		struct pollfd ready[2 + NQ_CONTROL_POLLS] = {
			{.fd = supervisor->signal_fd, .events = POLLIN},
			{.fd = supervisor->channel, .events = POLLIN}};
		int timeout = time_left(supervisor);

		/* Of a dead worker SIGCHLD tells, and its channel goes on telling. */
		if (ready[1].fd >= 0 && supervisor->silent)
			ready[1].fd = -1;
		nq_control_prepare(supervisor->control, ready + 2, nq_supervisor_now(), &timeout);
		/* A failure, an interruption: all there is to do is looked for anyway. */
		(void)poll(ready, 2 + NQ_CONTROL_POLLS, timeout);
		supervisor->silent = (ready[1].revents & POLLHUP) != 0;
		read_signals(supervisor);
		read_reports(supervisor);
		nq_wishes_serve(supervisor, ready + 2);
		reap_worker(supervisor);
		nq_backoff_reap(supervisor);
		if (!supervisor->stopping)
			nq_tryout_begin(supervisor);
		replace_worker(supervisor);
		stop_successor(supervisor);
		nq_supervisor_tell(supervisor);
	}
	nq_tryout_end(supervisor);
	nq_wishes_end(supervisor);
	return supervisor->result;
}

int nq_supervise(const struct nq_supervision *supervision)
{
	struct nq_supervisor supervisor = {.job = supervision,
					   .memory = supervision->memory,
					   .control = supervision->control,
					   .channel = -1,
					   .stand_in_fd = -1};
	struct nq_failure failure;
	struct sigaction hangup;
	int result = 1;
	int error;

	/* Signals are not blocked yet: a pipe may be waited for. */
	if (nq_text_read(supervision->script, false, &supervisor.script, &failure) != 0) {
		nq_log(NQ_LOG_ERROR, "%s", failure.message);
		return failure.status;
	}
	/* A log or an output that nobody reads any more must not end the judging. */
	disregard(SIGPIPE);
	supervisor.ignores_hangup =
		sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler == SIG_IGN;
	sigemptyset(&supervisor.signals);
	sigaddset(&supervisor.signals, SIGTERM);
	sigaddset(&supervisor.signals, SIGINT);
	sigaddset(&supervisor.signals, SIGHUP);
	sigaddset(&supervisor.signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &supervisor.signals, &supervisor.old_signals);
	supervisor.signal_fd = signalfd(-1, &supervisor.signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (supervisor.signal_fd < 0) {
		nq_log(NQ_LOG_ERROR, "cannot read signals: %s", strerror(errno));
		goto out;
	}
	error = start_worker(&supervisor);
	if (error)
		nq_log(NQ_LOG_ERROR, "cannot start the worker: %s", strerror(-error));
	else
		result = watch(&supervisor);
	close(supervisor.signal_fd);
out:
	nq_text_free(&supervisor.script);
	return result;
}
