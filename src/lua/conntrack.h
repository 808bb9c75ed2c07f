/*
 * conntrack.h - `pkt.ct`: the conntrack entry of a packet as a table.
 */
#ifndef NQ_LUA_CONNTRACK_H
#define NQ_LUA_CONNTRACK_H

#include <lua.h>

#include "packet/packet.h"

/*
 * Pushes a fresh table { id=, state=, direction=, status=, mark=, labels=, orig=, reply= }, or nil
 * when no entry came with the packet. What the kernel did not tell is absent.
 */
void nq_conntrack_push(lua_State *L, const struct nq_packet *packet);

#endif
