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

#include "host/memory.h"
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
};

/*
 * Supervises until the worker ends by itself or a signal asks for the end: SIGTERM and SIGINT let
 * it drain, a second one kills it. SIGHUP loads the script anew; that of a terminal that is gone
 * asks for the end. Returns the command's exit status. Called from a single-threaded process; these
 * signals and SIGCHLD are blocked on return.
 */
int nq_supervise(const struct nq_supervision *supervision);

#endif
