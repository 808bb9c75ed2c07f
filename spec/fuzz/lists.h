/*
 * lists.h - what the targets of files of lines share: a file read as the kernel may give it, and
 * lines and words read a second way.
 */
#ifndef HOSTILE_LISTS_H
#define HOSTILE_LISTS_H

#include "hostile.h"
#include "table/list.h"

/* What should come of a list. */
struct lists_model {
	const char *text, *end;
	unsigned long line; /* the one read last */
	bool wrong;
	char problem[400];
};

/* The content with a long run of one byte in it, if that is chosen, in a block of its own size. */
uint8_t *lists_take_text(struct run *run, const uint8_t *bytes, size_t *length);

/* nq_list_read of a pipe that gives the text in pieces, as chosen. */
int lists_read(struct run *run, nq_list_parse *parse, void *builder, const uint8_t *text,
	       size_t length, struct nq_list *list);

/* The next line without its newline; false: no more, or too long. */
bool lists_next_line(struct lists_model *model, const char **line, size_t *length);

/* The next word at *at; false: no more. */
bool lists_next_word(const char *line, size_t length, size_t *at, const char **word, size_t *size);

/* The word is wrong: `what` is said of it. Returns false. */
bool lists_wrong(struct lists_model *model, const char *word, size_t length, const char *what);

/* Whether the result and the list say what the model says; true when both found nothing wrong. */
bool lists_agree(struct run *run, const struct lists_model *model, int result,
		 const struct nq_list *list);

/* inet_pton of these bytes: 32 or 128 with the address, 0: it is none. */
unsigned lists_address(const char *text, size_t length, uint8_t address[16]);

#endif
