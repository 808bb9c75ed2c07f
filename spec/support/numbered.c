/*
 * numbered.c - sends numbered UDP packets to itself through whatever lies between, and tells which
 * of them came back: missing ones, double ones, and ones with another content than they should
 * have.
 *
 *     numbered PORT COUNT WINDOW RATE KINDS [SEED [SIZE]]
 *
 * KINDS says what is to become of packets, separated by commas: a letter (a: it arrives as it was
 * sent, e: it arrives edited, l: it arrives edited and one byte longer, d: it does not arrive, u:
 * it may arrive or not) and the number of the socket it is sent from, 0 to 9; "*" and a number make
 * it more frequent by as much. Each packet is of one of these kinds, chosen by a generator of
 * random numbers that begins with SEED.
 *
 * WINDOW is how many of those that are to arrive may be on their way; 0: no limit. RATE is how many
 * packets are sent in a second, 0: as fast as it goes. An error of the kernel for a packet (a full
 * queue) is counted, and that packet is taken for sent.
 *
 * Nobody can tell when all of those that may arrive have. With such kinds it says "all sent" and
 * goes on receiving until a packet comes whose payload is "tell".
 *
 * Payload of SIZE bytes (default 32): number (8 bytes), kind (1), 'o' (1; 'E' when edited), 'x'
 * until its end.
 *
 * Output: a line "sent S refused R received C missing M double D wrong W stray T seconds F sending
 * G" (G: of these, until the last was sent), and for each kind a line "kind K sent S received C".
 * Strays are packets that this run did not send, or kinds that should not have arrived. The status
 * is 1 when nothing came for ten seconds while something was to come.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, KINDS = 64, SOCKETS = 10, SIZE_MOST = 1400, SILENCE_MS = 10000, AFTER_MS = 100 };
enum { BUFFER = 64 << 20 };
enum { AT_KIND = 8, AT_STATE = 9, SIZE_LEAST = 10 };

struct kind {
	char fate;
	int socket;
	unsigned long below; /* its share, and of those before it */
	uint64_t sent, received;
};

