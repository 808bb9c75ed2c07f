/*
 * loop.c - our own loop without a script: everything is accepted in C. What a filter adds to it,
 * and what Lua does, is measured against this.
 *
 *     loop QUEUE
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/loop.h"

static void accept_all(void *context, struct nq_loop *loop)
{
	struct nq_packet *packet;

	(void)context;
	while ((packet = nq_loop_next(loop)) != NULL) {
		packet->verdict = NQ_ACCEPT;
		nq_loop_settle(loop);
	}
}

static const struct nq_loop_calls calls = {.judge = accept_all};

int main(int argc, char **argv)
{
	uint16_t number = (uint16_t)(argc > 1 ? atoi(argv[1]) : 0);
	struct nq_settings settings = {
		.kernel = {.max_packets = 65536, .copy_range = NQ_PACKET_MAX, .flags = NQ_FLAG_GSO},
		.buffer_size = 64 << 20,
		.default_verdict = NQ_ACCEPT,
		.on_error = NQ_DROP,
	};
	struct nq_failure failure = {.status = 0};
	struct nq_memory *memory = nq_memory_new(1, &number, 1, NULL);
	int fd = nq_socket_open();
	struct nq_loop *loop = NULL;

	if (memory && fd >= 0)
		loop = nq_loop_new(memory, 0, fd, &settings, NULL, &calls, NULL, NULL);
	if (!loop) {
		perror("loop");
		return 1;
	}
	if (nq_loop_join(loop, &failure) != 0) {
		fprintf(stderr, "loop: %s\n", failure.message);
		return failure.status;
	}
	/* Being stopped and continued interrupts it. */
	while (nq_loop_run(loop) == -EINTR)
		continue;
	return 1;
}
