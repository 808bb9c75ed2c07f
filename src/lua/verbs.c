/* The verbs of a packet and the short form of a handler's return: one decision each. */
#include <lauxlib.h>
#include <netinet/in.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"
#include "packet/edit.h"
#include "packet/header.h"
#include "packet/reject.h"

#define U32_MAX 0xffffffff

/* The options of a verdict, read completely before anything is decided. */
struct options {
	uint32_t send; /* NQ_SEND_* that were given */
	uint32_t mark, mask, priority, connmark, connmask;
	uint8_t label;
	bool has_mask, has_connmask;
	bool bypass;
	bool fixup;
};

static void read_option(lua_State *L, struct options *options, const char *verb)
{
	const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";

	if (strcmp(name, "mark") == 0) {
		options->mark = (uint32_t)nq_arg_integer(L, -1, verb, name, 0, U32_MAX);
		options->send |= NQ_SEND_MARK;
	} else if (strcmp(name, "mask") == 0) {
		options->mask = (uint32_t)nq_arg_integer(L, -1, verb, name, 0, U32_MAX);
		options->has_mask = true;
	} else if (strcmp(name, "connmark") == 0) {
		options->connmark = (uint32_t)nq_arg_integer(L, -1, verb, name, 0, U32_MAX);
		options->send |= NQ_SEND_CONNMARK;
	} else if (strcmp(name, "connmask") == 0) {
		options->connmask = (uint32_t)nq_arg_integer(L, -1, verb, name, 0, U32_MAX);
		options->has_connmask = true;
	} else if (strcmp(name, "label") == 0) {
		options->label = (uint8_t)nq_arg_integer(L, -1, verb, name, 0, 127);
		options->send |= NQ_SEND_LABEL;
	} else if (strcmp(name, "priority") == 0) {
		options->priority = (uint32_t)nq_arg_integer(L, -1, verb, name, 0, U32_MAX);
		options->send |= NQ_SEND_PRIORITY;
	} else if (strcmp(name, "fixup") == 0) {
		options->fixup = nq_arg_boolean(L, -1, verb, name);
	} else if (strcmp(name, "bypass") == 0 && strcmp(verb, "requeue") == 0) {
		options->bypass = nq_arg_boolean(L, -1, verb, name);
	} else {
		luaL_error(L,
			   "unknown option '%s' to '%s' (known: mark, mask, connmark, connmask, "
			   "label, "
			   "priority, fixup%s)",
			   luaL_tolstring(L, -2, NULL), verb,
			   strcmp(verb, "requeue") == 0 ? ", bypass" : "");
	}
}

static void read_options(lua_State *L, int index, const char *verb, struct options *options)
{
	*options = (struct options){.mask = U32_MAX, .connmask = U32_MAX, .fixup = true};
	if (lua_isnoneornil(L, index))
		return;
	nq_arg_table(L, index, verb, "opts");
	lua_pushnil(L);
	while (lua_next(L, index)) {
		read_option(L, options, verb);
		lua_pop(L, 1);
	}
	if (options->has_mask && !(options->send & NQ_SEND_MARK))
		luaL_error(L,
			   "bad argument 'mask' to '%s' (it goes with 'mark', which is not there)",
			   verb);
	if (options->has_connmask && !(options->send & NQ_SEND_CONNMARK))
		luaL_error(L,
			   "bad argument 'connmask' to '%s' (it goes with 'connmark', which is not "
			   "there)",
			   verb);
}

static void refuse_more(lua_State *L, int last, const char *verb)
{
	if (lua_gettop(L) > last)
		luaL_error(L, "too many arguments to '%s'", verb);
}

/* Finishes edits in place and applies the options; the last step, after everything that can be
 * refused. */
static void decide(lua_State *L, struct nq_packet *packet, enum nq_verdict verdict,
		   const struct options *options)
{
	if (packet->dirty)
		nq_packet_refuse(L, nq_edit_finish(packet, options->fixup));
	if (options->send & NQ_SEND_MARK) {
		packet->send_mark =
			(packet->mark & ~options->mask) | (options->mark & options->mask);
		packet->mark = packet->send_mark;
	}
	if (options->send & NQ_SEND_PRIORITY)
		packet->priority = packet->send_priority = options->priority;
	packet->connmark = options->connmark;
	packet->connmask = options->connmask;
	packet->label = options->label;
	packet->send |= options->send;
	packet->bypass = options->bypass;
	packet->verdict = verdict;
}

