/* The properties of a packet: names that are none raise, information that is absent is nil. */
#include <lauxlib.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/conntrack.h"
#include "lua/header.h"
#include "lua/lane.h"
#include "lua/names.h"
#include "lua/packet.h"
#include "packet/edit.h"
#include "packet/reject.h"
#include "packet/tuple.h"

/* Codes are positions in nq_packet_names, from 1; methods come behind FIELD_COUNT. */
enum field {
	FIELD_ID = 1,
	FIELD_FAMILY,
	FIELD_HOOK,
	FIELD_ETHERTYPE,
	FIELD_TIMESTAMP,
	FIELD_VERDICT,
	FIELD_LENGTH,
	FIELD_TRUNCATED,
	FIELD_GSO,
	FIELD_MARK,
	FIELD_PRIORITY,
	FIELD_IIF,
	FIELD_OIF,
	FIELD_PHYSIIF,
	FIELD_PHYSOIF,
	FIELD_IIFNAME,
	FIELD_OIFNAME,
	FIELD_PHYSIIFNAME,
	FIELD_PHYSOIFNAME,
	FIELD_HWADDR,
	FIELD_VLAN,
	FIELD_L2HEADER,
	FIELD_UID,
	FIELD_GID,
	FIELD_SECCTX,
	FIELD_CGROUP,
	FIELD_SENT,
	FIELD_ANSWER,
	FIELD_CT,
	FIELD_IP,
	FIELD_IP4,
	FIELD_IP6,
	FIELD_TCP,
	FIELD_UDP,
	FIELD_ICMP,
	FIELD_PAYLOAD,
	FIELD_PAYLOAD_OFFSET,
	FIELD_TUPLE,
	FIELD_COUNT,
};

const char *const nq_packet_names[] = {
	"id",
	"family",
	"hook",
	"ethertype",
	"timestamp",
	"verdict",
	"length",
	"truncated",
	"gso",
	"mark",
	"priority",
	"iif",
	"oif",
	"physiif",
	"physoif",
	"iifname",
	"oifname",
	"physiifname",
	"physoifname",
	"hwaddr",
	"vlan",
	"l2header",
	"uid",
	"gid",
	"secctx",
	"cgroup",
	"sent",
	"answer",
	"ct",
	"ip",
	"ip4",
	"ip6",
	"tcp",
	"udp",
	"icmp",
	"payload",
	"payload_offset",
	"tuple",
	/* methods */
	"accept",
	"drop",
	"modify",
	"again",
	"requeue",
	"reject",
	"delay",
	"hold",
	"u8",
	"u16",
	"u24",
	"u32",
	"bytes",
	"patch",
	"unpack",
	"find",
	NULL,
};

static int unknown_field(lua_State *L)
{
	const char *where = NULL;

	if (lua_type(L, 2) == LUA_TSTRING)
		where = nq_header_push_owners(L, lua_tostring(L, 2));
	return nq_names_refuse(L, 2, "packet", nq_packet_names, where);
}

static void push_string(lua_State *L, const char *text)
{
	if (text)
		lua_pushstring(L, text);
	else
		lua_pushnil(L);
}

static void push_u32(lua_State *L, const struct nq_packet *packet, uint32_t bit, uint32_t value)
{
	if (packet->have & bit)
		lua_pushinteger(L, value);
	else
		lua_pushnil(L);
}

/* The name an interface has now, in this thread's network namespace; nil when it is gone. */
static void push_interface(lua_State *L, const struct nq_packet *packet, uint32_t bit,
			   uint32_t index, unsigned which)
{
	struct nq_made_packet *made = nq_packet_made(L, 1);
	char name[IF_NAMESIZE];

	if (made && made->names[which][0])
		lua_pushstring(L, made->names[which]);
	else if (packet->have & bit && nq_raw_interface_name(nq_state_get(L)->raw, index, name))
		lua_pushstring(L, name);
	else
		lua_pushnil(L);
}

static void push_hwaddr(lua_State *L, const struct nq_packet *packet)
{
	char text[3 * sizeof(packet->hwaddr) + 1];

	if (packet->hwaddr_length == 0) {
		lua_pushnil(L);
		return;
	}
	for (unsigned i = 0; i < packet->hwaddr_length; i++)
		snprintf(text + (size_t)(3 * i), 4, "%02x:", packet->hwaddr[i]);
	lua_pushlstring(L, text, 3U * packet->hwaddr_length - 1);
}

