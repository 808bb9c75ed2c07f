/*
 * timer.h - a state's time: nfqueue.now, nfqueue.after and nfqueue.every.
 *
 * A state has one real clock; its timers run in whichever of its loops comes to them first. A
 * loaded handler (load.h) has a clock of its own, moved by hand.
 */
#ifndef NQ_LUA_TIMER_H
#define NQ_LUA_TIMER_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/timer.h"

struct nq_state;

struct nq_lua_time {
	struct nq_timers timers;
	struct nq_alarm alarm; /* of the real clock */
	bool manual;
	int64_t now; /* nanoseconds, when manual */
	/* For tables, which all clocks of a state use: when the manual one began. No earlier than
	 * the real clock then, and than where other handlers' had come to. */
	int64_t origin;
};

/* Called once a state. */
void nq_timer_register(lua_State *L);

/* Nanoseconds of the time that is current in this state; inside a batch the same for all of it. */
int64_t nq_lua_now(lua_State *L);

/* The same for tables: of the real clock, and at every call. */
int64_t nq_lua_table_time(const struct nq_state *state);

/*
 * Takes the first timer that is due at `now` and was added before `before` (nq_timers_take), and
 * calls its function. LUA_OK; another status with the message on the stack; -1: there is none.
 */
int nq_timer_run(lua_State *L, struct nq_lua_time *time, int64_t now, uint64_t before);

/* Takes back the timer at `index`: whether it was pending. */
bool nq_timer_stop(lua_State *L, int index);

/* Cancels all and frees: the script, or the state, is at its end. */
void nq_timer_clear(lua_State *L, struct nq_lua_time *time);

/* Keeps the userdata at the top of the stack (popped) alive under its address, until let go. */
void nq_anchor(lua_State *L, const void *address);
void nq_anchor_drop(lua_State *L, const void *address);
/* Pushes it, or nil. */
void nq_anchor_push(lua_State *L, const void *address);

/* after(seconds, function), every(seconds, function) -> timer; now() -> seconds */
int nq_timer_after(lua_State *L);
int nq_timer_every(lua_State *L);
int nq_timer_now(lua_State *L);

#endif
