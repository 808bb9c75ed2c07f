/* Fields of headers, assigned: each an edit in place, refused where it cannot come out right. */
#include <arpa/inet.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/header_parts.h"
#include "packet/bytes.h"
#include "packet/edit.h"
#include "packet/icmp.h"
#include "packet/option.h"
#include "packet/print.h"

/* Raises "tcp field 'x' is read-only: why". */
static void refuse_field(lua_State *L, enum class class, const char *why)
{
	luaL_error(L, "%s field '%s' is read-only: %s", nq_header_class_names[class],
		   lua_tostring(L, 2), why);
}

static lua_Integer check_value(lua_State *L, enum class class, lua_Integer most)
{
	return nq_arg_integer(L, 3, nq_header_class_names[class], lua_tostring(L, 2), 0, most);
}

static void set_u8(lua_State *L, struct nq_packet *packet, enum class class, uint32_t at)
{
	uint8_t byte = (uint8_t)check_value(L, class, 0xff);

	nq_packet_refuse(L, nq_edit_patch(packet, at, &byte, 1));
}

static void set_u16(lua_State *L, struct nq_packet *packet, enum class class, uint32_t at)
{
	uint8_t bytes[2];

	nq_put_u16(bytes, (uint32_t)check_value(L, class, 0xffff));
	nq_packet_refuse(L, nq_edit_patch(packet, at, bytes, sizeof(bytes)));
}

static void set_u32(lua_State *L, struct nq_packet *packet, enum class class, uint32_t at)
{
	uint8_t bytes[4];

	nq_put_u32(bytes, (uint32_t)check_value(L, class, 0xffffffff));
	nq_packet_refuse(L, nq_edit_patch(packet, at, bytes, sizeof(bytes)));
}

static void set_checksum(lua_State *L, struct nq_packet *packet, enum class class, uint32_t at)
{
	uint16_t checksum = (uint16_t)check_value(L, class, 0xffff);

	nq_packet_refuse(L, nq_edit_checksum(packet, at, checksum,
					     class == CLASS_IP ? NQ_KEEP_IP : NQ_KEEP_TRANSPORT));
}

/* --- IP -----------------------------------------------------------------------------------------
 */

static void set_address(lua_State *L, struct nq_packet *packet, bool source, bool raw)
{
	static const char *const expected[2][2] = {
		{"IPv4 address like '192.0.2.1'", "IPv6 address like '2001:db8::1'"},
		{"4 bytes of an IPv4 address", "16 bytes of an IPv6 address"},
	};
	bool is_ip6 = packet->layout.version == 6;
	uint32_t at = is_ip6 ? (source ? 8 : 24) : (source ? 12 : 16);
	uint32_t size = is_ip6 ? 16 : 4;
	uint8_t address[16];
	const char *name = lua_tostring(L, 2);
	size_t length;
	const char *text = nq_arg_string(L, 3, "ip", name, &length);

	if (raw && length == size)
		memcpy(address, text, size);
	else if (raw || strlen(text) != length ||
		 inet_pton(is_ip6 ? AF_INET6 : AF_INET, text, address) != 1)
		nq_arg_error(L, 3, "ip", name, expected[raw][is_ip6]);
	nq_packet_refuse(L, nq_edit_patch(packet, at, address, size));
}

/* Eight bits that begin in the middle of the first byte. */
static void set_traffic_class(lua_State *L, struct nq_packet *packet)
{
	uint32_t class = (uint32_t)check_value(L, CLASS_IP, 0xff);
	uint8_t bytes[2];

	nq_put_u16(bytes, (nq_get_u16(packet->data) & 0xf00fU) | class << 4);
	nq_packet_refuse(L, nq_edit_patch(packet, 0, bytes, sizeof(bytes)));
}

