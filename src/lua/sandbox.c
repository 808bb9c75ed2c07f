#include "lua/sandbox.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lua/args.h"
#include "lua/sandbox_parts.h"

/* In the registry: the script's folder, without links; only a sandbox has it. */
static const char folder_key;

enum { SOURCE_MAX = 16 << 20, PIECES_MAX = 1 << 20, DATE_MAX = 256 };

void nq_sandbox_wrap(lua_State *L, const luaL_Reg *functions)
{
	for (; functions->name; functions++) {
		lua_getfield(L, -1, functions->name);
		lua_pushcclosure(L, functions->func, 1);
		lua_setfield(L, -2, functions->name);
	}
}

bool nq_sandbox_is(lua_State *L)
{
	bool is = lua_rawgetp(L, LUA_REGISTRYINDEX, &folder_key) == LUA_TSTRING;

	lua_pop(L, 1);
	return is;
}

void nq_sandbox_check(lua_State *L, const struct nq_config_layer *layer, const char *function)
{
	if (!(layer->set & 1u << NQ_KEY_SANDBOX) || !layer->values[NQ_KEY_SANDBOX] ||
	    nq_sandbox_is(L))
		return;
	luaL_error(L,
		   "bad argument 'sandbox' to '%s' (this state is none and cannot become one: it "
		   "is asked for by --sandbox on the command line or in the config of nfqueue.run)",
		   function);
}

void nq_sandbox_check_file(lua_State *L, const char *path, const char *function)
{
	char resolved[PATH_MAX];
	const char *folder;
	size_t length;

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &folder_key) == LUA_TSTRING) {
		folder = lua_tolstring(L, -1, &length);
		/* One that is not there is as forbidden as others: nothing is told of it. */
		if (!realpath(path, resolved) || strncmp(resolved, folder, length) != 0 ||
		    resolved[length] != '/')
			luaL_error(L,
				   "bad argument 'path' to '%s' (in the sandbox: a file in the "
				   "script's folder expected, got '%s')",
				   function, path);
	}
	lua_pop(L, 1);
}

/***
load of a sandbox: text alone, whatever the mode. A function that gives pieces is asked for all of
them first.
@function load
@raise `chunk too large` beyond 16 MiB, `reader function must return a string`
*/
static int sandbox_load(lua_State *L)
{
	int env = lua_isnone(L, 4) ? 0 : 4;
	const char *name, *source;
	size_t length;

	if (lua_type(L, 1) == LUA_TSTRING) {
		name = luaL_optstring(L, 2, lua_tostring(L, 1));
	} else {
		luaL_Buffer buffer;

		name = luaL_optstring(L, 2, "=(load)");
		luaL_checktype(L, 1, LUA_TFUNCTION);
		luaL_buffinit(L, &buffer);
		for (int i = 0;; i++) {
			lua_pushvalue(L, 1);
			lua_call(L, 0, 1);
			if (lua_isnil(L, -1) ||
			    (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) == 0))
				break;
			if (lua_type(L, -1) != LUA_TSTRING)
				return luaL_error(L, "reader function must return a string");
			luaL_addvalue(&buffer);
			if (i == PIECES_MAX || luaL_bufflen(&buffer) > SOURCE_MAX)
				return luaL_error(L,
						  "chunk too large (in the sandbox: at most %d "
						  "bytes)",
						  (int)SOURCE_MAX);
		}
		lua_pop(L, 1);
		luaL_pushresult(&buffer);
		lua_replace(L, 1);
	}
	source = lua_tolstring(L, 1, &length);
	if (length > SOURCE_MAX)
		return luaL_error(L, "chunk too large (in the sandbox: at most %d bytes)",
				  (int)SOURCE_MAX);
	if (luaL_loadbufferx(L, source, length, name, "t") != LUA_OK) {
		luaL_pushfail(L);
		lua_insert(L, -2);
		return 2;
	}
	if (env) {
		lua_pushvalue(L, env);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

/***
setmetatable of a sandbox: what __gc names would be called at any point of any other function.
@function setmetatable
@raise `__gc is not available in the sandbox`
*/
static int sandbox_setmetatable(lua_State *L)
{
	if (lua_type(L, 2) == LUA_TTABLE) {
		lua_pushliteral(L, "__gc");
		if (lua_rawget(L, 2) != LUA_TNIL)
			return luaL_error(L, "bad argument #2 to 'setmetatable' (__gc is not "
					     "available in the sandbox)");
		lua_pop(L, 1);
	}
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Stack: 1 the handler, then the results, or the error. */
static int finish_xpcall(lua_State *L, int status, lua_KContext context)
{
	(void)context;
	if (status == LUA_OK || status == LUA_YIELD) {
		lua_pushboolean(L, 1);
		lua_replace(L, 1);
		return lua_gettop(L);
	}
	lua_pushboolean(L, 0);
	lua_insert(L, 1);
	(void)lua_pcall(L, 1, 1, 0); /* what it fails with is the result, too */
	return 2;
}

/***
xpcall of a sandbox: the handler is called when the error has gone up, not on the way, where nothing
interrupts it.
@function xpcall
*/
static int sandbox_xpcall(lua_State *L)
{
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_pushvalue(L, 2);
	lua_insert(L, 1);
	lua_remove(L, 3);
	return finish_xpcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, finish_xpcall),
			     0);
}

