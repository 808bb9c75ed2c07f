/*
 * target.h - what the targets of `make fuzz` share. A target is one file in targets/ with the one
 * function libFuzzer calls; replay.c calls it, too.
 *
 * An input is what a target chooses by, and bytes: the first byte says how many bytes of choices
 * follow, the rest is content (a packet, a message).
 */
#ifndef HOSTILE_TARGET_H
#define HOSTILE_TARGET_H

#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* One input under way. */
struct target {
	struct run *run; /* chooses from the input */
	uint8_t *bytes;	 /* the content, in a block of its own size */
	size_t length;
};

/* `input` is shown when a check fails. */
struct target target_begin(const char *what, const uint8_t *input, size_t size);

/* Aborts when a check failed, so that the input is kept. */
void target_end(struct target *target);

/* A packet of the content, as from the kernel or as made, as chosen. */
struct nq_packet target_packet(struct target *target);

#endif
