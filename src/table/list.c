#include "table/list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

bool nq_list_next(const char **text, const char *end, const char **line, size_t *length,
		  struct nq_list *list)
{
	const char *start = *text;
	const char *stop;

	if (start == end)
		return false;
	stop = memchr(start, '\n', (size_t)(end - start));
	*text = stop ? stop + 1 : end;
	if (!stop)
		stop = end;
	/* Editors of another system begin a text with a byte order mark. */
	if (list->line == 0 && stop - start >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0)
		start += 3;
	list->line++;
	while (start < stop && is_blank(*start))
		start++;
	while (stop > start && is_blank(stop[-1]))
		stop--;
	*line = start;
	*length = (size_t)(stop - start);
	return true;
}

size_t nq_list_word(const char *line, size_t length)
{
	size_t count = 0;

	while (count < length && !is_blank(line[count]))
		count++;
	return count;
}

int nq_list_fail(struct nq_list *list, const char *word, size_t length, const char *what)
{
	char shown[48];
	size_t count = length < sizeof(shown) - 1 ? length : sizeof(shown) - 1;

	for (size_t i = 0; i < count; i++)
		shown[i] = word[i] >= ' ' && word[i] <= '~' ? word[i] : '?';
	shown[count] = '\0';
	snprintf(list->problem, sizeof(list->problem), "'%s%s' %s", shown,
		 count < length ? "..." : "", what);
	return -EBADMSG;
}

static long long nanoseconds(const struct timespec *time)
{
	return (long long)time->tv_sec * 1000000000 + time->tv_nsec;
}

static int look(int fd, struct nq_list_source *source)
{
	struct timespec now;
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	clock_gettime(CLOCK_REALTIME, &now);
	*source = (struct nq_list_source){
		.device = status.st_dev,
		.inode = status.st_ino,
		.size = (unsigned long long)status.st_size,
		.modified = nanoseconds(&status.st_mtim),
		.changed = nanoseconds(&status.st_ctim),
	};
	/* File systems stamp coarsely: what changed just now may change again unnoticed. */
	source->stable = S_ISREG(status.st_mode) &&
			 nanoseconds(&now) - source->changed > 2000000000 &&
			 nanoseconds(&now) - source->modified > 2000000000;
	return 0;
}

bool nq_list_same(const struct nq_list_source *one, const struct nq_list_source *other)
{
	return one->stable && other->stable && one->device == other->device &&
	       one->inode == other->inode && one->size == other->size &&
	       one->modified == other->modified && one->changed == other->changed;
}

int nq_list_look(const char *path, struct nq_list_source *source)
{
	struct stat status;
	int fd, result;

	/* Opening a pipe would wait for its writer, and it has no versions anyway. */
	if (stat(path, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	result = look(fd, source);
	close(fd);
	return result;
}

/* `buffer` holds NQ_LIST_LINE bytes and the first part of a line at its start. */
static int read_lines(int fd, char *buffer, nq_list_parse *parse, void *context,
		      struct nq_list *list)
{
	size_t filled = 0;

	for (;;) {
		/* A signal interrupts the wait for a pipe's writer alone, and is meant to. */
		ssize_t count = read(fd, buffer + filled, NQ_LIST_LINE - filled);
		const char *newline;
		size_t whole;
		int result;

		if (count < 0)
			return -errno;
		filled += (size_t)count;
		if (count == 0)
			return filled ? parse(context, buffer, filled, list) : 0;
		newline = memrchr(buffer, '\n', filled);
		if (!newline) {
			if (filled < NQ_LIST_LINE)
				continue;
			list->line++;
			return nq_list_fail(list, buffer, filled, "begins a line of 64 KB or more");
		}
		whole = (size_t)(newline + 1 - buffer);
		result = parse(context, buffer, whole, list);
		if (result)
			return result;
		filled -= whole;
		memmove(buffer, buffer + whole, filled);
	}
}

int nq_list_read(const char *path, nq_list_parse *parse, void *context, struct nq_list *list,
		 struct nq_list_source *source)
{
	char *buffer = malloc(NQ_LIST_LINE);
	int result;
	int fd;

	list->line = 0;
	list->problem[0] = '\0';
	if (!buffer)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	result = fd < 0 ? -errno : look(fd, source);
	if (result == 0)
		result = read_lines(fd, buffer, parse, context, list);
	if (fd >= 0)
		close(fd);
	free(buffer);
	return result;
}
