#include "lua/plan.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "host/control.h"
#include "lua/args.h"
#include "lua/tables.h"

static void free_plan(struct nq_plan *plan)
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
	struct nq_plan *plan = lua_touserdata(L, 1);

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

static void read_args(lua_State *L, struct nq_plan *plan)
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

static void read_queues(lua_State *L, struct nq_plan *plan)
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

struct nq_plan *nq_plan_read(lua_State *L)
{
	struct nq_plan *plan = lua_newuserdatauv(L, sizeof(*plan), 0);

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

void nq_plan_push_args(lua_State *L, const struct nq_plan *plan)
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
