#include "lua_target.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#include "lua/module.h"

enum { COLLECT_EVERY = 64, TRACEBACK = 1, FUNCTION = 2 };

static int traceback(lua_State *L)
{
	luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
	return 1;
}

/* A state with the file's function at FUNCTION. */
static lua_State *make_state(const char *name)
{
	lua_State *L = luaL_newstate();
	char path[100];

	if (!L)
		abort();
	luaL_openlibs(L);
	luaL_requiref(L, "nfqueue.core", luaopen_nfqueue_core, 0);
	lua_settop(L, 0);
	lua_pushcfunction(L, traceback);
	snprintf(path, sizeof(path), "spec/fuzz/targets/%s.lua", name);
	if (luaL_loadfile(L, path) || lua_pcall(L, 0, 1, TRACEBACK)) {
		fprintf(stderr, "%s\n", lua_tostring(L, -1));
		abort();
	}
	return L;
}

/* Kept between inputs: a target has one. */
static lua_State *find_state(const char *name)
{
	static lua_State *L;
	static unsigned count;

	if (!L)
		L = make_state(name);
	if (++count % COLLECT_EVERY == 0)
		lua_gc(L, LUA_GCCOLLECT);
	return L;
}

int lua_target_run(const char *name, const uint8_t *input, size_t size)
{
	struct target target = target_begin(name, input, size);
	lua_State *L = find_state(name);
	size_t length;
	const char *sent;

	lua_settop(L, FUNCTION);
	lua_pushvalue(L, FUNCTION);
	lua_pushlstring(L, (const char *)target.bytes, target.length);
	lua_pushlstring(L, (const char *)target.run->input, target.run->input_left);
	if (lua_pcall(L, 2, 1, TRACEBACK)) {
		printf("%s\n", lua_tostring(L, -1));
		CHECK(target.run, !"an error in the Lua file");
	} else if ((sent = lua_tolstring(L, -1, &length))) {
		hostile_verify(target.run, (const uint8_t *)sent, length, 0, 0);
	}
	lua_settop(L, FUNCTION);
	target_end(&target);
	return 0;
}
