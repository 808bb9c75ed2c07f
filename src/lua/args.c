#include "lua/args.h"

#include <lauxlib.h>
#include <stdio.h>

int nq_arg_error(lua_State *L, int index, const char *function, const char *name,
		 const char *expected)
{
	index = lua_absindex(L, index);
	switch (lua_type(L, index)) {
	case LUA_TNUMBER:
	case LUA_TBOOLEAN:
		luaL_tolstring(L, index, NULL);
		break;
	case LUA_TSTRING: {
		size_t length;
		const char *text = lua_tolstring(L, index, &length);

		if (length <= 40)
			lua_pushfstring(L, "'%s'", text);
		else
			lua_pushfstring(L, "a string of %d bytes", (int)length);
		break;
	}
	case LUA_TNONE:
	case LUA_TNIL:
		lua_pushstring(L, "nothing");
		break;
	default:
		lua_pushstring(L, luaL_typename(L, index));
	}
	return luaL_error(L, "bad argument '%s' to '%s' (%s expected, got %s)", name, function,
			  expected, lua_tostring(L, -1));
}

lua_Integer nq_arg_integer(lua_State *L, int index, const char *function, const char *name,
			   lua_Integer least, lua_Integer most)
{
	int is_integer = 0;
	lua_Integer value = 0;

	index = lua_absindex(L, index);
	/* No strings that look like numbers: "10" for 10 hides a mistake. */
	if (lua_type(L, index) == LUA_TNUMBER)
		value = lua_tointegerx(L, index, &is_integer);
	if (!is_integer || value < least || value > most) {
		/* Not on the stack: it would fill the slot of an argument that is not there. */
		char expected[64];

		snprintf(expected, sizeof(expected), "integer from %lld to %lld", (long long)least,
			 (long long)most);
		nq_arg_error(L, index, function, name, expected);
	}
	return value;
}

int64_t nq_arg_seconds(lua_State *L, int index, const char *function, const char *name,
		       bool positive)
{
	lua_Number seconds = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;

	/* Not a number fails every comparison. */
	if (!(seconds >= 0 && seconds <= 1e9) || (positive && seconds == 0))
		nq_arg_error(L, index, function, name,
			     positive ? "seconds, more than 0 and at most 1e9,"
				      : "seconds from 0 to 1e9");
	return positive && seconds < 1e-9 ? 1 : (int64_t)(seconds * 1e9 + 0.5);
}

const char *nq_arg_string(lua_State *L, int index, const char *function, const char *name,
			  size_t *length)
{
	if (lua_type(L, index) != LUA_TSTRING)
		nq_arg_error(L, index, function, name, "string");
	return lua_tolstring(L, index, length);
}

bool nq_arg_boolean(lua_State *L, int index, const char *function, const char *name)
{
	if (lua_type(L, index) != LUA_TBOOLEAN)
		nq_arg_error(L, index, function, name, "boolean");
	return lua_toboolean(L, index);
}

void nq_arg_table(lua_State *L, int index, const char *function, const char *name)
{
	if (lua_type(L, index) != LUA_TTABLE)
		nq_arg_error(L, index, function, name, "table");
}

int nq_push_failure(lua_State *L, int error, const char *message)
{
	lua_pushnil(L);
	lua_pushstring(L, message);
	lua_pushinteger(L, error);
	return 3;
}
