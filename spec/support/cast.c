/*
 * cast.c - sends packets of any transport, and tells of those that arrive whether they are right.
 *
 *     cast send ADDRESS [df]
 *
 * reads packets from standard input, each a protocol (1 byte), a length (4 bytes, network order)
 * and as many bytes from the transport header on, and sends them to ADDRESS, IPv4 or IPv6. The
 * kernel makes the IP header: with "df" IPv4's says that the packet must not be fragmented. What
 * the kernel does not send is told on standard output: "refused ERRNO".
 *
 *     cast receive ADDRESS
 *
 * tells of each UDP, TCP and ICMP echo request packet that arrives for ADDRESS, put together from
 * its fragments, in a line: "PROTOCOL LENGTH SUM HEAD CONTENT". PROTOCOL is its number, LENGTH that
 * of the packet from its IP header on, SUM "good" or "bad": all its lengths and checksums; HEAD the
 * first eight bytes of its payload ("-" for each that is none of letters and digits; shorter where
 * the payload is), CONTENT "whole" when the payload repeats these until its end, else "torn".
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 17, UNIT = 8, BUFFER = 16 << 20, IPV6_HEADER = 40 };

struct address {
	struct sockaddr_storage socket;
	socklen_t size;
	bool six;
};

static const int protocols[] = {IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_ICMPV6};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void read_address(struct address *address, const char *text)
{
	struct sockaddr_in *four = (struct sockaddr_in *)&address->socket;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->socket;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		address->size = sizeof(*four);
	} else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		address->size = sizeof(*six);
		address->six = true;
	} else {
		fprintf(stderr, "no address: %s\n", text);
		exit(64);
	}
}

/* -1 where the protocol is not one of this version of IP. */
static int open_raw(const struct address *address, int protocol)
{
	int size = BUFFER;
	int fd;

	if (address->six ? protocol == IPPROTO_ICMP : protocol == IPPROTO_ICMPV6)
		return -1;
	fd = socket(address->six ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		die("socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return fd;
}

static bool read_all(void *bytes, size_t size)
{
	return fread(bytes, 1, size, stdin) == size;
}

static int send_all(const struct address *to, bool df)
{
	static uint8_t bytes[MOST];
	int fds[256];
	uint8_t protocol;
	uint32_t length;

	for (unsigned i = 0; i < 256; i++)
		fds[i] = -1;
	for (unsigned i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
		int discover = df ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT;
		int fd = open_raw(to, protocols[i]);

		fds[protocols[i]] = fd;
		if (fd >= 0 && !to->six &&
		    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover)) < 0)
			die("IP_MTU_DISCOVER");
	}
	while (read_all(&protocol, 1) && read_all(&length, 4)) {
		length = ntohl(length);
		if (length > MOST || !read_all(bytes, length))
			return 1;
		if (sendto(fds[protocol], bytes, length, 0, (const struct sockaddr *)&to->socket,
			   to->size) < 0) {
			printf("refused %d\n", errno);
			fflush(stdout);
		}
	}
	return 0;
}

static uint32_t add(uint32_t sum, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	if (length % 2)
		sum += (uint32_t)bytes[length - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Of the addresses, the protocol and the length (RFC 768, RFC 8200 section 8.1). */
static uint32_t add_pseudo(const uint8_t *addresses, size_t width, int protocol, size_t length)
{
	uint8_t end[4] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length,
			  (uint8_t)protocol};
	uint32_t sum = add(0, addresses, 2 * width);

	return add(sum + (uint32_t)(end[0]) + end[3], end + 1, 2);
}

static void report(int protocol, const uint8_t *header, size_t header_length, bool good,
		   const uint8_t *addresses, size_t width, const uint8_t *transport, size_t length)
{
	size_t offset = protocol == IPPROTO_TCP && length >= 20 ? (transport[12] >> 4) * 4u : 8;
	bool whole = true;
	char head[UNIT + 1] = "";

	if (header)
		good = good && add(0, header, header_length) == 0xffff;
	if (length < offset) {
		printf("%d %zu bad cut torn\n", protocol, header_length + length);
		return;
	}
	if (protocol == IPPROTO_ICMP) {
		good = good && add(0, transport, length) == 0xffff;
	} else {
		uint32_t sum = add_pseudo(addresses, width, protocol, length);

		good = good && add(sum, transport, length) == 0xffff;
	}
	if (protocol == IPPROTO_UDP)
		good = good && (size_t)(transport[4] << 8 | transport[5]) == length;
	for (size_t i = offset; i < length; i++) {
		if (i - offset < UNIT)
			head[i - offset] = (char)(isalnum(transport[i]) ? transport[i] : '-');
		else
			whole = whole && transport[i] == transport[i - UNIT];
	}
	printf("%d %zu %s %s %s\n", protocol, header_length + length, good ? "good" : "bad",
	       head[0] ? head : "-", whole ? "whole" : "torn");
}

static void receive(const struct address *own, int fd, int protocol)
{
	static uint8_t bytes[MOST];
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	ssize_t got = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &size);
	const uint8_t *transport = bytes;
	size_t length = (size_t)got, header = 0;
	uint8_t addresses[32];

	if (got < 0)
		die("recvfrom");
	if (own->six) {
		memcpy(addresses, &((struct sockaddr_in6 *)&from)->sin6_addr, 16);
		memcpy(addresses + 16, &((const struct sockaddr_in6 *)&own->socket)->sin6_addr, 16);
	} else {
		header = (bytes[0] & 15) * 4u;
		memcpy(addresses, bytes + 12, 8);
		if (memcmp(addresses + 4, &((const struct sockaddr_in *)&own->socket)->sin_addr, 4))
			return;
		transport += header;
		length -= header;
	}
	if ((protocol == IPPROTO_ICMP && transport[0] != ICMP_ECHO) ||
	    (protocol == IPPROTO_ICMPV6 && transport[0] != 128))
		return;
	if (own->six)
		report(protocol, NULL, IPV6_HEADER, true, addresses, 16, transport, length);
	else
		report(protocol, bytes, header, (size_t)(bytes[2] << 8 | bytes[3]) == (size_t)got,
		       addresses, 4, transport, length);
	fflush(stdout);
}

static _Noreturn void receive_all(const struct address *own)
{
	enum { COUNT = sizeof(protocols) / sizeof(protocols[0]) };
	struct pollfd fds[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		fds[i] = (struct pollfd){.fd = open_raw(own, protocols[i]), .events = POLLIN};
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		if (poll(fds, COUNT, -1) < 0 && errno != EINTR)
			die("poll");
		for (unsigned i = 0; i < COUNT; i++) {
			if (fds[i].revents)
				receive(own, fds[i].fd, protocols[i]);
		}
	}
}

int main(int argc, char **argv)
{
	struct address address;

	if (argc >= 3) {
		read_address(&address, argv[2]);
		if (strcmp(argv[1], "send") == 0)
			return send_all(&address, argc > 3 && strcmp(argv[3], "df") == 0);
		if (strcmp(argv[1], "receive") == 0)
			receive_all(&address);
	}
	fprintf(stderr, "usage: cast send ADDRESS [df] | cast receive ADDRESS\n");
	return 64;
}
