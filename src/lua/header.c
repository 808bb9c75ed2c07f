#include "lua/header.h"

#include <arpa/inet.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/names.h"
#include "packet/bytes.h"
#include "packet/edit.h"
#include "packet/option.h"
#include "packet/print.h"

/* One class a protocol; `ip4` and `ip6` are the same class as `ip`. */
enum class { CLASS_IP, CLASS_TCP, CLASS_UDP, CLASS_ICMP, CLASS_COUNT };

struct header {
	struct nq_handle handle; /* of the packet */
	enum nq_header kind;
};

/* Registry keys: the addresses of its elements. */
static const char metatable_keys[CLASS_COUNT];

static const char *const class_names[CLASS_COUNT] = {"ip", "tcp", "udp", "icmp"};

static enum class class_of(enum nq_header header) {
	switch (header){
		case NQ_HEADER_TCP : return CLASS_TCP; case NQ_HEADER_UDP : return CLASS_UDP;
		case NQ_HEADER_ICMP : return CLASS_ICMP;
		default : return CLASS_IP;
	}
}

void nq_header_push(lua_State *L, struct nq_packet *packet, enum nq_header kind)
{
	const struct nq_handle *handle = lua_touserdata(L, 1);
	bool made = handle->cell->made;
	struct header *header;
	uint32_t offset;

	if (!nq_header_find(packet, kind, &offset)) {
		lua_pushnil(L);
		return;
	}
	/* A made packet's cell lies in its userdata, which the header keeps alive; other cells live
	 * on. */
	header = lua_newuserdatauv(L, sizeof(*header), made);
	header->handle = *handle;
	header->kind = kind;
	if (made) {
		lua_pushvalue(L, 1);
		lua_setiuservalue(L, -2, 1);
	}
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_keys[class_of(kind)]);
	lua_setmetatable(L, -2);
}

/*
 * First line of every method: upvalue 1 is the class's metatable. The header is looked for again,
 * since the content may have been replaced; usually the layout is known.
 */
static struct nq_packet *check_header(lua_State *L, enum class class, const char *method,
				      uint32_t *offset)
{
	struct header *header = lua_touserdata(L, 1);

	if (!header || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
		luaL_error(L, "bad argument 'self' to '%s' (%s header expected, got %s)", method,
			   class_names[class], luaL_typename(L, 1));
		return NULL; /* not reached */
	}
	lua_pop(L, 1);
	if (header->handle.generation != header->handle.cell->generation)
		luaL_error(L, "packet is no longer valid");
	if (!nq_header_find(header->handle.cell->packet, header->kind, offset))
		luaL_error(L, "the packet has no %s header any more", class_names[class]);
	return header->handle.cell->packet;
}

static void push_address(lua_State *L, const struct nq_packet *packet, bool source)
{
	char text[INET6_ADDRSTRLEN];
	bool is_ip6 = packet->layout.version == 6;
	uint32_t at = is_ip6 ? (source ? 8 : 24) : (source ? 12 : 16);

	if (inet_ntop(is_ip6 ? AF_INET6 : AF_INET, packet->data + at, text, sizeof(text)))
		lua_pushstring(L, text);
	else
		lua_pushnil(L);
}

static void push_address_bytes(lua_State *L, const struct nq_packet *packet, bool source)
{
	bool is_ip6 = packet->layout.version == 6;
	uint32_t at = is_ip6 ? (source ? 8 : 24) : (source ? 12 : 16);

	lua_pushlstring(L, (const char *)packet->data + at, is_ip6 ? 16 : 4);
}

/* --- IP: RFC 791, RFC 8200 ----------------------------------------------------------------------
 */

enum ip_field {
	FIELD_IP_VERSION = 1,
	FIELD_IP_SRC,
	FIELD_IP_DST,
	FIELD_IP_SRC_BYTES,
	FIELD_IP_DST_BYTES,
	FIELD_IP_TTL,
	FIELD_IP_TOS,
	FIELD_IP_ID,
	FIELD_IP_DF,
	FIELD_IP_MF,
	FIELD_IP_FRAG_OFFSET,
	FIELD_IP_LENGTH,
	FIELD_IP_PROTOCOL,
	FIELD_IP_CHECKSUM,
	FIELD_IP_OFFSET,
};

