/* Binding queues, telling apart why it failed, and leaving them. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "host/loop_parts.h"

int nq_loop_fail_flag(struct nq_failure *failure, const struct nq_loop_queue *queue, unsigned bit)
{
	return nq_fail(failure, 69, EOPNOTSUPP,
		       "this kernel does not support %s (queue %u): it needs %s", nq_flag_name(bit),
		       queue->number, nq_flag_requirement(bit));
}

/* EPERM means no privilege or another holder; a request that needs only privilege tells them apart.
 */
static int fail_permission(struct nq_loop *loop, struct nq_failure *failure,
			   const struct nq_loop_queue *queue)
{
	struct nq_proc_queue line;
	char name[32];
	pid_t pid;

	if (nq_loop_ask_privilege(loop, queue) == -EPERM)
		return nq_fail(failure, 77, EPERM,
			       "no privilege to use queue %u: it needs CAP_NET_ADMIN in this "
			       "network namespace "
			       "(run as root, or try it without root inside `nfqueue lab`)",
			       queue->number);
	if (loop->proc < 0 || nq_proc_read(loop->proc, queue->number, &line) != 0)
		return nq_fail(failure, 69, EBUSY,
			       "queue %u is held by another process; as root, `cat "
			       "/proc/net/netfilter/nfnetlink_queue` shows its port id in the "
			       "second column, "
			       "usually the process id",
			       queue->number);
	pid = nq_proc_holder(line.portid, name);
	if (!pid)
		return nq_fail(failure, 69, EBUSY,
			       "queue %u is held by another process with netlink port id %u "
			       "(usually its process "
			       "id); as root, `ss -A netlink -p` shows its name",
			       queue->number, line.portid);
	return nq_fail(failure, 69, EBUSY,
		       "queue %u is held by %s (pid %d); stop it or use another number",
		       queue->number, pid == getpid() ? "this process itself" : name, (int)pid);
}

int nq_loop_fail_request(struct nq_loop *loop, struct nq_failure *failure,
			 const struct nq_loop_queue *queue, int error)
{
	switch (error) {
	case -EPERM:
		return fail_permission(loop, failure, queue);
	case -EINVAL:
		return nq_fail(failure, 69, EINVAL,
			       "this kernel has no nfnetlink_queue: it needs "
			       "CONFIG_NETFILTER_NETLINK_QUEUE (as "
			       "root, try `modprobe nfnetlink_queue`)");
	case -EBUSY:
		return nq_fail(failure, 69, EBUSY, "queue %u is already bound here", queue->number);
	default:
		return nq_fail(failure, 1, -error, "cannot configure queue %u: %s", queue->number,
			       strerror(-error));
	}
}

/*
 * Kernels that look for the queue before its flags cannot be asked about a flag beforehand: bind
 * without any and set each alone.
 */
static int name_refused_flag(struct nq_loop *loop, struct nq_failure *failure,
			     const struct nq_loop_queue *queue)
{
	struct nq_queue_config plain = queue->settings.kernel;
	int error;

	plain.flags = 0;
	(void)nq_loop_unbind(loop, queue);
	error = nq_loop_bind(loop, queue, &plain);
	if (error)
		return nq_loop_fail_request(loop, failure, queue, error);
	for (unsigned bit = 0; bit < NQ_FLAG_COUNT; bit++) {
		if (!(queue->settings.kernel.flags & 1u << bit))
			continue;
		error = nq_loop_probe_flag(loop, queue, bit);
		if (error) {
			(void)nq_loop_unbind(loop, queue);
			return error == -EOPNOTSUPP
				       ? nq_loop_fail_flag(failure, queue, bit)
				       : nq_loop_fail_request(loop, failure, queue, error);
		}
	}
	return 0;
}

static int bind_queue(struct nq_loop *loop, const struct nq_loop_queue *queue,
		      struct nq_failure *failure)
{
	int error;

	for (unsigned bit = 0; bit < NQ_FLAG_COUNT; bit++) {
		if (!(queue->settings.kernel.flags & 1u << bit))
			continue;
		error = nq_loop_probe_flag(loop, queue, bit);
		if (error == -EOPNOTSUPP)
			return nq_loop_fail_flag(failure, queue, bit);
		if (error != 0 && error != -ENODEV)
			return nq_loop_fail_request(loop, failure, queue, error);
	}
	error = nq_loop_bind(loop, queue, &queue->settings.kernel);
	if (error == -EOPNOTSUPP)
		return name_refused_flag(loop, failure, queue);
	return error ? nq_loop_fail_request(loop, failure, queue, error) : 0;
}

