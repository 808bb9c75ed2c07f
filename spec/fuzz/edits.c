/*
 * Edits in place and what leaves after them. A refused one changes nothing; what one changed is
 * judged by the sums of reader.c.
 */
#include "hostile.h"
#include "packet/edit.h"
#include "packet/header.h"
#include "packet/tuple.h"

struct nq_packet hostile_remember(struct nq_packet *packet)
{
	(void)nq_packet_layout(packet);
	nq_tuple_freeze(packet);
	return *packet;
}

void hostile_refused(struct run *run, const struct nq_packet *packet,
		     const struct nq_packet *before, const uint8_t *old)
{
	run->refused++;
	CHECK(run, same_bytes(packet->data, old, before->length));
	CHECK(run, same_bytes(packet, before, sizeof(*before)));
}

/* A patch of the byte that says which transport follows: in IPv4 it may change, and change back. */
static bool choose_protocol(struct run *run, const struct nq_packet *packet, uint32_t *offset,
			    uint8_t *byte)
{
	static const uint8_t protocols[] = {1, 6, 17, 51, 58, 132};

	if (packet->length < 20 || packet->data[0] >> 4 != 4 || !one_in(run, 8))
		return false;
	*offset = 9;
	*byte = protocols[below(run, sizeof(protocols))];
	return true;
}

static void patch_packet(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	uint8_t bytes[64];
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint32_t offset = below(run, packet->length + 1);
	uint32_t length = below(run, sizeof(bytes) + 1);
	const char *reason;

	if (one_in(run, 2))
		offset %= 44; /* more often where it hurts */
	if (offset > packet->length)
		offset = packet->length;
	if (length > packet->length - offset)
		length = packet->length - offset;
	if (one_in(run, 2) && length > 2)
		length = 1 + below(run, 2);
	copy_bytes(bytes, old + offset, length);
	if (!one_in(run, 4))
		fill(run, bytes, length);
	if (choose_protocol(run, packet, &offset, bytes))
		length = 1;
	reason = nq_edit_patch(packet, offset, bytes, length);
	run->edits++;
	if (reason) {
		hostile_refused(run, packet, &before, old);
	} else {
		CHECK(run, !nq_packet_truncated(&before));
		CHECK(run, packet->dirty && packet->change.leaving <= packet->length);
		CHECK(run, packet->data == before.data && packet->length == before.length);
		copy_bytes(old + offset, bytes, length);
		CHECK(run, same_bytes(packet->data, old, packet->length));
	}
	hostile_give_bytes(old);
}

/* A checksum is assigned where the header has one. */
static void set_checksum(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	bool is_ip = one_in(run, 3);
	uint16_t checksum = one_in(run, 4) ? 0 : (uint16_t)below(run, 0x10000);
	unsigned version = packet->length ? packet->data[0] >> 4 : 0;
	uint8_t *old;
	unsigned protocol;
	size_t at = 10;

	if (is_ip) {
		if (version != 4 || packet->length < 20)
			return;
	} else {
		size_t field;

		if (!hostile_find_transport(packet->data, packet->length, &protocol, &at))
			return;
		field = hostile_checksum_at(version, protocol);
		if (!field)
			return;
		at += field;
	}
	old = hostile_take_bytes(packet->data, packet->length);
	run->edits++;
	if (nq_edit_checksum(packet, (uint32_t)at, checksum,
			     is_ip ? NQ_KEEP_IP : NQ_KEEP_TRANSPORT)) {
		hostile_refused(run, packet, &before, old);
	} else {
		CHECK(run, packet->dirty && packet->data == before.data);
		old[at] = (uint8_t)(checksum >> 8);
		old[at + 1] = (uint8_t)checksum;
		CHECK(run, packet->length == before.length);
		CHECK(run, same_bytes(packet->data, old, packet->length));
		if (is_ip) {
			edited->keeps_ip = true;
			edited->kept_ip = checksum;
		} else {
			edited->keeps_transport = true;
			edited->kept_transport = checksum;
			edited->kept_protocol = protocol;
			edited->kept_at = at;
		}
	}
	hostile_give_bytes(old);
}

