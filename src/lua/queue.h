/*
 * queue.h - the userdata of a queue: configured, started, or opened inside somebody else's event
 * loop.
 */
#ifndef NQ_LUA_QUEUE_H
#define NQ_LUA_QUEUE_H

#include <lua.h>

#include "host/loop.h"
#include "host/memory.h"
#include "lua/config.h"
#include "lua/lane.h"
#include "lua/script.h"

/* The loop of one or more queues of this state, made by start and open. */
struct nq_engine;

struct nq_queue {
	uint16_t number;
	bool threaded;	   /* made by nfqueue.run: started and stopped there */
	bool released;	   /* references are gone */
	unsigned position; /* in the loop's queues, while there is a loop */
	struct nq_script script;
	struct nq_settings settings;
	struct nq_lua_owner owner;
	struct nq_loop *loop;	  /* while open or running */
	struct nq_engine *engine; /* of open and start; NULL for threaded queues */
	const struct nq_memory *memory;
	struct nq_counters past; /* of earlier loops */
	uint64_t past_enobufs;
};

void nq_queue_register(lua_State *L);

/* Pushes a new queue that takes over the references in *script. May raise. */
struct nq_queue *nq_queue_push(lua_State *L, uint16_t number, const struct nq_script *script,
			       const struct nq_settings *settings);

/* The queue at `index`; raises, naming `method`, for anything else. */
struct nq_queue *nq_queue_check(lua_State *L, int index, const char *method);

/* Pushes the userdata that nq_queue_push made, by its address; nil when it was collected. */
void nq_queue_push_object(lua_State *L, const void *queue);

/* new(number, handler, config), start(queue, ...), stop() */
int nq_queue_new(lua_State *L);
int nq_queue_start(lua_State *L);
int nq_queue_stop_all(lua_State *L);

#endif
