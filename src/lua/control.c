#include "lua/control.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "host/control.h"
#include "lua/args.h"

static int text_gc(lua_State *L)
{
	char **text = lua_touserdata(L, 1);

	free(*text);
	*text = NULL;
	return 0;
}

int nq_ask(lua_State *L)
{
	const char *name = luaL_optstring(L, 1, NQ_CONTROL_NAME);
	const char *request = nq_arg_string(L, 2, "ask", "request", NULL);
	int seconds = (int)nq_arg_integer(L, 3, "ask", "seconds", 0, 86400);
	struct nq_failure failure = {0};
	char **text = lua_newuserdatauv(L, sizeof(*text), 0);
	int status;

	if (!nq_control_is_name(name))
		return luaL_error(L, "bad argument 'name' to 'ask' (%s is no name)", name);
	*text = NULL;
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, text_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	status = nq_control_ask(name, request, seconds, text, &failure);
	if (status < 0) {
		(void)nq_push_failure(L, failure.error, failure.message);
		lua_pushinteger(L, failure.status);
		return 4;
	}
	lua_pushinteger(L, status);
	lua_pushstring(L, *text);
	return 2;
}

int nq_is_name(lua_State *L)
{
	lua_pushboolean(L, nq_control_is_name(nq_arg_string(L, 1, "is_name", "name", NULL)));
	return 1;
}
