#include "host/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers this is built with may be; include/uapi/linux/landlock.h. */
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif

/* Rights of the first version, EXECUTE (bit 0) to MAKE_SYM (bit 12). */
#define FIRST_RIGHTS ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

static const uint64_t read_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
static const uint64_t write_rights =
	LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE |
	LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
	LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_FIFO |
	LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | LANDLOCK_ACCESS_FS_TRUNCATE;
/* Those that a file can be given which is no folder. */
static const uint64_t file_rights =
	LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE;

/* All rights that this kernel can refuse; it takes no bit that it does not know. */
static int find_handled(uint64_t *handled)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
			       LANDLOCK_CREATE_RULESET_VERSION);

	if (version < 0)
		return -errno;
	*handled = FIRST_RIGHTS;
	if (version >= 2)
		*handled |= LANDLOCK_ACCESS_FS_REFER;
	if (version >= 3)
		*handled |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (version >= 5)
		*handled |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	return 0;
}

static int allow_path(int ruleset, uint64_t rights, const char *path)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = rights};
	struct stat status;
	int error = 0;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return -errno;
	if (fstat(rule.parent_fd, &status) == 0 && !S_ISDIR(status.st_mode))
		rule.allowed_access &= file_rights;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		error = -errno;
	close(rule.parent_fd);
	return error;
}

static int allow_paths(int ruleset, uint64_t rights, const char *const *paths, size_t count,
		       const char **path)
{
	for (size_t i = 0; i < count; i++) {
		int error = allow_path(ruleset, rights, paths[i]);

		*path = paths[i];
		if (error)
			return error;
	}
	return 0;
}

int nq_landlock_make(const struct nq_landlock *allowed, const char **path)
{
	struct landlock_ruleset_attr attributes = {0};
	uint64_t handled = 0;
	int error = find_handled(&handled);
	int ruleset;

	*path = NULL;
	if (error)
		return error;
	attributes.handled_access_fs = handled;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes,
			       sizeof(attributes.handled_access_fs), 0);
	if (ruleset < 0)
		return -errno;
	for (size_t i = 0; i < allowed->folder_count; i++)
		(void)allow_path(ruleset, handled & read_rights, allowed->folders[i]);
	error = allow_paths(ruleset, handled & read_rights, allowed->read, allowed->read_count,
			    path);
	if (!error)
		error = allow_paths(ruleset, handled & write_rights, allowed->write,
				    allowed->write_count, path);
	if (error) {
		close(ruleset);
		return error;
	}
	return ruleset;
}

int nq_landlock_enter(int ruleset)
{
	return syscall(SYS_landlock_restrict_self, ruleset, 0) < 0 ? -errno : 0;
}
