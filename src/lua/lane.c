#include "lua/lane.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>

#include "lua/queue.h"

static const char state_key;

static int state_gc(lua_State *L)
{
	struct nq_state *state = lua_touserdata(L, 1);

	if (state->raw == &state->own_raw)
		nq_raw_close(&state->own_raw);
	state->raw = NULL;
	return 0;
}

void nq_state_register(lua_State *L)
{
	struct nq_state *state = lua_newuserdatauv(L, sizeof(*state), 0);

	memset(state, 0, sizeof(*state));
	state->loop_mark = NQ_LOOP_MARK;
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, state_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
}

struct nq_state *nq_state_get(lua_State *L)
{
	struct nq_state *state;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
	state = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return state;
}

/* Stack of judge_batch: what stays in place while a batch is judged. */
enum { AT_LANE = 1, AT_LOOP, AT_METATABLE, AT_HANDLER, AT_QUEUE, AT_RESULTS };

static int judge_batch(lua_State *L)
{
	struct nq_lua_lane *lane = lua_touserdata(L, AT_LANE);
	struct nq_loop *loop = lua_touserdata(L, AT_LOOP);
	struct nq_cell *cell = lane->cell;
	const struct nq_lua_owner *owner = NULL;
	struct nq_packet *packet;

	nq_packet_push_metatable(L);
	lua_settop(L, AT_QUEUE);
	while ((packet = nq_loop_next(loop)) != NULL) {
		struct nq_loop_queue *queue = loop->current;

		cell->packet = packet;
		if (queue->owner != owner) {
			owner = queue->owner;
			lua_rawgeti(L, LUA_REGISTRYINDEX, owner->handler);
			lua_replace(L, AT_HANDLER);
			nq_queue_push_object(L, owner->object);
			lua_replace(L, AT_QUEUE);
		}
		lua_pushvalue(L, AT_HANDLER);
		nq_packet_push(L, cell, AT_METATABLE);
		lua_pushvalue(L, AT_QUEUE);
		lua_call(L, 2, LUA_MULTRET);
		if (nq_packet_conclude(L, packet, AT_RESULTS, queue->settings.default_verdict))
			queue->memory->counters.undecided++;
		nq_cell_end(cell);
		nq_loop_settle(loop);
		lua_settop(L, AT_QUEUE);
	}
	return 0;
}

static void report_failure(struct nq_lua_lane *lane, const char *message)
{
	uint64_t suppressed;

	lane->failures++;
	if (lane->failures == 1) {
		lane->reported = 1;
		nq_log(NQ_LOG_ERROR, "handler failed: %s", message);
	} else if (nq_log_allow(&lane->limit, 1, &suppressed)) {
		/* One line: the traceback was shown the first time. */
		nq_log(NQ_LOG_ERROR, "handler failed %llu more times, %llu in all; last: %.*s",
		       (unsigned long long)(lane->failures - lane->reported),
		       (unsigned long long)lane->failures, (int)strcspn(message, "\n"), message);
		lane->reported = lane->failures;
	}
}

bool nq_lua_can_interrupt(void)
{
	struct sigaction action;

	return sigaction(SIGINT, NULL, &action) == 0 && action.sa_handler != SIG_DFL &&
	       action.sa_handler != SIG_IGN;
}

bool nq_lua_interrupted(const struct nq_lua_lane *lane)
{
	struct sigaction action;

	return lane->interruptible && sigaction(SIGINT, NULL, &action) == 0 &&
	       action.sa_handler == SIG_DFL;
}

void nq_lua_judge(void *context, struct nq_loop *loop)
{
	struct nq_lua_lane *lane = context;
	lua_State *L = lane->L;
	const char *message;
	bool was_judging = lane->judging;

	if (!L || !lua_checkstack(L, LUA_MINSTACK)) {
		while (nq_loop_next(loop))
			nq_loop_settle_error(loop);
		return;
	}
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, judge_batch);
	lua_pushlightuserdata(L, lane);
	lua_pushlightuserdata(L, loop);
	lane->judging = true;
	if (lua_pcall(L, 2, 0, -4) == LUA_OK) {
		lane->judging = was_judging;
		lua_pop(L, 1);
		return;
	}
	lane->judging = was_judging;
	nq_cell_end(lane->cell);
	message = lua_tostring(L, -1);
	if (!message)
		message = "(error without a message)";
	report_failure(lane, message);
	if (nq_lua_interrupted(lane) && strstr(message, "interrupted!")) {
		lane->interrupted = true;
		nq_loop_stop(loop);
	}
	lua_pop(L, 2);
	if (loop->current && !loop->settled && loop->packet.verdict != NQ_UNDECIDED) {
		/* What the handler decided before it failed stands. */
		loop->current->memory->counters.errors++;
		nq_loop_settle(loop);
	} else {
		nq_loop_settle_error(loop);
	}
}
