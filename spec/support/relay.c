/*
 * A bad line for specs: two tun devices, each in a network namespace, and this process between
 * them, which loses, duplicates and reorders what goes from one to the other, by a generator that
 * is seeded.
 *
 *   relay [-s SEED] [-l PERCENT] [-d PERCENT] [-r PERCENT] [-g] PID:DEVICE PID:DEVICE
 *
 * -l, -d, -r  how much of it is lost, sent twice, held back behind up to 8 later packets (default
 * 0; decimals) -g          the devices take large TCP segments (GSO). Loss is decided for each
 * packet such a segment stands for; what is left of it goes on as large as it can be.
 *
 * PID names the namespace (0: the own one). Says "ready" when the devices exist (down, without
 * addresses), and on SIGTERM a line for each direction, in this order: first to second, second to
 * first.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
	LARGEST = 65535,
	HOLDS = 32,
	HOLD_PACKETS = 8,
	HOLD_MS = 4,
	TURN = 64, /* packets of one direction before the other's turn */
};

/* What goes in and out of a device: with -g the virtio header and right behind it the bytes, else
 * these alone. */
struct packet {
	size_t length; /* of the bytes */
	struct virtio_net_hdr meta;
	uint8_t bytes[LARGEST];
};

static_assert(offsetof(struct packet, bytes) ==
		      offsetof(struct packet, meta) + sizeof(struct virtio_net_hdr),
	      "");

struct hold {
	struct packet *packet; /* NULL: free */
	uint64_t until;	       /* sent when so many have passed since the start */
	int64_t deadline;      /* or at this time, ms */
};

struct direction {
	int from, to;
	uint64_t random;
	uint64_t passed; /* packets sent, held ones apart: the clock of holds */
	struct hold holds[HOLDS];
	/* Wire-sized packets that came, were lost, duplicated; packets held back; large ones that
	 * came, went. */
	uint64_t packets, lost, duplicated, reordered, large_in, large_out;
};

