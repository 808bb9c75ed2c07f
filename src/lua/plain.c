#include "lua/plain.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

/*
 * Goes on in the stock function, upvalue 1, with mode "t" at `index`. A mode that does not allow
 * text stays as it is, but for the bytecode it asks for.
 */
static int go_on(lua_State *L, int index)
{
	const char *mode = luaL_optstring(L, index, "t");

	if (!strchr(mode, 't')) {
		luaL_pushfail(L);
		lua_pushfstring(L, "bytecode is never loaded (mode is '%s')", mode);
		return 2;
	}
	if (lua_gettop(L) < index)
		lua_settop(L, index);
	lua_pushliteral(L, "t");
	lua_replace(L, index);
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/***
load, of text alone.
@function load
*/
static int plain_load(lua_State *L)
{
	return go_on(L, 3);
}

/***
loadfile, of text alone.
@function loadfile
*/
static int plain_loadfile(lua_State *L)
{
	return go_on(L, 2);
}

static int finish_dofile(lua_State *L, int status, lua_KContext context)
{
	(void)status;
	(void)context;
	return lua_gettop(L) - 1;
}

/***
dofile, of text alone.
@function dofile
*/
static int plain_dofile(lua_State *L)
{
	const char *path = luaL_optstring(L, 1, NULL);

	lua_settop(L, 1);
	if (luaL_loadfilex(L, path, "t") != LUA_OK)
		return lua_error(L);
	lua_callk(L, 0, LUA_MULTRET, 0, finish_dofile);
	return finish_dofile(L, LUA_OK, 0);
}

/* In the place of package.searchers[2], the one for Lua files: upvalue 1 is package. */
static int search_text(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	const char *path;

	lua_getfield(L, lua_upvalueindex(1), "searchpath");
	lua_pushvalue(L, 1);
	if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING)
		return luaL_error(L, "'package.path' must be a string");
	lua_call(L, 2, 2);
	if (lua_isnil(L, -2))
		return 1; /* where it is not */
	lua_pop(L, 1);
	path = lua_tostring(L, -1);
	if (luaL_loadfilex(L, path, "t") != LUA_OK)
		return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path,
				  lua_tostring(L, -1));
	lua_insert(L, -2);
	return 2;
}

void nq_plain_enter(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"load", plain_load},
		{"loadfile", plain_loadfile},
		{"dofile", plain_dofile},
		{NULL, NULL},
	};

	lua_pushglobaltable(L);
	for (const luaL_Reg *function = functions; function->name; function++) {
		lua_getfield(L, -1, function->name);
		lua_pushcclosure(L, function->func, 1);
		lua_setfield(L, -2, function->name);
	}
	lua_pop(L, 1);
	lua_getglobal(L, LUA_LOADLIBNAME);
	lua_getfield(L, -1, "searchers");
	lua_pushvalue(L, -2);
	lua_pushcclosure(L, search_text, 1);
	lua_rawseti(L, -2, 2);
	lua_pop(L, 2);
}
