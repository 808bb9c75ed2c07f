#include "packet/edit.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/checksum.h"
#include "packet/layout.h"

/* A larger copy helps, unless it is as large as a message can be. */
static const char *truncated_reason(const struct nq_packet *packet)
{
	if ((packet->have & NQ_HAVE_WIRE_LENGTH) && packet->wire_length > NQ_PACKET_MAX)
		return "it is larger than the 65531 bytes that can be copied (gso = false keeps "
		       "packets "
		       "wire-sized)";
	return "the kernel copied only part of it (raise copy_range)";
}

static const char later_fragment[] =
	"it is a later fragment: the checksum over it lies in the first";
static const char headers_cut[] = "its headers reach beyond its end";

/* RFC 793/768 (IPv4) and RFC 8200 section 8.1 (IPv6) pseudo-headers. */
static uint64_t pseudo_header_sum(const struct nq_layout *layout, const uint8_t *bytes,
				  uint32_t length)
{
	uint8_t tail[8] = {0};
	uint64_t sum;

	nq_put_u32(tail, length);
	tail[7] = layout->protocol;
	sum = nq_checksum_add(0, tail, sizeof(tail));
	if (layout->version == 4)
		return nq_checksum_add(sum, bytes + 12, 8);
	sum = nq_checksum_add(sum, bytes + 8, 16);
	return nq_checksum_add(sum, bytes + (layout->routing_dest ? layout->routing_dest : 24), 16);
}

static void write_checksum(uint8_t *bytes, uint32_t at, uint32_t length, uint64_t sum, bool udp)
{
	uint16_t checksum;

	memset(bytes + at, 0, 2);
	checksum = nq_checksum_fold(nq_checksum_add(sum, bytes, length));
	if (udp && checksum == 0)
		checksum = 0xffff;
	memcpy(bytes + at, &checksum, 2);
}

/* NULL when the transport's own header is all there. */
static const char *check_transport(const struct nq_layout *layout, const uint8_t *bytes,
				   uint32_t length)
{
	uint32_t size = length - layout->transport;

	switch (layout->protocol) {
	case IPPROTO_TCP: {
		uint32_t header;

		if (size < 20)
			return "its TCP header is cut short";
		header = (uint32_t)(bytes[layout->transport + 12] >> 4) * 4;
		if (header < 20 || header > size)
			return "its TCP data offset points outside the packet";
		return NULL;
	}
	case IPPROTO_UDP:
		return size < 8 ? "its UDP header is cut short" : NULL;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return size < 4 ? "its ICMP header is cut short" : NULL;
	default:
		return NULL;
	}
}

static bool is_fragment(const struct nq_layout *layout)
{
	return layout->more_fragments || layout->frag_offset;
}

static const char *check_whole(const struct nq_layout *layout, const uint8_t *bytes,
			       uint32_t length)
{
	if (layout->version == 0)
		return "it is neither IPv4 nor IPv6, or shorter than its IP header";
	if (layout->cut)
		return headers_cut;
	return is_fragment(layout) ? NULL : check_transport(layout, bytes, length);
}

static void complete(const struct nq_layout *layout, uint8_t *bytes, uint32_t length)
{
	uint8_t *transport = bytes + layout->transport;
	uint32_t size = length - layout->transport;

	if (layout->version == 4) {
		nq_put_u16(bytes + 2, length);
		write_checksum(bytes, 10, layout->transport, 0, false);
	} else {
		nq_put_u16(bytes + 4, length - 40);
	}
	if (is_fragment(layout))
		return; /* the checksum covers bytes that are not here */
	switch (layout->protocol) {
	case IPPROTO_TCP:
		write_checksum(transport, 16, size, pseudo_header_sum(layout, bytes, size), false);
		break;
	case IPPROTO_UDP:
		nq_put_u16(transport + 4, size);
		write_checksum(transport, 6, size, pseudo_header_sum(layout, bytes, size), true);
		break;
	case IPPROTO_ICMP:
		if (layout->version == 4)
			write_checksum(transport, 2, size, 0, false);
		break;
	case IPPROTO_ICMPV6:
		if (layout->version == 6)
			write_checksum(transport, 2, size, pseudo_header_sum(layout, bytes, size),
				       false);
		break;
	default:
		break;
	}
}

const char *nq_edit_complete(uint8_t *bytes, uint32_t length)
{
	struct nq_layout layout;
	const char *reason;

	nq_layout_read(&layout, bytes, length);
	reason = check_whole(&layout, bytes, length);
	if (!reason)
		complete(&layout, bytes, length);
	return reason;
}

