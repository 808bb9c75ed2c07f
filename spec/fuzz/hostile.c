/*
 * Hostile bytes into what the packet path is made of: messages into nq_message_read, packets into
 * nq_layout_read and the edits, decisions through nq_batch into a socket, texts into what reads
 * lists; what keeps packets.
 *
 * Build it with AddressSanitizer and UBSan (make asan): every input lies in a heap block of exactly
 * its size. Beyond "does not crash" it checks what the headers promise, against readers and sums of
 * its own. Everything follows from the seed; it ends with counts, and 1 when something was wrong.
 *
 *     hostile [SEED] [PERCENT of the random cases]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "hostile.h"

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 0x6e66717565756531;
	uint64_t percent = argc > 2 ? strtoull(argv[2], NULL, 0) : 100;
	struct run run = {.random = seed ? seed : 1, .spare = hostile_take(NQ_PACKET_MAX)};

	setvbuf(stdout, NULL, _IOLBF, 0); /* a sanitizer's abort must not swallow what was said */
	printf("hostile: seed 0x%" PRIx64 "\n", run.random);
	hostile_test_messages(&run, percent);
	hostile_test_packets(&run, percent);
	hostile_test_batches(&run, percent);
	hostile_test_tables(&run, percent);
	hostile_test_keeping(&run, percent);
	hostile_test_loops(&run, percent);
	free(run.spare);
	printf("hostile: %" PRIu64 " messages (%" PRIu64 " packets, %" PRIu64 " answers, %" PRIu64
	       " ignored, %" PRIu64 " broken), %" PRIu64 " random packets, %" PRIu64
	       " edits (%" PRIu64 " refused), %" PRIu64 " answers (%" PRIu64 " refused), %" PRIu64
	       " completions verified, %" PRIu64 " verdicts in %" PRIu64
	       " datagrams, %u failures\n",
	       run.messages, run.kinds[NQ_MESSAGE_PACKET], run.kinds[NQ_MESSAGE_ANSWER],
	       run.kinds[NQ_MESSAGE_IGNORED], run.kinds[NQ_MESSAGE_BROKEN], run.packets, run.edits,
	       run.refused, run.answers, run.unanswered, run.verified, run.verdicts, run.datagrams,
	       run.failures);
	return run.failures ? 1 : 0;
}
