/* TCP options, found and set. The content is the options, and what is behind 40 bytes is payload.
 */
#include <stdlib.h>

#include "packet/option.h"
#include "target.h"

/* The first option of a kind, read a second way: recursively. */
static bool find_option(const uint8_t *bytes, size_t left, uint8_t kind, const uint8_t **value,
			uint8_t *length)
{
	if (left == 0 || bytes[0] == 0)
		return false;
	if (bytes[0] == 1)
		return find_option(bytes + 1, left - 1, kind, value, length);
	if (left < 2 || bytes[1] < 2 || bytes[1] > left)
		return false;
	if (bytes[0] != kind)
		return find_option(bytes + bytes[1], left - bytes[1], kind, value, length);
	*value = bytes + 2;
	*length = (uint8_t)(bytes[1] - 2);
	return true;
}

static void check_options(struct run *run, const struct nq_packet *packet, uint32_t at)
{
	size_t size = (packet->data[at + 12] >> 4) * 4U - 20;

	/* Kinds of every sort, and those that may be there. */
	for (unsigned i = 0; i < 12 + size; i++) {
		unsigned kind = i < 12 ? 2 + i : packet->data[at + 20 + i - 12];
		const uint8_t *own = NULL;
		uint8_t own_length = 0, length = 0;
		uint32_t value = 0;
		bool has;

		if (kind < 2)
			continue;
		has = find_option(packet->data + at + 20, size, (uint8_t)kind, &own, &own_length);

		if (CHECK(run,
			  nq_tcp_option_find(packet, at, (uint8_t)kind, &value, &length) == has) &&
		    has)
			CHECK(run, packet->data + value == own && length == own_length);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("option", input, size);
	size_t options = target.length < 40 ? target.length / 4 * 4 : 40;
	size_t length = 40 + target.length;
	uint8_t bytes[40] = {0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6};
	uint8_t *block = malloc(length);
	struct nq_packet packet;
	uint8_t *original;
	struct edited edited;

	bytes[2] = (uint8_t)(length >> 8);
	bytes[3] = (uint8_t)length;
	bytes[32] = (uint8_t)((20 + options) << 2);
	memcpy(block, bytes, 40);
	copy_bytes(block + 40, target.bytes, target.length);
	packet = target_packet(&target);
	packet.data = block;
	packet.length = (uint32_t)length;
	packet.have &= ~(uint32_t)NQ_HAVE_WIRE_LENGTH;
	original = hostile_take_bytes(block, length);
	edited = (struct edited){.packet = &packet, .original = original, .length = packet.length};
	if (length <= PACKET_CASE_MAX) {
		check_options(target.run, &packet, 20);
		for (uint32_t i = below(target.run, 8); i > 0; i--) {
			hostile_edit_option(target.run, &edited);
			check_options(target.run, &packet, 20);
		}
		if (packet.dirty)
			hostile_edit_finish(target.run, &edited);
	}
	hostile_give_bytes(original);
	free(block);
	target_end(&target);
	return 0;
}