/***
collectgarbage of a sandbox: how much there is, and a step; not how it is collected.
@function collectgarbage
@tparam string what "count" or "step"
@raise for anything else
*/
static int sandbox_collectgarbage(lua_State *L)
{
	const char *what = luaL_optstring(L, 1, "collect");

	if (strcmp(what, "count") != 0 && strcmp(what, "step") != 0)
		return luaL_error(L,
				  "bad argument #1 to 'collectgarbage' (in the sandbox: \"count\" "
				  "or \"step\" expected, got '%s')",
				  what);
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/***
os.date of a sandbox, of a format of at most 256 bytes.
@function os.date
@raise for a longer one
*/
static int sandbox_date(lua_State *L)
{
	size_t length;

	luaL_optlstring(L, 1, "%c", &length);
	if (length > DATE_MAX)
		return luaL_error(L, "bad argument #1 to 'date' (in the sandbox: at most %d bytes)",
				  (int)DATE_MAX);
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Upvalue 1: its name. */
static int refuse(lua_State *L)
{
	return luaL_error(L, "%s is not available in the sandbox",
			  lua_tostring(L, lua_upvalueindex(1)));
}

static bool is_name(const char *name, size_t length)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789_-.";

	return length > 0 && strspn(name, allowed) == length;
}

/*
 * Pushes the path of the module's file, by templates as package.path has them, or nil. Something
 * that is no regular file would block whoever opens it.
 */
static void find_module(lua_State *L, const char *name, const char *templates)
{
	const char *file = luaL_gsub(L, name, ".", "/");

	while (*templates) {
		size_t length = strcspn(templates, ";");
		struct stat status;
		const char *path;

		lua_pushlstring(L, templates, length);
		path = luaL_gsub(L, lua_tostring(L, -1), "?", file);
		if (length && stat(path, &status) == 0 && S_ISREG(status.st_mode)) {
			lua_replace(L, -3); /* in the place of `file` */
			lua_pop(L, 1);
			return;
		}
		lua_pop(L, 2);
		templates += length + (templates[length] == ';');
	}
	lua_pop(L, 1);
	lua_pushnil(L);
}

/***
require of a sandbox: Lua text from the script's folder and the package path. Upvalue 1 is what is
loaded, by name, 2 the templates of paths.
@raise `module 'x' not found`
*/
static int sandbox_require(lua_State *L)
{
	size_t length;
	const char *name = luaL_checklstring(L, 1, &length);

	lua_settop(L, 1);
	if (lua_getfield(L, lua_upvalueindex(1), name) != LUA_TNIL)
		return 1;
	if (!is_name(name, length))
		return luaL_error(L, "bad argument #1 to 'require' (in the sandbox: a name of "
				     "letters, digits, '_', '-' and '.' expected)");
	find_module(L, name, lua_tostring(L, lua_upvalueindex(2)));
	if (lua_isnil(L, -1))
		return luaL_error(L,
				  "module '%s' not found: in the sandbox only Lua files in the "
				  "script's folder and the package path are",
				  name);
	/* 3 the path */
	if (luaL_loadfilex(L, lua_tostring(L, 3), "t") != LUA_OK)
		return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name,
				  lua_tostring(L, 3), lua_tostring(L, -1));
	lua_pushvalue(L, 1);
	lua_pushvalue(L, 3);
	lua_call(L, 2, 1);
	if (!lua_isnil(L, -1)) {
		lua_pushvalue(L, -1);
		lua_setfield(L, lua_upvalueindex(1), name);
	}
	if (lua_getfield(L, lua_upvalueindex(1), name) == LUA_TNIL) {
		lua_pushboolean(L, 1);
		lua_pushvalue(L, -1);
		lua_setfield(L, lua_upvalueindex(1), name);
	}
	lua_pushvalue(L, 3);
	return 2;
}

/* Replaces in the table at the top what would reach out by functions that say so. */
static void refuse_all(lua_State *L, const char *prefix, const char *const *names)
{
	for (; *names; names++) {
		lua_pushfstring(L, "%s%s", prefix, *names);
		lua_pushcclosure(L, refuse, 1);
		lua_setfield(L, -2, *names);
	}
}

