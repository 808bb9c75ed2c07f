/* The tables of nfqueue.build that describe headers: their keys, defaults, and what goes together.
 */
#include <arpa/inet.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/build.h"
#include "lua/packet.h"
#include "packet/answer.h"

#define U32_MAX 0xffffffffLL

static const char function[] = "build";

enum { PATH_SIZE = NQ_BUILD_PATH };
enum { FIN = 0x01, SYN = 0x02, PSH = 0x08, ACK = 0x10 };

enum kind {
	KIND_U8,
	KIND_U16,
	KIND_U32,
	KIND_BOOLEAN,
	KIND_CHECKSUM,
	KIND_FLAG,
	KIND_OWN, /* read by a function of its own */
};

struct key {
	const char *name;
	enum kind kind;
	size_t at; /* offset in struct nq_description; KIND_FLAG: the bit */
	uint32_t given;
	void (*read)(lua_State *L, struct nq_description *description, const char *path);
};

#define AT(field) offsetof(struct nq_description, build.field)

static void read_value(lua_State *L, const struct key *key, const char *path,
		       struct nq_description *description)
{
	char *at = (char *)description + key->at;

	switch (key->kind) {
	case KIND_U8:
		*(uint8_t *)at = (uint8_t)nq_arg_integer(L, -1, function, path, 0, 255);
		break;
	case KIND_U16:
		*(uint16_t *)at = (uint16_t)nq_arg_integer(L, -1, function, path, 0, 65535);
		break;
	case KIND_U32:
		*(uint32_t *)at = (uint32_t)nq_arg_integer(L, -1, function, path, 0, U32_MAX);
		break;
	case KIND_BOOLEAN:
		*(bool *)at = nq_arg_boolean(L, -1, function, path);
		break;
	case KIND_CHECKSUM:
		*(int32_t *)at = (int32_t)nq_arg_integer(L, -1, function, path, 0, 65535);
		break;
	case KIND_FLAG:
		description->flag_mask |= (uint8_t)key->at;
		if (nq_arg_boolean(L, -1, function, path))
			description->flag_bits |= (uint8_t)key->at;
		break;
	case KIND_OWN:
		key->read(L, description, path);
	}
}

/* Reads the table at the top; `keys` ends with one without a name. */
static void read_part(lua_State *L, const char *part, const struct key *keys,
		      struct nq_description *description)
{
	nq_arg_table(L, -1, function, part);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		const struct key *key = keys;
		char path[PATH_SIZE];

		while (key->name && (lua_type(L, -2) != LUA_TSTRING ||
				     strcmp(key->name, lua_tostring(L, -2)) != 0))
			key++;
		if (!key->name)
			nq_build_unknown(L, -2, part);
		nq_build_path(path, "%s.%s", part, key->name);
		description->given |= key->given;
		read_value(L, key, path, description);
		lua_pop(L, 1);
	}
}

/* --- IP: RFC 791, RFC 8200 ----------------------------------------------------------------------
 */

static void read_address(lua_State *L, const char *path, struct nq_build_ip *ip, uint8_t *address)
{
	const char *text = nq_build_text(L);
	uint8_t version = 4;

	memset(address, 0, 16);
	if (inet_pton(AF_INET, text, address) != 1) {
		version = 6;
		if (inet_pton(AF_INET6, text, address) != 1)
			nq_arg_error(L, -1, function, path, "IPv4 or IPv6 address");
	}
	if (ip->version && ip->version != version)
		nq_build_refuse(L, path, "IPv4 and IPv6 in one packet");
	ip->version = version;
}

static void read_src(lua_State *L, struct nq_description *description, const char *path)
{
	read_address(L, path, &description->build.ip, description->build.ip.src);
}

static void read_dst(lua_State *L, struct nq_description *description, const char *path)
{
	read_address(L, path, &description->build.ip, description->build.ip.dst);
}

static void read_id(lua_State *L, struct nq_description *description, const char *path)
{
	description->id = (uint32_t)nq_arg_integer(L, -1, function, path, 0, U32_MAX);
}

static void read_frag_offset(lua_State *L, struct nq_description *description, const char *path)
{
	lua_Integer offset = nq_arg_integer(L, -1, function, path, 0, 65528);

	if (offset % 8)
		nq_arg_error(L, -1, function, path, "multiple of 8");
	description->build.ip.frag_offset = (uint16_t)offset;
}

static void read_ip_options(lua_State *L, struct nq_description *description, const char *path)
{
	struct nq_build_ip *ip = &description->build.ip;

	ip->options_length = nq_build_read_options(L, path, false, ip->options);
}

static void read_flow_label(lua_State *L, struct nq_description *description, const char *path)
{
	description->build.ip.flow_label =
		(uint32_t)nq_arg_integer(L, -1, function, path, 0, 0xfffff);
}

static void read_extensions(lua_State *L, struct nq_description *description, const char *path)
{
	nq_build_read_extensions(L, path, &description->build.ip);
}

