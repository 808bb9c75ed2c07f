/*
 * Netlink messages, and the packets in them edited. The content is a message.
 *
 * Not here: conntrack's attributes, which libnetfilter_conntrack reads. It trusts the kernel, and
 * ends the process over a value of the wrong size.
 */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("message", input, size);

	if (target.length <= MESSAGE_MAX)
		(void)hostile_feed(target.run, target.bytes, target.length, NULL);
	target_end(&target);
	return 0;
}
