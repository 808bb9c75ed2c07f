#include "host/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct report {
	uint32_t generation;
	struct nq_failure failure;
};

int nq_channel_open(int ends[2])
{
	/* Whole messages, in order, and an end that is closed shows. */
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0
		       ? -errno
		       : 0;
}

static int write_all(int fd, const struct nq_text *text)
{
	size_t done = 0;

	while (done < text->length) {
		ssize_t now = write(fd, text->bytes + done, text->length - done);

		if (now < 0 && errno != EINTR)
			return -errno;
		done += now > 0 ? (size_t)now : 0;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

/* Any size goes as a descriptor, so that neither end waits for the other to write or read. */
int nq_channel_send_script(int fd, uint32_t generation, const struct nq_text *text)
{
	union {
		struct cmsghdr header; /* for its alignment */
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec piece = {&generation, sizeof(generation)};
	struct msghdr message = {.msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int file = memfd_create("nfqueue script", MFD_CLOEXEC);
	int error;

	if (file < 0)
		return -errno;
	error = write_all(file, text);
	if (!error) {
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &file, sizeof(file));
		if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
			error = -errno;
	}
	close(file);
	return error;
}

int nq_channel_take_script(int fd, uint32_t *generation, struct nq_text *text)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec piece = {generation, sizeof(*generation)};
	struct msghdr message = {.msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *header;
	ssize_t got;
	int error;
	int file;

	do {
		got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0)
		return -EPIPE;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS)
		return -EMFILE; /* the kernel had no descriptor to give it */
	memcpy(&file, CMSG_DATA(header), sizeof(file));
	error = nq_text_read_fd(file, text);
	close(file);
	return error ? error : 1;
}

int nq_channel_send_report(int fd, uint32_t generation, const struct nq_failure *failure)
{
	struct report report = {.generation = generation, .failure = *failure};

	return send(fd, &report, sizeof(report), MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int nq_channel_take_report(int fd, uint32_t *generation, struct nq_failure *failure)
{
	struct report report;
	ssize_t got;

	do {
		got = recv(fd, &report, sizeof(report), MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got != sizeof(report))
		return 0;
	*generation = report.generation;
	*failure = report.failure;
	failure->message[sizeof(failure->message) - 1] = '\0';
	return 1;
}
