#include "table/segment.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/checksum.h"
#include "packet/complete.h"
#include "packet/edit.h"
#include "packet/header.h"
#include "packet/option.h"
#include "packet/tuple.h"

/* Offsets in a TCP header. */
enum { SEQ = 4, ACK = 8, FLAGS = 13, WINDOW = 14, URGENT = 18, OPTIONS = 20 };

/* Kinds of options (IANA). */
enum { OPTION_SCALE = 3, OPTION_MD5 = 19, OPTION_AO = 29, OPTION_MULTIPATH = 30 };

static void find_ends(struct nq_packet *packet, struct nq_flow_tuple tuple, struct nq_tcp *tcp)
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	uint32_t fixed = layout->version == 4 ? 20 : 40;
	uint32_t width = layout->version == 4 ? 4 : 16;

	/* The IP header's own may have been edited; those behind it cannot be. */
	if (layout->origin >= fixed)
		memcpy(tuple.src, packet->data + layout->origin, width);
	if (layout->target >= fixed)
		memcpy(tuple.dst, packet->data + layout->target, width);
	tcp->direction = nq_ends_of(&tcp->ends, &tuple);
}

static void read_options(const struct nq_packet *packet, struct nq_tcp *tcp)
{
	const uint8_t *bytes = packet->data;
	uint32_t at = tcp->transport;
	uint32_t value;
	uint8_t length;

	if (tcp->payload - at == OPTIONS)
		return;
	if (tcp->flags & NQ_TCP_SYN) {
		if (nq_tcp_option_find(packet, at, NQ_OPTION_MSS, &value, &length) && length == 2)
			tcp->mss = nq_get_u16(bytes + value);
		if (nq_tcp_option_find(packet, at, OPTION_SCALE, &value, &length) && length == 1) {
			tcp->has_scale = true;
			tcp->scale = bytes[value] > 14 ? 14 : bytes[value];
		}
	}
	tcp->is_signed = nq_tcp_option_find(packet, at, OPTION_MD5, &value, &length) ||
			 nq_tcp_option_find(packet, at, OPTION_AO, &value, &length);
	tcp->is_multipath = nq_tcp_option_find(packet, at, OPTION_MULTIPATH, &value, &length);
	/* What is no list of blocks says nothing to its receiver, either. */
	if (nq_tcp_option_find(packet, at, NQ_OPTION_SACK, &value, &length) && length % 8 == 0) {
		tcp->sack_at = value - 2;
		for (uint8_t i = 0; i < length; i += 8) {
			struct nq_sack *sack = &tcp->sacks[tcp->sack_count++];

			sack->left = nq_get_u32(bytes + value + i);
			sack->right = nq_get_u32(bytes + value + i + 4);
		}
	}
}

const char *nq_tcp_read(struct nq_packet *packet, struct nq_tcp *tcp)
{
	const struct nq_flow_tuple *tuple;
	const struct nq_layout *layout;
	const uint8_t *header;
	uint32_t end;

	memset(tcp, 0, sizeof(*tcp));
	if (nq_packet_truncated(packet))
		return nq_edit_truncated(packet);
	layout = nq_packet_layout(packet);
	if (nq_is_fragment(layout))
		return "it is a fragment: the rest of its segment is elsewhere";
	if (!nq_header_find(packet, NQ_HEADER_TCP, &tcp->transport) ||
	    !nq_payload_find(packet, &tcp->payload, &end) || !nq_tuple_find(packet, &tuple))
		return "it has no TCP header";
	if (packet->rewritten)
		return "it has been rewritten already";
	header = packet->data + tcp->transport;
	tcp->version = layout->version;
	tcp->length = end - tcp->payload;
	tcp->seq = nq_get_u32(header + SEQ);
	tcp->ack = nq_get_u32(header + ACK);
	tcp->flags = header[FLAGS];
	tcp->window = nq_get_u16(header + WINDOW);
	tcp->urgent = nq_get_u16(header + URGENT);
	find_ends(packet, *tuple, tcp);
	if (memcmp(tcp->ends.addresses[0], tcp->ends.addresses[1], 16) == 0 &&
	    memcmp(tcp->ends.ports[0], tcp->ends.ports[1], 2) == 0)
		return "both its ends are the same";
	read_options(packet, tcp);
	return NULL;
}

