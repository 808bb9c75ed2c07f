#include "lua/lane.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>

#include "lua/filter.h"
#include "lua/flows.h"
#include "lua/queue.h"

static const char state_key;

/* Last of all: it is the first userdata of the state. */
static int state_gc(lua_State *L)
{
	struct nq_state *state = lua_touserdata(L, 1);

	nq_allocator_strip(L);
	if (state->raw == &state->own_raw)
		nq_raw_close(&state->own_raw);
	state->raw = NULL;
	nq_timer_clear(L, &state->real);
	nq_watch_fini(&state->own_watch);
	nq_alarm_close(&state->real.alarm);
	nq_filter_free_kept(state);
	nq_flows_free_all(state);
	return 0;
}

void nq_state_register(lua_State *L)
{
	struct nq_state *state = lua_newuserdatauv(L, sizeof(*state), 0);

	memset(state, 0, sizeof(*state));
	state->loop_mark = NQ_LOOP_MARK;
	state->watch = &state->own_watch;
	nq_watch_init(state->watch, NULL, 0);
	state->watch->alone = true;
	state->real.alarm = (struct nq_alarm){.fd = -1, .armed = NQ_NEVER};
	state->real.timers.alarm = &state->real.alarm;
	state->time = &state->real;
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

void nq_lane_init(lua_State *L, struct nq_lua_lane *lane)
{
	lane->L = L;
	lane->state = nq_state_get(L);
	lane->cell = nq_cell_new(L, &lane->state->unused);
	lane->cell->lane = lane;
}

void nq_lane_fini(struct nq_lua_lane *lane)
{
	nq_cell_free(lane->cell, &lane->state->unused);
	lane->cell = NULL;
}

/* The call is over: what it settled of held packets is no longer valid. */
static void end_settled(struct nq_lua_lane *lane)
{
	while (lane->ended) {
		struct nq_cell *cell = lane->ended;

		lane->ended = cell->next;
		nq_cell_free(cell, &lane->state->unused);
	}
}

static void release_held(void *context, void *owner)
{
	struct nq_lua_lane *lane = context;

	nq_cell_free(owner, &lane->state->unused);
}

/* Stack of judge_batch: what stays in place while a batch is judged. */
enum { AT_LANE = 1, AT_LOOP, AT_METATABLE, AT_HANDLER, AT_QUEUE, AT_RESULTS };

/* At its beginning: whether the batch is watched by itself, not as part of a call around it. */
enum { AT_OUTERMOST = AT_METATABLE };

static int judge_batch(lua_State *L)
{
	struct nq_lua_lane *lane = lua_touserdata(L, AT_LANE);
	struct nq_loop *loop = lua_touserdata(L, AT_LOOP);
	const struct nq_lua_owner *owner = NULL;
	struct nq_state *state = lane->state;
	struct nq_watched *watched = &state->watch->watched;
	bool outermost = lua_toboolean(L, AT_OUTERMOST);
	struct nq_packet *packet;

	nq_packet_push_metatable(L);
	lua_replace(L, AT_METATABLE);
	lua_settop(L, AT_QUEUE);
	while ((packet = nq_loop_next(loop)) != NULL) {
		struct nq_loop_queue *queue = loop->current;
		struct nq_cell *cell = lane->cell;

		if (state->flows && nq_flows_judge(state, packet, nq_loop_now(loop))) {
			nq_loop_settle(loop);
			continue;
		}
		cell->packet = packet;
		if (queue->owner != owner) {
			owner = queue->owner;
			lua_rawgeti(L, LUA_REGISTRYINDEX, owner->handler);
			lua_replace(L, AT_HANDLER);
			nq_queue_push_object(L, owner->object);
			lua_replace(L, AT_QUEUE);
			if (outermost)
				nq_watched_limit(watched, queue->settings.time_limit);
		}
		if (outermost)
			nq_watched_next(watched);
		lua_pushvalue(L, AT_HANDLER);
		nq_packet_push(L, cell, AT_METATABLE);
		lua_pushvalue(L, AT_QUEUE);
		lua_call(L, 2, LUA_MULTRET);
		if (nq_packet_conclude(L, cell, AT_RESULTS, queue->settings.default_verdict))
			queue->memory->counters.undecided++;
		/* One that was held has taken the cell along. */
		if (lane->cell == cell) {
			nq_cell_end(cell);
			nq_loop_settle(loop);
		}
		if (lane->ended)
			end_settled(lane);
		lua_settop(L, AT_QUEUE);
	}
	return 0;
}

static void report_failure(struct nq_lua_failures *failures, const char *what, const char *reason,
			   const char *message)
{
	uint64_t suppressed;

	failures->count++;
	if (failures->count == 1) {
		failures->reported = 1;
		nq_log(NQ_LOG_ERROR, "%s failed: %s%s", what, reason, message);
	} else if (nq_log_allow(&failures->limit, 1, &suppressed)) {
		/* One line: the traceback was shown the first time. */
		nq_log(NQ_LOG_ERROR, "%s failed %llu more times, %llu in all; last: %s%.*s", what,
		       (unsigned long long)(failures->count - failures->reported),
		       (unsigned long long)failures->count, reason, (int)strcspn(message, "\n"),
		       message);
		failures->reported = failures->count;
	}
}

/* After a call that failed, with the message at the top of the stack (popped). */
static void handle_failure(struct nq_lua_lane *lane, struct nq_loop *loop,
			   struct nq_lua_failures *failures, const char *what)
{
	const char *message = lua_tostring(lane->L, -1);
	char reason[NQ_ALLOCATOR_REASON];

	if (!message)
		message = "(error without a message)";
	report_failure(failures, what, nq_allocator_reason(&lane->allocator, message, reason),
		       message);
	if (nq_lua_interrupted(lane) && strstr(message, "interrupted!")) {
		lane->interrupted = true;
		nq_loop_stop(loop);
	}
	lua_pop(lane->L, 1);
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

static void judge(void *context, struct nq_loop *loop)
{
	struct nq_lua_lane *lane = context;
	lua_State *L = lane->L;
	bool was_judging = lane->judging;
	struct nq_watched_call call;
	int status;

	if (!L || !lua_checkstack(L, LUA_MINSTACK)) {
		while (nq_loop_next(loop))
			nq_loop_settle_error(loop);
		return;
	}
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, judge_batch);
	lua_pushlightuserdata(L, lane);
	lua_pushlightuserdata(L, loop);
	lane->loop = loop;
	lane->judging = true;
	nq_watch_begin(L, lane->state->watch, &call, NQ_CALL_HANDLER);
	lua_pushboolean(L, call.outermost);
	nq_allocator_enter(L, &lane->allocator);
	status = lua_pcall(L, 3, 0, -5);
	nq_allocator_leave(L, &lane->allocator);
	/* Finalizers run in it: they are watched too. */
	if (status == LUA_OK)
		nq_allocator_collect(L, &lane->allocator);
	nq_watch_end(lane->state->watch, &call, status);
	lane->judging = was_judging;
	if (status == LUA_OK) {
		lua_pop(L, 1);
		return;
	}
	nq_cell_end(lane->cell);
	end_settled(lane);
	handle_failure(lane, loop, &lane->handlers, "handler");
	lua_pop(L, 1);
	if (loop->current && lane->state->watch->overran)
		loop->current->memory->counters.timeouts++;
	if (loop->current && (loop->settled || loop->packet.verdict != NQ_UNDECIDED)) {
		/* What the handler decided before it failed stands, and so does a hold. */
		loop->current->memory->counters.errors++;
		if (!loop->settled)
			nq_loop_settle(loop);
	} else {
		nq_loop_settle_error(loop);
	}
	nq_allocator_collect(L, &lane->allocator);
}

static void tick(void *context, struct nq_loop *loop)
{
	struct nq_lua_lane *lane = context;
	struct nq_lua_time *time = &lane->state->real;
	uint64_t before = time->timers.order;
	bool was_judging = lane->judging;
	int64_t now = nq_loop_now(loop);
	int status = LUA_OK;

	if (!lane->L || !lua_checkstack(lane->L, LUA_MINSTACK))
		return;
	lane->loop = loop;
	lane->judging = true;
	while (status >= 0 && !__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		nq_allocator_enter(lane->L, &lane->allocator);
		status = nq_timer_run(lane->L, time, now, before);
		nq_allocator_leave(lane->L, &lane->allocator);
		end_settled(lane);
		if (status > 0)
			handle_failure(lane, loop, &lane->timers, "timer");
		nq_allocator_collect(lane->L, &lane->allocator);
	}
	lane->judging = was_judging;
}

const struct nq_loop_calls nq_lua_calls = {
	.judge = judge,
	.tick = tick,
	.release = release_held,
};
