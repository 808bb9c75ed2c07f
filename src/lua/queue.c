#include "lua/queue.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/engine.h"
#include "lua/sandbox.h"

static const char metatable_key, methods_key, objects_key;

/* Steps of one process(): under a flood the host's loop gets its turn too. */
enum { PROCESS_STEPS = 16 };

struct nq_queue *nq_queue_check(lua_State *L, int index, const char *method)
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
	nq_sandbox_check(L, &given, "new");
	nq_script_take(L, 2, "new", &script);
	nq_config_settle((const struct nq_config_layer *[]){&script.config, &given}, 2, &settings);
	lua_settop(L, 3);
	nq_queue_push(L, number, &script, &settings);
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
	return nq_engine_start(L, "start");
}

/***
Stop the queues that are running in this state (all threads of them, under nfqueue.run): every
packet at hand or held gets its verdict, delayed ones are accepted, then `start` or `run` returns.
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
	nq_queue_check(L, 1, "start");
	lua_settop(L, 1);
	return nq_engine_start(L, "start");
}

static bool is_judging(const struct nq_queue *queue)
{
	const struct nq_lua_lane *lane = queue->loop ? queue->loop->context : NULL;

	return lane && lane->judging;
}

/***
Stop: packets at hand and held ones get their verdicts, the queue is unbound, and `start` returns.
An opened queue is closed, after `process` when called from its handler. Does nothing on an idle
queue.
@function queue:stop
*/
static int queue_stop(lua_State *L)
{
	struct nq_queue *queue = nq_queue_check(L, 1, "stop");
	const struct nq_state *state = nq_state_get(L);

	if (!queue->loop)
		return 0;
	if (queue->threaded || state->active == queue->loop || is_judging(queue))
		nq_loop_stop(queue->loop);
	else
		nq_engine_end(L, queue->engine);
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

	nq_queue_check(L, 1, "open");
	lua_settop(L, 1);
	engine = nq_engine_begin(L, 1, "open", &results);
	if (!engine)
		return results;
	if (engine->loop->stop)
		nq_engine_end(L, engine); /* its own open hook closed it */
	lua_settop(L, 1);
	return 1;
}

static struct nq_loop *check_open(lua_State *L, const char *method)
{
	struct nq_queue *queue = nq_queue_check(L, 1, method);

	if (!queue->loop)
		luaL_error(L, "queue %d is not open", queue->number);
	return queue->loop;
}

/***
The descriptor that is readable when `process` has something to do: packets, timers of this state,
the end of a delay or a hold. It belongs to the queue.
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
Run the timers that are due, send delayed packets whose time has come, judge what was received and
send the verdicts; never waits.
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
		(void)nq_engine_end(L, queue->engine);
		return luaL_error(L, "interrupted!");
	}
	if (got < 0 || loop->stop) {
		nq_engine_end(L, queue->engine);
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
	nq_queue_check(L, 1, "close");
	return queue_stop(L);
}

/* The last reference is gone without a close: nothing may be left without a verdict, and no script
 * runs. */
static int queue_gc(lua_State *L)
{
	struct nq_queue *queue = nq_queue_check(L, 1, "close");

	if (queue->engine && queue->loop) {
		queue->engine->lane.L = NULL;
		nq_loop_leave(queue->loop);
		nq_engine_free(queue->engine);
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
Counters since the queue was made: `packets bytes accepted dropped modified again requeued rejected
delayed held expired undecided errors timeouts truncated refused lost injected` of this queue
(`timeouts` counts those of the errors whose handler overran its time; `refused` messages: a run of
equal verdicts is one; `injected` what its handler sent; a delayed packet counts as nothing else, a
held one also as what it got, and as `expired` when nobody settled it), `kept`: packets held or
delayed at present, `enobufs` of its socket, `workers_lost` and `reloads` of the process, `memory`
of the Lua state and of its copies of held and delayed packets, in bytes; and while it is bound and
/proc can be read `kernel_queue_dropped kernel_user_dropped waiting`.
@function queue:stats
@treturn table
*/
static int queue_stats(lua_State *L)
{
	struct nq_queue *queue = nq_queue_check(L, 1, "stats");
	struct nq_counters counters = queue->past;
	struct nq_counters present;
	struct nq_proc_queue kernel = {0};
	uint64_t enobufs = queue->past_enobufs;
	uint64_t workers_lost = 0, reloads = 0, kept = 0, copies = 0;
	bool known = false;

	if (queue->loop) {
		known = nq_loop_stats(queue->loop, &queue->loop->queues[queue->position], &present,
				      &kernel) == 0;
		nq_counters_add(&counters, &present);
		enobufs += queue->loop->memory->enobufs;
		workers_lost = queue->memory->workers_lost;
		reloads = queue->memory->reloads;
		kept = queue->loop->queues[queue->position].kept;
		copies = queue->loop->keep.arena.used;
	}
	lua_createtable(L, 0, 27);
	push_counter(L, "packets", counters.packets);
	push_counter(L, "bytes", counters.bytes);
	push_counter(L, "accepted", counters.accepted);
	push_counter(L, "dropped", counters.dropped);
	push_counter(L, "modified", counters.modified);
	push_counter(L, "again", counters.again);
	push_counter(L, "requeued", counters.requeued);
	push_counter(L, "rejected", counters.rejected);
	push_counter(L, "delayed", counters.delayed);
	push_counter(L, "held", counters.held);
	push_counter(L, "expired", counters.expired);
	push_counter(L, "kept", kept);
	push_counter(L, "undecided", counters.undecided);
	push_counter(L, "errors", counters.errors);
	push_counter(L, "timeouts", counters.timeouts);
	push_counter(L, "truncated", counters.truncated);
	push_counter(L, "refused", counters.refused);
	push_counter(L, "lost", counters.lost);
	push_counter(L, "injected", counters.injected);
	push_counter(L, "enobufs", enobufs);
	push_counter(L, "workers_lost", workers_lost);
	push_counter(L, "reloads", reloads);
	push_counter(L, "memory", (uint64_t)nq_allocator_used(L) + copies);
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
	nq_queue_check(L, 1, "events");
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
	nq_queue_check(L, 1, "timeout");
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
	nq_queue_check(L, 1, "dirty");
	lua_pushboolean(L, 0);
	return 1;
}

static int queue_tostring(lua_State *L)
{
	const struct nq_queue *queue = nq_queue_check(L, 1, "tostring");

	lua_pushfstring(L, "queue %d (%s)", queue->number, queue->loop ? "bound" : "idle");
	return 1;
}

/* Not while its script is about to take another's place, or after its own was taken. */
static bool is_judge(const struct nq_queue *queue)
{
	return queue->loop && queue->loop->queues[queue->position].owner == &queue->owner;
}

/* `number`, `config`, and the methods; any other name raises. */
static int queue_index(lua_State *L)
{
	struct nq_queue *queue = nq_queue_check(L, 1, "index");

	if (lua_type(L, 2) == LUA_TSTRING) {
		const char *name = lua_tostring(L, 2);

		if (strcmp(name, "number") == 0) {
			lua_pushinteger(L, queue->number);
			return 1;
		}
		if (strcmp(name, "config") == 0) {
			nq_config_push(L, is_judge(queue)
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
	nq_queue_check(L, 1, "newindex");
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
