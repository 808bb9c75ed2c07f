/*
 * class.h - classes of userdata that have methods and no fields. Those with fields of their own
 * (packets, headers, queues, readers) look names up in their own way.
 *
 * All of these may raise.
 */
#ifndef NQ_LUA_CLASS_H
#define NQ_LUA_CLASS_H

#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>

/*
 * Makes a metatable, kept in the registry at `key`: the functions get it as their upvalue 1, and a
 * name that is no method raises "`what` has no field 'x'". Leaves nothing on the stack.
 */
void nq_class_make(lua_State *L, const void *key, const char *name, const char *what,
		   const luaL_Reg *methods, const luaL_Reg *metamethods);

/* Pushes a zeroed userdata of the class, with as many user values. */
void *nq_class_push(lua_State *L, const void *key, size_t size, int values);

/* First line of every function of a class. */
void *nq_class_check(lua_State *L, const char *method, const char *what);

#endif