struct run {
	struct kind kinds[KINDS];
	unsigned kind_count;
	int senders[SOCKETS], receiver;
	uint64_t count, window, rate, seed;
	size_t size;
	uint8_t *arrived; /* a bit for each number */
	uint64_t sent, refused, received, doubles, wrong, strays;
	uint64_t expected; /* sent, and to arrive */
	uint64_t due;	   /* of these, how many arrived */
	bool open_end, told;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* The kind of a packet follows from its number alone (splitmix64). */
static unsigned kind_of(const struct run *run, uint64_t number)
{
	uint64_t z = run->seed + (number + 1) * 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	z = (z ^ (z >> 31)) % run->kinds[run->kind_count - 1].below;
	for (unsigned kind = 0;; kind++) {
		if (z < run->kinds[kind].below)
			return kind;
	}
}

static int open_socket(bool receives, uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int size = BUFFER, one = 1;
	int option = receives ? SO_RCVBUF : SO_SNDBUF;
	int force = receives ? SO_RCVBUFFORCE : SO_SNDBUFFORCE;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	/* Without the privilege for more the window has to be small enough. */
	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof(size)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, option, &size, sizeof(size));
	address.sin_port = htons(port);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (port && bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("bind");
	return fd;
}

static void take(struct run *run, const uint8_t *payload, size_t length)
{
	uint64_t number;
	struct kind *kind;
	bool edited, longer;

	if (run->open_end && length == 4 && memcmp(payload, "tell", 4) == 0) {
		run->told = true;
		return;
	}
	run->received++;
	if (length < SIZE_LEAST) {
		run->strays++;
		return;
	}
	memcpy(&number, payload, sizeof(number));
	number = be64toh(number);
	if (number >= run->sent || payload[AT_KIND] != kind_of(run, number)) {
		run->strays++;
		return;
	}
	if (run->arrived[number / 8] & 1 << number % 8) {
		run->doubles++;
		return;
	}
	run->arrived[number / 8] = (uint8_t)(run->arrived[number / 8] | 1 << number % 8);
	kind = &run->kinds[payload[AT_KIND]];
	kind->received++;
	edited = kind->fate == 'e' || kind->fate == 'l';
	longer = kind->fate == 'l';
	if (kind->fate == 'd')
		run->strays++;
	else if (payload[AT_STATE] != (edited ? 'E' : 'o') || length != run->size + longer)
		run->wrong++;
	if (kind->fate != 'd' && kind->fate != 'u')
		run->due++;
}

/* Takes what is there. */
static void receive(struct run *run)
{
	static uint8_t payloads[BATCH][SIZE_MOST + 2];
	struct mmsghdr messages[BATCH];
	struct iovec pieces[BATCH];
	int got;

	do {
		memset(messages, 0, sizeof(messages));
		for (int i = 0; i < BATCH; i++) {
			pieces[i] = (struct iovec){payloads[i], sizeof(payloads[i])};
			messages[i].msg_hdr =
				(struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
		}
		got = recvmmsg(run->receiver, messages, BATCH, MSG_DONTWAIT, NULL);
		for (int i = 0; i < got; i++)
			take(run, payloads[i], messages[i].msg_len);
	} while (got == BATCH);
	if (got < 0 && errno != EAGAIN && errno != EINTR)
		die("recvmmsg");
}

/* Sends up to a batch of successive numbers that leave from one socket: how many were sent. */
static unsigned send_some(struct run *run, uint64_t most)
{
	static uint8_t payloads[BATCH][SIZE_MOST];
	struct sockaddr_in to;
	socklen_t size = sizeof(to);
	struct mmsghdr messages[BATCH] = {0};
	struct iovec pieces[BATCH];
	unsigned ready = 0;
	int first = -1, got;

	if (getsockname(run->receiver, (struct sockaddr *)&to, &size) < 0)
		die("getsockname");
	while (ready < BATCH && ready < most) {
		uint64_t number = run->sent + ready;
		unsigned kind = kind_of(run, number);
		uint8_t *payload = payloads[ready];
		uint64_t big = htobe64(number);

		if (first < 0)
			first = run->kinds[kind].socket;
		else if (first != run->kinds[kind].socket)
			break;
		memset(payload, 'x', run->size);
		memcpy(payload, &big, sizeof(big));
		payload[AT_KIND] = (uint8_t)kind;
		payload[AT_STATE] = 'o';
		pieces[ready] = (struct iovec){payload, run->size};
		messages[ready].msg_hdr = (struct msghdr){.msg_name = &to,
							  .msg_namelen = size,
							  .msg_iov = &pieces[ready],
							  .msg_iovlen = 1};
		ready++;
	}
	got = sendmmsg(run->senders[first], messages, ready, MSG_DONTWAIT);
	if (got < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return 0;
		run->refused++; /* the first of them: its way has ended */
		got = 1;
	}
	for (int i = 0; i < got; i++) {
		struct kind *kind = &run->kinds[kind_of(run, run->sent)];

		kind->sent++;
		run->expected += kind->fate != 'd' && kind->fate != 'u';
		run->sent++;
	}
	return (unsigned)got;
}

static void read_kinds(struct run *run, const char *text)
{
	while (*text) {
		struct kind *kind = &run->kinds[run->kind_count];

		if (run->kind_count == KINDS || !strchr("aeldu", text[0]) || text[1] < '0' ||
		    text[1] > '9') {
			fprintf(stderr, "bad kinds from '%s' on\n", text);
			exit(64);
		}
		*kind = (struct kind){.fate = text[0], .socket = text[1] - '0'};
		kind->below = run->kind_count ? kind[-1].below : 0;
		run->kind_count++;
		run->open_end |= kind->fate == 'u';
		text += 2;
		if (*text == '*') {
			char *end;

			kind->below += strtoul(text + 1, &end, 10);
			text = end;
		} else {
			kind->below++;
		}
		text += *text == ',';
	}
}

/* Waits a little for something to receive. */
static void pause_a_little(const struct run *run, int milliseconds)
{
	struct pollfd ready = {.fd = run->receiver, .events = POLLIN};

	(void)poll(&ready, 1, milliseconds);
}

/* How many may be sent now. */
static uint64_t allowance(const struct run *run, uint64_t elapsed_ns)
{
	uint64_t most = run->count - run->sent;

	if (run->rate) {
		uint64_t due = (uint64_t)((double)elapsed_ns * (double)run->rate / 1e9);

		most = due <= run->sent ? 0 : due - run->sent < most ? due - run->sent : most;
	}
	if (run->window) {
		uint64_t out = run->expected - run->due;

		most = out >= run->window ? 0 : run->window - out < most ? run->window - out : most;
	}
	return most;
}

int main(int argc, char **argv)
{
	struct run run = {.size = 32, .seed = 1};
	uint64_t start, heard, last = 0, end, sending;
	bool gave_up = false;

	if (argc < 6 || argc > 8) {
		fprintf(stderr, "usage: numbered PORT COUNT WINDOW RATE KINDS [SEED [SIZE]]\n");
		return 64;
	}
	run.count = strtoull(argv[2], NULL, 10);
	run.window = strtoull(argv[3], NULL, 10);
	run.rate = strtoull(argv[4], NULL, 10);
	read_kinds(&run, argv[5]);
	if (argc > 6)
		run.seed = strtoull(argv[6], NULL, 10);
	if (argc > 7)
		run.size = strtoull(argv[7], NULL, 10);
	if (run.size < SIZE_LEAST || run.size > SIZE_MOST || run.kind_count == 0 ||
	    run.kinds[run.kind_count - 1].below == 0) {
		fprintf(stderr, "SIZE is %d to %d, and there is a kind at least\n", SIZE_LEAST,
			SIZE_MOST);
		return 64;
	}
	run.arrived = calloc(run.count / 8 + 1, 1);
	if (!run.arrived)
		die("calloc");
	run.receiver = open_socket(true, (uint16_t)strtoul(argv[1], NULL, 10));
	for (int i = 0; i < SOCKETS; i++)
		run.senders[i] = open_socket(false, 0);
	start = heard = now_ns();
	while (run.sent < run.count) {
		uint64_t now = now_ns();
		uint64_t most = allowance(&run, now - start);

		if (!most || !send_some(&run, most))
			pause_a_little(&run, 1);
		receive(&run);
		if (run.received + run.sent != last || run.rate)
			heard = now;
		last = run.received + run.sent;
		if (now - heard > SILENCE_MS * 1000000ull) {
			gave_up = true;
			break;
		}
	}
	/* The rest, and a moment for what must not come. */
	heard = now_ns();
	sending = heard - start;
	if (run.open_end) {
		printf("all sent\n");
		fflush(stdout);
	}
	while ((run.due < run.expected || run.open_end > run.told) && !gave_up) {
		last = run.received;
		pause_a_little(&run, 20);
		receive(&run);
		if (run.received != last)
			heard = now_ns();
		else if (now_ns() - heard > SILENCE_MS * 1000000ull)
			gave_up = true;
	}
	end = now_ns();
	while (now_ns() - end < AFTER_MS * 1000000ull) {
		pause_a_little(&run, 10);
		receive(&run);
	}
	printf("sent %llu refused %llu received %llu missing %llu double %llu wrong %llu stray "
	       "%llu "
	       "seconds %.3f sending %.3f\n",
	       (unsigned long long)run.sent, (unsigned long long)run.refused,
	       (unsigned long long)run.received, (unsigned long long)(run.expected - run.due),
	       (unsigned long long)run.doubles, (unsigned long long)run.wrong,
	       (unsigned long long)run.strays, (double)(end - start) / 1e9, (double)sending / 1e9);
	for (unsigned i = 0; i < run.kind_count; i++)
		printf("kind %u sent %llu received %llu\n", i,
		       (unsigned long long)run.kinds[i].sent,
		       (unsigned long long)run.kinds[i].received);
	return gave_up;
}
