#include "lua/sandbox_parts.h"

/* Goes on in the stock function with the arguments as they are. */
static int go_on(lua_State *L)
{
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* The stock functions ask it for the length, and would walk as far as it says. */
static void refuse_len(lua_State *L, const char *function)
{
	if (luaL_getmetafield(L, 1, "__len") != LUA_TNIL)
		luaL_error(L, "bad argument #1 to '%s' (a table with __len, in the sandbox)",
			   function);
}

static void check_span(lua_State *L, lua_Integer first, lua_Integer last, const char *function)
{
	if (last >= first && (lua_Unsigned)last - (lua_Unsigned)first >= NQ_SANDBOX_ITEMS)
		luaL_error(L, "too many items to '%s' (in the sandbox: at most %d)", function,
			   (int)NQ_SANDBOX_ITEMS);
}

/***
table.insert of a sandbox: refuses tables with __len.
@function table.insert
@raise `bad argument #1` for a table with __len
*/
static int table_insert(lua_State *L)
{
	refuse_len(L, "insert");
	return go_on(L);
}

/***
table.remove of a sandbox: refuses tables with __len.
@function table.remove
@raise `bad argument #1` for a table with __len
*/
static int table_remove(lua_State *L)
{
	refuse_len(L, "remove");
	return go_on(L);
}

/***
table.sort of a sandbox: of at most 4,194,304 items, and refuses tables with __len.
@function table.sort
@raise `too many items`
*/
static int table_sort(lua_State *L)
{
	refuse_len(L, "sort");
	if (lua_type(L, 1) == LUA_TTABLE)
		check_span(L, 1, (lua_Integer)lua_rawlen(L, 1), "sort");
	return go_on(L);
}

/* Of an absent end the stock function asks for the length. */
static void check_range(lua_State *L, int first, const char *function)
{
	if (lua_isnoneornil(L, first + 1)) {
		refuse_len(L, function);
		if (lua_type(L, 1) == LUA_TTABLE)
			check_span(L, luaL_optinteger(L, first, 1), (lua_Integer)lua_rawlen(L, 1),
				   function);
	} else {
		check_span(L, luaL_optinteger(L, first, 1), luaL_checkinteger(L, first + 1),
			   function);
	}
}

/***
table.concat of a sandbox: walks over at most 4,194,304 items.
@function table.concat
@raise `too many items`
*/
static int table_concat(lua_State *L)
{
	check_range(L, 3, "concat");
	return go_on(L);
}

/***
table.unpack of a sandbox: walks over at most 4,194,304 items.
@function table.unpack
@raise `too many items`
*/
static int table_unpack(lua_State *L)
{
	check_range(L, 2, "unpack");
	return go_on(L);
}

/***
table.move of a sandbox: walks over at most 4,194,304 items.
@function table.move
@raise `too many items`
*/
static int table_move(lua_State *L)
{
	check_span(L, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3), "move");
	return go_on(L);
}

void nq_sandbox_tables(lua_State *L)
{
	static const luaL_Reg bounded[] = {
		{"insert", table_insert},
		{"remove", table_remove},
		{"sort", table_sort},
		{"concat", table_concat},
		{"unpack", table_unpack},
		{"move", table_move},
		{NULL, NULL},
	};

	lua_getglobal(L, LUA_TABLIBNAME);
	nq_sandbox_wrap(L, bounded);
	lua_pop(L, 1);
}
