#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/flows.h"
#include "lua/load_parts.h"
#include "lua/queue.h"
#include "lua/sandbox.h"

/* Seconds that the tables' clock may be ahead of the real one for a handler to begin there. */
#define FOLLOWED_MOST 1000000000

static const char metatable_key;

/*
 * The userdata at 1 points to the handler, NULL once it is collected. What it keeps refers to it,
 * and where there is no memory to call a finalizer, Lua gives up on it: so it does not lie in the
 * userdata.
 */
static struct nq_loaded **check_object(lua_State *L, const char *method)
{
	struct nq_loaded **object = lua_touserdata(L, 1);

	if (!object || !lua_getmetatable(L, 1))
		nq_arg_error(L, 1, method, "self", "handler");
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	if (!lua_rawequal(L, -1, -2))
		nq_arg_error(L, 1, method, "self", "handler");
	lua_pop(L, 2);
	return object;
}

struct nq_loaded *nq_loaded_check(lua_State *L, const char *method)
{
	struct nq_loaded *handler = *check_object(L, method);

	if (!handler)
		luaL_error(L, "handler is closed");
	return handler;
}

/* The message at the top, before it what it says of memory_limit. */
void nq_loaded_explain(lua_State *L, const struct nq_loaded *handler)
{
	const char *message = lua_tostring(L, -1);
	char reason[NQ_ALLOCATOR_REASON];

	if (*nq_allocator_reason(&handler->allocator, message, reason)) {
		lua_pushfstring(L, "%s%s", reason, message);
		lua_remove(L, -2);
	}
}

/* Under pcall: 1 the handler's function, 2 the packet, 3 the queue, 4 the default (integer). */
static int apply(lua_State *L)
{
	enum nq_verdict standard = (enum nq_verdict)lua_tointeger(L, 4);
	struct nq_made_packet *made = nq_packet_made(L, 2);

	lua_settop(L, 3);
	lua_pushvalue(L, 1);
	lua_pushvalue(L, 2);
	lua_pushvalue(L, 3);
	lua_call(L, 2, LUA_MULTRET);
	nq_packet_conclude(L, &made->cell, 4, standard);
	return 0;
}

/***
Apply the script to a packet as the loop would: `default` when it decides nothing, `on_error` when
it raises. Its clock stands still meanwhile (see `advance`).
@function handler:__call
@tparam packet pkt made by nfqueue.packet, without a verdict
@treturn string the verdict, or "hold" while it is held
@treturn ?string the error with its traceback, when the script raised
@raise for anything but a made packet without a verdict
*/
static int handler_call(lua_State *L)
{
	struct nq_loaded *handler = nq_loaded_check(L, "handler");
	struct nq_made_packet *made = nq_packet_made(L, 2);
	struct nq_loaded *outer;
	struct nq_loaded_call outer_call;
	struct nq_packet *packet;
	struct nq_packet before;
	int status;

	if (!made)
		return nq_arg_error(L, 2, "handler", "pkt", "packet made by nfqueue.packet");
	if (handler->closed)
		return luaL_error(L, "handler is closed");
	packet = &made->packet;
	if (packet->verdict != NQ_UNDECIDED)
		return luaL_error(L, "packet already has a verdict");
	if (made->cell.held)
		return luaL_error(L, "packet is held");
	if (handler->settings.filter && !nq_filter_takes(handler->settings.filter, packet)) {
		packet->verdict = NQ_ACCEPT;
		lua_pushstring(L, nq_verdict_name(NQ_ACCEPT));
		return 1;
	}
	if (!nq_loaded_reserve(handler))
		return luaL_error(L, "not enough memory");
	lua_settop(L, 2);
	before = *packet;
	lua_pushlstring(L, packet->length ? (const char *)packet->data : "", packet->length);
	/* 3 the bytes as they were */
	lua_pushvalue(L, 2);
	nq_anchor(L, made);
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, apply);
	lua_rawgeti(L, LUA_REGISTRYINDEX, handler->script.packet);
	lua_pushvalue(L, 2);
	lua_getiuservalue(L, 1, 1);
	lua_pushinteger(L, handler->settings.default_verdict);
	outer_call = handler->call;
	handler->call = (struct nq_loaded_call){made, &before, lua_tostring(L, 3)};
	outer = nq_loaded_enter(L, handler);
	if (nq_flows_judge(nq_state_get(L), packet, handler->time.now))
		status = LUA_OK;
	else
		status = nq_watch_call(L, 4, 0, 4, NQ_CALL_HANDLER);
	nq_loaded_leave(L, outer);
	handler->call = outer_call;
	if (!made->keeper)
		nq_anchor_drop(L, made);
	if (status != LUA_OK && packet->verdict == NQ_UNDECIDED && !made->cell.held) {
		/* on_error carries no edits: what leaves is the kernel's own copy. */
		*packet = before;
		memcpy(packet->data, lua_tostring(L, 3), packet->length);
		packet->verdict = handler->settings.on_error;
	}
	if (status != LUA_OK)
		nq_loaded_explain(L, handler);
	nq_allocator_collect(L, &handler->allocator);
	lua_pushstring(L, made->cell.held ? "hold" : nq_verdict_name(packet->verdict));
	if (status == LUA_OK)
		return 1;
	lua_pushvalue(L, -2);
	return 2;
}

