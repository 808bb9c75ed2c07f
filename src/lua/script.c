#include "lua/script.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

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

/*
 * As luaL_loadfile does it: a byte order mark, and a first line for the shell, are no Lua. Text
 * only: crafted bytecode can crash the interpreter.
 */
static int compile_text(lua_State *L, const struct nq_text *text, const char *name)
{
	const char *bytes = text->length ? text->bytes : "";
	size_t length = text->length;

	if (length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
		bytes += 3;
		length -= 3;
	}
	if (length > 0 && *bytes == '#') {
		const char *end = memchr(bytes, '\n', length);

		/* The end of the line stays, for the numbers of those below. */
		length = end ? length - (size_t)(end - bytes) : 0;
		bytes = end ? end : "";
	}
	return luaL_loadbufferx(L, bytes, length, name, "t");
}

/* Under pcall: 1 the path, 2 the text (light), 3 the arguments or nil. Returns the chunk, and a
 * table. */
static int compile(lua_State *L)
{
	const char *name = lua_pushfstring(L, "@%s", (const char *)lua_touserdata(L, 1));

	if (compile_text(L, lua_touserdata(L, 2), name) != LUA_OK)
		return lua_error(L);
	if (lua_isnil(L, 3))
		lua_newtable(L);
	else
		lua_pushvalue(L, 3);
	return 2;
}

int nq_script_load(lua_State *L, const char *path, const struct nq_text *text, int arguments,
		   struct nq_script *script, struct nq_failure *failure)
{
	int top = lua_gettop(L);
	struct nq_text read = {0};
	int status;

	if (arguments)
		arguments = lua_absindex(L, arguments);
	if (!text && nq_text_read(path, false, &read, failure) != 0)
		return -failure->error;
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, compile);
	lua_pushlightuserdata(L, (void *)path);
	lua_pushlightuserdata(L, text ? (void *)text : &read);
	if (arguments)
		lua_pushvalue(L, arguments);
	else
		lua_pushnil(L);
	status = nq_watch_call(L, 3, 2, 0, NQ_CALL_LOAD);
	nq_text_free(&read);
	if (status != LUA_OK) {
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
