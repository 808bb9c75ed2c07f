#include "lua/header_parts.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/names.h"
#include "packet/option.h"

/* How the userdata is told from others: `class` points to its class's element of this. */
static const char classes[CLASS_COUNT];

struct header {
	struct nq_handle handle; /* of the packet; its class is the header's */
	enum nq_header kind;
};

/* Registry key: its address. */
static const char cache_key;

const char *const nq_header_class_names[CLASS_COUNT] = {"ip", "tcp", "udp", "icmp"};

static const char *const ip_names[] = {
	"version", "src", "dst",	 "src_bytes", "dst_bytes", "ttl",      "tos",	 "id",
	"df",	   "mf",  "frag_offset", "length",    "protocol",  "checksum", "offset", NULL};

static const char *const tcp_names[] = {
	"sport", "dport",    "seq", "ack_seq", "flags",	 "window",     "urg_ptr",
	"mss",	 "checksum", "fin", "syn",     "rst",	 "psh",	       "ack",
	"urg",	 "ece",	     "cwr", "offset",  "option", "set_option", NULL};

static const char *const udp_names[] = {"sport", "dport", "length", "checksum", "offset", NULL};

static const char *const icmp_names[] = {"type",     "code",   "id",	   "seq",
					 "checksum", "offset", "embedded", NULL};

static const char *const *const class_fields[CLASS_COUNT] = {ip_names, tcp_names, udp_names,
							     icmp_names};

static enum class class_of(enum nq_header header) {
	switch (header){
		case NQ_HEADER_TCP : return CLASS_TCP; case NQ_HEADER_UDP : return CLASS_UDP;
		case NQ_HEADER_ICMP : return CLASS_ICMP;
		default : return CLASS_IP;
	}
}

/* The cache holds, weakly, each class's last header at 1 + class, and its metatable behind these.
 */
enum { CACHE_METATABLES = 1 + CLASS_COUNT };

void nq_header_push(lua_State *L, struct nq_packet *packet, enum nq_header kind, int cache)
{
	const struct nq_handle *handle = lua_touserdata(L, 1);
	bool made = handle->cell->made;
	enum class class = class_of(kind);
	struct header *header;
	uint32_t offset;

	if (!nq_header_find(packet, kind, &offset)) {
		lua_pushnil(L);
		return;
	}
	/* The header of a made packet keeps it alive, so no other can have its cell. */
	lua_rawgeti(L, cache, 1 + class);
	header = lua_touserdata(L, -1);
	if (header && header->kind == kind && header->handle.cell == handle->cell &&
	    header->handle.generation == handle->generation)
		return;
	lua_pop(L, 1);
	/* A made packet's cell lies in its userdata, which the header keeps alive; other cells live
	 * on. */
	header = lua_newuserdatauv(L, sizeof(*header), made);
	header->handle = *handle;
	header->handle.class = &classes[class];
	header->kind = kind;
	if (made) {
		lua_pushvalue(L, 1);
		lua_setiuservalue(L, -2, 1);
	}
	lua_rawgeti(L, cache, CACHE_METATABLES + class);
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawseti(L, cache, 1 + class);
}

void nq_header_push_cache(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &cache_key);
}

static struct header *find_header(lua_State *L, enum class class)
{
	struct header *header = lua_touserdata(L, 1);

	/* A light userdata has no length. */
	return header && lua_rawlen(L, 1) == sizeof(*header) &&
			       header->handle.class == &classes[class]
		       ? header
		       : NULL;
}

struct nq_packet *nq_header_check(lua_State *L, enum class class, const char *method,
				  uint32_t *offset)
{
	struct header *header = find_header(L, class);

	if (!header) {
		luaL_error(L, "bad argument 'self' to '%s' (%s header expected, got %s)", method,
			   nq_header_class_names[class], luaL_typename(L, 1));
		return NULL; /* not reached */
	}
	if (header->handle.generation != header->handle.cell->generation)
		luaL_error(L, "packet is no longer valid");
	if (!nq_header_find(header->handle.cell->packet, header->kind, offset))
		luaL_error(L, "the packet has no %s header any more", nq_header_class_names[class]);
	return header->handle.cell->packet;
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
	struct nq_packet *packet = nq_header_check(L, CLASS_TCP, "option", &offset);
	uint8_t kind = (uint8_t)nq_arg_integer(L, 2, "option", "kind", 2, 255);

	if (nq_tcp_option_find(packet, offset, kind, &value, &length))
		lua_pushlstring(L, (const char *)packet->data + value, length);
	else
		lua_pushnil(L);
	return 1;
}

