#include "lua/send.h"

#include <errno.h>
#include <lauxlib.h>
#include <net/if.h>
#include <string.h>

#include "lua/args.h"
#include "lua/load.h"
#include "packet/layout.h"

static const char function[] = "send";

const struct nq_raw *nq_send_sockets(struct nq_state *state)
{
	if (!state->raw) {
		nq_raw_open(&state->own_raw);
		state->raw = &state->own_raw;
	}
	return state->raw;
}

static void refuse(lua_State *L, const char *reason)
{
	luaL_error(L, "bad argument 'bytes' to 'send' (%s)", reason);
}

/* The packet at 1: one whose IP header says of its length what is there. */
static const uint8_t *check_bytes(lua_State *L, size_t *length)
{
	const uint8_t *bytes = (const uint8_t *)nq_arg_string(L, 1, function, "bytes", length);
	struct nq_layout layout;

	if (*length > NQ_RAW_MOST) {
		refuse(L, "longer than an IP packet can be");
		return NULL;
	}
	nq_layout_read(&layout, bytes, *length);
	if (layout.version == 0)
		refuse(L, "neither IPv4 nor IPv6, or shorter than its IP header");
	if (layout.version == 4 && nq_layout_header_cut(&layout, *length))
		refuse(L, "its IPv4 header length points outside it");
	if (layout.total != *length) {
		lua_pushfstring(L, "its IP header says %d bytes, and there are %d",
				(int)layout.total, (int)*length);
		refuse(L, lua_tostring(L, -1));
	}
	return bytes;
}

struct options {
	bool has_mark;
	uint32_t mark;
	const char *interface;
};

static void read_options(lua_State *L, struct options *options)
{
	size_t length;

	*options = (struct options){.interface = NULL};
	if (lua_isnoneornil(L, 2))
		return;
	nq_arg_table(L, 2, function, "options");
	lua_pushnil(L);
	while (lua_next(L, 2)) {
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";

		if (strcmp(name, "mark") == 0) {
			options->mark =
				(uint32_t)nq_arg_integer(L, -1, function, "mark", 0, UINT32_MAX);
			options->has_mark = true;
		} else if (strcmp(name, "iface") == 0) {
			options->interface = nq_arg_string(L, -1, function, "iface", &length);
			if (length == 0 || length >= IF_NAMESIZE ||
			    strlen(options->interface) != length)
				nq_arg_error(L, -1, function, "iface",
					     "interface name of 1 to 15 bytes");
		} else {
			luaL_error(L, "unknown option '%s' to 'send' (known: mark, iface)",
				   luaL_tolstring(L, -2, NULL));
		}
		lua_pop(L, 1);
	}
}

/* The queue at work, or the first of those that are on; NULL outside. */
static const struct nq_loop_queue *find_queue(const struct nq_state *state)
{
	const struct nq_loop *loop = state->active;

	if (!loop)
		return NULL;
	return loop->current ? loop->current : &loop->queues[0];
}

static uint32_t usual_mark(const struct nq_state *state)
{
	const struct nq_loop_queue *queue = find_queue(state);

	return queue ? queue->settings.loop_mark : state->loop_mark;
}

/* Into the list at the top. */
static int record(lua_State *L, const struct options *options)
{
	lua_createtable(L, 0, 3);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "bytes");
	lua_pushinteger(L, options->mark);
	lua_setfield(L, -2, "mark");
	lua_pushstring(L, options->interface); /* nil for NULL */
	lua_setfield(L, -2, "iface");
	lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	lua_pushboolean(L, 1);
	return 1;
}

static int fail(lua_State *L, const struct nq_raw *raw, bool is_ip6, int error)
{
	const char *hint = "";

	if ((is_ip6 ? raw->fd6 : raw->fd4) < 0)
		hint = error == EPERM ? ": no raw socket, which needs CAP_NET_RAW at the start"
				      : ": no raw socket";
	else if (error == EPERM)
		hint = ": a firewall rule drops it on output";
	else if (error == EMSGSIZE)
		hint = ": the link carries no packet of this length";
	lua_pushfstring(L, "cannot send: %s%s", strerror(error), hint);
	return nq_push_failure(L, error, lua_tostring(L, -1));
}

/***
Send a packet of one's own through the kernel's output path, routed by its destination. The kernel
writes IPv4's header checksum, and its identification where that is 0; everything else leaves as it
is, but: where the transport checksum is no more than the sum of the pseudo header, as local packets
are delivered, it is completed, and a TCP segment that is larger than the link carries, as GSO
delivers it, leaves in several. So `nfqueue.send(pkt:bytes())` duplicates a packet.

What is sent meets the firewall rules like any local packet. It carries the mark `loop_mark`, so
that a rule in front of the queue's can let it pass; else it would come to the handler again.

In a handler of nfqueue.load nothing is sent: see `handler.sent`.
@function send
@tparam string bytes an IPv4 or IPv6 packet, its length as its header says
@tparam[opt] table options `mark` (integer; default the configuration's `loop_mark`; 0: none),
`iface` (string: leave by this interface)
@treturn boolean true; or nil, message, errno: no raw socket (EPERM: no CAP_NET_RAW), no route, no
such interface, longer than the link carries, dropped by a rule (EPERM), buffers full
@raise `bad argument 'bytes' to 'send' (...)`, and for a wrong or an unknown option
*/
int nq_send(lua_State *L)
{
	size_t length;
	const uint8_t *bytes = check_bytes(L, &length);
	struct nq_state *state = nq_state_get(L);
	struct nq_raw_way way = {.interface = 0};
	struct options options;
	const struct nq_loop_queue *queue;
	const struct nq_raw *raw;
	uint32_t mark;
	bool recording;
	int result;

	lua_settop(L, 2);
	read_options(L, &options);
	recording = nq_loaded_push_sent(L, &mark);
	if (!options.has_mark)
		options.mark = recording ? mark : usual_mark(state);
	if (recording)
		return record(L, &options);
	raw = nq_send_sockets(state);
	way.mark = options.mark;
	if (options.interface) {
		way.interface = nq_raw_interface_index(raw, options.interface);
		if (!way.interface) {
			lua_pushfstring(L, "cannot send: no interface '%s'", options.interface);
			return nq_push_failure(L, ENODEV, lua_tostring(L, -1));
		}
	}
	result = nq_raw_send(raw, bytes, length, &way);
	if (result < 0)
		return fail(L, raw, bytes[0] >> 4 == 6, -result);
	queue = find_queue(state);
	if (queue)
		queue->memory->counters.injected += (uint64_t)result;
	lua_pushboolean(L, 1);
	return 1;
}
