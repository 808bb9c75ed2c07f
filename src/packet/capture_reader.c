/* Reading capture files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "packet/capture_file.h"
#include "packet/filter.h"

#ifdef NQ_HAVE_PCAP

#include <pcap/pcap.h>

enum { SNAPSHOT = 262144 };

struct nq_reader {
	pcap_t *file;
	int link;
	uint64_t skipped;
	bool ended;
	char *path;
};

static FILE *open_file(const char *path, struct nq_capture_failure *failure)
{
	struct stat status;
	FILE *file = fopen(path, "rbe");

	if (!file) {
		nq_capture_fail(failure, errno, "cannot read %s: %s", path, strerror(errno));
		return NULL;
	}
	if (fstat(fileno(file), &status) == 0 && S_ISDIR(status.st_mode)) {
		nq_capture_fail(failure, EISDIR, "cannot read %s: %s", path, strerror(EISDIR));
		fclose(file);
		return NULL;
	}
	return file;
}

struct nq_reader *nq_reader_open(const char *path, struct nq_capture_failure *failure)
{
	char message[PCAP_ERRBUF_SIZE];
	struct nq_reader *reader = NULL;
	FILE *file = open_file(path, failure);
	pcap_t *pcap;
	const char *name;

	if (!file)
		return NULL;
	pcap = pcap_fopen_offline(file, message);
	if (!pcap) {
		fclose(file);
		nq_capture_fail(failure, EINVAL, "cannot read %s: %s", path, message);
		return NULL;
	}
	if (!nq_capture_knows(pcap_datalink(pcap))) {
		name = pcap_datalink_val_to_name(pcap_datalink(pcap));
		nq_capture_fail(failure, EINVAL,
				"cannot read %s: link type %d (%s) is not supported", path,
				pcap_datalink(pcap), name ? name : "unknown");
		goto out;
	}
	reader = calloc(1, sizeof(*reader));
	if (reader)
		reader->path = strdup(path);
	if (!reader || !reader->path) {
		nq_capture_fail(failure, ENOMEM, "cannot read %s: %s", path, strerror(ENOMEM));
		goto out;
	}
	reader->file = pcap;
	reader->link = pcap_datalink(pcap);
	return reader;
out:
	free(reader);
	pcap_close(pcap); /* and the file with it */
	return NULL;
}

void nq_reader_close(struct nq_reader *reader)
{
	if (!reader)
		return;
	pcap_close(reader->file);
	free(reader->path);
	free(reader);
}

int nq_reader_next(struct nq_reader *reader, struct nq_packet *packet, struct nq_capture_note *note,
		   struct nq_capture_failure *failure)
{
	while (!reader->ended) {
		struct pcap_pkthdr *head;
		const u_char *bytes;
		int got = pcap_next_ex(reader->file, &head, &bytes);

		if (got == PCAP_ERROR_BREAK) {
			reader->ended = true;
			return 0;
		}
		if (got < 0) {
			reader->ended = true;
			nq_capture_fail(failure, EINVAL, "cannot read %s: %s", reader->path,
					pcap_geterr(reader->file));
			return -1;
		}
		/* The buffer is libpcap's own and lives until the next call: it may be written. */
		if (got == 1 &&
		    nq_capture_read(packet, note, reader->link, (uint8_t *)(uintptr_t)bytes,
				    head->caplen, head->len)) {
			/* libpcap takes the 32 bits of a pcap file for a signed number. */
			packet->seconds = head->ts.tv_sec < 0 ? (uint32_t)head->ts.tv_sec
							      : (uint64_t)head->ts.tv_sec;
			packet->microseconds = (uint64_t)head->ts.tv_usec;
			packet->have |= NQ_HAVE_TIMESTAMP;
			return 1;
		}
		reader->skipped++;
	}
	return 0;
}

uint64_t nq_reader_skipped(const struct nq_reader *reader)
{
	return reader->skipped;
}

const char *nq_reader_link(const struct nq_reader *reader)
{
	const char *name = pcap_datalink_val_to_name(reader->link);

	return name ? name : "unknown";
}

#else

struct nq_reader *nq_reader_open(const char *path, struct nq_capture_failure *failure)
{
	(void)path;
	return nq_capture_fail_missing(failure);
}

void nq_reader_close(struct nq_reader *reader)
{
	(void)reader;
}

int nq_reader_next(struct nq_reader *reader, struct nq_packet *packet, struct nq_capture_note *note,
		   struct nq_capture_failure *failure)
{
	(void)reader;
	(void)packet;
	(void)note;
	(void)nq_capture_fail_missing(failure);
	return -1;
}

uint64_t nq_reader_skipped(const struct nq_reader *reader)
{
	(void)reader;
	return 0;
}

const char *nq_reader_link(const struct nq_reader *reader)
{
	(void)reader;
	return "unknown";
}

#endif
