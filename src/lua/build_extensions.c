/* The IPv6 extension headers of nfqueue.build. */
#include <arpa/inet.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <string.h>

#include "lua/args.h"
#include "lua/build.h"
#include "packet/bytes.h"

static const char function[] = "build";

enum { PATH_SIZE = NQ_BUILD_PATH };
enum { AH_MAX = 1024 - 2, SEGMENTS_MAX = 127 };

/* Makes a copy of the bytes, which the anchor keeps, the extension's. */
static void keep(lua_State *L, struct nq_build_extension *extension, const void *bytes,
		 size_t length)
{
	extension->bytes = (const uint8_t *)lua_pushlstring(L, bytes, length);
	extension->length = (uint32_t)length;
	lua_rawseti(L, NQ_BUILD_ANCHOR, (lua_Integer)lua_rawlen(L, NQ_BUILD_ANCHOR) + 1);
}

/* RFC 8200 section 4.2: hop-by-hop and destination options. */
static void read_options6(lua_State *L, const char *path, struct nq_build_extension *extension)
{
	uint8_t bytes[NQ_BUILD_OPTIONS6];

	keep(L, extension, bytes, nq_build_read_options6(L, path, bytes));
}

static lua_Integer read_field(lua_State *L, const char *path, const char *name, lua_Integer most)
{
	char full[PATH_SIZE];
	lua_Integer value = 0;

	nq_build_path(full, "%s.%s", path, name);
	lua_pushstring(L, name);
	if (lua_rawget(L, -2) != LUA_TNIL)
		value = nq_arg_integer(L, -1, function, full, 0, most);
	lua_pop(L, 1);
	return value;
}

static void refuse_others(lua_State *L, const char *path, const char *const *known)
{
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		if (nq_build_find(L, -2, known) < 0)
			nq_build_unknown(L, -2, path);
		lua_pop(L, 1);
	}
}

static void check_units(lua_State *L, const char *path, size_t length, size_t most)
{
	if ((length + 2) % 8)
		luaL_error(L,
			   "bad argument '%s' to 'build' (%d bytes: with the two before them they "
			   "must fill units of 8)",
			   path, (int)length);
	if (length > most)
		nq_build_too_long(L, path, most);
}

