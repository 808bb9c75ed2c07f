#include "lua/flows.h"

#include <lauxlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/packet.h"
#include "lua/script.h"
#include "lua/timer.h"
#include "table/flow.h"

enum { DEFAULT_MAX = 65536, DEFAULT_TIMEOUT = 300, MAX = 1 << 24, EXPIRE_A_TIME = 8 };

/* User values of the userdata. */
enum {
	AT_TABLES = 1, /* of the flows, by number */
	AT_NUMBERS,    /* by table, weakly */
	AT_FINISH,
	AT_METATABLE, /* of the tables */
	AT_COUNT = AT_METATABLE,
};

static const char metatable_key, objects_key;

struct nq_lua_flows {
	struct nq_flows flows;
	bool made;
	uint32_t decided; /* flows that have a verdict */
	/* Numbers of flows that went in the call at hand, their tables not yet finished. */
	uint32_t gone[2];
	unsigned gone_count;
	struct nq_log_limit limit;
	const void *owner; /* the loaded handler that made it; NULL: the state's own script */
	struct nq_lua_flows *next, **link; /* among the state's */
};

static struct nq_lua_flows *check_flows(lua_State *L, int index, const char *method)
{
	struct nq_lua_flows *flows = lua_touserdata(L, index);
	bool is_flows = false;

	if (flows && lua_getmetatable(L, index)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
		is_flows = lua_rawequal(L, -1, -2);
		lua_pop(L, 2);
	}
	if (!is_flows || !flows->made)
		nq_arg_error(L, index, method, "self", "flows");
	return flows;
}

static void remember_gone(void *context, struct nq_entry *entry)
{
	struct nq_lua_flows *flows = context;

	if (((struct nq_flow *)entry)->verdict != NQ_UNDECIDED)
		flows->decided--;
	flows->gone[flows->gone_count++] = nq_ends_table_number(&flows->flows.table, entry);
}

/* Pushes the tables of the flows that went; `self`: index of the userdata. Returns their number. */
static int push_gone(lua_State *L, struct nq_lua_flows *flows, int self)
{
	int pushed = 0;

	lua_getiuservalue(L, self, AT_TABLES);
	lua_getiuservalue(L, self, AT_NUMBERS);
	/* -1 numbers, -2 tables */
	while (flows->gone_count) {
		uint32_t number = flows->gone[--flows->gone_count];

		if (lua_rawgeti(L, -2, number) != LUA_TTABLE) {
			lua_pop(L, 1);
			continue;
		}
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_rawset(L, -4); /* it has no number any more */
		lua_pushnil(L);
		lua_rawseti(L, -4, number);
		lua_insert(L, -3); /* below the two */
		pushed++;
	}
	lua_pop(L, 2);
	return pushed;
}

/* Calls finish for the `count` tables at the top, and pops them; `self`: index of the userdata. */
static void finish(lua_State *L, struct nq_lua_flows *flows, int self, int count)
{
	uint64_t suppressed;

	for (; count; count--, lua_pop(L, 1)) {
		if (lua_getiuservalue(L, self, AT_FINISH) != LUA_TFUNCTION) {
			lua_pop(L, 1);
			continue;
		}
		lua_pushcfunction(L, nq_script_traceback);
		lua_insert(L, -2);
		lua_pushvalue(L, -3);
		/* -1 table, -2 finish, -3 traceback, -4 table */
		if (lua_pcall(L, 1, 0, -3) != LUA_OK) {
			const char *message = lua_tostring(L, -1);

			if (nq_log_allow(&flows->limit, 1, &suppressed))
				nq_log(NQ_LOG_ERROR, "finish of a flow failed: %s",
				       message ? message : "(error without a message)");
			lua_pop(L, 1);
		}
		lua_pop(L, 1);
	}
}

/* Lets go of flows whose time is over, at most `most`, and calls finish for them. */
static void expire(lua_State *L, struct nq_lua_flows *flows, int self, int64_t now, uint32_t most)
{
	for (; most && nq_ends_table_expire(&flows->flows.table, now); most--)
		finish(L, flows, self, push_gone(L, flows, self));
}

/* Called every second; upvalue: the address of the userdata, which may be gone. */
static int expire_some(lua_State *L)
{
	struct nq_lua_flows *flows = lua_touserdata(L, lua_upvalueindex(1));

	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	if (lua_rawgetp(L, -1, flows) == LUA_TUSERDATA && flows->made)
		expire(L, flows, lua_gettop(L), nq_lua_now(L), UINT32_MAX);
	return 0;
}

/* Under pcall. */
static int end_all(lua_State *L)
{
	const struct nq_state *state = nq_state_get(L);

	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		struct nq_lua_flows *flows = lua_touserdata(L, 3);

		if (flows->made && flows->owner == state->loaded)
			expire(L, flows, 3, INT64_MAX, UINT32_MAX);
		lua_settop(L, 2);
	}
	return 0;
}