static void set_ip(lua_State *L, struct nq_packet *packet, enum ip_field field)
{
	bool is_ip6 = packet->layout.version == 6;

	switch (field) {
	case FIELD_IP_SRC:
	case FIELD_IP_DST:
		set_address(L, packet, field == FIELD_IP_SRC, false);
		return;
	case FIELD_IP_SRC_BYTES:
	case FIELD_IP_DST_BYTES:
		set_address(L, packet, field == FIELD_IP_SRC_BYTES, true);
		return;
	case FIELD_IP_TTL:
		set_u8(L, packet, CLASS_IP, is_ip6 ? 7 : 8);
		return;
	case FIELD_IP_TOS:
		if (is_ip6)
			set_traffic_class(L, packet);
		else
			set_u8(L, packet, CLASS_IP, 1);
		return;
	case FIELD_IP_ID:
		if (is_ip6)
			refuse_field(L, CLASS_IP,
				     "of IPv6 it is in the fragment header, and "
				     "extension headers must stay");
		set_u16(L, packet, CLASS_IP, 4);
		return;
	case FIELD_IP_CHECKSUM:
		if (is_ip6)
			refuse_field(L, CLASS_IP, "IPv6 has none");
		set_checksum(L, packet, CLASS_IP, 10);
		return;
	case FIELD_IP_OFFSET:
		refuse_field(L, CLASS_IP, "it is where the header begins");
		return;
	default:
		refuse_field(L, CLASS_IP, "it decides the layout of the packet");
	}
}

/* --- TCP ----------------------------------------------------------------------------------------
 */

/* Letters of FSRPAUEC, in any order. */
static void set_flags(lua_State *L, struct nq_packet *packet, uint32_t at)
{
	size_t length;
	const char *text = nq_arg_string(L, 3, "tcp", "flags", &length);
	uint8_t flags;

	if (!nq_tcp_flags_read(text, length, &flags))
		nq_arg_error(L, 3, "tcp", "flags", "letters of FSRPAUEC");
	nq_packet_refuse(L, nq_edit_patch(packet, at, &flags, 1));
}

static void set_flag(lua_State *L, struct nq_packet *packet, uint32_t at, unsigned bit)
{
	uint8_t flags = packet->data[at];

	if (nq_arg_boolean(L, 3, "tcp", lua_tostring(L, 2)))
		flags |= (uint8_t)(1 << bit);
	else
		flags &= (uint8_t) ~(1 << bit);
	nq_packet_refuse(L, nq_edit_patch(packet, at, &flags, 1));
}

static void set_mss(lua_State *L, struct nq_packet *packet)
{
	uint8_t bytes[2];
	bool removes = lua_isnil(L, 3);

	if (!removes)
		nq_put_u16(bytes, (uint32_t)check_value(L, CLASS_TCP, 0xffff));
	nq_packet_room(L, packet);
	nq_packet_refuse(
		L, nq_edit_option(packet, NQ_OPTION_MSS, removes ? NULL : bytes, sizeof(bytes)));
}

static void set_tcp(lua_State *L, struct nq_packet *packet, uint32_t offset, enum tcp_field field)
{
	switch (field) {
	case FIELD_TCP_SPORT:
	case FIELD_TCP_DPORT:
		set_u16(L, packet, CLASS_TCP, offset + (field == FIELD_TCP_SPORT ? 0 : 2));
		return;
	case FIELD_TCP_SEQ:
	case FIELD_TCP_ACK_SEQ:
		set_u32(L, packet, CLASS_TCP, offset + (field == FIELD_TCP_SEQ ? 4 : 8));
		return;
	case FIELD_TCP_FLAGS:
		set_flags(L, packet, offset + 13);
		return;
	case FIELD_TCP_WINDOW:
		set_u16(L, packet, CLASS_TCP, offset + 14);
		return;
	case FIELD_TCP_CHECKSUM:
		set_checksum(L, packet, CLASS_TCP, offset + 16);
		return;
	case FIELD_TCP_URG_PTR:
		set_u16(L, packet, CLASS_TCP, offset + 18);
		return;
	case FIELD_TCP_MSS:
		set_mss(L, packet);
		return;
	case FIELD_TCP_OFFSET:
		refuse_field(L, CLASS_TCP, "it is where the header begins");
		return;
	case FIELD_TCP_OPTION:
	case FIELD_TCP_SET_OPTION:
		refuse_field(L, CLASS_TCP, "it is a method");
		return;
	default:
		set_flag(L, packet, offset + 13, (unsigned)(field - FIELD_TCP_FIN));
	}
}

