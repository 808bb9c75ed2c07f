#include "host/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/clock.h"

/* A number of the environment that is nothing else; 0 where there is none. */
static unsigned long read_number(const char *name)
{
	const char *text = getenv(name);
	unsigned long number;
	char *end;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	number = strtoul(text, &end, 10);
	return errno || *end ? 0 : number;
}

/* A path, or a name of the abstract namespace behind '@': 0 or -errno. */
static int connect_to(int fd, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || length < 2)
		return -EINVAL;
	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, name, length);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	else
		length++; /* the final zero belongs to a path */
	if (connect(fd, (struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		return -errno;
	return 0;
}

void nq_notify_open(struct nq_notify *notify)
{
	const char *name = getenv("NOTIFY_SOCKET");
	unsigned long most = read_number("FDSTORE");

	*notify = (struct nq_notify){.fd = -1};
	if (name) {
		notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (notify->fd >= 0 && connect_to(notify->fd, name) != 0)
			nq_notify_close(notify);
		if (notify->fd >= 0)
			notify->store = most > 65536 ? 65536 : (unsigned)most;
	}
	unsetenv("NOTIFY_SOCKET");
	unsetenv("FDSTORE");
}

void nq_notify_close(struct nq_notify *notify)
{
	if (notify->fd >= 0)
		close(notify->fd);
	notify->fd = -1;
	notify->store = 0;
}

static int send_with(const struct nq_notify *notify, const char *text, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec piece = {.iov_base = (char *)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

	if (notify->fd < 0)
		return -ENOTCONN;
	if (fd >= 0) {
		struct cmsghdr *item = &control.align;

		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(item), &fd, sizeof(fd));
	}
	while (sendmsg(notify->fd, &message, MSG_NOSIGNAL | (fd >= 0 ? 0 : MSG_DONTWAIT)) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

void nq_notify_send(const struct nq_notify *notify, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)send_with(notify, text, -1);
}

void nq_notify_reloading(const struct nq_notify *notify)
{
	nq_notify_send(notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
		       (long long)(nq_clock_now() / 1000));
}

int nq_notify_keep(const struct nq_notify *notify, int fd, const char *name)
{
	char text[128];

	/* Not watched by the manager: an overrun, an error of the socket, would have it let go. */
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	return send_with(notify, text, fd);
}

void nq_notify_forget(const struct nq_notify *notify, const char *name)
{
	nq_notify_send(notify, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

unsigned nq_notify_take_passed(char **names)
{
	const char *list = getenv("LISTEN_FDNAMES");
	unsigned long count = read_number("LISTEN_FDS");

	*names = NULL;
	if (read_number("LISTEN_PID") != (unsigned long)getpid() || count > 65536)
		count = 0;
	for (unsigned long i = 0; i < count; i++) {
		/* Fewer than were told of: nothing of this can be trusted. */
		if (fcntl(NQ_PASSED_FIRST + (int)i, F_SETFD, FD_CLOEXEC) < 0)
			count = 0;
	}
	if (count)
		*names = strdup(list ? list : "");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PID");
	return *names ? (unsigned)count : 0;
}
