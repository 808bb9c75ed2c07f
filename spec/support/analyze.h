/*
 * analyze.h - for clang's analyzer, included before each file: what of Lua's interface, and what
 * rests on it, does not return.
 */
#include <lauxlib.h>
#include <lua.h>

int lua_error(lua_State *L) __attribute__((noreturn));
int luaL_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
int luaL_argerror(lua_State *L, int arg, const char *extramsg) __attribute__((noreturn));
int luaL_typeerror(lua_State *L, int arg, const char *tname) __attribute__((noreturn));
int nq_arg_error(lua_State *L, int index, const char *function, const char *name,
		 const char *expected) __attribute__((noreturn));
