/* Writing capture files: whole records at the end of a file that several may write. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "packet/capture_file.h"
#include "packet/filter.h"

#ifdef NQ_HAVE_PCAP

#include <pcap/pcap.h>

enum { SNAPSHOT = 262144 };
enum { LOCK_TRIES = 1000 }; /* of a millisecond each */

/* A record has to fit, so that it leaves with one write(2). */
enum { RECORD_MOST = NQ_CAPTURE_HEAD + NQ_PACKET_MAX + 3, BUFFER_SIZE = RECORD_MOST + 64 };

struct nq_writer {
	int fd; /* O_APPEND, with a shared lock */
	bool is_file;
	bool silent; /* what libpcap writes goes nowhere: the file has its header */
	int error;   /* of the last write */
	enum nq_writer_link link;
	pcap_t *pcap;
	FILE *file; /* over `fd`, through write_out */
	pcap_dumper_t *dumper;
	char *path;
	char buffer[BUFFER_SIZE];
	uint8_t record[RECORD_MOST];
};

/* Takes what a full disk has left of a record away again, unless somebody went on behind it. */
static void take_back(const struct nq_writer *writer, size_t length)
{
	struct stat status;
	off_t end = lseek(writer->fd, 0, SEEK_CUR);

	if (length && writer->is_file && end >= (off_t)length && fstat(writer->fd, &status) == 0 &&
	    status.st_size == end)
		(void)!ftruncate(writer->fd, end - (off_t)length);
}

/* Everything that libpcap writes, from stdio's buffer: one call a record. */
static ssize_t write_out(void *cookie, const char *bytes, size_t length)
{
	struct nq_writer *writer = cookie;
	size_t done = 0;

	while (!writer->silent && done < length) {
		ssize_t got = write(writer->fd, bytes + done, length - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			writer->error = got < 0 ? errno : EIO;
			take_back(writer, done);
			return 0; /* which stdio takes as an error */
		}
		done += (size_t)got;
	}
	return (ssize_t)length;
}

/* Sends what is in stdio's buffer; after a failure nothing of it is left there. 0 or errno. */
static int flush(struct nq_writer *writer)
{
	writer->error = 0;
	if (fflush(writer->file) == 0 && !ferror(writer->file))
		return 0;
	__fpurge(writer->file);
	clearerr(writer->file);
	return writer->error ? writer->error : EIO;
}

