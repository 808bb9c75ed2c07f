#include "lua/load.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"
#include "lua/queue.h"
#include "lua/script.h"
#include "lua/send.h"

static const char metatable_key;

/* User value 1 is the queue object that the script's functions get, 2 the list of what it sent. */
struct handler {
	struct nq_script script;
	struct nq_settings settings;
	bool closed;
};

static struct handler *check_handler(lua_State *L, const char *method)
{
	struct handler *handler = lua_touserdata(L, 1);

	if (!handler || !lua_getmetatable(L, 1))
		nq_arg_error(L, 1, method, "self", "handler");
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	if (!lua_rawequal(L, -1, -2))
		nq_arg_error(L, 1, method, "self", "handler");
	lua_pop(L, 2);
	return handler;
}

/* While the script runs, what it sends goes into the list of the handler at `index`, as from a
 * queue of its settings. Returns the state's mark; leaves on the stack what end_recording takes. */
static uint32_t begin_recording(lua_State *L, int index)
{
	const struct handler *handler = lua_touserdata(L, index);
	struct nq_state *state = nq_state_get(L);
	uint32_t mark = state->loop_mark;

	lua_getiuservalue(L, index, 2);
	nq_send_swap_record(L);
	state->loop_mark = handler->settings.loop_mark;
	return mark;
}

static void end_recording(lua_State *L, uint32_t mark)
{
	nq_send_swap_record(L);
	lua_pop(L, 1);
	nq_state_get(L)->loop_mark = mark;
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
	nq_packet_conclude(L, &made->packet, 4, standard);
	return 0;
}

/***
Apply the script to a packet as the loop would: `default` when it decides nothing, `on_error` when
it raises.
@function handler:__call
@tparam packet pkt made by nfqueue.packet, without a verdict
@treturn string the verdict
@treturn ?string the error with its traceback, when the script raised
@raise for anything but a made packet without a verdict
*/
static int handler_call(lua_State *L)
{
	struct handler *handler = check_handler(L, "handler");
	struct nq_made_packet *made = nq_packet_made(L, 2);
	struct nq_packet *packet;
	struct nq_packet before;
	uint32_t mark;
	int status;

	if (!made)
		return nq_arg_error(L, 2, "handler", "pkt", "packet made by nfqueue.packet");
	if (handler->closed)
		return luaL_error(L, "handler is closed");
	packet = &made->packet;
	if (packet->verdict != NQ_UNDECIDED)
		return luaL_error(L, "packet already has a verdict");
	if (handler->settings.filter && !nq_filter_takes(handler->settings.filter, packet)) {
		packet->verdict = NQ_ACCEPT;
		lua_pushstring(L, nq_verdict_name(NQ_ACCEPT));
		return 1;
	}
	lua_settop(L, 2);
	mark = begin_recording(L, 1);
	/* 3 the list before */
	before = *packet;
	lua_pushlstring(L, packet->length ? (const char *)packet->data : "", packet->length);
	/* 4 the bytes as they were */
	lua_pushcfunction(L, nq_script_traceback);
	lua_pushcfunction(L, apply);
	lua_rawgeti(L, LUA_REGISTRYINDEX, handler->script.packet);
	lua_pushvalue(L, 2);
	lua_getiuservalue(L, 1, 1);
	lua_pushinteger(L, handler->settings.default_verdict);
	status = lua_pcall(L, 4, 0, 5);
	lua_pushvalue(L, 3);
	end_recording(L, mark);
	if (status != LUA_OK && packet->verdict == NQ_UNDECIDED) {
		/* on_error carries no edits: what leaves is the kernel's own copy. */
		*packet = before;
		memcpy(packet->data, lua_tostring(L, 4), packet->length);
		packet->verdict = handler->settings.on_error;
	}
	lua_pushstring(L, nq_verdict_name(packet->verdict));
	if (status == LUA_OK)
		return 1;
	lua_pushvalue(L, -2);
	return 2;
}

/***
Call the script's `close`, once.
@function handler:close
*/
static int handler_close(lua_State *L)
{
	struct handler *handler = check_handler(L, "close");
	uint32_t mark;
	int status;

	if (handler->closed)
		return 0;
	handler->closed = true;
	lua_settop(L, 1);
	mark = begin_recording(L, 1);
	lua_getiuservalue(L, 1, 1);
	status = nq_script_call_hook(L, handler->script.close);
	lua_pushvalue(L, 2);
	end_recording(L, mark);
	return status == LUA_OK ? 0 : lua_error(L);
}