static const char *const ip_names[] = {
	"version", "src", "dst",	 "src_bytes", "dst_bytes", "ttl",      "tos",	 "id",
	"df",	   "mf",  "frag_offset", "length",    "protocol",  "checksum", "offset", NULL};

static void push_ip4(lua_State *L, const struct nq_packet *packet, enum ip_field field)
{
	const uint8_t *ip = packet->data;

	switch (field) {
	case FIELD_IP_TTL:
		lua_pushinteger(L, ip[8]);
		return;
	case FIELD_IP_TOS:
		lua_pushinteger(L, ip[1]);
		return;
	case FIELD_IP_ID:
		lua_pushinteger(L, nq_get_u16(ip + 4));
		return;
	case FIELD_IP_DF:
		lua_pushboolean(L, packet->layout.dont_fragment);
		return;
	case FIELD_IP_CHECKSUM:
		lua_pushinteger(L, nq_get_u16(ip + 10));
		return;
	default:
		lua_pushinteger(L, nq_get_u16(ip + 2)); /* FIELD_IP_LENGTH */
	}
}

static void push_ip6(lua_State *L, const struct nq_packet *packet, enum ip_field field)
{
	const uint8_t *ip = packet->data;
	uint32_t fragment = packet->layout.fragment_header;

	switch (field) {
	case FIELD_IP_TTL:
		lua_pushinteger(L, ip[7]);
		return;
	case FIELD_IP_TOS:
		lua_pushinteger(L, nq_get_u16(ip) >> 4 & 0xff);
		return;
	case FIELD_IP_ID:
		if (fragment)
			lua_pushinteger(L, nq_get_u32(ip + fragment + 4));
		else
			lua_pushnil(L);
		return;
	case FIELD_IP_LENGTH:
		lua_pushinteger(L, nq_get_u16(ip + 4) + 40);
		return;
	default:
		lua_pushnil(L); /* no DF bit, no checksum */
	}
}

static void push_ip(lua_State *L, const struct nq_packet *packet, enum ip_field field)
{
	const struct nq_layout *layout = &packet->layout;

	switch (field) {
	case FIELD_IP_VERSION:
		lua_pushinteger(L, layout->version);
		return;
	case FIELD_IP_SRC:
	case FIELD_IP_DST:
		push_address(L, packet, field == FIELD_IP_SRC);
		return;
	case FIELD_IP_SRC_BYTES:
	case FIELD_IP_DST_BYTES:
		push_address_bytes(L, packet, field == FIELD_IP_SRC_BYTES);
		return;
	case FIELD_IP_MF:
		lua_pushboolean(L, layout->more_fragments);
		return;
	case FIELD_IP_FRAG_OFFSET:
		lua_pushinteger(L, layout->frag_offset);
		return;
	case FIELD_IP_PROTOCOL:
		lua_pushinteger(L, layout->protocol);
		return;
	case FIELD_IP_OFFSET:
		lua_pushinteger(L, 0);
		return;
	default:
		if (layout->version == 4)
			push_ip4(L, packet, field);
		else
			push_ip6(L, packet, field);
	}
}

/* --- TCP: RFC 9293 ------------------------------------------------------------------------------
 */

enum tcp_field {
	FIELD_TCP_SPORT = 1,
	FIELD_TCP_DPORT,
	FIELD_TCP_SEQ,
	FIELD_TCP_ACK_SEQ,
	FIELD_TCP_FLAGS,
	FIELD_TCP_WINDOW,
	FIELD_TCP_URG_PTR,
	FIELD_TCP_MSS,
	FIELD_TCP_CHECKSUM,
	FIELD_TCP_FIN, /* the booleans, in the order of their bits */
	FIELD_TCP_SYN,
	FIELD_TCP_RST,
	FIELD_TCP_PSH,
	FIELD_TCP_ACK,
	FIELD_TCP_URG,
	FIELD_TCP_ECE,
	FIELD_TCP_CWR,
	FIELD_TCP_OFFSET,
	FIELD_TCP_OPTION, /* a method */
};

static const char *const tcp_names[] = {"sport",  "dport",   "seq",    "ack_seq",  "flags",
					"window", "urg_ptr", "mss",    "checksum", "fin",
					"syn",	  "rst",     "psh",    "ack",	   "urg",
					"ece",	  "cwr",     "offset", "option",   NULL};

enum { OPTION_MSS = 2 };

