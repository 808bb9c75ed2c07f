#include "lua/watch.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "host/clock.h"
#include "host/log.h"
#include "lua/lane.h"
#include "lua/load.h"
#include "lua/script.h"

enum { SET_AGAIN = 16 };

static void stop_call(lua_State *L, lua_Debug *event);

/* Back to what was there before. */
static void restore_hook(struct nq_watch *watch, lua_State *L)
{
	const struct nq_replaced_hook *replaced = &watch->replaced;

	if (lua_gethook(L) != stop_call)
		return;
	if (replaced->L == L)
		lua_sethook(L, replaced->hook, replaced->mask, replaced->count);
	else
		lua_sethook(L, NULL, 0, 0);
}

/*
 * In a signal's handler: lua_sethook and what reads a hook may be called there. It goes through all
 * calls that are active, which may be so many that the thread would come to nothing else: what is
 * set already is set again now and then only.
 */
static void set_hook(struct nq_watch *watch, lua_State *L)
{
	lua_Hook hook = lua_gethook(L);

	if (hook == stop_call && watch->signals % SET_AGAIN != 0)
		return;
	if (hook && hook != stop_call)
		watch->replaced =
			(struct nq_replaced_hook){L, hook, lua_gethookmask(L), lua_gethookcount(L)};
	else if (!hook && watch->replaced.L == L)
		watch->replaced.L = NULL;
	lua_sethook(L, stop_call, LUA_MASKCOUNT | LUA_MASKCALL, 1);
}

/* At every instruction, and at calls, for the sake of C code that does nothing but call C code. */
static void interrupt(struct nq_watched *watched)
{
	struct nq_watch *watch = (struct nq_watch *)watched;
	const struct nq_running *running = __atomic_load_n(&watch->running, __ATOMIC_RELAXED);

	watch->signals++;
	for (; running; running = running->outer)
		set_hook(watch, running->L);
}

/*
 * C functions that are to run while the error goes up: the message handler of ours, and those that
 * close something.
 */
static bool may_run(lua_State *L, lua_Debug *event, bool raised)
{
	lua_CFunction function;

	if (event->event != LUA_HOOKCALL && event->event != LUA_HOOKTAILCALL)
		return false;
	lua_getinfo(L, "f", event);
	function = lua_tocfunction(L, -1);
	lua_pop(L, 1);
	return function && (raised || function == nq_script_traceback);
}

static void stop_call(lua_State *L, lua_Debug *event)
{
	struct nq_watch *watch = nq_state_get(L)->watch;
	char seconds[32];

	if (!nq_watched_overdue(&watch->watched)) {
		restore_hook(watch, L);
		return;
	}
	if (may_run(L, event, watch->raised == watch->watched.serial))
		return;
	watch->raised = watch->watched.serial;
	snprintf(seconds, sizeof(seconds), "%g", (double)watch->watched.limit / (double)NQ_SECOND);
	luaL_where(L, 0);
	lua_pushfstring(L, "%stime limit of %s s exceeded", lua_tostring(L, -1), seconds);
	lua_error(L);
}

void nq_watch_init(struct nq_watch *watch, struct nq_watchdog *watchdog, unsigned lane)
{
	watch->watched.interrupt = interrupt;
	watch->watched.lane = lane;
	watch->limit = NQ_TIME_LIMIT;
	if (watchdog)
		nq_watchdog_add(watchdog, &watch->watched);
}

void nq_watch_fini(struct nq_watch *watch)
{
	nq_watchdog_remove(&watch->watched);
	nq_watchdog_free(watch->own);
	watch->own = NULL;
}

/* Without it the script runs, as long as it likes. */
static void start_own(struct nq_watch *watch)
{
	watch->alone = false;
	watch->own = nq_watchdog_new(NULL, NULL);
	if (watch->own)
		nq_watchdog_add(watch->own, &watch->watched);
	else
		nq_log(NQ_LOG_WARN, "time_limit is not enforced: no thread can watch: %s",
		       strerror(errno));
}

/* The handler of a signal, in this thread, reads the list. */
static void set_running(struct nq_watch *watch, struct nq_running *running)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&watch->running, running, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void nq_watch_begin(lua_State *L, struct nq_watch *watch, struct nq_watched_call *call,
		    enum nq_call kind)
{
	const struct nq_state *state = nq_state_get(L);
	int64_t limit = state->loaded ? nq_loaded_limit(state->loaded) : watch->limit;

	if (kind == NQ_CALL_LOAD || kind == NQ_CALL_OPEN)
		limit = limit < INT64_MAX / NQ_LOAD_LIMITS ? limit * NQ_LOAD_LIMITS : INT64_MAX;
	if (watch->alone)
		start_own(watch);
	call->running = (struct nq_running){L, watch->running};
	set_running(watch, &call->running);
	call->outermost = nq_watched_begin(&watch->watched, kind, limit);
}

void nq_watch_end(struct nq_watch *watch, struct nq_watched_call *call, int status)
{
	uint64_t serial = watch->watched.serial;

	watch->overran = status != LUA_OK && watch->raised == serial;
	if (call->outermost)
		nq_watched_end(&watch->watched);
	set_running(watch, call->running.outer);
	/* A call inside another, both in vain, leaves it to that one. */
	if (call->outermost && watch->watched.interrupted)
		restore_hook(watch, call->running.L);
}

int nq_watch_call(lua_State *L, int arguments, int results, int handler, enum nq_call kind)
{
	struct nq_watch *watch = nq_state_get(L)->watch;
	struct nq_watched_call call;
	int status;

	nq_watch_begin(L, watch, &call, kind);
	status = lua_pcall(L, arguments, results, handler);
	nq_watch_end(watch, &call, status);
	return status;
}

