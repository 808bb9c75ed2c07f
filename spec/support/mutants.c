/*
 * mutants.c - packets changed at random, written to a tun device, so that the kernel takes them for
 * received.
 *
 *     mutants DEVICE SEEDS COUNT QUEUE SEED
 *
 * SEEDS is a file of packets, each behind its length (2 bytes, network order). Most mutants have
 * the version, lengths and IPv4 checksum that the kernel insists on before any hook sees them; what
 * else they are is left to the generator, which begins with SEED. Waits while many packets wait in
 * QUEUE (read in /proc). Ends with a line "wrote N".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 2000, SEEDS_MOST = 256, TURN = 64, WAITING_MOST = 1000, CHANGES_MOST = 6 };

struct packet {
	size_t length;
	uint8_t bytes[LARGEST];
};

struct run {
	struct packet seeds[SEEDS_MOST];
	unsigned seed_count;
	uint64_t random;
	FILE *queues;
	unsigned queue;
};

static void fail(const char *what)
{
	fprintf(stderr, "mutants: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* splitmix64, 0 to limit - 1 */
static uint32_t below(struct run *run, size_t limit)
{
	uint64_t z = run->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ (z >> 31)) % limit);
}

static void put16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void read_seeds(struct run *run, const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t length[2];

	if (!file)
		fail(path);
	while (run->seed_count < SEEDS_MOST && fread(length, 2, 1, file) == 1) {
		struct packet *seed = &run->seeds[run->seed_count++];

		seed->length = (size_t)length[0] << 8 | length[1];
		if (seed->length == 0 || seed->length > LARGEST ||
		    fread(seed->bytes, seed->length, 1, file) != 1) {
			fprintf(stderr, "mutants: %s: packet %u is not whole\n", path,
				run->seed_count);
			exit(1);
		}
	}
	if (run->seed_count == 0) {
		fprintf(stderr, "mutants: %s: no packets\n", path);
		exit(1);
	}
	fclose(file);
}

static void change(struct run *run, struct packet *packet)
{
	static const uint8_t telling[] = {0, 1, 4, 5, 8, 15, 16, 20, 40, 60, 127, 128, 254, 255};
	size_t at = below(run, packet->length);
	size_t some = 1 + below(run, 16);

	/* Headers are where most of what is read lies. */
	if (below(run, 2) && packet->length > 60)
		at = below(run, 60);
	switch (below(run, 7)) {
	case 0:
		packet->bytes[at] ^= (uint8_t)(1 << below(run, 8));
		break;
	case 1:
		packet->bytes[at] = telling[below(run, sizeof(telling))];
		break;
	case 2:
		packet->bytes[at] = (uint8_t)below(run, 256);
		break;
	case 3: /* some bytes come in */
		if (packet->length + some > LARGEST)
			break;
		memmove(packet->bytes + at + some, packet->bytes + at, packet->length - at);
		packet->length += some;
		break;
	case 4: /* go out */
		if (packet->length - at <= some)
			break;
		memmove(packet->bytes + at, packet->bytes + at + some, packet->length - at - some);
		packet->length -= some;
		break;
	case 5: /* come from elsewhere */
		if (packet->length < some + 1 || packet->length - at < some)
			break;
		memmove(packet->bytes + at, packet->bytes + below(run, packet->length - some),
			some);
		break;
	default: /* the end is cut off */
		packet->length = 1 + below(run, packet->length);
	}
}

static void sum_header(uint8_t *bytes, size_t length)
{
	uint32_t sum = 0;

	put16(bytes + 10, 0);
	for (size_t i = 0; i < length; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	sum = (sum >> 16) + (sum & 0xffff);
	put16(bytes + 10, ~(sum + (sum >> 16)) & 0xffff);
}

/* Makes it what the kernel lets in. */
static void mend(struct run *run, struct packet *packet, bool is_ip6)
{
	uint8_t *bytes = packet->bytes;
	size_t least = is_ip6 ? 40 : 20;
	size_t header = (size_t)4 * (bytes[0] & 15);
	size_t total;

	if (packet->length < least) {
		memset(bytes + packet->length, 0, least - packet->length);
		packet->length = least;
	}
	if (is_ip6) {
		bytes[0] = (uint8_t)(0x60 | (bytes[0] & 15));
		total = packet->length - 40;
		put16(bytes + 4, below(run, 8) ? total : below(run, total + 1));
		return;
	}
	if (header < 20 || header > packet->length)
		header = 20;
	bytes[0] = (uint8_t)(0x40 | header / 4);
	total = packet->length - header;
	put16(bytes + 2, header + (below(run, 8) ? total : below(run, total + 1)));
	sum_header(bytes, header);
}

static void wait_for_room(struct run *run)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	char line[256];
	unsigned queue, port, waiting;

	for (;;) {
		bool room = true;

		rewind(run->queues);
		while (fgets(line, sizeof(line), run->queues)) {
			if (sscanf(line, "%u %u %u", &queue, &port, &waiting) == 3 &&
			    queue == run->queue)
				room = waiting < WAITING_MOST;
		}
		if (room)
			return;
		nanosleep(&pause, NULL);
	}
}

static int open_device(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		fail(name);
	return fd;
}

int main(int argc, char **argv)
{
	static struct run run;
	static struct packet packet;
	uint64_t count, wrote = 0;
	int device;

	if (argc != 6) {
		fprintf(stderr, "usage: mutants DEVICE SEEDS COUNT QUEUE SEED\n");
		return 64;
	}
	read_seeds(&run, argv[2]);
	count = strtoull(argv[3], NULL, 10);
	run.queue = (unsigned)atoi(argv[4]);
	run.random = strtoull(argv[5], NULL, 10);
	run.queues = fopen("/proc/net/netfilter/nfnetlink_queue", "r");
	if (!run.queues)
		fail("nfnetlink_queue in /proc");
	setvbuf(run.queues, NULL, _IONBF, 0);
	device = open_device(argv[1]);
	for (uint64_t i = 0; i < count; i++) {
		bool is_ip6;

		if (i % TURN == 0)
			wait_for_room(&run);
		packet = run.seeds[below(&run, run.seed_count)];
		is_ip6 = packet.bytes[0] >> 4 == 6;
		for (unsigned left = below(&run, CHANGES_MOST + 1); left > 0; left--)
			change(&run, &packet);
		if (below(&run, 64))
			mend(&run, &packet, is_ip6);
		/* What is no IP at all the device refuses. */
		if (write(device, packet.bytes, packet.length) >= 0)
			wrote++;
		else if (errno != EINVAL && errno != EIO && errno != ENOBUFS)
			fail("write");
	}
	printf("wrote %" PRIu64 "\n", wrote);
	return 0;
}
