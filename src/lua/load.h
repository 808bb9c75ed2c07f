/*
 * load.h - a handler script in this state, without a kernel: for specs, check and replay.
 *
 * memory_limit is of what the state grows by from the moment the handler is loaded: what was there
 * is the host's. It holds while the script runs.
 */
#ifndef NQ_LUA_LOAD_H
#define NQ_LUA_LOAD_H

#include <lua.h>

#include "lua/packet.h"

void nq_load_register(lua_State *L);

/* load(path, args, config) -> handler, or nil, message, errno */
int nq_load(lua_State *L);

/* wrap(handler, function) -> the same of a function or a table, which is checked and opened.
 * Raises, naming `function`. */
int nq_wrap(lua_State *L);

/* Of nfqueue.send: the list of what the loaded handler that is entered sent, pushed, and the mark
 * that its packets carry. False, with nothing pushed, when none is entered. */
bool nq_loaded_push_sent(lua_State *L, uint32_t *mark);

/*
 * Verbs of packets made by nfqueue.packet. Holds the one that a loaded handler is at, or another
 * time when it is held; nanoseconds < 0: hold_limit; NQ_UNDECIDED: the default. Raises when no
 * loaded handler is at it.
 */
void nq_loaded_hold(lua_State *L, struct nq_cell *cell, int64_t nanoseconds,
		    enum nq_verdict verdict);

/* It has got NQ_DELAY: the loaded handler that is at it keeps it until then, nobody else does. */
void nq_loaded_delay(lua_State *L, struct nq_cell *cell);

/* It was held and has got a verdict. */
void nq_loaded_settle(lua_State *L, struct nq_cell *cell);

/* Nanoseconds: of one call into its script. */
int64_t nq_loaded_limit(const struct nq_loaded *loaded);

#endif
