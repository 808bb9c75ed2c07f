#include "lua/rewrite.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/lane.h"
#include "lua/packet.h"
#include "lua/tables.h"
#include "lua/timer.h"
#include "table/rewrite.h"

#define WHAT "rewrite"

enum { DEFAULT_MAX = 16384, DEFAULT_TIMEOUT = 7440 /* RFC 5382 REQ-5: 2 hours 4 minutes */ };

static const char metatable_key;

struct rewrite {
	struct nq_rewrite *table; /* NULL: not made, or released */
};

static struct rewrite *check_rewrite(lua_State *L, const char *method)
{
	struct rewrite *rewrite = nq_class_check(L, method, WHAT);

	/* At the end of a state, a finalizer may still hold it. */
	if (!rewrite->table)
		luaL_error(L, "rewrite is closed");
	return rewrite;
}

/***
Pass a segment of a connection through the rewriter, which edits it in place; a verb is called
afterwards as for any packet. It is called for **every** TCP packet of the connection, once, in both
directions, from the SYN on: `rw(pkt)` for those whose content stays, `rw(pkt, payload)` for those
whose payload becomes another. Sequence numbers (RFC 9293), acknowledgements and SACK blocks (RFC
2018) are brought in step, and what was sent once is sent the same whenever it is sent again, in
whatever pieces.

A connection that was not followed from its SYN on passes unchanged until the first payload that
differs; from there on it is followed. Content that does not fit into its segment is cut, and the
rest goes when the sender repeats that segment: where every segment grows, lower `tcp.mss` in the
SYNs after `rw(pkt)`. The payload given must replace the whole payload of the segment; that of an
acknowledgement without data cannot be replaced. One that comes to a queue once more, after `again`
or `requeue`, is not passed a second time.

Connection tracking holds acknowledgements against what it saw pass: where NAT or rules on `ct state
invalid` depend on it, `net.netfilter.nf_conntrack_tcp_be_liberal` must be 1, and connections under
NAT get no `connmark` or `label` in a verdict, since with these the kernel adjusts the numbers, too.
@function rewrite:__call
@tparam packet pkt a packet without a verdict
@tparam[opt] string payload 0 to 1048576 bytes that go in the place of the packet's payload
@treturn boolean true: it goes on as given
@treturn ?string why it does not: `out of order` (data before it has not passed yet, so that its
place is not known: it goes as an acknowledgement without data, and its sender repeats it; with
`wait = false` only beyond its receiver's window), `sent before` (its data, or the first of it, or
with `wait = false` data behind it, has passed: it goes as it went then), `no room` (the content
cannot be kept at present: it goes without data, too), `damaged` (its TCP checksum is wrong: it goes
as it is), `no stream` (a reset's data is no part of the stream: it goes as it is)
@raise `packet is no longer valid`, `packet already has a verdict`, `cannot edit this packet: ...`
for packets that are truncated, a fragment or not TCP, that went through a rewriter before, and for
another payload in segments that are signed (TCP MD5, TCP-AO) or belong to Multipath TCP
*/
static int rewrite_call(lua_State *L)
{
	static const char *const reasons[] = {
		[NQ_REWRITTEN] = NULL,
		[NQ_REWRITTEN_AGAIN] = "sent before",
		[NQ_REWRITTEN_HOLE] = "out of order",
		[NQ_REWRITTEN_NO_ROOM] = "no room",
		[NQ_REWRITTEN_DAMAGED] = "damaged",
		[NQ_REWRITTEN_NO_STREAM] = "no stream",
	};
	struct rewrite *rewrite = check_rewrite(L, "rewrite");
	const struct nq_handle *handle = nq_packet_handle(L, 2);
	enum nq_rewritten result;
	const char *content = NULL;
	size_t length = 0;

	if (!handle)
		return nq_arg_error(L, 2, "rewrite", "pkt", "packet");
	if (handle->generation != handle->cell->generation)
		return luaL_error(L, "packet is no longer valid");
	nq_packet_check_undecided(L, handle->cell->packet);
	if (!lua_isnoneornil(L, 3))
		content = nq_arg_string(L, 3, "rewrite", "payload", &length);
	nq_packet_room(L, handle->cell->packet);
	nq_packet_refuse(L,
			 nq_rewrite_pass(rewrite->table, handle->cell->packet,
					 (const uint8_t *)content, length, nq_lua_now(L), &result));
	lua_pushboolean(L, result == NQ_REWRITTEN);
	if (result == NQ_REWRITTEN)
		return 1;
	lua_pushstring(L, reasons[result]);
	return 2;
}

