#include "lua/class.h"

#include <string.h>

/* Upvalue 1: what it is of. */
static int no_field(lua_State *L)
{
	return luaL_error(L, "%s has no field '%s'", lua_tostring(L, lua_upvalueindex(1)),
			  luaL_tolstring(L, 2, NULL));
}

static int no_assignment(lua_State *L)
{
	return luaL_error(L, "%s has no field '%s' to assign to",
			  lua_tostring(L, lua_upvalueindex(1)), luaL_tolstring(L, 2, NULL));
}

void nq_class_make(lua_State *L, const void *key, const char *name, const char *what,
		   const luaL_Reg *methods, const luaL_Reg *metamethods)
{
	lua_newtable(L);
	lua_pushvalue(L, -1);
	luaL_setfuncs(L, metamethods, 1);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	/* A script must not get at the metatable: its functions trust it. */
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__metatable");
	lua_pushstring(L, what);
	lua_pushcclosure(L, no_assignment, 1);
	lua_setfield(L, -2, "__newindex");
	lua_newtable(L);
	lua_pushvalue(L, -2);
	luaL_setfuncs(L, methods, 1);
	/* -1 methods, -2 metatable; what the methods do not have, their own metatable refuses */
	lua_createtable(L, 0, 1);
	lua_pushstring(L, what);
	lua_pushcclosure(L, no_field, 1);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
	lua_setfield(L, -2, "__index");
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void *nq_class_push(lua_State *L, const void *key, size_t size, int values)
{
	void *object = lua_newuserdatauv(L, size, values);

	memset(object, 0, size);
	lua_rawgetp(L, LUA_REGISTRYINDEX, key);
	lua_setmetatable(L, -2);
	return object;
}

void *nq_class_check(lua_State *L, const char *method, const char *what)
{
	void *object = lua_touserdata(L, 1);

	if (!object || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
		luaL_error(L, "bad argument 'self' to '%s' (%s expected, got %s)", method, what,
			   luaL_typename(L, 1));
		return NULL; /* not reached */
	}
	lua_pop(L, 1);
	return object;
}
