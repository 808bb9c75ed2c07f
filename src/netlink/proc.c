#include "netlink/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int nq_proc_open(void)
{
	int fd = open("/proc/self/net/netfilter/nfnetlink_queue", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * One line a queue, 10 numbers: queue, portid, waiting, copy mode, copy range, queue_dropped,
 * user_dropped, id sequence, 1 (net/netfilter/nfnetlink_queue.c, seq_show). Read in pieces, a line
 * cut by the end of a piece is read again with the next.
 */
int nq_proc_read(int fd, uint16_t number, struct nq_proc_queue *queue)
{
	char text[4096];
	off_t offset = 0;

	for (;;) {
		ssize_t got = pread(fd, text, sizeof(text) - 1, offset);
		char *line = text;
		char *end;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ESRCH;
		text[got] = '\0';
		while ((end = strchr(line, '\n')) != NULL) {
			unsigned long n;
			struct nq_proc_queue q;

			*end = '\0';
			if (sscanf(line, "%lu %u %u %u %u %u %u %u", &n, &q.portid, &q.waiting,
				   &q.copy_mode, &q.copy_range, &q.queue_dropped, &q.user_dropped,
				   &q.id_sequence) == 8 &&
			    n == number) {
				*queue = q;
				return 0;
			}
			line = end + 1;
		}
		if (line == text)
			return -ESRCH; /* no whole line in 4 KB: not the format above */
		offset += line - text;
	}
}

/* The inode of the NETLINK_NETFILTER socket with this port id, 0 when there is none. */
static unsigned long find_inode(uint32_t portid)
{
	FILE *file = fopen("/proc/self/net/netlink", "re");
	char line[256];
	unsigned long found = 0;

	if (!file)
		return 0;
	while (!found && fgets(line, sizeof(line), file)) {
		unsigned long inode;
		unsigned protocol, port;

		if (sscanf(line, "%*s %u %u %*s %*s %*s %*s %*s %*s %lu", &protocol, &port,
			   &inode) == 3 &&
		    protocol == NETLINK_NETFILTER && port == portid)
			found = inode;
	}
	fclose(file);
	return found;
}

static int has_socket(const char *pid, const char *wanted)
{
	char path[300], target[64];
	struct dirent *entry;
	DIR *dir;
	int found = 0;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (!found && (entry = readdir(dir)) != NULL) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (length > 0) {
			target[length] = '\0';
			found = strcmp(target, wanted) == 0;
		}
	}
	closedir(dir);
	return found;
}

static void read_name(const char *pid, char name[32])
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	strcpy(name, "?");
	file = fopen(path, "re");
	if (!file)
		return;
	if (fgets(name, 32, file))
		name[strcspn(name, "\n")] = '\0';
	fclose(file);
}

pid_t nq_proc_holder(uint32_t portid, char name[32])
{
	unsigned long inode = find_inode(portid);
	char wanted[64];
	struct dirent *entry;
	pid_t found = 0;
	DIR *dir;

	if (!inode)
		return 0;
	dir = opendir("/proc");
	if (!dir)
		return 0;
	snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
	while (!found && (entry = readdir(dir)) != NULL) {
		pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;

		if (pid > 0 && has_socket(entry->d_name, wanted)) {
			found = pid;
			read_name(entry->d_name, name);
		}
	}
	closedir(dir);
	return found;
}
