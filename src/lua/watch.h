/*
 * watch.h - calls into scripts under a time limit: begun and ended here, and interrupted by a hook.
 *
 * The watchdog (host/watchdog.h) finds out that a call overruns, and has a signal handler run in
 * the call's thread; that sets a hook on each coroutine that is running or waits for one it has
 * resumed. The hook raises, at once and again with every instruction, until the call is over; so
 * catching the error does not help. To know the coroutines, the functions of Lua's library that
 * run them are replaced by ones that do the same and note it; as is debug.sethook, which would take
 * the hook away.
 */
#ifndef NQ_LUA_WATCH_H
#define NQ_LUA_WATCH_H

#include <lua.h>
#include <stdbool.h>

#include "host/watchdog.h"

struct nq_state;

/* A coroutine that is running, or waits for the one inside it. On the C stack of who runs it. */
struct nq_running {
	lua_State *L;
	struct nq_running *outer;
};

/* A hook of the script's or its host's, that had to make room. */
struct nq_replaced_hook {
	lua_State *L; /* NULL: there was none */
	lua_Hook hook;
	int mask, count;
};

/* One a Lua state; it outlives the state. */
struct nq_watch {
	struct nq_watched watched; /* first: nq_interrupt's */
	struct nq_running *running;
	struct nq_replaced_hook replaced;
	int64_t limit;	  /* of calls that belong to no one queue, nanoseconds: the last queue's */
	uint64_t raised;  /* serial of the last call in which the hook raised */
	unsigned signals; /* that have set hooks */
	bool overran;	  /* the last call that failed did for it */
	bool alone;	  /* watched by a thread of its own, made when it is first needed */
	struct nq_watchdog *own; /* that thread */
};

/* A call under watch, between begin and end. */
struct nq_watched_call {
	struct nq_running running;
	uint64_t serial;
	bool outermost; /* of calls inside each other */
};

/* The time limit of scripts that have not said theirs. */
#define NQ_TIME_LIMIT INT64_C(1000000000)

/* Chunks and `open`, which may load much and for which no packet waits, have so many times the
 * limit. */
#define NQ_LOAD_LIMITS 10

/* Called once a state, before its scripts: replaces functions of `coroutine` and `debug`. */
void nq_watch_register(lua_State *L);

/*
 * Prepares it, zeroed; with NULL nobody watches it, or, with `alone` set then, a thread of its own
 * from the first call on. And its
 * end, when its state is closed.
 */
void nq_watch_init(struct nq_watch *watch, struct nq_watchdog *watchdog, unsigned lane);
void nq_watch_fini(struct nq_watch *watch);

/*
 * Around a protected call from L. It has the limit of the loaded handler that is entered, or else
 * watch->limit. `status` is what the call returned: sets watch->overran.
 */
void nq_watch_begin(lua_State *L, struct nq_watch *watch, struct nq_watched_call *call,
		    enum nq_call kind);
void nq_watch_end(struct nq_watch *watch, struct nq_watched_call *call, int status);

/* lua_pcall between the two. */
int nq_watch_call(lua_State *L, int arguments, int results, int handler, enum nq_call kind);

#endif