struct settings {
	double loss, duplicates, reorder; /* 0 to 1 */
	bool large;
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static void fail(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool happens(struct direction *way, double probability)
{
	return (double)(next_random(&way->random) >> 11) * 0x1p-53 < probability;
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint32_t add_sum(uint32_t sum, const uint8_t *bytes, size_t length)
{
	size_t i;

	for (i = 0; i + 1 < length; i += 2)
		sum += get16(bytes + i);
	if (i < length)
		sum += (uint32_t)bytes[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void transmit(struct direction *way, const struct packet *packet, const struct settings *set)
{
	const void *start = set->large ? (const void *)&packet->meta : packet->bytes;
	size_t length = packet->length + (set->large ? sizeof(packet->meta) : 0);

	if (write(way->to, start, length) < 0 && errno != EIO) /* that: the device is down */
		fail("write");
	if (packet->meta.gso_type)
		way->large_out++;
}

/* Sends what was held back long enough. */
static void release(struct direction *way, const struct settings *set)
{
	for (int i = 0; i < HOLDS; i++) {
		struct hold *hold = &way->holds[i];

		if (hold->packet && (way->passed >= hold->until || now_ms() >= hold->deadline)) {
			transmit(way, hold->packet, set);
			free(hold->packet);
			hold->packet = NULL;
		}
	}
}

static bool hold_back(struct direction *way, const struct packet *packet)
{
	for (int i = 0; i < HOLDS; i++) {
		struct hold *hold = &way->holds[i];

		if (hold->packet)
			continue;
		hold->packet = malloc(sizeof(*packet));
		if (!hold->packet)
			fail("malloc");
		*hold->packet = *packet;
		hold->until = way->passed + 1 + next_random(&way->random) % HOLD_PACKETS;
		hold->deadline = now_ms() + HOLD_MS;
		return true;
	}
	return false;
}

/* One that was not lost. */
static void send_on(struct direction *way, const struct packet *packet, const struct settings *set)
{
	if (happens(way, set->reorder) && hold_back(way, packet)) {
		way->reordered++;
		return;
	}
	transmit(way, packet, set);
	way->passed++;
	if (happens(way, set->duplicates)) {
		way->duplicated++;
		transmit(way, packet, set);
	}
	release(way, set);
}

/* The checksum that was left to the device. */
static void complete_checksum(struct packet *packet)
{
	size_t start = packet->meta.csum_start;
	size_t at = start + packet->meta.csum_offset;

	if (!(packet->meta.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || at + 2 > packet->length)
		return;
	uint16_t sum = (uint16_t)~fold(add_sum(0, packet->bytes + start, packet->length - start));

	put16(packet->bytes + at, sum ? sum : 0xffff);
	memset(&packet->meta, 0, sizeof(packet->meta));
}

/*
 * The wire-sized packets from `first` to behind `last` of a large TCP segment, as one packet. Its
 * headers are those of the whole, but for lengths, the IPv4 id, the sequence number, and flags that
 * belong to one of them.
 */
static void cut(const struct packet *whole, size_t ip, size_t tcp, size_t first, size_t last,
		struct packet *part)
{
	size_t size = whole->meta.gso_size;
	size_t head = ip + tcp;
	size_t end = head + last * size < whole->length ? head + last * size : whole->length;
	uint8_t *bytes = part->bytes;
	uint8_t *flags = bytes + ip + 13;

	memset(&part->meta, 0, sizeof(part->meta));
	memcpy(bytes, whole->bytes, head);
	memcpy(bytes + head, whole->bytes + head + first * size, end - head - first * size);
	part->length = end - first * size;

	uint32_t seq = (uint32_t)get16(bytes + ip + 4) << 16 | get16(bytes + ip + 6);

	seq += (uint32_t)(first * size);
	put16(bytes + ip + 4, seq >> 16);
	put16(bytes + ip + 6, seq);
	if (first > 0)
		*flags &= 0x7f; /* CWR */
	if (end < whole->length)
		*flags &= 0xf6; /* FIN, PSH */

	size_t transport = part->length - ip;
	uint32_t sum = IPPROTO_TCP + (uint32_t)transport;

	if (bytes[0] >> 4 == 4) {
		put16(bytes + 2, (uint32_t)part->length);
		put16(bytes + 4, get16(bytes + 4) + (uint32_t)first);
		put16(bytes + 10, 0);
		put16(bytes + 10, (uint16_t)~fold(add_sum(0, bytes, ip)));
		sum = add_sum(sum, bytes + 12, 8);
	} else {
		put16(bytes + 4, (uint32_t)part->length - 40);
		sum = add_sum(sum, bytes + 8, 32);
	}
	put16(bytes + ip + 16, fold(sum));
	part->meta.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	part->meta.csum_start = (uint16_t)ip;
	part->meta.csum_offset = 16;
	if (last - first == 1 || part->length <= head + size) {
		complete_checksum(part);
		return;
	}
	part->meta.gso_type = whole->meta.gso_type;
	part->meta.gso_size = whole->meta.gso_size;
	part->meta.hdr_len = (uint16_t)head;
}

static void take_large(struct direction *way, const struct packet *whole,
		       const struct settings *set)
{
	static struct packet part;
	/* The kernel makes no large segments of packets with IPv6 extension headers. */
	size_t ip = whole->bytes[0] >> 4 == 4 ? (size_t)(whole->bytes[0] & 15) * 4 : 40;
	size_t tcp = (size_t)(whole->bytes[ip + 12] >> 4) * 4;
	size_t count = (whole->length - ip - tcp + whole->meta.gso_size - 1) / whole->meta.gso_size;
	size_t first = 0;

	way->large_in++;
	way->packets += count;
	for (size_t i = 0; i <= count; i++) {
		bool lost = i < count && happens(way, set->loss);

		if (lost)
			way->lost++;
		if (lost || i == count) {
			if (i > first) {
				cut(whole, ip, tcp, first, i, &part);
				send_on(way, &part, set);
			}
			first = i + 1;
		}
	}
}

/* Whether there was one. */
static bool take(struct direction *way, const struct settings *set)
{
	static struct packet packet;
	size_t head = set->large ? sizeof(packet.meta) : 0;
	ssize_t length =
		read(way->from, set->large ? (void *)&packet.meta : packet.bytes, head + LARGEST);

	if (length < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == EIO)
			return false;
		fail("read");
	}
	packet.length = (size_t)length - head;
	if (packet.meta.gso_type) {
		take_large(way, &packet, set);
		return true;
	}
	way->packets++;
	if (happens(way, set->loss)) {
		way->lost++;
		return true;
	}
	complete_checksum(&packet);
	send_on(way, &packet, set);
	return true;
}

/* A tun device in the namespace of a process; afterwards this process is in that namespace. */
static int open_device(const char *where, bool large)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	char *name;
	long pid = strtol(where, &name, 10);

	if (*name++ != ':' || !*name || strlen(name) >= IFNAMSIZ) {
		fprintf(stderr, "relay: %s is not PID:DEVICE\n", where);
		exit(64);
	}
	if (pid) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%ld/ns/net", pid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || setns(fd, CLONE_NEWNET))
			fail(path);
		close(fd);
	}
	strcpy(request.ifr_name, name);
	if (large)
		request.ifr_flags |= IFF_VNET_HDR;
	int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (device < 0)
		fail("/dev/net/tun");
	if (ioctl(device, TUNSETIFF, &request))
		fail(name);
	if (large && ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
		fail("TUNSETOFFLOAD");
	return device;
}

static double percent(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || !(value >= 0 && value <= 100)) {
		fprintf(stderr, "relay: %s is no percentage\n", text);
		exit(64);
	}
	return value / 100;
}

int main(int argc, char **argv)
{
	struct settings set = {0};
	uint64_t seed = 1;
	int option;

	while ((option = getopt(argc, argv, "s:l:d:r:g")) != -1) {
		switch (option) {
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'l':
			set.loss = percent(optarg);
			break;
		case 'd':
			set.duplicates = percent(optarg);
			break;
		case 'r':
			set.reorder = percent(optarg);
			break;
		case 'g':
			set.large = true;
			break;
		default:
			return 64;
		}
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: relay [-s SEED] [-l PERCENT] [-d PERCENT] [-r PERCENT] "
				"[-g] PID:DEVICE PID:DEVICE\n");
		return 64;
	}

	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int first = open_device(argv[optind], set.large);

	if (own < 0 || setns(own, CLONE_NEWNET))
		fail("/proc/self/ns/net");
	close(own);
	int second = open_device(argv[optind + 1], set.large);
	static struct direction ways[2];

	ways[0] = (struct direction){.from = first, .to = second, .random = seed};
	ways[1] = (struct direction){.from = second, .to = first, .random = ~seed};

	struct sigaction action = {.sa_handler = stop};
	sigset_t blocked, normal;

	/* Let in while it waits only, so that none is missed between the check and the wait. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &normal);
	sigaction(SIGTERM, &action, NULL);
	puts("ready");
	fflush(stdout);

	while (!stopped) {
		struct pollfd polls[2] = {{.fd = first, .events = POLLIN},
					  {.fd = second, .events = POLLIN}};
		struct timespec tick = {.tv_nsec = 1000000};
		bool holding = false;

		for (int w = 0; w < 2; w++)
			for (int i = 0; i < HOLDS; i++)
				holding |= ways[w].holds[i].packet != NULL;
		if (ppoll(polls, 2, holding ? &tick : NULL, &normal) < 0 && errno != EINTR)
			fail("ppoll");
		for (int w = 0; w < 2; w++) {
			for (int i = 0; i < TURN && take(&ways[w], &set); i++)
				;
			release(&ways[w], &set);
		}
	}

	for (int w = 0; w < 2; w++) {
		const struct direction *way = &ways[w];

		printf("packets=%" PRIu64 " lost=%" PRIu64 " duplicated=%" PRIu64
		       " reordered=%" PRIu64 " large_in=%" PRIu64 " large_out=%" PRIu64 "\n",
		       way->packets, way->lost, way->duplicated, way->reordered, way->large_in,
		       way->large_out);
	}
	return 0;
}
