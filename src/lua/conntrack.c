#include "lua/conntrack.h"

#include <arpa/inet.h>

#include "netlink/conntrack.h"

static void set_integer(lua_State *L, const char *name, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, name);
}

static void set_address(lua_State *L, const char *name, uint8_t family, const uint8_t *bytes)
{
	char text[INET6_ADDRSTRLEN];

	if (!inet_ntop(family, bytes, text, sizeof(text)))
		return;
	lua_pushstring(L, text);
	lua_setfield(L, -2, name);
}

static void set_tuple(lua_State *L, const char *name, const struct nq_tuple *tuple)
{
	if (!tuple->family)
		return;
	lua_createtable(L, 0, 6);
	set_address(L, "src", tuple->family, tuple->source);
	set_address(L, "dst", tuple->family, tuple->target);
	set_integer(L, "protocol", tuple->protocol);
	if (tuple->has_ports) {
		set_integer(L, "sport", tuple->sport);
		set_integer(L, "dport", tuple->dport);
	}
	if (tuple->has_icmp) {
		set_integer(L, "type", tuple->type);
		set_integer(L, "code", tuple->code);
		set_integer(L, "id", tuple->icmp_id);
	}
	lua_setfield(L, -2, name);
}

/* Bits of IPS_*, by the names of nft's `ct status` with underscores. */
static void set_status(lua_State *L, uint32_t status)
{
	static const char *const names[] = {"expected", "seen_reply", "assured", "confirmed",
					    "snat",	"dnat",	      NULL,	 NULL,
					    NULL,	"dying"};

	lua_createtable(L, 0, 8);
	for (unsigned bit = 0; bit < sizeof(names) / sizeof(names[0]); bit++) {
		if (!names[bit])
			continue;
		lua_pushboolean(L, status >> bit & 1);
		lua_setfield(L, -2, names[bit]);
	}
	lua_setfield(L, -2, "status");
}

/* A set of bit numbers: labels[5] is true, or absent. */
static void set_labels(lua_State *L, const uint8_t labels[16])
{
	lua_newtable(L);
	for (unsigned bit = 0; bit < 128; bit++) {
		if (labels[bit / 8] >> bit % 8 & 1) {
			lua_pushboolean(L, 1);
			lua_rawseti(L, -2, bit);
		}
	}
	lua_setfield(L, -2, "labels");
}

void nq_conntrack_push(lua_State *L, const struct nq_packet *packet)
{
	struct nq_conntrack conntrack;
	const char *state;
	bool reply = false;

	if (nq_conntrack_read(packet, &conntrack) != 0) {
		lua_pushnil(L);
		return;
	}
	lua_createtable(L, 0, 8);
	if (packet->have & NQ_HAVE_CT_INFO) {
		state = nq_conntrack_state(packet->ct_info, &reply);
		if (state) {
			lua_pushstring(L, state);
			lua_setfield(L, -2, "state");
		}
		lua_pushstring(L, reply ? "reply" : "original");
		lua_setfield(L, -2, "direction");
	}
	if (conntrack.has_id)
		set_integer(L, "id", conntrack.id);
	if (conntrack.has_status)
		set_status(L, conntrack.status);
	/* The kernel leaves a mark of 0 and an empty set of labels out. */
	set_integer(L, "mark", conntrack.mark);
	set_labels(L, conntrack.labels);
	set_tuple(L, "orig", &conntrack.original);
	set_tuple(L, "reply", &conntrack.reply);
}
