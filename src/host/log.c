#include "host/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/clock.h"

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

/*
 * Appends text in which packet bytes may be: what could pass for another line, or steer a terminal,
 * is written as an escape. A new line of a traceback is indented, as no line of the log's own is.
 */
static size_t append_text(char *line, size_t room, size_t length, const char *text)
{
	for (; *text && length + 4 < room; text++) {
		unsigned char byte = (unsigned char)*text;

		if (byte == '\n') {
			line[length++] = '\n';
			line[length++] = ' ';
			line[length++] = ' ';
		} else if ((byte < ' ' && byte != '\t') || byte == 0x7f) {
			length += (size_t)snprintf(line + length, 5, "\\x%02x", byte);
		} else {
			line[length++] = *text;
		}
	}
	return length;
}

void nq_log(enum nq_log_level level, const char *format, ...)
{
	static const char priorities[] = {'7', '6', '4', '3'};
	char text[8192];
	char line[sizeof(text) + 1024];
	size_t length = 0;
	va_list arguments;

	if (!nq_log_enabled(level))
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (journal_reads())
		length = (size_t)snprintf(line, sizeof(line), "<%c>nfqueue: ", priorities[level]);
	else
		length = (size_t)snprintf(line, sizeof(line), "nfqueue: %s: ", names[level]);
	length = append_text(line, sizeof(line) - 1, length, text);
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
	int64_t now = nq_clock_now();

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
