#include "target.h"

#include <stdio.h>
#include <stdlib.h>

/* Kept between inputs. */
static struct run *find_run(void)
{
	static struct run run;

	if (!run.spare)
		run.spare = hostile_take(NQ_PACKET_MAX);
	return &run;
}

struct target target_begin(const char *what, const uint8_t *input, size_t size)
{
	struct target target = {.run = find_run()};
	size_t choices = size ? input[0] : 0;

	begin(target.run, what);
	target.run->bytes = input;
	target.run->length = size;
	if (size) {
		input++;
		size--;
	}
	if (choices > size)
		choices = size;
	/* Never NULL, or choices were random. */
	target.run->input = choices ? input : (const uint8_t *)"";
	target.run->input_left = choices;
	target.bytes = hostile_take_bytes(input + choices, size - choices);
	target.length = size - choices;
	return target;
}

void target_end(struct target *target)
{
	hostile_give_bytes(target->bytes);
	if (!target->run->failures)
		return;
	fflush(stdout);
	abort();
}

struct nq_packet target_packet(struct target *target)
{
	struct run *run = target->run;
	struct nq_packet packet = {.spare = run->spare,
				   .data = target->bytes,
				   .length = (uint32_t)target->length,
				   .have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD};
	uint32_t how = below(run, 256);

	if (target->length > NQ_PACKET_MAX)
		packet.length = NQ_PACKET_MAX;
	packet.csum_complete = how & 1;
	packet.gso = how & 2;
	if ((how & 12) == 12) {
		packet.have |= NQ_HAVE_WIRE_LENGTH;
		packet.wire_length = packet.length + below(run, 3);
	}
	if ((how & 0x70) == 0x70) {
		packet.have |= NQ_HAVE_WIRE_LENGTH;
		packet.wire_length = packet.length + below(run, 0x20000);
	}
	packet.ethertype = (uint16_t)(how & 0x80 ? 0x0800 : 0x86dd);
	packet.family = (uint8_t)(how & 0x80 ? 2 : 10);
	return packet;
}
