/* The tables of nfqueue.build for TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792, RFC 4443). */
#include <lauxlib.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/build.h"
#include "lua/packet.h"
#include "packet/answer.h"
#include "packet/icmp.h"
#include "packet/print.h"

#define AT(field) offsetof(struct nq_description, build.field)

static const char function[] = "build";

enum { PATH_SIZE = NQ_BUILD_PATH };
enum { SYN = 0x02, PSH = 0x08, ACK = 0x10 };

static void read_flags(lua_State *L, struct nq_description *description, const char *path)
{
	size_t length;
	const char *text = nq_arg_string(L, -1, function, path, &length);
	uint8_t flags;

	if (!nq_tcp_flags_read(text, length, &flags))
		nq_arg_error(L, -1, function, path, "letters among FSRPAUEC");
	description->flags = flags;
}

static void read_mss(lua_State *L, struct nq_description *description, const char *path)
{
	description->mss = (uint16_t)nq_arg_integer(L, -1, function, path, 0, 65535);
}

static void read_tcp_options(lua_State *L, struct nq_description *description, const char *path)
{
	struct nq_build_tcp *tcp = &description->build.tcp;

	tcp->options_length = nq_build_read_options(L, path, true, tcp->options);
}

static void read_embedded(lua_State *L, struct nq_description *description, const char *path)
{
	const struct nq_packet *packet;

	if (lua_type(L, -1) == LUA_TSTRING) {
		description->embedded =
			(const uint8_t *)lua_tolstring(L, -1, &description->embedded_length);
		return;
	}
	packet = nq_packet_at(L, -1);
	if (!packet) {
		nq_arg_error(L, -1, function, path, "packet or string");
		return; /* not reached */
	}
	description->embedded = packet->data;
	description->embedded_length = packet->length;
}

static const struct nq_build_key tcp_keys[] = {
	{"sport", NQ_BUILD_U16, AT(tcp.sport), NQ_GIVEN_SPORT, NULL},
	{"dport", NQ_BUILD_U16, AT(tcp.dport), NQ_GIVEN_DPORT, NULL},
	{"seq", NQ_BUILD_U32, AT(tcp.seq), 0, NULL},
	{"ack_seq", NQ_BUILD_U32, AT(tcp.ack_seq), NQ_GIVEN_ACK_SEQ, NULL},
	{"flags", NQ_BUILD_OWN, 0, 0, read_flags},
	{"fin", NQ_BUILD_FLAG, 0x01, 0, NULL},
	{"syn", NQ_BUILD_FLAG, 0x02, 0, NULL},
	{"rst", NQ_BUILD_FLAG, 0x04, 0, NULL},
	{"psh", NQ_BUILD_FLAG, 0x08, 0, NULL},
	{"ack", NQ_BUILD_FLAG, 0x10, 0, NULL},
	{"urg", NQ_BUILD_FLAG, 0x20, 0, NULL},
	{"ece", NQ_BUILD_FLAG, 0x40, 0, NULL},
	{"cwr", NQ_BUILD_FLAG, 0x80, 0, NULL},
	{"window", NQ_BUILD_U16, AT(tcp.window), NQ_GIVEN_WINDOW, NULL},
	{"urg_ptr", NQ_BUILD_U16, AT(tcp.urg_ptr), 0, NULL},
	{"mss", NQ_BUILD_OWN, 0, NQ_GIVEN_MSS, read_mss},
	{"options", NQ_BUILD_OWN, 0, 0, read_tcp_options},
	{"checksum", NQ_BUILD_CHECKSUM, AT(checksum), 0, NULL},
	{NULL, NQ_BUILD_OWN, 0, 0, NULL},
};

static const struct nq_build_key udp_keys[] = {
	{"sport", NQ_BUILD_U16, AT(udp.sport), NQ_GIVEN_SPORT, NULL},
	{"dport", NQ_BUILD_U16, AT(udp.dport), NQ_GIVEN_DPORT, NULL},
	{"checksum", NQ_BUILD_CHECKSUM, AT(checksum), 0, NULL},
	{NULL, NQ_BUILD_OWN, 0, 0, NULL},
};

static const struct nq_build_key icmp_keys[] = {
	{"type", NQ_BUILD_U8, AT(icmp.type), NQ_GIVEN_TYPE, NULL},
	{"code", NQ_BUILD_U8, AT(icmp.code), 0, NULL},
	{"id", NQ_BUILD_U16, AT(icmp.id), 0, NULL},
	{"seq", NQ_BUILD_U16, AT(icmp.seq), 0, NULL},
	{"checksum", NQ_BUILD_CHECKSUM, AT(checksum), 0, NULL},
	{"embedded", NQ_BUILD_OWN, 0, NQ_GIVEN_EMBEDDED, read_embedded},
	{NULL, NQ_BUILD_OWN, 0, 0, NULL},
};

static const char *const names[] = {[NQ_BUILD_NONE] = "payload",
				    [NQ_BUILD_TCP] = "tcp",
				    [NQ_BUILD_UDP] = "udp",
				    [NQ_BUILD_ICMP] = "icmp"};

