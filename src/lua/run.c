#include "lua/run.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/control.h"
#include "host/store.h"
#include "host/supervisor.h"
#include "host/worker.h"
#include "lua/args.h"
#include "lua/flows.h"
#include "lua/module.h"
#include "lua/plain.h"
#include "lua/privilege.h"
#include "lua/queue.h"
#include "lua/sandbox.h"
#include "lua/tables.h"

/*
 * What threads need, without Lua values: it crosses states and a fork. The table it is read from:
 *
 *     script  string              path of the handler script
 *     queues  list of integers    each once
 *     threads integer             from 1 to the number of queues
 *     args    list of strings     key, value, key, value, ...
 *     config  table               wins over the script's own
 *     user    string              optional, of the command only, as the rest: see lua/privilege.h
 *     confine boolean
 *     read, write  lists of strings
 *     name    string              of the instance; nil: the usual one
 */
struct plan {
	char *script;
	char *name;	    /* NULL: none was given */
	char *path, *cpath; /* package.path and package.cpath of the state that starts */
	char **args;
	size_t arg_count;
	struct nq_config_layer config;
	uint16_t *queues;
	unsigned queue_count, threads;
	struct nq_registry *registry; /* of this run: what scripts find by its number */
	struct nq_registry *tables;   /* of the state that starts: what they find by name */
	const struct nq_raw *raw;     /* of the process that opened the sockets */
	int proc;		      /* nfnetlink_queue in /proc, as its, or -errno */
	struct nq_run_privilege privilege;
	/* nfqueue.run only: the state that waits, for its interpreter's Ctrl-C. */
	lua_State *host;
	struct nq_lua_lane host_lane;
};

struct thread_state {
	struct nq_lua_lane lane; /* first: the context of nq_lua_calls */
	lua_State *L;
	struct nq_queue **queues;
	struct nq_watch watch; /* of L */
	unsigned opened;       /* queues whose open hook went through: their close hook is owed */
};

static void free_plan(struct plan *plan)
{
	for (size_t i = 0; plan->args && i < plan->arg_count; i++)
		free(plan->args[i]);
	free(plan->args);
	free(plan->script);
	free(plan->name);
	free(plan->path);
	free(plan->cpath);
	free(plan->queues);
	nq_run_privilege_free(&plan->privilege);
	nq_registry_release(plan->tables);
}

static int plan_gc(lua_State *L)
{
	struct plan *plan = lua_touserdata(L, 1);

	free_plan(plan);
	memset(plan, 0, sizeof(*plan));
	return 0;
}

static char *copy_string(lua_State *L, int index)
{
	char *copy = strdup(lua_tostring(L, index));

	if (!copy)
		luaL_error(L, "not enough memory");
	return copy;
}

static void *allocate(lua_State *L, size_t count, size_t size)
{
	void *block = calloc(count ? count : 1, size);

	if (!block)
		luaL_error(L, "not enough memory");
	return block;
}

static void read_args(lua_State *L, struct plan *plan)
{
	lua_getfield(L, 1, "args");
	if (!lua_isnil(L, -1)) {
		size_t count;

		nq_arg_table(L, -1, "run", "args");
		count = (size_t)lua_rawlen(L, -1);
		plan->args = allocate(L, count, sizeof(*plan->args));
		for (size_t i = 0; i < count; i++) {
			lua_rawgeti(L, -1, (lua_Integer)i + 1);
			nq_arg_string(L, -1, "run", "args", NULL);
			plan->args[i] = copy_string(L, -1);
			plan->arg_count = i + 1;
			lua_pop(L, 1);
		}
	}
	lua_pop(L, 1);
}

