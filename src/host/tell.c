/* What the service manager is told of the state of things, and when. */
#include "host/supervisor_parts.h"

static enum nq_told present(const struct nq_supervisor *supervisor)
{
	if (supervisor->stopping)
		return NQ_TOLD_STOPPING;
	if (supervisor->manager_told == NQ_TOLD_NOTHING && !supervisor->ready)
		return NQ_TOLD_NOTHING;
	if (supervisor->tryout.on)
		return NQ_TOLD_RELOADING;
	if (supervisor->stand_in)
		return NQ_TOLD_CRASHING;
	/* Without a worker for a moment it is as it was. */
	return supervisor->ready ? NQ_TOLD_READY : supervisor->manager_told;
}

static void tell(const struct nq_supervisor *supervisor, enum nq_told state)
{
	const struct nq_notify *notify = supervisor->job->notify;
	const struct nq_memory *memory = supervisor->memory;

	switch (state) {
	case NQ_TOLD_READY:
		nq_notify_send(notify, "READY=1\nSTATUS=judging %u queue%s with %s",
			       memory->queue_count, memory->queue_count == 1 ? "" : "s",
			       supervisor->job->script);
		break;
	case NQ_TOLD_RELOADING:
		nq_notify_reloading(notify);
		break;
	case NQ_TOLD_CRASHING:
		nq_notify_send(notify,
			       "STATUS=CRASH LOOP: %u workers in a row died at once; every packet "
			       "gets on_error",
			       supervisor->deaths);
		break;
	case NQ_TOLD_STOPPING:
		nq_notify_send(notify, "STOPPING=1\nSTATUS=draining the queues");
		break;
	case NQ_TOLD_NOTHING:
		break;
	}
}

void nq_supervisor_tell(struct nq_supervisor *supervisor)
{
	enum nq_told state = present(supervisor);

	/* A script that was tried between two looks. */
	if (supervisor->manager_generation != supervisor->tryout.generation &&
	    state == NQ_TOLD_READY && supervisor->manager_told == NQ_TOLD_READY) {
		tell(supervisor, NQ_TOLD_RELOADING);
		supervisor->manager_told = NQ_TOLD_RELOADING;
	}
	supervisor->manager_generation = supervisor->tryout.generation;
	if (state == supervisor->manager_told)
		return;
	tell(supervisor, state);
	supervisor->manager_told = state;
}