/***
Settle what it keeps (held packets get their verdict, delayed ones leave), forget its timers, and
call the script's `close`, once.
@function handler:close
*/
static int handler_close(lua_State *L)
{
	struct nq_loaded *handler = *check_object(L, "close");
	struct nq_loaded *outer;
	int status;

	if (!handler || handler->closed)
		return 0;
	handler->closed = true;
	nq_loaded_end(L, handler);
	lua_getiuservalue(L, 1, 1);
	outer = nq_loaded_enter(L, handler);
	status = nq_script_call_hook(L, handler->script.close, NQ_CALL_CLOSE);
	nq_flows_end(L);
	nq_loaded_leave(L, outer);
	if (status != LUA_OK) {
		nq_loaded_explain(L, handler);
		return lua_error(L);
	}
	return 0;
}

/* `config`: the settings; `sent`: the list of what the script sent with nfqueue.send so far, oldest
 * first, each { bytes=, mark=, iface= }; and the methods. */
static int handler_index(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"close", handler_close}, {"advance", nq_loaded_advance}, {NULL, NULL}};
	struct nq_loaded *handler = nq_loaded_check(L, "index");
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	if (strcmp(name, "config") == 0) {
		nq_config_push(L, &handler->settings);
		return 1;
	}
	if (strcmp(name, "sent") == 0) {
		lua_rawgeti(L, LUA_REGISTRYINDEX, handler->sent);
		return 1;
	}
	for (const luaL_Reg *method = methods; method->name; method++) {
		if (strcmp(name, method->name) == 0) {
			lua_pushcfunction(L, method->func);
			return 1;
		}
	}
	return luaL_error(L, "handler has no field '%s'", luaL_tolstring(L, 2, NULL));
}

static int handler_tostring(lua_State *L)
{
	const struct nq_loaded *handler = *check_object(L, "tostring");

	lua_pushstring(L, !handler || handler->closed ? "handler (closed)" : "handler");
	return 1;
}

static int handler_gc(lua_State *L)
{
	struct nq_loaded **object = check_object(L, "gc");
	struct nq_loaded *handler = *object;

	if (!handler)
		return 0;
	*object = NULL;
	nq_loaded_clear(L, handler);
	nq_script_release(L, &handler->script);
	luaL_unref(L, LUA_REGISTRYINDEX, handler->sent);
	free(handler);
	return 0;
}

void nq_load_register(lua_State *L)
{
	static const luaL_Reg metamethods[] = {
		{"__call", handler_call},   {"__index", handler_index},
		{"__close", handler_close}, {"__tostring", handler_tostring},
		{"__gc", handler_gc},	    {NULL, NULL},
	};

	luaL_newlib(L, metamethods);
	lua_pushstring(L, "nfqueue.handler");
	lua_setfield(L, -2, "__name");
	lua_pushstring(L, "nfqueue.handler");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}

