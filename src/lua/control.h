/*
 * control.h - running instances, asked through their control sockets: for the command.
 */
#ifndef NQ_LUA_CONTROL_H
#define NQ_LUA_CONTROL_H

#include <lua.h>

/*
 * ask(name, request, seconds) -> status of the answer (sysexits.h; 0: done), its text; or nil,
 * message, errno, status for the command, when there is no answer. Waits for at most so many
 * seconds; 0: as long as it takes.
 */
int nq_ask(lua_State *L);

/* is_name(text) -> whether an instance can have that name */
int nq_is_name(lua_State *L);

#endif
