/* Calls of the core that fail when told to. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "faults.h"
#include "host/log.h"

const char *const fault_names[FAULT_KINDS] = {
	"nothing",	  "Lua allocation",  "C allocation",  "socket",	    "bind",	  "send",
	"sendmsg",	  "recvmmsg",	     "epoll_create1", "epoll_ctl",  "epoll_wait", "eventfd",
	"timerfd_create", "timerfd_settime", "poll",	      "read",	    "write",	  "open",
	"pread",	  "pthread_create",  "setsockopt",    "getsockopt",
};

enum { INTERRUPTIONS = 50 };

static struct {
	enum fault_kind kind;
	uint64_t n;
	bool armed, always;
	int error;
	uint64_t counts[FAULT_KINDS];
	int64_t blocks, mapped;
	bool given_up, show_log;
} faults;

void fault_arm(enum fault_kind kind, uint64_t n, bool always, int error)
{
	memset(faults.counts, 0, sizeof(faults.counts));
	faults.kind = kind;
	faults.n = n;
	faults.always = always;
	faults.error = error;
	faults.given_up = false;
	__atomic_store_n(&faults.armed, true, __ATOMIC_SEQ_CST);
}

void fault_disarm(void)
{
	__atomic_store_n(&faults.armed, false, __ATOMIC_SEQ_CST);
}

uint64_t fault_count(enum fault_kind kind)
{
	return faults.counts[kind];
}

bool fault_strikes(enum fault_kind kind, int *error)
{
	uint64_t count;

	if (!__atomic_load_n(&faults.armed, __ATOMIC_SEQ_CST))
		return false;
	count = __atomic_add_fetch(&faults.counts[kind], 1, __ATOMIC_SEQ_CST);
	*error = faults.error;
	if (kind != faults.kind || faults.n == 0 || count < faults.n)
		return false;
	/* No kernel interrupts for ever, nor says that there is something and then that not. */
	return count == faults.n ||
	       (faults.always && (count < faults.n + INTERRUPTIONS ||
				  (faults.error != EINTR &&
				   !(kind == FAULT_RECVMMSG &&
				     (faults.error == EAGAIN || faults.error == ENOBUFS)))));
}

int64_t fault_blocks(void)
{
	return faults.blocks;
}

int64_t fault_mapped(void)
{
	return faults.mapped;
}

bool fault_given_up(void)
{
	return faults.given_up;
}

void fault_show_log(bool show)
{
	faults.show_log = show;
}

/* Whether this one fails, with errno set. */
static bool fails(enum fault_kind kind)
{
	int error;

	if (!fault_strikes(kind, &error))
		return false;
	errno = error == FAULT_SHORT ? 0 : error;
	return true;
}

/* --- Memory --- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void __real_free(void *block);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t size);
lua_State *__wrap_luaL_newstate(void);

static void *counted(void *block)
{
	if (block)
		__atomic_add_fetch(&faults.blocks, 1, __ATOMIC_SEQ_CST);
	return block;
}

void *__wrap_malloc(size_t size)
{
	return fails(FAULT_MEMORY) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails(FAULT_MEMORY) ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *block, size_t size)
{
	void *moved;

	if (fails(FAULT_MEMORY))
		return NULL;
	moved = __real_realloc(block, size);
	return block ? moved : counted(moved);
}

char *__wrap_strdup(const char *text)
{
	return fails(FAULT_MEMORY) ? NULL : counted(__real_strdup(text));
}

char *__wrap_strndup(const char *text, size_t size)
{
	return fails(FAULT_MEMORY) ? NULL : counted(__real_strndup(text, size));
}

void __wrap_free(void *block)
{
	if (block)
		__atomic_sub_fetch(&faults.blocks, 1, __ATOMIC_SEQ_CST);
	__real_free(block);
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	void *block;

	if (fails(FAULT_MEMORY)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	block = __real_mmap(address, size, protection, flags, fd, offset);
	if (block != MAP_FAILED)
		__atomic_add_fetch(&faults.mapped, (int64_t)size, __ATOMIC_SEQ_CST);
	return block;
}

int __wrap_munmap(void *address, size_t size)
{
	__atomic_sub_fetch(&faults.mapped, (int64_t)size, __ATOMIC_SEQ_CST);
	return __real_munmap(address, size);
}

/* As the stock one, but counted: what the core gives the state in its place frees what it had. */
static void *stock_alloc(void *context, void *block, size_t had, size_t size)
{
	(void)context;
	(void)had;
	if (size == 0) {
		__wrap_free(block);
		return NULL;
	}
	return block ? __real_realloc(block, size) : counted(__real_malloc(size));
}

lua_State *__wrap_luaL_newstate(void)
{
	return fails(FAULT_MEMORY) ? NULL : lua_newstate(stock_alloc, NULL);
}

void *fault_lua_alloc(void *context, void *block, size_t had, size_t size)
{
	int64_t *used = context;
	int error;
	void *moved;

	if (!block)
		had = 0;
	if (size == 0) {
		*used -= (int64_t)had;
		__real_free(block);
		return NULL;
	}
	if (size > had && fault_strikes(FAULT_LUA, &error))
		return NULL;
	/* Moved always, so that a stale pointer is seen. */
	moved = __real_malloc(size);
	if (!moved)
		abort();
	if (block)
		memcpy(moved, block, had < size ? had : size);
	__real_free(block);
	*used += (int64_t)size - (int64_t)had;
	return moved;
}

/* --- System calls --- */

int __real_socket(int family, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __real_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
int __real_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
		    struct timespec *timeout);
