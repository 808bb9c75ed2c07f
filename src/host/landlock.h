/*
 * landlock.h - files that a process may touch (landlock(7)), for good: it and its children.
 */
#ifndef NQ_LANDLOCK_H
#define NQ_LANDLOCK_H

#include <stddef.h>

struct nq_landlock {
	const char *const *folders; /* may be read, where they are there */
	size_t folder_count;
	const char *const *read;
	size_t read_count;
	const char *const *write; /* read, written, made and removed */
	size_t write_count;
};

/*
 * A descriptor (close-on-exec) of a ruleset that allows these paths and what lies beneath them, and
 * refuses every other file with EACCES. -errno: ENOSYS or EOPNOTSUPP where the kernel has no
 * Landlock; of a path that cannot be opened, which *path tells then.
 */
int nq_landlock_make(const struct nq_landlock *allowed, const char **path);

/* From here on this thread, and those it starts, are bound by it. Needs no_new_privs. 0 or -errno.
 */
int nq_landlock_enter(int ruleset);

#endif
