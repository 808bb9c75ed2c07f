/* What goes out through raw sockets: a packet rejected, and sent again. */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("send", input, size);
	struct nq_packet packet = target_packet(&target);

	hostile_reject(target.run, &packet);
	hostile_send(target.run, target.bytes, target.length);
	target_end(&target);
	return 0;
}
