/* The clock of loaded handlers, and the packets they hold and delay. */
#include <lauxlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/flows.h"
#include "lua/load_parts.h"
#include "packet/edit.h"

/* Seconds that a handler's clock reaches: with what it began at and whatever is added to it, it
 * fits 63 bits of nanoseconds. */
#define CLOCK_MOST 7000000000

/* Timers that may be added at one moment: one that sets itself again for at once has no end. */
enum { AT_ONCE_MOST = 1000000 };

/* A held packet as it arrived, for on_error: its user value 4. */
struct arrival {
	struct nq_packet packet;
	char bytes[];
};

static struct nq_made_packet *made_of(struct nq_cell *cell)
{
	return (struct nq_made_packet *)((char *)cell - offsetof(struct nq_made_packet, cell));
}

struct nq_loaded *nq_loaded_enter(lua_State *L, struct nq_loaded *loaded)
{
	struct nq_state *state = nq_state_get(L);
	struct nq_loaded *outer = state->loaded;

	state->loaded = loaded;
	state->time = &loaded->time;
	nq_allocator_enter(L, &loaded->allocator);
	return outer;
}

void nq_loaded_leave(lua_State *L, struct nq_loaded *outer)
{
	struct nq_state *state = nq_state_get(L);

	nq_allocator_leave(L, &state->loaded->allocator);
	state->loaded = outer;
	state->time = outer ? &outer->time : &state->real;
}

bool nq_loaded_push_sent(lua_State *L, uint32_t *mark)
{
	const struct nq_loaded *loaded = nq_state_get(L)->loaded;

	if (!loaded)
		return false;
	*mark = loaded->settings.loop_mark;
	lua_rawgeti(L, LUA_REGISTRYINDEX, loaded->sent);
	return true;
}

int64_t nq_loaded_limit(const struct nq_loaded *loaded)
{
	return loaded->settings.time_limit;
}

static struct nq_made_packet *packet_of(struct nq_timer *timer)
{
	return (struct nq_made_packet *)((char *)timer - offsetof(struct nq_made_packet, timer));
}

bool nq_loaded_reserve(struct nq_loaded *loaded)
{
	/* Any of them may be delayed after it was held. */
	uint32_t wanted = loaded->held.count + loaded->delayed.count + 1;
	uint32_t capacity = 64;

	while (capacity < wanted)
		capacity *= 2;
	return nq_timers_reserve(&loaded->held, capacity) == 0 &&
	       nq_timers_reserve(&loaded->delayed, capacity) == 0;
}

/* There is room since the handler came to the packet. */
static void keep_until(struct nq_made_packet *made, struct nq_loaded *loaded,
		       struct nq_timers *timers, int64_t nanoseconds)
{
	made->keeper = loaded;
	(void)nq_timers_add(timers, &made->timer, loaded->time.now + nanoseconds);
}

void nq_loaded_hold(lua_State *L, struct nq_cell *cell, int64_t nanoseconds,
		    enum nq_verdict verdict)
{
	struct nq_made_packet *made = made_of(cell);
	struct nq_loaded *loaded = cell->held ? made->keeper : nq_state_get(L)->loaded;

	if (!loaded || (!cell->held && loaded->call.packet != made)) {
		luaL_error(L, "cannot hold this packet: no handler is at it");
		return; /* not reached */
	}
	if (loaded->closed)
		luaL_error(L, "cannot hold this packet: handler is closed");
	if (!cell->held) {
		size_t length = loaded->call.arrived->length;
		struct arrival *arrival;

		nq_anchor_push(L, made);
		arrival = lua_newuserdatauv(L, sizeof(*arrival) + length, 0);
		arrival->packet = *loaded->call.arrived;
		if (length)
			memcpy(arrival->bytes, loaded->call.bytes, length);
		lua_setiuservalue(L, -2, 4);
		lua_pop(L, 1);
	}
	nq_timers_remove(&loaded->held, &made->timer);
	made->last = verdict == NQ_UNDECIDED ? loaded->settings.default_verdict : verdict;
	cell->held = true;
	keep_until(made, loaded, &loaded->held,
		   nanoseconds < 0 ? loaded->settings.hold_limit : nanoseconds);
}

void nq_loaded_delay(lua_State *L, struct nq_cell *cell)
{
	struct nq_made_packet *made = made_of(cell);
	struct nq_loaded *loaded = nq_state_get(L)->loaded;

	if (cell->held || !loaded || loaded->call.packet != made)
		return;
	if (loaded->closed)
		made->released = true; /* as at a stop */
	else
		keep_until(made, loaded, &loaded->delayed, made->packet.delay);
}

static void let_go(lua_State *L, struct nq_made_packet *made)
{
	made->keeper = NULL;
	made->cell.held = false;
	nq_anchor_drop(L, made);
}

void nq_loaded_settle(lua_State *L, struct nq_cell *cell)
{
	struct nq_made_packet *made = made_of(cell);
	struct nq_loaded *loaded = made->keeper;

	nq_timers_remove(&loaded->held, &made->timer);
	cell->held = false;
	if (made->packet.verdict == NQ_DELAY)
		keep_until(made, loaded, &loaded->delayed, made->packet.delay);
	else
		let_go(L, made);
}

static void release(lua_State *L, struct nq_made_packet *made)
{
	made->released = true;
	let_go(L, made);
}

