/*
 * rewrite.h - nfqueue.rewrite: connections whose segments change their length, kept in step.
 */
#ifndef NQ_LUA_REWRITE_H
#define NQ_LUA_REWRITE_H

#include <lua.h>

/* Called once a state: makes the metatable. */
void nq_rewrite_register(lua_State *L);

/* rewrite{ max=, timeout= }: see the doc block. */
int nq_rewrite_make(lua_State *L);

#endif