static void decide_drop(struct nq_packet *packet)
{
	packet->send = 0;
	packet->verdict = NQ_DROP;
}

/* One verb: its arguments begin at stack index `first`. */
typedef void verb(lua_State *L, struct nq_cell *cell, int first);

static void do_accept(lua_State *L, struct nq_cell *cell, int first)
{
	struct nq_packet *packet = cell->packet;
	struct options options;

	refuse_more(L, first, "accept");
	if (lua_gettop(L) < first && !packet->dirty) {
		packet->verdict = NQ_ACCEPT;
		return;
	}
	read_options(L, first, "accept", &options);
	decide(L, packet, NQ_ACCEPT, &options);
}

static void do_drop(lua_State *L, struct nq_cell *cell, int first)
{
	refuse_more(L, first - 1, "drop");
	decide_drop(cell->packet);
}

static bool is_named(const char *name, size_t length, uint8_t kind)
{
	const char *known = nq_reject_name((enum nq_reject_kind)kind);

	return length == strlen(known) && strcmp(name, known) == 0;
}

static void do_reject(lua_State *L, struct nq_cell *cell, int first)
{
	struct nq_packet *packet = cell->packet;
	uint8_t kind = NQ_REJECT_USUAL;

	refuse_more(L, first, "reject");
	if (!lua_isnoneornil(L, first)) {
		size_t length;
		const char *name = nq_arg_string(L, first, "reject", "kind", &length);

		kind = NQ_REJECT_TCP_RESET;
		while (kind < NQ_REJECT_KINDS && !is_named(name, length, kind))
			kind++;
		if (kind == NQ_REJECT_KINDS)
			nq_arg_error(L, first, "reject", "kind",
				     "\"tcp-reset\", \"icmp-port\", \"icmp-host\", \"icmp-net\" or "
				     "\"icmp-admin\"");
	}
	if (kind == NQ_REJECT_TCP_RESET && nq_packet_layout(packet)->version &&
	    nq_packet_layout(packet)->protocol != IPPROTO_TCP)
		luaL_error(L, "bad argument 'kind' to 'reject' ('tcp-reset' answers TCP, and this "
			      "is none)");
	decide_drop(packet);
	packet->reject_kind = kind;
	packet->verdict = NQ_REJECT;
}

static void do_modify(lua_State *L, struct nq_cell *cell, int first)
{
	struct nq_packet *packet = cell->packet;
	struct options options;
	const char *bytes;
	size_t length;

	refuse_more(L, first + 1, "modify");
	bytes = nq_arg_string(L, first, "modify", "bytes", &length);
	read_options(L, first + 1, "modify", &options);
	nq_packet_room(L, packet);
	nq_packet_refuse(L, nq_edit_replace(packet, (const uint8_t *)bytes, length, options.fixup));
	decide(L, packet, NQ_MODIFY, &options);
}

static void do_again(lua_State *L, struct nq_cell *cell, int first)
{
	struct options options;

	refuse_more(L, first, "again");
	read_options(L, first, "again", &options);
	decide(L, cell->packet, NQ_AGAIN, &options);
}

static void do_requeue(lua_State *L, struct nq_cell *cell, int first)
{
	struct options options;
	uint16_t target;

	refuse_more(L, first + 1, "requeue");
	target = (uint16_t)nq_arg_integer(L, first, "requeue", "n", 0, 65535);
	read_options(L, first + 1, "requeue", &options);
	cell->packet->target = target;
	decide(L, cell->packet, NQ_REQUEUE, &options);
}

/* Takes back what the options of a verdict have changed. */
static void restore_options(struct nq_packet *packet, const struct nq_packet *before)
{
	packet->send = before->send | (packet->send & NQ_SEND_BYTES);
	packet->mark = before->mark;
	packet->send_mark = before->send_mark;
	packet->priority = before->priority;
	packet->send_priority = before->send_priority;
	packet->verdict = NQ_UNDECIDED;
}

