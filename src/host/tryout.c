/*
 * Scripts that are loaded anew: one at a time is read, and tried by the worker that judges, or,
 * when there is none, by the next one. What fails changes nothing.
 */
#include <errno.h>
#include <string.h>

#include "host/channel.h"
#include "host/supervisor_parts.h"

void nq_tryout_conclude(struct nq_supervisor *supervisor, const struct nq_failure *failure)
{
	struct nq_tryout *tryout = &supervisor->tryout;

	tryout->on = false;
	if (failure->status) {
		nq_text_free(&tryout->script);
		nq_log(NQ_LOG_ERROR, "not reloaded, the script in force stays: %s",
		       failure->message);
		nq_control_answer_all(supervisor->control, NQ_REQUEST_RELOAD, tryout->generation,
				      failure->status, failure->message);
		return;
	}
	nq_text_free(&supervisor->script);
	supervisor->script = tryout->script;
	tryout->script = (struct nq_text){0};
	supervisor->memory->reloads++;
	nq_log(NQ_LOG_INFO, "reloaded %s", supervisor->job->script);
	nq_control_answer_all(supervisor->control, NQ_REQUEST_RELOAD, tryout->generation, 0, "");
}

void nq_tryout_lose(struct nq_supervisor *supervisor, const char *how)
{
	struct nq_failure failure;

	nq_fail(&failure, 65, ECHILD, "the worker that loaded %s %s", supervisor->job->script, how);
	nq_tryout_conclude(supervisor, &failure);
}

void nq_tryout_begin(struct nq_supervisor *supervisor)
{
	struct nq_tryout *tryout = &supervisor->tryout;
	struct nq_failure failure;
	int error;

	if (!tryout->asked || tryout->on || (supervisor->worker && !supervisor->ready))
		return;
	tryout->asked = false;
	tryout->on = true;
	tryout->begun = !supervisor->worker;
	tryout->generation++;
	if (nq_text_read(supervisor->job->script, true, &tryout->script, &failure) != 0) {
		nq_tryout_conclude(supervisor, &failure);
		return;
	}
	if (tryout->begun) {
		supervisor->restart_ms = 0; /* whatever pause there is: it may be the cure */
		return;
	}
	error = nq_channel_send_script(supervisor->channel, tryout->generation, &tryout->script);
	if (!error)
		return;
	if (error == -EPIPE) {
		/* Dead, and about to be reaped: the next one tries it. */
		nq_text_free(&tryout->script);
		tryout->asked = true;
		tryout->on = false;
		return;
	}
	nq_fail(&failure, 1, -error, "the script does not reach the worker: %s", strerror(-error));
	nq_tryout_conclude(supervisor, &failure);
}

void nq_tryout_end(struct nq_supervisor *supervisor)
{
	struct nq_failure failure;

	nq_fail(&failure, 69, ESHUTDOWN, "nfqueue is stopping");
	if (supervisor->tryout.asked)
		supervisor->tryout.generation++; /* of those that wait for it, too */
	if (supervisor->tryout.on || supervisor->tryout.asked)
		nq_tryout_conclude(supervisor, &failure);
	supervisor->tryout.asked = false;
	nq_text_free(&supervisor->tryout.script);
}
