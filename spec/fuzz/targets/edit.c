/* Edits in the order that the choices have, then the packet leaves. The content is a packet. */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("edit", input, size);
	struct nq_packet packet = target_packet(&target);

	hostile_check_complete(target.run, target.bytes, packet.length);
	if (target.length <= NQ_PACKET_MAX)
		hostile_edit(target.run, &packet);
	target_end(&target);
	return 0;
}
