#include "lua/script.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua/args.h"
#include "lua/lane.h"
#include "lua/sandbox.h"
#include "lua/watch.h"

static void check_function(lua_State *L, int table, const char *function, const char *name,
			   bool required)
{
	int type = lua_getfield(L, table, name);

	if (type != LUA_TFUNCTION && (required || type != LUA_TNIL))
		nq_arg_error(L, -1, function, name, "function");
	lua_pop(L, 1);
}

static int take_function(lua_State *L, int table, const char *name)
{
	if (lua_getfield(L, table, name) == LUA_TFUNCTION)
		return luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pop(L, 1);
	return LUA_NOREF;
}

static void refuse_unknown(lua_State *L, int table, const char *function)
{
	static const char *const known[] = {"packet", "open", "close", "config"};

	lua_pushnil(L);
	while (lua_next(L, table)) {
		size_t i = 0;

		while (i < 4 && (lua_type(L, -2) != LUA_TSTRING ||
				 strcmp(known[i], lua_tostring(L, -2)) != 0))
			i++;
		if (i == 4)
			luaL_error(L,
				   "unknown key '%s' in the handler of '%s' (known: packet, open, "
				   "close, config)",
				   luaL_tolstring(L, -2, NULL), function);
		lua_pop(L, 1);
	}
}

void nq_script_take(lua_State *L, int index, const char *function, struct nq_script *script)
{
	index = lua_absindex(L, index);
	*script = (struct nq_script){.packet = LUA_NOREF, .open = LUA_NOREF, .close = LUA_NOREF};
	if (lua_type(L, index) == LUA_TFUNCTION) {
		lua_pushvalue(L, index);
		script->packet = luaL_ref(L, LUA_REGISTRYINDEX);
		return;
	}
	if (lua_type(L, index) != LUA_TTABLE)
		nq_arg_error(L, index, function, "handler",
			     "function, or table with a function 'packet',");
	refuse_unknown(L, index, function);
	/* Everything is checked before a reference is taken. */
	check_function(L, index, function, "packet", true);
	check_function(L, index, function, "open", false);
	check_function(L, index, function, "close", false);
	lua_getfield(L, index, "config");
	nq_config_read(L, -1, function, &script->config);
	nq_sandbox_check(L, &script->config, function);
	script->packet = take_function(L, index, "packet");
	script->open = take_function(L, index, "open");
	script->close = take_function(L, index, "close");
	lua_settop(L, index);
}

void nq_script_release(lua_State *L, struct nq_script *script)
{
	luaL_unref(L, LUA_REGISTRYINDEX, script->packet);
	luaL_unref(L, LUA_REGISTRYINDEX, script->open);
	luaL_unref(L, LUA_REGISTRYINDEX, script->close);
	script->packet = script->open = script->close = LUA_NOREF;
}

int nq_script_traceback(lua_State *L)
{
	const char *message = lua_tostring(L, 1);

	if (!message) {
		if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
			message = lua_tostring(L, -1);
		else
			message = lua_pushfstring(L, "(error object is a %s value)",
						  luaL_typename(L, 1));
	}
	luaL_traceback(L, L, message, 1);
	return 1;
}

int nq_script_call_hook(lua_State *L, int hook, enum nq_call kind)
{
	int status;

	if (hook == LUA_NOREF) {
		lua_pop(L, 1);
		return 0;
	}
	lua_pushcfunction(L, nq_script_traceback);
	lua_insert(L, -2);
	lua_rawgeti(L, LUA_REGISTRYINDEX, hook);
	lua_insert(L, -2);
	/* -3 traceback, -2 hook, -1 argument */
	status = nq_watch_call(L, 1, 0, -3, kind);
	lua_remove(L, status ? -2 : -1);
	return status;
}

/* Under pcall: 1 the result of the chunk, 2 the script (light). */
static int take_result(lua_State *L)
{
	struct nq_script *script = lua_touserdata(L, 2);

	lua_settop(L, 1);
	if (lua_type(L, 1) != LUA_TFUNCTION && lua_type(L, 1) != LUA_TTABLE)
		return luaL_error(L,
				  "the script returns no handler: it must return a function, or a "
				  "table with a "
				  "function 'packet' (got %s)",
				  lua_isnil(L, 1) ? "nothing" : luaL_typename(L, 1));
	nq_script_take(L, 1, "script", script);
	return 0;
}

/* Whether the failure at hand lies in the table's config: it has an exit status of its own. */
static int check_config(lua_State *L)
{
	struct nq_config_layer layer;

	if (lua_type(L, 1) != LUA_TTABLE)
		return 0;
	lua_getfield(L, 1, "config");
	nq_config_read(L, -1, "script", &layer);
	nq_sandbox_check(L, &layer, "script");
	return 0;
}

static int check_file(const char *path, struct nq_failure *failure)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = errno;

	if (fd < 0)
		return nq_fail(failure, 66, error, "cannot read script %s: %s", path,
			       strerror(error));
	error = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) ? EISDIR : 0;
	close(fd);
	if (error)
		return nq_fail(failure, 66, error, "cannot read script %s: %s", path,
			       strerror(error));
	return 0;
}

/* Under pcall: 1 the path (light), 2 the arguments or nil. Returns the chunk, and a table. */
static int compile(lua_State *L)
{
	/* Text only: crafted bytecode can crash the interpreter. */
	if (luaL_loadfilex(L, lua_touserdata(L, 1), "t") != LUA_OK)
		return lua_error(L);
	if (lua_isnil(L, 2))
		lua_newtable(L);
	else
		lua_pushvalue(L, 2);
	return 2;
}

int nq_script_load(lua_State *L, const char *path, int arguments, struct nq_script *script,
		   struct nq_failure *failure)
{
	int top = lua_gettop(L);
	int error = check_file(path, failure);

	if (error)
		return error;
	if (arguments)
		arguments = lua_absindex(L, arguments);
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, compile);
	lua_pushlightuserdata(L, (void *)path);
	if (arguments)
		lua_pushvalue(L, arguments);
	else
		lua_pushnil(L);
	if (nq_watch_call(L, 2, 2, 0, NQ_CALL_LOAD) != LUA_OK) {
		nq_fail(failure, 65, EINVAL, "script %s does not compile: %s", path,
			lua_tostring(L, -1));
		goto out;
	}
	if (nq_watch_call(L, 1, 1, top + 1, NQ_CALL_LOAD) != LUA_OK) {
		nq_fail(failure, 65, EINVAL, "script %s failed while loading: %s", path,
			lua_tostring(L, -1));
		goto out;
	}
	/* top + 2 the chunk's result */
	lua_pushcfunction(L, check_config);
	lua_pushvalue(L, top + 2);
	if (nq_watch_call(L, 1, 0, 0, NQ_CALL_LOAD) != LUA_OK) {
		nq_fail(failure, nq_state_get(L)->watch->overran ? 65 : 78, EINVAL, "%s: %s", path,
			lua_tostring(L, -1));
		goto out;
	}
	lua_pushcfunction(L, take_result);
	lua_pushvalue(L, top + 2);
	lua_pushlightuserdata(L, script);
	if (nq_watch_call(L, 2, 0, 0, NQ_CALL_LOAD) != LUA_OK) {
		nq_fail(failure, 65, EINVAL, "%s: %s", path, lua_tostring(L, -1));
		goto out;
	}
	lua_settop(L, top);
	return 0;
out:
	lua_settop(L, top);
	return -failure->error;
}
