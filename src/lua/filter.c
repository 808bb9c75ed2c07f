#include "lua/filter.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/class.h"
#include "lua/lane.h"
#include "lua/packet.h"
#include "lua/sandbox.h"

#define WHAT "filter"

static const char metatable_key, kept_key;

struct nq_filter_object {
	struct nq_filter *filter; /* NULL: collected */
	bool kept;
	struct nq_filter_object *next; /* among those that are kept */
};

/* Raises for an expression that libpcap does not take; `name` is the argument's. Without libpcap it
 * pushes nothing and returns NULL. */
static struct nq_filter_object *push_filter(lua_State *L, int index, const char *function,
					    const char *name)
{
	size_t length;
	const char *expression = nq_arg_string(L, index, function, name, &length);
	char message[512];
	struct nq_filter_object *object;

	if (strlen(expression) != length)
		luaL_error(L, "bad argument '%s' to '%s' (it contains a zero byte)", name,
			   function);
	nq_sandbox_check_filter(L, expression, function, name);
	if (!nq_pcap_available())
		return NULL;
	object = nq_class_push(L, &metatable_key, sizeof(*object), 0);
	object->filter = nq_filter_new(expression, message, sizeof(message));
	if (!object->filter)
		luaL_error(L, "bad argument '%s' to '%s' (%s)", name, function, message);
	return object;
}

static const struct nq_filter *check_open(lua_State *L, const char *method)
{
	const struct nq_filter_object *object = nq_class_check(L, method, WHAT);

	/* At the end of a state, a finalizer may still hold it. */
	if (!object->filter)
		luaL_error(L, "filter is closed");
	return object->filter;
}

/***
Compile a tcpdump expression (pcap-filter(7)) with libpcap. It is run in C, over a packet from its
IP header on: expressions about Ethernet do not compile, `len` is the length on the wire, what was
not copied does not match, and neither does `tcp[...]` over IPv6, nor `tcp` behind extension
headers. Host names in it are looked up now.
@function filter
@tparam string expression
@treturn filter `filter(pkt)` tells whether a packet (or the bytes of one) matches, as it is then;
or nil, message, errno (ENOTSUP) in a build without libpcap
@raise `bad argument 'expression' to 'filter' (...)` with libpcap's message
@usage local dns = nfqueue.filter("udp port 53")
*/
int nq_filter_make(lua_State *L)
{
	lua_settop(L, 1);
	if (!push_filter(L, 1, "filter", "expression"))
		return nq_push_failure(L, ENOTSUP, "filters need libpcap, and " NQ_PCAP_MISSING);
	return 1;
}

const struct nq_filter *nq_filter_keep(lua_State *L, int index, const char *function,
				       const char *name)
{
	struct nq_filter_object *object;

	index = lua_absindex(L, index);
	nq_arg_string(L, index, function, name, NULL);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &kept_key);
	lua_pushvalue(L, index);
	if (lua_rawget(L, -2) == LUA_TNIL) {
		lua_pop(L, 1);
		object = push_filter(L, index, function, name);
		if (!object)
			luaL_error(L, "bad argument '%s' to '%s' (filters need libpcap, and %s)",
				   name, function, NQ_PCAP_MISSING);
		if (!object->kept) {
			struct nq_state *state = nq_state_get(L);

			object->kept = true;
			object->next = state->filters;
			state->filters = object;
		}
		lua_pushvalue(L, index);
		lua_pushvalue(L, -2);
		lua_rawset(L, -4);
	}
	object = lua_touserdata(L, -1);
	lua_pop(L, 2);
	return object->filter;
}

/***
Whether the packet matches.
@function filter:__call
@tparam packet|string pkt a packet, or its bytes from the IP header on
@treturn boolean
@raise `packet is no longer valid`, and for anything else
*/
static int filter_call(lua_State *L)
{
	const struct nq_filter *filter = check_open(L, "filter");
	const struct nq_packet *packet;
	bool match;

	if (lua_type(L, 2) == LUA_TSTRING) {
		size_t length;
		const char *bytes = lua_tolstring(L, 2, &length);

		if (length > UINT32_MAX)
			length = UINT32_MAX;
		match = nq_filter_match(filter, (const uint8_t *)bytes, (uint32_t)length,
					(uint32_t)length);
	} else {
		packet = nq_packet_at(L, 2);
		if (!packet) {
			nq_arg_error(L, 2, "filter", "pkt", "packet or string");
			return 0; /* not reached */
		}
		match = nq_filter_takes(filter, packet);
	}
	lua_pushboolean(L, match);
	return 1;
}

static int filter_tostring(lua_State *L)
{
	const struct nq_filter_object *object = nq_class_check(L, "tostring", WHAT);

	if (object->filter)
		lua_pushfstring(L, "filter: %s", nq_filter_expression(object->filter));
	else
		lua_pushstring(L, "filter (closed)");
	return 1;
}

static int filter_gc(lua_State *L)
{
	struct nq_filter_object *object = nq_class_check(L, "gc", WHAT);

	/* What uses the kept ones may be used by finalizers that come later. */
	if (object->kept)
		return 0;
	nq_filter_free(object->filter);
	object->filter = NULL;
	return 0;
}

void nq_filter_free_kept(struct nq_state *state)
{
	for (; state->filters; state->filters = state->filters->next) {
		nq_filter_free(state->filters->filter);
		state->filters->filter = NULL;
	}
}

void nq_filter_register(lua_State *L)
{
	static const luaL_Reg none[] = {{NULL, NULL}};
	static const luaL_Reg metamethods[] = {{"__call", filter_call},
					       {"__tostring", filter_tostring},
					       {"__gc", filter_gc},
					       {NULL, NULL}};

	nq_class_make(L, &metatable_key, "nfqueue.filter", WHAT, none, metamethods);
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &kept_key);
}
