/*
 * conntrack.h - the conntrack entry that came with a packet, decoded by libnetfilter_conntrack.
 *
 * Only what was asked for costs: the packet carries the attributes as they came, and this is called
 * when somebody looks.
 */
#ifndef NQ_CONNTRACK_H
#define NQ_CONNTRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

struct nq_tuple {
	uint8_t family; /* AF_INET or AF_INET6; 0: no addresses came */
	uint8_t protocol;
	uint8_t source[16], target[16]; /* network order, 4 or 16 bytes */
	bool has_ports;
	uint16_t sport, dport;
	bool has_icmp;
	uint8_t type, code;
	uint16_t icmp_id;
};

struct nq_conntrack {
	bool has_id, has_status, has_mark, has_labels;
	uint32_t id;
	uint32_t status; /* IPS_* of linux/netfilter/nf_conntrack_common.h */
	uint32_t mark;
	uint8_t labels[16]; /* bit n is labels[n / 8] >> n % 8 */
	struct nq_tuple original, reply;
};

/* Decodes packet->ct: 0, -ENOENT when none came, -EINVAL for what cannot be decoded, -ENOMEM. */
int nq_conntrack_read(const struct nq_packet *packet, struct nq_conntrack *conntrack);

/*
 * "new", "established", "related" as nft prints states, from packet->ct_info; NULL for
 * a number that has none. *reply: whether the packet goes in the reply direction.
 */
const char *nq_conntrack_state(uint32_t ct_info, bool *reply);

#endif
