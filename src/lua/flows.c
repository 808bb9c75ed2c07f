#include "lua/flows_parts.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/packet.h"
#include "lua/script.h"
#include "lua/tables.h"
#include "lua/timer.h"
#include "table/flow.h"

#define WHAT "flows"

#define LEAST_INTERVAL (NQ_SECOND / 100)

enum { DEFAULT_MAX = 65536, DEFAULT_TIMEOUT = 300, MAX = 1 << 24, EXPIRE_A_TIME = 8 };

/* To be finished at a time: two for each of the two times that get meets a packet. */
enum { ENDED_MOST = 4 };

static const char metatable_key, objects_key;

static struct nq_lua_flows *check_flows(lua_State *L, const char *method)
{
	struct nq_lua_flows **object = nq_class_check(L, method, WHAT);

	/* At the end of a state, a finalizer may still hold it. */
	if (!*object)
		luaL_error(L, "flows is closed");
	return *object;
}

static void remember_gone(void *context, struct nq_entry *entry)
{
	struct nq_lua_flows *flows = context;

	if (((struct nq_flow *)entry)->verdict != NQ_UNDECIDED)
		flows->decided--;
	flows->gone[flows->gone_count++] = nq_ends_table_number(&flows->flows.table, entry);
}

/*
 * After each call of the table: what went is to be finished. The list has room, so that nothing
 * here raises; `self`: index of the userdata.
 */
static void collect_gone(lua_State *L, struct nq_lua_flows *flows, int self)
{
	if (!flows->gone_count)
		return;
	lua_getiuservalue(L, self, AT_TABLES);
	lua_getiuservalue(L, self, AT_NUMBERS);
	lua_getiuservalue(L, self, AT_ENDED);
	/* -1 ended, -2 numbers, -3 tables */
	while (flows->gone_count) {
		uint32_t number = flows->gone[--flows->gone_count];

		if (lua_rawgeti(L, -3, number) != LUA_TTABLE) {
			lua_pop(L, 1);
			continue;
		}
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_rawset(L, -5); /* it has no number any more */
		lua_rawseti(L, -2, ++flows->ended);
		lua_pushnil(L);
		lua_rawseti(L, -4, number);
	}
	lua_pop(L, 3);
}

/*
 * Calls finish for the tables that are due, also those that a call left which ran out of memory or
 * time. `alone`: nothing else is done in the present call into the script, so each has its own
 * time.
 */