/* --- functions of Lua's library that are replaced --- */

static struct nq_watch *watch_of(lua_State *L)
{
	const struct nq_state *state = lua_touserdata(L, lua_upvalueindex(1));

	return state->watch;
}

static lua_State *check_coroutine(lua_State *L)
{
	lua_State *co = lua_tothread(L, 1);

	luaL_argexpected(L, co, 1, "thread");
	return co;
}

/* Closes what it has to close: nonzero with the error on its stack. */
static int close_coroutine(lua_State *L, lua_State *co)
{
	struct nq_watch *watch = watch_of(L);
	struct nq_running running = {co, watch->running};
	int status;

	set_running(watch, &running);
#if LUA_VERSION_RELEASE_NUM >= 50406
	status = lua_closethread(co, L);
#else
	status = lua_resetthread(co);
#endif
	set_running(watch, running.outer);
	return status;
}

/*
 * Resumes with the `arguments` values at the top of L. The number of results at the top, or -1
 * with an error value there. No error passes through here, so the list is kept.
 */
static int run_coroutine(lua_State *L, lua_State *co, int arguments)
{
	struct nq_watch *watch = watch_of(L);
	struct nq_running running = {co, watch->running};
	int status, results;

	if (!lua_checkstack(co, arguments)) {
		lua_pushliteral(L, "too many arguments to resume");
		return -1;
	}
	lua_xmove(L, co, arguments);
	set_running(watch, &running);
	status = lua_resume(co, L, arguments, &results);
	set_running(watch, running.outer);
	if (status != LUA_OK && status != LUA_YIELD) {
		lua_xmove(co, L, 1);
		return -1;
	}
	if (!lua_checkstack(L, results + 1)) {
		lua_pop(co, results);
		lua_pushliteral(L, "too many results to resume");
		return -1;
	}
	lua_xmove(co, L, results);
	return results;
}

/***
As Lua's own `coroutine.resume`, which it replaces once the module is loaded: what runs in a
coroutine is under the time limit too.
@function coroutine.resume
@tparam thread co
@param ... for it
@treturn boolean whether it raised no error
@return what it yielded or returned; or the error
*/
static int coroutine_resume(lua_State *L)
{
	lua_State *co = check_coroutine(L);
	int results = run_coroutine(L, co, lua_gettop(L) - 1);

	lua_pushboolean(L, results >= 0);
	if (results < 0)
		results = 1;
	lua_insert(L, -(results + 1));
	return results + 1;
}

/* Upvalue 2: the coroutine. */
static int call_wrapped(lua_State *L)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(2));
	int results = run_coroutine(L, co, lua_gettop(L));

	if (results < 0) {
		int status = lua_status(co);

		if (status != LUA_OK && status != LUA_YIELD) {
			status = close_coroutine(L, co);
			lua_xmove(co, L, 1);
		}
		if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
			luaL_where(L, 1);
			lua_insert(L, -2);
			lua_concat(L, 2);
		}
		return lua_error(L);
	}
	return results;
}

/***
As Lua's own `coroutine.wrap`, like `resume`.
@function coroutine.wrap
@tparam function fn
@treturn function
*/
static int coroutine_wrap(lua_State *L)
{
	lua_State *co;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_pushvalue(L, lua_upvalueindex(1));
	co = lua_newthread(L);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	lua_pushcclosure(L, call_wrapped, 2);
	return 1;
}

/* NULL: it can be closed. */
static const char *why_open(lua_State *L, lua_State *co)
{
	lua_Debug frame;

	if (co == L)
		return "running";
	if (lua_status(co) == LUA_OK && lua_getstack(co, 0, &frame))
		return "normal";
	return NULL;
}

/***
As Lua's own `coroutine.close`, like `resume`.
@function coroutine.close
@tparam thread co dead or suspended
@treturn boolean true; or false and the error
*/
static int coroutine_close(lua_State *L)
{
	lua_State *co = check_coroutine(L);
	const char *why = why_open(L, co);

	if (why)
		return luaL_error(L, "cannot close a %s coroutine", why);
	if (close_coroutine(L, co) == LUA_OK) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lua_pushboolean(L, 0);
	lua_xmove(co, L, 1);
	return 2;
}

/***
As Lua's own `debug.sethook`, which it replaces once the module is loaded: but for a call that has
overrun its time, whose interruption stays.
@function debug.sethook
@param ... as Lua's
*/
static int debug_sethook(lua_State *L)
{
	struct nq_watch *watch = watch_of(L);

	lua_pushvalue(L, lua_upvalueindex(2));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, 0);
	if (nq_watched_overdue(&watch->watched))
		interrupt(&watch->watched);
	return 0;
}

void nq_watch_register(lua_State *L)
{
	static const luaL_Reg functions[] = {{"resume", coroutine_resume},
					     {"wrap", coroutine_wrap},
					     {"close", coroutine_close},
					     {NULL, NULL}};
	static const luaL_Reg hooks[] = {{"sethook", debug_sethook}, {NULL, NULL}};

	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE) {
		lua_pushlightuserdata(L, nq_state_get(L));
		luaL_setfuncs(L, functions, 1);
	}
	lua_pop(L, 1);
	if (lua_getfield(L, -1, LUA_DBLIBNAME) == LUA_TTABLE) {
		lua_pushlightuserdata(L, nq_state_get(L));
		if (lua_getfield(L, -2, "sethook") == LUA_TFUNCTION)
			luaL_setfuncs(L, hooks, 2);
		else
			lua_pop(L, 2);
	}
	lua_pop(L, 2);
}