/* Offset of the checksum in a transport header; 0: none that is completed here. */
static uint32_t checksum_offset(const struct nq_layout *layout)
{
	switch (layout->protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMP:
		return layout->version == 4 ? 2 : 0;
	case IPPROTO_ICMPV6:
		return layout->version == 6 ? 2 : 0;
	default:
		return 0;
	}
}

/* What a first fragment contributes to its transport checksum, the checksum itself left out. */
static uint64_t fragment_sum(const struct nq_layout *layout, const uint8_t *bytes, uint32_t length,
			     uint32_t at)
{
	const uint8_t *transport = bytes + layout->transport;
	uint64_t sum = 0;

	if (layout->protocol != IPPROTO_ICMP)
		sum = pseudo_header_sum(layout, bytes, 0);
	sum = nq_checksum_add(sum, transport, at);
	return nq_checksum_add(sum, transport + at + 2, length - layout->transport - at - 2);
}

/*
 * The checksum of a first fragment follows a change of its bytes: the rest of the datagram is
 * elsewhere and stays, so the difference is exact (RFC 1624, equation 3). A UDP checksum of 0 means
 * there is none.
 */
static void fragment_before(struct nq_fragment *fragment, const struct nq_layout *layout,
			    const uint8_t *bytes, uint32_t length)
{
	uint32_t at = checksum_offset(layout);

	fragment->at = 0;
	if (!layout->version || layout->cut || !is_fragment(layout) || layout->frag_offset || !at ||
	    length - layout->transport < at + 2)
		return;
	memcpy(&fragment->checksum, bytes + layout->transport + at, 2);
	if (fragment->checksum == 0 && layout->protocol == IPPROTO_UDP)
		return;
	fragment->at = at;
	fragment->sum = fragment_sum(layout, bytes, length, at);
}

static void fragment_after(const struct nq_fragment *fragment, const struct nq_layout *layout,
			   uint8_t *bytes, uint32_t length)
{
	uint64_t sum;
	uint16_t checksum;

	if (!fragment->at || checksum_offset(layout) != fragment->at)
		return; /* or the protocol is another one now */
	sum = (uint16_t)~fragment->checksum;
	sum += nq_checksum_fold(fragment->sum);
	sum += (uint16_t)~nq_checksum_fold(fragment_sum(layout, bytes, length, fragment->at));
	checksum = nq_checksum_fold(sum);
	if (checksum == 0 && layout->protocol == IPPROTO_UDP)
		checksum = 0xffff;
	memcpy(bytes + layout->transport + fragment->at, &checksum, 2);
}

static bool changes(const uint8_t *data, uint32_t offset, const uint8_t *bytes, uint32_t length,
		    uint32_t from, uint32_t to)
{
	uint32_t start = offset > from ? offset : from;
	uint32_t end = offset + length < to ? offset + length : to;

	return start < end && memcmp(data + start, bytes + (start - offset), end - start) != 0;
}

const char *nq_edit_patch(struct nq_packet *packet, uint32_t offset, const uint8_t *bytes,
			  uint32_t length)
{
	struct nq_layout layout;
	const uint8_t *data = packet->data;

	if (nq_packet_truncated(packet))
		return truncated_reason(packet);
	nq_layout_read(&layout, data, packet->length);
	if (layout.version && layout.cut)
		return headers_cut;
	if (layout.version == 4) {
		if (changes(data, offset, bytes, length, 0, 1))
			return "the IPv4 version and header length must stay";
		if (changes(data, offset, bytes, length, 6, 8))
			return "the IPv4 fragment bits must stay";
		if (changes(data, offset, bytes, length, 20, layout.transport))
			return "the IPv4 options must stay";
	} else if (layout.version == 6) {
		/* The low half of byte 0 is traffic class: only the version must stay. */
		if (offset == 0 && length && bytes[0] >> 4 != 6)
			return "the IPv6 version must stay";
		if (changes(data, offset, bytes, length, 6, 7) ||
		    changes(data, offset, bytes, length, 40, layout.transport))
			return "the IPv6 extension headers must stay";
	}
	if (layout.version && layout.protocol == IPPROTO_TCP && !is_fragment(&layout) &&
	    offset <= layout.transport + 12 && layout.transport + 12 - offset < length &&
	    layout.transport + 12 < packet->length &&
	    (bytes[layout.transport + 12 - offset] ^ data[layout.transport + 12]) & 0xf0)
		return "the TCP header length must stay: it decides the length of the payload";
	if (layout.frag_offset &&
	    changes(data, offset, bytes, length, layout.transport, packet->length))
		return later_fragment;
	if (!packet->dirty) {
		/* Padding of the link layer does not leave: kernels want the two lengths equal. */
		bool padded = layout.version && layout.total >= layout.transport &&
			      layout.total < packet->length;

		packet->leaving = padded ? layout.total : packet->length;
		fragment_before(&packet->fragment, &layout, data, packet->leaving);
		packet->dirty = true;
	}
	memcpy(packet->data + offset, bytes, length);
	packet->layout_known = false;
	return NULL;
}