static void push_tcp(lua_State *L, const struct nq_packet *packet, uint32_t offset,
		     enum tcp_field field)
{
	const uint8_t *tcp = packet->data + offset;
	char letters[9];
	uint32_t value;
	uint8_t length;

	switch (field) {
	case FIELD_TCP_SPORT:
		lua_pushinteger(L, nq_get_u16(tcp));
		return;
	case FIELD_TCP_DPORT:
		lua_pushinteger(L, nq_get_u16(tcp + 2));
		return;
	case FIELD_TCP_SEQ:
		lua_pushinteger(L, nq_get_u32(tcp + 4));
		return;
	case FIELD_TCP_ACK_SEQ:
		lua_pushinteger(L, nq_get_u32(tcp + 8));
		return;
	case FIELD_TCP_FLAGS:
		nq_tcp_flags_print(tcp[13], letters);
		lua_pushstring(L, letters);
		return;
	case FIELD_TCP_WINDOW:
		lua_pushinteger(L, nq_get_u16(tcp + 14));
		return;
	case FIELD_TCP_CHECKSUM:
		lua_pushinteger(L, nq_get_u16(tcp + 16));
		return;
	case FIELD_TCP_URG_PTR:
		lua_pushinteger(L, nq_get_u16(tcp + 18));
		return;
	case FIELD_TCP_MSS:
		if (nq_tcp_option_find(packet, offset, OPTION_MSS, &value, &length) && length == 2)
			lua_pushinteger(L, nq_get_u16(packet->data + value));
		else
			lua_pushnil(L);
		return;
	case FIELD_TCP_OFFSET:
		lua_pushinteger(L, offset);
		return;
	default:
		lua_pushboolean(L, tcp[13] >> (field - FIELD_TCP_FIN) & 1);
	}
}

/***
The value of an option of a TCP header, without its kind and length bytes.
@function tcp:option
@tparam integer kind 2 to 255 (IANA: 2 MSS, 3 window scale, 4 SACK permitted, 5 SACK, 8 timestamps)
@treturn string possibly empty; nil when the option is not there
@raise `packet is no longer valid`
*/
static int tcp_option(lua_State *L)
{
	uint32_t offset, value;
	uint8_t length;
	struct nq_packet *packet = check_header(L, CLASS_TCP, "option", &offset);
	uint8_t kind = (uint8_t)nq_arg_integer(L, 2, "option", "kind", 2, 255);

	if (nq_tcp_option_find(packet, offset, kind, &value, &length))
		lua_pushlstring(L, (const char *)packet->data + value, length);
	else
		lua_pushnil(L);
	return 1;
}

static const luaL_Reg tcp_methods[] = {{"option", tcp_option}, {NULL, NULL}};

/* --- UDP: RFC 768 -------------------------------------------------------------------------------
 */

enum udp_field {
	FIELD_UDP_SPORT = 1,
	FIELD_UDP_DPORT,
	FIELD_UDP_LENGTH,
	FIELD_UDP_CHECKSUM,
	FIELD_UDP_OFFSET
};

static const char *const udp_names[] = {"sport", "dport", "length", "checksum", "offset", NULL};

static void push_udp(lua_State *L, const struct nq_packet *packet, uint32_t offset,
		     enum udp_field field)
{
	if (field == FIELD_UDP_OFFSET)
		lua_pushinteger(L, offset);
	else
		lua_pushinteger(L,
				nq_get_u16(packet->data + offset + 2 * (field - FIELD_UDP_SPORT)));
}

/* --- ICMP: RFC 792, RFC 4443 --------------------------------------------------------------------
 */

enum icmp_field {
	FIELD_ICMP_TYPE = 1,
	FIELD_ICMP_CODE,
	FIELD_ICMP_ID,
	FIELD_ICMP_SEQ,
	FIELD_ICMP_CHECKSUM,
	FIELD_ICMP_OFFSET
};

static const char *const icmp_names[] = {"type", "code", "id", "seq", "checksum", "offset", NULL};

static void push_icmp(lua_State *L, const struct nq_packet *packet, uint32_t offset,
		      enum icmp_field field)
{
	const uint8_t *icmp = packet->data + offset;

