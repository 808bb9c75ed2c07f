/* Workers that die at once, one after another: longer and longer pauses between them, and who gives
 * on_error meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/standin.h"
#include "host/supervisor_parts.h"

enum { SHORT_LIFE_MS = 1000, FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 5000 };

/* A pause from which on packets do not wait for its end: somebody stands in. */
enum { LONG_PAUSE_MS = 400 };

/* A worker that has judged so many packets did not die at once, however short its life. */
enum { PROGRESS = NQ_SLOTS };

uint64_t nq_backoff_count_packets(struct nq_memory *memory)
{
	uint64_t packets = 0;

	for (unsigned i = 0; i < memory->queue_count; i++)
		packets += nq_memory_queue(memory, i)->counters.packets;
	return packets;
}

void nq_backoff_ask_to_stop(struct nq_supervisor *supervisor)
{
	if (supervisor->stand_in_fd >= 0)
		close(supervisor->stand_in_fd);
	supervisor->stand_in_fd = -1;
}

static void start_stand_in(struct nq_supervisor *supervisor)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
		nq_log(NQ_LOG_ERROR, "cannot start a stand-in, packets wait: %s", strerror(errno));
		return;
	}
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		nq_supervisor_shed(supervisor);
		_exit(nq_stand_in(supervisor->memory, supervisor->job->sockets, ends[0]));
	}
	if (pid < 0)
		nq_log(NQ_LOG_ERROR, "cannot start a stand-in, packets wait: %s", strerror(errno));
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return;
	}
	supervisor->stand_in = pid;
	supervisor->stand_in_fd = ends[1];
}

/* Loading a script may take any time; what counts is whether it was of use. */
static bool lived(const struct nq_supervisor *supervisor)
{
	return (supervisor->ready && nq_supervisor_now() - supervisor->ready_ms >= SHORT_LIFE_MS) ||
	       nq_backoff_count_packets(supervisor->memory) - supervisor->started_packets >=
		       PROGRESS;
}

void nq_backoff_pause(struct nq_supervisor *supervisor)
{
	if (lived(supervisor)) {
		supervisor->deaths = 0;
		supervisor->pause_ms = 0;
	} else {
		supervisor->deaths++;
		supervisor->pause_ms *= 2;
		if (supervisor->pause_ms < FIRST_PAUSE_MS)
			supervisor->pause_ms = FIRST_PAUSE_MS;
		if (supervisor->pause_ms > LONGEST_PAUSE_MS)
			supervisor->pause_ms = LONGEST_PAUSE_MS;
	}
	supervisor->restart_ms = nq_supervisor_now() + supervisor->pause_ms;
	if (supervisor->pause_ms < LONG_PAUSE_MS)
		return;
	nq_log(NQ_LOG_ERROR,
	       "CRASH LOOP: %u workers in a row died at once; the next starts in %d.%d s, and "
	       "until then every packet gets on_error",
	       supervisor->deaths, supervisor->pause_ms / 1000, supervisor->pause_ms % 1000 / 100);
	start_stand_in(supervisor);
}

/* Killed rather than asked: it leaves what any worker that dies leaves. */
void nq_backoff_end(struct nq_supervisor *supervisor)
{
	if (!supervisor->stand_in)
		return;
	kill(supervisor->stand_in, SIGKILL);
	while (waitpid(supervisor->stand_in, NULL, 0) < 0 && errno == EINTR)
		;
	supervisor->stand_in = 0;
	nq_backoff_ask_to_stop(supervisor); /* the pipe of the dead one */
}

void nq_backoff_reap(struct nq_supervisor *supervisor)
{
	int status;

	if (!supervisor->stand_in ||
	    waitpid(supervisor->stand_in, &status, WNOHANG) != supervisor->stand_in)
		return;
	supervisor->stand_in = 0;
	nq_backoff_ask_to_stop(supervisor);
	supervisor->drained = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (WIFSIGNALED(status))
		nq_log(NQ_LOG_ERROR, "the stand-in was killed by signal %d (%s): packets wait",
		       WTERMSIG(status), strsignal(WTERMSIG(status)));
	/* Once is enough: what one could not drain another cannot. */
	supervisor->hurried |= supervisor->stopping;
}

bool nq_backoff_drain(struct nq_supervisor *supervisor, int *result)
{
	if (supervisor->stand_in)
		return false;
	if (supervisor->ever_ready && !supervisor->hurried) {
		start_stand_in(supervisor);
		nq_backoff_ask_to_stop(supervisor);
		if (supervisor->stand_in)
			return false;
	}
	*result = supervisor->drained ? 0 : 1; /* if not, the queues go with their sockets */
	return true;
}
