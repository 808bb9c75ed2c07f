#include "lua/packet.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "host/keep.h"
#include "lua/args.h"
#include "lua/header.h"
#include "lua/names.h"
#include "packet/print.h"

/* Registry keys: their addresses. */
static const char metatable_key, cells_key;

/* nq_handle.class of packets: its address. */
static const char packet_class;

static int wrong_self(lua_State *L, const char *method)
{
	return luaL_error(L, "bad argument 'self' to '%s' (packet expected, got %s)", method,
			  luaL_typename(L, 1));
}

struct nq_handle *nq_packet_handle(lua_State *L, int index)
{
	struct nq_handle *handle = lua_touserdata(L, index);
	size_t size = lua_rawlen(L, index); /* 0 for a light userdata */

	if (!handle || (size != sizeof(*handle) && size != sizeof(struct nq_made_packet)) ||
	    handle->class != &packet_class)
		return NULL;
	return handle;
}

struct nq_packet *nq_packet_check(lua_State *L, const char *method)
{
	struct nq_handle *handle = nq_packet_handle(L, 1);

	if (!handle) {
		wrong_self(L, method);
		return NULL; /* not reached */
	}
	if (handle->generation != handle->cell->generation)
		luaL_error(L, "packet is no longer valid");
	return handle->cell->packet;
}

void nq_packet_check_undecided(lua_State *L, const struct nq_packet *packet)
{
	if (packet->verdict != NQ_UNDECIDED)
		luaL_error(L, "packet already has a verdict");
}

struct nq_packet *nq_packet_check_open(lua_State *L, const char *method)
{
	struct nq_packet *packet = nq_packet_check(L, method);

	nq_packet_check_undecided(L, packet);
	return packet;
}

struct nq_cell *nq_packet_check_cell(lua_State *L, const char *method)
{
	(void)nq_packet_check_open(L, method);
	return ((const struct nq_handle *)lua_touserdata(L, 1))->cell;
}

void nq_packet_room(lua_State *L, struct nq_packet *packet)
{
	if (packet->spare)
		return;
	if (packet->kept) {
		int error = nq_held_room(packet);

		if (error)
			nq_packet_refuse(L, error == -EDQUOT ? "memory_limit is reached"
							     : "the memory for copies of held "
							       "packets is used up");
		return;
	}
	for (int i = 1; i <= lua_gettop(L); i++) {
		struct nq_made_packet *made;

		lua_pushvalue(L, i);
		made = nq_packet_made(L, -1);
		if (!made && lua_type(L, -1) == LUA_TUSERDATA) {
			/* A header has its packet as its user value. */
			(void)lua_getiuservalue(L, -1, 1);
			lua_remove(L, -2);
			made = nq_packet_made(L, -1);
		}
		if (made && &made->packet == packet) {
			packet->spare = lua_newuserdatauv(L, NQ_PACKET_MAX, 0);
			lua_setiuservalue(L, -2, 2);
			lua_pop(L, 1);
			return;
		}
		lua_pop(L, 1);
	}
	luaL_error(L, "this packet has no room for content of another length");
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
	cell->packet = NULL;
	cell->lane = NULL;
	cell->held = false;
	cell->next = *unused;
	*unused = cell;
}

void nq_packet_push(lua_State *L, struct nq_cell *cell, int metatable)
{
	struct nq_handle *handle = lua_newuserdatauv(L, sizeof(*handle), 0);

	handle->class = &packet_class;
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
	struct nq_handle *handle = nq_packet_handle(L, index);

	return handle && handle->cell->made ? (struct nq_made_packet *)handle : NULL;
}

struct nq_made_packet *nq_packet_new_made(lua_State *L)
{
	struct nq_made_packet *made = lua_newuserdatauv(L, sizeof(*made), 4);

	memset(made, 0, sizeof(*made));
	made->cell.packet = &made->packet;
	made->cell.made = true;
	made->handle.class = &packet_class;
	made->handle.cell = &made->cell;
	nq_packet_push_metatable(L);
	lua_setmetatable(L, -2);
	return made;
}

struct nq_packet *nq_packet_at(lua_State *L, int index)
{
	const struct nq_handle *handle = nq_packet_handle(L, index);

	if (!handle)
		return NULL;
	if (handle->generation != handle->cell->generation)
		luaL_error(L, "packet is no longer valid");
	return handle->cell->packet;
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
	struct nq_handle *handle = nq_packet_handle(L, 1);
	char line[NQ_PRINT_SIZE];

	if (!handle)
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
	/* -1 methods by code */
	for (; functions->name; functions++) {
		lua_pushstring(L, functions->name);
		lua_pushcfunction(L, functions->func);
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
		lua_pushvalue(L, -2);
		lua_pushvalue(L, -2);
		nq_header_push_cache(L);
		lua_pushcclosure(L, i ? nq_packet_newindex : nq_packet_index, 3);
		lua_setfield(L, -4, i ? "__newindex" : "__index");
	}
	lua_pop(L, 2);
	lua_pushcfunction(L, packet_len);
	lua_setfield(L, -2, "__len");
	lua_pushcfunction(L, packet_tostring);
	lua_setfield(L, -2, "__tostring");
	/* A script must not replace its metamethods. */
	lua_pushstring(L, "nfqueue.packet");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}