/***
Set an option of a TCP header, in the place of the one of this kind or behind the others, or take it
away. The header grows or shrinks as needed; the payload stays.
@function tcp:set_option
@tparam integer kind 2 to 255 (IANA: 2 MSS, 3 window scale, 4 SACK permitted, 5 SACK, 8 timestamps)
@tparam string|nil value at most 38 bytes, without kind and length; nil takes the option away
@raise `cannot edit this packet: ...` when 40 bytes do not suffice for all options, or those there
are malformed; as for every edit in place
*/
int nq_tcp_set_option(lua_State *L)
{
	uint32_t offset;
	struct nq_packet *packet = nq_header_check(L, CLASS_TCP, "set_option", &offset);
	uint8_t kind = (uint8_t)nq_arg_integer(L, 2, "set_option", "kind", 2, 255);
	const char *value = NULL;
	size_t length = 0;

	if (lua_isnone(L, 3))
		nq_arg_error(L, 3, "set_option", "value", "string or nil");
	if (!lua_isnil(L, 3)) {
		value = nq_arg_string(L, 3, "set_option", "value", &length);
		if (length > NQ_TCP_OPTIONS_MAX - 2)
			nq_arg_error(L, 3, "set_option", "value", "at most 38 bytes");
	}
	nq_packet_check_undecided(L, packet);
	nq_packet_room(L, packet);
	nq_packet_refuse(L, nq_edit_option(packet, kind, (const uint8_t *)value, length));
	return 0;
}

/* --- UDP, ICMP ----------------------------------------------------------------------------------
 */

static void set_udp(lua_State *L, struct nq_packet *packet, uint32_t offset, enum udp_field field)
{
	switch (field) {
	case FIELD_UDP_SPORT:
	case FIELD_UDP_DPORT:
		set_u16(L, packet, CLASS_UDP, offset + (field == FIELD_UDP_SPORT ? 0 : 2));
		return;
	case FIELD_UDP_CHECKSUM:
		set_checksum(L, packet, CLASS_UDP, offset + 6);
		return;
	case FIELD_UDP_LENGTH:
		refuse_field(L, CLASS_UDP, "it is completed when the packet leaves");
		return;
	default:
		refuse_field(L, CLASS_UDP, "it is where the header begins");
	}
}

static void set_icmp(lua_State *L, struct nq_packet *packet, uint32_t offset, enum icmp_field field)
{
	switch (field) {
	case FIELD_ICMP_TYPE:
	case FIELD_ICMP_CODE:
		set_u8(L, packet, CLASS_ICMP, offset + (field == FIELD_ICMP_TYPE ? 0 : 1));
		return;
	case FIELD_ICMP_CHECKSUM:
		set_checksum(L, packet, CLASS_ICMP, offset + 2);
		return;
	case FIELD_ICMP_ID:
	case FIELD_ICMP_SEQ:
		if (packet->length - offset < 8)
			refuse_field(L, CLASS_ICMP, "the message of 4 bytes has none");
		if (!nq_icmp_has_id(packet))
			refuse_field(L, CLASS_ICMP, "messages of this type have none");
		set_u16(L, packet, CLASS_ICMP, offset + (field == FIELD_ICMP_ID ? 4 : 6));
		return;
	case FIELD_ICMP_EMBEDDED:
		refuse_field(L, CLASS_ICMP, "it is changed with pkt:patch or pkt.payload");
		return;
	default:
		refuse_field(L, CLASS_ICMP, "it is where the header begins");
	}
}

void nq_header_set_field(lua_State *L, struct nq_packet *packet, enum class class, unsigned code,
			 uint32_t offset)
{
	switch (class) {
	case CLASS_TCP:
		set_tcp(L, packet, offset, (enum tcp_field)code);
		break;
	case CLASS_UDP:
		set_udp(L, packet, offset, (enum udp_field)code);
		break;
	case CLASS_ICMP:
		set_icmp(L, packet, offset, (enum icmp_field)code);
		break;
	default:
		set_ip(L, packet, (enum ip_field)code);
	}
}
