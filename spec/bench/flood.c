/*
 * flood.c - sends COUNT UDP packets with SIZE bytes of payload to 127.0.0.1, many a call.
 *
 *     flood COUNT SIZE PORT [FLOWS]
 *
 * With FLOWS they belong to as many connections, between 127.0.0.1 and other addresses of loopback,
 * PORT at both ends: one packet of each in turn, all there, then all back.
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

enum { PER_CALL = 64, SIZE_MAX_UDP = 65507, FLOWS_MOST = 60000 };

/* One message, and what it needs to go between chosen ends. */
struct message {
	struct sockaddr_in to;
	union {
		struct cmsghdr header; /* aligns it */
		char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control;
};

static void choose_ends(struct msghdr *header, struct message *message, uint16_t port,
			unsigned long number, unsigned long flows)
{
	struct in_addr near = {htonl(INADDR_LOOPBACK)};
	struct in_addr far = {htonl(0x7f010001U + (uint32_t)(number % flows))}; /* 127.1.0.1 on */
	int back = number / flows % 2 == 1;
	struct in_pktinfo source = {.ipi_spec_dst = back ? far : near};
	struct cmsghdr *control = &message->control.header;

	message->to = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = back ? near : far};
	header->msg_name = &message->to;
	header->msg_namelen = sizeof(message->to);
	header->msg_control = message->control.bytes;
	header->msg_controllen = sizeof(message->control.bytes);
	control->cmsg_level = IPPROTO_IP;
	control->cmsg_type = IP_PKTINFO;
	control->cmsg_len = CMSG_LEN(sizeof(source));
	memcpy(CMSG_DATA(control), &source, sizeof(source));
}

/* Without flows the port is another's; with them it is this end's too. */
static int open_socket(struct sockaddr_in *address, unsigned long flows)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		return -1;
	if (!flows)
		return connect(fd, (struct sockaddr *)address, sizeof(*address)) < 0 ? -1 : fd;
	address->sin_addr.s_addr = htonl(INADDR_ANY);
	return bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0 ? -1 : fd;
}

int main(int argc, char **argv)
{
	static char payload[SIZE_MAX_UDP];
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct mmsghdr messages[PER_CALL];
	static struct message chosen[PER_CALL];
	struct iovec piece = {.iov_base = payload};
	unsigned long count, flows, sent = 0;
	int fd;

	flows = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
	if (argc < 4 || argc > 5 || strtoul(argv[2], NULL, 10) > SIZE_MAX_UDP ||
	    flows > FLOWS_MOST) {
		fprintf(stderr, "usage: flood COUNT SIZE PORT [FLOWS]\n");
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
	fd = open_socket(&to, flows);
	if (fd < 0) {
		perror("socket");
		return 1;
	}
	while (sent < count) {
		unsigned most = count - sent < PER_CALL ? (unsigned)(count - sent) : PER_CALL;
		int got;

		for (unsigned i = 0; flows && i < most; i++)
			choose_ends(&messages[i].msg_hdr, &chosen[i], ntohs(to.sin_port), sent + i,
				    flows);
		got = sendmmsg(fd, messages, most, 0);
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
