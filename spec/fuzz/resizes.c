/*
 * Edits that may give the packet another length: its payload, a TCP option, all of it.
 */
#include <stdlib.h>

#include "hostile.h"
#include "packet/edit.h"
#include "packet/option.h"

/* The option list of a TCP header without padding; `broken`: it has no end that makes sense. */
struct options {
	struct {
		uint8_t kind, length; /* of the value */
		const uint8_t *value;
	} list[NQ_TCP_OPTIONS_MAX + 1];
	unsigned count;
	size_t size; /* in a header, without padding */
	bool broken;
};

static void read_options(struct options *options, const uint8_t *bytes, size_t size)
{
	size_t at = 0;

	options->count = 0;
	options->size = 0;
	options->broken = false;
	while (at < size && bytes[at] != 0) {
		if (bytes[at] == 1) {
			at++;
			continue;
		}
		if (size - at < 2 || bytes[at + 1] < 2 || size - at < bytes[at + 1]) {
			options->broken = true;
			return;
		}
		options->list[options->count].kind = bytes[at];
		options->list[options->count].length = (uint8_t)(bytes[at + 1] - 2);
		options->list[options->count++].value = bytes + at + 2;
		options->size += bytes[at + 1];
		at += bytes[at + 1];
	}
}

/* The first of the kind becomes `value`, others of it go; without a first it comes last. */
static void change_options(struct options *options, uint8_t kind, const uint8_t *value,
			   uint8_t length)
{
	unsigned count = 0;
	bool placed = !value;

	options->size = 0;
	for (unsigned i = 0; i <= options->count; i++) {
		if (i < options->count && options->list[i].kind != kind) {
			options->list[count] = options->list[i];
		} else if (!placed) {
			options->list[count].kind = kind;
			options->list[count].length = length;
			options->list[count].value = value;
			placed = true;
		} else {
			continue;
		}
		options->size += 2U + options->list[count++].length;
	}
	options->count = count;
}

static bool same_options(const struct options *one, const struct options *other)
{
	if (one->broken || other->broken || one->count != other->count)
		return false;
	for (unsigned i = 0; i < one->count; i++) {
		if (one->list[i].kind != other->list[i].kind ||
		    one->list[i].length != other->list[i].length ||
		    !same_bytes(one->list[i].value, other->list[i].value, one->list[i].length))
			return false;
	}
	return true;
}

/* The content after a change of length: in the spare place, IP's lengths those it has. */
static void verify_resized(struct run *run, struct edited *edited, bool was_ip, uint8_t *expected,
			   size_t length)
{
	const struct nq_packet *packet = edited->packet;

	edited->resized = true;
	if (was_ip)
		hostile_set_lengths(expected, length);
	CHECK(run, packet->data == packet->spare && packet->dirty);
	CHECK(run, packet->change.leaving == packet->length);
	if (CHECK(run, packet->length == length))
		CHECK(run, same_bytes(packet->data, expected, length));
}

void hostile_edit_payload(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	bool truncated = nq_packet_truncated(packet), follows = !one_in(run, 4), is_tcp;
	bool resizable = hostile_can_resize(old, packet->length, &is_tcp) &&
			 !(packet->gso && hostile_has_udp(old, packet->length));
	size_t offset, end, length;
	uint8_t *bytes, *expected;
	const char *reason;

	hostile_find_payload(old, packet->length, &offset, &end);
	length = end - offset;
	if (!one_in(run, 3))
		length = one_in(run, 50) ? below(run, NQ_PACKET_MAX + 100) : below(run, 80);
	bytes = hostile_take(length);
	fill(run, bytes, length < 80 ? length : 80);
	if (length > 80)
		memset(bytes + 80, 0xa5, length - 80);
	reason = nq_edit_payload(packet, bytes, length, follows);
	run->edits++;
	if (reason) {
		hostile_refused(run, packet, &before, old);
		/* In place only what the kernel insists on can be hit. */
		CHECK(run, truncated || length == end - offset || !resizable ||
				   (is_tcp && !follows) || offset + length > NQ_PACKET_MAX ||
				   offset + length == 0);
	} else if (length == end - offset) {
		CHECK(run, !truncated);
		CHECK(run, packet->data == before.data && packet->length == before.length);
		copy_bytes(old + offset, bytes, length);
		CHECK(run, same_bytes(packet->data, old, packet->length));
	} else {
		CHECK(run, !truncated && resizable && !(is_tcp && !follows));
		expected = hostile_take(offset + length);
		copy_bytes(expected, old, offset);
		copy_bytes(expected + offset, bytes, length);
		verify_resized(run, edited, hostile_is_ip(old, before.length), expected,
			       offset + length);
		free(expected);
	}
	free(bytes);
	hostile_give_bytes(old);
}

