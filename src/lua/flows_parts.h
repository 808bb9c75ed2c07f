/*
 * flows_parts.h - what the files of nfqueue.flows share: flows.c (the userdata) and flow.c (the
 * tables of single flows). Not for others.
 */
#ifndef NQ_LUA_FLOWS_PARTS_H
#define NQ_LUA_FLOWS_PARTS_H

#include "host/log.h"
#include "lua/flows.h"
#include "table/flow.h"

/* User values of the userdata. */
enum {
	AT_TABLES = 1, /* of the flows, by number */
	AT_NUMBERS,    /* by table, weakly */
	AT_FINISH,
	AT_METATABLE, /* of the tables */
	AT_TIMER,     /* that calls expire_some */
	AT_ENDED,     /* tables to be finished, a list */
	AT_COUNT = AT_ENDED,
};

struct nq_lua_flows {
	struct nq_flows flows;
	uint32_t decided; /* flows that have a verdict */
	/* Numbers of flows that went just now, their tables still in their places. */
	uint32_t gone[2];
	unsigned gone_count;
	unsigned ended; /* how many tables are to be finished */
	struct nq_log_limit limit;
	const void *owner; /* the loaded handler that made it; NULL: the state's own script;
			      itself: a handler that is gone */
	struct nq_lua_flows *next, **link; /* among the state's */
};

/*
 * What the userdata at `index` points to; NULL once it is collected. Not in the userdata itself:
 * where there is no memory to call a finalizer, Lua gives up on it, and the list would lead to
 * memory that is gone.
 */
static inline struct nq_lua_flows *nq_flows_at(lua_State *L, int index)
{
	return *(struct nq_lua_flows **)lua_touserdata(L, index);
}

/* Pushes the metatable that the tables of the flows at `self` get. */
void nq_flow_push_metatable(lua_State *L, int self);

#endif