static void push_length(lua_State *L, const struct nq_packet *packet)
{
	if (packet->have & NQ_HAVE_WIRE_LENGTH)
		lua_pushinteger(L, packet->wire_length);
	else
		push_u32(L, packet, NQ_HAVE_PAYLOAD, packet->length);
}

static void push_sent(lua_State *L)
{
	struct nq_made_packet *made = nq_packet_made(L, 1);

	if (!made || made->packet.verdict == NQ_UNDECIDED || made->packet.verdict == NQ_DROP ||
	    made->packet.verdict == NQ_REJECT ||
	    (made->packet.verdict == NQ_DELAY && !made->released))
		lua_pushnil(L);
	else
		lua_pushlstring(L, made->packet.length ? (const char *)made->packet.data : "",
				made->packet.length);
}

/* What answers a rejected packet; nil when nothing does. */
static void push_answer(lua_State *L, struct nq_packet *packet)
{
	uint8_t bytes[NQ_REJECT_MOST];
	struct nq_build build;

	if (packet->verdict != NQ_REJECT || nq_reject_answer(packet, &build)) {
		lua_pushnil(L);
		return;
	}
	nq_build_write(&build, bytes);
	lua_pushlstring(L, (const char *)bytes, nq_build_size(&build));
}

/* A made packet has the table it was given. */
static void push_ct(lua_State *L, const struct nq_packet *packet)
{
	if (!nq_packet_made(L, 1)) {
		nq_conntrack_push(L, packet);
		return;
	}
	if (lua_getiuservalue(L, 1, 3) != LUA_TTABLE)
		return; /* made without a meta table: nil */
	lua_getfield(L, -1, "ct");
	lua_remove(L, -2);
}

static void push_payload(lua_State *L, struct nq_packet *packet, bool only_offset)
{
	uint32_t offset, end;

	if (!nq_payload_find(packet, &offset, &end))
		lua_pushnil(L);
	else if (only_offset)
		lua_pushinteger(L, offset);
	else
		lua_pushlstring(L, end > offset ? (const char *)packet->data + offset : "",
				end - offset);
}

static void push_tuple(lua_State *L, struct nq_packet *packet)
{
	const struct nq_flow_tuple *tuple;
	char text[NQ_TUPLE_SIZE];

	if (nq_tuple_find(packet, &tuple))
		lua_pushlstring(L, text, nq_tuple_print(tuple, text));
	else
		lua_pushnil(L);
}

