/* The tables of the flows: all but `verdict` is Lua's own. */
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/flows_parts.h"

/* Whether the key at index 2 is "verdict". */
static bool is_verdict(lua_State *L)
{
	return lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "verdict") == 0;
}

/* The flow of the table at index 1; NULL when it is over. Upvalue: the userdata. */
static struct nq_flow *find_flow(lua_State *L, struct nq_lua_flows *flows)
{
	uint32_t number;

	if (!flows)
		return NULL; /* at the end of a state, a finalizer may still hold the table */
	lua_getiuservalue(L, lua_upvalueindex(1), AT_NUMBERS);
	lua_pushvalue(L, 1);
	lua_rawget(L, -2);
	number = (uint32_t)lua_tointeger(L, -1);
	lua_pop(L, 2);
	return number ? (struct nq_flow *)nq_ends_table_at(&flows->flows.table, number) : NULL;
}

static int table_index(lua_State *L)
{
	struct nq_lua_flows *flows = nq_flows_at(L, lua_upvalueindex(1));
	const struct nq_flow *flow = is_verdict(L) ? find_flow(L, flows) : NULL;

	if (flow && flow->verdict != NQ_UNDECIDED)
		lua_pushstring(L, nq_verdict_name(flow->verdict));
	else
		lua_pushnil(L);
	return 1;
}

static int table_newindex(lua_State *L)
{
	struct nq_lua_flows *flows = nq_flows_at(L, lua_upvalueindex(1));
	enum nq_verdict verdict = NQ_UNDECIDED;
	struct nq_flow *flow;

	lua_settop(L, 3);
	if (!is_verdict(L)) {
		lua_rawset(L, 1);
		return 0;
	}
	if (!lua_isnil(L, 3)) {
		const char *name = lua_type(L, 3) == LUA_TSTRING ? lua_tostring(L, 3) : "";

		if (strcmp(name, "accept") == 0)
			verdict = NQ_ACCEPT;
		else if (strcmp(name, "drop") == 0)
			verdict = NQ_DROP;
		else
			return nq_arg_error(L, 3, "flow", "verdict", "'accept', 'drop' or nil");
	}
	flow = find_flow(L, flows);
	if (!flow)
		return luaL_error(L, "the flow is over: its verdict cannot be set");
	flows->decided -= flow->verdict != NQ_UNDECIDED;
	flow->verdict = verdict;
	flows->decided += flow->verdict != NQ_UNDECIDED;
	return 0;
}

void nq_flow_push_metatable(lua_State *L, int self)
{
	self = lua_absindex(L, self);
	lua_createtable(L, 0, 3);
	lua_pushvalue(L, self);
	lua_pushcclosure(L, table_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, self);
	lua_pushcclosure(L, table_newindex, 1);
	lua_setfield(L, -2, "__newindex");
	lua_pushstring(L, "nfqueue.flow");
	lua_setfield(L, -2, "__name");
}
