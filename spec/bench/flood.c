/*
 * flood.c - sends COUNT UDP packets with SIZE bytes of payload to 127.0.0.1, many a call.
 *
 *     flood COUNT SIZE PORT
 *
 * It ends with 1 when the kernel did not take every one of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { PER_CALL = 64, SIZE_MAX_UDP = 65507 };

int main(int argc, char **argv)
{
	static char payload[SIZE_MAX_UDP];
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct mmsghdr messages[PER_CALL];
	struct iovec piece = {.iov_base = payload};
	unsigned long count, sent = 0;
	int fd;

	if (argc != 4 || strtoul(argv[2], NULL, 10) > SIZE_MAX_UDP) {
		fprintf(stderr, "usage: flood COUNT SIZE PORT\n");
		return 64;
	}
	count = strtoul(argv[1], NULL, 10);
	piece.iov_len = strtoul(argv[2], NULL, 10);
	to.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	memset(payload, 'x', sizeof(payload));
	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < PER_CALL; i++)
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		perror("socket");
		return 1;
	}
	while (sent < count) {
		unsigned most = count - sent < PER_CALL ? (unsigned)(count - sent) : PER_CALL;
		int got = sendmmsg(fd, messages, most, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			perror("sendmmsg");
			return 1;
		}
		sent += (unsigned)got;
	}
	return 0;
}
