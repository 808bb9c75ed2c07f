#include "lua/queue.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua/args.h"

static const char metatable_key, methods_key, objects_key;

/* Steps of one process(): under a flood the host's loop gets its turn too. */
enum { PROCESS_STEPS = 16 };

struct nq_engine {
	struct nq_memory *memory;
	struct nq_loop *loop;
	struct nq_lua_lane lane;
	struct nq_state *state;
	int socket;
	unsigned opened; /* queues whose open hook went through: their close hook is owed */
	unsigned count;
	struct nq_queue *queues[];
};

static struct nq_queue *check_queue(lua_State *L, int index, const char *method)
{
	struct nq_queue *queue = lua_touserdata(L, index);

	if (queue && lua_getmetatable(L, index)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
		if (lua_rawequal(L, -1, -2)) {
			lua_pop(L, 2);
			return queue;
		}
	}
	luaL_error(L, "bad argument '%s' to '%s' (queue expected, got %s)",
		   index == 1 ? "self" : "queue", method, luaL_typename(L, index));
	return NULL;
}

struct nq_queue *nq_queue_push(lua_State *L, uint16_t number, const struct nq_script *script,
			       const struct nq_settings *settings)
{
	struct nq_queue *queue = lua_newuserdatauv(L, sizeof(*queue), 0);

	memset(queue, 0, sizeof(*queue));
	queue->number = number;
	queue->script = *script;
	queue->settings = *settings;
	queue->owner = (struct nq_lua_owner){.handler = script->packet, .object = queue};
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	lua_setmetatable(L, -2);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_pushvalue(L, -2);
	lua_rawsetp(L, -2, queue);
	lua_pop(L, 1);
	return queue;
}

void nq_queue_push_object(lua_State *L, const void *queue)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_rawgetp(L, -1, queue);
	lua_remove(L, -2);
}

/***
Make a queue object. The kernel is not touched before it is started or opened.
@function new
@tparam integer number of the queue, 0 to 65535
@tparam function|table handler `function(pkt, queue)`, or `{ packet=, open=, close=, config= }`
@tparam[opt] table config see the table of keys; wins over the handler's own
@treturn queue
@raise for any wrong argument or key, naming it
*/
int nq_queue_new(lua_State *L)
{
	struct nq_script script;
	struct nq_settings settings;
	struct nq_config_layer given;
	uint16_t number = (uint16_t)nq_arg_integer(L, 1, "new", "number", 0, 65535);

	lua_settop(L, 3);
	nq_config_read(L, 3, "new", &given);
	nq_script_take(L, 2, "new", &script);
	nq_config_settle((const struct nq_config_layer *[]){&script.config, &given}, 2, &settings);
	lua_settop(L, 3);
	nq_queue_push(L, number, &script, &settings);
	return 1;
}

static void add_counters(struct nq_counters *sum, const struct nq_counters *more)
{
	/* The struct is nothing but uint64_t. */
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)more;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