/* Nobody settled it in time. */
static void expire(lua_State *L, struct nq_loaded *loaded, struct nq_made_packet *made)
{
	struct nq_packet *packet = &made->packet;

	packet->verdict = made->last;
	if (packet->verdict == NQ_DROP) {
		packet->send = 0;
	} else if (packet->dirty && nq_edit_finish(packet, true)) {
		const struct arrival *arrival;

		nq_anchor_push(L, made);
		(void)lua_getiuservalue(L, -1, 4);
		arrival = lua_touserdata(L, -1);
		*packet = arrival->packet;
		if (packet->length)
			memcpy(packet->data, arrival->bytes, packet->length);
		packet->verdict = loaded->settings.on_error;
		lua_pop(L, 2);
	}
	let_go(L, made);
}

/*
 * What is due first until `target` happens, at its time: of equal times delayed packets before
 * timers before held packets, as in a loop. False when nothing is. Leaves the message of a timer
 * that failed on the stack, *status then.
 */
static bool happen(lua_State *L, struct nq_loaded *loaded, int64_t target, int *status)
{
	int64_t delayed = nq_timers_due(&loaded->delayed);
	int64_t timers = nq_timers_due(&loaded->time.timers);
	int64_t held = nq_timers_due(&loaded->held);
	int64_t first = delayed < timers ? delayed : timers;
	int64_t due;

	if (held < first)
		first = held;
	if (first > target)
		return false;
	if (first > loaded->time.now)
		loaded->time.now = first;
	if (delayed == first)
		release(L, packet_of(nq_timers_take(&loaded->delayed, first, UINT64_MAX, &due)));
	else if (timers == first)
		*status = nq_timer_run(L, &loaded->time, first, UINT64_MAX);
	else
		expire(L, loaded,
		       packet_of(nq_timers_take(&loaded->held, first, UINT64_MAX, &due)));
	return true;
}

/***
Move the handler's own clock, which stands still otherwise: its timers fire, delayed packets leave
(`pkt.sent`) and held ones get their verdict, all in order, each at its time.
@function handler:advance
@tparam number seconds 0 or more
@treturn ?string the error of the first timer that raised, with its traceback
@raise for a wrong number, and one that takes the clock beyond 7e9; `handler is closed`; `handler is
advancing already` from one of its timers; `timers of 0 seconds follow one another without end`
*/
int nq_loaded_advance(lua_State *L)
{
	struct nq_loaded *loaded = nq_loaded_check(L, "advance");
	int64_t target = nq_arg_seconds(L, 2, "advance", "seconds", false);
	struct nq_state *state = nq_state_get(L);
	struct nq_loaded *outer;
	bool failed = false, endless = false;
	int64_t moment = -1;
	uint64_t before = 0; /* how many had been added then */
	int status = LUA_OK;

	if (loaded->closed)
		return luaL_error(L, "handler is closed");
	if (loaded->advancing)
		return luaL_error(L, "handler is advancing already");
	lua_settop(L, 1);
	luaL_checkstack(L, LUA_MINSTACK, "advance");
	target += loaded->time.now;
	if (target > CLOCK_MOST * NQ_SECOND)
		return luaL_error(L, "bad argument 'seconds' to 'advance' (the clock goes to 7e9)");
	loaded->advancing = true;
	outer = nq_loaded_enter(L, loaded);
	while (!loaded->closed && !endless && happen(L, loaded, target, &status)) {
		if (loaded->time.now != moment) {
			moment = loaded->time.now;
			before = loaded->time.timers.order;
		}
		endless = loaded->time.timers.order - before > AT_ONCE_MOST;
		if (status == LUA_OK)
			continue;
		nq_loaded_explain(L, loaded);
		if (failed)
			lua_pop(L, 1); /* 2 is the first */
		failed = true;
		status = LUA_OK;
	}
	nq_loaded_leave(L, outer);
	loaded->advancing = false;
	if (endless)
		return luaL_error(L, "timers of 0 seconds follow one another without end");
	if (target > loaded->time.now)
		loaded->time.now = target;
	if (state->tables_reached < loaded->time.origin + loaded->time.now)
		state->tables_reached = loaded->time.origin + loaded->time.now;
	return failed;
}

void nq_loaded_end(lua_State *L, struct nq_loaded *loaded)
{
	struct nq_timer *timer;
	int64_t due;

	while ((timer = nq_timers_take(&loaded->delayed, NQ_NEVER, UINT64_MAX, &due)) != NULL)
		release(L, packet_of(timer));
	while ((timer = nq_timers_take(&loaded->held, NQ_NEVER, UINT64_MAX, &due)) != NULL)
		expire(L, loaded, packet_of(timer));
	nq_timer_clear(L, &loaded->time);
}

static void forget(lua_State *L, struct nq_timers *timers)
{
	for (uint32_t i = 0; i < timers->count; i++) {
		timers->entries[i].timer->position = 0;
		let_go(L, packet_of(timers->entries[i].timer));
	}
	nq_timers_free(timers);
}

void nq_loaded_clear(lua_State *L, struct nq_loaded *loaded)
{
	struct nq_state *state = nq_state_get(L);

	forget(L, &loaded->delayed);
	forget(L, &loaded->held);
	nq_timer_clear(L, &loaded->time);
	nq_flows_disown(state, loaded);
	/* Only while the state is being closed, from inside it. */
	if (state->loaded == loaded) {
		nq_allocator_strip(L);
		nq_loaded_leave(L, NULL);
	}
}
