/* The tables of nfqueue.build that describe headers: their keys, defaults, and what goes together.
 */
#include <arpa/inet.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/build.h"

#define AT(field) offsetof(struct nq_description, build.field)
#define U32_MAX 0xffffffffLL

static const char function[] = "build";

enum { PATH_SIZE = NQ_BUILD_PATH };

static void read_value(lua_State *L, const struct nq_build_key *key, const char *path,
		       struct nq_description *description)
{
	char *at = (char *)description + key->at;

	switch (key->kind) {
	case NQ_BUILD_U8:
		*(uint8_t *)at = (uint8_t)nq_arg_integer(L, -1, function, path, 0, 255);
		break;
	case NQ_BUILD_U16:
		*(uint16_t *)at = (uint16_t)nq_arg_integer(L, -1, function, path, 0, 65535);
		break;
	case NQ_BUILD_U32:
		*(uint32_t *)at = (uint32_t)nq_arg_integer(L, -1, function, path, 0, U32_MAX);
		break;
	case NQ_BUILD_BOOLEAN:
		*(bool *)at = nq_arg_boolean(L, -1, function, path);
		break;
	case NQ_BUILD_CHECKSUM:
		*(int32_t *)at = (int32_t)nq_arg_integer(L, -1, function, path, 0, 65535);
		break;
	case NQ_BUILD_FLAG:
		description->flag_mask |= (uint8_t)key->at;
		if (nq_arg_boolean(L, -1, function, path))
			description->flag_bits |= (uint8_t)key->at;
		break;
	case NQ_BUILD_OWN:
		key->read(L, description, path);
	}
}

static const struct nq_build_key *find_key(lua_State *L, int index, const struct nq_build_key *keys)
{
	if (lua_type(L, index) != LUA_TSTRING)
		return NULL;
	for (; keys->name; keys++) {
		if (strcmp(keys->name, lua_tostring(L, index)) == 0)
			return keys;
	}
	return NULL;
}

/* In the order of the keys, not the table's: of several mistakes always the same one is named. */
void nq_build_read_part(lua_State *L, const char *part, const struct nq_build_key *keys,
			struct nq_description *description)
{
	nq_arg_table(L, -1, function, part);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		if (!find_key(L, -2, keys))
			nq_build_unknown(L, -2, part);
		lua_pop(L, 1);
	}
	for (const struct nq_build_key *key = keys; key->name; key++) {
		char path[PATH_SIZE];

		lua_pushstring(L, key->name);
		if (lua_rawget(L, -2) != LUA_TNIL) {
			nq_build_path(path, "%s.%s", part, key->name);
			description->given |= key->given;
			read_value(L, key, path, description);
		}
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

static const struct nq_build_key ip_keys[] = {
	{"src", NQ_BUILD_OWN, 0, NQ_GIVEN_SRC, read_src},
	{"dst", NQ_BUILD_OWN, 0, NQ_GIVEN_DST, read_dst},
	{"ttl", NQ_BUILD_U8, AT(ip.ttl), 0, NULL},
	{"tos", NQ_BUILD_U8, AT(ip.tos), 0, NULL},
	{"id", NQ_BUILD_OWN, 0, NQ_GIVEN_ID, read_id},
	{"df", NQ_BUILD_BOOLEAN, AT(ip.df), NQ_GIVEN_DF, NULL},
	{"mf", NQ_BUILD_BOOLEAN, AT(ip.mf), NQ_GIVEN_FRAGMENT, NULL},
	{"frag_offset", NQ_BUILD_OWN, 0, NQ_GIVEN_FRAGMENT, read_frag_offset},
	{"protocol", NQ_BUILD_U8, AT(ip.protocol), NQ_GIVEN_PROTOCOL, NULL},
	{"checksum", NQ_BUILD_CHECKSUM, AT(ip.checksum), NQ_GIVEN_IP_CHECKSUM, NULL},
	{"options", NQ_BUILD_OWN, 0, NQ_GIVEN_IP_OPTIONS, read_ip_options},
	{"flow_label", NQ_BUILD_OWN, 0, NQ_GIVEN_FLOW_LABEL, read_flow_label},
	{"extensions", NQ_BUILD_OWN, 0, NQ_GIVEN_EXTENSIONS, read_extensions},
	{NULL, NQ_BUILD_OWN, 0, 0, NULL},
};

void nq_build_read_ip(lua_State *L, struct nq_description *description)
{
	nq_build_read_part(L, "ip", ip_keys, description);
}

/* Keys that belong to the other version of IP. */
static void refuse_foreign(lua_State *L, const struct nq_description *description)
{
	static const uint32_t only4 = NQ_GIVEN_DF | NQ_GIVEN_IP_CHECKSUM | NQ_GIVEN_IP_OPTIONS;
	static const uint32_t only6 = NQ_GIVEN_FLOW_LABEL | NQ_GIVEN_EXTENSIONS;
	bool is_ip6 = description->build.ip.version == 6;
	uint32_t foreign = description->given & (is_ip6 ? only4 : only6);

	for (const struct nq_build_key *key = ip_keys; key->name && foreign; key++) {
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