/* What left, before assigned checksums were put into it. */
static void verify_left(struct run *run, const struct edited *edited,
			const struct nq_packet *packet, const uint8_t *old)
{
	const uint8_t *original = edited->original;
	size_t follows = 0, udp = 0;

	if (packet->gso)
		follows = hostile_verify_cut_later(run, original, edited->length, packet->data,
						   packet->length);
	if (!edited->resized && !follows) {
		follows = hostile_verify_share(run, original, packet->data, packet->length,
					       packet->csum_complete);
	}
	if (!edited->resized) {
		if (hostile_same_transport(original, packet->data, packet->length))
			udp = hostile_claimed_udp(original, packet->length);
	}
	hostile_verify(run, packet->data, packet->length, udp, follows);
	hostile_verify_untouched(run, old, packet->data, packet->length, follows);
}

/* The packet that left beside its twin, in which no checksum was assigned. */
static void verify_kept(struct run *run, const struct edited *edited, const uint8_t *twin)
{
	const struct nq_packet *packet = edited->packet;
	uint8_t *expected = hostile_take_bytes(twin, packet->length);
	unsigned version = expected[0] >> 4;
	unsigned protocol;
	size_t at;

	if (edited->keeps_ip && version == 4) {
		expected[10] = (uint8_t)(edited->kept_ip >> 8);
		expected[11] = (uint8_t)edited->kept_ip;
	}
	/* Of another transport it says nothing. */
	(void)hostile_find_transport(twin, packet->length, &protocol, &at);
	if (edited->keeps_transport && at && protocol == edited->kept_protocol &&
	    at + hostile_checksum_at(version, protocol) == edited->kept_at) {
		at = edited->kept_at;
		expected[at] = (uint8_t)(edited->kept_transport >> 8);
		expected[at + 1] = (uint8_t)edited->kept_transport;
	}
	CHECK(run, same_bytes(packet->data, expected, packet->length));
	hostile_give_bytes(expected);
}

void hostile_edit_finish(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	struct nq_packet twin = before;
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint8_t *bytes = hostile_take_bytes(packet->data, packet->length);
	bool fixup = !one_in(run, 4);
	const char *reason = nq_edit_finish(packet, fixup);

	twin.data = bytes;
	twin.keep = 0;
	CHECK(run, nq_edit_finish(&twin, fixup) == reason);
	run->edits++;
	if (reason) {
		CHECK(run, fixup);
		hostile_refused(run, packet, &before, old);
	} else {
		CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
		if (fixup && hostile_is_ip(packet->data, packet->length)) {
			CHECK(run, packet->length == before.change.leaving);
			verify_left(run, edited, &twin, old);
			verify_kept(run, edited, twin.data);
		} else {
			CHECK(run, packet->length == before.length);
			CHECK(run, same_bytes(packet->data, old, before.length));
		}
	}
	hostile_give_bytes(bytes);
	hostile_give_bytes(old);
}

void hostile_edit(struct run *run, struct nq_packet *packet)
{
	uint8_t *original = hostile_take_bytes(packet->data, packet->length);
	struct edited edited = {.packet = packet, .original = original, .length = packet->length};

	for (uint32_t i = below(run, 6); i > 0; i--) {
		switch (below(run, 6)) {
		case 0:
			set_checksum(run, &edited);
			break;
		case 1:
			hostile_edit_payload(run, &edited);
			break;
		case 2:
			hostile_edit_option(run, &edited);
			break;
		default:
			patch_packet(run, &edited);
		}
		if (!edited.resized)
			hostile_verify_preserved(run, original, edited.length, packet->data,
						 packet->length);
	}
	if (one_in(run, 2))
		hostile_edit_replace(run, &edited);
	else if (packet->dirty)
		hostile_edit_finish(run, &edited);
	hostile_give_bytes(original);
}