void nq_flows_end(lua_State *L)
{
	if (!nq_state_get(L)->flows || !lua_checkstack(L, LUA_MINSTACK))
		return;
	lua_pushcfunction(L, end_all);
	if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
		nq_log(NQ_LOG_ERROR, "flows were not finished: %s",
		       lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "error");
		lua_pop(L, 1);
	}
}

/***
The Lua table of the connection that a packet belongs to, new for the first packet of one: whatever
the handler keeps about it goes there. Both directions find the same table, by the addresses and
ports the packet arrived with, and an ICMP error that of the packet it speaks of.

`flow.verdict = "accept"` (or `"drop"`) gives the rest of the connection this verdict in C, without
entering Lua; nil takes it back. It counts in `stats` like any other.
@function flows:get
@tparam packet pkt
@treturn table of the connection; nil for what belongs to none (no IP, later fragments, ICMP errors
about a connection not met)
@treturn boolean true when the packet goes in the direction of replies: to the end that began
@raise `packet is no longer valid`
*/
static int flows_get(lua_State *L)
{
	struct nq_lua_flows *flows = check_flows(L, 1, "get");
	const struct nq_handle *handle = nq_packet_handle(L, 2);
	struct nq_flow *flow;
	uint32_t number = 0;
	bool reply = false;
	int64_t now = nq_lua_now(L);
	int gone, table;

	if (!handle)
		return nq_arg_error(L, 2, "get", "pkt", "packet");
	if (handle->generation != handle->cell->generation)
		return luaL_error(L, "packet is no longer valid");
	lua_settop(L, 2);
	flow = nq_flows_meet(&flows->flows, handle->cell->packet, now, &reply);
	if (flow)
		number = nq_ends_table_number(&flows->flows.table, &flow->entry);
	gone = push_gone(L, flows, 1);
	if (!flow) {
		lua_pushnil(L);
		lua_insert(L, 3);
		finish(L, flows, 1, gone);
		return 1;
	}
	lua_getiuservalue(L, 1, AT_TABLES);
	if (lua_rawgeti(L, -1, number) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_getiuservalue(L, 1, AT_METATABLE);
		lua_setmetatable(L, -2);
		lua_getiuservalue(L, 1, AT_NUMBERS);
		lua_pushvalue(L, -2);
		lua_pushinteger(L, number);
		lua_rawset(L, -3);
		lua_pop(L, 1);
		lua_pushvalue(L, -1);
		lua_rawseti(L, -3, number);
	}
	lua_remove(L, -2);
	lua_insert(L, 3); /* below those that went */
	table = 3;
	finish(L, flows, 1, gone);
	expire(L, flows, 1, now, EXPIRE_A_TIME);
	lua_settop(L, table);
	lua_pushboolean(L, reply);
	return 2;
}

/***
How many connections there are now.
@function flows:__len
@treturn integer
*/
static int flows_len(lua_State *L)
{
	lua_pushinteger(L, check_flows(L, 1, "#")->flows.table.count);
	return 1;
}

static int flows_tostring(lua_State *L)
{
	lua_pushfstring(L, "flows (%d)", (int)check_flows(L, 1, "tostring")->flows.table.count);
	return 1;
}

static int flows_gc(lua_State *L)
{
	struct nq_lua_flows *flows = lua_touserdata(L, 1);

	if (!flows->made)
		return 0;
	flows->made = false;
	*flows->link = flows->next;
	if (flows->next)
		flows->next->link = flows->link;
	nq_flows_fini(&flows->flows);
	return 0;
}

static int flows_index(lua_State *L)
{
	(void)check_flows(L, 1, "index");
	lua_pushvalue(L, 2);
	if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL)
		return luaL_error(L, "flows has no field '%s'", luaL_tolstring(L, 2, NULL));
	return 1;
}

/* --- The tables of the flows: all but `verdict` is Lua's own
 * --------------------------------------
 */

/* Whether the key at index 2 is "verdict". */
static bool is_verdict(lua_State *L)
{
	return lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "verdict") == 0;
}

/* The flow of the table at index 1; NULL when it is over. Upvalue: the userdata. */
static struct nq_flow *find_flow(lua_State *L, struct nq_lua_flows *flows)
{
	uint32_t number;

	lua_getiuservalue(L, lua_upvalueindex(1), AT_NUMBERS);
	lua_pushvalue(L, 1);
	lua_rawget(L, -2);
	number = (uint32_t)lua_tointeger(L, -1);
	lua_pop(L, 2);
	return number ? (struct nq_flow *)nq_ends_table_at(&flows->flows.table, number) : NULL;
}

static int table_index(lua_State *L)
{
	struct nq_lua_flows *flows = lua_touserdata(L, lua_upvalueindex(1));
	const struct nq_flow *flow = is_verdict(L) ? find_flow(L, flows) : NULL;

	if (flow && flow->verdict != NQ_UNDECIDED)
		lua_pushstring(L, nq_verdict_name(flow->verdict));
	else
		lua_pushnil(L);
	return 1;
}

