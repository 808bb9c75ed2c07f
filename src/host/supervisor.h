/*
 * supervisor.h - the process that outlives the one that runs scripts.
 *
 * It keeps the sockets and the shared memory, starts the worker, reads the signals, and starts a
 * worker again when it dies. It runs no script and no thread.
 */
#ifndef NQ_SUPERVISOR_H
#define NQ_SUPERVISOR_H

#include "host/memory.h"

/*
 * What the worker process runs; `stop_fd` becomes readable when it shall drain and leave. Its
 * return value is the process's exit status; it has told the user about a failure.
 */
typedef int nq_worker_main(void *context, struct nq_memory *memory, const int *sockets,
			   int stop_fd);

/*
 * Supervises until the worker ends by itself or a signal asks for the end: SIGTERM and SIGINT let
 * it drain, a second one kills it. Returns the command's exit status. Called from a single-threaded
 * process; SIGTERM, SIGINT and SIGCHLD are blocked on return.
 */
int nq_supervise(struct nq_memory *memory, const int *sockets, nq_worker_main *main, void *context);

#endif
