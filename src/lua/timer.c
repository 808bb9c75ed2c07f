#include "lua/timer.h"

#include <lauxlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/class.h"
#include "lua/lane.h"
#include "lua/script.h"

#define WHAT "timer"

static const char metatable_key, anchors_key;

/* User value 1 is its function. Anchored while it is pending. */
struct timer {
	struct nq_timer timer;	  /* first */
	struct nq_lua_time *time; /* valid while it is pending */
	int64_t interval;	  /* nanoseconds; 0: once */
};

void nq_anchor(lua_State *L, const void *address)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &anchors_key);
	lua_insert(L, -2);
	lua_rawsetp(L, -2, address);
	lua_pop(L, 1);
}

void nq_anchor_drop(lua_State *L, const void *address)
{
	lua_pushnil(L);
	nq_anchor(L, address);
}

void nq_anchor_push(lua_State *L, const void *address)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &anchors_key);
	lua_rawgetp(L, -1, address);
	lua_remove(L, -2);
}

int64_t nq_lua_now(lua_State *L)
{
	const struct nq_state *state = nq_state_get(L);

	if (state->time->manual)
		return state->time->now;
	return state->active ? nq_loop_now(state->active) : nq_clock_now();
}

int64_t nq_lua_table_time(const struct nq_state *state)
{
	return state->time->manual ? state->time->origin + state->time->now : nq_clock_now();
}

static int new_timer(lua_State *L, const char *function, bool repeated)
{
	struct nq_lua_time *time = nq_state_get(L)->time;
	int64_t seconds = nq_arg_seconds(L, 1, function, "seconds", repeated);
	/* Not the batch's time: the handler may have taken long. */
	int64_t now = time->manual ? time->now : nq_clock_now();
	struct timer *timer;

	if (lua_type(L, 2) != LUA_TFUNCTION)
		nq_arg_error(L, 2, function, "function", "function");
	if (lua_gettop(L) > 2)
		luaL_error(L, "too many arguments to '%s'", function);
	timer = nq_class_push(L, &metatable_key, sizeof(*timer), 1);
	*timer = (struct timer){.time = time, .interval = repeated ? seconds : 0};
	lua_pushvalue(L, 2);
	lua_setiuservalue(L, 3, 1);
	lua_pushvalue(L, 3);
	nq_anchor(L, timer);
	if (nq_timers_add(&time->timers, &timer->timer, now + seconds) != 0) {
		nq_anchor_drop(L, timer);
		return luaL_error(L, "not enough memory");
	}
	return 1;
}

/***
Call a function once, after some time: between packets, in a loop of this state that is running or
processed. It goes with the script. A function that raises is logged, and the loop goes on.
@function after
@tparam number seconds from now on, 0 or more
@tparam function fn called with the timer
@treturn timer
@raise for any wrong argument, naming it
*/
int nq_timer_after(lua_State *L)
{
	return new_timer(L, "after", false);
}

/***
Call a function again and again, as `after` does. It keeps in step: the times are multiples of the
interval from now on, whenever the function ran; those that have passed meanwhile are left out.
@function every
@tparam number seconds between two calls, more than 0
@tparam function fn called with the timer
@treturn timer
@raise for any wrong argument, naming it
@usage local timer = nfqueue.every(60, function() nfqueue.log.info("%d flows", count) end)
*/
int nq_timer_every(lua_State *L)
{
	return new_timer(L, "every", true);
}

/***
The loop's clock: monotonic, read once for the packets that were received together. In a loaded
handler it stands still until `handler:advance`.
@function now
@treturn number seconds, from a moment that has no meaning
*/
int nq_timer_now(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)nq_lua_now(L) / (lua_Number)NQ_SECOND);
	return 1;
}

/***
Take a timer back; inside its own function too.
@function timer:cancel
@treturn boolean whether it would still have called its function
@raise `bad argument 'self' to 'cancel'`
*/
static int timer_cancel(lua_State *L)
{
	nq_class_check(L, "cancel", WHAT);
	lua_pushboolean(L, nq_timer_stop(L, 1));
	return 1;
}

static int timer_tostring(lua_State *L)
{
	const struct timer *timer = nq_class_check(L, "tostring", WHAT);

	lua_pushstring(L, nq_timer_pending(&timer->timer) ? "timer (pending)" : "timer (done)");
	return 1;
}

bool nq_timer_stop(lua_State *L, int index)
{
	struct timer *timer = lua_touserdata(L, index);

	if (!nq_timer_pending(&timer->timer))
		return false;
	nq_timers_remove(&timer->time->timers, &timer->timer);
	nq_anchor_drop(L, timer);
	return true;
}

int nq_timer_run(lua_State *L, struct nq_lua_time *time, int64_t now, uint64_t before)
{
	int64_t due;
	struct timer *timer = (struct timer *)nq_timers_take(&time->timers, now, before, &due);
	int status;

	if (!timer)
		return -1;
	lua_pushcfunction(L, nq_script_traceback);
	nq_anchor_push(L, timer);
	(void)lua_getiuservalue(L, -1, 1);
	lua_insert(L, -2);
	/* -3 traceback, -2 function, -1 timer. It goes in again first, so that it can be cancelled.
	 */
	if (timer->interval) {
		due += timer->interval;
		if (due <= now)
			due += ((now - due) / timer->interval + 1) * timer->interval;
		/* There is room: it has just come out. */
		(void)nq_timers_add(&time->timers, &timer->timer, due);
	} else {
		nq_anchor_drop(L, timer);
	}
	status = nq_watch_call(L, 1, 0, -3, NQ_CALL_TIMER);
	lua_remove(L, status ? -2 : -1);
	return status;
}

void nq_timer_clear(lua_State *L, struct nq_lua_time *time)
{
	for (uint32_t i = 0; i < time->timers.count; i++) {
		struct nq_timer *timer = time->timers.entries[i].timer;

		timer->position = 0;
		nq_anchor_drop(L, timer);
	}
	nq_timers_free(&time->timers);
}

void nq_timer_register(lua_State *L)
{
	static const luaL_Reg methods[] = {{"cancel", timer_cancel}, {NULL, NULL}};
	static const luaL_Reg metamethods[] = {{"__tostring", timer_tostring}, {NULL, NULL}};

	nq_class_make(L, &metatable_key, "nfqueue.timer", WHAT, methods, metamethods);
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &anchors_key);
}
