/*
 * build.h - the bytes of a packet from its description, lengths and checksums filled in.
 *
 * The description is plain data; whoever makes it has checked what is said here of each field. What
 * is larger than a link carries is split by split.h; descriptions of answers come from answer.h.
 */
#ifndef NQ_BUILD_H
#define NQ_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NQ_BUILD_MAX4 = 65535,	    /* IPv4: the total length is 16 bits */
	NQ_BUILD_MAX6 = 40 + 65535, /* IPv6: the payload length is */
	NQ_BUILD_OPTIONS = 40,	    /* bytes of options an IPv4 or a TCP header has room for */
	NQ_BUILD_EXTENSIONS = 16,
};

/* A checksum that is computed, for one that is not given. */
#define NQ_BUILD_COMPUTED (-1)

/*
 * An IPv6 extension header (RFC 8200 section 4): `bytes` are borrowed and follow its next header
 * and length bytes. Hop-by-hop and destination options are at most 2046 bytes and padded here; the
 * others' lengths, these two bytes included, are a multiple of 8, a fragment header's 8.
 */
struct nq_build_extension {
	uint8_t kind; /* IPPROTO_HOPOPTS, _ROUTING, _FRAGMENT, _DSTOPTS or _AH */
	const uint8_t *bytes;
	uint32_t length;
};

/* IPv4 (RFC 791) or IPv6 (RFC 8200). */
struct nq_build_ip {
	uint8_t version;	  /* 4 or 6 */
	uint8_t src[16], dst[16]; /* the first 4 bytes, or all */
	uint8_t ttl, tos;
	uint8_t protocol; /* of what follows the last header here */
	/* IPv4 only; IPv6 says these in its fragment header. */
	uint16_t id;
	bool df, mf;
	uint16_t frag_offset; /* bytes, a multiple of 8 */
	int32_t checksum;     /* of the header, or NQ_BUILD_COMPUTED */
	uint8_t options[NQ_BUILD_OPTIONS];
	uint8_t options_length; /* any up to NQ_BUILD_OPTIONS; zeros pad them */
	/* IPv6 only */
	uint32_t flow_label; /* 20 bits */
	struct nq_build_extension extensions[NQ_BUILD_EXTENSIONS];
	unsigned extension_count;
};

struct nq_build_tcp {
	uint16_t sport, dport;
	uint32_t seq, ack_seq;
	uint8_t flags; /* as in the header: FIN 1, SYN 2, ... CWR 128 */
	uint16_t window, urg_ptr;
	uint8_t options[NQ_BUILD_OPTIONS];
	uint8_t options_length; /* as those of IPv4 */
};

struct nq_build_udp {
	uint16_t sport, dport;
};

/* ICMP (RFC 792) or ICMPv6 (RFC 4443), by the version of IP. */
struct nq_build_icmp {
	uint8_t type, code;
	uint16_t id, seq; /* the two halves of the second word, whatever the message has there */
};

enum nq_build_transport {
	NQ_BUILD_NONE, /* the payload follows the IP header */
	NQ_BUILD_TCP,
	NQ_BUILD_UDP,
	NQ_BUILD_ICMP,
};

struct nq_build {
	struct nq_build_ip ip;
	enum nq_build_transport transport;
	struct nq_build_tcp tcp; /* the one that `transport` names */
	struct nq_build_udp udp;
	struct nq_build_icmp icmp;
	int32_t checksum;	/* of the transport, or NQ_BUILD_COMPUTED */
	const uint8_t *payload; /* borrowed */
	size_t payload_length;
};

/* Nothing but computed checksums and a TTL of 64. */
void nq_build_init(struct nq_build *build);

/* The packet's length in bytes; more than NQ_BUILD_MAX4 or _MAX6 cannot be built. */
size_t nq_build_size(const struct nq_build *build);

/*
 * Writes the packet to `bytes`, nq_build_size of them. The transport's length and checksum are
 * those of the bytes here, also where the IP header calls them a fragment. SCTP behind the IP
 * header gets its CRC32c (RFC 9260 appendix A); other payloads stay as they are.
 */
void nq_build_write(const struct nq_build *build, uint8_t *bytes);

#endif
