/* Packets without a kernel: nfqueue.packet, for specs, replay and check. */
#include <ctype.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"

#define U32_MAX 0xffffffffLL

enum kind {
	META_U32,
	META_LENGTH,
	META_ETHERTYPE,
	META_FAMILY,
	META_HOOK,
	META_TIMESTAMP,
	META_BOOLEAN,
	META_NAME,
	META_HWADDR,
	META_VLAN,
	META_L2HEADER,
	META_SECCTX,
	META_QUEUE,
	META_CT,
};

static const struct meta {
	const char *name;
	enum kind kind;
	size_t offset; /* META_U32: of the field; META_NAME: which */
	uint32_t have;
} metas[] = {
	{"id", META_U32, offsetof(struct nq_packet, id), NQ_HAVE_HEADER},
	{"mark", META_U32, offsetof(struct nq_packet, mark), 0},
	{"priority", META_U32, offsetof(struct nq_packet, priority), 0},
	{"iif", META_U32, offsetof(struct nq_packet, iif), NQ_HAVE_IIF},
	{"oif", META_U32, offsetof(struct nq_packet, oif), NQ_HAVE_OIF},
	{"physiif", META_U32, offsetof(struct nq_packet, physiif), NQ_HAVE_PHYSIIF},
	{"physoif", META_U32, offsetof(struct nq_packet, physoif), NQ_HAVE_PHYSOIF},
	{"uid", META_U32, offsetof(struct nq_packet, uid), NQ_HAVE_UID},
	{"gid", META_U32, offsetof(struct nq_packet, gid), NQ_HAVE_GID},
	{"cgroup", META_U32, offsetof(struct nq_packet, cgroup), NQ_HAVE_CGROUP},
	{"length", META_LENGTH, 0, NQ_HAVE_WIRE_LENGTH},
	{"ethertype", META_ETHERTYPE, 0, 0},
	{"family", META_FAMILY, 0, 0}, /* before hook, whose numbers depend on it */
	{"hook", META_HOOK, 0, 0},
	{"timestamp", META_TIMESTAMP, 0, NQ_HAVE_TIMESTAMP},
	{"gso", META_BOOLEAN, 0, 0},
	{"iifname", META_NAME, 0, 0},
	{"oifname", META_NAME, 1, 0},
	{"physiifname", META_NAME, 2, 0},
	{"physoifname", META_NAME, 3, 0},
	{"hwaddr", META_HWADDR, 0, 0},
	{"vlan", META_VLAN, 0, NQ_HAVE_VLAN},
	{"l2header", META_L2HEADER, 0, 0},
	{"secctx", META_SECCTX, 0, 0},
	{"queue", META_QUEUE, 0, 0},
	{"ct", META_CT, 0, 0},
};

static const char function[] = "packet";

/* Keeps the string at the top alive with the packet, whose handle is at index `self`. */
static const char *keep_string(lua_State *L, int self, const char *name, size_t *length)
{
	const char *text = nq_arg_string(L, -1, function, name, length);

	if (*length > 65535)
		luaL_error(L, "bad argument '%s' to 'packet' (longer than 65535 bytes)", name);
	lua_getiuservalue(L, self, 3);
	lua_pushvalue(L, -2);
	lua_setfield(L, -2, name);
	lua_pop(L, 1);
	return text;
}

