/*
 * Answers to packets: described, built, and split, each written into a block of exactly its size.
 */
#include "hostile.h"
#include "packet/answer.h"
#include "packet/split.h"

/* The fragments are within the mtu, whole in themselves, and the packet when put together. */
static void check_split(struct run *run, const uint8_t *bytes, size_t length)
{
	uint32_t mtu = 68 + below(run, 600);
	size_t head = bytes[0] >> 4 == 4 ? 20 : 48, joined = 0;
	size_t rest = bytes[0] >> 4 == 4 ? 20 : 40;
	struct nq_split split;
	const char *reason = nq_split_plan(&split, bytes, (uint32_t)length, mtu, 7);

	if (!CHECK(run, !reason) || split.count == 1) {
		CHECK(run, length <= mtu);
		return;
	}
	for (uint32_t i = 0; i < split.count; i++) {
		uint8_t *piece = hostile_take_bytes(NULL, mtu);
		size_t size = nq_split_write(&split, i, piece);

		if (!CHECK(run,
			   size > head && size <= mtu && rest + joined + size - head <= length)) {
			hostile_give_bytes(piece);
			return;
		}
		hostile_verify(run, piece, size, 0, 0);
		CHECK(run, same_bytes(piece + head, bytes + rest + joined, size - head));
		joined += size - head;
		hostile_give_bytes(piece);
	}
	CHECK(run, rest + joined == length);
}

static void check_answer(struct run *run, const struct nq_packet *packet, const char *reason,
			 const struct nq_build *build)
{
	size_t addresses = packet->length && packet->data[0] >> 4 == 6 ? 16 : 4;
	size_t source = addresses == 16 ? 8 : 12;
	size_t size;
	uint8_t *bytes;

	run->answers++;
	if (reason) {
		CHECK(run, *reason);
		run->unanswered++;
		return;
	}
	size = nq_build_size(build);
	if (!CHECK(run, size <= 2 * (size_t)packet->length + 100))
		return;
	bytes = hostile_take_bytes(NULL, size);
	nq_build_write(build, bytes);
	hostile_verify(run, bytes, size, 0, 0);
	CHECK(run, bytes[0] >> 4 == packet->data[0] >> 4);
	CHECK(run, same_bytes(bytes + source + addresses, packet->data + source, addresses));
	check_split(run, bytes, size);
	hostile_give_bytes(bytes);
}

void hostile_answer(struct run *run, struct nq_packet *packet)
{
	struct nq_build build;

	check_answer(run, packet, nq_answer_reply(packet, &build), &build);
	check_answer(run, packet, nq_answer_reset(packet, &build), &build);
	check_answer(run, packet, nq_answer_error(packet, &build), &build);
}
