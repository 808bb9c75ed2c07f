/*
 * control.h - the socket by which a running instance is asked for something, and the asking.
 *
 * A unix socket NAME.sock in the runtime folder, for its owner and root alone. A request is a line,
 * a word; its answer is a line with a status (sysexits.h) and text until the end. Nothing that a
 * client does or leaves undone is waited for: few are served at a time, a request is short and soon
 * complete, an answer soon taken, or the client is gone.
 */
#ifndef NQ_CONTROL_H
#define NQ_CONTROL_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "host/settings.h"

#define NQ_CONTROL_NAME "nfqueue" /* when none is given */
#define NQ_CONTROL_CLIENTS 8
#define NQ_CONTROL_POLLS (1 + NQ_CONTROL_CLIENTS)

enum nq_request { NQ_REQUEST_RELOAD, NQ_REQUEST_STOP, NQ_REQUEST_STATS };

struct nq_control;

/* Whether it can be the name of a file, and of an instance: letters, digits, ".", "-" and "_", at
 * most 64, the first no ".". */
bool nq_control_is_name(const char *name);

/*
 * Listens under that name; what a dead instance has left is replaced. NULL with *failure:
 * EADDRINUSE when one of that name lives, another errno when no folder can be used.
 */
struct nq_control *nq_control_open(const char *name, struct nq_failure *failure);

/* NULL does nothing. With `leave` the file goes too: not in another process than the one that
 * opened. */
void nq_control_close(struct nq_control *control, bool leave);

/* Where it listens. */
const char *nq_control_path(const struct nq_control *control);

/* Fills NQ_CONTROL_POLLS entries, unused ones with -1; and lowers *timeout (-1: none) to when it is
 * to be served at the latest, milliseconds from `now` on. NULL: there is nothing to wait for. */
void nq_control_prepare(struct nq_control *control, struct pollfd *polls, int64_t now,
			int *timeout);

/*
 * After the poll. `handle` is called for each request that is complete; it answers, or has the
 * client wait.
 */
void nq_control_serve(struct nq_control *control, const struct pollfd *polls, int64_t now,
		      void (*handle)(void *context, unsigned client, enum nq_request request),
		      void *context);

/* `text` is copied. */
void nq_control_answer(struct nq_control *control, unsigned client, int status, const char *text,
		       size_t length);

/* The client is answered with the others that wait for the same, of this `ticket` or a lower one.
 */
void nq_control_wait(struct nq_control *control, unsigned client, enum nq_request request,
		     uint32_t ticket);
void nq_control_answer_all(struct nq_control *control, enum nq_request request, uint32_t ticket,
			   int status, const char *text);

/* Before the end: what can be sent of the answers at once is sent. */
void nq_control_flush(struct nq_control *control);

/*
 * The other side: sends a request to the instance of that name, and reads its answer into *text
 * (from malloc, zero-terminated), waiting for at most so many seconds (0: as long as it takes). The
 * status of the answer, or -errno with *failure: 69 when there is none, or it says nothing, 77 when
 * it is another user's.
 */
int nq_control_ask(const char *name, const char *request, int seconds, char **text,
		   struct nq_failure *failure);

#endif
