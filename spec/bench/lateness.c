/*
 * lateness.c - sends COUNT UDP packets to 127.0.0.1 at RATE a second, each with how long it is to
 * be delayed in its payload, receives them, and prints how late they came.
 *
 *     lateness PORT COUNT RATE LEAST MOST
 *
 * LEAST and MOST are seconds: a packet's delay is between them; the same for all when they are
 * equal. In the payload: sequence number, time of sending, delay, each 64 bits big-endian, times in
 * nanoseconds of CLOCK_MONOTONIC. Lateness is the time of receiving less the time of sending less
 * the delay, so the way to the queue and from it to the receiver is in it.
 *
 * It prints one line: how many came, how many of those were early, how many came in another order
 * than they were due, the most that were on their way at once, and the lateness in milliseconds:
 * median, 99 and 99.9 of a hundred, and the most. Then the same four of a thread that only sleeps
 * until every next millisecond meanwhile: no program can be better on this machine than that.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PER_CALL = 64, BURST_NS = 500000, NAP_NS = 1000000, NAPS_MOST = 100000 };

struct payload {
	uint64_t number, sent, delay;
};

struct run {
	int socket;
	uint64_t count, rate, least, most;
	struct sockaddr_in to;
	int64_t *late;
	uint64_t received, early, disordered;
	uint64_t sent_at_first; /* how many were sent when the first came back */
	int64_t *naps;		/* how late the sleeper woke */
	uint64_t nap_count;
	bool done;
};

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *send_all(void *argument)
{
	struct run *run = argument;
	uint64_t begin = now_ns(), random = 88172645463325252u;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (uint64_t i = 0; i < run->count;) {
		uint64_t passed = now_ns() - begin;
		uint64_t target = passed * run->rate / 1000000000 + 1;

		for (; i < target && i < run->count; i++) {
			struct payload payload = {.number = htobe64(i), .sent = htobe64(now_ns())};
			uint64_t delay = run->least;

			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			if (run->most > run->least)
				delay += random % (run->most - run->least);
			payload.delay = htobe64(delay);
			if (sendto(fd, &payload, sizeof(payload), 0, (struct sockaddr *)&run->to,
				   sizeof(run->to)) < 0)
				perror("sendto");
			__atomic_store_n(&run->sent_at_first, run->sent_at_first + !run->received,
					 __ATOMIC_RELAXED);
		}
		struct timespec pause = {.tv_nsec = BURST_NS};

		nanosleep(&pause, NULL);
	}
	close(fd);
	return NULL;
}

static void *sleep_on(void *argument)
{
	struct run *run = argument;
	uint64_t due = now_ns();

	while (run->nap_count < NAPS_MOST && !__atomic_load_n(&run->done, __ATOMIC_RELAXED)) {
		struct timespec until;

		due += NAP_NS;
		until.tv_sec = (time_t)(due / 1000000000);
		until.tv_nsec = (long)(due % 1000000000);
		/* At once when that has passed: what a long delay holds up is late, too. */
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		run->naps[run->nap_count++] = (int64_t)(now_ns() - due);
	}
	return NULL;
}

static int receive_all(struct run *run)
{
	struct payload payloads[PER_CALL];
	struct iovec pieces[PER_CALL];
	struct mmsghdr messages[PER_CALL];
	struct timeval patience = {.tv_sec = 10};
	uint64_t last_due = 0;

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < PER_CALL; i++) {
		pieces[i] = (struct iovec){&payloads[i], sizeof(payloads[i])};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
	}
	setsockopt(run->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while (run->received < run->count) {
		int got = recvmmsg(run->socket, messages, PER_CALL, MSG_WAITFORONE, NULL);
		uint64_t now = now_ns();

		if (got < 0)
			return errno == EAGAIN ? 0 : -1;
		for (int i = 0; i < got; i++) {
			uint64_t due = be64toh(payloads[i].sent) + be64toh(payloads[i].delay);

			run->late[run->received++] = (int64_t)(now - due);
			run->early += now < due;
			run->disordered += due < last_due;
			last_due = due;
		}
	}
	return 0;
}

static int compare(const void *one, const void *other)
{
	int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;

	return (a > b) - (a < b);
}

static void print_late(int64_t *late, uint64_t count)
{
	static const double shares[] = {0.5, 0.99, 0.999, 1};

	qsort(late, count, sizeof(*late), compare);
	for (unsigned i = 0; i < 4; i++)
		printf(" %.3f", (double)late[(uint64_t)((double)(count - 1) * shares[i])] / 1e6);
}

int main(int argc, char **argv)
{
	struct run run = {.to = {.sin_family = AF_INET}};
	int buffer = 256 << 20;
	pthread_t sender, sleeper;

	if (argc != 6) {
		fprintf(stderr, "usage: lateness PORT COUNT RATE LEAST MOST\n");
		return 64;
	}
	run.to.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	run.to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	run.count = strtoul(argv[2], NULL, 10);
	run.rate = strtoul(argv[3], NULL, 10);
	run.least = (uint64_t)(strtod(argv[4], NULL) * 1e9);
	run.most = (uint64_t)(strtod(argv[5], NULL) * 1e9);
	run.late = calloc(run.count + 1, sizeof(*run.late));
	run.naps = calloc(NAPS_MOST, sizeof(*run.naps));
	run.socket = socket(AF_INET, SOCK_DGRAM, 0);
	if (!run.late || !run.naps || run.socket < 0 ||
	    bind(run.socket, (struct sockaddr *)&run.to, sizeof(run.to)) < 0) {
		perror("socket");
		return 1;
	}
	setsockopt(run.socket, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	if (pthread_create(&sleeper, NULL, sleep_on, &run) != 0 ||
	    pthread_create(&sender, NULL, send_all, &run) != 0 || receive_all(&run) < 0) {
		perror("lateness");
		return 1;
	}
	__atomic_store_n(&run.done, true, __ATOMIC_RELAXED);
	pthread_join(sender, NULL);
	pthread_join(sleeper, NULL);
	if (run.received == 0 || run.nap_count == 0)
		return 1;
	printf("%lu %lu %lu %lu", (unsigned long)run.received, (unsigned long)run.early,
	       (unsigned long)run.disordered, (unsigned long)run.sent_at_first);
	print_late(run.late, run.received);
	print_late(run.naps, run.nap_count);
	printf("\n");
	return run.received == run.count ? 0 : 1;
}
