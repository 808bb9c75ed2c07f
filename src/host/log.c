#include "host/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {"debug", "info", "warn", "error"};

bool nq_log_enabled(enum nq_log_level level)
{
	const char *wanted = getenv("NFQUEUE_LOG");

	for (unsigned i = 0; wanted && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(wanted, names[i]) == 0)
			return level >= (enum nq_log_level)i;
	}
	return level >= NQ_LOG_INFO;
}

/* Whether standard error is the journal: JOURNAL_STREAM names its device and inode
 * (systemd.exec(5)). */
static bool journal_reads(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long device, inode;
	struct stat status;

	return stream && sscanf(stream, "%lu:%lu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
	       status.st_ino == inode;
}

void nq_log(enum nq_log_level level, const char *format, ...)
{
	static const char priorities[] = {'7', '6', '4', '3'};
	char line[8192];
	const size_t room = sizeof(line) - 1;
	size_t length = 0;
	va_list arguments;
	int wrote;

	if (!nq_log_enabled(level))
		return;
	if (journal_reads())
		length = (size_t)snprintf(line, room, "<%c>nfqueue: ", priorities[level]);
	else
		length = (size_t)snprintf(line, room, "nfqueue: %s: ", names[level]);
	va_start(arguments, format);
	wrote = vsnprintf(line + length, room - length, format, arguments);
	va_end(arguments);
	if (wrote < 0)
		return;
	length += (size_t)wrote;
	if (length > room - 1)
		length = room - 1;
	line[length++] = '\n';
	for (size_t done = 0; done < length;) {
		ssize_t now = write(STDERR_FILENO, line + done, length - done);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0)
			return; /* nobody reads: nothing sensible is left to do */
		done += (size_t)now;
	}
}

bool nq_log_allow(struct nq_log_limit *limit, double burst, uint64_t *suppressed)
{
	struct timespec time;
	int64_t now;

	clock_gettime(CLOCK_MONOTONIC, &time);
	now = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
	if (!limit->started) {
		limit->started = true;
		limit->tokens = burst;
	} else {
		limit->tokens += (double)(now - limit->nanoseconds) / 1e9 * burst;
		if (limit->tokens > burst)
			limit->tokens = burst;
	}
	limit->nanoseconds = now;
	if (limit->tokens < 1) {
		limit->suppressed++;
		return false;
	}
	limit->tokens -= 1;
	*suppressed = limit->suppressed;
	limit->suppressed = 0;
	return true;
}
