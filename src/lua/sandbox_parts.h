/*
 * sandbox_parts.h - what the files of the sandbox share: sandbox.c (what a state keeps, and
 * require), sandbox_string.c and sandbox_table.c (functions whose work is bounded). Not for others.
 *
 * A bounded function stands for one of the stock library's and ends: a state is interrupted between
 * instructions of Lua, not inside a function in C.
 */
#ifndef NQ_SANDBOX_PARTS_H
#define NQ_SANDBOX_PARTS_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* Bytes of one string that a bounded function makes; items that one call walks over. */
enum { NQ_SANDBOX_STRING = 16 << 20, NQ_SANDBOX_ITEMS = 1 << 22 };

/*
 * Puts each function into the table at the top of the stack, in the place of the stock one, which
 * becomes its upvalue 1.
 */
void nq_sandbox_wrap(lua_State *L, const luaL_Reg *functions);

void nq_sandbox_strings(lua_State *L);
void nq_sandbox_tables(lua_State *L);

#endif
