/*
 * list.h - files of lines: read in pieces, so that a list costs no more memory than what is made of
 * it.
 */
#ifndef NQ_TABLE_LIST_H
#define NQ_TABLE_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A longer line is a mistake, or no text at all. */
#define NQ_LIST_LINE 65536

/* Where a reader is, and what is wrong there. */
struct nq_list {
	unsigned long line; /* the one read last, from 1 on */
	char problem[200];
};

/*
 * Reads whole lines (the last one may lack its newline) and adds what they say to what `context`
 * is: 0; -EBADMSG with list->line and list->problem; -ENOMEM. list->line goes on from where it is.
 */
typedef int nq_list_parse(void *context, const char *text, size_t length, struct nq_list *list);

/* Which version of which file: what is the same twice need not be read twice. */
struct nq_list_source {
	unsigned long long device, inode, size;
	long long modified, changed; /* nanoseconds */
	bool stable;		     /* a regular file that had been left alone for a while */
};

/*
 * The file's lines into `parse`. 0, what `parse` returns, or another -errno of opening and reading.
 * *source tells what was read.
 */
int nq_list_read(const char *path, nq_list_parse *parse, void *context, struct nq_list *list,
		 struct nq_list_source *source);

/* What there is at the path now: 0 or -errno. */
int nq_list_look(const char *path, struct nq_list_source *source);

/* Whether reading again would give the same. */
bool nq_list_same(const struct nq_list_source *one, const struct nq_list_source *other);

/* --- For parsers --- */

/* The next line of *text, without its newline and what is blank at its ends; false: no more. */
bool nq_list_next(const char **text, const char *end, const char **line, size_t *length,
		  struct nq_list *list);

/* Length of the first word of the line. */
size_t nq_list_word(const char *line, size_t length);

/* -EBADMSG, with the problem: the word in quotes (shortened, harmless to print), and `what`. */
int nq_list_fail(struct nq_list *list, const char *word, size_t length, const char *what);

#endif
