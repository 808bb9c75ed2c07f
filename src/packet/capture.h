/*
 * capture.h - records of capture files: a packet out of a link layer's bytes, and a packet as a
 * record of link type NFLOG.
 *
 * Numbers of link types are those of libpcap's DLT_ (pcap-linktype(7)), for those known here the
 * same on all machines. Nothing here opens a file or allocates. See capture_file.h.
 */
#ifndef NQ_CAPTURE_H
#define NQ_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

/* Whether nq_capture_read knows the link type. */
bool nq_capture_knows(int link);

/* What a record says beside its packet. */
struct nq_capture_note {
	const char *
		prefix; /* NFLOG's, in our recordings the verdict; in the record's bytes; or NULL */
	size_t prefix_length;
};

/*
 * Reads a record: `length` bytes of the `wire_length` that there were. Fills *packet, which points
 * into the bytes, with what the link layer tells: interfaces, hook, mark and user (NFLOG), sender,
 * VLAN, ethertype. At most NQ_PACKET_MAX bytes are taken, the rest is as if not captured. False: it
 * holds no IP packet (ARP, say), or is not a whole record of its link type; *packet is undefined.
 * The caller adds the time.
 */
bool nq_capture_read(struct nq_packet *packet, struct nq_capture_note *note, int link,
		     uint8_t *bytes, uint32_t length, uint32_t wire_length);

/* The longest prefix, as the kernel's NFLOG has it. */
enum { NQ_CAPTURE_PREFIX = 127 };

/* Bytes that a record of link type NFLOG has in front of the packet, at most. */
enum { NQ_CAPTURE_HEAD = 512 };

/*
 * Writes what goes in front of the packet's bytes in a record of link type NFLOG; `prefix` may be
 * NULL. Returns its length.
 */
uint32_t nq_capture_head(const struct nq_packet *packet, const char *prefix,
			 uint8_t head[NQ_CAPTURE_HEAD]);

#endif
