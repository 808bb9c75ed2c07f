/*
 * header.h - the userdata of a header: `pkt.tcp.dport`. It dies with its packet.
 */
#ifndef NQ_LUA_HEADER_H
#define NQ_LUA_HEADER_H

#include <lua.h>

#include "lua/packet.h"
#include "packet/header.h"

/* Called once a state, before nq_packet_register: makes the metatables. */
void nq_header_register(lua_State *L);

/*
 * Pushes the header of the packet whose handle is at index 1, or nil when it is not there; the same
 * userdata again while the packet is the last that was asked. `cache`: index of the table of
 * nq_header_push_cache.
 */
void nq_header_push(lua_State *L, struct nq_packet *packet, enum nq_header header, int cache);
void nq_header_push_cache(lua_State *L);

/* Pushes which headers have such a field, "'tcp.dport' or 'udp.dport'"; nil, and NULL, when none
 * has. */
const char *nq_header_push_owners(lua_State *L, const char *name);

#endif
