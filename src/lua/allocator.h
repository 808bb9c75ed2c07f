/*
 * allocator.h - the memory of a Lua state, bounded: beyond its limit Lua gets none, collects, and
 * raises "not enough memory" when that did not help.
 *
 * A state that a thread made for itself is counted from its first byte to its last. The host's
 * state is its own: only while it is inside a handler every byte is asked for here, and what was in
 * use before counts. Copies of held and delayed packets are in the same account (host/budget.h).
 */
#ifndef NQ_LUA_ALLOCATOR_H
#define NQ_LUA_ALLOCATOR_H

#include <lua.h>
#include <stddef.h>

#include "host/budget.h"

enum { NQ_ALLOCATOR_REASON = 80 }; /* room for nq_allocator_reason */

/* Zeroed at start: without a limit, which does nothing. Stays where it is while it is entered. */
struct nq_allocator {
	struct nq_budget budget; /* first */
	lua_Alloc inner;	 /* the host's, while it is entered; NULL: the state is our own */
	void *inner_context;
	unsigned depth;	       /* entered as often */
	int64_t base;	       /* bytes that were in use and do not count */
	int64_t collect_below; /* so few bytes left: time to collect */
};

/* A state of one's own, without a limit yet; NULL: not enough memory. */
lua_State *nq_allocator_state(struct nq_allocator *allocator);

/* From here on: bytes, on top of allocator->base. */
void nq_allocator_limit(struct nq_allocator *allocator, int64_t limit);

/* Bytes that the state uses, without copies of packets. */
int64_t nq_allocator_used(lua_State *L);

/*
 * Around what runs in the host's state, where nothing in between may unwind; in a state of one's
 * own enter begins a call that nq_allocator_reason is about.
 */
void nq_allocator_enter(lua_State *L, struct nq_allocator *allocator);
void nq_allocator_leave(lua_State *L, struct nq_allocator *allocator);

/* Between two calls: collects when little is left, as buffers of strings are not granted by
 * collecting first. */
void nq_allocator_collect(lua_State *L, struct nq_allocator *allocator);

/* The host closes its state from inside a handler: nothing is asked for here any more. */
void nq_allocator_strip(lua_State *L);

/* What goes before the message of a failed call: "memory_limit (N bytes) is reached: " where that
 * was why, or "". */
const char *nq_allocator_reason(const struct nq_allocator *allocator, const char *message,
				char reason[NQ_ALLOCATOR_REASON]);

#endif
