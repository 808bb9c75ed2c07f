/*
 * supervisor.h - the process that outlives the one that runs scripts.
 *
 * It keeps the sockets and the shared memory, starts the worker, reads the signals, and starts a
 * worker again when it dies. It runs no script and no thread. It has the text of the script in
 * force, so that a later worker begins with what was loaded well last, whatever has become of the
 * file.
 */
#ifndef NQ_SUPERVISOR_H
#define NQ_SUPERVISOR_H

#include "host/control.h"
#include "host/memory.h"
#include "host/notify.h"
#include "host/settings.h"
#include "host/text.h"

/* What a worker process begins with. */
struct nq_worker_start {
	struct nq_memory *memory;
	const int *sockets;
	const struct nq_text *script;
	uint32_t generation; /* of the script: counted up with each that is tried */
	int channel;	     /* to the supervisor (channel.h) */
};

/*
 * What the worker process runs. It drains and leaves when the supervisor closes the channel. 0, or
 * -errno with *failure, whose status becomes the process's.
 */
typedef int nq_worker_main(void *context, const struct nq_worker_start *start,
			   struct nq_failure *failure);

struct nq_supervision {
	struct nq_memory *memory;
	const int *sockets;
	nq_worker_main *main;
	void *context;
	const char *script; /* path */
	const struct nq_notify *notify;
	int memory_fd;	  /* of the memory; -1: nobody else could ever have it */
	const char *name; /* of the control socket (control.h); NULL: the usual one */
	/* Of nq_supervision_listen. */
	struct nq_control *control;
	int proc;		    /* of nq_proc_open */
	struct nq_failure why_none; /* when there is no control socket */
};

/*
 * Before privileges are dropped: opens the control socket. Where there can be none, or the usual
 * name is taken, that is said later. 0, or -errno with *failure when the name that was chosen is
 * taken.
 */
int nq_supervision_listen(struct nq_supervision *supervision, struct nq_failure *failure);
void nq_supervision_close(struct nq_supervision *supervision);

/*
 * Supervises until the worker ends by itself or a signal asks for the end: SIGTERM and SIGINT let
 * it drain, a second one kills it. SIGHUP loads the script anew; that of a terminal that is gone
 * asks for the end. The control socket takes the same wishes, and tells the counters; where there
 * can be none, or the usual name is taken, it is said and done without. Returns the command's exit
 * status. Called from a single-threaded process; these signals and SIGCHLD are blocked on return.
 */
int nq_supervise(const struct nq_supervision *supervision);

#endif
