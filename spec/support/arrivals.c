/*
 * arrivals.c - sends numbered UDP packets over loopback at given rates, receives them, and tells
 * which came, when, and with what mark.
 *
 *     arrivals PORT ADDRESSES FILE COUNT@RATE...
 *
 * For each COUNT@RATE so many packets are sent, RATE a second, to 127.0.0.1, 127.0.0.2, ... in
 * turn, ADDRESSES of them. The payload is the packet's number, from 0, as 32 bits in network byte
 * order, and 28 bytes of filling. "sent N" on standard output says that all have been. SIGTERM ends
 * it: then FILE gets a line "NUMBER MARK MICROSECONDS" for each packet that came, in the order they
 * came; the time is the kernel's, of the clock of the day.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif

enum { PAYLOAD = 32, BUFFER = 64 << 20 };

struct arrival {
	uint32_t number, mark;
	int64_t microseconds;
};

struct sender {
	struct sockaddr_in to;
	unsigned addresses;
	int steps;
	char **step; /* COUNT@RATE */
};

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void send_one(int fd, const struct sender *sender, uint32_t number)
{
	struct sockaddr_in to = sender->to;
	uint8_t payload[PAYLOAD] = {0};
	uint32_t wire = htonl(number);

	memcpy(payload, &wire, sizeof(wire));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number % sender->addresses);
	/* What a rule drops is an error of the sender's too, and no concern of ours. */
	while (sendto(fd, payload, sizeof(payload), 0, (struct sockaddr *)&to, sizeof(to)) < 0 &&
	       (errno == EINTR || errno == ENOBUFS))
		;
}

static void *send_all(void *argument)
{
	const struct sender *sender = argument;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int size = BUFFER;
	uint32_t number = 0;

	/* Packets in the queue count against the sender's buffer. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	for (int i = 0; i < sender->steps; i++) {
		char *at;
		unsigned long count = strtoul(sender->step[i], &at, 10);
		unsigned long rate = *at == '@' ? strtoul(at + 1, NULL, 10) : 1;
		int64_t begin = now();

		for (unsigned long sent = 0; sent < count; sent++) {
			int64_t early = begin + (int64_t)(sent * 1000000000ULL / rate) - now();

			if (early > 0) {
				struct timespec pause = {early / 1000000000, early % 1000000000};

				nanosleep(&pause, NULL);
			}
			send_one(fd, sender, number++);
		}
	}
	printf("sent %u\n", number);
	fflush(stdout);
	return NULL;
}

static bool receive_one(int fd, struct arrival *arrival)
{
	char control[256];
	uint32_t wire;
	uint8_t payload[PAYLOAD];
	struct iovec piece = {payload, sizeof(payload)};
	struct msghdr message = {.msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};

	if (recvmsg(fd, &message, 0) < (ssize_t)sizeof(wire))
		return false;
	memcpy(&wire, payload, sizeof(wire));
	*arrival = (struct arrival){.number = ntohl(wire)};
	for (struct cmsghdr *item = CMSG_FIRSTHDR(&message); item;
	     item = CMSG_NXTHDR(&message, item)) {
		struct timespec time;

		if (item->cmsg_level != SOL_SOCKET)
			continue;
		if (item->cmsg_type == SO_MARK)
			memcpy(&arrival->mark, CMSG_DATA(item), sizeof(arrival->mark));
		if (item->cmsg_type == SO_TIMESTAMPNS) {
			memcpy(&time, CMSG_DATA(item), sizeof(time));
			arrival->microseconds = time.tv_sec * 1000000LL + time.tv_nsec / 1000;
		}
	}
	return true;
}

static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = end};
	struct sockaddr_in own = {.sin_family = AF_INET};
	struct timeval wait = {.tv_usec = 20000};
	struct sender sender = {.addresses = 1};
	struct arrival *arrivals = NULL;
	size_t count = 0, room = 0;
	int size = BUFFER, one = 1;
	pthread_t thread;
	FILE *file;
	int fd;

	if (argc < 5 || (sender.addresses = (unsigned)strtoul(argv[2], NULL, 10)) == 0) {
		fprintf(stderr, "usage: arrivals PORT ADDRESSES FILE COUNT@RATE...\n");
		return 64;
	}
	own.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	sender.to = own;
	sender.steps = argc - 4;
	sender.step = argv + 4;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVMARK, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0) {
		perror("arrivals");
		return 1;
	}
	sigaction(SIGTERM, &action, NULL);
	if (pthread_create(&thread, NULL, send_all, &sender) != 0)
		return 1;
	/* What lies in the socket at the signal is taken along. */
	for (;;) {
		if (count == room) {
			room = room ? 2 * room : 65536;
			arrivals = realloc(arrivals, room * sizeof(*arrivals));
			if (!arrivals)
				return 1;
		}
		if (receive_one(fd, &arrivals[count]))
			count++;
		else if (ended)
			break;
	}
	file = fopen(argv[3], "w");
	if (!file) {
		perror(argv[3]);
		return 1;
	}
	for (size_t i = 0; i < count; i++)
		fprintf(file, "%u %u %lld\n", arrivals[i].number, arrivals[i].mark,
			(long long)arrivals[i].microseconds);
	return fclose(file) == 0 ? 0 : 1;
}