static void push_field(lua_State *L, struct nq_packet *packet, enum field field)
{
	switch (field) {
	case FIELD_ID:
		lua_pushinteger(L, packet->id);
		return;
	case FIELD_FAMILY:
		push_string(L, nq_family_name(packet->family));
		return;
	case FIELD_HOOK:
		push_string(L, nq_hook_name(packet->family, packet->hook));
		return;
	case FIELD_ETHERTYPE:
		lua_pushinteger(L, packet->ethertype);
		return;
	case FIELD_TIMESTAMP:
		if (packet->have & NQ_HAVE_TIMESTAMP)
			lua_pushnumber(L, (lua_Number)packet->seconds +
						  (lua_Number)packet->microseconds / 1e6);
		else
			lua_pushnil(L);
		return;
	case FIELD_VERDICT:
		push_string(L, nq_verdict_name(packet->verdict));
		return;
	case FIELD_LENGTH:
		push_length(L, packet);
		return;
	case FIELD_TRUNCATED:
		lua_pushboolean(L, nq_packet_truncated(packet));
		return;
	case FIELD_GSO:
		lua_pushboolean(L, packet->gso);
		return;
	case FIELD_MARK:
		lua_pushinteger(L, packet->mark);
		return;
	case FIELD_PRIORITY:
		lua_pushinteger(L, packet->priority);
		return;
	case FIELD_IIF:
		push_u32(L, packet, NQ_HAVE_IIF, packet->iif);
		return;
	case FIELD_OIF:
		push_u32(L, packet, NQ_HAVE_OIF, packet->oif);
		return;
	case FIELD_PHYSIIF:
		push_u32(L, packet, NQ_HAVE_PHYSIIF, packet->physiif);
		return;
	case FIELD_PHYSOIF:
		push_u32(L, packet, NQ_HAVE_PHYSOIF, packet->physoif);
		return;
	case FIELD_IIFNAME:
		push_interface(L, packet, NQ_HAVE_IIF, packet->iif, 0);
		return;
	case FIELD_OIFNAME:
		push_interface(L, packet, NQ_HAVE_OIF, packet->oif, 1);
		return;
	case FIELD_PHYSIIFNAME:
		push_interface(L, packet, NQ_HAVE_PHYSIIF, packet->physiif, 2);
		return;
	case FIELD_PHYSOIFNAME:
		push_interface(L, packet, NQ_HAVE_PHYSOIF, packet->physoif, 3);
		return;
	case FIELD_HWADDR:
		push_hwaddr(L, packet);
		return;
	case FIELD_VLAN:
		/* The 12 bits of VLAN ID; priority and DEI are no part of it (IEEE 802.1Q). */
		push_u32(L, packet, NQ_HAVE_VLAN, packet->vlan_tci & 0xfff);
		return;
	case FIELD_L2HEADER:
		if (packet->l2header)
			lua_pushlstring(L, (const char *)packet->l2header, packet->l2header_length);
		else
			lua_pushnil(L);
		return;
	case FIELD_UID:
		push_u32(L, packet, NQ_HAVE_UID, packet->uid);
		return;
	case FIELD_GID:
		push_u32(L, packet, NQ_HAVE_GID, packet->gid);
		return;
	case FIELD_SECCTX:
		if (packet->secctx_length)
			/* some kernels count the terminating zero in */
			lua_pushlstring(L, packet->secctx,
					strnlen(packet->secctx, packet->secctx_length));
		else
			lua_pushnil(L);
		return;
	case FIELD_CGROUP:
		push_u32(L, packet, NQ_HAVE_CGROUP, packet->cgroup);
		return;
	case FIELD_SENT:
		push_sent(L);
		return;
	case FIELD_ANSWER:
		push_answer(L, packet);
		return;
	case FIELD_CT:
		push_ct(L, packet);
		return;
	case FIELD_IP:
	case FIELD_IP4:
	case FIELD_IP6:
	case FIELD_TCP:
	case FIELD_UDP:
	case FIELD_ICMP:
		nq_header_push(L, packet, (enum nq_header)(NQ_HEADER_IP + (field - FIELD_IP)),
			       lua_upvalueindex(3));
		return;
	case FIELD_PAYLOAD:
	case FIELD_PAYLOAD_OFFSET:
		push_payload(L, packet, field == FIELD_PAYLOAD_OFFSET);
		return;
	case FIELD_TUPLE:
		push_tuple(L, packet);
		return;
	case FIELD_COUNT:
		lua_pushnil(L);
		return;
	}
}

int nq_packet_index(lua_State *L)
{
	unsigned code = nq_names_find(lua_touserdata(L, lua_upvalueindex(1)), L, 2);

	/* A method checks the packet itself when it is called. */
	if (code >= FIELD_COUNT) {
		lua_rawgeti(L, lua_upvalueindex(2), code);
	} else {
		struct nq_packet *packet = nq_packet_check(L, "index");

		if (!code)
			return unknown_field(L);
		push_field(L, packet, (enum field)code);
	}
	return 1;
}

static void set_payload(lua_State *L, struct nq_packet *packet)
{
	size_t length;
	const char *bytes = nq_arg_string(L, 3, "packet", "payload", &length);
	uint32_t offset, end;

	if (!nq_payload_find(packet, &offset, &end) || length != end - offset)
		nq_packet_room(L, packet);
	nq_packet_refuse(L, nq_edit_payload(packet, (const uint8_t *)bytes, length, false));
}

int nq_packet_newindex(lua_State *L)
{
	struct nq_packet *packet;
	unsigned code;

	nq_packet_check(L, "newindex");
	code = nq_names_find(lua_touserdata(L, lua_upvalueindex(1)), L, 2);
	if (!code)
		return unknown_field(L);
	packet = nq_packet_check_open(L, "newindex");
	switch (code) {
	case FIELD_MARK:
		packet->mark = (uint32_t)nq_arg_integer(L, 3, "packet", "mark", 0, 0xffffffff);
		packet->send_mark = packet->mark;
		packet->send |= NQ_SEND_MARK;
		return 0;
	case FIELD_PRIORITY:
		packet->priority =
			(uint32_t)nq_arg_integer(L, 3, "packet", "priority", 0, 0xffffffff);
		packet->send_priority = packet->priority;
		packet->send |= NQ_SEND_PRIORITY;
		return 0;
	case FIELD_PAYLOAD:
		set_payload(L, packet);
		return 0;
	default:
		return luaL_error(L, "packet field '%s' is read-only", lua_tostring(L, 2));
	}
}
