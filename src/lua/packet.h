/*
 * packet.h - the userdata handlers hold: a small fresh handle for each packet, so that a stale one
 * can be told.
 *
 * A handle is (cell, generation). The cell belongs to the Lua state and lives as long as it; ending
 * a packet is cell->generation++, which no Lua object needs to be touched for. A packet made by
 * nfqueue.packet carries its own cell and bytes.
 */
#ifndef NQ_LUA_PACKET_H
#define NQ_LUA_PACKET_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/timer.h"
#include "packet/packet.h"

struct nq_lua_lane;
struct nq_loaded;

struct nq_cell {
	uint64_t generation;
	struct nq_packet *packet; /* valid for handles of the present generation */
	bool made;		  /* by nfqueue.packet: stays readable afterwards */
	bool held;		  /* past its handler, and not settled yet */
	struct nq_lua_lane *lane; /* whose packets are in it; NULL when made, or unused */
	struct nq_cell *next;	  /* among the unused, or those that end with the present call */
};

/* A packet is told by `class`, and its headers each by their own. */
struct nq_handle {
	const void *class;
	struct nq_cell *cell;
	uint64_t generation;
};

/* What nfqueue.packet makes: handle first, so that both kinds are read alike. */
struct nq_made_packet {
	struct nq_handle handle;
	struct nq_cell cell;
	struct nq_packet packet; /* bytes: user value 1; spare, once asked for: 2; strings of the
				    meta table: 3; held: as it arrived: 4 */
	char names[4][16];	 /* iifname oifname physiifname physoifname, "" when not given */
	/* By a loaded handler: see load.h. */
	struct nq_loaded *keeper; /* holds or delays it; NULL: nobody */
	struct nq_timer timer;
	enum nq_verdict last; /* held: when nobody settles it */
	bool released;	      /* delayed: its time has come */
};

/* Called once a state: makes the metatable and leaves nothing on the stack. */
void nq_packet_register(lua_State *L);

/*
 * A cell of this state, one a lane; its memory lives as long as the state, for the handles that
 * point to it. nq_cell_new may raise. nq_cell_free lets `*unused` have it for the next lane.
 */
struct nq_cell *nq_cell_new(lua_State *L, struct nq_cell **unused);
void nq_cell_free(struct nq_cell *cell, struct nq_cell **unused);

/* Pushes a handle for cell's present packet; `metatable` is the stack index of nq_packet_metatable.
 */
void nq_packet_push(lua_State *L, struct nq_cell *cell, int metatable);
void nq_packet_push_metatable(lua_State *L);

static inline void nq_cell_end(struct nq_cell *cell)
{
	cell->generation++;
}

/*
 * After the handler: reads what it returned (stack indices from `first` to the top) and settles
 * packet->verdict, with `standard` for none unless it is held. Raises for returned values that are
 * no verdict, and for edits that cannot be sent. True when the standard was used.
 */
bool nq_packet_conclude(lua_State *L, struct nq_cell *cell, int first, enum nq_verdict standard);

/* packet(bytes, meta): see the doc block. */
int nq_packet_make(lua_State *L);

/* The handle at `index`, or NULL for any other value. */
struct nq_handle *nq_packet_handle(lua_State *L, int index);

/* The made packet at `index`, or NULL: any other value, or a packet of a queue. */
struct nq_made_packet *nq_packet_made(lua_State *L, int index);

/* The packet at `index`, of a queue or made, or NULL for any other value. Raises for a dead one. */
struct nq_packet *nq_packet_at(lua_State *L, int index);

/* --- between the files of this class --- */

/* Pushes a made packet without bytes, and without the table of its strings. May raise. */
struct nq_made_packet *nq_packet_new_made(lua_State *L);

/* First line of every method. Raises for other values and dead packets. */
struct nq_packet *nq_packet_check(lua_State *L, const char *method);

/* The same for changes: raises also when the packet has its verdict. */
struct nq_packet *nq_packet_check_open(lua_State *L, const char *method);

/* The same for verbs: its cell. */
struct nq_cell *nq_packet_check_cell(lua_State *L, const char *method);

/* Raises when it has its verdict. */
void nq_packet_check_undecided(lua_State *L, const struct nq_packet *packet);

/*
 * Before an edit that changes the length: packet->spare is there afterwards. A packet of a queue
 * has it; a made one (it, or a header of it, is on the stack of this function) gets it here. May
 * raise for want of memory.
 */
void nq_packet_room(lua_State *L, struct nq_packet *packet);

/* Raises "cannot edit this packet: reason" unless reason is NULL. */
void nq_packet_refuse(lua_State *L, const char *reason);

int nq_packet_index(lua_State *L);    /* __index; upvalues: names, methods by code, headers */
int nq_packet_newindex(lua_State *L); /* __newindex; the same */
extern const char *const nq_packet_names[];

/* Functions of the method table: {name, function}, up to a NULL. */
extern const luaL_Reg nq_packet_verbs[];
extern const luaL_Reg nq_packet_raw[];

/* hold.c: the verb, its arguments from stack index `first` on. */
void nq_packet_hold(lua_State *L, struct nq_cell *cell, int first);

/*
 * The packet has got NQ_DELAY and is to be kept: 0, or -errno, which nq_packet_refuse_keeping
 * raises as "cannot `verb` this packet: ...".
 */
int nq_packet_delay(lua_State *L, struct nq_cell *cell);
int nq_packet_refuse_keeping(lua_State *L, const struct nq_cell *cell, const char *verb, int error);

/* A held packet has got its verdict. */
void nq_packet_settle(lua_State *L, struct nq_cell *cell);

#endif
