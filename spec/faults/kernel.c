/* The kernel's side: netlink sockets are socket pairs, queues deliver packets and take verdicts. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fuzz/hostile.h"
#include "faults.h"
#include "netlink/config.h"

enum {
	VERDICT_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT,
	BATCH_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH,
	CONFIG_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG,
	SOCKETS = 16,
	PACKETS = 1024,
	BYTES = 1400, /* of one, at most */
	AT_ONCE = 7,  /* packets delivered at a time */
	RECEIVED = 1 << 20,
	PATIENCE = 3,	/* idle waits until what fails goes well again, */
	WAITS = 50,	/* of no use are as one that is idle */
	STUCK = 300,	/* nothing will come of what waits, */
	ENDLESS = 2000, /* and until it is a hang */
};

struct sent {
	uint16_t queue;
	uint32_t id;
	uint8_t bytes[BYTES];
	size_t length;
	int socket; /* it was delivered to; -1: not yet */
	bool arrived, released;
	uint32_t verdict, content;
	bool stops; /* its handler is to stop the loop */
	bool noted; /* by the first run: */
	uint32_t noted_verdict, noted_content;
};

static struct {
	pthread_mutex_t lock;
	int ends[SOCKETS], theirs[SOCKETS]; /* -1: none */
	int holder[65536];		    /* 1 + the socket that bound the queue */
	struct sent packets[PACKETS];
	unsigned count, noted;
	unsigned idle, waits; /* since a packet was delivered; timers may go on waking */
	struct sent stop;     /* what is sent when all is done */
	unsigned stops;	      /* sent */
	uint8_t received[RECEIVED];
	char problem[200];
} kernel = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What is wrapped is for the core. */
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);

static void complain(const char *what, const struct sent *sent)
{
	if (!kernel.problem[0])
		snprintf(kernel.problem, sizeof(kernel.problem), "packet %u of queue %u: %s",
			 sent->id, sent->queue, what);
}

void kernel_begin(void)
{
	for (unsigned i = 0; i < SOCKETS; i++)
		kernel.ends[i] = kernel.theirs[i] = -1;
	memset(kernel.holder, 0, sizeof(kernel.holder));
	kernel.count = kernel.idle = kernel.waits = kernel.stops = 0;
	kernel.stop.length = 0;
	kernel.problem[0] = '\0';
}

/* What waits for a verdict through this socket is the kernel's to drop. */
static void release(int socket, int queue)
{
	for (unsigned i = 0; i < kernel.count; i++) {
		struct sent *sent = &kernel.packets[i];

		if (sent->socket == socket && (queue < 0 || sent->queue == queue) && !sent->arrived)
			sent->released = true;
	}
	for (unsigned number = 0; number < COUNT(kernel.holder); number++)
		if (kernel.holder[number] == socket + 1 && (queue < 0 || (int)number == queue))
			kernel.holder[number] = 0;
}

