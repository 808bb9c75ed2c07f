/* Packets past their handler: held, settled, delayed. What keeps them is host/keep.c, and load.c
 * for packets of loaded handlers. */
#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/lane.h"
#include "lua/load.h"
#include "lua/packet.h"

int nq_packet_refuse_keeping(lua_State *L, const struct nq_cell *cell, const char *verb, int error)
{
	if (error == -EDQUOT)
		return luaL_error(L, "cannot %s this packet: memory_limit (%I bytes) is reached",
				  verb, (LUAI_UACINT)cell->lane->allocator.budget.limit);
	return luaL_error(L, "cannot %s this packet: %s", verb,
			  error == -ENOSPC ? "too many are held or delayed"
					   : "the memory for copies is used up");
}

static enum nq_verdict read_verdict(lua_State *L, int index)
{
	const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "";

	if (lua_isnoneornil(L, index))
		return NQ_UNDECIDED;
	if (strcmp(text, "accept") == 0)
		return NQ_ACCEPT;
	if (strcmp(text, "drop") != 0)
		nq_arg_error(L, index, "hold", "verdict", "\"accept\" or \"drop\"");
	return NQ_DROP;
}

/*
 * The copy goes on under the cell that handles and headers of the packet already have; the lane
 * gets another, `fresh`, for the packets to come.
 */
static void hold_at_hand(lua_State *L, struct nq_cell *cell, struct nq_cell *fresh,
			 int64_t nanoseconds, enum nq_verdict verdict)
{
	struct nq_lua_lane *lane = cell->lane;
	struct nq_held *held;
	int error = nq_loop_hold(lane->loop, nanoseconds, verdict, cell, &held);

	if (error) {
		nq_cell_free(fresh, &lane->state->unused);
		nq_packet_refuse_keeping(L, cell, "hold", error);
		return; /* not reached */
	}
	cell->packet = &held->packet;
	cell->held = true;
	fresh->lane = lane;
	lane->cell = fresh;
}

/* To make one may run finalizers, and these may hold the very packet, or settle it. NULL: it is
 * held already. */
static struct nq_cell *make_room(lua_State *L, const struct nq_cell *cell)
{
	struct nq_cell **unused = &cell->lane->state->unused;
	struct nq_cell *fresh = nq_cell_new(L, unused);

	if (!cell->held && cell->packet->verdict == NQ_UNDECIDED)
		return fresh;
	nq_cell_free(fresh, unused);
	nq_packet_check_undecided(L, cell->packet);
	return NULL;
}

void nq_packet_hold(lua_State *L, struct nq_cell *cell, int first)
{
	struct nq_cell *fresh = NULL;
	enum nq_verdict verdict;
	int64_t nanoseconds = -1;

	if (lua_gettop(L) > first + 1)
		luaL_error(L, "too many arguments to 'hold'");
	if (!lua_isnoneornil(L, first))
		nanoseconds = nq_arg_seconds(L, first, "hold", "seconds", false);
	verdict = read_verdict(L, first + 1);
	if (!cell->made && !cell->held)
		fresh = make_room(L, cell);
	if (cell->made) {
		nq_loaded_hold(L, cell, nanoseconds, verdict);
	} else if (cell->held) {
		struct nq_held *held = (struct nq_held *)cell->packet;

		nq_held_prolong(held,
				nanoseconds < 0 ? nq_held_settings(held)->hold_limit : nanoseconds,
				verdict);
	} else {
		if (nanoseconds < 0)
			nanoseconds = cell->lane->loop->current->settings.hold_limit;
		hold_at_hand(L, cell, fresh, nanoseconds, verdict);
	}
}

int nq_packet_delay(lua_State *L, struct nq_cell *cell)
{
	if (cell->made)
		nq_loaded_delay(L, cell);
	else if (!cell->held)
		return nq_loop_delay(cell->lane->loop);
	return 0;
}

void nq_packet_settle(lua_State *L, struct nq_cell *cell)
{
	struct nq_lua_lane *lane = cell->lane;
	struct nq_held *held = (struct nq_held *)cell->packet;
	bool stepping;

	if (cell->made) {
		nq_loaded_settle(L, cell);
		return;
	}
	stepping = held->loop->stepping;
	cell->held = false;
	nq_held_settle(held);
	if (stepping) {
		cell->next = lane->ended;
		lane->ended = cell;
	} else {
		nq_cell_free(cell, &lane->state->unused);
	}
}
