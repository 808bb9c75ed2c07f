/*
 * load.h - a handler script in this state, without a kernel: for specs, check and replay.
 */
#ifndef NQ_LUA_LOAD_H
#define NQ_LUA_LOAD_H

#include <lua.h>

void nq_load_register(lua_State *L);

/* load(path, args, config) -> handler, or nil, message, errno */
int nq_load(lua_State *L);

/* wrap(handler, function) -> the same of a function or a table, which is checked and opened.
 * Raises, naming `function`. */
int nq_wrap(lua_State *L);

#endif
