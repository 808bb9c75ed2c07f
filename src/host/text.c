#include "host/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_ROOM = 16384 };

int nq_text_read_fd(int fd, struct nq_text *text)
{
	size_t room = 0;
	int error = 0;

	*text = (struct nq_text){0};
	for (;;) {
		ssize_t got;

		if (text->length == room) {
			char *bytes = realloc(text->bytes, room ? room * 2 : FIRST_ROOM);

			if (!bytes) {
				error = -ENOMEM;
				break;
			}
			text->bytes = bytes;
			room = room ? room * 2 : FIRST_ROOM;
		}
		got = read(fd, text->bytes + text->length, room - text->length);
		if (got == 0)
			return 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			error = -errno;
			break;
		}
		text->length += (size_t)got;
		if (text->length > NQ_TEXT_MOST) {
			error = -EFBIG;
			break;
		}
	}
	nq_text_free(text);
	return error;
}

int nq_text_read(const char *path, bool again, struct nq_text *text, struct nq_failure *failure)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | (again ? O_NONBLOCK : 0));
	struct stat status;
	int error;

	*text = (struct nq_text){0};
	if (fd < 0)
		return nq_fail(failure, 66, errno, "cannot read script %s: %s", path,
			       strerror(errno));
	if (again && fstat(fd, &status) == 0 && !S_ISREG(status.st_mode)) {
		close(fd);
		return nq_fail(failure, 66, EINVAL,
			       "cannot read script %s again: it is not a regular file", path);
	}
	error = nq_text_read_fd(fd, text);
	close(fd);
	if (error)
		return nq_fail(failure, 66, -error, "cannot read script %s: %s", path,
			       strerror(-error));
	return 0;
}

void nq_text_free(struct nq_text *text)
{
	free(text->bytes);
	*text = (struct nq_text){0};
}