static void read_queues(lua_State *L, struct plan *plan)
{
	size_t count;

	lua_getfield(L, 1, "queues");
	nq_arg_table(L, -1, "run", "queues");
	count = (size_t)lua_rawlen(L, -1);
	if (count == 0)
		luaL_error(L, "bad argument 'queues' to 'run' (no queue is given)");
	plan->queues = allocate(L, count, sizeof(*plan->queues));
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, -1, (lua_Integer)i + 1);
		plan->queues[i] = (uint16_t)nq_arg_integer(L, -1, "run", "queues", 0, 65535);
		lua_pop(L, 1);
		for (size_t k = 0; k < i; k++) {
			if (plan->queues[k] == plan->queues[i])
				luaL_error(
					L,
					"bad argument 'queues' to 'run' (queue %d is given twice)",
					plan->queues[i]);
		}
	}
	plan->queue_count = (unsigned)count;
	lua_pop(L, 1);
	lua_getfield(L, 1, "threads");
	plan->threads = (unsigned)nq_arg_integer(L, -1, "run", "threads", 1, (lua_Integer)count);
	lua_pop(L, 1);
}

/* Reads the table at 1 into a userdata, left on the stack, that frees it. */
static struct plan *read_plan(lua_State *L)
{
	struct plan *plan = lua_newuserdatauv(L, sizeof(*plan), 0);

	memset(plan, 0, sizeof(*plan));
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, plan_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	nq_arg_table(L, 1, "run", "plan");
	plan->tables = nq_tables_get(L)->registry;
	nq_registry_hold(plan->tables);
	lua_getfield(L, 1, "script");
	nq_arg_string(L, -1, "run", "script", NULL);
	plan->script = copy_string(L, -1);
	lua_pop(L, 1);
	lua_getfield(L, 1, "name");
	if (!lua_isnil(L, -1)) {
		const char *name = nq_arg_string(L, -1, "run", "name", NULL);

		if (!nq_control_is_name(name))
			luaL_error(L, "bad argument 'name' to 'run' (%s is no name)", name);
		plan->name = copy_string(L, -1);
	}
	lua_pop(L, 1);
	read_args(L, plan);
	read_queues(L, plan);
	lua_getfield(L, 1, "config");
	nq_config_read(L, -1, "run", &plan->config);
	lua_pop(L, 1);
	lua_getglobal(L, LUA_LOADLIBNAME);
	lua_getfield(L, -1, "path");
	lua_getfield(L, -2, "cpath");
	if (lua_isstring(L, -1) && lua_isstring(L, -2)) {
		plan->path = copy_string(L, -2);
		plan->cpath = copy_string(L, -1);
	}
	lua_pop(L, 3);
	nq_run_privilege_read(L, plan->script, plan->path, plan->cpath, &plan->privilege);
	return plan;
}

/* Pushes { key = value, repeated = { value, value } }. */
static void push_args(lua_State *L, const struct plan *plan)
{
	lua_newtable(L);
	for (size_t i = 0; i + 1 < plan->arg_count; i += 2) {
		const char *key = plan->args[i];
		int type = lua_getfield(L, -1, key);

		if (type == LUA_TSTRING) {
			lua_createtable(L, 2, 0);
			lua_insert(L, -2);
			lua_rawseti(L, -2, 1);
			lua_pushvalue(L, -1);
			lua_setfield(L, -3, key);
			type = LUA_TTABLE;
		}
		lua_pushstring(L, plan->args[i + 1]);
		if (type == LUA_TTABLE)
			lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
		else
			lua_setfield(L, -3, key);
		lua_pop(L, 1);
	}
}

static void set_paths(lua_State *L, const struct plan *plan)
{
	lua_getglobal(L, LUA_LOADLIBNAME);
	if (plan->path) {
		lua_pushstring(L, plan->path);
		lua_setfield(L, -2, "path");
		lua_pushstring(L, plan->cpath);
		lua_setfield(L, -2, "cpath");
	}
	lua_getfield(L, -1, "preload");
	lua_pushcfunction(L, luaopen_nfqueue_core);
	lua_setfield(L, -2, "nfqueue.core");
	lua_pop(L, 2);
}

/* The script's chunk cannot say its limit yet. */
static void set_watch(struct nq_state *state, const struct nq_worker_lane *lane)
{
	const struct plan *plan = lane->context;
	struct thread_state *own = lane->state;

	nq_watch_init(&own->watch, lane->watchdog, lane->number);
	own->watch.limit = nq_config_time_limit(&plan->config);
	state->watch = &own->watch;
}

