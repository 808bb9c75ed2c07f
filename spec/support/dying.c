/*
 * dying.c - preloaded into `nfqueue run`, kills its worker with SIGKILL in the narrow places
 * between system calls, told where by the packets themselves:
 *
 *     die received         on return from the recvmmsg that brought this packet
 *     die lost             the same, and as if the kernel had taken it back: its message is gone
 *     die before send N    at the N-th sendmsg from there on, which does not take place
 *     die after send N     at the N-th sendmsg from there on, which has taken place
 *     halt at barrier      the successor that takes over next stops (SIGSTOP) when it has sent the
 *                          first barrier of its takeover, the first use it makes of send(2)
 *
 * A successor finds the packet in the shared memory and does not receive it, so it lives.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct order {
	long before, after; /* sends left until death; 0: none ordered */
};

static __thread struct order order;
static struct shared {
	int halt;
} * shared; /* with the workers to come */

__attribute__((constructor)) static void share(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		abort();
}

static void die(void)
{
	(void)syscall(SYS_kill, getpid(), SIGKILL);
	for (;;)
		pause();
}

static const char *find(const struct iovec *piece, size_t length, const char *words)
{
	return length <= piece->iov_len ? memmem(piece->iov_base, length, words, strlen(words))
					: NULL;
}

/* What this message orders; messages in which nothing follows the words end with zeros or the
 * slot's older content, so numbers have one digit. */
static void read_order(struct mmsghdr *message)
{
	const struct iovec *piece = message->msg_hdr.msg_iov;
	const char *at;

	if (find(piece, message->msg_len, "halt at barrier"))
		shared->halt = 1;
	if (find(piece, message->msg_len, "die received"))
		die();
	if (find(piece, message->msg_len, "die lost")) {
		message->msg_len = 0;
		die();
	}
	at = find(piece, message->msg_len, "die before send ");
	if (at)
		order.before = at[16] - '0';
	at = find(piece, message->msg_len, "die after send ");
	if (at)
		order.after = at[15] - '0';
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
	int (*real)(int, struct mmsghdr *, unsigned, int, struct timespec *) =
		(int (*)(int, struct mmsghdr *, unsigned, int, struct timespec *))dlsym(RTLD_NEXT,
											"recvmmsg");
	int got = real(fd, messages, count, flags, timeout);

	for (int i = 0; i < got; i++)
		read_order(&messages[i]);
	return got;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) =
		(ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
	ssize_t sent;

	if (order.before && --order.before == 0)
		die();
	sent = real(fd, message, flags);
	if (order.after && --order.after == 0)
		die();
	return sent;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
	ssize_t (*real)(int, const void *, size_t, int) =
		(ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
	ssize_t sent = real(fd, bytes, length, flags);

	if (shared->halt) {
		shared->halt = 0;
		(void)syscall(SYS_kill, getpid(), SIGSTOP);
	}
	return sent;
}
