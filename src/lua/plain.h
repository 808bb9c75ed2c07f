/*
 * plain.h - states that load plain text alone: crafted bytecode crashes the interpreter, and a
 * script is read by whoever reviews it.
 */
#ifndef NQ_LUA_PLAIN_H
#define NQ_LUA_PLAIN_H

#include <lua.h>

/*
 * From here on `load`, `loadfile`, `dofile` and `require` refuse bytecode in this state. The
 * libraries are open.
 */
void nq_plain_enter(lua_State *L);

#endif