/* The buffer serves all queues of the socket: it is as large as theirs together. */
void nq_loop_set_buffer(struct nq_loop *loop)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < loop->queue_count; i++)
		sum += loop->queues[i].settings.buffer_size;
	loop->buffer_wanted = sum > INT32_MAX / 2 ? INT32_MAX / 2 : (uint32_t)sum;
	loop->buffer_error =
		nq_socket_set_buffer(loop->socket, loop->buffer_wanted, &loop->buffer_given);
	if (loop->buffer_error || loop->buffer_given >= loop->buffer_wanted)
		return;
	/* The settings in force say what there is. */
	for (unsigned i = 0; i < loop->queue_count; i++)
		loop->queues[i].settings.buffer_size = loop->buffer_given / loop->queue_count;
}

void nq_loop_report_buffer(const struct nq_loop *loop)
{
	if (loop->buffer_error)
		nq_log(NQ_LOG_WARN, "cannot set the receive buffer of queue %u: %s",
		       loop->queues[0].number, strerror(-loop->buffer_error));
	else if (loop->buffer_given < loop->buffer_wanted)
		nq_log(NQ_LOG_WARN,
		       "receive buffer of queue %u: asked for %u bytes, the system gave %u; raise "
		       "net.core.rmem_max or run with CAP_NET_ADMIN, else bursts are lost",
		       loop->queues[0].number, loop->buffer_wanted, loop->buffer_given);
}

static void unbind_all(struct nq_loop *loop, unsigned count)
{
	/* First: whoever takes over from here on binds anew. */
	loop->memory->joined = 0;
	for (unsigned i = 0; i < count; i++) {
		int error = nq_loop_unbind(loop, &loop->queues[i]);

		if (error)
			nq_log(NQ_LOG_WARN, "cannot leave queue %u: %s", loop->queues[i].number,
			       strerror(-error));
	}
	loop->bound = false;
	/* Nobody waits for it any more. */
	loop->batch.store->count = 0;
	nq_keep_reset(loop);
	/* What lies unread was dropped by the unbinding; the gap is counted, not judged. */
	for (unsigned i = 0; i < loop->filled; i++)
		loop->memory->messages[i].msg_len = 0;
	loop->filled = loop->next = 0;
	nq_loop_set_cursor(loop, NQ_CURSOR_DONE);
}

int nq_loop_join(struct nq_loop *loop, struct nq_failure *failure)
{
	nq_loop_set_buffer(loop);
	if (loop->memory->joined)
		return nq_loop_take_over(loop, failure);
	nq_keep_reset(loop);
	loop->batch.store->count = 0;
	for (unsigned i = 0; i < loop->queue_count; i++) {
		int error;

		loop->queues[i].memory->seen = 0; /* its ids begin anew */
		loop->queues[i].memory->orphans = 0;
		error = bind_queue(loop, &loop->queues[i], failure);

		if (error) {
			unbind_all(loop, i);
			return error;
		}
	}
	loop->bound = true;
	loop->memory->joined = 1;
	if (loop->filled)
		nq_loop_wake(loop); /* they are no longer in the socket, which would tell of them */
	return 0;
}

/*
 * Verdicts that could not be sent refer to bytes in the slots: nothing may be received before they
 * are gone. False: nor can they be now.
 */
static bool send_unsent(struct nq_loop *loop)
{
	if (loop->batch.store->count == 0)
		return true;
	if (nq_loop_finish(loop) != 0)
		return false;
	loop->failed = 0;
	return true;
}

void nq_loop_leave(struct nq_loop *loop)
{
	/* What comes from here on waits for the next run: the queues stay bound. */
	bool stored = ((const struct nq_memory *)loop->base)->stored;
	int64_t budget = 0;
	int got;

	if (!loop->bound)
		return;
	if (!send_unsent(loop)) {
		unbind_all(loop, loop->queue_count);
		return;
	}
	/*
	 * Where unjudged packets may pass, the kernel lets them pass from here on and what it holds
	 * is judged. Where they may not, judging goes on until nothing waits; what comes in the
	 * instant before the unbinding is dropped, as it would be by on_error. The budget ends it
	 * under constant overload.
	 */
	for (unsigned i = 0; i < loop->queue_count; i++) {
		const struct nq_loop_queue *queue = &loop->queues[i];

		budget += queue->settings.kernel.max_packets + NQ_SLOTS;
		if (queue->settings.on_error == NQ_ACCEPT && !stored)
			(void)nq_loop_limit(loop, queue, 0, true);
	}
	loop->leaving = true;
	do {
		got = nq_loop_step(loop);
		budget -= got;
	} while (got > 0 && budget > 0);
	nq_keep_end(loop);
	(void)nq_loop_finish(loop);
	if (stored)
		nq_keep_reset(loop);
	else
		unbind_all(loop, loop->queue_count);
}
