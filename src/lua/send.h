/*
 * send.h - nfqueue.send: packets of a script's own making, sent or, in a loaded handler, recorded.
 */
#ifndef NQ_LUA_SEND_H
#define NQ_LUA_SEND_H

#include <lua.h>

#include "lua/lane.h"

/* send(bytes, options): see the doc block. */
int nq_send(lua_State *L);

/* The raw sockets of this state: those of the process where nfqueue.run gave them, else its own,
 * opened at the first call. */
const struct nq_raw *nq_send_sockets(struct nq_state *state);

#endif
