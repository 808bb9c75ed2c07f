/*
 * run.h - a thread and a Lua state a lane: nfqueue.run in the host's process, and the supervised
 * command.
 */
#ifndef NQ_LUA_RUN_H
#define NQ_LUA_RUN_H

#include <lua.h>

/* run(plan) -> true or nil, message, errno; supervise(plan) -> exit status. See plan.h for the
 * plan.
 */
int nq_run(lua_State *L);
int nq_run_supervised(lua_State *L);

#endif