/* Under pcall: 1 lane, 2 failure (both light). Libraries, paths, core, script, queue objects. */
static int load_state(lua_State *L)
{
	struct nq_worker_lane *lane = lua_touserdata(L, 1);
	struct nq_failure *failure = lua_touserdata(L, 2);
	const struct plan *plan = lane->context;
	struct thread_state *state = lane->state;
	struct nq_script script;

	luaL_openlibs(L);
	set_paths(L, plan);
	nq_plain_enter(L);
	luaL_requiref(L, "nfqueue.core", luaopen_nfqueue_core, 0);
	nq_state_get(L)->registry = plan->registry;
	nq_state_get(L)->generation = lane->generation;
	nq_tables_attach(L, plan->tables, lane->generation);
	lua_settop(L, 2);
	nq_state_get(L)->raw = plan->raw;
	set_watch(nq_state_get(L), lane);
	nq_state_get(L)->confined = plan->privilege.confine;
	if (plan->config.values[NQ_KEY_SANDBOX])
		nq_sandbox_enter(L, plan->script);
	push_args(L, plan);
	if (nq_script_load(L, plan->script, lane->script, 3, &script, failure) != 0)
		return 0;
	lua_settop(L, 0);
	for (unsigned i = 0; i < lane->queue_count; i++) {
		struct nq_queue *queue;

		nq_config_settle((const struct nq_config_layer *[]){&script.config, &plan->config},
				 2, &lane->settings[i]);
		queue = nq_queue_push(L, (uint16_t)lane->queues[i].number, &script,
				      &lane->settings[i]);
		queue->threaded = true;
		queue->position = i;
		state->queues[i] = queue;
		lane->owners[i] = &queue->owner;
		(void)luaL_ref(L, LUA_REGISTRYINDEX); /* for the life of the state */
	}
	/* All have the same. What is in use already may be more: the next allocation tells. */
	nq_allocator_limit(&state->lane.allocator, lane->settings[0].memory_limit);
	nq_lane_init(L, &state->lane);
	lane->timers = &state->lane.state->real.timers;
	lane->budget = &state->lane.allocator.budget;
	return 0;
}

/* A failure for want of memory says whose limit it was. */
static void add_reason(struct thread_state *state, struct nq_failure *failure)
{
	char reason[NQ_ALLOCATOR_REASON];
	struct nq_failure bare = *failure;

	if (*nq_allocator_reason(&state->lane.allocator, bare.message, reason))
		snprintf(failure->message, sizeof(failure->message), "%s%.1900s", reason,
			 bare.message);
}

static int load_lane(struct nq_worker_lane *lane, struct nq_failure *failure)
{
	const struct plan *plan = lane->context;
	struct thread_state *state = calloc(1, sizeof(*state));

	lane->state = state;
	if (state)
		state->queues = calloc(lane->queue_count, sizeof(struct nq_queue *));
	if (state)
		state->L = nq_allocator_state(&state->lane.allocator);
	if (!state || !state->queues || !state->L)
		return nq_fail(failure, 1, ENOMEM, "not enough memory for a Lua state");
	/* The script's own is not known before it has run. */
	nq_allocator_limit(&state->lane.allocator, nq_config_memory_limit(&plan->config));
	lua_pushcfunction(state->L, nq_script_traceback);
	lua_pushcfunction(state->L, load_state);
	lua_pushlightuserdata(state->L, lane);
	lua_pushlightuserdata(state->L, failure);
	if (lua_pcall(state->L, 2, 0, 1) != LUA_OK)
		nq_fail(failure, 1, ENOMEM, "cannot prepare a Lua state: %s",
			lua_tostring(state->L, -1));
	lua_settop(state->L, 0);
	if (failure->status)
		add_reason(state, failure);
	return -failure->error;
}