int kernel_socket(void)
{
	int pair[2], size = 1 << 20, place = 0;

	pthread_mutex_lock(&kernel.lock);
	while (place < SOCKETS && kernel.ends[place] >= 0)
		place++;
	if (place == SOCKETS ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	for (unsigned i = 0; i < 2; i++)
		(void)__real_setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	kernel.ends[place] = pair[0];
	kernel.theirs[place] = pair[1];
	pthread_mutex_unlock(&kernel.lock);
	return pair[1];
}

bool kernel_owns(int fd)
{
	for (unsigned i = 0; i < SOCKETS; i++)
		if (kernel.ends[i] >= 0 && kernel.theirs[i] == fd)
			return true;
	return false;
}

static void answer(int socket, const uint8_t *request, int error)
{
	struct {
		struct nlmsghdr head;
		int error;
		struct nlmsghdr about;
	} message = {.head = {.nlmsg_len = sizeof(message), .nlmsg_type = NLMSG_ERROR}};

	memcpy(&message.about, request, sizeof(message.about));
	message.head.nlmsg_seq = message.about.nlmsg_seq;
	message.error = error;
	(void)sendto(kernel.ends[socket], &message, sizeof(message), MSG_NOSIGNAL, NULL, 0);
}

static void configure(int socket, const uint8_t *bytes, size_t length)
{
	unsigned queue = get16(bytes + 18);
	int error = kernel.holder[queue] == socket + 1 ? 0 : -ENODEV;

	for (size_t at = HEADER; at + 5 <= length; at += (host16(bytes + at) + 3U) & ~3U) {
		if (host16(bytes + at) < 4)
			break;
		if (host16(bytes + at + 2) != NFQA_CFG_CMD)
			continue;
		if (bytes[at + 4] == NFQNL_CFG_CMD_BIND) {
			error = kernel.holder[queue] ? -EBUSY : 0;
			if (!error)
				kernel.holder[queue] = socket + 1;
		} else if (bytes[at + 4] == NFQNL_CFG_CMD_UNBIND) {
			release(socket, (int)queue);
		}
	}
	answer(socket, bytes, error);
}

static void take(struct sent *sent, uint32_t verdict, uint32_t content, bool doubtful)
{
	if (sent->arrived) {
		if (!doubtful)
			complain("two verdicts", sent);
		return;
	}
	if (sent->released)
		return; /* which the kernel would say */
	sent->arrived = true;
	sent->verdict = verdict;
	sent->content = content;
}

static void take_verdict(const uint8_t *bytes, size_t length)
{
	unsigned queue = get16(bytes + 18);
	bool doubtful = nq_seq_class(host32(bytes + 8)) == NQ_SEQ_DOUBTFUL;
	bool batch = host16(bytes + 4) == BATCH_TYPE;
	uint32_t verdict = 0, id = 0, content = 0;

	for (size_t at = HEADER; at + 4 <= length;) {
		size_t size = host16(bytes + at);

		if (size < 4 || size > length - at)
			break;
		if (host16(bytes + at + 2) == NFQA_VERDICT_HDR) {
			verdict = get32(bytes + at + 4);
			id = get32(bytes + at + 8);
		} else if (host16(bytes + at + 2) == NFQA_PAYLOAD) {
			content = 1;
			for (size_t i = 4; i < size; i++)
				content = content * 31 + bytes[at + i];
		}
		at += (size + 3) & ~(size_t)3;
	}
	for (unsigned i = 0; i < kernel.count; i++) {
		struct sent *sent = &kernel.packets[i];

		if (sent->queue != queue || sent->socket < 0)
			continue;
		if (sent->id == id)
			take(sent, verdict, content, doubtful);
		else if (batch && sent->id < id && !sent->arrived)
			take(sent, verdict, content, doubtful);
	}
}

static void read_socket(int socket)
{
	for (;;) {
		ssize_t got = recv(kernel.ends[socket], kernel.received, RECEIVED, MSG_DONTWAIT);

		/* Closed; with something unread in it that is an error. */
		if (got == 0 || (got < 0 && errno == ECONNRESET)) {
			release(socket, -1);
			close(kernel.ends[socket]);
			kernel.ends[socket] = kernel.theirs[socket] = -1;
			return;
		}
		if (got < 0)
			return;
		for (size_t at = 0; at + HEADER <= (size_t)got;) {
			const uint8_t *bytes = kernel.received + at;
			size_t size = host32(bytes);

			if (size < HEADER || size > (size_t)got - at)
				break;
			if (host16(bytes + 4) == CONFIG_TYPE)
				configure(socket, bytes, size);
			else
				take_verdict(bytes, size);
			at += (size + 3) & ~(size_t)3;
		}
	}
}

static void deliver(struct sent *sent)
{
	struct message message;

	hostile_start(&message);
	message.bytes[18] = (uint8_t)(sent->queue >> 8);
	message.bytes[19] = (uint8_t)sent->queue;
	hostile_put_header(&message);
	message.bytes[HEADER + 4] = (uint8_t)(sent->id >> 24);
	message.bytes[HEADER + 5] = (uint8_t)(sent->id >> 16);
	message.bytes[HEADER + 6] = (uint8_t)(sent->id >> 8);
	message.bytes[HEADER + 7] = (uint8_t)sent->id;
	hostile_put32(&message, NFQA_IFINDEX_INDEV, 1);
	hostile_put(&message, NFQA_PAYLOAD, sent->bytes, sent->length);
	sent->socket = kernel.holder[sent->queue] - 1;
	if (sendto(kernel.ends[sent->socket], message.bytes, message.length, MSG_NOSIGNAL, NULL,
		   0) < 0)
		abort();
}

void kernel_run(void)
{
	unsigned delivered = 0;

	pthread_mutex_lock(&kernel.lock);
	for (int i = 0; i < SOCKETS; i++)
		if (kernel.ends[i] >= 0)
			read_socket(i);
	for (unsigned i = 0; i < kernel.count && delivered < AT_ONCE; i++) {
		struct sent *sent = &kernel.packets[i];

		if (sent->socket >= 0 || !kernel.holder[sent->queue])
			continue;
		deliver(sent);
		delivered++;
		kernel.idle = kernel.waits = 0;
	}
	pthread_mutex_unlock(&kernel.lock);
}

static unsigned count_waiting(void)
{
	unsigned waiting = 0;

	for (unsigned i = 0; i < kernel.count; i++)
		waiting += !kernel.packets[i].arrived && !kernel.packets[i].released;
	return waiting;
}

static void add_packet(uint16_t queue, const void *bytes, size_t length, bool stops)
{
	struct sent *sent = &kernel.packets[kernel.count];
	uint32_t id = 1;

	if (kernel.count == PACKETS || length > BYTES)
		abort();
	for (unsigned i = 0; i < kernel.count; i++)
		id += kernel.packets[i].queue == queue;
	memcpy(sent->bytes, bytes, length);
	sent->queue = queue;
	sent->id = id;
	sent->length = length;
	sent->socket = -1;
	sent->stops = stops;
	sent->arrived = sent->released = false;
	kernel.count++;
}

void kernel_idle(void)
{
	const struct sent *stop = &kernel.stop;
	bool done;

	pthread_mutex_lock(&kernel.lock);
	/* The first stop may be one of the things that fail. A thread that is slow is waited for.
	 */
	kernel.idle++;
	done = count_waiting() == 0 || kernel.idle % STUCK == 0;
	if (kernel.idle >= PATIENCE && (kernel.stops > 0 || !done))
		fault_disarm();
	if (stop->length && done && (kernel.stops == 0 || kernel.idle % PATIENCE == 0)) {
		kernel.stops++;
		add_packet(stop->queue, stop->bytes, stop->length, true);
	}
	if (kernel.idle > ENDLESS) {
		printf("it waits for ever\n");
		abort();
	}
	pthread_mutex_unlock(&kernel.lock);
}

void kernel_wait(void)
{
	kernel_run();
	if (__atomic_add_fetch(&kernel.waits, 1, __ATOMIC_SEQ_CST) % WAITS == 0)
		kernel_idle();
}

/* --- For the scenarios --- */

static int kernel_send(lua_State *L)
{
	size_t length;
	uint16_t queue = (uint16_t)luaL_checkinteger(L, 1);
	const char *bytes = luaL_checklstring(L, 2, &length);

	pthread_mutex_lock(&kernel.lock);
	add_packet(queue, bytes, length, false);
	kernel.idle = 0;
	pthread_mutex_unlock(&kernel.lock);
	return 0;
}

static int kernel_stop(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);

	if (length > BYTES)
		abort();
	kernel.stop.queue = (uint16_t)luaL_checkinteger(L, 1);
	kernel.stop.length = length;
	memcpy(kernel.stop.bytes, bytes, length);
	return 0;
}

