#include "lua/build.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"
#include "packet/answer.h"
#include "packet/bytes.h"
#include "packet/header.h"
#include "packet/icmp.h"
#include "packet/split.h"

static const char function[] = "build";

enum { MTU_LEAST = 68, MTU_MOST = 65535 }; /* RFC 791 section 3.2 */

static void refuse_unknown(lua_State *L)
{
	static const char *const known[] = {"ip",      "tcp",	"udp", "icmp",
					    "payload", "reply", "mtu", NULL};

	lua_pushnil(L);
	while (lua_next(L, NQ_BUILD_ARGUMENT)) {
		if (nq_build_find(L, -2, known) < 0)
			nq_build_unknown(L, -2, "");
		lua_pop(L, 1);
	}
}

/* Pushes the user's value of that name: whether it is there. */
static bool push(lua_State *L, int table, const char *name)
{
	lua_pushstring(L, name);
	return lua_rawget(L, table) != LUA_TNIL;
}

/* Whether tcp = { rst = true } without letters asks for a reset as the RFC has it. */
static bool wants_reset(lua_State *L)
{
	bool wants = false;

	if (push(L, NQ_BUILD_ARGUMENT, "tcp") && lua_istable(L, -1)) {
		int table = lua_gettop(L);

		wants = push(L, table, "rst") && lua_toboolean(L, -1) && !push(L, table, "flags");
		lua_settop(L, table);
	}
	lua_pop(L, 1);
	return wants;
}

static bool wants_error(lua_State *L, uint8_t version)
{
	bool wants = false;

	if (push(L, NQ_BUILD_ARGUMENT, "icmp") && lua_istable(L, -1)) {
		int table = lua_gettop(L);

		wants = push(L, table, "type") && lua_isinteger(L, -1) &&
			lua_tointeger(L, -1) >= 0 && lua_tointeger(L, -1) <= 255 &&
			nq_icmp_is_error(version, (uint8_t)lua_tointeger(L, -1));
		lua_settop(L, table);
	}
	lua_pop(L, 1);
	return wants;
}

/* The packet at the top, or its bytes: what answers it becomes the description's start. */
static void read_reply(lua_State *L, struct nq_description *description)
{
	struct nq_packet bytes = {.have = NQ_HAVE_PAYLOAD};
	struct nq_packet *packet = &bytes;
	const char *reason;

	if (lua_type(L, -1) == LUA_TSTRING) {
		size_t length;

		bytes.data = (uint8_t *)lua_tolstring(L, -1, &length); /* only read */
		if (length > NQ_PACKET_MAX)
			nq_build_refuse(L, "reply", "longer than 65531 bytes");
		bytes.length = (uint32_t)length;
	} else {
		packet = nq_packet_at(L, -1);
		if (!packet) {
			nq_arg_error(L, -1, function, "reply", "packet or string");
			return; /* not reached */
		}
	}
	description->is_reply = true;
	if (wants_error(L, nq_packet_layout(packet)->version))
		reason = nq_answer_error(packet, &description->build);
	else if (wants_reset(L))
		reason = nq_answer_reset(packet, &description->build);
	else
		reason = nq_answer_reply(packet, &description->build);
	if (reason)
		nq_build_refuse(L, "reply", reason);
}

static void read_parts(lua_State *L, struct nq_description *description)
{
	static const struct {
		const char *name;
		enum nq_build_transport transport;
	} transports[] = {{"tcp", NQ_BUILD_TCP}, {"udp", NQ_BUILD_UDP}, {"icmp", NQ_BUILD_ICMP}};

	if (push(L, NQ_BUILD_ARGUMENT, "reply"))
		read_reply(L, description);
	if (push(L, NQ_BUILD_ARGUMENT, "ip") || !description->is_reply)
		nq_build_read_ip(L, description);
	for (int i = 0; i < 3; i++) {
		if (push(L, NQ_BUILD_ARGUMENT, transports[i].name))
			nq_build_read_transport(L, transports[i].transport, description);
		lua_pop(L, 1);
	}
	if (push(L, NQ_BUILD_ARGUMENT, "payload")) {
		description->build.payload = (const uint8_t *)nq_arg_string(
			L, -1, function, "payload", &description->build.payload_length);
		description->has_payload = true;
	}
	if (push(L, NQ_BUILD_ARGUMENT, "mtu"))
		description->mtu =
			(uint32_t)nq_arg_integer(L, -1, function, "mtu", MTU_LEAST, MTU_MOST);
	lua_settop(L, NQ_BUILD_ANCHOR);
}

static void settle(lua_State *L, struct nq_description *description)
{
	struct nq_build *build = &description->build;
	int most;

	nq_build_settle_transport(L, description);
	nq_build_settle_ip(L, description);
	if (description->is_reply && !(description->given & NQ_GIVEN_SRC) &&
	    !nq_address_is_host(build->ip.version, build->ip.src))
		nq_build_refuse(L, "reply", "it went to no single host: ip.src names who answers");
	most = build->ip.version == 4 ? NQ_BUILD_MAX4 : NQ_BUILD_MAX6;
	if (nq_build_size(build) > (size_t)most)
		luaL_error(L,
			   "bad argument 'payload' to 'build' (it makes a packet of more than %d "
			   "bytes)",
			   most);
}

