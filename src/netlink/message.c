#include "netlink/message.h"

#include <endian.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <string.h>

#include "packet/bytes.h"

/* Newer than Debian 12's kernel headers: linux/netfilter/nfnetlink_queue.h, Linux 6.13. */
#define ATTR_CGROUP_CLASSID 22

bool nq_attribute_next(const uint8_t *bytes, size_t end, size_t *offset, uint16_t *type,
		       const uint8_t **value, uint16_t *length)
{
	struct nlattr head;

	if (*offset > end || end - *offset < sizeof(head))
		return false;
	memcpy(&head, bytes + *offset, sizeof(head));
	if (head.nla_len < sizeof(head) || head.nla_len > end - *offset)
		return false;
	*type = (uint16_t)(head.nla_type & NLA_TYPE_MASK);
	*value = bytes + *offset + sizeof(head);
	*length = (uint16_t)(head.nla_len - sizeof(head));
	*offset += ((size_t)head.nla_len + NLA_ALIGNTO - 1) & ~(size_t)(NLA_ALIGNTO - 1);
	return true;
}

static void read_vlan(struct nq_packet *packet, const uint8_t *bytes, size_t end)
{
	const uint8_t *value;
	uint16_t type, length;
	size_t offset = 0;
	unsigned seen = 0;

	while (nq_attribute_next(bytes, end, &offset, &type, &value, &length)) {
		if (type == NFQA_VLAN_PROTO && length >= 2) {
			packet->vlan_proto = nq_get_u16(value);
			seen |= 1;
		} else if (type == NFQA_VLAN_TCI && length >= 2) {
			packet->vlan_tci = nq_get_u16(value);
			seen |= 2;
		}
	}
	if (seen == 3)
		packet->have |= NQ_HAVE_VLAN;
}

/* One 32-bit attribute into *field, and `bit` into have; a shorter one is passed over. */
static void read_u32(struct nq_packet *packet, uint32_t *field, uint32_t bit, const uint8_t *value,
		     uint16_t length)
{
	if (length < 4)
		return;
	*field = nq_get_u32(value);
	packet->have |= bit;
}

static void read_attribute(struct nq_packet *packet, uint16_t type, uint8_t *value, uint16_t length)
{
	uint32_t info;

	switch (type) {
	case NFQA_PACKET_HDR:
		if (length < sizeof(struct nfqnl_msg_packet_hdr))
			return;
		packet->id = nq_get_u32(value);
		packet->ethertype = nq_get_u16(value + 4);
		packet->hook = value[6];
		packet->have |= NQ_HAVE_HEADER;
		return;
	case NFQA_MARK:
		read_u32(packet, &packet->mark, 0, value, length);
		return;
	case NFQA_TIMESTAMP:
		if (length < 16)
			return;
		packet->seconds = nq_get_u64(value);
		packet->microseconds = nq_get_u64(value + 8);
		packet->have |= NQ_HAVE_TIMESTAMP;
		return;
	case NFQA_IFINDEX_INDEV:
		read_u32(packet, &packet->iif, NQ_HAVE_IIF, value, length);
		return;
	case NFQA_IFINDEX_OUTDEV:
		read_u32(packet, &packet->oif, NQ_HAVE_OIF, value, length);
		return;
	case NFQA_IFINDEX_PHYSINDEV:
		read_u32(packet, &packet->physiif, NQ_HAVE_PHYSIIF, value, length);
		return;
	case NFQA_IFINDEX_PHYSOUTDEV:
		read_u32(packet, &packet->physoif, NQ_HAVE_PHYSOIF, value, length);
		return;
	case NFQA_HWADDR:
		/* be16 length, 2 bytes of padding, 8 bytes of address */
		if (length < 12 || nq_get_u16(value) > sizeof(packet->hwaddr))
			return;
		packet->hwaddr_length = (uint8_t)nq_get_u16(value);
		memcpy(packet->hwaddr, value + 4, sizeof(packet->hwaddr));
		return;
	case NFQA_PAYLOAD:
		packet->data = value;
		packet->length = length;
		packet->have |= NQ_HAVE_PAYLOAD;
		return;
	case NFQA_CT:
		packet->ct = value;
		packet->ct_length = length;
		return;
	case NFQA_CT_INFO:
		read_u32(packet, &packet->ct_info, NQ_HAVE_CT_INFO, value, length);
		return;
	case NFQA_CAP_LEN:
		read_u32(packet, &packet->wire_length, NQ_HAVE_WIRE_LENGTH, value, length);
		return;
	case NFQA_SKB_INFO:
		if (length < 4)
			return;
		info = nq_get_u32(value);
		/* Of a segment still to be cut, only the pseudo-header is summed. */
		packet->csum_complete = !(info & (NFQA_SKB_CSUMNOTREADY | NFQA_SKB_GSO));
		packet->gso = info & NFQA_SKB_GSO;
		return;
	case NFQA_UID:
		read_u32(packet, &packet->uid, NQ_HAVE_UID, value, length);
		return;
	case NFQA_GID:
		read_u32(packet, &packet->gid, NQ_HAVE_GID, value, length);
		return;
	case NFQA_SECCTX:
		packet->secctx = (const char *)value;
		packet->secctx_length = length;
		return;
	case NFQA_VLAN:
		read_vlan(packet, value, length);
		return;
	case NFQA_L2HDR:
		packet->l2header = value;
		packet->l2header_length = length;
		return;
	case NFQA_PRIORITY:
		read_u32(packet, &packet->priority, 0, value, length);
		return;
	case ATTR_CGROUP_CLASSID:
		read_u32(packet, &packet->cgroup, NQ_HAVE_CGROUP, value, length);
		return;
	default:
		return;
	}
}

