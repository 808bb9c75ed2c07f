#include "lua/engine.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua/args.h"
#include "lua/send.h"

void nq_counters_add(struct nq_counters *sum, const struct nq_counters *more)
{
	/* The struct is nothing but uint64_t. */
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)more;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

void nq_engine_free(struct nq_engine *engine)
{
	for (unsigned i = 0; i < engine->count; i++) {
		struct nq_queue *queue = engine->queues[i];

		if (queue->loop) {
			nq_counters_add(&queue->past,
					&queue->loop->queues[queue->position].memory->counters);
			queue->past_enobufs += queue->loop->memory->enobufs;
		}
		queue->loop = NULL;
		queue->engine = NULL;
		queue->memory = NULL;
	}
	nq_lane_fini(&engine->lane);
	nq_loop_free(engine->loop);
	if (engine->socket >= 0)
		close(engine->socket);
	nq_memory_free(engine->memory);
	free(engine);
}

/* The loop of the queues at stack indices 1 to count, not yet joined. Raises only for wrong queues.
 */
static struct nq_engine *make_engine(lua_State *L, unsigned count, const char *function,
				     struct nq_failure *failure)
{
	struct nq_engine *engine;
	uint16_t *numbers;
	struct nq_settings *settings;
	void **owners;
	struct nq_lua_lane lane = {.L = L};
	int64_t limit = INT64_MAX, used;

	if (count == 0)
		nq_arg_error(L, 1, function, "queue", "queue");
	luaL_checkstack(L, (int)count + LUA_MINSTACK, "too many queues");
	for (unsigned i = 0; i < count; i++) {
		const struct nq_queue *queue = nq_queue_check(L, (int)i + 1, function);

		if (queue->threaded)
			luaL_error(L, "queue %d belongs to nfqueue.run", queue->number);
		if (queue->released)
			luaL_error(L, "queue %d is collected", queue->number);
		if (queue->loop)
			luaL_error(L, "queue %d is already running", queue->number);
		/* Their state is one: the least holds. */
		if (queue->settings.memory_limit < limit)
			limit = queue->settings.memory_limit;
		for (unsigned k = 0; k < i; k++) {
			if (nq_queue_check(L, (int)k + 1, function)->number == queue->number)
				luaL_error(L, "queue %d is given twice", queue->number);
		}
	}
	used = nq_allocator_used(L);
	if (used > limit) {
		nq_fail(failure, 78, ENOMEM,
			"this state uses %lld bytes already: memory_limit (%lld bytes) is too low",
			(long long)used, (long long)limit);
		return NULL;
	}
	nq_lane_init(L, &lane);
	/* From here to the end nothing raises. Scratch for the loop's making: one block, freed
	 * below. */
	engine = calloc(1, sizeof(*engine) + count * sizeof(engine->queues[0]));
	settings = calloc(count, sizeof(*settings) + sizeof(*owners) + sizeof(*numbers));
	if (!engine || !settings) {
		nq_fail(failure, 1, ENOMEM, "not enough memory");
		nq_lane_fini(&lane);
		free(engine);
		free(settings);
		return NULL;
	}
	owners = (void **)(settings + count);
	numbers = (uint16_t *)(owners + count);
	engine->lane = lane;
	engine->lane.cell->lane = &engine->lane;
	nq_allocator_limit(&engine->lane.allocator, limit);
	engine->lane.interruptible = nq_lua_can_interrupt();
	engine->state = lane.state;
	engine->socket = -1;
	for (unsigned i = 0; i < count; i++) {
		struct nq_queue *queue = lua_touserdata(L, (int)i + 1);

		engine->queues[engine->count++] = queue;
		queue->engine = engine;
		queue->position = i;
		numbers[i] = queue->number;
		settings[i] = queue->settings;
		owners[i] = &queue->owner;
	}
	engine->socket = nq_socket_open();
	if (engine->socket < 0) {
		nq_fail_socket(failure, -engine->socket);
		goto out;
	}
	engine->memory = nq_memory_new(1, numbers, count, NULL);
	if (engine->memory)
		engine->loop =
			nq_loop_new(engine->memory, 0, engine->socket, settings, owners,
				    &nq_lua_calls, &engine->lane, &engine->state->real.timers);
	if (!engine->loop) {
		nq_fail(failure, 1, errno, "cannot make the queue's loop: %s", strerror(errno));
		goto out;
	}
	engine->loop->budget = &engine->lane.allocator.budget;
	engine->loop->raw = nq_send_sockets(lane.state);
	lane.state->loop_mark = settings[0].loop_mark;
	lane.state->watch->limit = settings[0].time_limit;
	for (unsigned i = 0; i < count; i++) {
		engine->queues[i]->loop = engine->loop;
		engine->queues[i]->memory = engine->memory;
	}
	free(settings);
	return engine;
out:
	free(settings);
	nq_engine_free(engine);
	return NULL;
}