/* Pushes the list of fragments. */
static void push_fragments(lua_State *L, const struct nq_description *description,
			   const uint8_t *bytes, uint32_t length)
{
	const struct nq_build_ip *ip = &description->build.ip;
	struct nq_split split;
	const char *reason =
		nq_split_plan(&split, bytes, length, description->mtu, description->id);

	if (reason)
		nq_build_refuse(L, "mtu", reason);
	if (split.count > 1 && ip->df)
		nq_build_refuse(L, "ip.df", "it forbids the fragments that mtu asks for");
	if (split.count > 1 && !(description->given & NQ_GIVEN_ID))
		nq_build_refuse(L, "ip.id", "fragments are known by it: one for each packet");
	lua_createtable(L, (int)split.count, 0);
	for (uint32_t i = 0; i < split.count; i++) {
		luaL_Buffer buffer;
		uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &buffer, description->mtu);
		uint32_t size = nq_split_write(&split, i, out);

		/* One that was given is every fragment's. */
		if (ip->version == 4 && ip->checksum != NQ_BUILD_COMPUTED)
			nq_put_u16(out + 10, (uint32_t)ip->checksum);
		luaL_pushresultsize(&buffer, size);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

/***
The bytes of a packet, correct in every length and checksum.

The version is that of the addresses. A key that is unknown, or a value that is none, raises and
names it (`tcp.dport`). A `checksum` that is given is written as given.

* `ip` (RFC 791, RFC 8200): `src`, `dst`; `ttl` (64), `tos` (0), `id`, `mf`, `frag_offset` (bytes),
  `protocol` (that of the transport). IPv4: `df` (true unless something says that the packet is, or
  may be, split), `options` (a string, or a table of values by type), `checksum`. IPv6: `flow_label`
  (0), `extensions`, a list of extension headers in order, each `{ hop_by_hop = options }`,
  `{ destination = options }` (a string, or a table of values by type), `{ routing = { type=, left=,
  addresses={} } }` (or a string), `{ fragment = { id=, mf=, frag_offset= } }`, `{ ah = string }`;
  strings are what follows the length byte. `id`, `mf` and `frag_offset` make a fragment header.
* `tcp` (RFC 9293): `sport`, `dport`; `seq`, `ack_seq`, `urg_ptr` (0), `window` (65535), `flags`
  (letters among FSRPAUEC) and the booleans `fin` to `cwr` ("S", or "PA" with a payload), `mss`,
  `options`: a string, or a table of values by kind or name: `mss`, `window_scale`,
  `sack_permitted = true`, `sack = { { left, right }, ... }`, `timestamps = { value, echo }`;
  `checksum`.
* `udp` (RFC 768): `sport`, `dport`; `checksum`.
* `icmp` (RFC 792, RFC 4443, by the version of IP): `type`; `code`, `id`, `seq` (0; the halves of
the second word, whatever the message has there), `checksum`; in an error `embedded`, the packet it
is about (a packet or bytes), of which as much is taken as belongs there.
* `payload`: a string. Without one of the three headers above it follows the IP header, as it is but
  for SCTP's checksum.
* `mtu`: the result is a list of fragments of at most so many bytes (of one packet where it fits).
* `reply`: the packet (or its bytes) that is answered. Addresses and ports are its own, swapped; for
  TCP the connection goes on (a SYN gets SYN and ACK, anything else is acknowledged, timestamps are
  echoed; `tcp = { rst = true }` gives RFC 9293's reset); an ICMP echo request gets its reply; an
  `icmp` table with the type of an error makes that error about it. The other keys change the reply.

@function build
@tparam table description `ip`, one of `tcp`, `udp` and `icmp`, `payload`, `mtu`, `reply`
@treturn string|{string,...} the packet from its IP header on; with `mtu` a list
@raise `bad argument 'tcp.dport' to 'build' (...)`, `unknown key 'tcp.dprot' to 'build'`; `bad
argument 'reply' to 'build' (...)` where nothing answers the packet: a reset, an ICMP error, a
fragment
@usage local syn = nfqueue.build{ ip = { src = "192.0.2.1", dst = "192.0.2.2" }, tcp = { sport =
40000, dport = 80, mss = 1460 } }
*/
int nq_packet_build(lua_State *L)
{
	struct nq_description description = {.flags = -1};
	uint32_t length;

	nq_arg_table(L, NQ_BUILD_ARGUMENT, function, "description");
	luaL_checkstack(L, 40, NULL);
	lua_settop(L, NQ_BUILD_ARGUMENT);
	lua_newtable(L);
	refuse_unknown(L);
	nq_build_init(&description.build);
	read_parts(L, &description);
	settle(L, &description);
	length = (uint32_t)nq_build_size(&description.build);
	if (description.mtu) {
		uint8_t *bytes = lua_newuserdatauv(L, length, 0);

		nq_build_write(&description.build, bytes);
		push_fragments(L, &description, bytes, length);
	} else {
		luaL_Buffer buffer;
		char *bytes = luaL_buffinitsize(L, &buffer, length);

		nq_build_write(&description.build, (uint8_t *)bytes);
		luaL_pushresultsize(&buffer, length);
	}
	return 1;
}