/***
What the rewriter has done, for all threads that share it.
@function rewrite:stats
@treturn table `connections` (in the table now), `kept` (bytes of memory in use for content not yet
acknowledged), and counted from the start: `edits` (taken), `retransmitted` (segments sent before),
`out_of_order`, `no_room`, `damaged`, `cut` (segments that their content did not fit), `evicted`
(connections that went for others), `expired` (that were silent too long)
*/
static int rewrite_stats(lua_State *L)
{
	const struct rewrite *rewrite = check_rewrite(L, "stats");
	struct nq_rewrite_stats stats;

	nq_rewrite_stats(rewrite->table, nq_lua_now(L), &stats);
	const struct {
		const char *name;
		uint64_t value;
	} values[] = {
		{"connections", stats.connections},
		{"kept", stats.kept},
		{"edits", stats.edits},
		{"retransmitted", stats.again},
		{"out_of_order", stats.hole},
		{"no_room", stats.no_room},
		{"damaged", stats.damaged},
		{"cut", stats.cut},
		{"evicted", stats.evicted},
		{"expired", stats.expired},
	};

	lua_createtable(L, 0, sizeof(values) / sizeof(values[0]));
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		lua_pushinteger(L, (lua_Integer)values[i].value);
		lua_setfield(L, -2, values[i].name);
	}
	return 1;
}

static int rewrite_gc(lua_State *L)
{
	struct rewrite *rewrite = nq_class_check(L, "gc", WHAT);

	nq_table_release((struct nq_table *)rewrite->table);
	rewrite->table = NULL;
	return 0;
}

static int rewrite_tostring(lua_State *L)
{
	(void)check_rewrite(L, "tostring");
	lua_pushstring(L, "rewrite");
	return 1;
}

void nq_rewrite_register(lua_State *L)
{
	static const luaL_Reg metamethods[] = {{"__call", rewrite_call},
					       {"__tostring", rewrite_tostring},
					       {"__gc", rewrite_gc},
					       {NULL, NULL}};
	static const luaL_Reg methods[] = {{"stats", rewrite_stats}, {NULL, NULL}};

	nq_class_make(L, &metatable_key, "nfqueue.rewrite", WHAT, methods, metamethods);
}

static void read_options(lua_State *L, struct nq_rewrite_options *options)
{
	static const char *const known[] = {"max", "timeout", "wait", NULL};

	*options = (struct nq_rewrite_options){
		.max = DEFAULT_MAX, .timeout = DEFAULT_TIMEOUT * NQ_SECOND, .waits = true};
	if (lua_isnoneornil(L, 1))
		return;
	nq_arg_table(L, 1, WHAT, "options");
	nq_tables_known(L, 1, WHAT, known);
	if (lua_getfield(L, 1, "max") != LUA_TNIL)
		options->max = (uint32_t)nq_arg_integer(L, -1, WHAT, "max", 1, NQ_REWRITE_MAX);
	if (lua_getfield(L, 1, "timeout") != LUA_TNIL)
		options->timeout = nq_arg_seconds(L, -1, WHAT, "timeout", true);
	if (lua_getfield(L, 1, "wait") != LUA_TNIL)
		options->waits = nq_arg_boolean(L, -1, WHAT, "wait");
}

/***
Make a rewriter: it lets TCP payloads change their length, and keeps both ends' sequence numbers in
step for the rest of the connection. Its table lies in C. The n-th call in a script finds the same
table in every thread of `nfqueue run`, so it is called in the chunk, not in a handler. Memory is
bounded: some 220 bytes a connection, 64 MiB in all for content that is not acknowledged yet, of
which one direction of a connection gets at most 4 MiB and 4,096 edits.
@function rewrite
@tparam[opt] table options `max` (integer from 1 to 1048576, default 16384: connections followed at
a time; the one silent longest goes, first closed ones, then those without an edit), `timeout`
(number, seconds without a packet after which a connection is forgotten; default 7440, RFC 5382;
closed ones go after 120, and when there is no room for content
those that hold some after 300), `wait` (boolean, default true: behind data that is missing none
passes, so that it can be edited when it comes, but its sender learns of the loss by its time-out
only; false: it passes, and what was missing later passes as it is)
@treturn rewrite `rw(pkt [, payload])`, `rw:stats()`
@raise for a wrong option, naming it
*/
int nq_rewrite_make(lua_State *L)
{
	struct nq_state *state = nq_state_get(L);
	struct nq_rewrite_options options;
	struct nq_table *table = NULL;
	struct rewrite *rewrite;
	char name[16];
	int error;

	read_options(L, &options);
	rewrite = nq_class_push(L, &metatable_key, sizeof(*rewrite), 0);
	snprintf(name, sizeof(name), "%u", ++state->rewrites);
	error = nq_registry_get(state->registry, &nq_rewrite_class, state->registry ? name : NULL,
				state->generation, &options, &table);
	rewrite->table = (struct nq_rewrite *)table;
	if (error == -EEXIST)
		return luaL_error(L, "another thread has made rewrite %s with other options", name);
	if (error == -ENOSPC)
		return luaL_error(L, "too many tables: make them in the chunk, not in the handler");
	if (error)
		return luaL_error(L, "not enough memory");
	return 1;
}
