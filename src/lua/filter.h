/*
 * filter.h - tcpdump expressions as Lua objects, and those of configurations.
 */
#ifndef NQ_LUA_FILTER_H
#define NQ_LUA_FILTER_H

#include <lua.h>

#include "packet/filter.h"

struct nq_state;

/* Called once a state. */
void nq_filter_register(lua_State *L);

/* filter(expression): see the doc block. */
int nq_filter_make(lua_State *L);

/*
 * The filter of the expression at `index`, kept for the life of the state: configurations have few.
 * Raises, naming `function` and the argument `name`, for what is no expression.
 */
const struct nq_filter *nq_filter_keep(lua_State *L, int index, const char *function,
				       const char *name);

/* At the very end of the state. */
void nq_filter_free_kept(struct nq_state *state);

#endif