static const luaL_Reg tcp_methods[] = {
	{"option", tcp_option}, {"set_option", nq_tcp_set_option}, {NULL, NULL}};

const char *nq_header_push_owners(lua_State *L, const char *name)
{
	lua_pushnil(L);
	for (int class = 0; class < CLASS_COUNT; class ++) {
		if (!nq_names_has(class_fields[class], name))
			continue;
		if (lua_isnil(L, -1))
			lua_pushfstring(L, "'%s.%s'", nq_header_class_names[class], name);
		else
			lua_pushfstring(L, "%s or '%s.%s'", lua_tostring(L, -1),
					nq_header_class_names[class], name);
		lua_remove(L, -2);
	}
	return lua_tostring(L, -1);
}

static int unknown_field(lua_State *L, enum class class)
{
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
	const char *where = NULL;

	if (nq_names_has(nq_packet_names, name))
		where = lua_pushfstring(L, "the packet's '%s'", name);
	return nq_names_refuse(L, 2, nq_header_class_names[class], class_fields[class], where);
}

/* Upvalues: the class, names, and its methods by code. */
static int header_index(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(1));
	uint32_t offset;
	struct nq_packet *packet = nq_header_check(L, class, "index", &offset);
	unsigned code = nq_names_find(lua_touserdata(L, lua_upvalueindex(2)), L, 2);

	if (!code)
		return unknown_field(L, class);
	if (class == CLASS_TCP && code >= FIELD_TCP_OPTION)
		lua_rawgeti(L, lua_upvalueindex(3), code);
	else
		nq_header_push_field(L, packet, class, code, offset);
	return 1;
}

static int header_newindex(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(1));
	uint32_t offset;
	struct nq_packet *packet = nq_header_check(L, class, "newindex", &offset);
	unsigned code = nq_names_find(lua_touserdata(L, lua_upvalueindex(2)), L, 2);

	if (!code)
		return unknown_field(L, class);
	nq_packet_check_undecided(L, packet);
	nq_header_set_field(L, packet, class, code, offset);
	return 0;
}

static int header_tostring(lua_State *L)
{
	enum class class = (enum class)lua_tointeger(L, lua_upvalueindex(1));
	const struct header *header = find_header(L, class);

	if (!header)
		return luaL_error(L,
				  "bad argument 'self' to 'tostring' (%s header expected, got %s)",
				  nq_header_class_names[class], luaL_typename(L, 1));
	lua_pushfstring(L, "%s header%s", nq_header_class_names[class],
			header->handle.generation == header->handle.cell->generation
				? ""
				: " (no longer valid)");
	return 1;
}

/* Pushes the table of a class's methods by code. -1 names */
static void push_methods(lua_State *L, const struct nq_names *names, const luaL_Reg *methods)
{
	lua_newtable(L);
	for (; methods->name; methods++) {
		lua_pushstring(L, methods->name);
		lua_pushcfunction(L, methods->func);
		lua_rawseti(L, -3, nq_names_find(names, L, -2));
		lua_pop(L, 1);
	}
}

void nq_header_register(lua_State *L)
{
	static const luaL_Reg none[] = {{NULL, NULL}};
	static const luaL_Reg *const methods[CLASS_COUNT] = {none, tcp_methods, none, none};
	static const luaL_Reg metamethods[] = {{"__index", header_index},
					       {"__newindex", header_newindex},
					       {"__tostring", header_tostring},
					       {NULL, NULL}};

	lua_createtable(L, 2 * CLASS_COUNT, 0);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, "v");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &cache_key);
	for (int class = 0; class < CLASS_COUNT; class ++) {
		lua_newtable(L);
		push_methods(L, nq_names_new(L, class_fields[class]), methods[class]);
		/* -1 methods, -2 names, -3 metatable */
		for (const luaL_Reg *function = metamethods; function->name; function++) {
			lua_pushinteger(L, class);
			lua_pushvalue(L, -3);
			lua_pushvalue(L, -3);
			lua_pushcclosure(L, function->func, 3);
			lua_setfield(L, -4, function->name);
		}
		lua_pop(L, 2);
		lua_pushfstring(L, "nfqueue.%s", nq_header_class_names[class]);
		lua_pushvalue(L, -1);
		lua_setfield(L, -3, "__name");
		lua_setfield(L, -2, "__metatable");
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &classes[class]); /* the cache is weak */
		lua_pushboolean(L, 0);
		lua_rawseti(L, -3, 1 + class);
		lua_rawseti(L, -2, CACHE_METATABLES + class);
	}
	lua_pop(L, 1);
}