void nq_build_read_transport(lua_State *L, enum nq_build_transport transport,
			     struct nq_description *description)
{
	static const struct nq_build_key *const keys[] = {
		[NQ_BUILD_TCP] = tcp_keys, [NQ_BUILD_UDP] = udp_keys, [NQ_BUILD_ICMP] = icmp_keys};

	if (description->is_reply && description->build.transport != transport)
		nq_build_refuse(L, names[transport],
				"the packet that is answered has another protocol");
	if (!description->is_reply && description->build.transport != NQ_BUILD_NONE)
		nq_build_refuse(L, names[transport], "one of tcp, udp and icmp in a packet");
	description->build.transport = transport;
	nq_build_read_part(L, names[transport], keys[transport], description);
}

/* Raises for a key that must be there and is not. */
static void require(lua_State *L, const struct nq_description *description, uint32_t given,
		    const char *part, const char *name, lua_Integer most)
{
	char path[PATH_SIZE];

	if (description->is_reply || description->given & given)
		return;
	nq_build_path(path, "%s.%s", part, name);
	lua_pushnil(L);
	nq_arg_integer(L, -1, function, path, 0, most);
}

static bool has_mss(const struct nq_build_tcp *tcp)
{
	for (unsigned at = 0, size; at + 1 < tcp->options_length && tcp->options[at]; at += size) {
		if (tcp->options[at] == 2)
			return true;
		size = tcp->options[at] == 1 ? 1 : tcp->options[at + 1];
		if (size == 0)
			break;
	}
	return false;
}

static void settle_tcp(lua_State *L, struct nq_description *description)
{
	struct nq_build_tcp *tcp = &description->build.tcp;
	bool has_data = description->build.payload_length > 0;
	uint8_t base = has_data ? PSH | ACK : SYN;

	if (description->flags >= 0)
		base = (uint8_t)description->flags;
	else if (description->is_reply)
		base = tcp->flags == ACK && has_data ? PSH | ACK : tcp->flags;
	else if (description->flag_mask)
		base = 0;
	tcp->flags = (uint8_t)((base & ~description->flag_mask) | description->flag_bits);
	if (description->is_reply && !(tcp->flags & ACK) &&
	    !(description->given & NQ_GIVEN_ACK_SEQ))
		tcp->ack_seq = 0;
	if (!description->is_reply && !(description->given & NQ_GIVEN_WINDOW))
		tcp->window = 65535;
	if (description->given & NQ_GIVEN_MSS) {
		if (has_mss(tcp))
			nq_build_refuse(L, "tcp.mss", "it is among the options already");
		tcp->options_length =
			nq_build_add_mss(L, tcp->options, tcp->options_length, description->mss);
	}
}

/* An ICMP error embeds the packet it is about: the one given, or the one that is answered. */
static void settle_icmp(lua_State *L, struct nq_description *description)
{
	struct nq_build *build = &description->build;
	bool is_error = nq_icmp_is_error(build->ip.version, build->icmp.type);
	bool is_given = description->given & NQ_GIVEN_EMBEDDED;
	size_t length = build->payload_length, most;

	if (is_given && !is_error)
		nq_build_refuse(L, "icmp.embedded", "only ICMP errors carry a packet");
	if (!is_error)
		return;
	if (!is_given && !build->payload)
		nq_build_refuse(L, "icmp.embedded", "an ICMP error carries the packet it is about");
	if (!is_given && !description->is_reply)
		return; /* the payload is all that is behind the header */
	if (description->has_payload)
		nq_build_refuse(L, "payload",
				"the embedded packet is the payload of an ICMP error");
	if (is_given) {
		build->payload = description->embedded;
		length = description->embedded_length;
	}
	if (!length)
		nq_build_refuse(L, "icmp.embedded", "no bytes of it are here");
	build->payload_length = 0;
	most = nq_icmp_embedded_most(build->ip.version, (uint32_t)nq_build_size(build) - 8);
	build->payload_length = length < most ? length : most;
}

void nq_build_settle_transport(lua_State *L, struct nq_description *description)
{
	struct nq_build *build = &description->build;
	enum nq_build_transport transport = build->transport;
	uint8_t protocol = build->ip.protocol;
	char reason[40];

	switch (transport) {
	case NQ_BUILD_TCP:
	case NQ_BUILD_UDP:
		require(L, description, NQ_GIVEN_SPORT, names[transport], "sport", 65535);
		require(L, description, NQ_GIVEN_DPORT, names[transport], "dport", 65535);
		protocol = transport == NQ_BUILD_TCP ? IPPROTO_TCP : IPPROTO_UDP;
		if (transport == NQ_BUILD_TCP)
			settle_tcp(L, description);
		break;
	case NQ_BUILD_ICMP:
		require(L, description, NQ_GIVEN_TYPE, "icmp", "type", 255);
		protocol = build->ip.version == 6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
		settle_icmp(L, description);
		break;
	default:
		require(L, description, NQ_GIVEN_PROTOCOL, "ip", "protocol", 255);
	}
	snprintf(reason, sizeof(reason), "%s is protocol %d", names[transport], protocol);
	if (description->given & NQ_GIVEN_PROTOCOL && build->ip.protocol != protocol)
		nq_build_refuse(L, "ip.protocol", reason);
	build->ip.protocol = protocol;
}
