#include "packet/edit.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/complete.h"
#include "packet/header.h"
#include "packet/option.h"
#include "packet/tuple.h"

/* A larger copy helps, unless it is as large as a message can be. */
const char *nq_edit_truncated(const struct nq_packet *packet)
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
static const char fragment_length[] = "it is a fragment: its length decides where the others go";
static const char datagrams_length[] = "it is UDP datagrams in one, of a length each that only the "
				       "kernel knows (gso = false has them "
				       "one by one)";
static const char tcp_length[] =
	"a TCP payload of another length breaks the sequence numbers of the connection (see "
	"nfqueue.rewrite)";
static const char too_long[] = "the new content is longer than 65531 bytes";
static const char empty[] = "the new content is empty";

const char *nq_edit_complete(uint8_t *bytes, uint32_t length)
{
	struct nq_layout layout;
	const char *reason;

	nq_layout_read(&layout, bytes, length);
	reason = nq_complete_check(&layout, bytes, length);
	if (!reason)
		nq_complete(&layout, bytes, length, NULL);
	return reason;
}

static bool changes(const uint8_t *data, uint32_t offset, const uint8_t *bytes, uint32_t length,
		    uint32_t from, uint32_t to)
{
	uint32_t start = offset > from ? offset : from;
	uint32_t end = offset + length < to ? offset + length : to;

	return start < end && memcmp(data + start, bytes + (start - offset), end - start) != 0;
}

/* Before the first change: remembers what the packet was. */
static void begin_change(struct nq_packet *packet, const struct nq_layout *layout)
{
	if (packet->dirty)
		return;
	nq_tuple_freeze(packet);
	nq_change_begin(&packet->change, layout, packet->data, packet->length,
			packet->csum_complete, packet->gso);
	packet->dirty = true;
}

/* NULL, or, of a first fragment whose checksum cannot follow, why what it covers must stay. */
static const char *check_first_fragment(const struct nq_layout *layout, const uint8_t *data,
					uint32_t size, uint32_t offset, const uint8_t *bytes,
					uint32_t length)
{
	uint32_t width = layout->version == 4 ? 4 : 16;
	const char *reason = NULL;

	if (layout->version && layout->more_fragments && !layout->frag_offset)
		reason = nq_change_check(layout, size);
	if (!reason || changes(data, offset, bytes, length, layout->transport, size))
		return reason;
	/* Of SCTP there is no pseudo-header. */
	if (layout->protocol != IPPROTO_SCTP && layout->protocol != IPPROTO_ICMP &&
	    (changes(data, offset, bytes, length, layout->origin, layout->origin + width) ||
	     changes(data, offset, bytes, length, layout->target, layout->target + width)))
		return reason;
	return NULL;
}

/* NULL, or which bytes of [offset, offset + length) must stay. */
static const char *check_patch(const struct nq_packet *packet, const struct nq_layout *layout,
			       uint32_t offset, const uint8_t *bytes, uint32_t length)
{
	const uint8_t *data = packet->data;
	uint32_t data_offset = layout->transport + 12; /* the byte with TCP's header length */

	if (layout->version && layout->cut)
		return headers_cut;
	if (layout->version == 4) {
		if (changes(data, offset, bytes, length, 0, 1))
			return "the IPv4 version and header length must stay";
		if (changes(data, offset, bytes, length, 6, 8))
			return "the IPv4 fragment bits must stay";
		if (changes(data, offset, bytes, length, 20, layout->header))
			return "the IPv4 options must stay";
	} else if (layout->version == 6) {
		/* The low half of byte 0 is traffic class: only the version must stay. */
		if (offset == 0 && length && bytes[0] >> 4 != 6)
			return "the IPv6 version must stay";
		if (changes(data, offset, bytes, length, 6, 7) ||
		    changes(data, offset, bytes, length, 40, layout->transport))
			return "the IPv6 extension headers must stay";
	}
	if (layout->version && layout->protocol == IPPROTO_TCP && !nq_is_fragment(layout) &&
	    offset <= data_offset && data_offset - offset < length &&
	    data_offset < packet->length &&
	    (bytes[data_offset - offset] ^ data[data_offset]) & 0xf0)
		return "the TCP header length must stay: it decides the length of the payload";
	if (layout->frag_offset &&
	    changes(data, offset, bytes, length, layout->transport, packet->length))
		return later_fragment;
	return check_first_fragment(layout, data, packet->length, offset, bytes, length);
}

const char *nq_edit_patch(struct nq_packet *packet, uint32_t offset, const uint8_t *bytes,
			  uint32_t length)
{
	const struct nq_layout *layout;
	const char *reason;
	uint16_t before = 0;

	if (nq_packet_truncated(packet))
		return nq_edit_truncated(packet);
	layout = nq_packet_layout(packet);
	reason = check_patch(packet, layout, offset, bytes, length);
	if (reason)
		return reason;
	begin_change(packet, layout);
	if (packet->change.at)
		before = nq_change_sum(&packet->change, layout, packet->data, offset,
				       offset + length);
	memcpy(packet->data + offset, bytes, length);
	if (packet->change.at)
		nq_change_add(&packet->change, before,
			      nq_change_sum(&packet->change, layout, packet->data, offset,
					    offset + length));
	if (!layout->version || offset < layout->transport)
		packet->layout_known = false;
	return NULL;
}

