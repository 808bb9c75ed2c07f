/*
 * Packets: random chains of headers, and the sizes and sums at the edge.
 */
#include <stdlib.h>

#include "hostile.h"
#include "packet/edit.h"

enum { PACKETS = 1000000 };

static size_t make_extension(struct run *run, uint8_t *at, uint8_t *protocol)
{
	static const uint8_t extensions[] = {0, 43, 44, 51, 60, 135};
	size_t size = 8;

	fill(run, at, 48);
	*protocol = extensions[below(run, sizeof(extensions))];
	switch (*protocol) {
	case 44:
		if (!one_in(run, 8))
			at[2] = 0, at[3] &= 7;
		if (!one_in(run, 4))
			at[3] = 0;
		break;
	case 51:
		at[1] = (uint8_t)below(run, 8);
		size = 8 + 4U * at[1];
		break;
	case 43:
		at[2] = (uint8_t)below(run, 6);
		at[3] = (uint8_t)below(run, 3);
		/* fall through */
	default:
		at[1] = (uint8_t)below(run, 5);
		size = 8 + 8U * at[1];
		if (one_in(run, 4))
			at[2] = 0xc9, at[3] = 16; /* home address */
	}
	if (one_in(run, 50))
		at[1] = (uint8_t)draw(run);
	return size;
}

static size_t make_packet(struct run *run, uint8_t *bytes)
{
	static const uint8_t transports[] = {6, 17, 1, 58, 59, 132};
	uint8_t protocol = transports[below(run, sizeof(transports))];
	size_t at, length;

	if (one_in(run, 20))
		protocol = (uint8_t)draw(run);
	if (one_in(run, 2)) {
		at = one_in(run, 4) ? 4U * below(run, 16) : 20;
		fill(run, bytes, 60);
		bytes[0] = (uint8_t)(0x40 | at / 4);
		if (one_in(run, 4)) { /* a source route */
			bytes[20] = one_in(run, 2) ? 131 : 137;
			bytes[21] = (uint8_t)(3 + 4 * below(run, 5));
			bytes[22] = (uint8_t)(4 * below(run, 5));
		}
		if (!one_in(run, 8))
			bytes[6] = one_in(run, 2) ? 0x40 : 0, bytes[7] = 0;
		bytes[9] = protocol;
	} else {
		uint8_t *next = bytes + 6;

		fill(run, bytes, 40);
		bytes[0] = 0x60;
		at = 40;
		for (uint32_t n = one_in(run, 2) ? 0 : below(run, 6); n > 0; n--) {
			uint8_t *extension = bytes + at;

			at += make_extension(run, extension, next);
			next = extension;
		}
		*next = protocol;
	}
	length = at + below(run, one_in(run, 4) ? 300 : 60);
	fill(run, bytes + at, length - at);
	if (length > at + 12 && !one_in(run, 4))
		bytes[at + 12] = (uint8_t)(0x50 + (below(run, 3) << 4)); /* TCP's data offset */
	if (one_in(run, 10))
		length = below(run, (uint32_t)length + 1);
	if (length > 6 && !one_in(run, 4)) {
		/* The true length, or one that leaves padding behind. */
		size_t total = one_in(run, 4) ? length - below(run, 7) : length;

		if (bytes[0] >> 4 == 6)
			total = total < 40 ? 0 : total - 40;
		at = bytes[0] >> 4 == 4 ? 2 : 4;
		bytes[at] = (uint8_t)(total >> 8);
		bytes[at + 1] = (uint8_t)total;
	}
	return length;
}

void hostile_check_complete(struct run *run, const uint8_t *bytes, size_t length)
{
	uint8_t *block = hostile_take_bytes(bytes, length);
	uint8_t *once;
	const char *reason = nq_edit_complete(block, (uint32_t)length);

	if (reason) {
		CHECK(run, same_bytes(block, bytes, length));
	} else {
		hostile_verify(run, block, length, 0, 0);
		hostile_verify_untouched(run, bytes, block, length, 0);
		once = hostile_take_bytes(block, length);
		CHECK(run, nq_edit_complete(once, (uint32_t)length) == NULL);
		CHECK(run, same_bytes(block, once, length));
		hostile_give_bytes(once);
	}
	hostile_give_bytes(block);
}