/* RFC 8200 section 4.4: all behind the length as a string, or { type=, left=, addresses= }. */
static void read_routing(lua_State *L, const char *path, struct nq_build_extension *extension)
{
	static const char *const known[] = {"type", "left", "addresses", NULL};
	uint8_t bytes[6 + 16 * SEGMENTS_MAX] = {0};
	char name[PATH_SIZE];
	int count;

	if (lua_type(L, -1) == LUA_TSTRING) {
		extension->bytes = (const uint8_t *)lua_tostring(L, -1);
		extension->length = (uint32_t)lua_rawlen(L, -1);
		check_units(L, path, lua_rawlen(L, -1), NQ_BUILD_OPTIONS6);
		return;
	}
	if (lua_type(L, -1) != LUA_TTABLE)
		nq_arg_error(L, -1, function, path, "string, or table { type, left, addresses },");
	refuse_others(L, path, known);
	bytes[0] = (uint8_t)read_field(L, path, "type", 255);
	bytes[1] = (uint8_t)read_field(L, path, "left", 255);
	nq_build_path(name, "%s.addresses", path);
	lua_pushstring(L, "addresses");
	lua_rawget(L, -2);
	nq_build_expect_list(L, name, "list of 1 to 127 IPv6 addresses", 1, SEGMENTS_MAX);
	count = (int)lua_rawlen(L, -1);
	for (int i = 0; i < count; i++) {
		nq_build_path(name, "%s.addresses[%d]", path, i + 1);
		lua_rawgeti(L, -1, i + 1);
		if (inet_pton(AF_INET6, nq_build_text(L), bytes + 6 + 16 * i) != 1)
			nq_arg_error(L, -1, function, name, "IPv6 address");
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	keep(L, extension, bytes, 6 + 16 * (size_t)count);
}

static void keep_fragment(lua_State *L, struct nq_build_extension *extension, uint32_t id,
			  bool more, uint16_t offset)
{
	uint8_t bytes[6];

	nq_put_u16(bytes, offset | more);
	nq_put_u32(bytes + 2, id);
	keep(L, extension, bytes, sizeof(bytes));
	extension->kind = IPPROTO_FRAGMENT;
}

/* { id=, mf=, frag_offset= } */
static void read_fragment(lua_State *L, const char *path, struct nq_build_extension *extension)
{
	static const char *const known[] = {"id", "mf", "frag_offset", NULL};
	char name[PATH_SIZE];
	bool more = false;
	lua_Integer id, offset;

	nq_arg_table(L, -1, function, path);
	refuse_others(L, path, known);
	id = read_field(L, path, "id", 0xffffffff);
	offset = read_field(L, path, "frag_offset", 65528);
	nq_build_path(name, "%s.frag_offset", path);
	if (offset % 8)
		luaL_error(L, "bad argument '%s' to 'build' (multiple of 8 expected, got %d)", name,
			   (int)offset);
	lua_pushstring(L, "mf");
	nq_build_path(name, "%s.mf", path);
	if (lua_rawget(L, -2) != LUA_TNIL)
		more = nq_arg_boolean(L, -1, function, name);
	lua_pop(L, 1);
	keep_fragment(L, extension, (uint32_t)id, more, (uint16_t)offset);
}

/* RFC 4302: everything behind the length. */
static void read_ah(lua_State *L, const char *path, struct nq_build_extension *extension)
{
	size_t length;

	extension->bytes = (const uint8_t *)nq_arg_string(L, -1, function, path, &length);
	extension->length = (uint32_t)length;
	check_units(L, path, length, AH_MAX);
}

static const char *const extension_names[] = {"hop_by_hop",  "routing", "fragment",
					      "destination", "ah",	NULL};
static const uint8_t extension_kinds[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT,
					  IPPROTO_DSTOPTS, IPPROTO_AH};

/* The item at the top, { name = content }. */
static void read_extension(lua_State *L, const char *path, struct nq_build_extension *extension)
{
	char name[PATH_SIZE];
	int which;

	if (lua_type(L, -1) != LUA_TTABLE)
		nq_arg_error(L, -1, function, path, "table { name = content }");
	lua_pushnil(L);
	if (!lua_next(L, -2))
		nq_build_refuse(L, path, "it names no extension header");
	which = nq_build_find(L, -2, extension_names);
	if (which < 0)
		which = nq_build_unknown(L, -2, path);
	extension->kind = extension_kinds[which];
	nq_build_path(name, "%s.%s", path, extension_names[which]);
	switch (extension->kind) {
	case IPPROTO_ROUTING:
		read_routing(L, name, extension);
		break;
	case IPPROTO_FRAGMENT:
		read_fragment(L, name, extension);
		break;
	case IPPROTO_AH:
		read_ah(L, name, extension);
		break;
	default:
		read_options6(L, name, extension);
	}
	lua_pop(L, 1);
	if (lua_next(L, -2))
		luaL_error(L,
			   "bad argument '%s' to 'build' (one extension header an item: the order "
			   "counts)",
			   path);
}

void nq_build_read_extensions(lua_State *L, const char *path, struct nq_build_ip *ip)
{
	nq_build_expect_list(L, path, "list of at most 16 extension headers", 0,
			     NQ_BUILD_EXTENSIONS);
	lua_pushnil(L);
	while (lua_next(L, -2)) { /* no key but those of a list */
		if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 ||
		    (lua_Unsigned)lua_tointeger(L, -2) > lua_rawlen(L, -3))
			nq_build_unknown(L, -2, path);
		lua_pop(L, 1);
	}
	ip->extension_count = (unsigned)lua_rawlen(L, -1);
	for (unsigned i = 0; i < ip->extension_count; i++) {
		char name[PATH_SIZE];

		nq_build_path(name, "%s[%u]", path, i + 1);
		lua_rawgeti(L, -1, i + 1);
		read_extension(L, name, &ip->extensions[i]);
		if (ip->extensions[i].kind == IPPROTO_HOPOPTS && i > 0)
			luaL_error(L,
				   "bad argument '%s' to 'build' (hop-by-hop options come first)",
				   name);
		lua_pop(L, 1);
	}
}

/* RFC 8200 section 4.1: behind what routers on the way read. */
static unsigned fragment_position(const struct nq_build_ip *ip)
{
	unsigned position = 0;

	for (unsigned i = 0; i < ip->extension_count; i++) {
		if (ip->extensions[i].kind == IPPROTO_HOPOPTS ||
		    ip->extensions[i].kind == IPPROTO_ROUTING)
			position = i + 1;
	}
	return position;
}

void nq_build_add_fragment(lua_State *L, struct nq_build_ip *ip, uint32_t id)
{
	unsigned position = fragment_position(ip);

	if (ip->extension_count == NQ_BUILD_EXTENSIONS)
		nq_build_refuse(L, "ip.extensions", "no room for a fragment header: at most 16");
	memmove(&ip->extensions[position + 1], &ip->extensions[position],
		(ip->extension_count - position) * sizeof(ip->extensions[0]));
	ip->extension_count++;
	keep_fragment(L, &ip->extensions[position], id, ip->mf, ip->frag_offset);
}