static const struct key ip_keys[] = {
	{"src", KIND_OWN, 0, NQ_GIVEN_SRC, read_src},
	{"dst", KIND_OWN, 0, NQ_GIVEN_DST, read_dst},
	{"ttl", KIND_U8, AT(ip.ttl), 0, NULL},
	{"tos", KIND_U8, AT(ip.tos), 0, NULL},
	{"id", KIND_OWN, 0, NQ_GIVEN_ID, read_id},
	{"df", KIND_BOOLEAN, AT(ip.df), NQ_GIVEN_DF, NULL},
	{"mf", KIND_BOOLEAN, AT(ip.mf), NQ_GIVEN_FRAGMENT, NULL},
	{"frag_offset", KIND_OWN, 0, NQ_GIVEN_FRAGMENT, read_frag_offset},
	{"protocol", KIND_U8, AT(ip.protocol), NQ_GIVEN_PROTOCOL, NULL},
	{"checksum", KIND_CHECKSUM, AT(ip.checksum), NQ_GIVEN_IP_CHECKSUM, NULL},
	{"options", KIND_OWN, 0, NQ_GIVEN_IP_OPTIONS, read_ip_options},
	{"flow_label", KIND_OWN, 0, NQ_GIVEN_FLOW_LABEL, read_flow_label},
	{"extensions", KIND_OWN, 0, NQ_GIVEN_EXTENSIONS, read_extensions},
	{NULL, KIND_OWN, 0, 0, NULL},
};

void nq_build_read_ip(lua_State *L, struct nq_description *description)
{
	read_part(L, "ip", ip_keys, description);
}

/* Keys that belong to the other version of IP. */
static void refuse_foreign(lua_State *L, const struct nq_description *description)
{
	static const uint32_t only4 = NQ_GIVEN_DF | NQ_GIVEN_IP_CHECKSUM | NQ_GIVEN_IP_OPTIONS;
	static const uint32_t only6 = NQ_GIVEN_FLOW_LABEL | NQ_GIVEN_EXTENSIONS;
	bool is_ip6 = description->build.ip.version == 6;
	uint32_t foreign = description->given & (is_ip6 ? only4 : only6);

	for (const struct key *key = ip_keys; key->name && foreign; key++) {
		char path[PATH_SIZE];

		if (!(key->given & foreign))
			continue;
		nq_build_path(path, "ip.%s", key->name);
		nq_build_refuse(L, path, is_ip6 ? "IPv6 has none" : "IPv4 has none");
	}
}

/* The fragment header among the extension headers, or NULL. */
static const struct nq_build_extension *find_fragment(const struct nq_build_ip *ip)
{
	for (unsigned i = 0; i < ip->extension_count; i++) {
		if (ip->extensions[i].kind == IPPROTO_FRAGMENT)
			return &ip->extensions[i];
	}
	return NULL;
}

static void settle_fragment4(lua_State *L, struct nq_description *description)
{
	struct nq_build_ip *ip = &description->build.ip;
	uint32_t given = description->given;

	if (description->id > 65535)
		nq_build_refuse(L, "ip.id", "more than 65535, in IPv4");
	ip->id = (uint16_t)description->id;
	/* Without an id of its own a packet must not be split on its way (RFC 6864). */
	if (!(given & NQ_GIVEN_DF))
		ip->df = !(given & (NQ_GIVEN_ID | NQ_GIVEN_FRAGMENT)) && !description->mtu;
}

static void settle_fragment6(lua_State *L, struct nq_description *description)
{
	struct nq_build_ip *ip = &description->build.ip;
	const struct nq_build_extension *fragment = find_fragment(ip);

	if (description->mtu) {
		if (fragment)
			nq_build_refuse(L, "mtu", "what is described is a fragment already");
		return; /* splitting adds a header of its own */
	}
	if (description->given & (NQ_GIVEN_ID | NQ_GIVEN_FRAGMENT)) {
		if (fragment)
			nq_build_refuse(L, "ip.extensions",
					"id, mf and frag_offset make a fragment header already");
		nq_build_add_fragment(L, ip, description->id);
	} else if (fragment) {
		ip->mf = fragment->bytes[1] & 1;
		ip->frag_offset = (uint16_t)(fragment->bytes[0] << 8 | (fragment->bytes[1] & 0xf8));
	}
}

/* What a fragment holds: nothing reassembles others. */
static void check_fragment(lua_State *L, const struct nq_description *description)
{
	const struct nq_build *build = &description->build;
	size_t size = nq_build_size(build);

	if (build->ip.frag_offset && build->transport != NQ_BUILD_NONE)
		nq_build_refuse(L, "ip.frag_offset", "a later fragment has no transport header");
	/* IPv6's headers fill units of 8. */
	if (build->ip.version == 4)
		size -= 20 + (build->ip.options_length + 3u) / 4 * 4;
	if (build->ip.mf && size % 8)
		nq_build_refuse(L, "payload",
				"a fragment that is not the last fills units of 8 bytes");
}

