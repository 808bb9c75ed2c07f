/*
 * Files of lines for the targets that read them.
 */
#include "lists.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LONG_LINE = 65536, SHOWN = 47, PIECE = 4096, PIECES = 256, SPARE_PIECES = 64 };

uint8_t *lists_take_text(struct run *run, const uint8_t *bytes, size_t *length)
{
	static const char runs[] = "a \n\t.#1x";
	static const uint32_t limits[] = {LONG_LINE, 255, 253, 63};
	uint8_t *text;
	size_t at, count;

	if (below(run, 8) != 7)
		return hostile_take_bytes(bytes, *length);
	at = below(run, (uint32_t)*length + 1);
	/* About as many as a line, a value, a name and a label may have, with what is around. */
	count = limits[below(run, COUNT(limits))];
	count = count + 8 - below(run, count == LONG_LINE ? 64 : 16);
	text = hostile_take_bytes(NULL, *length + count);
	copy_bytes(text, bytes, at);
	memset(text + at, runs[below(run, sizeof(runs) - 1)], count);
	copy_bytes(text + at + count, bytes + at, *length - at);
	*length += count;
	return text;
}

/*
 * A packet pipe gives a reader one of its pieces at a time, and what the reader has no room for is
 * lost: so none is larger than what is left of the room for a line.
 */
static bool fill_pipe(struct run *run, int fd, const uint8_t *text, size_t length)
{
	uint32_t most = 1 + below(run, 2) * below(run, 256);
	unsigned pieces = 0;
	size_t begun = 0; /* bytes of a line that has not ended */

	if (fcntl(fd, F_SETPIPE_SZ, PIECES * PIECE) < PIECES * PIECE)
		return false;
	while (length > 0 && begun < LONG_LINE) {
		size_t size = PIECE;
		const uint8_t *newline;

		if (run->input_left && pieces < PIECES - SPARE_PIECES)
			size = 1 + below(run, most);
		if (size > LONG_LINE - begun)
			size = LONG_LINE - begun;
		if (size > length)
			size = length;
		if (write(fd, text, size) != (ssize_t)size)
			return false;
		newline = memrchr(text, '\n', size);
		begun = newline ? (size_t)(text + size - newline - 1) : begun + size;
		text += size;
		length -= size;
		pieces++;
	}
	return true;
}

int lists_read(struct run *run, nq_list_parse *parse, void *builder, const uint8_t *text,
	       size_t length, struct nq_list *list)
{
	struct nq_list_source source;
	char path[32];
	int ends[2];
	int result;

	if (pipe2(ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC) < 0 ||
	    !fill_pipe(run, ends[1], text, length)) {
		perror("pipe");
		exit(1);
	}
	close(ends[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
	result = nq_list_read(path, parse, builder, list, &source);
	close(ends[0]);
	if (result != -ENOMEM && result != 0)
		CHECK(run, result == -EBADMSG);
	CHECK(run, !source.stable);
	return result;
}

bool lists_next_line(struct lists_model *model, const char **line, size_t *length)
{
	const char *start = model->text;
	const char *at = start;

	if (start == model->end)
		return false;
	while (at < model->end && *at != '\n')
		at++;
	model->text = at < model->end ? at + 1 : at;
	model->line++;
	if (at - start >= LONG_LINE)
		return lists_wrong(model, start, LONG_LINE, "begins a line of 64 KB or more");
	if (model->line == 1 && at - start >= 3 && !memcmp(start, "\xef\xbb\xbf", 3))
		start += 3;
	*line = start;
	*length = (size_t)(at - start);
	return true;
}

bool lists_next_word(const char *line, size_t length, size_t *at, const char **word, size_t *size)
{
	static const char blanks[] = {' ', '\t', '\r', '\v', '\f'};

	while (*at < length && memchr(blanks, line[*at], sizeof(blanks)))
		++*at;
	*word = line + *at;
	while (*at < length && !memchr(blanks, line[*at], sizeof(blanks)))
		++*at;
	*size = (size_t)(line + *at - *word);
	return *size > 0;
}

bool lists_wrong(struct lists_model *model, const char *word, size_t length, const char *what)
{
	size_t shown = length > SHOWN ? SHOWN : length;

	model->wrong = true;
	model->problem[0] = '\'';
	for (size_t i = 0; i < shown; i++)
		model->problem[1 + i] = (char)(word[i] < 32 || word[i] > 126 ? '?' : word[i]);
	sprintf(model->problem + 1 + shown, "%s' %s", length > shown ? "..." : "", what);
	return false;
}

bool lists_agree(struct run *run, const struct lists_model *model, int result,
		 const struct nq_list *list)
{
	bool agree = CHECK(run, (result != 0) == model->wrong);

	CHECK(run, list->line == model->line);
	if (result && agree && !CHECK(run, strcmp(list->problem, model->problem) == 0))
		printf("  %s\n  %s\n", list->problem, model->problem);
	return agree && !result;
}

unsigned lists_address(const char *text, size_t length, uint8_t address[16])
{
	char copy[64];

	memset(address, 0, 16);
	if (length >= sizeof(copy) || memchr(text, 0, length))
		return 0;
	memcpy(copy, text, length);
	copy[length] = '\0';
	if (inet_pton(AF_INET, copy, address) == 1)
		return 32;
	return inet_pton(AF_INET6, copy, address) == 1 ? 128 : 0;
}