static void test_random_packets(struct run *run, uint64_t count)
{
	uint8_t bytes[PACKET_CASE_MAX];

	begin(run, "random packets");
	run->bytes = bytes;
	for (uint64_t i = 0; i < count; i++) {
		struct nq_packet packet = {.have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD};
		uint8_t *block;

		run->length = make_packet(run, bytes);
		block = hostile_take_bytes(bytes, run->length);
		run->packets++;
		hostile_check_layout(run, block, run->length);
		hostile_check_complete(run, block, run->length);
		packet.data = block;
		packet.length = (uint32_t)run->length;
		packet.spare = run->spare;
		packet.csum_complete = one_in(run, 2);
		packet.gso = !packet.csum_complete && one_in(run, 4);
		if (one_in(run, 16)) {
			packet.have |= NQ_HAVE_WIRE_LENGTH;
			packet.wire_length = packet.length - 1 + below(run, 3);
		}
		hostile_answer(run, &packet);
		hostile_reject(run, &packet);
		hostile_send(run, packet.data, packet.length);
		hostile_edit(run, &packet);
		hostile_give_bytes(block);
	}
	run->bytes = NULL;
	run->length = 0;
}

/* A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768): 0 would mean none. */
static void test_udp_zero(struct run *run)
{
	uint8_t *bytes = hostile_take_bytes(hostile_udp, sizeof(hostile_udp));

	begin(run, "UDP checksum of 0");
	run->bytes = hostile_udp;
	run->length = sizeof(hostile_udp);
	memset(bytes + 28, 0, 2);
	CHECK(run, !nq_edit_complete(bytes, sizeof(hostile_udp)));
	memcpy(bytes + 28, bytes + 26, 2); /* the payload makes up the sum */
	CHECK(run, !nq_edit_complete(bytes, sizeof(hostile_udp)));
	CHECK(run, get16(bytes + 26) == 0xffff);
	hostile_verify(run, bytes, sizeof(hostile_udp), 0, 0);
	hostile_give_bytes(bytes);
}

/* The sizes at the edge of what a verdict can carry. */
static void test_sizes(struct run *run)
{
	uint8_t *bytes = hostile_take(70000);
	uint8_t *data = hostile_take_bytes(hostile_udp, sizeof(hostile_udp));
	static const struct {
		size_t length;
		bool good;
	} cases[] = {{0, false},     {1, false},     {19, false},    {27, false},
		     {28, true},     {65530, true},  {65531, true},  {65532, false},
		     {65535, false}, {65536, false}, {65564, false}, {70000, false}};

	begin(run, "sizes of new content");
	run->bytes = hostile_udp;
	run->length = sizeof(hostile_udp);
	memset(bytes, 0xff, 70000);
	memcpy(bytes, hostile_udp, sizeof(hostile_udp));
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct nq_packet packet = {.have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD,
					   .data = data,
					   .length = sizeof(hostile_udp),
					   .spare = run->spare};
		bool good = !nq_edit_replace(&packet, bytes, cases[i].length, true);

		CHECK(run, good == cases[i].good);
		if (good)
			hostile_verify(run, packet.data, packet.length, 0, 0);
		packet.data = data;
		packet.length = sizeof(hostile_udp);
		good = !nq_edit_replace(&packet, bytes, cases[i].length, false);
		CHECK(run, good == (cases[i].length >= 1 && cases[i].length <= NQ_PACKET_MAX));
	}
	hostile_give_bytes(data);
	free(bytes);
}

void hostile_test_packets(struct run *run, uint64_t percent)
{
	test_udp_zero(run);
	test_sizes(run);
	test_random_packets(run, PACKETS * percent / 100);
}