static void free_engine(struct nq_engine *engine)
{
	for (unsigned i = 0; i < engine->count; i++) {
		struct nq_queue *queue = engine->queues[i];

		if (queue->loop) {
			add_counters(&queue->past,
				     &queue->loop->queues[queue->position].memory->counters);
			queue->past_enobufs += queue->loop->memory->enobufs;
		}
		queue->loop = NULL;
		queue->engine = NULL;
		queue->memory = NULL;
	}
	nq_cell_free(engine->lane.cell, &engine->state->unused);
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
	struct nq_state *state;
	struct nq_cell *cell;

	if (count == 0)
		nq_arg_error(L, 1, function, "queue", "queue");
	luaL_checkstack(L, (int)count + LUA_MINSTACK, "too many queues");
	for (unsigned i = 0; i < count; i++) {
		const struct nq_queue *queue = check_queue(L, (int)i + 1, function);

		if (queue->threaded)
			luaL_error(L, "queue %d belongs to nfqueue.run", queue->number);
		if (queue->loop)
			luaL_error(L, "queue %d is already running", queue->number);
		for (unsigned k = 0; k < i; k++) {
			if (check_queue(L, (int)k + 1, function)->number == queue->number)
				luaL_error(L, "queue %d is given twice", queue->number);
		}
	}
	state = nq_state_get(L);
	cell = nq_cell_new(L, &state->unused);
	/* From here to the end nothing raises. Scratch for the loop's making: one block, freed
	 * below. */
	engine = calloc(1, sizeof(*engine) + count * sizeof(engine->queues[0]));
	settings = calloc(count, sizeof(*settings) + sizeof(*owners) + sizeof(*numbers));
	if (!engine || !settings) {
		nq_fail(failure, 1, ENOMEM, "not enough memory");
		nq_cell_free(cell, &state->unused);
		free(engine);
		free(settings);
		return NULL;
	}
	owners = (void **)(settings + count);
	numbers = (uint16_t *)(owners + count);
	engine->lane = (struct nq_lua_lane){.L = L, .cell = cell};
	engine->lane.interruptible = nq_lua_can_interrupt();
	engine->state = state;
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
		nq_fail(failure, 69, -engine->socket,
			"cannot open a netfilter socket: %s (it needs "
			"CONFIG_NETFILTER_NETLINK)",
			strerror(-engine->socket));
		goto out;
	}
	engine->memory = nq_memory_new(1, numbers, count);
	if (engine->memory)
		engine->loop = nq_loop_new(engine->memory, 0, engine->socket, settings, owners,
					   nq_lua_judge, &engine->lane);
	if (!engine->loop) {
		nq_fail(failure, 1, errno, "cannot make the queue's loop: %s", strerror(errno));
		goto out;
	}
	for (unsigned i = 0; i < count; i++) {
		engine->queues[i]->loop = engine->loop;
		engine->queues[i]->memory = engine->memory;
	}
	free(settings);
	return engine;
out:
	free(settings);
	free_engine(engine);
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
		status = nq_script_call_hook(L, engine->queues[i]->script.open);
		engine->opened += status == LUA_OK;
	}
	engine->lane.judging = false;
	engine->state->active = outer;
	return status == LUA_OK ? 0 : -1;
}

static void call_close(lua_State *L, struct nq_engine *engine)
{
	engine->lane.judging = true;
	for (unsigned i = 0; i < engine->opened; i++) {
		nq_queue_push_object(L, engine->queues[i]);
		if (lua_isnil(L, -1)) {
			lua_pop(L, 1); /* being collected: its hook has nothing to be called with */
			continue;
		}
		if (nq_script_call_hook(L, engine->queues[i]->script.close) != LUA_OK) {
			nq_log(NQ_LOG_ERROR, "close failed: %s", lua_tostring(L, -1));
			lua_pop(L, 1);
		}
	}
}

/*
 * Leaves the kernel, calls close, frees. Called from whichever coroutine is running, which is where
 * the last handlers run; the one that opened the queue may be gone. Returns whether Ctrl-C was
 * among them.
 */
static bool end_engine(lua_State *L, struct nq_engine *engine)
{
	struct nq_state *state = nq_state_get(L);
	bool interrupted;

	engine->lane.L = L;
	nq_loop_leave(engine->loop);
	if (state->active == engine->loop)
		state->active = NULL;
	call_close(L, engine);
	interrupted = engine->lane.interrupted;
	free_engine(engine);
	return interrupted;
}

/* Opens and joins: the engine, or NULL with what shall be returned to Lua on the stack, *results of
 * it. */
static struct nq_engine *begin(lua_State *L, unsigned count, const char *function, int *results)
{
	struct nq_failure failure = {.status = 0};
	struct nq_engine *engine = make_engine(L, count, function, &failure);

