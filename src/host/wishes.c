/* What is asked for through the control socket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/stats.h"
#include "host/supervisor_parts.h"
#include "netlink/proc.h"

int nq_supervision_listen(struct nq_supervision *supervision, struct nq_failure *failure)
{
	const char *name = supervision->name;

	supervision->proc = nq_proc_open();
	supervision->control =
		nq_control_open(name ? name : NQ_CONTROL_NAME, &supervision->why_none);
	/* A name that was chosen must be this one's; the usual one is a convenience. */
	if (supervision->control || !name || supervision->why_none.error != EADDRINUSE)
		return 0;
	*failure = supervision->why_none;
	nq_supervision_close(supervision);
	return -failure->error;
}

void nq_supervision_close(struct nq_supervision *supervision)
{
	nq_control_close(supervision->control, true);
	supervision->control = NULL;
	if (supervision->proc >= 0)
		close(supervision->proc);
	supervision->proc = -1;
}

void nq_wishes_report(struct nq_supervisor *supervisor)
{
	const struct nq_failure *why = &supervisor->job->why_none;

	if (why->status && !supervisor->told)
		nq_log(NQ_LOG_WARN, "%s; it runs without a control socket", why->message);
	supervisor->told = true;
}

static void tell_stats(struct nq_supervisor *supervisor, unsigned client)
{
	struct nq_stats_source source = {
		.memory = supervisor->memory,
		.name = supervisor->job->name ? supervisor->job->name : NQ_CONTROL_NAME,
		.script = supervisor->job->script,
		.state = supervisor->stopping ? "stopping"
			 : supervisor->ready  ? "running"
					      : "starting",
		.worker = supervisor->worker,
		.proc = supervisor->job->proc,
	};
	char *text = nq_stats_text(&source);

	if (text)
		nq_control_answer(supervisor->control, client, 0, text, strlen(text));
	else
		nq_control_answer(supervisor->control, client, 1, "not enough memory", 17);
	free(text);
}

static void handle(void *context, unsigned client, enum nq_request request)
{
	static const char stopping[] = "nfqueue is stopping";
	struct nq_supervisor *supervisor = context;
	struct nq_control *control = supervisor->control;

	switch (request) {
	case NQ_REQUEST_RELOAD:
		if (supervisor->stopping) {
			nq_control_answer(control, client, 69, stopping, strlen(stopping));
			break;
		}
		/* One that has begun may have read the file too early. */
		supervisor->tryout.asked = true;
		nq_control_wait(control, client, request, supervisor->tryout.generation + 1);
		break;
	case NQ_REQUEST_STOP:
		nq_control_wait(control, client, request, 0);
		if (!supervisor->stopping)
			nq_supervisor_stop(supervisor, "asked to stop");
		break;
	case NQ_REQUEST_STATS:
		tell_stats(supervisor, client);
		break;
	}
}

void nq_wishes_serve(struct nq_supervisor *supervisor, const struct pollfd *polls)
{
	nq_control_serve(supervisor->control, polls, nq_supervisor_now(), handle, supervisor);
}

void nq_wishes_end(struct nq_supervisor *supervisor)
{
	nq_control_answer_all(supervisor->control, NQ_REQUEST_STOP, 0, supervisor->result,
			      supervisor->result ? "nfqueue did not end well: see its log" : "");
	nq_control_flush(supervisor->control);
}