/* `config`: the settings; `sent`: the list of what the script sent with nfqueue.send so far, oldest
 * first, each { bytes=, mark=, iface= }; and `close`. */
static int handler_index(lua_State *L)
{
	struct handler *handler = check_handler(L, "index");
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	if (strcmp(name, "config") == 0)
		nq_config_push(L, &handler->settings);
	else if (strcmp(name, "sent") == 0)
		lua_getiuservalue(L, 1, 2);
	else if (strcmp(name, "close") == 0)
		lua_pushcfunction(L, handler_close);
	else
		return luaL_error(L, "handler has no field '%s'", luaL_tolstring(L, 2, NULL));
	return 1;
}

static int handler_tostring(lua_State *L)
{
	const struct handler *handler = check_handler(L, "tostring");

	lua_pushstring(L, handler->closed ? "handler (closed)" : "handler");
	return 1;
}

static int handler_gc(lua_State *L)
{
	struct handler *handler = check_handler(L, "gc");

	nq_script_release(L, &handler->script);
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

/* Pushes a handler without a script. */
static struct handler *push_handler(lua_State *L)
{
	struct handler *handler = lua_newuserdatauv(L, sizeof(*handler), 2);

	*handler = (struct handler){
		.script = {.packet = LUA_NOREF, .open = LUA_NOREF, .close = LUA_NOREF},
		.settings = {.loop_mark = NQ_LOOP_MARK}};
	lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
	lua_setmetatable(L, -2);
	lua_newtable(L);
	lua_setiuservalue(L, -2, 2);
	return handler;
}

/*
 * The handler at `index` has its script: settles its configuration, makes its queue and calls open.
 * Nonzero with the message of a failed open on the stack.
 */
static int open_handler(lua_State *L, int index, struct handler *handler,
			const struct nq_config_layer *given)
{
	struct nq_queue *queue;

	nq_config_settle((const struct nq_config_layer *[]){&handler->script.config, given}, 2,
			 &handler->settings);
	nq_state_get(L)->loop_mark = handler->settings.loop_mark;
	queue = nq_queue_push(L, 0, &handler->script, &handler->settings);
	queue->threaded = queue->released = true; /* the references are the handler's */
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, index, 1);
	return nq_script_call_hook(L, handler->script.open);
}

int nq_load(lua_State *L)
{
	const char *path = nq_arg_string(L, 1, "load", "path", NULL);
	struct nq_failure failure = {.status = 0};
	struct nq_config_layer given;
	struct handler *handler;
	uint32_t mark;

	if (!lua_isnoneornil(L, 2))
		nq_arg_table(L, 2, "load", "args");
	lua_settop(L, 3);
	nq_config_read(L, 3, "load", &given);
	handler = push_handler(L);
	mark = begin_recording(L, 4);
	/* 5 the list before */
	if (nq_script_load(L, path, lua_isnil(L, 2) ? 0 : 2, &handler->script, &failure) == 0 &&
	    open_handler(L, 4, handler, &given) != LUA_OK)
		nq_fail(&failure, 65, EINVAL, "open of the script failed: %s", lua_tostring(L, -1));
	lua_settop(L, 5);
	end_recording(L, mark);
	if (!failure.status)
		return 1;
	nq_push_failure(L, failure.error, failure.message);
	lua_pushinteger(L, failure.status);
	return 4;
}

int nq_wrap(lua_State *L)
{
	const char *function = nq_arg_string(L, 2, "wrap", "function", NULL);
	const struct nq_config_layer none = {0};
	struct handler *handler;
	uint32_t mark;
	int status;

	lua_settop(L, 2);
	handler = push_handler(L);
	lua_pushvalue(L, 1);
	nq_script_take(L, 4, function, &handler->script); /* which leaves nothing above it */
	lua_settop(L, 3);
	mark = begin_recording(L, 3);
	/* 4 the list before */
	status = open_handler(L, 3, handler, &none);
	lua_pushvalue(L, 4);
	end_recording(L, mark);
	if (status != LUA_OK)
		return luaL_error(L, "open of the handler failed: %s", lua_tostring(L, -1));
	lua_settop(L, 3);
	return 1;
}
