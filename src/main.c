/*
 * The command: a protected main that opens the core statically, finds its Lua files relative to
 * itself, and runs nfqueue.cli. The exit status is what that returns.
 */
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua/module.h"
#include "lua/plain.h"

/* The folder the command lies in, without links; the empty string when /proc does not tell. */
static void find_folder(char folder[PATH_MAX])
{
	ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
	char *slash;

	folder[length > 0 ? length : 0] = '\0';
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
}

/*
 * Run from ROOT/build/bin, or from that of another build, ROOT/build/NAME/bin: writes ROOT and
 * returns true.
 */
static bool find_tree(const char *folder, char root[PATH_MAX])
{
	char file[PATH_MAX + sizeof("/lua/nfqueue/init.lua")];
	char *slash;

	strcpy(root, folder);
	slash = strrchr(root, '/');
	if (!slash || strcmp(slash, "/bin") != 0)
		return false;
	*slash = '\0';
	for (int level = 0; level < 2; level++) {
		bool is_build;

		slash = strrchr(root, '/');
		if (!slash)
			return false;
		is_build = strcmp(slash, "/build") == 0;
		*slash = '\0';
		snprintf(file, sizeof(file), "%s/lua/nfqueue/init.lua", root);
		if (is_build && access(file, R_OK) == 0)
			return true;
	}
	return false;
}

/*
 * An installed command has its files in ../share/lua/5.4 and C modules in ../lib/lua/5.4; in
 * build/bin it uses the tree's own lua/. Both come before what LUA_PATH and the interpreter's
 * defaults name.
 */
static void set_paths(lua_State *L, const char *folder)
{
	char root[PATH_MAX];
	bool in_tree = find_tree(folder, root);

	lua_getglobal(L, LUA_LOADLIBNAME);
	lua_getfield(L, -1, "path");
	if (in_tree)
		lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s", root, root,
				lua_tostring(L, -1));
	else
		lua_pushfstring(L, "%s/../share/lua/5.4/?.lua;%s/../share/lua/5.4/?/init.lua;%s",
				folder, folder, lua_tostring(L, -1));
	lua_setfield(L, -3, "path");
	lua_pop(L, 1);
	lua_getfield(L, -1, "cpath");
	if (!in_tree) {
		lua_pushfstring(L, "%s/../lib/lua/5.4/?.so;%s", folder, lua_tostring(L, -1));
		lua_setfield(L, -3, "cpath");
	}
	lua_pop(L, 1);
	lua_getfield(L, -1, "preload");
	lua_pushcfunction(L, luaopen_nfqueue_core);
	lua_setfield(L, -2, "nfqueue.core");
	lua_pop(L, 2);
}

/* Under pcall: 1 argc, 2 argv (light). Returns the exit status. */
static int run_cli(lua_State *L)
{
	int argc = (int)lua_tointeger(L, 1);
	char **argv = lua_touserdata(L, 2);
	char folder[PATH_MAX];

	luaL_openlibs(L);
	nq_plain_enter(L);
	find_folder(folder);
	set_paths(L, folder);
	lua_getglobal(L, "require");
	lua_pushstring(L, "nfqueue.cli");
	lua_call(L, 1, 1);
	lua_createtable(L, argc, 0);
	for (int i = 1; i < argc; i++) {
		lua_pushstring(L, argv[i]);
		lua_rawseti(L, -2, i);
	}
	lua_pushstring(L, folder);
	lua_call(L, 2, 1);
	return 1;
}

static int traceback(lua_State *L)
{
	luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
	return 1;
}

int main(int argc, char **argv)
{
	lua_State *L = luaL_newstate();
	int status = 1;

	if (!L) {
		fputs("nfqueue: not enough memory\n", stderr);
		return 1;
	}
	lua_pushcfunction(L, traceback);
	lua_pushcfunction(L, run_cli);
	lua_pushinteger(L, argc);
	lua_pushlightuserdata(L, argv);
	if (lua_pcall(L, 2, 1, 1) == LUA_OK)
		status = (int)lua_tointeger(L, -1);
	else
		fprintf(stderr, "nfqueue: %s\n", lua_tostring(L, -1));
	lua_close(L);
	return status;
}
