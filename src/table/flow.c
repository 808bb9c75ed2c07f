#include "table/flow.h"

#include <netinet/in.h>

#include "packet/header.h"
#include "packet/icmp.h"
#include "packet/tuple.h"

enum { LIST_CLOSED = 0, LIST_OPEN = 1 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };

int nq_flows_init(struct nq_flows *flows, uint32_t max, int64_t timeout,
		  void (*forget)(void *context, struct nq_entry *entry), void *context)
{
	flows->table = (struct nq_ends_table){.forget = forget, .context = context};
	flows->table.timeouts[LIST_CLOSED] = timeout < NQ_FLOW_CLOSED ? timeout : NQ_FLOW_CLOSED;
	flows->table.timeouts[LIST_OPEN] = timeout;
	return nq_ends_table_init(&flows->table, max, sizeof(struct nq_flow));
}

void nq_flows_fini(struct nq_flows *flows)
{
	nq_ends_table_fini(&flows->table);
}

/* The packet that an ICMP error speaks of, and its ends. */
static bool read_embedded(struct nq_packet *packet, struct nq_flow_tuple *tuple)
{
	struct nq_packet embedded = {.have = NQ_HAVE_PAYLOAD};
	const struct nq_flow_tuple *found;
	uint32_t offset, end;

	if (!nq_embedded_find(packet, &offset, &end))
		return false;
	embedded.data = packet->data + offset;
	embedded.length = end - offset;
	if (!nq_tuple_find(&embedded, &found))
		return false;
	*tuple = *found;
	return true;
}

static uint8_t tcp_flags(struct nq_packet *packet)
{
	uint32_t offset;

	return nq_header_find(packet, NQ_HEADER_TCP, &offset) ? packet->data[offset + 13] : 0;
}

/*
 * The ends the packet belongs to; *source: which of them sends, *known: whether it only belongs to
 * a flow that is there. False when it belongs to none.
 */
static bool read_ends(struct nq_packet *packet, struct nq_ends *ends, bool *source, bool *known)
{
	const struct nq_flow_tuple *tuple;
	struct nq_flow_tuple embedded;

	if (!nq_tuple_find(packet, &tuple))
		return false;
	*known = read_embedded(packet, &embedded);
	if (*known)
		*source = !nq_ends_of(ends, &embedded); /* an error goes to who sent that packet */
	else
		*source = nq_ends_of(ends, tuple);
	return true;
}

static bool is_new(const struct nq_flow *flow, uint8_t flags)
{
	return flow->entry.list == LIST_CLOSED && (flags & (SYN | ACK | RST)) == SYN;
}

static void follow_close(struct nq_flows *flows, struct nq_flow *flow, uint8_t flags, bool source)
{
	if (flags & FIN)
		flow->ended[source] = true;
	if (flags & RST || (flow->ended[0] && flow->ended[1]))
		nq_ends_table_move(&flows->table, &flow->entry, LIST_CLOSED);
}

struct nq_flow *nq_flows_meet(struct nq_flows *flows, struct nq_packet *packet, int64_t now,
			      bool *reply)
{
	struct nq_ends ends;
	struct nq_flow *flow;
	bool source, known;
	uint8_t flags;

	if (!read_ends(packet, &ends, &source, &known))
		return NULL;
	flow = (struct nq_flow *)nq_ends_table_find(&flows->table, &ends, now);
	flags = tcp_flags(packet);
	if (flow && !known && is_new(flow, flags)) {
		nq_ends_table_forget(&flows->table, &flow->entry);
		flow = NULL;
	}
	if (!flow && known)
		return NULL;
	if (!flow) {
		flow = (struct nq_flow *)nq_ends_table_add(&flows->table, &ends, LIST_OPEN, now);
		flow->origin = source;
	}
	*reply = source != flow->origin;
	if (!known)
		follow_close(flows, flow, flags, source);
	return flow;
}

enum nq_verdict nq_flows_decide(struct nq_flows *flows, struct nq_packet *packet, int64_t now)
{
	struct nq_ends ends;
	struct nq_flow *flow;
	bool source, known;
	uint8_t flags;

	if (!read_ends(packet, &ends, &source, &known))
		return NQ_UNDECIDED;
	flow = (struct nq_flow *)nq_ends_table_peek(&flows->table, &ends, now);
	flags = tcp_flags(packet);
	if (!flow || flow->verdict == NQ_UNDECIDED || (!known && is_new(flow, flags)))
		return NQ_UNDECIDED;
	nq_ends_table_touch(&flows->table, &flow->entry, now);
	if (!known)
		follow_close(flows, flow, flags, source);
	return flow->verdict;
}
