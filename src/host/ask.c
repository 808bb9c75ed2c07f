/* The side of the control socket that asks, and where the socket lies. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/control.h"
#include "host/control_parts.h"

enum { NAME_MOST = 64, FIRST_ROOM = 4096, CONNECT_TRIES = 50 };

/* Some 300 bytes for each of 65,536 queues. */
#define ANSWER_MOST ((size_t)64 << 20)

bool nq_control_is_name(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > NAME_MOST || *name == '.')
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") ==
	       length;
}

bool nq_control_folder(unsigned which, char folder[NQ_CONTROL_FOLDER])
{
	const char *given = getenv("NFQUEUE_RUNTIME_DIR");
	const char *own = getenv("XDG_RUNTIME_DIR");
	int length;

	if (given && *given) {
		if (which > 0)
			return false;
		length = snprintf(folder, NQ_CONTROL_FOLDER, "%s", given);
		return length < NQ_CONTROL_FOLDER;
	}
	/* Root of a user namespace cannot write to the first. */
	if (geteuid() == 0) {
		if (which == 0) {
			strcpy(folder, "/run/nfqueue");
			return true;
		}
		which--;
	}
	if (which > 0 || !own || !*own)
		return false;
	length = snprintf(folder, NQ_CONTROL_FOLDER, "%s/nfqueue", own);
	return length < NQ_CONTROL_FOLDER;
}

int nq_control_file(const char *folder, const char *name, char *path, size_t size)
{
	int length = snprintf(path, size, "%s/%s.sock", folder, name);

	return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}

int nq_control_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

/* Others may be asking, too. */
static int connect_patiently(const char *path)
{
	static const struct timespec pause = {.tv_nsec = 20000000};
	int fd = nq_control_connect(path);

	for (int try = 0; fd == -EAGAIN && try < CONNECT_TRIES; try++) {
		nanosleep(&pause, NULL);
		fd = nq_control_connect(path);
	}
	return fd;
}

/* In the first folder where one listens. */
static int find_instance(const char *name, struct nq_failure *failure)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char folder[NQ_CONTROL_FOLDER];
	char looked[512] = "";
	int refused = 0;

	for (unsigned which = 0; nq_control_folder(which, folder); which++) {
		size_t length = strlen(looked);
		int fd = nq_control_file(folder, name, path, sizeof(path));

		if (!fd)
			fd = connect_patiently(path);
		if (fd >= 0)
			return fd;
		if (fd != -ENOENT && fd != -ECONNREFUSED && fd != -ENOTDIR)
			refused = fd;
		snprintf(looked + length, sizeof(looked) - length, "%s%s/%s.sock",
			 length ? " and " : "", folder, name);
	}
	if (refused)
		return nq_fail(failure, refused == -EACCES || refused == -EPERM ? 77 : 69, -refused,
			       "cannot ask nfqueue '%s' (%s): %s", name, looked,
			       strerror(-refused));
	return nq_fail(failure, 69, ENOENT, "no nfqueue named '%s' runs here (looked for %s)", name,
		       *looked ? looked : "nothing: XDG_RUNTIME_DIR is not set");
}

/* Waits for the event: 0, -ETIMEDOUT after `until` (0: never), -errno. */
static int wait_for(int fd, short events, int64_t until)
{
	struct pollfd ready = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = until ? (until - nq_clock_now()) / 1000000 : -1;
		int count;

		if (until && left <= 0)
			return -ETIMEDOUT;
		count = poll(&ready, 1, (int)left);
		if (count > 0)
			return 0;
		if (count < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_request(int fd, const char *request, int64_t until)
{
	char line[NAME_MOST + 1];
	size_t length = (size_t)snprintf(line, sizeof(line), "%s\n", request);
	int error = wait_for(fd, POLLOUT, until);

	if (error)
		return error;
	return send(fd, line, length, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -EPIPE;
}

static int read_answer(int fd, int64_t until, char **text, size_t *length)
{
	size_t room = 0;

	for (;;) {
		ssize_t got;
		int error;

		if (*length + 1 >= room) {
			char *more = realloc(*text, room ? room * 2 : FIRST_ROOM);

			if (!more)
				return -ENOMEM;
			*text = more;
			room = room ? room * 2 : FIRST_ROOM;
		}
		error = wait_for(fd, POLLIN, until);
		if (error)
			return error;
		got = recv(fd, *text + *length, room - *length - 1, 0);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0)
			return -errno;
		*length += (size_t)got;
		(*text)[*length] = '\0';
		if (got == 0)
			return 0;
		if (*length > ANSWER_MOST)
			return -EFBIG;
	}
}

static int fail_answer(struct nq_failure *failure, const char *name, int error)
{
	if (error == -ETIMEDOUT)
		return nq_fail(failure, 69, ETIMEDOUT, "nfqueue '%s' does not answer", name);
	if (!error || error == -EPIPE || error == -ECONNRESET)
		return nq_fail(failure, 69, EPIPE, "nfqueue '%s' ended without an answer", name);
	return nq_fail(failure, 69, -error, "no answer from nfqueue '%s': %s", name,
		       strerror(-error));
}

int nq_control_ask(const char *name, const char *request, int seconds, char **text,
		   struct nq_failure *failure)
{
	int64_t until = seconds ? nq_clock_now() + seconds * INT64_C(1000000000) : 0;
	int fd = find_instance(name, failure);
	size_t length = 0;
	char *end = NULL;
	long status;
	int error;

	*text = NULL;
	if (fd < 0)
		return fd;
	error = send_request(fd, request, until);
	if (!error)
		error = read_answer(fd, until, text, &length);
	close(fd);
	status = length && isdigit((unsigned char)**text) ? strtol(*text, &end, 10) : -1;
	if (error || status < 0 || status > 255 || *end != '\n') {
		free(*text);
		*text = NULL;
		return fail_answer(failure, name, error);
	}
	memmove(*text, end + 1, strlen(end + 1) + 1);
	return (int)status;
}
