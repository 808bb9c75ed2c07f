#include "lua/packet.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/names.h"
#include "packet/print.h"

/* Registry keys: their addresses. */
static const char metatable_key, cells_key;

static int wrong_self(lua_State *L, const char *method)
{
	return luaL_error(L, "bad argument 'self' to '%s' (packet expected, got %s)", method,
			  luaL_typename(L, 1));
}

struct nq_packet *nq_packet_check(lua_State *L, const char *method)
{
	struct nq_handle *handle = lua_touserdata(L, 1);

	if (!handle || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
		wrong_self(L, method);
		return NULL; /* not reached */
	}
	lua_pop(L, 1);
	if (handle->generation != handle->cell->generation)
		luaL_error(L, "packet is no longer valid");
	return handle->cell->packet;
}

struct nq_packet *nq_packet_check_open(lua_State *L, const char *method)
{
	struct nq_packet *packet = nq_packet_check(L, method);

	if (packet->verdict != NQ_UNDECIDED)
		luaL_error(L, "packet already has a verdict");
	return packet;
}

void nq_packet_refuse(lua_State *L, const char *reason)
{
	if (reason)
		luaL_error(L, "cannot edit this packet: %s", reason);
}

struct nq_cell *nq_cell_new(lua_State *L, struct nq_cell **unused)
{
	struct nq_cell *cell = *unused;

	if (cell) {
		*unused = cell->next;
		return cell;
	}
	lua_rawgetp(L, LUA_REGISTRYINDEX, &cells_key);
	cell = lua_newuserdatauv(L, sizeof(*cell), 0);
	memset(cell, 0, sizeof(*cell));
	lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	lua_pop(L, 1);
	return cell;
}

void nq_cell_free(struct nq_cell *cell, struct nq_cell **unused)
{
	nq_cell_end(cell);
	cell->next = *unused;
	*unused = cell;
}

void nq_packet_push(lua_State *L, struct nq_cell *cell, int metatable)
{
	struct nq_handle *handle = lua_newuserdatauv(L, sizeof(*handle), 0);

	handle->cell = cell;
	handle->generation = cell->generation;
	lua_pushvalue(L, metatable);
	lua_setmetatable(L, -2);
}

void nq_packet_push_metatable(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
}

struct nq_made_packet *nq_packet_made(lua_State *L, int index)
{
	struct nq_handle *handle = lua_touserdata(L, index);
	bool is_packet;

	if (!handle || !lua_getmetatable(L, index))
		return NULL;
	nq_packet_push_metatable(L);
	is_packet = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is_packet && handle->cell->made ? (struct nq_made_packet *)handle : NULL;
}

/*** Bytes of the packet that are here (`#pkt`); `length` is what was on the wire. */
static int packet_len(lua_State *L)
{
	lua_pushinteger(L, nq_packet_check(L, "#")->length);
	return 1;
}

/*** The packet as one line, much as tcpdump prints it (`tostring(pkt)`); a dead one says so. */
static int packet_tostring(lua_State *L)
{
	struct nq_handle *handle = lua_touserdata(L, 1);
	char line[NQ_PRINT_SIZE];

	if (!handle || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
		return wrong_self(L, "tostring");
	if (handle->generation != handle->cell->generation) {
		lua_pushstring(L, "packet (no longer valid)");
		return 1;
	}
	nq_packet_print(handle->cell->packet, line);
	lua_pushstring(L, line);
	return 1;
}

static void set_methods(lua_State *L, const luaL_Reg *functions, const struct nq_names *names)
{
	/* -1 methods by code, -2 names, -3 metatable */
	for (; functions->name; functions++) {
		lua_pushstring(L, functions->name);
		lua_pushvalue(L, -4);
		lua_pushcclosure(L, functions->func, 1);
		lua_rawseti(L, -3, nq_names_find(names, L, -2));
		lua_pop(L, 1);
	}
}

void nq_packet_register(lua_State *L)
{
	struct nq_names *names;

	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &cells_key);
	lua_newtable(L);
	lua_pushstring(L, "nfqueue.packet");
	lua_setfield(L, -2, "__name");
	names = nq_names_new(L, nq_packet_names);
	lua_newtable(L);
	set_methods(L, nq_packet_verbs, names);
	set_methods(L, nq_packet_raw, names);
	/* -1 methods, -2 names, -3 metatable */
	for (int i = 0; i < 2; i++) {
		lua_pushvalue(L, -3);
		lua_pushvalue(L, -3);
		lua_pushvalue(L, -3);
		lua_pushcclosure(L, i ? nq_packet_newindex : nq_packet_index, 3);
		lua_setfield(L, -4, i ? "__newindex" : "__index");
	}
	lua_pop(L, 2);
	lua_pushvalue(L, -1);
	lua_pushcclosure(L, packet_len, 1);
	lua_setfield(L, -2, "__len");
	lua_pushvalue(L, -1);
	lua_pushcclosure(L, packet_tostring, 1);
	lua_setfield(L, -2, "__tostring");
	/* A script must not get at the methods' closures to build handles of its own. */
	lua_pushstring(L, "nfqueue.packet");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}
