/*
 * load_parts.h - what the files of loaded handlers share: load.c (the class) and load_time.c (their
 * clock, and the packets they keep). Not for others.
 */
#ifndef NQ_LUA_LOAD_PARTS_H
#define NQ_LUA_LOAD_PARTS_H

#include "lua/lane.h"
#include "lua/load.h"
#include "lua/packet.h"
#include "lua/script.h"

/* The packet that a handler's function is at, and what it was when it came. */
struct nq_loaded_call {
	struct nq_made_packet *packet; /* NULL: none */
	const struct nq_packet *arrived;
	const char *bytes;
};

/* User value 1 is the queue object that the script's functions get. */
struct nq_loaded {
	struct nq_script script;
	struct nq_settings settings;
	struct nq_lua_time time;
	struct nq_timers delayed, held; /* packets, on the same clock */
	struct nq_loaded_call call;
	struct nq_allocator allocator;
	int sent; /* registry reference: the list of what it sent */
	bool closed;
	bool advancing;
};

/* Checks the handler at index 1. */
struct nq_loaded *nq_loaded_check(lua_State *L, const char *method);

/* Around every call into its script: its clock is the present one. */
struct nq_loaded *nq_loaded_enter(lua_State *L, struct nq_loaded *loaded);
void nq_loaded_leave(lua_State *L, struct nq_loaded *outer);

/* Puts before the message at the top of the stack what it says of memory_limit. */
void nq_loaded_explain(lua_State *L, const struct nq_loaded *loaded);

/* Makes room to keep one more packet: false for want of memory. */
bool nq_loaded_reserve(struct nq_loaded *loaded);

/* What it keeps is settled as at a stop. */
void nq_loaded_end(lua_State *L, struct nq_loaded *loaded);

/* It is being collected. */
void nq_loaded_clear(lua_State *L, struct nq_loaded *loaded);

/* handler:advance(seconds) */
int nq_loaded_advance(lua_State *L);

#endif