static enum nq_message_kind read_packet(struct nq_packet *packet, uint8_t *bytes, size_t end,
					bool whole)
{
	struct nfgenmsg family;
	size_t offset = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(family));
	const uint8_t *value;
	uint16_t type, length;

	if (end < offset)
		return NQ_MESSAGE_IGNORED;
	memcpy(&family, bytes + NLMSG_HDRLEN, sizeof(family));
	nq_packet_reset(packet);
	packet->csum_complete = true; /* unless NFQA_SKB_INFO says otherwise */
	packet->family = family.nfgen_family;
	packet->queue = be16toh(family.res_id);
	while (nq_attribute_next(bytes, end, &offset, &type, &value, &length))
		read_attribute(packet, type, bytes + (value - bytes), length);
	if (!(packet->have & NQ_HAVE_HEADER))
		return NQ_MESSAGE_IGNORED;
	/* Bytes left over are an attribute that does not fit: what was read cannot be trusted
	 * either. */
	if (!whole || (offset < end && end - offset >= sizeof(struct nlattr)))
		return NQ_MESSAGE_BROKEN;
	return NQ_MESSAGE_PACKET;
}

enum nq_message_kind nq_message_read(struct nq_packet *packet, struct nq_answer *answer,
				     uint8_t *bytes, size_t length)
{
	struct nlmsghdr head;
	size_t end;

	if (length < sizeof(head))
		return NQ_MESSAGE_IGNORED;
	memcpy(&head, bytes, sizeof(head));
	if (head.nlmsg_len < sizeof(head))
		return NQ_MESSAGE_IGNORED;
	end = head.nlmsg_len < length ? head.nlmsg_len : length;
	if (head.nlmsg_type == NLMSG_ERROR) {
		struct nlmsgerr error;

		if (end - NLMSG_HDRLEN < sizeof(error))
			return NQ_MESSAGE_IGNORED;
		memcpy(&error, bytes + NLMSG_HDRLEN, sizeof(error));
		if (error.error > 0 || error.error < -4095)
			return NQ_MESSAGE_IGNORED;
		answer->seq = error.msg.nlmsg_seq;
		answer->error = -error.error;
		return NQ_MESSAGE_ANSWER;
	}
	if (head.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
		return NQ_MESSAGE_IGNORED;
	return read_packet(packet, bytes, end, head.nlmsg_len <= length);
}