static int kernel_waiting(lua_State *L)
{
	kernel_run();
	lua_pushinteger(L, count_waiting());
	return 1;
}

void kernel_register(lua_State *L)
{
	static const luaL_Reg functions[] = {{"send", kernel_send},
					     {"stop", kernel_stop},
					     {"waiting", kernel_waiting},
					     {NULL, NULL}};

	luaL_newlib(L, functions);
	lua_setglobal(L, "kernel");
}

const char *kernel_judge(bool first, bool excused)
{
	kernel_run();
	for (unsigned i = 0; i < kernel.count; i++) {
		struct sent *sent = &kernel.packets[i];

		if (first) {
			sent->noted = sent->arrived;
			sent->noted_verdict = sent->verdict;
			sent->noted_content = sent->content;
		}
		if (!sent->arrived && (sent->socket >= 0 || first) && !excused)
			complain("no verdict", sent);
		if (!sent->arrived || first || sent->stops)
			continue;
		/* As it was decided, or dropped as an error's. */
		if (sent->noted && sent->verdict == sent->noted_verdict &&
		    sent->content == sent->noted_content)
			continue;
		if (sent->verdict != NF_DROP)
			complain("another verdict", sent);
	}
	return kernel.problem[0] ? kernel.problem : NULL;
}

void kernel_end(void)
{
	for (unsigned i = 0; i < SOCKETS; i++)
		if (kernel.ends[i] >= 0)
			close(kernel.ends[i]);
}
