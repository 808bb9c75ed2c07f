#include "host/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
	size_t length = strlen(text);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, length) != (ssize_t)length)
		error = -errno;
	close(fd);
	return error;
}

/* This user becomes root of the namespace; nobody else exists in it (user_namespaces(7)). */
static int map_root(uid_t uid, gid_t gid)
{
	char line[64];
	int error = write_file("/proc/self/setgroups", "deny");

	if (error && error != -ENOENT)
		return error;
	snprintf(line, sizeof(line), "0 %u 1", (unsigned)uid);
	error = write_file("/proc/self/uid_map", line);
	if (error)
		return error;
	snprintf(line, sizeof(line), "0 %u 1", (unsigned)gid);
	return write_file("/proc/self/gid_map", line);
}

int nq_namespace_enter(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int user = uid ? CLONE_NEWUSER : 0;

	if (unshare(user | CLONE_NEWNET | CLONE_NEWNS) < 0)
		return -errno;
	if (user) {
		int error = map_root(uid, gid);

		if (error)
			return error;
	}
	/*
	 * Conveniences: tools that look there go without where the mount is refused. In a chroot
	 * whose root is no mount point the tree cannot be made private, and what is mounted could
	 * show outside: leave it.
	 */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return errno == EINVAL ? 0 : -errno;
	(void)mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (user)
		(void)mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	return 0;
}