static int table_newindex(lua_State *L)
{
	struct nq_lua_flows *flows = lua_touserdata(L, lua_upvalueindex(1));
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

bool nq_flows_judge(struct nq_state *state, struct nq_packet *packet, int64_t now)
{
	for (struct nq_lua_flows *flows = state->flows; flows; flows = flows->next) {
		if (!flows->decided || flows->owner != state->loaded)
			continue;
		packet->verdict = nq_flows_decide(&flows->flows, packet, now);
		if (packet->verdict != NQ_UNDECIDED)
			return true;
	}
	return false;
}

void nq_flows_register(lua_State *L)
{
	static const luaL_Reg metamethods[] = {
		{"__len", flows_len},
		{"__tostring", flows_tostring},
		{"__gc", flows_gc},
		{NULL, NULL},
	};
	static const luaL_Reg methods[] = {{"get", flows_get}, {NULL, NULL}};

	/* All that there are, weakly. */
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, "v");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &objects_key);
	luaL_newlib(L, metamethods);
	luaL_newlib(L, methods);
	lua_pushcclosure(L, flows_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, "nfqueue.flows");
	lua_setfield(L, -2, "__name");
	lua_pushstring(L, "nfqueue.flows");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}

struct options {
	uint32_t max;
	int64_t timeout;
};

static void read_options(lua_State *L, struct options *options)
{
	lua_Number seconds;

	*options = (struct options){.max = DEFAULT_MAX, .timeout = DEFAULT_TIMEOUT * NQ_SECOND};
	if (lua_isnoneornil(L, 1))
		return;
	nq_arg_table(L, 1, "flows", "options");
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";

		if (strcmp(name, "max") == 0) {
			options->max = (uint32_t)nq_arg_integer(L, -1, "flows", "max", 1, MAX);
		} else if (strcmp(name, "timeout") == 0) {
			seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
			if (!(seconds > 0 && seconds <= 1e9))
				nq_arg_error(L, -1, "flows", "timeout",
					     "number of seconds above 0, at most 1e9");
			options->timeout = (int64_t)(seconds * (lua_Number)NQ_SECOND);
		} else if (strcmp(name, "finish") == 0) {
			if (lua_type(L, -1) != LUA_TFUNCTION)
				nq_arg_error(L, -1, "flows", "finish", "function");
		} else {
			luaL_error(L, "unknown key '%s' to 'flows' (known: max, timeout, finish)",
				   luaL_tolstring(L, -2, NULL));
		}
		lua_pop(L, 1);
	}
}

/***
Make a table of connections: TCP, UDP, ICMP echo, and whatever else goes between two addresses. It
belongs to this Lua state: rules that spread packets over queues by a hash of both ends keep a
connection in one. `flows:get(pkt)` finds a packet's; `#flows` is their number. Memory is bounded by
`max`: about 120 bytes for each that is in use, and its Lua table.
@function flows
@tparam[opt] table options `max` (integer, default 65536: when there are more the one silent longest
ends, first those that are closed), `timeout` (seconds without a packet after which one ends,
default 300; a TCP connection that was reset, or ended by both sides, ends after 10), `finish`
(function, called with the table of each that ends: for time, for want of room, by a new connection
of the same ends, or with the script; an error in it is logged)
@treturn flows
@raise for a wrong option, naming it
*/
int nq_flows_make(lua_State *L)
{
	struct nq_state *state = nq_state_get(L);
	struct nq_lua_flows *flows;
	struct options options;
	int error;

	read_options(L, &options);
	lua_settop(L, 1);
	flows = lua_newuserdatauv(L, sizeof(*flows), AT_COUNT);
	memset(flows, 0, sizeof(*flows));
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	lua_setmetatable(L, 2);
	lua_newtable(L);
	lua_setiuservalue(L, 2, AT_TABLES);
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_setiuservalue(L, 2, AT_NUMBERS);
	if (lua_istable(L, 1)) {
		lua_getfield(L, 1, "finish");
		lua_setiuservalue(L, 2, AT_FINISH);
	}
	lua_createtable(L, 0, 3);
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, table_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, table_newindex, 1);
	lua_setfield(L, -2, "__newindex");
	lua_pushstring(L, "nfqueue.flow");
	lua_setfield(L, -2, "__name");
	lua_setiuservalue(L, 2, AT_METATABLE);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_pushvalue(L, 2);
	lua_rawsetp(L, -2, flows);
	lua_pop(L, 1);
	error = nq_flows_init(&flows->flows, options.max, options.timeout, remember_gone, flows);
	if (error)
		return luaL_error(L, "not enough memory for %d flows", (int)options.max);
	flows->owner = state->loaded;
	flows->made = true;
	flows->next = state->flows;
	flows->link = &state->flows;
	if (flows->next)
		flows->next->link = &flows->next;
	state->flows = flows;
	lua_pushcfunction(L, nq_timer_every);
	lua_pushnumber(L, options.timeout < NQ_SECOND
				  ? (lua_Number)options.timeout / (lua_Number)NQ_SECOND
				  : 1);
	lua_pushlightuserdata(L, flows);
	lua_pushcclosure(L, expire_some, 1);
	lua_call(L, 2, 0);
	return 1;
}
