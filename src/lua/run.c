#include "lua/run.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/store.h"
#include "host/supervisor.h"
#include "host/worker.h"
#include "lua/args.h"
#include "lua/flows.h"
#include "lua/module.h"
#include "lua/plain.h"
#include "lua/plan.h"
#include "lua/privilege.h"
#include "lua/queue.h"
#include "lua/sandbox.h"
#include "lua/tables.h"

struct thread_state {
	struct nq_lua_lane lane; /* first: the context of nq_lua_calls */
	lua_State *L;
	struct nq_queue **queues;
	struct nq_watch watch; /* of L */
	unsigned opened;       /* queues whose open hook went through: their close hook is owed */
};

static void set_paths(lua_State *L, const struct nq_plan *plan)
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
	const struct nq_plan *plan = lane->context;
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
	const struct nq_plan *plan = lane->context;
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
	nq_plan_push_args(L, plan);
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
	const struct nq_plan *plan = lane->context;
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
	const struct nq_plan *plan = lane->context;
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
	const struct nq_plan *plan = context;

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

static int open_sockets(const struct nq_plan *plan, struct resources *resources,
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
static int acquire(struct nq_plan *plan, bool manager, struct resources *resources,
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
	const struct nq_plan *plan = context;

	return lua_gethook(plan->host) && nq_lua_interrupted(&plan->host_lane);
}

/* The threads of a plan, between the making and the end of what they share. */
static int run_threads(struct nq_plan *plan, struct nq_worker_job *job, struct nq_failure *failure)
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
	struct nq_plan *plan = nq_plan_read(L);
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
	const struct nq_plan *plan = context;
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
	struct nq_plan *plan = nq_plan_read(L);
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