static int open_lane(struct nq_worker_lane *lane, struct nq_failure *failure)
{
	const struct plan *plan = lane->context;
	struct thread_state *state = lane->state;
	lua_State *L = state->L;

	lane->loop->raw = plan->raw;
	if (lane->loop->proc < 0 && plan->proc >= 0)
		lane->loop->proc = fcntl(plan->proc, F_DUPFD_CLOEXEC, 0);
	nq_state_get(L)->active = lane->loop;
	nq_state_get(L)->loop_mark = lane->settings[0].loop_mark;
	nq_state_get(L)->watch->limit = lane->settings[0].time_limit;
	for (unsigned i = 0; i < lane->queue_count; i++) {
		struct nq_queue *queue = state->queues[i];

		queue->loop = lane->loop;
		queue->memory = lane->memory;
		nq_queue_push_object(L, queue);
		if (nq_script_call_hook(L, queue->script.open, NQ_CALL_OPEN) != LUA_OK) {
			nq_fail(failure, 65, EINVAL, "open of the script failed: %s",
				lua_tostring(L, -1));
			add_reason(state, failure);
			lua_pop(L, 1);
			return -EINVAL;
		}
		state->opened++;
	}
	return 0;
}

static void close_lane(struct nq_worker_lane *lane)
{
	struct thread_state *state = lane->state;
	lua_State *L = state->L;

	nq_state_get(L)->active = NULL; /* the loop may be another script's by now */
	for (unsigned i = 0; i < state->opened; i++) {
		nq_queue_push_object(L, state->queues[i]);
		if (nq_script_call_hook(L, state->queues[i]->script.close, NQ_CALL_CLOSE) !=
		    LUA_OK) {
			char reason[NQ_ALLOCATOR_REASON];
			const char *message = lua_tostring(L, -1);

			nq_log(NQ_LOG_ERROR, "close of the script failed: %s%s",
			       nq_allocator_reason(&state->lane.allocator, message, reason),
			       message);
			lua_pop(L, 1);
		}
	}
	nq_flows_end(L);
}

static void unload_lane(struct nq_worker_lane *lane)
{
	struct thread_state *state = lane->state;

	if (!state)
		return;
	/* Not that of the script that took this one's place. */
	if (lane->loop && lane->loop->budget == &state->lane.allocator.budget)
		lane->loop->budget = NULL;
	/* Finalizers of the script are called, which nothing can interrupt. */
	(void)nq_watched_begin(&state->watch.watched, NQ_CALL_END, state->watch.limit);
	if (state->L)
		lua_close(state->L);
	nq_watched_end(&state->watch.watched);
	nq_watch_fini(&state->watch);
	free(state->queues);
	free(state);
	lane->state = NULL;
}

static void settle_script(void *context, uint32_t generation, bool taken)
{
	const struct plan *plan = context;

	nq_registry_settle(plan->registry, generation, taken);
	nq_registry_settle(plan->tables, generation, taken);
}

static const struct nq_worker_ops ops = {
	.load = load_lane,
	.open = open_lane,
	.calls = &nq_lua_calls,
	.close = close_lane,
	.unload = unload_lane,
	.settle = settle_script,
};

struct resources {
	struct nq_memory *memory;
	int *sockets;
	unsigned count;
	struct nq_raw raw;
	int proc;
	struct nq_notify notify; /* the command's */
	int memory_fd;		 /* -1: the memory is no file */
};

static void release(struct resources *resources)
{
	for (unsigned i = 0; resources->sockets && i < resources->count; i++)
		close(resources->sockets[i]);
	free(resources->sockets);
	nq_raw_close(&resources->raw);
	if (resources->proc >= 0)
		close(resources->proc);
	nq_memory_free(resources->memory);
	if (resources->memory_fd >= 0)
		close(resources->memory_fd);
	nq_notify_close(&resources->notify);
}

static int open_sockets(const struct plan *plan, struct resources *resources,
			struct nq_failure *failure)
{
	while (resources->count < plan->threads) {
		int fd = nq_socket_open();

		if (fd < 0)
			return nq_fail_socket(failure, -fd);
		resources->sockets[resources->count++] = fd;
	}
	return 0;
}

