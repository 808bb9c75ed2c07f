/* A loop that stands still between two packets, until its process is ended. */
#include <unistd.h>

#include "host/loop_parts.h"

void nq_loop_rest(struct nq_loop *loop)
{
	__atomic_store_n(&loop->rest, true, __ATOMIC_RELEASE);
	nq_loop_wake(loop);
}

bool nq_loop_rests(const struct nq_loop *loop)
{
	return __atomic_load_n(&loop->resting, __ATOMIC_ACQUIRE);
}

/*
 * If the verdicts cannot be sent they lie in the batch, where the successor finds them. Until the
 * cursor is set a death looks as if the packet judged last were in the handler: its verdict is the
 * kernel's then, and a second one refused.
 */
void nq_loop_stand_still(struct nq_loop *loop)
{
	(void)nq_loop_flush(loop);
	nq_loop_set_cursor(loop, NQ_CURSOR_BEFORE(loop->next));
	__atomic_store_n(&loop->resting, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
}