const char *nq_edit_checksum(struct nq_packet *packet, uint32_t offset, uint16_t checksum,
			     uint8_t keep)
{
	uint8_t bytes[2];
	const char *reason;

	nq_put_u16(bytes, checksum);
	reason = nq_edit_patch(packet, offset, bytes, sizeof(bytes));
	if (reason)
		return reason;
	packet->keep |= keep;
	if (keep == NQ_KEEP_IP) {
		packet->kept_ip = checksum;
	} else {
		packet->kept_transport = checksum;
		packet->kept_at = offset;
		packet->kept_protocol = nq_packet_layout(packet)->protocol;
	}
	return NULL;
}

/* NULL when bytes of an IP packet, which is no fragment, can be given another number. Behind `end`
 * is padding. */
static const char *check_resize(const struct nq_packet *packet, const struct nq_layout *layout,
				uint32_t end)
{
	if (!layout->version)
		return NULL;
	if (layout->cut)
		return headers_cut;
	if (nq_is_fragment(layout))
		return fragment_length;
	return nq_complete_check(layout, packet->data, end);
}

/* It is all there, so that what was on the wire says nothing about its new length. */
static void forget_wire_length(struct nq_packet *packet)
{
	packet->have &= ~(uint32_t)NQ_HAVE_WIRE_LENGTH;
	packet->wire_length = 0;
}

/*
 * Puts `length` bytes in the place of [from, to), and lets the packet end at `end` of its present
 * bytes. The content moves to the spare place; lengths are written at once, so that what is read
 * next is as it will leave; checksums are summed anew at the end.
 */
static void resize(struct nq_packet *packet, uint32_t from, uint32_t to, uint32_t end,
		   const uint8_t *bytes, uint32_t length)
{
	struct nq_layout layout = *nq_packet_layout(packet);
	uint8_t *target = packet->spare;
	uint32_t total = from + length + (end - to);

	begin_change(packet, &layout);
	if (packet->data != target)
		memcpy(target, packet->data, from);
	memmove(target + from + length, packet->data + to, end - to);
	if (length)
		memcpy(target + from, bytes, length);
	packet->data = target;
	packet->length = total;
	forget_wire_length(packet);
	packet->change.leaving = total;
	packet->change.at = 0;
	packet->change.udp_length = 0;
	packet->layout_known = false;
	if (layout.version == 4)
		nq_put_u16(target + 2, total);
	else if (layout.version == 6)
		nq_put_u16(target + 4, total - 40);
	if (layout.version && layout.protocol == IPPROTO_UDP)
		nq_put_u16(target + layout.transport + 4, total - layout.transport);
}

const char *nq_edit_payload(struct nq_packet *packet, const uint8_t *bytes, size_t length,
			    bool follows)
{
	const struct nq_layout *layout;
	const char *reason;
	uint32_t offset, end;

	if (nq_packet_truncated(packet) || !nq_payload_find(packet, &offset, &end))
		return nq_edit_truncated(packet);
	if (length == end - offset)
		return length ? nq_edit_patch(packet, offset, bytes, (uint32_t)length) : NULL;
	layout = nq_packet_layout(packet);
	reason = check_resize(packet, layout, end);
	if (reason)
		return reason;
	if (layout->version && layout->protocol == IPPROTO_TCP && !follows)
		return tcp_length;
	if (layout->version && layout->protocol == IPPROTO_UDP && packet->gso)
		return datagrams_length;
	if (length > NQ_PACKET_MAX - offset)
		return too_long;
	if (offset + length == 0)
		return empty;
	resize(packet, offset, end, end, bytes, (uint32_t)length);
	return NULL;
}

const char *nq_edit_option(struct nq_packet *packet, uint8_t kind, const uint8_t *value,
			   size_t length)
{
	struct nq_tcp_options options;
	const char *reason;
	uint32_t offset, payload, end, size;

	if (nq_packet_truncated(packet))
		return nq_edit_truncated(packet);
	if (!nq_header_find(packet, NQ_HEADER_TCP, &offset) ||
	    !nq_payload_find(packet, &payload, &end))
		return "it has no TCP header";
	offset += 20;
	size = payload - offset;
	reason = nq_tcp_options_set(&options, packet->data + offset, size, kind, value, length);
	if (reason)
		return reason;
	if (options.length == size)
		return size ? nq_edit_patch(packet, offset, options.bytes, size) : NULL;
	reason = check_resize(packet, nq_packet_layout(packet), end);
	if (reason)
		return reason;
	if (end - size + options.length > NQ_PACKET_MAX)
		return too_long;
	resize(packet, offset, payload, end, options.bytes, options.length);
	packet->data[offset - 8] =
		(uint8_t)((packet->data[offset - 8] & 0x0f) | (5 + options.length / 4) << 4);
	return NULL;
}

