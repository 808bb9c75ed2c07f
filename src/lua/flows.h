/*
 * flows.h - the userdata of nfqueue.flows: the Lua table of each connection, and verdicts that are
 * given to the rest of one without entering Lua.
 */
#ifndef NQ_LUA_FLOWS_H
#define NQ_LUA_FLOWS_H

#include <lua.h>
#include <stdbool.h>

#include "lua/lane.h"
#include "packet/packet.h"

/* Called once a state: makes the metatable. */
void nq_flows_register(lua_State *L);

/* nfqueue.flows{ max=, timeout=, finish= }: see the doc block. */
int nq_flows_make(lua_State *L);

/*
 * Before the handler: whether a flow's verdict decides the packet, which then has it. `now` in
 * nanoseconds. Does not raise, and costs nothing while no flow has a verdict. Those made by a
 * loaded handler are for its packets alone.
 */
bool nq_flows_judge(struct nq_state *state, struct nq_packet *packet, int64_t now);

/* When the script (a thread's, or a loaded handler while it is entered) has ended: all its flows
 * end, their finish called. Does not raise; errors in finish are logged. */
void nq_flows_end(lua_State *L);

/* The loaded handler is being collected: flows it made that somebody still has are nobody's, and
 * not those of the next handler at its address. */
void nq_flows_disown(struct nq_state *state, const struct nq_loaded *owner);

/* At the very end of the state: those whose finalizer was never called. */
void nq_flows_free_all(struct nq_state *state);

#endif
