#include "host/store.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/log.h"
#include "netlink/config.h"

#define MEMORY_NAME "nfqueue-memory"
#define SOCKET_NAME "nfqueue-socket-"

/* Of a socket's name: which it is; -1: it is none. */
static long socket_number(const char *name)
{
	size_t length = strlen(SOCKET_NAME);
	long number;
	char *end;

	if (strncmp(name, SOCKET_NAME, length) != 0 || name[length] < '0' || name[length] > '9')
		return -1;
	errno = 0;
	number = strtol(name + length, &end, 10);
	return errno || *end ? -1 : number;
}

static bool is_netfilter(int fd)
{
	int domain = 0, protocol = 0;
	socklen_t size = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK &&
	       getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
	       protocol == NETLINK_NETFILTER;
}

/* What this run is asked for. */
struct asked {
	unsigned lane_count;
	const uint16_t *numbers;
	unsigned queue_count;
};

/*
 * The manager closes its own copy when it comes to it. Until then the queues would be another's:
 * they are left here and now. Of those that this socket does not have the kernel says no.
 */
static void let_go(int fd, const struct asked *asked)
{
	if (is_netfilter(fd)) {
		for (unsigned i = 0; i < asked->queue_count; i++)
			(void)nq_config_unbind(fd, asked->numbers[i], 0);
	}
	close(fd);
}

/* Sorts what was passed: the descriptors that are of no use are closed. The sentence that says why
 * not all is there, or NULL. */
static const char *sort_passed(unsigned count, char *names, const struct asked *asked,
			       int *memory_fd, int *sockets)
{
	unsigned lane_count = asked->lane_count;
	const char *why = NULL;
	char *rest = names;

	for (unsigned i = 0; i < count; i++) {
		const char *name = strsep(&rest, ":");
		int fd = NQ_PASSED_FIRST + (int)i;
		long number = name ? socket_number(name) : -1;

		if (name && strcmp(name, MEMORY_NAME) == 0 && *memory_fd < 0) {
			*memory_fd = fd;
		} else if (number >= 0 && number < (long)lane_count && sockets[number] < 0 &&
			   is_netfilter(fd)) {
			sockets[number] = fd;
		} else {
			if (number >= (long)lane_count)
				why = "they are of more threads";
			let_go(fd, asked);
		}
	}
	for (unsigned i = 0; i < lane_count && !why; i++) {
		if (sockets[i] < 0)
			why = *memory_fd < 0 ? "the memory is missing" : "sockets are missing";
	}
	return why ? why : *memory_fd < 0 ? "the memory is missing" : NULL;
}

static void forget_all(const struct nq_notify *notify, char *names)
{
	char *rest = names;
	const char *name;

	while ((name = strsep(&rest, ":")) != NULL) {
		if (strcmp(name, MEMORY_NAME) == 0 || socket_number(name) >= 0)
			nq_notify_forget(notify, name);
	}
}

bool nq_store_take(const struct nq_notify *notify, unsigned lane_count, const uint16_t *numbers,
		   unsigned queue_count, struct nq_memory **memory, int *memory_fd, int *sockets)
{
	const struct asked asked = {lane_count, numbers, queue_count};
	char *names;
	unsigned count = nq_notify_take_passed(&names);
	char *copy = count ? strdup(names) : NULL;
	const char *why;

	*memory = NULL;
	*memory_fd = -1;
	for (unsigned i = 0; i < lane_count; i++)
		sockets[i] = -1;
	if (!copy) {
		free(names);
		return false;
	}
	why = sort_passed(count, names, &asked, memory_fd, sockets);
	if (!why)
		*memory = nq_memory_adopt(*memory_fd, lane_count, numbers, queue_count, &why);
	if (*memory) {
		nq_log(NQ_LOG_INFO, "taking the queues over from the service's last run");
	} else {
		nq_log(NQ_LOG_ERROR,
		       "the queues of the service's last run cannot be taken over: %s; beginning "
		       "anew, and what waits in them is dropped",
		       why);
		forget_all(notify, copy);
		for (unsigned i = 0; i < lane_count; i++) {
			if (sockets[i] >= 0)
				let_go(sockets[i], &asked);
		}
		if (*memory_fd >= 0)
			close(*memory_fd);
		*memory_fd = -1;
	}
	free(copy);
	free(names);
	return *memory != NULL;
}

void nq_store_keep(const struct nq_notify *notify, struct nq_memory *memory, int memory_fd,
		   const int *sockets)
{
	char name[64];
	int error;

	if (notify->fd < 0 || notify->store == 0)
		return;
	if (notify->store < memory->lane_count + 1) {
		nq_log(NQ_LOG_WARN,
		       "the service manager keeps %u descriptors, but %u are to be kept: a restart "
		       "loses what waits (FileDescriptorStoreMax=)",
		       notify->store, memory->lane_count + 1);
		return;
	}
	error = nq_notify_keep(notify, memory_fd, MEMORY_NAME);
	for (unsigned i = 0; i < memory->lane_count && !error; i++) {
		snprintf(name, sizeof(name), SOCKET_NAME "%u", i);
		error = nq_notify_keep(notify, sockets[i], name);
	}
	if (error)
		nq_log(NQ_LOG_WARN,
		       "the service manager cannot keep the sockets: %s; a restart loses what "
		       "waits",
		       strerror(-error));
	else
		memory->stored = 1;
}
