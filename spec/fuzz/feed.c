/*
 * One message through nq_message_read, beside an own reader of messages.
 */
#include <linux/netlink.h>

#include "hostile.h"

struct expected {
	enum nq_message_kind kind;
	bool has_header, has_payload, has_wire;
	uint32_t id, wire;
	size_t payload, payload_length; /* offset in the message */
};

static struct expected expect_message(const uint8_t *bytes, size_t length)
{
	struct expected expected = {.kind = NQ_MESSAGE_IGNORED};
	int64_t claimed, end, at = HEADER;

	if (length < 16)
		return expected;
	claimed = host32(bytes);
	if (claimed < 16)
		return expected;
	end = claimed < (int64_t)length ? claimed : (int64_t)length;
	if (host16(bytes + 4) == NLMSG_ERROR) {
		int32_t error = end >= 36 ? (int32_t)host32(bytes + 16) : 1;

		if (error <= 0 && error >= -4095)
			expected.kind = NQ_MESSAGE_ANSWER;
		return expected;
	}
	if (host16(bytes + 4) != PACKET_TYPE || end < HEADER)
		return expected;
	while (end - at >= 4) {
		int64_t size = host16(bytes + at);
		const uint8_t *value = bytes + at + 4;

		if (size < 4 || size > end - at)
			break;
		switch (host16(bytes + at + 2) & 0x3fff) {
		case NFQA_PACKET_HDR:
			if (size >= 11) {
				expected.has_header = true;
				expected.id = get32(value);
			}
			break;
		case NFQA_PAYLOAD:
			expected.has_payload = true;
			expected.payload = (size_t)at + 4;
			expected.payload_length = (size_t)size - 4;
			break;
		case NFQA_CAP_LEN:
			if (size >= 8) {
				expected.has_wire = true;
				expected.wire = get32(value);
			}
			break;
		}
		at += (size + 3) / 4 * 4;
	}
	if (expected.has_header)
		expected.kind = claimed > (int64_t)length || end - at >= 4 ? NQ_MESSAGE_BROKEN
									   : NQ_MESSAGE_PACKET;
	return expected;
}

static void touch(struct run *run, const uint8_t *block, size_t size, const void *start,
		  size_t length)
{
	const uint8_t *bytes = start;

	if (!start) {
		CHECK(run, length == 0);
		return;
	}
	if (!CHECK(run,
		   bytes >= block && length <= size && (size_t)(bytes - block) <= size - length))
		return;
	for (size_t i = 0; i < length; i++)
		run->sink += bytes[i];
}

static void use_packet(struct run *run, struct nq_packet *packet, const struct expected *expected,
		       uint8_t *block, size_t length)
{
	bool truncated = !expected->has_payload ||
			 (expected->has_wire && expected->wire > expected->payload_length);

	CHECK(run, packet->spare == run->spare);
	CHECK(run, packet->queue == get16(block + 18) && packet->family == block[16]);
	CHECK(run, packet->id == expected->id);
	CHECK(run, !!(packet->have & NQ_HAVE_PAYLOAD) == expected->has_payload);
	CHECK(run, packet->length == expected->payload_length);
	CHECK(run, packet->data == (expected->has_payload ? block + expected->payload : NULL));
	CHECK(run, !!(packet->have & NQ_HAVE_WIRE_LENGTH) == expected->has_wire);
	CHECK(run, packet->wire_length == expected->wire);
	CHECK(run, nq_packet_truncated(packet) == truncated);
	CHECK(run, packet->hwaddr_length <= sizeof(packet->hwaddr));
	CHECK(run, packet->verdict == NQ_UNDECIDED && packet->send == 0 && !packet->dirty);
	touch(run, block, length, packet->data, packet->length);
	touch(run, block, length, packet->l2header, packet->l2header_length);
	touch(run, block, length, packet->secctx, packet->secctx_length);
	touch(run, block, length, packet->ct, packet->ct_length);
	run->sink += (unsigned)(packet->mark + packet->priority + packet->iif + packet->oif +
				packet->physiif + packet->physoif + packet->uid + packet->gid +
				packet->cgroup + packet->seconds + packet->microseconds +
				packet->vlan_proto + packet->vlan_tci + packet->ct_info +
				packet->hook + packet->ethertype + packet->hwaddr[7]);
	run->sink += nq_hook_name(packet->family, packet->hook) != NULL;
	run->sink += nq_family_name(packet->family) != NULL;
}

enum nq_message_kind hostile_feed(struct run *run, const uint8_t *bytes, size_t length,
				  struct nq_packet *fields)
{
	struct expected expected = expect_message(bytes, length);
	uint8_t *block = hostile_take_bytes(bytes, length);
	struct nq_answer answer = {0};
	struct nq_packet packet;
	enum nq_message_kind kind;
	bool as_expected;

	run->bytes = bytes;
	run->length = length;
	/* Left from the packet before, in the loop. */
	memset(&packet, 0xa5, sizeof(packet));
	packet.spare = run->spare;
	kind = nq_message_read(&packet, &answer, block, length);
	run->messages++;
	run->kinds[kind]++;
	as_expected = CHECK(run, kind == expected.kind);
	CHECK(run, same_bytes(block, bytes, length));
	if (as_expected && kind == NQ_MESSAGE_ANSWER) {
		CHECK(run, answer.error == -(int32_t)host32(bytes + 16));
		CHECK(run, answer.error >= 0 && answer.error <= 4095);
		CHECK(run, answer.seq == host32(bytes + 28));
	}
	if (as_expected && (kind == NQ_MESSAGE_PACKET || kind == NQ_MESSAGE_BROKEN))
		use_packet(run, &packet, &expected, block, length);
	if (fields) {
		*fields = packet;
	} else if (as_expected && kind == NQ_MESSAGE_PACKET) {
		if (packet.data)
			hostile_check_layout(run, packet.data, packet.length);
		hostile_edit(run, &packet);
	}
	hostile_give_bytes(block);
	return kind;
}