/* Pushes a handler without a script. Its memory is what the state's grows by from here on. */
static struct nq_loaded *push_handler(lua_State *L, const struct nq_config_layer *given)
{
	struct nq_loaded **object = lua_newuserdatauv(L, sizeof(*object), 1);
	struct nq_loaded *handler;
	int64_t real = nq_clock_now(), reached = nq_state_get(L)->tables_reached;
	/* Further ahead there would be no room for this handler's own way: load_time.c. */
	bool follows = reached > real && reached - real <= FOLLOWED_MOST * NQ_SECOND;

	*object = NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	lua_setmetatable(L, -2);
	*object = handler = malloc(sizeof(*handler));
	if (!handler)
		luaL_error(L, "not enough memory");
	*handler = (struct nq_loaded){
		.script = {.packet = LUA_NOREF, .open = LUA_NOREF, .close = LUA_NOREF},
		.settings = {.loop_mark = NQ_LOOP_MARK, .time_limit = nq_config_time_limit(given)},
		.time = {.manual = true, .origin = follows ? reached : real},
		.sent = LUA_NOREF};
	lua_newtable(L);
	handler->sent = luaL_ref(L, LUA_REGISTRYINDEX);
	handler->allocator.base = nq_allocator_used(L);
	nq_allocator_limit(&handler->allocator, nq_config_memory_limit(given));
	return handler;
}

/*
 * The handler at `index` has its script: settles its configuration, makes its queue and calls open.
 * Nonzero with the message of a failed open on the stack.
 */
static int open_handler(lua_State *L, int index, struct nq_loaded *handler,
			const struct nq_config_layer *given)
{
	struct nq_loaded *outer;
	struct nq_queue *queue;
	int status;

	nq_config_settle((const struct nq_config_layer *[]){&handler->script.config, given}, 2,
			 &handler->settings);
	nq_allocator_limit(&handler->allocator, handler->settings.memory_limit);
	queue = nq_queue_push(L, 0, &handler->script, &handler->settings);
	queue->threaded = queue->released = true; /* the references are the handler's */
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, index, 1);
	outer = nq_loaded_enter(L, handler);
	status = nq_script_call_hook(L, handler->script.open, NQ_CALL_OPEN);
	nq_loaded_leave(L, outer);
	if (status != LUA_OK)
		nq_loaded_explain(L, handler);
	return status;
}

int nq_load(lua_State *L)
{
	const char *path = nq_arg_string(L, 1, "load", "path", NULL);
	struct nq_failure failure = {.status = 0};
	struct nq_config_layer given;
	struct nq_loaded *handler, *outer;
	int status;

	if (!lua_isnoneornil(L, 2))
		nq_arg_table(L, 2, "load", "args");
	lua_settop(L, 3);
	nq_config_read(L, 3, "load", &given);
	nq_sandbox_check(L, &given, "load");
	handler = push_handler(L, &given);
	outer = nq_loaded_enter(L, handler);
	status = nq_script_load(L, path, NULL, lua_isnil(L, 2) ? 0 : 2, &handler->script, &failure);
	nq_loaded_leave(L, outer);
	if (status != 0) {
		lua_pushstring(L, failure.message);
		nq_loaded_explain(L, handler);
		nq_push_failure(L, failure.error, lua_tostring(L, -1));
		lua_pushinteger(L, failure.status);
		return 4;
	}
	if (open_handler(L, 4, handler, &given) != LUA_OK) {
		lua_pushfstring(L, "open of the script failed: %s", lua_tostring(L, -1));
		nq_push_failure(L, EINVAL, lua_tostring(L, -1));
		lua_pushinteger(L, 65);
		return 4;
	}
	lua_settop(L, 4);
	return 1;
}

int nq_wrap(lua_State *L)
{
	const char *function = nq_arg_string(L, 2, "wrap", "function", NULL);
	const struct nq_config_layer none = {0};
	struct nq_loaded *handler;

	lua_settop(L, 2);
	handler = push_handler(L, &none);
	lua_pushvalue(L, 1);
	nq_script_take(L, 4, function, &handler->script); /* which leaves nothing above it */
	lua_settop(L, 3);
	if (open_handler(L, 3, handler, &none) != LUA_OK)
		return luaL_error(L, "open of the handler failed: %s", lua_tostring(L, -1));
	lua_settop(L, 3);
	return 1;
}