/*
 * Calls open of each queue: 0, or the message on the stack. As in a handler, a stop from a hook
 * waits until the hooks are through.
 */
static int call_open(lua_State *L, struct nq_engine *engine)
{
	struct nq_loop *outer = engine->state->active;
	int status = LUA_OK;

	engine->state->active = engine->loop; /* for nfqueue.stop */
	engine->lane.judging = true;
	for (unsigned i = 0; i < engine->count && status == LUA_OK; i++) {
		nq_queue_push_object(L, engine->queues[i]);
		nq_allocator_enter(L, &engine->lane.allocator);
		status = nq_script_call_hook(L, engine->queues[i]->script.open, NQ_CALL_OPEN);
		nq_allocator_leave(L, &engine->lane.allocator);
		engine->opened += status == LUA_OK;
	}
	engine->lane.judging = false;
	engine->state->active = outer;
	return status == LUA_OK ? 0 : -1;
}

/* The message on the stack, with its reason. */
static void push_reason(lua_State *L, struct nq_engine *engine)
{
	const char *message = lua_tostring(L, -1);
	char reason[NQ_ALLOCATOR_REASON];

	if (*nq_allocator_reason(&engine->lane.allocator, message, reason))
		lua_pushfstring(L, "%s%s", reason, message);
}

static void call_close(lua_State *L, struct nq_engine *engine)
{
	char reason[NQ_ALLOCATOR_REASON];
	int status;

	engine->lane.judging = true;
	for (unsigned i = 0; i < engine->opened; i++) {
		nq_queue_push_object(L, engine->queues[i]);
		if (lua_isnil(L, -1)) {
			lua_pop(L, 1); /* being collected: its hook has nothing to be called with */
			continue;
		}
		nq_allocator_enter(L, &engine->lane.allocator);
		status = nq_script_call_hook(L, engine->queues[i]->script.close, NQ_CALL_CLOSE);
		nq_allocator_leave(L, &engine->lane.allocator);
		if (status != LUA_OK) {
			const char *message = lua_tostring(L, -1);

			nq_log(NQ_LOG_ERROR, "close failed: %s%s",
			       nq_allocator_reason(&engine->lane.allocator, message, reason),
			       message);
			lua_pop(L, 1);
		}
	}
}

bool nq_engine_end(lua_State *L, struct nq_engine *engine)
{
	struct nq_state *state = nq_state_get(L);
	bool interrupted;

	engine->lane.L = L;
	nq_loop_leave(engine->loop);
	if (state->active == engine->loop)
		state->active = NULL;
	call_close(L, engine);
	interrupted = engine->lane.interrupted;
	nq_engine_free(engine);
	return interrupted;
}

struct nq_engine *nq_engine_begin(lua_State *L, unsigned count, const char *function, int *results)
{
	struct nq_failure failure = {.status = 0};
	struct nq_engine *engine = make_engine(L, count, function, &failure);

	if (!engine) {
		*results = nq_push_failure(L, failure.error, failure.message);
		return NULL;
	}
	if (call_open(L, engine) != 0) {
		push_reason(L, engine);
		call_close(L, engine);
		nq_engine_free(engine);
		lua_error(L);
	}
	if (nq_loop_join(engine->loop, &failure) != 0) {
		call_close(L, engine);
		nq_engine_free(engine);
		*results = nq_push_failure(L, failure.error, failure.message);
		return NULL;
	}
	nq_loop_report_buffer(engine->loop);
	return engine;
}

/*
 * The stock interpreter's Ctrl-C leaves a hook in its main thread, which raises wherever Lua runs
 * next. It is taken away here, so that the hooks of the script run, and raised by the caller.
 */
static bool take_interrupt(lua_State *L, const struct nq_lua_lane *lane)
{
	lua_State *main;

	lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
	main = lua_tothread(L, -1);
	lua_pop(L, 1);
	if (!main || !lua_gethook(main) || !nq_lua_interrupted(lane))
		return false;
	lua_sethook(main, NULL, 0, 0);
	return true;
}

int nq_engine_start(lua_State *L, const char *function)
{
	struct nq_state *state = nq_state_get(L);
	struct nq_engine *engine;
	bool interrupted;
	int results = 0;
	int error;

	if (state->active)
		return luaL_error(L, "a queue is already running in this state; start them "
				     "together, or open them");
	engine = nq_engine_begin(L, (unsigned)lua_gettop(L), function, &results);
	if (!engine)
		return results;
	state->active = engine->loop;
	do {
		error = nq_loop_run(engine->loop);
		interrupted = error == -EINTR && take_interrupt(L, &engine->lane);
	} while (error == -EINTR && !interrupted);
	interrupted |= nq_engine_end(L, engine);
	if (interrupted)
		return luaL_error(L, "interrupted!");
	if (error)
		return nq_push_failure(L, -error, strerror(-error));
	lua_pushboolean(L, 1);
	return 1;
}
