/*
 * lane.h - one Lua state judging for one loop: the only place where handlers are entered.
 *
 * A batch is judged inside one protected call; an error unwinds to it, the packet at hand gets its
 * policy, and the rest of the batch goes on in the next call.
 */
#ifndef NQ_LUA_LANE_H
#define NQ_LUA_LANE_H

#include <lua.h>
#include <stdbool.h>

#include "host/log.h"
#include "host/loop.h"
#include "lua/allocator.h"
#include "lua/packet.h"
#include "lua/script.h"
#include "lua/timer.h"
#include "lua/watch.h"
#include "table/registry.h"

struct nq_loaded;
struct nq_lua_flows;
struct nq_filter_object;

/* What belongs to one Lua state, found through the registry. */
struct nq_state {
	struct nq_lua_time real;      /* timers of its loops */
	struct nq_lua_time *time;     /* the present one: a loaded handler's while it is entered */
	int64_t tables_reached;	      /* the latest that loaded handlers have made it for tables */
	struct nq_loaded *loaded;     /* that handler; NULL: none */
	struct nq_loop *active;	      /* whose start, run or process is on; for nfqueue.stop */
	struct nq_cell *unused;	      /* cells of lanes that have ended */
	struct nq_log_limit limit;    /* of lines written by scripts */
	struct nq_registry *registry; /* tables that all threads find; NULL: none are shared */
	struct nq_lua_flows *flows;   /* all of nfqueue.flows; see flows.h */
	struct nq_filter_object *filters; /* of configurations: see filter.h */
	uint32_t generation;		  /* of the script: see nq_registry_get */
	unsigned rewrites;	   /* how many nfqueue.rewrite has made: they are found by number */
	const struct nq_raw *raw;  /* sockets for packets that are sent; NULL: not opened yet */
	struct nq_raw own_raw;	   /* `raw`, unless those of nfqueue.run are used */
	bool confined;		   /* its process may open no socket: see host/confine.h */
	uint32_t loop_mark;	   /* of packets sent outside a queue's work: the last queue's */
	struct nq_watch *watch;	   /* of its calls; never NULL */
	struct nq_watch own_watch; /* `watch`, unless it is a thread's of nfqueue.run */
};

/* Called once a state. */
void nq_state_register(lua_State *L);
struct nq_state *nq_state_get(lua_State *L);

/* Calls into a script that failed: counted and logged, the first in full. */
struct nq_lua_failures {
	uint64_t count;
	uint64_t reported; /* of those, when last logged */
	struct nq_log_limit limit;
};

struct nq_lua_lane {
	lua_State *L; /* NULL: no script any more, every packet gets on_error */
	struct nq_state *state;
	struct nq_loop *loop;  /* that called last */
	struct nq_cell *cell;  /* of the packet at hand */
	struct nq_cell *ended; /* of held packets that were settled in the present call */
	bool judging;	       /* inside a handler */
	bool interruptible; /* in the host's own state: the stock interpreter's Ctrl-C may come */
	bool interrupted;   /* it reached a handler */
	struct nq_lua_failures handlers, timers;
	struct nq_allocator allocator;
};

/* nq_loop_queue.owner: how the lane finds a queue's handler and the object passed to it. */
struct nq_lua_owner {
	int handler;	    /* registry reference */
	const void *object; /* key of the queue's userdata in the table of nq_queue_push_object */
};

/*
 * The stock interpreter's SIGINT handler gives the signal back to the default action and sets a
 * hook that raises "interrupted!". nq_lua_can_interrupt: whether a handler of SIGINT is installed;
 * nq_lua_interrupted: whether it has been given back since, which no script's error text can
 * pretend.
 */
bool nq_lua_can_interrupt(void);
bool nq_lua_interrupted(const struct nq_lua_lane *lane);

/* Of loops whose context is a struct nq_lua_lane. */
extern const struct nq_loop_calls nq_lua_calls;

/* Gives the lane a cell. May raise. */
void nq_lane_init(lua_State *L, struct nq_lua_lane *lane);
void nq_lane_fini(struct nq_lua_lane *lane);

#endif