bool nq_tcp_damaged(const struct nq_packet *packet, const struct nq_tcp *tcp)
{
	uint32_t size = tcp->payload - tcp->transport + tcp->length;
	uint64_t sum;

	if (!packet->csum_complete || packet->dirty)
		return false;
	sum = nq_pseudo_header_sum(&packet->layout, packet->data, size);
	return nq_checksum_fold(nq_checksum_add(sum, packet->data + tcp->transport, size)) != 0;
}

void nq_changes_begin(struct nq_changes *changes, const struct nq_packet *packet,
		      const struct nq_tcp *tcp)
{
	*changes = (struct nq_changes){
		.seq = tcp->seq,
		.ack = tcp->ack,
		.flags = tcp->flags,
		.urgent = tcp->urgent,
		.bytes = packet->data + tcp->payload,
		.length = tcp->length,
	};
}

static const char *patch_u32(struct nq_packet *packet, uint32_t offset, uint32_t value)
{
	uint8_t bytes[4];

	nq_put_u32(bytes, value);
	return nq_edit_patch(packet, offset, bytes, sizeof(bytes));
}

/* The option keeps its place; where blocks have gone there is nothing (no-operation). */
static const char *patch_sacks(const struct nq_changes *changes, struct nq_packet *packet,
			       const struct nq_tcp *tcp)
{
	uint8_t bytes[2 + 8 * NQ_SACKS_MAX];
	uint32_t size = 2 + 8U * tcp->sack_count;
	uint32_t at = 0;

	memset(bytes, NQ_OPTION_NOP, sizeof(bytes));
	if (changes->sack_count) {
		bytes[0] = NQ_OPTION_SACK;
		bytes[1] = (uint8_t)(2 + 8 * changes->sack_count);
		at = 2;
	}
	for (unsigned i = 0; i < changes->sack_count; i++, at += 8) {
		nq_put_u32(bytes + at, changes->sacks[i].left);
		nq_put_u32(bytes + at + 4, changes->sacks[i].right);
	}
	if (memcmp(packet->data + tcp->sack_at, bytes, size) == 0)
		return NULL;
	return nq_edit_patch(packet, tcp->sack_at, bytes, size);
}

const char *nq_changes_apply(const struct nq_changes *changes, struct nq_packet *packet,
			     const struct nq_tcp *tcp, uint8_t *buffer)
{
	const uint8_t *payload = packet->data + tcp->payload;
	const uint8_t *bytes = changes->bytes;
	const char *reason = NULL;
	uint8_t urgent[2];

	if (changes->length != tcp->length ||
	    (tcp->length && bytes != payload && memcmp(bytes, payload, tcp->length) != 0)) {
		if (bytes >= payload && bytes <= payload + tcp->length) {
			/* What replaces the payload must not lie in it. */
			memcpy(buffer, bytes, changes->length);
			bytes = buffer;
		}
		reason = nq_edit_payload(packet, bytes, changes->length, true);
	}
	if (!reason && changes->seq != tcp->seq)
		reason = patch_u32(packet, tcp->transport + SEQ, changes->seq);
	if (!reason && changes->ack != tcp->ack)
		reason = patch_u32(packet, tcp->transport + ACK, changes->ack);
	if (!reason && changes->flags != tcp->flags)
		reason = nq_edit_patch(packet, tcp->transport + FLAGS, &changes->flags, 1);
	if (!reason && changes->urgent != tcp->urgent) {
		nq_put_u16(urgent, changes->urgent);
		reason = nq_edit_patch(packet, tcp->transport + URGENT, urgent, 2);
	}
	if (!reason && changes->has_sacks)
		reason = patch_sacks(changes, packet, tcp);
	return reason;
}
