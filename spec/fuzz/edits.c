/*
 * Edits, as the verbs make them. A refused one changes nothing; what one changed is judged by the
 * sums of reader.c.
 */
#include "hostile.h"
#include "packet/edit.h"
#include "packet/header.h"
#include "packet/tuple.h"

/* What is only remembered is no change. */
static struct nq_packet remember(struct nq_packet *packet)
{
	(void)nq_packet_layout(packet);
	nq_tuple_freeze(packet);
	return *packet;
}

static void patch_packet(struct run *run, struct nq_packet *packet)
{
	struct nq_packet before = remember(packet);
	uint8_t bytes[64];
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint32_t offset = below(run, packet->length + 1);
	uint32_t length = below(run, sizeof(bytes) + 1);
	const char *reason;

	if (one_in(run, 2))
		offset %= 44; /* more often where it hurts */
	if (length > packet->length - offset)
		length = packet->length - offset;
	if (one_in(run, 2) && length > 2)
		length = 1 + below(run, 2);
	copy_bytes(bytes, old + offset, length);
	if (!one_in(run, 4))
		fill(run, bytes, length);
	reason = nq_edit_patch(packet, offset, bytes, length);
	run->edits++;
	if (reason) {
		run->refused++;
		CHECK(run, same_bytes(packet->data, old, before.length));
		CHECK(run, same_bytes(packet, &before, sizeof(before)));
	} else {
		CHECK(run, !nq_packet_truncated(&before));
		CHECK(run, packet->dirty && packet->change.leaving <= packet->length);
		CHECK(run, packet->data == before.data && packet->length == before.length);
		copy_bytes(old + offset, bytes, length);
		CHECK(run, same_bytes(packet->data, old, packet->length));
	}
	hostile_give_bytes(old);
}

static void finish_packet(struct run *run, struct nq_packet *packet, const uint8_t *original)
{
	struct nq_packet before = remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	bool fixup = !one_in(run, 4);
	const char *reason = nq_edit_finish(packet, fixup);
	size_t follows;

	run->edits++;
	if (reason) {
		run->refused++;
		CHECK(run, fixup);
		CHECK(run, same_bytes(packet->data, old, before.length));
		CHECK(run, same_bytes(packet, &before, sizeof(before)));
	} else {
		CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
		if (fixup && hostile_is_ip(packet->data, packet->length)) {
			CHECK(run, packet->length == before.change.leaving);
			follows = hostile_verify_share(run, original, packet->data, packet->length,
						       packet->csum_complete);
			hostile_verify(run, packet->data, packet->length,
				       hostile_claimed_udp(original, packet->length), follows);
			hostile_verify_untouched(run, old, packet->data, packet->length, follows);
		} else {
			CHECK(run, packet->length == before.length);
			CHECK(run, same_bytes(packet->data, old, before.length));
		}
	}
	hostile_give_bytes(old);
}

/* What the network header says of the packet's length; 0 when there is none. */
static uint32_t claimed_length(const uint8_t *bytes, uint32_t length)
{
	if (length >= 20 && bytes[0] >> 4 == 4)
		return get16(bytes + 2);
	return length >= 40 && bytes[0] >> 4 == 6 ? get16(bytes + 4) + 40u : 0;
}

static void replace_packet(struct run *run, struct nq_packet *packet, const uint8_t *original)
{
	struct nq_packet before = remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint8_t bytes[PACKET_CASE_MAX];
	uint32_t length = packet->length;
	bool fixup = !one_in(run, 4);
	size_t follows = 0;
	uint8_t *block;
	const char *reason;

	/* The same with some bytes changed, shortened or longer; or nothing like it. */
	if (length > sizeof(bytes) - 16)
		length = sizeof(bytes) - 16;
	copy_bytes(bytes, packet->data, length);
	if (one_in(run, 3)) {
		length = below(run, 200);
		fill(run, bytes, length);
	} else {
		if (one_in(run, 3))
			length = below(run, length + 1);
		else if (one_in(run, 2))
			fill(run, bytes + length, 16), length += below(run, 17);
		for (uint32_t i = below(run, 4); i > 0 && length; i--)
			bytes[below(run, length)] = (uint8_t)draw(run);
	}
	block = hostile_take_bytes(bytes, length);
	reason = nq_edit_replace(packet, block, length, fixup);
	run->edits++;
	CHECK(run, same_bytes(block, bytes, length));
	CHECK(run, same_bytes(before.data, old, before.length));
	if (reason) {
		run->refused++;
		CHECK(run, same_bytes(packet, &before, sizeof(before)));
	} else {
		CHECK(run, length > 0 && !nq_packet_truncated(&before));
		if (fixup && packet->length != length) {
			/* Only padding that the old packet had too is left out. */
			CHECK(run, length == before.length);
			CHECK(run, packet->length == claimed_length(old, before.length));
			CHECK(run, packet->length == claimed_length(bytes, length));
			length = packet->length;
		}
		CHECK(run, packet->data == before.spare && packet->length == length);
		CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
		if (!fixup) {
			CHECK(run, same_bytes(packet->data, bytes, length));
		} else {
			if (length <= before.length)
				follows = hostile_verify_share(run, original, packet->data, length,
							       false);
			hostile_verify_untouched(run, bytes, packet->data, length, follows);
			hostile_verify_preserved(run, original, before.length, packet->data,
						 length);
			if (hostile_is_ip(old, before.length))
				hostile_verify(run, packet->data, length, 0, follows);
		}
	}
	hostile_give_bytes(block);
	hostile_give_bytes(old);
}

void hostile_edit(struct run *run, struct nq_packet *packet)
{
	uint8_t *original = hostile_take_bytes(packet->data, packet->length);
	uint32_t length = packet->length;

	for (uint32_t i = below(run, 4); i > 0; i--)
		patch_packet(run, packet);
	hostile_verify_preserved(run, original, length, packet->data, packet->length);
	if (one_in(run, 2))
		replace_packet(run, packet, original);
	else if (packet->dirty)
		finish_packet(run, packet, original);
	hostile_give_bytes(original);
}
