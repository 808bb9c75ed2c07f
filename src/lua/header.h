/*
 * header.h - the userdata of a header: `pkt.tcp.dport`. It dies with its packet.
 */
#ifndef NQ_LUA_HEADER_H
#define NQ_LUA_HEADER_H

#include <lua.h>

#include "lua/packet.h"
#include "packet/header.h"

/* Called once a state: makes the metatables. */
void nq_header_register(lua_State *L);

/* Pushes the header of the packet whose handle is at index 1, or nil when it is not there. */
void nq_header_push(lua_State *L, struct nq_packet *packet, enum nq_header header);

#endif