static void do_delay(lua_State *L, struct nq_cell *cell, int first)
{
	struct nq_packet *packet = cell->packet;
	const struct nq_packet before = *packet;
	struct options options;
	int error;

	refuse_more(L, first + 1, "delay");
	packet->delay = nq_arg_seconds(L, first, "delay", "seconds", false);
	read_options(L, first + 1, "delay", &options);
	decide(L, packet, NQ_DELAY, &options);
	error = nq_packet_delay(L, cell);
	if (error) {
		restore_options(packet, &before);
		nq_packet_refuse_keeping(L, cell, "delay", error);
	}
}

/* A verb as a method: what holds a packet settles it now. */
static int call_verb(lua_State *L, const char *name, verb *function)
{
	struct nq_cell *cell = nq_packet_check_cell(L, name);

	function(L, cell, 2);
	if (cell->held && cell->packet->verdict != NQ_UNDECIDED)
		nq_packet_settle(L, cell);
	return 0;
}

/***
Let the packet go on, with whatever was edited.
@function packet:accept
@tparam[opt] table opts `mark` (integer), `mask` (integer: bits of the mark to change, default all),
 `connmark` and `connmask` (the same for the connection's mark), `label` (integer, 0 to 127: the bit
to set among the connection's labels; without any rule that sets labels the kernel keeps none, and
then takes no connmark given beside it either), `priority` (integer), `fixup` (boolean, default
true: complete lengths and checksums of edited packets)
@raise `packet already has a verdict`, `packet is no longer valid`, `cannot edit this packet: ...`
*/
static int packet_accept(lua_State *L)
{
	return call_verb(L, "accept", do_accept);
}

/***
Drop the packet.
@function packet:drop
@raise `packet already has a verdict`, `packet is no longer valid`
*/
static int packet_drop(lua_State *L)
{
	return call_verb(L, "drop", do_drop);
}

/***
Accept the packet with other content: lengths and checksums of IPv4, IPv6, TCP, UDP and ICMP are
completed.
@function packet:modify
@tparam string bytes the new packet from its network header on, 1 to 65531 bytes
@tparam[opt] table opts as for accept; with `fixup=false` the bytes are sent as they are
@raise `cannot edit this packet: ...` when it could not come out right
*/
static int packet_modify(lua_State *L)
{
	return call_verb(L, "modify", do_modify);
}

/***
Let the packet traverse the hook again from its first rule (NF_REPEAT); a mark keeps it from
looping.
@function packet:again
@tparam[opt] table opts as for accept
*/
static int packet_again(lua_State *L)
{
	return call_verb(L, "again", do_again);
}

/***
Hand the packet to another queue (NF_QUEUE).
@function packet:requeue
@tparam integer n number of the queue, 0 to 65535
@tparam[opt] table opts as for accept, and `bypass` (boolean): accept when nobody listens on queue n
*/
static int packet_requeue(lua_State *L)
{
	return call_verb(L, "requeue", do_requeue);
}

/***
Let the packet go on later, with whatever was edited: judged now, accepted in C when the time has
come (in a dense stream up to a quarter of a millisecond later, so that several leave together).
Those of equal times leave in order. Without edits nothing is copied. It fills the queue
(`max_packets`) until then. At a stop, and when the worker dies, it is accepted at once.
@function packet:delay
@tparam number seconds from the time it was received, 0 or more
@tparam[opt] table opts as for accept
@raise `cannot delay this packet: ...` when 65,536 packets a queue (262,144 a thread) are held or
delayed, `memory_limit` is reached, or the 256 MiB a thread has for copies of edited and held ones
are used up
*/
static int packet_delay(lua_State *L)
{
	return call_verb(L, "delay", do_delay);
}