static bool is_allowed(const char *name)
{
	static const char *const names[] = {
		"packet",  "build",	"rewrite", "flows", "filter",	   "shared", "bucket",
		"cidrset", "domainset", "after",   "every", "now",	   "send",   "stop",
		"log",	   "cores",	"counter", "gauge", "config_keys",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Pushes nfqueue.core as scripts get it: what is not known to stay within the state is refused.
 * That of the state itself stays as it is.
 */
static void push_core(lua_State *L)
{
	static const char *const files[] = {"open", "create", NULL};

	lua_newtable(L);
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_getfield(L, -1, "nfqueue.core");
	lua_remove(L, -2);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		/* -4 scripts' core, -3 the state's, -2 name, -1 value */
		const char *name = lua_tostring(L, -2);

		if (lua_isfunction(L, -1) && !is_allowed(name)) {
			lua_pop(L, 1);
			lua_pushfstring(L, "nfqueue.%s", name);
			lua_pushcclosure(L, refuse, 1);
		} else if (lua_istable(L, -1)) {
			lua_pop(L, 1);
			lua_pushnil(L);
		}
		lua_setfield(L, -4, name);
	}
	lua_pop(L, 1);
	lua_newtable(L);
	refuse_all(L, "nfqueue.pcap.", files);
	lua_setfield(L, -2, "pcap");
}

/* Pushes what `require` finds at once. */
static void push_loaded(lua_State *L)
{
	static const char *const libraries[] = {LUA_GNAME,	LUA_COLIBNAME,	LUA_TABLIBNAME,
						LUA_OSLIBNAME,	LUA_STRLIBNAME, LUA_UTF8LIBNAME,
						LUA_MATHLIBNAME};

	lua_newtable(L);
	for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		lua_getglobal(L, libraries[i]);
		lua_setfield(L, -2, libraries[i]);
	}
	push_core(L);
	lua_setfield(L, -2, "nfqueue.core");
}

static void set_require(lua_State *L, const char *folder)
{
	push_loaded(L);
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_getfield(L, -1, LUA_LOADLIBNAME);
	lua_getfield(L, -1, "path");
	lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", folder, folder,
			lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
	lua_replace(L, -4);
	lua_pop(L, 2);
	/* -2 loaded, -1 templates */
	lua_pushcclosure(L, sandbox_require, 2);
	lua_setglobal(L, "require");
}

static void set_os(lua_State *L)
{
	static const char *const kept[] = {"clock", "date", "difftime", "time"};
	static const luaL_Reg bounded[] = {{"date", sandbox_date}, {NULL, NULL}};

	lua_newtable(L);
	lua_getglobal(L, LUA_OSLIBNAME);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		lua_getfield(L, -1, kept[i]);
		lua_setfield(L, -3, kept[i]);
	}
	lua_pop(L, 1);
	nq_sandbox_wrap(L, bounded);
	lua_setglobal(L, LUA_OSLIBNAME);
}

static bool is_kept(const char *name)
{
	static const char *const names[] = {
		LUA_GNAME,	"_VERSION",	 "assert",	   "error",	  "getmetatable",
		"ipairs",	"next",		 "pairs",	   "pcall",	  "print",
		"rawequal",	"rawget",	 "rawlen",	   "rawset",	  "select",
		"tonumber",	"tostring",	 "type",	   "warn",	  "setmetatable",
		"load",		"xpcall",	 "collectgarbage", LUA_COLIBNAME, LUA_TABLIBNAME,
		LUA_STRLIBNAME, LUA_MATHLIBNAME, LUA_UTF8LIBNAME,  LUA_OSLIBNAME,
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static void set_base(lua_State *L)
{
	static const luaL_Reg bounded[] = {
		{"setmetatable", sandbox_setmetatable},
		{"collectgarbage", sandbox_collectgarbage},
		{"load", sandbox_load},
		{"xpcall", sandbox_xpcall},
		{NULL, NULL},
	};

	lua_pushglobaltable(L);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		lua_pop(L, 1);
		if (lua_type(L, -1) == LUA_TSTRING && is_kept(lua_tostring(L, -1)))
			continue;
		/* An entry may be cleared on the way. */
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_settable(L, -4);
	}
	nq_sandbox_wrap(L, bounded);
	lua_pop(L, 1);
}

/* The folder a file lies in, without links: where it cannot be told, where nothing is. */
static void find_folder(const char *path, char folder[PATH_MAX])
{
	char *slash;

	if (!realpath(path, folder))
		strcpy(folder, "/dev/null/none");
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
}

void nq_sandbox_enter(lua_State *L, const char *script)
{
	char folder[PATH_MAX];

	find_folder(script, folder);
	set_os(L);
	nq_sandbox_strings(L);
	nq_sandbox_tables(L);
	set_base(L);
	set_require(L, folder);
	lua_pushstring(L, folder);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &folder_key);
}

int nq_enclose(lua_State *L)
{
	const char *script = nq_arg_string(L, 1, "enclose", "script", NULL);

	if (!nq_sandbox_is(L))
		nq_sandbox_enter(L, script);
	return 0;
}
