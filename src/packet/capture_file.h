/*
 * capture_file.h - capture files, through libpcap: pcap and pcapng to read, pcap to write.
 *
 * A reader or a writer is one thread's. Several writers of one path, of any threads and processes,
 * write one file: each record goes to its end at once, whole. In a build without libpcap all calls
 * fail with ENOTSUP and NQ_PCAP_MISSING.
 */
#ifndef NQ_CAPTURE_FILE_H
#define NQ_CAPTURE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/capture.h"
#include "packet/packet.h"

/* Why a call failed. */
struct nq_capture_failure {
	int error; /* positive errno; EINVAL for a file that is none */
	char message[256];
};

/* For the files of this unit. The second says that there is no libpcap, and returns NULL. */
void nq_capture_fail(struct nq_capture_failure *failure, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void *nq_capture_fail_missing(struct nq_capture_failure *failure);

struct nq_reader;

/* Opens a capture file. NULL with *failure. */
struct nq_reader *nq_reader_open(const char *path, struct nq_capture_failure *failure);
void nq_reader_close(struct nq_reader *reader); /* NULL-safe */

/*
 * Reads up to the next record with an IP packet. 1: *packet (its spare is left alone) and *note are
 * valid until the next call; 0: the end; -1: *failure, and the end from then on.
 */
int nq_reader_next(struct nq_reader *reader, struct nq_packet *packet, struct nq_capture_note *note,
		   struct nq_capture_failure *failure);

/* Records so far that held no IP packet. */
uint64_t nq_reader_skipped(const struct nq_reader *reader);

/* The file's link type in libpcap's words: "NFLOG", "EN10MB", "RAW". */
const char *nq_reader_link(const struct nq_reader *reader);

struct nq_writer;

enum nq_writer_link { NQ_WRITER_NFLOG, NQ_WRITER_RAW };

/*
 * Makes the file, or empties it; with `append` a file of the same link type is continued. While
 * another writer has it, it is continued in any case. NULL with *failure: also when the other
 * writes another link type, and when something else holds a lock (flock(2)) on it.
 */
struct nq_writer *nq_writer_create(const char *path, enum nq_writer_link link, bool append,
				   struct nq_capture_failure *failure);
void nq_writer_close(struct nq_writer *writer); /* NULL-safe */

/*
 * Writes the packet with its own time, else the present one; `prefix` (NULL: none) is for link type
 * NFLOG, at most NQ_CAPTURE_PREFIX bytes. False with *failure: the file is as it was before.
 */
bool nq_writer_write(struct nq_writer *writer, const struct nq_packet *packet, const char *prefix,
		     struct nq_capture_failure *failure);

#endif