static void finish(lua_State *L, struct nq_lua_flows *flows, int self, bool alone)
{
	uint64_t suppressed;

	for (; flows->ended; lua_pop(L, 1)) {
		lua_getiuservalue(L, self, AT_ENDED);
		lua_rawgeti(L, -1, flows->ended);
		lua_pushnil(L);
		lua_rawseti(L, -3, flows->ended--);
		lua_remove(L, -2);
		if (lua_getiuservalue(L, self, AT_FINISH) != LUA_TFUNCTION) {
			lua_pop(L, 1);
			continue;
		}
		lua_pushcfunction(L, nq_script_traceback);
		lua_insert(L, -2);
		lua_pushvalue(L, -3);
		/* -1 table, -2 finish, -3 traceback, -4 table */
		if (alone)
			nq_watched_next(&nq_state_get(L)->watch->watched);
		if (nq_watch_call(L, 1, 0, -3, NQ_CALL_FINISH) != LUA_OK) {
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
static void expire(lua_State *L, struct nq_lua_flows *flows, int self, int64_t now, uint32_t most,
		   bool alone)
{
	for (; most && nq_ends_table_expire(&flows->flows.table, now); most--) {
		collect_gone(L, flows, self);
		finish(L, flows, self, alone);
	}
}

/* Called every second; upvalue: the address of the userdata, which may be gone. */
static int expire_some(lua_State *L)
{
	struct nq_lua_flows *flows = lua_touserdata(L, lua_upvalueindex(1));
	const struct nq_watched *watched = &nq_state_get(L)->watch->watched;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	if (lua_rawgetp(L, -1, flows) == LUA_TUSERDATA && nq_flows_at(L, -1))
		expire(L, flows, lua_gettop(L), nq_lua_now(L), UINT32_MAX,
		       watched->kind == NQ_CALL_TIMER);
	return 0;
}

/* Under pcall. Each flow that is there at the beginning: what finish makes anew has no end. */
static int end_all(lua_State *L)
{
	const struct nq_state *state = nq_state_get(L);

	/* 1 a list of them, as finish may make more, 2 all that there are */
	lua_newtable(L);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_pushnil(L);
	while (lua_next(L, 2))
		lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
	for (lua_Integer i = 1; lua_rawgeti(L, 1, i) == LUA_TUSERDATA; i++, lua_settop(L, 2)) {
		struct nq_lua_flows *flows = nq_flows_at(L, 3);

		if (flows && flows->owner == state->loaded)
			expire(L, flows, 3, INT64_MAX, flows->flows.table.count, false);
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

/* Pushes the table of a flow; false: there is none yet, and nothing is pushed. */
static bool push_table(lua_State *L, const struct nq_lua_flows *flows, int self,
		       const struct nq_flow *flow)
{
	lua_getiuservalue(L, self, AT_TABLES);
	if (lua_rawgeti(L, -1, nq_ends_table_number(&flows->flows.table, &flow->entry)) !=
	    LUA_TTABLE) {
		lua_pop(L, 2);
		return false;
	}
	lua_remove(L, -2);
	return true;
}

/* The table at the top becomes the flow's. */
static void set_table(lua_State *L, const struct nq_lua_flows *flows, int self,
		      const struct nq_flow *flow)
{
	uint32_t number = nq_ends_table_number(&flows->flows.table, &flow->entry);

	lua_getiuservalue(L, self, AT_NUMBERS);
	lua_pushvalue(L, -2);
	lua_pushinteger(L, number);
	lua_rawset(L, -3);
	lua_getiuservalue(L, self, AT_TABLES);
	lua_pushvalue(L, -3);
	lua_rawseti(L, -2, number);
	lua_pop(L, 2);
}

/* The packet's flow, and what had to go for it is to be finished. */
static const struct nq_flow *meet(lua_State *L, struct nq_lua_flows *flows,
				  const struct nq_handle *handle, int64_t now, bool *reply)
{
	const struct nq_flow *flow = nq_flows_meet(&flows->flows, handle->cell->packet, now, reply);

	collect_gone(L, flows, 1);
	return flow;
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
	struct nq_lua_flows *flows = check_flows(L, "get");
	const struct nq_handle *handle = nq_packet_handle(L, 2);
	const struct nq_flow *flow;
	bool reply = false;
	int64_t now = nq_lua_now(L);

	if (!handle)
		return nq_arg_error(L, 2, "get", "pkt", "packet");
	if (handle->generation != handle->cell->generation)
		return luaL_error(L, "packet is no longer valid");
	lua_settop(L, 2);
	finish(L, flows, 1, false);
	flow = meet(L, flows, handle, now, &reply);
	if (flow && !push_table(L, flows, 1, flow)) {
		/* To make one may run finalizers, and they may get others, for which this one goes.
		 */
		lua_newtable(L);
		lua_getiuservalue(L, 1, AT_METATABLE);
		lua_setmetatable(L, -2);
		flow = meet(L, flows, handle, now, &reply);
		if (flow && !push_table(L, flows, 1, flow))
			set_table(L, flows, 1, flow);
		else if (flow)
			lua_replace(L, 3);
	}
	if (!flow)
		lua_settop(L, 2);
	finish(L, flows, 1, false);
	if (!flow) {
		lua_pushnil(L);
		return 1;
	}
	expire(L, flows, 1, now, EXPIRE_A_TIME, false);
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
	lua_pushinteger(L, check_flows(L, "#")->flows.table.count);
	return 1;
}

static int flows_tostring(lua_State *L)
{
	lua_pushfstring(L, "flows (%d)", (int)check_flows(L, "tostring")->flows.table.count);
	return 1;
}

/* NULL does nothing. */
static void free_flows(struct nq_lua_flows *flows)
{
	if (!flows)
		return;
	*flows->link = flows->next;
	if (flows->next)
		flows->next->link = flows->link;
	nq_flows_fini(&flows->flows);
	free(flows);
}

void nq_flows_free_all(struct nq_state *state)
{
	struct nq_lua_flows *next;

	for (struct nq_lua_flows *flows = state->flows; flows; flows = next) {
		next = flows->next;
		nq_flows_fini(&flows->flows);
		free(flows);
	}
	state->flows = NULL;
}

static int flows_gc(lua_State *L)
{
	struct nq_lua_flows **object = nq_class_check(L, "gc", WHAT);

	if (lua_getiuservalue(L, 1, AT_TIMER) == LUA_TUSERDATA)
		nq_timer_stop(L, -1);
	free_flows(*object);
	*object = NULL;
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

void nq_flows_disown(struct nq_state *state, const struct nq_loaded *owner)
{
	for (struct nq_lua_flows *flows = state->flows; flows; flows = flows->next) {
		if (flows->owner == owner)
			flows->owner = flows;
	}
}

void nq_flows_register(lua_State *L)
{
	static const luaL_Reg methods[] = {{"get", flows_get}, {NULL, NULL}};
	static const luaL_Reg metamethods[] = {
		{"__len", flows_len},
		{"__tostring", flows_tostring},
		{"__gc", flows_gc},
		{NULL, NULL},
	};

	/* All that there are, weakly. */
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, "v");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &objects_key);
	nq_class_make(L, &metatable_key, "nfqueue.flows", WHAT, methods, metamethods);
}

struct options {
	uint32_t max;
	int64_t timeout;
};

static void read_options(lua_State *L, struct options *options)
{
	static const char *const known[] = {"max", "timeout", "finish", NULL};

	*options = (struct options){.max = DEFAULT_MAX, .timeout = DEFAULT_TIMEOUT * NQ_SECOND};
	if (lua_isnoneornil(L, 1))
		return;
	nq_arg_table(L, 1, WHAT, "options");
	nq_tables_known(L, 1, WHAT, known);
	if (lua_getfield(L, 1, "max") != LUA_TNIL)
		options->max = (uint32_t)nq_arg_integer(L, -1, WHAT, "max", 1, MAX);
	if (lua_getfield(L, 1, "timeout") != LUA_TNIL)
		options->timeout = nq_arg_seconds(L, -1, WHAT, "timeout", true);
	if (lua_getfield(L, 1, "finish") != LUA_TNIL && !lua_isfunction(L, -1))
		nq_arg_error(L, -1, WHAT, "finish", "function");
}

/* One of the state's; NULL: no memory. */
static struct nq_lua_flows *new_flows(struct nq_state *state, const struct options *options)
{
	struct nq_lua_flows *flows = calloc(1, sizeof(*flows));

	if (!flows)
		return NULL;
	if (nq_flows_init(&flows->flows, options->max, options->timeout, remember_gone, flows) !=
	    0) {
		free(flows);
		return NULL;
	}
	flows->owner = state->loaded;
	flows->next = state->flows;
	flows->link = &state->flows;
	if (flows->next)
		flows->next->link = &flows->next;
	state->flows = flows;
	return flows;
}

/* Has what is over end, though no packet comes. */
static void start_timer(lua_State *L, struct nq_lua_flows *flows, int64_t timeout)
{
	int64_t interval = timeout < NQ_SECOND ? timeout : NQ_SECOND;

	if (interval < LEAST_INTERVAL)
		interval = LEAST_INTERVAL;
	lua_pushcfunction(L, nq_timer_every);
	lua_pushnumber(L, (lua_Number)interval / (lua_Number)NQ_SECOND);
	lua_pushlightuserdata(L, flows);
	lua_pushcclosure(L, expire_some, 1);
	lua_call(L, 2, 1);
	lua_setiuservalue(L, -2, AT_TIMER);
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
	struct nq_lua_flows **object;
	struct options options;

	read_options(L, &options);
	lua_settop(L, 1);
	object = nq_class_push(L, &metatable_key, sizeof(*object), AT_COUNT);
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
	lua_createtable(L, ENDED_MOST, 0);
	lua_setiuservalue(L, 2, AT_ENDED);
	nq_flow_push_metatable(L, 2);
	lua_setiuservalue(L, 2, AT_METATABLE);
	*object = new_flows(nq_state_get(L), &options);
	if (!*object)
		return luaL_error(L, "not enough memory for %d flows", (int)options.max);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
	lua_pushvalue(L, 2);
	lua_rawsetp(L, -2, *object);
	lua_pop(L, 1);
	start_timer(L, *object, options.timeout);
	return 1;
}