	switch (field) {
	case FIELD_ICMP_TYPE:
		lua_pushinteger(L, icmp[0]);
		return;
	case FIELD_ICMP_CODE:
		lua_pushinteger(L, icmp[1]);
		return;
	case FIELD_ICMP_CHECKSUM:
		lua_pushinteger(L, nq_get_u16(icmp + 2));
		return;
	case FIELD_ICMP_OFFSET:
		lua_pushinteger(L, offset);
		return;
	default:
		/* The second word, as echo messages use it; a message of 4 bytes has none. */
		if (packet->length - offset < 8)
			lua_pushnil(L);
		else
			lua_pushinteger(L, nq_get_u16(icmp + (field == FIELD_ICMP_ID ? 4 : 6)));
	}
}

/* ------------------------------------------------------------------------------------------------
 */

static int unknown_field(lua_State *L, enum class class)
{
	return luaL_error(L, "%s has no field '%s'", class_names[class],
			  luaL_tolstring(L, 2, NULL));
}

/* Upvalues: metatable, names, the class, and its methods by code. */
static int header_index(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(3));
	uint32_t offset;
	const struct nq_packet *packet = check_header(L, class, "index", &offset);
	unsigned code = nq_names_find(lua_touserdata(L, lua_upvalueindex(2)), L, 2);

	if (!code)
		return unknown_field(L, class);
	switch (class) {
	case CLASS_IP:
		push_ip(L, packet, (enum ip_field)code);
		break;
	case CLASS_TCP:
		if (code >= FIELD_TCP_OPTION)
			lua_rawgeti(L, lua_upvalueindex(4), code);
		else
			push_tcp(L, packet, offset, (enum tcp_field)code);
		break;
	case CLASS_UDP:
		push_udp(L, packet, offset, (enum udp_field)code);
		break;
	default:
		push_icmp(L, packet, offset, (enum icmp_field)code);
	}
	return 1;
}

static int header_newindex(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(3));
	uint32_t offset;

	(void)check_header(L, class, "newindex", &offset);
	if (!nq_names_find(lua_touserdata(L, lua_upvalueindex(2)), L, 2))
		return unknown_field(L, class);
	return luaL_error(
		L, "%s field '%s' is read-only; bytes are changed with pkt:u8, u16, u32, patch",
		class_names[class], lua_tostring(L, 2));
}

static int header_tostring(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(3));
	const struct header *header = lua_touserdata(L, 1);

	if (!header || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
		return luaL_error(L,
				  "bad argument 'self' to 'tostring' (%s header expected, got %s)",
				  class_names[class], luaL_typename(L, 1));
	lua_pushfstring(L, "%s header%s", class_names[class],
			header->handle.generation == header->handle.cell->generation
				? ""
				: " (no longer valid)");
	return 1;
}

/* Pushes the table of a class's methods by code. -1 names, -2 metatable */
static void push_methods(lua_State *L, const struct nq_names *names, const luaL_Reg *methods)
{
	lua_newtable(L);
	for (; methods->name; methods++) {
		lua_pushstring(L, methods->name);
		lua_pushvalue(L, -4);
		lua_pushcclosure(L, methods->func, 1);
		lua_rawseti(L, -3, nq_names_find(names, L, -2));
		lua_pop(L, 1);
	}
}

void nq_header_register(lua_State *L)
{
	static const luaL_Reg none[] = {{NULL, NULL}};
	static const struct {
		const char *const *names;
		const luaL_Reg *methods;
	} classes[CLASS_COUNT] = {
		{ip_names, none}, {tcp_names, tcp_methods}, {udp_names, none}, {icmp_names, none}};
	static const luaL_Reg metamethods[] = {{"__index", header_index},
					       {"__newindex", header_newindex},
					       {"__tostring", header_tostring},
					       {NULL, NULL}};

	for (int class = 0; class < CLASS_COUNT; class ++) {
		lua_newtable(L);
		push_methods(L, nq_names_new(L, classes[class].names), classes[class].methods);
		/* -1 methods, -2 names, -3 metatable */
		for (const luaL_Reg *function = metamethods; function->name; function++) {
			lua_pushvalue(L, -3);
			lua_pushvalue(L, -3);
			lua_pushinteger(L, class);
			lua_pushvalue(L, -4);
			lua_pushcclosure(L, function->func, 4);
			lua_setfield(L, -4, function->name);
		}
		lua_pop(L, 2);
		lua_pushfstring(L, "nfqueue.%s", class_names[class]);
		lua_pushvalue(L, -1);
		lua_setfield(L, -3, "__name");
		lua_setfield(L, -2, "__metatable");
		lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_keys[class]);
	}
}
