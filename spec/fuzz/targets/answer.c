/* Answers to a packet: described, built, split. The content is a packet. */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("answer", input, size);
	struct nq_packet packet = target_packet(&target);
	uint8_t *copy = hostile_take_bytes(target.bytes, target.length);

	hostile_answer(target.run, &packet);
	CHECK(target.run, same_bytes(target.bytes, copy, target.length));
	hostile_give_bytes(copy);
	target_end(&target);
	return 0;
}