static void read_hwaddr(lua_State *L, struct nq_packet *packet)
{
	size_t length;
	const char *text = nq_arg_string(L, -1, function, "hwaddr", &length);
	size_t count = (length + 1) / 3;

	if (length % 3 != 2 || count > sizeof(packet->hwaddr))
		nq_arg_error(L, -1, function, "hwaddr", "address like 00:11:22:33:44:55");
	for (size_t i = 0; i < count; i++) {
		char byte[3] = {text[3 * i], text[3 * i + 1], '\0'};

		if (!isxdigit((unsigned char)byte[0]) || !isxdigit((unsigned char)byte[1]) ||
		    (i + 1 < count && text[3 * i + 2] != ':'))
			nq_arg_error(L, -1, function, "hwaddr", "address like 00:11:22:33:44:55");
		packet->hwaddr[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	packet->hwaddr_length = (uint8_t)count;
}

static uint8_t find_name(lua_State *L, const char *name,
			 const char *(*names)(uint8_t family, uint8_t number), uint8_t family,
			 uint8_t count)
{
	const char *wanted = nq_arg_string(L, -1, function, name, NULL);

	for (uint8_t i = 0; i < count; i++) {
		const char *known = names(family, i);

		if (known && strcmp(known, wanted) == 0)
			return i;
	}
	nq_arg_error(L, -1, function, name, "a name as nft prints it");
	return 0;
}

static const char *family_name(uint8_t family, uint8_t number)
{
	(void)family;
	return nq_family_name(number);
}

/* The number of "input", or of the first hook where a family has none of that name. */
static uint8_t input_hook(uint8_t family)
{
	for (uint8_t hook = 0; hook < 5; hook++) {
		const char *name = nq_hook_name(family, hook);

		if (name && strcmp(name, "input") == 0)
			return hook;
	}
	return 0;
}

static void read_meta(lua_State *L, const struct meta *meta, int self, struct nq_made_packet *made)
{
	struct nq_packet *packet = &made->packet;
	lua_Number seconds;
	size_t length;
	uint32_t value;

	switch (meta->kind) {
	case META_U32:
		value = (uint32_t)nq_arg_integer(L, -1, function, meta->name, 0, U32_MAX);
		memcpy((char *)packet + meta->offset, &value, sizeof(value));
		break;
	case META_LENGTH:
		packet->wire_length = (uint32_t)nq_arg_integer(L, -1, function, meta->name,
							       packet->length, U32_MAX);
		break;
	case META_ETHERTYPE:
		packet->ethertype = (uint16_t)nq_arg_integer(L, -1, function, meta->name, 0, 65535);
		break;
	case META_FAMILY:
		packet->family = find_name(L, meta->name, family_name, 0, 16);
		packet->hook = input_hook(packet->family);
		break;
	case META_HOOK:
		packet->hook = find_name(L, meta->name, nq_hook_name, packet->family, 5);
		break;
	case META_TIMESTAMP:
		seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
		if (!(seconds >= 0 && seconds < 1e15))
			nq_arg_error(L, -1, function, meta->name, "seconds since 1970");
		packet->seconds = (uint64_t)seconds;
		packet->microseconds = (uint64_t)((seconds - floor(seconds)) * 1e6 + 0.5);
		break;
	case META_BOOLEAN:
		packet->gso = nq_arg_boolean(L, -1, function, meta->name);
		break;
	case META_NAME:
		nq_arg_string(L, -1, function, meta->name, &length);
		if (length == 0 || length >= sizeof(made->names[0]))
			nq_arg_error(L, -1, function, meta->name,
				     "interface name of 1 to 15 bytes");
		memcpy(made->names[meta->offset], lua_tostring(L, -1), length + 1);
		break;
	case META_HWADDR:
		read_hwaddr(L, packet);
		break;
	case META_VLAN:
		packet->vlan_tci = (uint16_t)nq_arg_integer(L, -1, function, meta->name, 0, 4095);
		packet->vlan_proto = 0x8100;
		break;
	case META_L2HEADER:
		packet->l2header = (const uint8_t *)keep_string(L, self, meta->name, &length);
		packet->l2header_length = (uint16_t)length;
		break;
	case META_SECCTX:
		packet->secctx = keep_string(L, self, meta->name, &length);
		packet->secctx_length = (uint16_t)length;
		break;
	case META_QUEUE:
		packet->queue = (uint16_t)nq_arg_integer(L, -1, function, meta->name, 0, 65535);
		break;
	case META_CT:
		nq_arg_table(L, -1, function, meta->name);
		lua_getiuservalue(L, self, 3);
		lua_pushvalue(L, -2);
		lua_setfield(L, -2, meta->name);
		lua_pop(L, 1);
		break;
	}
	packet->have |= meta->have;
}

static void refuse_unknown(lua_State *L, int table)
{
	lua_pushnil(L);
	while (lua_next(L, table)) {
		size_t i = 0;

		while (i < sizeof(metas) / sizeof(metas[0]) &&
		       (lua_type(L, -2) != LUA_TSTRING ||
			strcmp(metas[i].name, lua_tostring(L, -2)) != 0))
			i++;
		if (i == sizeof(metas) / sizeof(metas[0]))
			luaL_error(L, "unknown key '%s' in the meta table of 'packet'",
				   luaL_tolstring(L, -2, NULL));
		lua_pop(L, 1);
	}
}

/***
Make a packet without a kernel: the same class that handlers get. Its `verdict`, `mark`, `bytes()`
and `sent` (the bytes that would leave; nil when undecided or dropped) stay readable after the
handler.
@function packet
@tparam string bytes from the network header on, at most 65531
@tparam[opt] table meta `id family hook ethertype timestamp mark priority iif oif physiif physoif
iifname oifname physiifname physoifname hwaddr vlan l2header uid gid secctx cgroup gso queue`, and
`length`: bytes on the wire, more than there are for a truncated packet. Family and ethertype
default to the version of the bytes, the hook to "input".
@treturn packet
*/
int nq_packet_make(lua_State *L)
{
	struct nq_made_packet *made;
	struct nq_packet *packet;
	size_t length;
	const char *bytes = nq_arg_string(L, 1, function, "bytes", &length);
	bool is_ip6 = length > 0 && (uint8_t)bytes[0] >> 4 == 6;
	int self;

	if (length > NQ_PACKET_MAX)
		return luaL_error(L, "bad argument 'bytes' to 'packet' (%d bytes; at most 65531)",
				  (int)length);
	if (!lua_isnoneornil(L, 2)) {
		nq_arg_table(L, 2, function, "meta");
		refuse_unknown(L, 2);
	}
	lua_settop(L, 2);
	made = nq_packet_new_made(L);
	self = lua_gettop(L);
	packet = &made->packet;
	packet->data = lua_newuserdatauv(L, length, 0);
	memcpy(packet->data, bytes, length);
	lua_setiuservalue(L, self, 1);
	if (lua_istable(L, 2)) {
		lua_newtable(L);
		lua_setiuservalue(L, self, 3);
	}
	packet->length = (uint32_t)length;
	packet->have = NQ_HAVE_PAYLOAD;
	packet->family = is_ip6 ? 10 : 2;
	packet->ethertype = is_ip6 ? 0x86dd : 0x0800;
	packet->hook = input_hook(packet->family);
	for (size_t i = 0; i < sizeof(metas) / sizeof(metas[0]) && lua_istable(L, 2); i++) {
		if (lua_getfield(L, 2, metas[i].name) != LUA_TNIL)
			read_meta(L, &metas[i], self, made);
		lua_pop(L, 1);
	}
	lua_settop(L, self);
	return 1;
}
