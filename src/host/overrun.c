#include "host/overrun.h"

#include <stdio.h>

#include "host/clock.h"

void nq_overrun_write(struct nq_memory *memory, const struct nq_watched *watched)
{
	memory->overrun_lane = watched->lane;
	memory->overrun_limit = nq_watched_allowed(watched);
	/* Last: it says that the others mean something. */
	__atomic_store_n(&memory->overrun, 1 + watched->kind, __ATOMIC_RELEASE);
}

bool nq_overrun_take(struct nq_memory *memory, char text[NQ_OVERRUN_TEXT], bool *loading)
{
	uint32_t kind = memory->overrun;
	const struct nq_lane_memory *lane;

	memory->overrun = 0;
	if (kind < 1 || kind > 1 + NQ_CALL_END || memory->overrun_lane >= memory->lane_count)
		return false; /* no worker of ours wrote that, or there was nothing to write */
	lane = nq_memory_lane(memory, memory->overrun_lane);
	*loading = kind - 1 == NQ_CALL_LOAD || kind - 1 == NQ_CALL_OPEN;
	snprintf(text, NQ_OVERRUN_TEXT,
		 "was ended: the %s exceeded its time limit of %g s and could not be interrupted "
		 "(queue %u%s)",
		 nq_call_name((enum nq_call)(kind - 1)),
		 (double)memory->overrun_limit / (double)NQ_SECOND,
		 nq_memory_queue(memory, lane->first_queue)->number,
		 lane->queue_count > 1 ? " and others" : "");
	return true;
}