/* With `manager`: what a service manager keeps of an earlier run, or what it is to keep. */
static int acquire(struct plan *plan, bool manager, struct resources *resources,
		   struct nq_failure *failure)
{
	*resources = (struct resources){.notify = {.fd = -1}, .memory_fd = -1};
	/* Without them the queues run, and who wants to send is told why it cannot. */
	nq_raw_open(&resources->raw);
	plan->raw = &resources->raw;
	resources->proc = plan->proc = nq_proc_open();
	resources->sockets = calloc(plan->threads, sizeof(int));
	if (manager)
		nq_notify_open(&resources->notify);
	if (manager && resources->sockets &&
	    nq_store_take(&resources->notify, plan->threads, plan->queues, plan->queue_count,
			  &resources->memory, &resources->memory_fd, resources->sockets)) {
		resources->count = plan->threads;
		return 0;
	}
	if (resources->sockets)
		resources->memory =
			nq_memory_new(plan->threads, plan->queues, plan->queue_count,
				      resources->notify.store ? &resources->memory_fd : NULL);
	if (!resources->sockets || !resources->memory) {
		nq_fail(failure, 1, ENOMEM, "not enough memory");
	} else if (open_sockets(plan, resources, failure) == 0) {
		nq_store_keep(&resources->notify, resources->memory, resources->memory_fd,
			      resources->sockets);
		return 0;
	}
	release(resources);
	return -failure->error;
}

/* Asked in the host's thread. The hook stays: it raises when nfqueue.run returns. */
static bool is_interrupted(void *context)
{
	const struct plan *plan = context;

	return lua_gethook(plan->host) && nq_lua_interrupted(&plan->host_lane);
}

/* The threads of a plan, between the making and the end of what they share. */
static int run_threads(struct plan *plan, struct nq_worker_job *job, struct nq_failure *failure)
{
	int error;

	job->ops = &ops;
	job->context = plan;
	plan->registry = nq_registry_new();
	if (plan->registry)
		error = nq_worker_run(job, failure);
	else
		error = nq_fail(failure, 1, ENOMEM, "not enough memory");
	nq_registry_release(plan->registry);
	plan->registry = NULL;
	return error;
}

int nq_run(lua_State *L)
{
	struct plan *plan = read_plan(L);
	struct nq_failure failure = {.status = 0};
	struct resources resources;
	int error = acquire(plan, false, &resources, &failure);

	if (error)
		return nq_push_failure(L, failure.error, failure.message);
	lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
	plan->host = lua_tothread(L, -1);
	plan->host_lane.interruptible = nq_lua_can_interrupt();

	struct nq_worker_job job = {.memory = resources.memory,
				    .sockets = resources.sockets,
				    .channel = -1,
				    .interrupted = is_interrupted};

	error = nq_text_read(plan->script, false, &job.script, &failure);
	if (!error)
		error = run_threads(plan, &job, &failure);
	nq_text_free(&job.script);
	release(&resources);
	if (error)
		return nq_push_failure(L, failure.error, failure.message);
	lua_pushboolean(L, 1);
	return 1;
}

static int run_worker(void *context, const struct nq_worker_start *start,
		      struct nq_failure *failure)
{
	const struct plan *plan = context;
	struct nq_worker_job job = {.memory = start->memory,
				    .sockets = start->sockets,
				    .script = *start->script,
				    .generation = start->generation,
				    .channel = start->channel};

	int error = nq_run_privilege_confine(&plan->privilege, failure);

	return error ? error : run_threads(context, &job, failure);
}

int nq_run_supervised(lua_State *L)
{
	struct plan *plan = read_plan(L);
	struct nq_failure failure = {.status = 0};
	struct nq_supervision supervision = {.main = run_worker,
					     .context = plan,
					     .script = plan->script,
					     .name = plan->name,
					     .proc = -1};
	struct resources resources;
	int status;

	if (acquire(plan, true, &resources, &failure) != 0) {
		nq_log(NQ_LOG_ERROR, "%s", failure.message);
		lua_pushinteger(L, failure.status);
		return 1;
	}
	supervision.memory = resources.memory;
	supervision.sockets = resources.sockets;
	supervision.notify = &resources.notify;
	supervision.memory_fd = resources.memory_fd;
	if (nq_supervision_listen(&supervision, &failure) == 0 &&
	    nq_run_privilege_drop(&plan->privilege, &resources.raw, &failure) == 0) {
		status = nq_supervise(&supervision);
	} else {
		nq_log(NQ_LOG_ERROR, "%s", failure.message);
		status = failure.status;
	}
	nq_supervision_close(&supervision);
	release(&resources);
	lua_pushinteger(L, status);
	return 1;
}
