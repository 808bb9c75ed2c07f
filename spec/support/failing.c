/*
 * failing.c - preloaded into `nfqueue run`, has calls of its worker fail, told which by the packets
 * themselves:
 *
 *     fail CALL N TIMES ERRNO
 *
 * From the return of the recvmmsg that brought this on, the N-th CALL of the process and those
 * after it, TIMES in all, fail with ERRNO. CALL is one of the names below; "memory" is malloc,
 * calloc and realloc. A send of ERRNO 0 takes place and tells of half of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct order {
	const char *name;
	long wait, times; /* calls until it fails, and so often then */
	int error;
} orders[] = {{.name = "recvmmsg"}, {.name = "sendmsg"}, {.name = "epoll_wait"},
	      {.name = "read"},	    {.name = "write"},	 {.name = "timerfd_settime"},
	      {.name = "memory"}};

enum { RECVMMSG, SENDMSG, EPOLL_WAIT, READ, WRITE, SETTIME, MEMORY, CALLS };

/* Whether this one fails; errno is set then. Threads of one process may come here at once. */
static bool fails(int call)
{
	struct order *order = &orders[call];

	if (__atomic_load_n(&order->times, __ATOMIC_SEQ_CST) <= 0 ||
	    __atomic_sub_fetch(&order->wait, 1, __ATOMIC_SEQ_CST) > 0)
		return false;
	if (__atomic_fetch_sub(&order->times, 1, __ATOMIC_SEQ_CST) <= 0)
		return false;
	errno = order->error;
	return true;
}

static void read_order(const struct mmsghdr *message)
{
	const struct iovec *piece = message->msg_hdr.msg_iov;
	const char *at = memmem(piece->iov_base, message->msg_len, "fail ", 5);
	char text[64] = "", name[32];
	long wait, times;
	int error;

	if (!at)
		return;
	memcpy(text, at, sizeof(text) - 1); /* there is room behind the message */
	if (sscanf(text, "fail %31s %ld %ld %d", name, &wait, &times, &error) != 4)
		return;
	for (int i = 0; i < CALLS; i++) {
		if (strcmp(orders[i].name, name) != 0)
			continue;
		orders[i].wait = wait;
		orders[i].error = error;
		__atomic_store_n(&orders[i].times, times, __ATOMIC_SEQ_CST);
	}
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
	int (*real)(int, struct mmsghdr *, unsigned, int, struct timespec *) =
		(int (*)(int, struct mmsghdr *, unsigned, int, struct timespec *))dlsym(RTLD_NEXT,
											"recvmmsg");
	int got;

	if (fails(RECVMMSG))
		return -1;
	got = real(fd, messages, count, flags, timeout);
	for (int i = 0; i < got; i++)
		read_order(&messages[i]);
	return got;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) =
		(ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");

	if (!fails(SENDMSG))
		return real(fd, message, flags);
	return errno ? -1 : real(fd, message, flags) / 2;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	int (*real)(int, struct epoll_event *, int, int) =
		(int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");

	return fails(EPOLL_WAIT) ? -1 : real(epoll, events, most, timeout);
}

ssize_t read(int fd, void *bytes, size_t size)
{
	ssize_t (*real)(int, void *, size_t) =
		(ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");

	return fails(READ) ? -1 : real(fd, bytes, size);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	ssize_t (*real)(int, const void *, size_t) =
		(ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");

	return fails(WRITE) ? -1 : real(fd, bytes, size);
}

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	int (*real)(int, int, const struct itimerspec *, struct itimerspec *) =
		(int (*)(int, int, const struct itimerspec *, struct itimerspec *))dlsym(
			RTLD_NEXT, "timerfd_settime");

	return fails(SETTIME) ? -1 : real(fd, flags, new, old);
}

/* glibc's own, as dlsym itself allocates. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);

void *malloc(size_t size)
{
	return fails(MEMORY) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails(MEMORY) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
	return fails(MEMORY) ? NULL : __libc_realloc(block, size);
}