static int lock(int fd, int how)
{
	static const struct timespec pause = {.tv_nsec = 1000000};

	for (int try = 0; flock(fd, how | LOCK_NB) < 0; try++) {
		if (errno != EWOULDBLOCK || try == LOCK_TRIES)
			return errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int link_number(enum nq_writer_link link)
{
	return link == NQ_WRITER_NFLOG ? DLT_NFLOG : DLT_RAW;
}

/* What keeps a file from being continued; NULL when nothing does. */
static const char *find_difference(const struct nq_writer *writer)
{
	static const uint32_t magic = 0xa1b2c3d4; /* in this machine's order: microseconds */
	char message[PCAP_ERRBUF_SIZE];
	uint32_t found = 0;
	FILE *file;
	pcap_t *pcap;
	int fd, link;

	if (pread(writer->fd, &found, sizeof(found), 0) != sizeof(found) || found != magic)
		return "it is no pcap file of this machine's byte order, with microseconds";
	fd = fcntl(writer->fd, F_DUPFD_CLOEXEC, 0);
	file = fd >= 0 ? fdopen(fd, "rb") : NULL;
	if (!file) {
		if (fd >= 0)
			close(fd);
		return strerror(errno);
	}
	rewind(file);
	pcap = pcap_fopen_offline(file, message);
	if (!pcap) {
		fclose(file);
		return "it is no pcap file";
	}
	link = pcap_datalink(pcap);
	pcap_close(pcap);
	return link == link_number(writer->link) ? NULL : "it is of another link type";
}

/*
 * Settles who begins the file: who is alone, told by an exclusive lock, which becomes the shared
 * one that all writers keep. Between the two another may begin the file anew, which is the same to
 * both: nobody writes a record before it has the shared lock.
 */
static bool begin(struct nq_writer *writer, const char *path, bool append,
		  struct nq_capture_failure *failure)
{
	struct stat status;
	const char *difference = NULL;
	bool is_first = flock(writer->fd, LOCK_EX | LOCK_NB) == 0;
	int error = is_first ? 0 : lock(writer->fd, LOCK_SH);

	if (!error && fstat(writer->fd, &status) < 0)
		error = errno;
	if (error)
		goto out;
	writer->is_file = S_ISREG(status.st_mode);
	if (is_first && writer->is_file && !append) {
		if (ftruncate(writer->fd, 0) < 0) {
			error = errno;
			goto out;
		}
		status.st_size = 0;
	}
	writer->silent = writer->is_file ? status.st_size > 0 : !is_first;
	if (writer->silent && writer->is_file)
		difference = find_difference(writer);
	if (difference) {
		nq_capture_fail(failure, EINVAL, "cannot continue %s: %s", path, difference);
		return false;
	}
	writer->dumper = pcap_dump_fopen(writer->pcap, writer->file);
	if (!writer->dumper) {
		writer->file = NULL; /* it was closed */
		nq_capture_fail(failure, EINVAL, "cannot write %s: %s", path,
				pcap_geterr(writer->pcap));
		return false;
	}
	error = flush(writer);
	writer->silent = false;
	if (!error && is_first)
		error = lock(writer->fd, LOCK_SH);
out:
	if (error)
		nq_capture_fail(failure, error, "cannot write %s: %s", path,
				error == EWOULDBLOCK ? "another program has locked it"
						     : strerror(error));
	return error == 0;
}

struct nq_writer *nq_writer_create(const char *path, enum nq_writer_link link, bool append,
				   struct nq_capture_failure *failure)
{
	static const cookie_io_functions_t functions = {.write = write_out};
	struct nq_writer *writer = calloc(1, sizeof(*writer));
	int error = ENOMEM;

	if (!writer)
		goto out;
	writer->link = link;
	writer->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (writer->fd < 0) {
		error = errno;
		goto out;
	}
	writer->path = strdup(path);
	writer->pcap = pcap_open_dead(link_number(link), SNAPSHOT);
	writer->file = fopencookie(writer, "wb", functions);
	if (!writer->path || !writer->pcap || !writer->file)
		goto out;
	setvbuf(writer->file, writer->buffer, _IOFBF, sizeof(writer->buffer));
	if (begin(writer, path, append, failure))
		return writer;
	nq_writer_close(writer);
	return NULL;
out:
	nq_capture_fail(failure, error, "cannot write %s: %s", path, strerror(error));
	nq_writer_close(writer);
	return NULL;
}

void nq_writer_close(struct nq_writer *writer)
{
	if (!writer)
		return;
	/* libpcap's dumper is the file itself. */
	if (writer->file)
		fclose(writer->file);
	if (writer->pcap)
		pcap_close(writer->pcap);
	if (writer->fd >= 0)
		close(writer->fd);
	free(writer->path);
	free(writer);
}

static void set_time(struct pcap_pkthdr *head, const struct nq_packet *packet)
{
	struct timespec now;

	if (packet->have & NQ_HAVE_TIMESTAMP) {
		head->ts.tv_sec = (time_t)packet->seconds;
		head->ts.tv_usec = (suseconds_t)packet->microseconds;
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	head->ts.tv_sec = now.tv_sec;
	head->ts.tv_usec = now.tv_nsec / 1000;
}

bool nq_writer_write(struct nq_writer *writer, const struct nq_packet *packet, const char *prefix,
		     struct nq_capture_failure *failure)
{
	struct pcap_pkthdr head = {.caplen = packet->length};
	const uint8_t *record = packet->data;
	int error;

	if (writer->link == NQ_WRITER_NFLOG) {
		uint32_t size = nq_capture_head(packet, prefix, writer->record);

		if (packet->length)
			memcpy(writer->record + size, packet->data, packet->length);
		head.caplen += size;
		/* The last value is padded as the others are: tcpdump insists on it. */
		for (; head.caplen % 4; head.caplen++)
			writer->record[head.caplen] = 0;
		record = writer->record;
	}
	head.len = head.caplen;
	if (packet->have & NQ_HAVE_WIRE_LENGTH && packet->wire_length > packet->length)
		head.len += packet->wire_length - packet->length;
	set_time(&head, packet);
	/* Its errors are those of the stream. */
	pcap_dump((u_char *)writer->dumper, &head, record);
	error = flush(writer);
	if (error)
		nq_capture_fail(failure, error, "cannot write %s: %s", writer->path,
				strerror(error));
	return error == 0;
}

#else

struct nq_writer *nq_writer_create(const char *path, enum nq_writer_link link, bool append,
				   struct nq_capture_failure *failure)
{
	(void)path;
	(void)link;
	(void)append;
	return nq_capture_fail_missing(failure);
}

void nq_writer_close(struct nq_writer *writer)
{
	(void)writer;
}

bool nq_writer_write(struct nq_writer *writer, const struct nq_packet *packet, const char *prefix,
		     struct nq_capture_failure *failure)
{
	(void)writer;
	(void)packet;
	(void)prefix;
	(void)nq_capture_fail_missing(failure);
	return false;
}

#endif