void nq_build_settle_ip(lua_State *L, struct nq_description *description)
{
	struct nq_build_ip *ip = &description->build.ip;

	if (!description->is_reply && !(description->given & NQ_GIVEN_SRC)) {
		lua_pushnil(L);
		nq_arg_error(L, -1, function, "ip.src", "IPv4 or IPv6 address");
	}
	if (!description->is_reply && !(description->given & NQ_GIVEN_DST)) {
		lua_pushnil(L);
		nq_arg_error(L, -1, function, "ip.dst", "IPv4 or IPv6 address");
	}
	refuse_foreign(L, description);
	if (description->mtu && description->given & NQ_GIVEN_FRAGMENT)
		nq_build_refuse(L, "mtu", "what is described is a fragment already");
	if (ip->version == 4)
		settle_fragment4(L, description);
	else
		settle_fragment6(L, description);
	check_fragment(L, description);
}

/* --- TCP, UDP, ICMP: RFC 9293, RFC 768, RFC 792 and RFC 4443 ------------------------------------
 */

static void read_flags(lua_State *L, struct nq_description *description, const char *path)
{
	static const char letters[] = "FSRPAUEC";
	size_t length;
	const char *text = nq_arg_string(L, -1, function, path, &length);

	description->flags = 0;
	for (size_t i = 0; i < length; i++) {
		const char *letter = text[i] ? strchr(letters, text[i]) : NULL;

		if (letter)
			description->flags |= 1 << (letter - letters);
		else
			nq_arg_error(L, -1, function, path, "letters among FSRPAUEC");
	}
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

static const struct key tcp_keys[] = {
	{"sport", KIND_U16, AT(tcp.sport), NQ_GIVEN_SPORT, NULL},
	{"dport", KIND_U16, AT(tcp.dport), NQ_GIVEN_DPORT, NULL},
	{"seq", KIND_U32, AT(tcp.seq), 0, NULL},
	{"ack_seq", KIND_U32, AT(tcp.ack_seq), NQ_GIVEN_ACK_SEQ, NULL},
	{"flags", KIND_OWN, 0, 0, read_flags},
	{"fin", KIND_FLAG, 0x01, 0, NULL},
	{"syn", KIND_FLAG, 0x02, 0, NULL},
	{"rst", KIND_FLAG, 0x04, 0, NULL},
	{"psh", KIND_FLAG, 0x08, 0, NULL},
	{"ack", KIND_FLAG, 0x10, 0, NULL},
	{"urg", KIND_FLAG, 0x20, 0, NULL},
	{"ece", KIND_FLAG, 0x40, 0, NULL},
	{"cwr", KIND_FLAG, 0x80, 0, NULL},
	{"window", KIND_U16, AT(tcp.window), NQ_GIVEN_WINDOW, NULL},
	{"urg_ptr", KIND_U16, AT(tcp.urg_ptr), 0, NULL},
	{"mss", KIND_OWN, 0, NQ_GIVEN_MSS, read_mss},
	{"options", KIND_OWN, 0, 0, read_tcp_options},
	{"checksum", KIND_CHECKSUM, AT(checksum), 0, NULL},
	{NULL, KIND_OWN, 0, 0, NULL},
};

static const struct key udp_keys[] = {
	{"sport", KIND_U16, AT(udp.sport), NQ_GIVEN_SPORT, NULL},
	{"dport", KIND_U16, AT(udp.dport), NQ_GIVEN_DPORT, NULL},
	{"checksum", KIND_CHECKSUM, AT(checksum), 0, NULL},
	{NULL, KIND_OWN, 0, 0, NULL},
};

static const struct key icmp_keys[] = {
	{"type", KIND_U8, AT(icmp.type), NQ_GIVEN_TYPE, NULL},
	{"code", KIND_U8, AT(icmp.code), 0, NULL},
	{"id", KIND_U16, AT(icmp.id), 0, NULL},
	{"seq", KIND_U16, AT(icmp.seq), 0, NULL},
	{"checksum", KIND_CHECKSUM, AT(checksum), 0, NULL},
	{"embedded", KIND_OWN, 0, NQ_GIVEN_EMBEDDED, read_embedded},
	{NULL, KIND_OWN, 0, 0, NULL},
};

static const char *const names[] = {[NQ_BUILD_NONE] = "payload",
				    [NQ_BUILD_TCP] = "tcp",
				    [NQ_BUILD_UDP] = "udp",
				    [NQ_BUILD_ICMP] = "icmp"};

void nq_build_read_transport(lua_State *L, enum nq_build_transport transport,
			     struct nq_description *description)
{
	static const struct key *const keys[] = {
		[NQ_BUILD_TCP] = tcp_keys, [NQ_BUILD_UDP] = udp_keys, [NQ_BUILD_ICMP] = icmp_keys};

	if (description->is_reply && description->build.transport != transport)
		nq_build_refuse(L, names[transport],
				"the packet that is answered has another protocol");
	if (!description->is_reply && description->build.transport != NQ_BUILD_NONE)
		nq_build_refuse(L, names[transport], "one of tcp, udp and icmp in a packet");
	description->build.transport = transport;
	read_part(L, names[transport], keys[transport], description);
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
