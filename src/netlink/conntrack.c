#include "netlink/conntrack.h"

#include <endian.h>
#include <errno.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <string.h>

#include "netlink/message.h"
#include "packet/bytes.h"

/* The attributes of one direction: the library names them apart. */
struct direction {
	enum nf_conntrack_attr source4, target4, source6, target6, sport, dport, protocol;
};

static void read_tuple(const struct nf_conntrack *ct, const struct direction *at,
		       struct nq_tuple *tuple)
{
	if (nfct_attr_is_set(ct, at->source4) > 0 && nfct_attr_is_set(ct, at->target4) > 0) {
		tuple->family = AF_INET;
		memcpy(tuple->source, nfct_get_attr(ct, at->source4), 4);
		memcpy(tuple->target, nfct_get_attr(ct, at->target4), 4);
	} else if (nfct_attr_is_set(ct, at->source6) > 0 && nfct_attr_is_set(ct, at->target6) > 0) {
		tuple->family = AF_INET6;
		memcpy(tuple->source, nfct_get_attr(ct, at->source6), 16);
		memcpy(tuple->target, nfct_get_attr(ct, at->target6), 16);
	}
	if (nfct_attr_is_set(ct, at->protocol) > 0)
		tuple->protocol = nfct_get_attr_u8(ct, at->protocol);
	if (nfct_attr_is_set(ct, at->sport) > 0 && nfct_attr_is_set(ct, at->dport) > 0) {
		tuple->has_ports = true;
		tuple->sport = be16toh(nfct_get_attr_u16(ct, at->sport));
		tuple->dport = be16toh(nfct_get_attr_u16(ct, at->dport));
	}
}

/* The attribute of this type among those in `bytes`: its value and *length, or NULL. */
static const uint8_t *find_attribute(const uint8_t *bytes, uint16_t end, uint16_t wanted,
				     uint16_t *length)
{
	const uint8_t *value;
	uint16_t type;
	size_t offset = 0;

	while (bytes && nq_attribute_next(bytes, end, &offset, &type, &value, length)) {
		if (type == wanted)
			return value;
	}
	return NULL;
}

/*
 * ICMP's part of a tuple. The library keeps one for both directions, so it is read from the
 * attributes: CTA_TUPLE_ORIG or CTA_TUPLE_REPLY, in it CTA_TUPLE_PROTO, in it CTA_PROTO_ICMP_* or
 * _ICMPV6_*.
 */
static void read_icmp(const struct nq_packet *packet, uint16_t direction, struct nq_tuple *tuple)
{
	bool is_ip6 = tuple->protocol == IPPROTO_ICMPV6;
	const uint8_t *nest, *type, *code, *id;
	uint16_t end, length;

	if (tuple->protocol != IPPROTO_ICMP && !is_ip6)
		return;
	nest = find_attribute(packet->ct, packet->ct_length, direction, &end);
	nest = find_attribute(nest, end, CTA_TUPLE_PROTO, &end);
	type = find_attribute(nest, end, is_ip6 ? CTA_PROTO_ICMPV6_TYPE : CTA_PROTO_ICMP_TYPE,
			      &length);
	if (!type || length < 1)
		return;
	tuple->type = type[0];
	code = find_attribute(nest, end, is_ip6 ? CTA_PROTO_ICMPV6_CODE : CTA_PROTO_ICMP_CODE,
			      &length);
	if (!code || length < 1)
		return;
	tuple->code = code[0];
	id = find_attribute(nest, end, is_ip6 ? CTA_PROTO_ICMPV6_ID : CTA_PROTO_ICMP_ID, &length);
	if (!id || length < 2)
		return;
	tuple->icmp_id = nq_get_u16(id);
	tuple->has_icmp = true;
	tuple->has_ports = false;
}

static void read_labels(const struct nf_conntrack *ct, struct nq_conntrack *conntrack)
{
	const struct nfct_bitmask *labels;

	if (nfct_attr_is_set(ct, ATTR_CONNLABELS) <= 0)
		return;
	labels = nfct_get_attr(ct, ATTR_CONNLABELS);
	conntrack->has_labels = true;
	for (unsigned bit = 0; bit < 128 && bit <= nfct_bitmask_maxbit(labels); bit++) {
		if (nfct_bitmask_test_bit(labels, bit) > 0)
			conntrack->labels[bit / 8] |= (uint8_t)(1u << bit % 8);
	}
}

int nq_conntrack_read(const struct nq_packet *packet, struct nq_conntrack *conntrack)
{
	static const struct direction original = {
		ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV4_DST, ATTR_ORIG_IPV6_SRC, ATTR_ORIG_IPV6_DST,
		ATTR_ORIG_PORT_SRC, ATTR_ORIG_PORT_DST, ATTR_ORIG_L4PROTO};
	static const struct direction reply = {
		ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV4_DST, ATTR_REPL_IPV6_SRC, ATTR_REPL_IPV6_DST,
		ATTR_REPL_PORT_SRC, ATTR_REPL_PORT_DST, ATTR_REPL_L4PROTO};
	uint16_t family = packet->ethertype == 0x86dd ? AF_INET6 : AF_INET;
	struct nf_conntrack *ct;
	int error = 0;

	memset(conntrack, 0, sizeof(*conntrack));
	if (!packet->ct)
		return -ENOENT;
	ct = nfct_new();
	if (!ct)
		return -ENOMEM;
	if (nfct_payload_parse(packet->ct, packet->ct_length, family, ct) < 0) {
		error = -EINVAL;
		goto out;
	}
	conntrack->has_id = nfct_attr_is_set(ct, ATTR_ID) > 0;
	if (conntrack->has_id)
		conntrack->id = nfct_get_attr_u32(ct, ATTR_ID);
	conntrack->has_status = nfct_attr_is_set(ct, ATTR_STATUS) > 0;
	if (conntrack->has_status)
		conntrack->status = nfct_get_attr_u32(ct, ATTR_STATUS);
	conntrack->has_mark = nfct_attr_is_set(ct, ATTR_MARK) > 0;
	if (conntrack->has_mark)
		conntrack->mark = nfct_get_attr_u32(ct, ATTR_MARK);
	read_labels(ct, conntrack);
	read_tuple(ct, &original, &conntrack->original);
	read_tuple(ct, &reply, &conntrack->reply);
	read_icmp(packet, CTA_TUPLE_ORIG, &conntrack->original);
	read_icmp(packet, CTA_TUPLE_REPLY, &conntrack->reply);
out:
	nfct_destroy(ct);
	return error;
}

const char *nq_conntrack_state(uint32_t ct_info, bool *reply)
{
	*reply = ct_info >= IP_CT_IS_REPLY && ct_info < IP_CT_NUMBER;
	switch (ct_info) {
	case IP_CT_ESTABLISHED:
	case IP_CT_ESTABLISHED_REPLY:
		return "established";
	case IP_CT_RELATED:
	case IP_CT_RELATED_REPLY:
		return "related";
	case IP_CT_NEW:
		return "new";
	default:
		return NULL;
	}
}
