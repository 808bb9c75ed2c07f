/*
 * flow.h - connections as a handler sees them: which packets belong together, in which direction
 * each goes, when one is over, and a verdict that is given to the rest of it without the handler.
 *
 * A flow is known by both ends and the transport, as the packet arrived; an ICMP error belongs to
 * the flow of the packet it speaks of. Later fragments, packets that are no IP or cut off before
 * their ports belong to none. One table belongs to one thread.
 */
#ifndef NQ_TABLE_FLOW_H
#define NQ_TABLE_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"
#include "table/ends.h"

struct nq_flow {
	struct nq_entry entry;
	enum nq_verdict verdict; /* of the rest of it: NQ_ACCEPT, NQ_DROP; NQ_UNDECIDED: none */
	uint8_t origin;		 /* which of `ends` sent its first packet */
	bool ended[2];		 /* a FIN came from that end */
};

struct nq_flows {
	struct nq_ends_table table;
};

/*
 * `timeout`: nanoseconds without a packet after which a flow is over; one of TCP that was reset, or
 * ended by both sides, is over NQ_FLOW_CLOSED nanoseconds after its last packet if that is less.
 * `forget` is told of each that goes. 0 or -ENOMEM.
 */
#define NQ_FLOW_CLOSED (10 * INT64_C(1000000000))
int nq_flows_init(struct nq_flows *flows, uint32_t max, int64_t timeout,
		  void (*forget)(void *context, struct nq_entry *entry), void *context);
void nq_flows_fini(struct nq_flows *flows);

/*
 * The flow the packet belongs to, made when there is none; NULL for what belongs to none. *reply:
 * it goes to the end that began. A SYN of a flow that is closed begins another. At most two flows
 * are forgotten.
 */
struct nq_flow *nq_flows_meet(struct nq_flows *flows, struct nq_packet *packet, int64_t now,
			      bool *reply);

/* The verdict given to the rest of the packet's flow, NQ_UNDECIDED for none; then the packet counts
 * as met. No flow is forgotten. */
enum nq_verdict nq_flows_decide(struct nq_flows *flows, struct nq_packet *packet, int64_t now);

#endif
