/*
 * What every unit needs: failures shown, blocks of exact size.
 */
#include <stdio.h>
#include <stdlib.h>

#include "hostile.h"

enum { SHOWN_FAILURES = 10 };

void hostile_fail(struct run *run, const char *condition, const char *file, int line)
{
	if (run->failures++ >= SHOWN_FAILURES)
		return;
	printf("%s:%d: %s: not so: %s\n  %zu bytes:", file, line, run->what, condition,
	       run->length);
	for (size_t i = 0; i < run->length && i < 256; i++)
		printf("%s%02x", i % 4 ? "" : " ", run->bytes[i]);
	printf("\n");
}

void *hostile_take(size_t size)
{
	void *block = malloc(size);

	if (!block) {
		perror("malloc");
		exit(1);
	}
	return block;
}

uint8_t *hostile_take_bytes(const uint8_t *bytes, size_t length)
{
	uint8_t *block = hostile_take(length + 4);

	if (bytes)
		copy_bytes(block + 4, bytes, length);
	return block + 4;
}

void hostile_give_bytes(uint8_t *bytes)
{
	free(bytes - 4);
}

uint32_t hostile_next(struct run *run, unsigned size)
{
	uint32_t number = 0;

	for (; size > 0 && run->input_left > 0; size--, run->input_left--)
		number = number << 8 | *run->input++;
	return number;
}