/* Bytes of TCP payload; the layout has passed nq_complete_check. */
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
	reason = nq_complete_check(&after, bytes, length);
	if (reason || nq_layout_header_cut(&before, packet->length))
		return reason;
	reason = nq_layout_difference(&before, packet->data, &after, bytes);
	if (reason || before.cut)
		return reason;
	if (before.total && before.total < old_length && before.total >= before.transport)
		old_length = before.total; /* link-layer padding is no payload */
	if (nq_is_fragment(&after)) {
		if (length != old_length)
			return fragment_length;
		if (after.frag_offset &&
		    memcmp(packet->data + before.transport, bytes + after.transport,
			   length - after.transport) != 0)
			return later_fragment;
		return check_first_fragment(&before, packet->data, old_length, 0, bytes, length);
	} else if (before.protocol == IPPROTO_TCP && after.protocol == IPPROTO_TCP &&
		   !nq_complete_check(&before, packet->data, old_length) &&
		   tcp_payload(&before, packet->data, old_length) !=
			   tcp_payload(&after, bytes, length)) {
		return tcp_length;
	} else if (before.protocol == IPPROTO_UDP && packet->gso && length != old_length) {
		return datagrams_length;
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

/* What a first fragment is followed from to its new content, of the same length. */
static void follow_content(struct nq_change *change, const struct nq_packet *packet,
			   const uint8_t *bytes, uint32_t length)
{
	struct nq_layout before, after;

	nq_layout_read(&before, packet->data, packet->length);
	nq_layout_read(&after, bytes, length);
	if (packet->dirty)
		*change = packet->change; /* from before the edits in place */
	else
		nq_change_begin(change, &before, packet->data, packet->length, false, false);
	if (change->at)
		nq_change_add(change, nq_change_sum(change, &before, packet->data, 0, length),
			      nq_change_sum(change, &after, bytes, 0, length));
}

/* New content is of as many datagrams as the old. */
static void follow_datagrams(struct nq_change *change, struct nq_packet *packet)
{
	if (packet->dirty)
		*change = packet->change;
	else
		nq_change_begin(change, nq_packet_layout(packet), packet->data, packet->length,
				false, true);
	change->at = change->udp_length = 0;
}

const char *nq_edit_replace(struct nq_packet *packet, const uint8_t *bytes, size_t length,
			    bool fixup)
{
	struct nq_change change = {0};
	struct nq_layout layout;

	if (length == 0)
		return empty;
	if (length > NQ_PACKET_MAX)
		return too_long;
	if (nq_packet_truncated(packet))
		return nq_edit_truncated(packet);
	if (fixup) {
		const char *reason;

		length = without_padding(packet, bytes, length);
		reason = check_replacement(packet, bytes, (uint32_t)length);
		if (reason)
			return reason;
		nq_layout_read(&layout, bytes, length);
		if (nq_is_fragment(&layout))
			follow_content(&change, packet, bytes, (uint32_t)length);
		else if (packet->gso)
			follow_datagrams(&change, packet);
	}
	nq_tuple_freeze(packet);
	memmove(packet->spare, bytes, length);
	/* Not IP before nor after: nothing to complete. */
	if (fixup && !nq_complete_check(&layout, packet->spare, (uint32_t)length))
		nq_complete(&layout, packet->spare, (uint32_t)length, &change);
	packet->data = packet->spare;
	packet->length = (uint32_t)length;
	forget_wire_length(packet);
	packet->layout_known = false;
	packet->dirty = false;
	packet->keep = 0;
	packet->send |= NQ_SEND_BYTES;
	return NULL;
}

const char *nq_edit_finish(struct nq_packet *packet, bool fixup)
{
	struct nq_layout layout;

	nq_layout_read(&layout, packet->data, packet->change.leaving);
	if (fixup && layout.version) {
		const char *reason =
			nq_complete_check(&layout, packet->data, packet->change.leaving);

		if (reason)
			return reason;
		packet->length = packet->change.leaving;
		packet->layout_known = false;
		nq_complete(&layout, packet->data, packet->length, &packet->change);
		if (packet->keep & NQ_KEEP_IP && layout.version == 4)
			nq_put_u16(packet->data + 10, packet->kept_ip);
		/* Where it was assigned there may be something else by now. */
		if (packet->keep & NQ_KEEP_TRANSPORT && packet->kept_protocol == layout.protocol &&
		    packet->kept_at == layout.transport + nq_checksum_offset(&layout))
			nq_put_u16(packet->data + packet->kept_at, packet->kept_transport);
	}
	packet->dirty = false;
	packet->send |= NQ_SEND_BYTES;
	return NULL;
}
