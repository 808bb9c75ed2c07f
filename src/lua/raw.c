/* Raw access to a packet's bytes: 0-based offsets from its start, network byte order,
 * bounds-checked. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"
#include "packet/edit.h"

/* The offset at `index` with `size` bytes behind it inside the packet. */
static uint32_t check_offset(lua_State *L, int index, const struct nq_packet *packet, size_t size,
			     const char *method)
{
	lua_Integer offset = nq_arg_integer(L, index, method, "offset", 0, LUA_MAXINTEGER);

	if ((lua_Unsigned)offset > packet->length || size > packet->length - (size_t)offset)
		luaL_error(L,
			   "bad argument 'offset' to '%s' (%I and %d bytes reach beyond the "
			   "packet's %d)",
			   method, (LUAI_UACINT)offset, (int)size, (int)packet->length);
	return (uint32_t)offset;
}

/* Reads, or with a third argument writes, a big-endian number of `size` bytes. */
static int access_number(lua_State *L, uint32_t size, const char *method)
{
	struct nq_packet *packet = nq_packet_check(L, method);
	uint32_t offset = check_offset(L, 2, packet, size, method);
	lua_Integer value = 0;

	if (!lua_isnoneornil(L, 3)) {
		uint8_t bytes[4];

		value = nq_arg_integer(L, 3, method, "value", 0, (1LL << (8 * size)) - 1);
		for (uint32_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
		packet = nq_packet_check_open(L, method);
		nq_packet_refuse(L, nq_edit_patch(packet, offset, bytes, size));
		return 0;
	}
	for (uint32_t i = 0; i < size; i++)
		value = value << 8 | packet->data[offset + i];
	lua_pushinteger(L, value);
	return 1;
}

/***
Read or write one byte.
@function packet:u8
@tparam integer offset from the start of the packet, 0-based
@tparam[opt] integer value 0 to 255: written there
@treturn integer the byte, when read
@raise `bad argument 'offset' to 'u8'` beyond the packet, `cannot edit this packet: ...`
*/
static int packet_u8(lua_State *L)
{
	return access_number(L, 1, "u8");
}

/***
Read or write 16 bits in network byte order.
@function packet:u16
@tparam integer offset from the start of the packet, 0-based
@tparam[opt] integer value 0 to 65535: written there
@treturn integer the number, when read
*/
static int packet_u16(lua_State *L)
{
	return access_number(L, 2, "u16");
}

/***
Read or write 24 bits in network byte order.
@function packet:u24
@tparam integer offset from the start of the packet, 0-based
@tparam[opt] integer value 0 to 16777215: written there
@treturn integer the number, when read
*/
static int packet_u24(lua_State *L)
{
	return access_number(L, 3, "u24");
}

/***
Read or write 32 bits in network byte order.
@function packet:u32
@tparam integer offset from the start of the packet, 0-based
@tparam[opt] integer value 0 to 4294967295: written there
@treturn integer the number, when read
*/
static int packet_u32(lua_State *L)
{
	return access_number(L, 4, "u32");
}

/***
The packet's bytes, or part of them.
@function packet:bytes
@tparam[opt=0] integer offset from the start of the packet, 0-based
@tparam[opt] integer length default: to the end
@treturn string
*/
static int packet_bytes(lua_State *L)
{
	struct nq_packet *packet = nq_packet_check(L, "bytes");
	uint32_t offset = lua_isnoneornil(L, 2) ? 0 : check_offset(L, 2, packet, 0, "bytes");
	uint32_t length = packet->length - offset;

	if (!lua_isnoneornil(L, 3))
		length = (uint32_t)nq_arg_integer(L, 3, "bytes", "length", 0, length);
	lua_pushlstring(L, length ? (const char *)packet->data + offset : "", length);
	return 1;
}

/***
Overwrite bytes in place; the length of the packet stays.
@function packet:patch
@tparam integer offset from the start of the packet, 0-based
@tparam string bytes
@raise `cannot edit this packet: ...` on truncated packets and bytes the kernel insists on
*/
static int packet_patch(lua_State *L)
{
	struct nq_packet *packet = nq_packet_check_open(L, "patch");
	size_t length;
	const char *bytes = nq_arg_string(L, 3, "patch", "bytes", &length);
	uint32_t offset = check_offset(L, 2, packet, length, "patch");

	if (length)
		nq_packet_refuse(
			L, nq_edit_patch(packet, offset, (const uint8_t *)bytes, (uint32_t)length));
	return 0;
}

/***
Read values with a format of `string.unpack`, from an offset.
@function packet:unpack
@tparam string format as for string.unpack; begin it with ">" for network byte order
@tparam[opt=0] integer offset from the start of the packet, 0-based
@return the values, then the offset behind the last
*/
static int packet_unpack(lua_State *L)
{
	struct nq_packet *packet = nq_packet_check(L, "unpack");
	uint32_t offset;
	int below; /* the function's results replace what lies above this index */

	nq_arg_string(L, 2, "unpack", "format", NULL);
	offset = lua_isnoneornil(L, 3) ? 0 : check_offset(L, 3, packet, 0, "unpack");
	lua_settop(L, 3);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_getfield(L, -1, LUA_STRLIBNAME);
	if (lua_type(L, -1) != LUA_TTABLE || lua_getfield(L, -1, "unpack") != LUA_TFUNCTION)
		return luaL_error(L, "packet:unpack needs the string library");
	lua_pushvalue(L, 2);
	lua_pushlstring(L, packet->length ? (const char *)packet->data : "", packet->length);
	lua_pushinteger(L, (lua_Integer)offset + 1);
	below = lua_gettop(L) - 4;
	lua_call(L, 3, LUA_MULTRET);
	lua_pushinteger(L, lua_tointeger(L, -1) - 1); /* string.unpack counts from 1 */
	lua_replace(L, -2);
	return lua_gettop(L) - below;
}

/***
Find bytes in the packet; plain, no patterns.
@function packet:find
@tparam string bytes
@tparam[opt=0] integer offset where to begin, 0-based
@treturn integer offset of the first match, or nil
*/
static int packet_find(lua_State *L)
{
	struct nq_packet *packet = nq_packet_check(L, "find");
	size_t length;
	const char *bytes = nq_arg_string(L, 2, "find", "bytes", &length);
	uint32_t offset = lua_isnoneornil(L, 3) ? 0 : check_offset(L, 3, packet, 0, "find");
	const uint8_t *found;

	if (length == 0) {
		lua_pushinteger(L, offset);
		return 1;
	}
	found = packet->length
			? memmem(packet->data + offset, packet->length - offset, bytes, length)
			: NULL;
	if (found)
		lua_pushinteger(L, found - packet->data);
	else
		lua_pushnil(L);
	return 1;
}

const luaL_Reg nq_packet_raw[] = {
	{"u8", packet_u8},	   {"u16", packet_u16},	    {"u24", packet_u24},
	{"u32", packet_u32},	   {"bytes", packet_bytes}, {"patch", packet_patch},
	{"unpack", packet_unpack}, {"find", packet_find},   {NULL, NULL},
};
