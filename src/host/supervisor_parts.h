/*
 * supervisor_parts.h - what the files of the supervisor share: supervisor.c (workers and signals),
 * tryout.c (another script), wishes.c (what is asked for through the control socket), backoff.c
 * (workers that die at once) and tell.c (what a service manager is told). Not for others.
 */
#ifndef NQ_SUPERVISOR_PARTS_H
#define NQ_SUPERVISOR_PARTS_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "host/clock.h"
#include "host/log.h"
#include "host/supervisor.h"

/* A script that may take the place of the one in force. */
struct nq_tryout {
	bool asked; /* for one that begins from now on */
	bool on;    /* one has begun */
	bool begun; /* by starting a worker with it, not by sending it to one that judges */
	uint32_t generation; /* of the one that began last */
	struct nq_text script;
};

enum nq_told {
	NQ_TOLD_NOTHING,
	NQ_TOLD_READY,
	NQ_TOLD_RELOADING,
	NQ_TOLD_CRASHING,
	NQ_TOLD_STOPPING,
};

struct nq_supervisor {
	const struct nq_supervision *job;
	struct nq_memory *memory;
	struct nq_text script; /* in force */
	struct nq_tryout tryout;
	struct nq_control *control; /* NULL: nobody can ask */
	bool told;		    /* that nobody can */
	sigset_t signals, old_signals;
	int signal_fd; /* where those are read, as they come */
	pid_t worker;  /* 0: none alive */
	int channel;   /* to it; -1: it was closed, so that it leaves */
	bool ready;    /* it judges */
	bool gave_up;  /* it reported why it cannot begin with the script that is tried */
	bool silent;   /* its end of the channel is closed */
	int64_t started_ms, ready_ms, stopped_ms;
	int64_t restart_ms;	  /* without a worker: when the next is started */
	uint64_t started_packets; /* received before the worker started */
	pid_t stopped_by;	  /* who asked first; 0: the kernel, for a terminal */
	int pause_ms;
	enum nq_told manager_told;   /* to the service manager */
	uint32_t manager_generation; /* of the script that was tried last, told to it */
	unsigned deaths;	     /* at once, one after another */
	pid_t stand_in;		     /* while there is no worker; 0: none */
	int stand_in_fd;	     /* it leaves when that is closed; -1: it is */
	bool drained;		     /* by it */
	bool stopping;
	bool draining;	     /* by one more worker, as the last was ended by its watchdog */
	bool hurried;	     /* asked twice: nobody drains */
	bool ever_ready;     /* a worker has judged */
	bool ignores_hangup; /* nohup(1) has asked for that */
	bool done;	     /* with `result` as exit status */
	int result;
};

static inline int64_t nq_supervisor_now(void)
{
	return nq_clock_now() / 1000000;
}

/* In a process that was forked: nothing of the supervisor's signals and sockets is left, and the
 * memory is its own to write. */
void nq_supervisor_shed(const struct nq_supervisor *supervisor);

/* --- backoff.c --- */

uint64_t nq_backoff_count_packets(struct nq_memory *memory);

/* A worker died, or could not be started: when the next one is, and who judges until then. */
void nq_backoff_pause(struct nq_supervisor *supervisor);

/* The stand-in, if there is one, is gone: a worker may start. Nothing of what it had is lost. */
void nq_backoff_end(struct nq_supervisor *supervisor);

void nq_backoff_reap(struct nq_supervisor *supervisor);

void nq_backoff_ask_to_stop(struct nq_supervisor *supervisor);

/* Told to stop while there is no worker: true with the exit status when nothing is left to do. */
bool nq_backoff_drain(struct nq_supervisor *supervisor, int *result);

/* --- tell.c --- */

/* What has changed since the last time. */
void nq_supervisor_tell(struct nq_supervisor *supervisor);

/* Lets the worker drain and leave, for the reason that is logged. */
void nq_supervisor_stop(struct nq_supervisor *supervisor, const char *why);

/* --- wishes.c --- */

/* A worker judges, so that it matters: says once that nobody can ask. */
void nq_wishes_report(struct nq_supervisor *supervisor);

/* After the poll: `polls` are of nq_control_prepare. */
void nq_wishes_serve(struct nq_supervisor *supervisor, const struct pollfd *polls);

/* All is over: who asked for the end is told how it was. */
void nq_wishes_end(struct nq_supervisor *supervisor);

/* --- tryout.c --- */

/* Begins one that was asked for, if it can now. */
void nq_tryout_begin(struct nq_supervisor *supervisor);

/* What the worker has reported of the one that is on, or NULL: it says that it is ready. */
void nq_tryout_conclude(struct nq_supervisor *supervisor, const struct nq_failure *failure);

/* The worker has died while one is on, of what `how` says. */
void nq_tryout_lose(struct nq_supervisor *supervisor, const char *how);

/* All is over: nothing that was asked for comes any more. */
void nq_tryout_end(struct nq_supervisor *supervisor);

#endif