/***
Keep the packet past its handler: not a verdict, any verb settles it later, in any order; headers
and edits go on working. From a timer or a handler the verdict leaves with the others, from
elsewhere (a foreign event loop) at once. Its bytes are copied once. It fills the queue
(`max_packets`) until then. When nobody has settled it in time, at a stop and when the worker dies
it gets `verdict`, with its edits (without them when the worker died). Holding it again sets a new
time and verdict.
@function packet:hold
@tparam[opt] number seconds from now on, 0 or more; default: the key `hold_limit`
@tparam[opt] string verdict "accept" or "drop"; default: the key `default`
@raise `packet already has a verdict`, `packet is no longer valid`; `cannot hold this packet: ...`
as for delay, and outside a handler for one made by nfqueue.packet
*/
static int packet_hold(lua_State *L)
{
	return call_verb(L, "hold", nq_packet_hold);
}

/***
Drop the packet and answer as a firewall does: with a TCP reset, or an ICMP or ICMPv6 error. As with
the kernel's REJECT (and RFC 1122 section 3.2.2, RFC 4443 section 2.4) some packets are only
dropped: a reset, an ICMP error, a later fragment, what was sent to or came from no single host
(broadcast, multicast), what came with a wrong checksum, and what is not IP. ICMP errors are limited
to 1000 a second of one thread. The answer leaves through the host's output, marked with
`loop_mark`; a reset comes from the address that was asked, an error from an address of this host.
`pkt.answer` tells what it is.
@function packet:reject
@tparam[opt] string kind `"tcp-reset"` (TCP only), or an error that destination is unreachable:
`"icmp-port"` (ICMP code 3, ICMPv6 code 4), `"icmp-host"` (1, 3), `"icmp-net"` (0, 0),
`"icmp-admin"` (13, 1). Default: `"tcp-reset"` for TCP, else `"icmp-port"`
@raise `packet already has a verdict`, `packet is no longer valid`, `bad argument 'kind' to 'reject'
(...)`: an unknown one, or a reset of something else than TCP
*/
static int packet_reject(lua_State *L)
{
	return call_verb(L, "reject", do_reject);
}

const luaL_Reg nq_packet_verbs[] = {
	{"accept", packet_accept}, {"drop", packet_drop},	{"modify", packet_modify},
	{"again", packet_again},   {"requeue", packet_requeue}, {"reject", packet_reject},
	{"delay", packet_delay},   {"hold", packet_hold},	{NULL, NULL},
};

static verb *find_verb(const char *name)
{
	static const struct {
		const char *name;
		verb *function;
	} verbs[] = {
		{"accept", do_accept}, {"drop", do_drop},	 {"modify", do_modify},
		{"again", do_again},   {"requeue", do_requeue},	 {"reject", do_reject},
		{"delay", do_delay},   {"hold", nq_packet_hold},
	};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return verbs[i].function;
	}
	return NULL;
}

static void apply_returned(lua_State *L, struct nq_cell *cell, int first)
{
	const struct nq_packet *packet = cell->packet;
	verb *function;

	if (lua_type(L, first) != LUA_TSTRING)
		luaL_error(L, "a handler returns nothing or the name of a verb, not %s",
			   luaL_typename(L, first));
	if (packet->verdict != NQ_UNDECIDED)
		luaL_error(L, "the handler returned '%s', but the packet already has a verdict",
			   lua_tostring(L, first));
	if (cell->held)
		luaL_error(L, "the handler returned '%s', but it holds the packet",
			   lua_tostring(L, first));
	function = find_verb(lua_tostring(L, first));
	if (function)
		function(L, cell, first + 1);
	else
		luaL_error(L,
			   "the handler returned '%s', which is no verb (accept, drop, modify, "
			   "again, requeue, reject, delay, hold)",
			   lua_tostring(L, first));
}

bool nq_packet_conclude(lua_State *L, struct nq_cell *cell, int first, enum nq_verdict standard)
{
	static const struct options none = {.fixup = true};
	struct nq_packet *packet;

	/* `return nil` and `return pkt:drop()` are nothing; nil followed by something is not. */
	if (lua_gettop(L) > first || (lua_gettop(L) == first && !lua_isnil(L, first)))
		apply_returned(L, cell, first);
	packet = cell->packet;
	if (cell->held || packet->verdict != NQ_UNDECIDED)
		return false;
	if (standard == NQ_DROP)
		decide_drop(packet);
	else
		decide(L, packet, NQ_ACCEPT, &none);
	return true;
}