/* What must come of a changed option; the payload begins at `payload` of the old bytes. */
static void verify_option(struct run *run, struct edited *edited, const struct options *wanted,
			  const uint8_t *old, size_t at, size_t payload, size_t end)
{
	const struct nq_packet *packet = edited->packet;
	size_t size = (packet->data[at + 12] >> 4) * 4U, length = at + size + (end - payload);
	struct options now;
	uint8_t *expected;

	if (!CHECK(run, size >= 20 && at + size <= packet->length))
		return;
	read_options(&now, packet->data + at + 20, size - 20);
	CHECK(run, same_options(&now, wanted));
	expected = hostile_take(length > packet->length ? length : packet->length);
	copy_bytes(expected, old, at + 20);
	expected[at + 12] = packet->data[at + 12];
	CHECK(run, (old[at + 12] ^ expected[at + 12]) < 0x10 ||
			   ((old[at + 12] ^ expected[at + 12]) & 0x0f) == 0);
	copy_bytes(expected + at + 20, packet->data + at + 20, size - 20);
	if (size == payload - at) {
		copy_bytes(expected + payload, old + payload, packet->length - payload);
		CHECK(run, same_bytes(packet->data, expected, packet->length));
	} else {
		copy_bytes(expected + at + size, old + payload, end - payload);
		verify_resized(run, edited, true, expected, length);
	}
	free(expected);
}

void hostile_edit_option(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint8_t kind = (uint8_t)(2 + below(run, one_in(run, 2) ? 8 : 254));
	uint8_t length = (uint8_t)(one_in(run, 4) ? below(run, 39) : below(run, 11));
	bool removes = one_in(run, 4), has_tcp, is_tcp;
	struct options options = {.count = 0};
	size_t at, payload, end;
	unsigned protocol;
	uint8_t value[38];
	const char *reason;

	fill(run, value, length);
	has_tcp = hostile_find_transport(old, packet->length, &protocol, &at) && protocol == 6;
	hostile_find_payload(old, packet->length, &payload, &end);
	if (has_tcp) {
		read_options(&options, old + at + 20, payload - at - 20);
		change_options(&options, kind, removes ? NULL : value, length);
	}
	reason = nq_edit_option(packet, kind, removes ? NULL : value, length);
	run->edits++;
	if (reason) {
		hostile_refused(run, packet, &before, old);
		CHECK(run, nq_packet_truncated(packet) || !has_tcp || options.broken ||
				   options.size > NQ_TCP_OPTIONS_MAX ||
				   !hostile_can_resize(old, packet->length, &is_tcp) ||
				   end + NQ_TCP_OPTIONS_MAX > NQ_PACKET_MAX);
	} else if (CHECK(run, !nq_packet_truncated(&before) && has_tcp && !options.broken)) {
		verify_option(run, edited, &options, old, at, payload, end);
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

/* The same with some bytes changed, shortened or longer; or nothing like it. */
static uint8_t *make_replacement(struct run *run, const struct nq_packet *packet, uint32_t *length)
{
	uint8_t bytes[PACKET_CASE_MAX];

	*length = packet->length;
	if (*length > sizeof(bytes) - 16)
		*length = sizeof(bytes) - 16;
	copy_bytes(bytes, packet->data, *length);
	if (one_in(run, 3)) {
		*length = below(run, 200);
		fill(run, bytes, *length);
	} else {
		if (one_in(run, 3))
			*length = below(run, *length + 1);
		else if (one_in(run, 2))
			fill(run, bytes + *length, 16), *length += below(run, 17);
		for (uint32_t i = below(run, 4); i > 0 && *length; i--)
			bytes[below(run, *length)] = (uint8_t)below(run, 256);
	}
	return hostile_take_bytes(bytes, *length);
}

static void verify_replaced(struct run *run, const struct edited *edited,
			    const struct nq_packet *before, const uint8_t *old,
			    const uint8_t *bytes, uint32_t length, bool fixup)
{
	const struct nq_packet *packet = edited->packet;
	size_t follows = 0;

	CHECK(run, length > 0 && !nq_packet_truncated(before));
	if (fixup && packet->length != length) {
		/* Only padding that the old packet had too is left out. */
		CHECK(run, length == before->length);
		CHECK(run, packet->length == claimed_length(old, before->length));
		CHECK(run, packet->length == claimed_length(bytes, length));
		length = packet->length;
	}
	CHECK(run, packet->data == before->spare && packet->length == length);
	CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
	if (!fixup) {
		CHECK(run, same_bytes(packet->data, bytes, length));
		return;
	}
	if (packet->gso)
		follows = hostile_verify_cut_later(run, edited->original, edited->length,
						   packet->data, length);
	if (length <= before->length && !edited->resized && !follows)
		follows = hostile_verify_share(run, edited->original, packet->data, length, false);
	hostile_verify_untouched(run, bytes, packet->data, length, follows);
	hostile_verify_preserved(run, old, before->length, packet->data, length);
	if (hostile_is_ip(old, before->length))
		hostile_verify(run, packet->data, length, 0, follows);
}

void hostile_edit_replace(struct run *run, struct edited *edited)
{
	struct nq_packet *packet = edited->packet;
	struct nq_packet before = hostile_remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	bool fixup = !one_in(run, 4);
	uint32_t length;
	uint8_t *bytes = make_replacement(run, packet, &length);
	uint8_t *copy = hostile_take_bytes(bytes, length);
	const char *reason = nq_edit_replace(packet, bytes, length, fixup);

	run->edits++;
	CHECK(run, same_bytes(bytes, copy, length));
	if (before.data != before.spare)
		CHECK(run, same_bytes(before.data, old, before.length));
	if (reason)
		hostile_refused(run, packet, &before, old);
	else
		verify_replaced(run, edited, &before, old, bytes, length, fixup);
	hostile_give_bytes(copy);
	hostile_give_bytes(bytes);
	hostile_give_bytes(old);
}
