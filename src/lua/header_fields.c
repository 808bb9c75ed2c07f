/* Fields of headers, read: no table, and for numbers no allocation. */
#include <arpa/inet.h>
#include <lauxlib.h>

#include "lua/header_parts.h"
#include "packet/bytes.h"
#include "packet/icmp.h"
#include "packet/option.h"
#include "packet/print.h"

/* As inet_ntop writes it, at a quarter of the cost. */
static void push_ip4_address(lua_State *L, const uint8_t *address)
{
	char text[INET_ADDRSTRLEN];
	size_t length = 0;

	for (int i = 0; i < 4; i++) {
		unsigned byte = address[i];

		if (byte >= 100)
			text[length++] = (char)('0' + byte / 100);
		if (byte >= 10)
			text[length++] = (char)('0' + byte / 10 % 10);
		text[length++] = (char)('0' + byte % 10);
		text[length++] = '.';
	}
	lua_pushlstring(L, text, length - 1);
}

static void push_address(lua_State *L, const struct nq_packet *packet, bool source)
{
	char text[INET6_ADDRSTRLEN];

	if (packet->layout.version == 4)
		push_ip4_address(L, packet->data + (source ? 12 : 16));
	else if (inet_ntop(AF_INET6, packet->data + (source ? 8 : 24), text, sizeof(text)))
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

/* --- IP ------------------------------------------------------------------------------------------
 */

/***
`pkt.ip`: the IP header of either version (RFC 791, RFC 8200); `pkt.ip4` and `pkt.ip6` are nil when
it is of the other.
@table ip
@field version 4 or 6; read-only
@field src source address as RFC 5952 writes it
@field dst destination address; of a packet on its way through a routing header the next stop's
@field src_bytes source address as 4 or 16 bytes
@field dst_bytes destination address as 4 or 16 bytes
@field ttl time to live, hop limit
@field tos type of service, traffic class: DSCP and ECN (RFC 2474, RFC 3168)
@field id identification; of IPv6 that in the fragment header, 32 bits, nil without one
@field df "don't fragment", IPv4 only; read-only
@field mf more fragments follow; read-only
@field frag_offset in bytes; read-only
@field length bytes that the packet claims, IP header included; a jumbogram's (RFC 2675), and that
of segments of more than 64 KB, as long as they are; read-only
@field protocol the transport's number (IANA), behind hop-by-hop, routing, fragment and destination
options headers (RFC 8200 section 4) and authentication headers (RFC 4302); in a later fragment what
its header names; read-only
@field checksum of the IPv4 header; assigned, it is sent as assigned
@field offset 0; read-only
*/

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
		lua_pushinteger(L, packet->layout.total); /* FIELD_IP_LENGTH */
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
		lua_pushinteger(L, packet->layout.total);
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

/* --- TCP -----------------------------------------------------------------------------------------
 */

/***
`pkt.tcp`: the TCP header (RFC 9293); nil unless all of it is there, options included.
@table tcp
@field sport source port
@field dport destination port
@field seq sequence number
@field ack_seq acknowledgment number
@field flags letters of those that are set, in the order FSRPAUEC
@field fin a boolean, as are the others
@field syn
@field rst
@field psh
@field ack
@field urg
@field ece RFC 3168
@field cwr RFC 3168
@field window as in the header, not scaled (RFC 7323)
@field urg_ptr urgent pointer
@field mss value of the maximum segment size option; nil without it
@field checksum assigned, it is sent as assigned
@field offset where the header begins in the packet; read-only
*/

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
		if (nq_tcp_option_find(packet, offset, NQ_OPTION_MSS, &value, &length) &&
		    length == 2)
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

/* --- UDP -----------------------------------------------------------------------------------------
 */

/***
`pkt.udp`: the UDP header (RFC 768).
@table udp
@field sport source port
@field dport destination port
@field length of header and data, as in the header; completed when the packet leaves, read-only
@field checksum 0: there is none; assigned, it is sent as assigned
@field offset where the header begins in the packet; read-only
*/

static void push_udp(lua_State *L, const struct nq_packet *packet, uint32_t offset,
		     enum udp_field field)
{
	if (field == FIELD_UDP_OFFSET)
		lua_pushinteger(L, offset);
	else
		lua_pushinteger(L,
				nq_get_u16(packet->data + offset + 2 * (field - FIELD_UDP_SPORT)));
}

/* --- ICMP ----------------------------------------------------------------------------------------
 */

/***
`pkt.icmp`: the header of ICMP in IPv4 (RFC 792) and of ICMPv6 in IPv6 (RFC 4443).
@table icmp
@field type
@field code
@field id of echo, timestamp, information, address mask (RFC 950) and domain name (RFC 1788)
messages, and of ICMPv6 echo; nil in others
@field seq sequence number of the same
@field embedded in errors the bytes of the packet they are about, as many as the message carries,
without the extensions of RFC 4884: `nfqueue.packet(pkt.icmp.embedded)` reads it; nil in others
@field checksum assigned, it is sent as assigned
@field offset where the header begins in the packet; read-only
*/

static void push_icmp(lua_State *L, struct nq_packet *packet, uint32_t offset,
		      enum icmp_field field)
{
	const uint8_t *icmp = packet->data + offset;
	uint32_t end;

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
	case FIELD_ICMP_EMBEDDED:
		if (nq_embedded_find(packet, &offset, &end))
			lua_pushlstring(L, (const char *)packet->data + offset, end - offset);
		else
			lua_pushnil(L);
		return;
	default:
		if (!nq_icmp_has_id(packet))
			lua_pushnil(L);
		else
			lua_pushinteger(L, nq_get_u16(icmp + (field == FIELD_ICMP_ID ? 4 : 6)));
	}
}

void nq_header_push_field(lua_State *L, struct nq_packet *packet, enum class class, unsigned code,
			  uint32_t offset)
{
	switch (class) {
	case CLASS_TCP:
		push_tcp(L, packet, offset, (enum tcp_field)code);
		break;
	case CLASS_UDP:
		push_udp(L, packet, offset, (enum udp_field)code);
		break;
	case CLASS_ICMP:
		push_icmp(L, packet, offset, (enum icmp_field)code);
		break;
	default:
		push_ip(L, packet, (enum ip_field)code);
	}
}
