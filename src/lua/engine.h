/*
 * engine.h - the loop behind queue objects that are started or opened in this state: made, joined,
 * ended.
 *
 * Queues of nfqueue.run have none: their threads' loops are run.c's.
 */
#ifndef NQ_LUA_ENGINE_H
#define NQ_LUA_ENGINE_H

#include <lua.h>
#include <stdbool.h>

#include "lua/queue.h"

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

/*
 * Makes a loop of the queues at stack indices 1 to count, calls their open hooks and binds them.
 * NULL: the values to return to Lua are on the stack, *results of them. Raises for anything but
 * idle queues, and what an open hook raises.
 */
struct nq_engine *nq_engine_begin(lua_State *L, unsigned count, const char *function, int *results);

/*
 * Leaves the kernel, calls the close hooks, frees. Called from whichever coroutine is running,
 * which is where the last handlers run; the one that opened the queue may be gone. Returns whether
 * Ctrl-C was among them.
 */
bool nq_engine_end(lua_State *L, struct nq_engine *engine);

/* Frees without leaving; the kernel drops what it still holds. Does not raise. */
void nq_engine_free(struct nq_engine *engine);

/* Begins with all queues on the stack, loops until stopped, ends: the results of `start`. */
int nq_engine_start(lua_State *L, const char *function);

/* Adds every counter of *more to *sum. */
void nq_counters_add(struct nq_counters *sum, const struct nq_counters *more);

#endif