/* Bytes of TCP payload; the layout has passed check_whole. */
static uint32_t tcp_payload(const struct nq_layout *layout, const uint8_t *bytes, uint32_t length)
{
	return length - layout->transport - (uint32_t)(bytes[layout->transport + 12] >> 4) * 4;
}

static const char *check_replacement(const struct nq_packet *packet, const uint8_t *bytes,
				     uint32_t length)
{
	struct nq_layout before, after;
	const char *reason;
	uint32_t old_length = packet->length;

	nq_layout_read(&before, packet->data, packet->length);
	if (before.version == 0)
		return NULL; /* not IP: nothing to hold it against */
	nq_layout_read(&after, bytes, length);
	reason = check_whole(&after, bytes, length);
	if (reason || before.cut)
		return reason;
	reason = nq_layout_difference(&before, packet->data, &after, bytes);
	if (reason)
		return reason;
	if (before.total && before.total < old_length && before.total >= before.transport)
		old_length = before.total; /* link-layer padding is no payload */
	if (is_fragment(&after)) {
		if (length != old_length)
			return "it is a fragment: its length decides where the others go";
		if (after.frag_offset &&
		    memcmp(packet->data + before.transport, bytes + after.transport,
			   length - after.transport) != 0)
			return later_fragment;
	} else if (before.protocol == IPPROTO_TCP && after.protocol == IPPROTO_TCP &&
		   !check_transport(&before, packet->data, old_length) &&
		   tcp_payload(&before, packet->data, old_length) !=
			   tcp_payload(&after, bytes, length)) {
		return "a TCP payload of another length breaks the sequence numbers of the "
		       "connection";
	}
	return NULL;
}

/*
 * New content made from a padded packet's bytes has the padding of the link layer too, which is no
 * payload: it is as long as the old, and its header claims the old length.
 */
static size_t without_padding(const struct nq_packet *packet, const uint8_t *bytes, size_t length)
{
	struct nq_layout before, after;

	nq_layout_read(&before, packet->data, packet->length);
	nq_layout_read(&after, bytes, length);
	if (length == packet->length && before.version && before.version == after.version &&
	    before.total == after.total && after.total >= after.transport && after.total < length)
		return after.total;
	return length;
}

const char *nq_edit_replace(struct nq_packet *packet, const uint8_t *bytes, size_t length,
			    bool fixup)
{
	struct nq_fragment fragment = {0};
	struct nq_layout layout;

	if (length == 0)
		return "the new content is empty";
	if (length > NQ_PACKET_MAX)
		return "the new content is longer than 65531 bytes";
	if (nq_packet_truncated(packet))
		return truncated_reason(packet);
	if (fixup) {
		const char *reason;

		length = without_padding(packet, bytes, length);
		reason = check_replacement(packet, bytes, (uint32_t)length);

		if (reason)
			return reason;
	}
	if (fixup) {
		/* The checksum of a first fragment starts from the old one, whatever the new bytes
		 * hold. */
		nq_layout_read(&layout, packet->data, packet->length);
		if (packet->dirty)
			fragment = packet->fragment; /* from before the edits in place */
		else
			fragment_before(&fragment, &layout, packet->data, (uint32_t)length);
	}
	memmove(packet->spare, bytes, length);
	if (fixup) {
		nq_edit_complete(packet->spare, (uint32_t)length);
		nq_layout_read(&layout, packet->spare, length);
		fragment_after(&fragment, &layout, packet->spare, (uint32_t)length);
	}
	packet->data = packet->spare;
	packet->length = (uint32_t)length;
	packet->layout_known = false;
	packet->dirty = false;
	packet->send |= NQ_SEND_BYTES;
	return NULL;
}

const char *nq_edit_finish(struct nq_packet *packet, bool fixup)
{
	if (fixup) {
		struct nq_layout layout;

		nq_layout_read(&layout, packet->data, packet->leaving);
		if (layout.version) {
			const char *reason = check_whole(&layout, packet->data, packet->leaving);

			if (reason)
				return reason;
			packet->length = packet->leaving;
			packet->layout_known = false;
			complete(&layout, packet->data, packet->length);
			fragment_after(&packet->fragment, &layout, packet->data, packet->length);
		}
	}
	packet->dirty = false;
	packet->send |= NQ_SEND_BYTES;
	return NULL;
}