	if (!engine) {
		*results = nq_push_failure(L, failure.error, failure.message);
		return NULL;
	}
	if (call_open(L, engine) != 0) {
		call_close(L, engine);
		free_engine(engine);
		lua_error(L);
	}
	if (nq_loop_join(engine->loop, &failure) != 0) {
		call_close(L, engine);
		free_engine(engine);
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

static int start(lua_State *L, const char *function)
{
	struct nq_state *state = nq_state_get(L);
	struct nq_engine *engine;
	bool interrupted;
	int results = 0;
	int error;

	if (state->active)
		return luaL_error(L, "a queue is already running in this state; start them "
				     "together, or open them");
	engine = begin(L, (unsigned)lua_gettop(L), function, &results);
	if (!engine)
		return results;
	state->active = engine->loop;
	do {
		error = nq_loop_run(engine->loop);
		interrupted = error == -EINTR && take_interrupt(L, &engine->lane);
	} while (error == -EINTR && !interrupted);
	interrupted |= end_engine(L, engine);
	if (interrupted)
		return luaL_error(L, "interrupted!");
	if (error)
		return nq_push_failure(L, -error, strerror(-error));
	lua_pushboolean(L, 1);
	return 1;
}

/***
Start queues and loop in C until they are stopped.
@function start
@tparam queue ... one or more queues, judged in this state
@treturn boolean true after a stop; or nil, message, errno
@raise for anything but idle queues
*/
int nq_queue_start(lua_State *L)
{
	return start(L, "start");
}

/***
Stop the queues that are running in this state (all threads of them, under nfqueue.run): every
packet at hand gets its verdict, then `start` or `run` returns.
@function stop
*/
int nq_queue_stop_all(lua_State *L)
{
	struct nq_state *state = nq_state_get(L);

	if (state->active)
		nq_loop_stop(state->active);
	return 0;
}

/***
Bind, configure and loop in C until stopped.
@function queue:start
@treturn boolean true after a stop; or nil, message, errno
*/
static int queue_start(lua_State *L)
{
	check_queue(L, 1, "start");
	lua_settop(L, 1);
	return start(L, "start");
}

static bool is_judging(const struct nq_queue *queue)
{
	const struct nq_lua_lane *lane = queue->loop ? queue->loop->context : NULL;

	return lane && lane->judging;
}

/***
Stop: packets at hand get their verdicts, the queue is unbound, and `start` returns. An opened queue
is closed, after `process` when called from its handler. Does nothing on an idle queue.
@function queue:stop
*/
static int queue_stop(lua_State *L)
{
	struct nq_queue *queue = check_queue(L, 1, "stop");
	const struct nq_state *state = nq_state_get(L);

	if (!queue->loop)
		return 0;
	if (queue->threaded || state->active == queue->loop || is_judging(queue))
		nq_loop_stop(queue->loop);
	else
		end_engine(L, queue->engine);
	return 0;
}

/***
Bind and configure for use inside another event loop.
@function queue:open
@treturn queue itself; or nil, message, errno
*/
static int queue_open(lua_State *L)
{
	struct nq_engine *engine;
	int results = 0;

	check_queue(L, 1, "open");
	lua_settop(L, 1);
	engine = begin(L, 1, "open", &results);
	if (!engine)
		return results;
	if (engine->loop->stop)
		end_engine(L, engine); /* its own open hook closed it */
	lua_settop(L, 1);
	return 1;
}

static struct nq_loop *check_open(lua_State *L, const char *method)
{
	struct nq_queue *queue = check_queue(L, 1, method);

	if (!queue->loop)
		luaL_error(L, "queue %d is not open", queue->number);
	return queue->loop;
}

/***
The descriptor that is readable when `process` has something to do. It belongs to the queue.
@function queue:fd
@treturn integer
@raise `queue N is not open`
*/
static int queue_fd(lua_State *L)
{
	lua_pushinteger(L, check_open(L, "fd")->epoll);
	return 1;
}

/***
Judge what was received and send the verdicts; never waits.
@function queue:process
@treturn integer number of verdicts given; or nil, message, errno when the queue cannot go on (it is
closed)
@raise `queue N is not open`
*/
static int queue_process(lua_State *L)
{
	struct nq_loop *loop = check_open(L, "process");
	struct nq_queue *queue = lua_touserdata(L, 1);
	struct nq_state *state = nq_state_get(L);
	struct nq_loop *outer = state->active;
	struct nq_lua_lane *lane = loop->context;
	uint64_t before = loop->verdicts;
	int got = 0;

	if (queue->threaded || outer == loop || is_judging(queue))
		return luaL_error(L, "queue %d is already running", queue->number);
	lane->L = L; /* may be a coroutine of the host's loop */
	state->active = loop;
	nq_loop_acknowledge(loop);
	for (int i = 0; i < PROCESS_STEPS; i++) {
		got = nq_loop_step(loop);
		if (got <= 0)
			break;
	}
	state->active = outer;
	before = loop->verdicts - before;
	if (lane->interrupted) {
		(void)end_engine(L, queue->engine);
		return luaL_error(L, "interrupted!");
	}
	if (got < 0 || loop->stop) {
		end_engine(L, queue->engine);
		if (got < 0)
			return nq_push_failure(L, -got, strerror(-got));
	}
	lua_pushinteger(L, (lua_Integer)before);
	return 1;
}

/***
Unbind an opened queue; on an idle queue it does nothing.
@function queue:close
*/
static int queue_close(lua_State *L)
{
	check_queue(L, 1, "close");
	return queue_stop(L);
}

/* The last reference is gone without a close: nothing may be left without a verdict, and no script
 * runs. */
static int queue_gc(lua_State *L)
{
	struct nq_queue *queue = check_queue(L, 1, "close");

	if (queue->engine && queue->loop) {
		queue->engine->lane.L = NULL;
		nq_loop_leave(queue->loop);
		free_engine(queue->engine);
	}
	if (!queue->threaded && !queue->released)
		nq_script_release(L, &queue->script);
	queue->released = true;
	return 0;
}

static void push_counter(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

/***
Counters since the queue was made: `packets bytes accepted dropped modified again requeued undecided
errors truncated refused lost` of this queue (`refused` counts messages: a run of equal verdicts is
one), `enobufs` of its socket, `workers_lost` of the process, `memory` of the Lua state in bytes;
and while it is bound and /proc can be read `kernel_queue_dropped kernel_user_dropped waiting`.
@function queue:stats
@treturn table
*/
static int queue_stats(lua_State *L)
{
	struct nq_queue *queue = check_queue(L, 1, "stats");
	struct nq_counters counters = queue->past;
	struct nq_counters present;
	struct nq_proc_queue kernel = {0};
	uint64_t enobufs = queue->past_enobufs;
	uint64_t workers_lost = 0;
	bool known = false;

	if (queue->loop) {
		known = nq_loop_stats(queue->loop, &queue->loop->queues[queue->position], &present,
				      &kernel) == 0;
		add_counters(&counters, &present);
		enobufs += queue->loop->memory->enobufs;
		workers_lost = queue->memory->workers_lost;
	}
	lua_createtable(L, 0, 20);
	push_counter(L, "packets", counters.packets);
	push_counter(L, "bytes", counters.bytes);
	push_counter(L, "accepted", counters.accepted);
	push_counter(L, "dropped", counters.dropped);
	push_counter(L, "modified", counters.modified);
	push_counter(L, "again", counters.again);
	push_counter(L, "requeued", counters.requeued);
	push_counter(L, "undecided", counters.undecided);
	push_counter(L, "errors", counters.errors);
	push_counter(L, "truncated", counters.truncated);
	push_counter(L, "refused", counters.refused);
	push_counter(L, "lost", counters.lost);
	push_counter(L, "enobufs", enobufs);
	push_counter(L, "workers_lost", workers_lost);
	push_counter(L, "memory",
		     (uint64_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (uint64_t)lua_gc(L, LUA_GCCOUNTB));
	if (known) {
		push_counter(L, "kernel_queue_dropped", kernel.queue_dropped);
		push_counter(L, "kernel_user_dropped", kernel.user_dropped);
		push_counter(L, "waiting", kernel.waiting);
	}
	return 1;
}

/***
The descriptor, as cqueues asks for it.
@function queue:pollfd
@treturn integer as `fd`
*/
static int queue_pollfd(lua_State *L)
{
	lua_pushinteger(L, check_open(L, "pollfd")->epoll);
	return 1;
}

/***
What to wait for, as cqueues asks for it: always "r".
@function queue:events
@treturn string
*/
static int queue_events(lua_State *L)
{
	check_queue(L, 1, "events");
	lua_pushstring(L, "r");
	return 1;
}

/***
How long to wait at most, as cqueues asks for it: without limit, as everything makes the descriptor
readable.
@function queue:timeout
@return nil
*/
static int queue_timeout(lua_State *L)
{
	check_queue(L, 1, "timeout");
	lua_pushnil(L);
	return 1;
}

/***
The descriptor, as LuaSocket's `select` asks for it.
@function queue:getfd
@treturn integer as `fd`
*/
static int queue_getfd(lua_State *L)
{
	lua_pushinteger(L, check_open(L, "getfd")->epoll);
	return 1;
}

/***
Whether something is buffered outside the descriptor's sight, as LuaSocket's `select` asks: never.
@function queue:dirty
@treturn boolean false
*/
static int queue_dirty(lua_State *L)
{
	check_queue(L, 1, "dirty");
	lua_pushboolean(L, 0);
	return 1;
}

static int queue_tostring(lua_State *L)
{
	const struct nq_queue *queue = check_queue(L, 1, "tostring");

	lua_pushfstring(L, "queue %d (%s)", queue->number, queue->loop ? "bound" : "idle");
	return 1;
}

/* `number`, `config`, and the methods; any other name raises. */
static int queue_index(lua_State *L)
{
	struct nq_queue *queue = check_queue(L, 1, "index");

	if (lua_type(L, 2) == LUA_TSTRING) {
		const char *name = lua_tostring(L, 2);

		if (strcmp(name, "number") == 0) {
			lua_pushinteger(L, queue->number);
			return 1;
		}
		if (strcmp(name, "config") == 0) {
			nq_config_push(L, queue->loop
						  ? &queue->loop->queues[queue->position].settings
						  : &queue->settings);
			return 1;
		}
		lua_rawgetp(L, LUA_REGISTRYINDEX, &methods_key);
		lua_pushvalue(L, 2);
		if (lua_rawget(L, -2) != LUA_TNIL)
			return 1;
	}
	return luaL_error(L, "queue has no field '%s'", luaL_tolstring(L, 2, NULL));
}

static int queue_newindex(lua_State *L)
{
	check_queue(L, 1, "newindex");
	return luaL_error(L, "queue field '%s' is read-only", luaL_tolstring(L, 2, NULL));
}

void nq_queue_register(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"start", queue_start},
		{"stop", queue_stop},
		{"open", queue_open},
		{"fd", queue_fd},
		{"process", queue_process},
		{"close", queue_close},
		{"stats", queue_stats},
		{"pollfd", queue_pollfd},
		{"events", queue_events},
		{"timeout", queue_timeout},
		{"getfd", queue_getfd},
		{"dirty", queue_dirty},
		{NULL, NULL},
	};
	static const luaL_Reg metamethods[] = {
		{"__index", queue_index},	{"__newindex", queue_newindex},
		{"__tostring", queue_tostring}, {"__gc", queue_gc},
		{"__close", queue_close},	{NULL, NULL},
	};

	luaL_newlib(L, methods);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &methods_key);
	luaL_newlib(L, metamethods);
	lua_pushstring(L, "nfqueue.queue");
	lua_setfield(L, -2, "__name");
	lua_pushstring(L, "nfqueue.queue");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
	/* Queues by address, for the handler's second argument; it keeps none alive. */
	lua_newtable(L);
	lua_newtable(L);
	lua_pushstring(L, "v");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &objects_key);
}