int __real_epoll_create1(int flags);
int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __real_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
int __real_eventfd(unsigned initial, int flags);
int __real_timerfd_create(int clock, int flags);
int __real_timerfd_settime(int fd, int flags, const void *value, void *old);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
ssize_t __real_read(int fd, void *bytes, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t size);
int __real_open(const char *path, int flags, ...);
ssize_t __real_pread(int fd, void *bytes, size_t size, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);

int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
		    struct timespec *timeout);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
int __wrap_eventfd(unsigned initial, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_settime(int fd, int flags, const void *value, void *old);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
ssize_t __wrap_read(int fd, void *bytes, size_t size);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_pread(int fd, void *bytes, size_t size, off_t offset);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);

/* What is asked for of a stream, when it is to be short. */
static size_t half(enum fault_kind kind, size_t size)
{
	int error;

	return size > 1 && fault_strikes(kind, &error) ? size / 2 : size;
}

/* What a datagram tells that was sent whole. */
static ssize_t shortened(enum fault_kind kind, ssize_t result)
{
	int error;

	if (result > 1 && fault_strikes(kind, &error))
		return error == FAULT_SHORT ? result / 2 : result;
	return result;
}

int __wrap_socket(int family, int type, int protocol)
{
	if (fails(FAULT_SOCKET))
		return -1;
	return family == AF_NETLINK ? kernel_socket() : __real_socket(family, type, protocol);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size)
{
	if (fails(FAULT_BIND))
		return -1;
	return kernel_owns(fd) ? 0 : __real_bind(fd, address, size);
}

ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags)
{
	if (faults.error == FAULT_SHORT)
		return shortened(FAULT_SEND, __real_send(fd, bytes, size, flags));
	return fails(FAULT_SEND) ? -1 : __real_send(fd, bytes, size, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (faults.error == FAULT_SHORT)
		return shortened(FAULT_SENDMSG, __real_sendmsg(fd, message, flags));
	return fails(FAULT_SENDMSG) ? -1 : __real_sendmsg(fd, message, flags);
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
		    struct timespec *timeout)
{
	kernel_run();
	return fails(FAULT_RECVMMSG) ? -1 : __real_recvmmsg(fd, messages, count, flags, timeout);
}

int __wrap_epoll_create1(int flags)
{
	return fails(FAULT_EPOLL_CREATE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	return fails(FAULT_EPOLL_CTL) ? -1 : __real_epoll_ctl(epoll, operation, fd, event);
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	if (fails(FAULT_EPOLL_WAIT))
		return -1;
	for (;;) {
		int got;

		kernel_wait();
		got = __real_epoll_wait(epoll, events, most, timeout < 0 ? 3 : timeout);
		if (got != 0 || timeout >= 0)
			return got;
		kernel_idle();
	}
}

int __wrap_eventfd(unsigned initial, int flags)
{
	return fails(FAULT_EVENTFD) ? -1 : __real_eventfd(initial, flags);
}

int __wrap_timerfd_create(int clock, int flags)
{
	return fails(FAULT_TIMERFD_CREATE) ? -1 : __real_timerfd_create(clock, flags);
}

int __wrap_timerfd_settime(int fd, int flags, const void *value, void *old)
{
	return fails(FAULT_TIMERFD_SETTIME) ? -1 : __real_timerfd_settime(fd, flags, value, old);
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	kernel_run();
	return fails(FAULT_POLL) ? -1 : __real_poll(fds, count, timeout);
}

ssize_t __wrap_read(int fd, void *bytes, size_t size)
{
	if (faults.error == FAULT_SHORT)
		return __real_read(fd, bytes, half(FAULT_READ, size));
	return fails(FAULT_READ) ? -1 : __real_read(fd, bytes, size);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
	if (faults.error == FAULT_SHORT)
		return __real_write(fd, bytes, half(FAULT_WRITE, size));
	return fails(FAULT_WRITE) ? -1 : __real_write(fd, bytes, size);
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list more;
	int mode;

	va_start(more, flags);
	mode = flags & O_CREAT ? va_arg(more, int) : 0;
	va_end(more);
	return fails(FAULT_OPEN) ? -1 : __real_open(path, flags, mode);
}

ssize_t __wrap_pread(int fd, void *bytes, size_t size, off_t offset)
{
	if (faults.error == FAULT_SHORT)
		return __real_pread(fd, bytes, half(FAULT_PREAD, size), offset);
	return fails(FAULT_PREAD) ? -1 : __real_pread(fd, bytes, size, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument)
{
	int error;

	if (fault_strikes(FAULT_PTHREAD_CREATE, &error))
		return error;
	return __real_pthread_create(thread, attributes, function, argument);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	return fails(FAULT_SETSOCKOPT) ? -1 : __real_setsockopt(fd, level, name, value, size);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	return fails(FAULT_GETSOCKOPT) ? -1 : __real_getsockopt(fd, level, name, value, size);
}

/* What the core waits for is over by then. */
int __wrap_nanosleep(const void *time, void *left);

int __wrap_nanosleep(const void *time, void *left)
{
	(void)time;
	(void)left;
	return 0;
}

/* --- The log --- */

void __wrap_nq_log(enum nq_log_level level, const char *format, ...);

void __wrap_nq_log(enum nq_log_level level, const char *format, ...)
{
	va_list arguments;

	if (strstr(format, "given up"))
		faults.given_up = true;
	if (!faults.show_log)
		return;
	va_start(arguments, format);
	printf("  log %d: ", (int)level);
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
}
