/*
 * plan.h - what a run is to be: read once from the table that the module and the command give.
 */
#ifndef NQ_LUA_PLAN_H
#define NQ_LUA_PLAN_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/config.h"
#include "lua/lane.h"
#include "lua/privilege.h"
#include "netlink/raw.h"
#include "table/registry.h"

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
struct nq_plan {
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

/* Reads the table at 1 into a userdata, left on the stack, that frees it. Raises for what is wrong.
 */
struct nq_plan *nq_plan_read(lua_State *L);

/* Pushes { key = value, repeated = { value, value } }: the script's arguments. */
void nq_plan_push_args(lua_State *L, const struct nq_plan *plan);

#endif
