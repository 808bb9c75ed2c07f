/*
 * packet.h - one packet: borrowed bytes, what the kernel said about it, and what was decided.
 *
 * The struct is filled by whoever receives (netlink) or makes (a spec, a replay) the packet; it
 * owns nothing. Bytes begin with the network header. Nothing here allocates or knows netlink or
 * Lua.
 */
#ifndef NQ_PACKET_H
#define NQ_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "packet/layout.h"

/* NFQA_PAYLOAD's 16-bit attribute length less its 4-byte header: no more fits in a verdict. */
#define NQ_PACKET_MAX 65531

enum nq_verdict {
	NQ_UNDECIDED,
	NQ_ACCEPT,
	NQ_DROP,
	NQ_MODIFY, /* accept with other bytes */
	NQ_AGAIN,  /* NF_REPEAT */
	NQ_REQUEUE,
	NQ_REJECT, /* drop, and answer: see reject.h */
	NQ_DELAY,  /* accept, later */
};

/* Bits of nq_packet.have: which of the optional facts are there. */
enum {
	NQ_HAVE_IIF = 1 << 0,
	NQ_HAVE_OIF = 1 << 1,
	NQ_HAVE_PHYSIIF = 1 << 2,
	NQ_HAVE_PHYSOIF = 1 << 3,
	NQ_HAVE_UID = 1 << 4,
	NQ_HAVE_GID = 1 << 5,
	NQ_HAVE_CGROUP = 1 << 6,
	NQ_HAVE_TIMESTAMP = 1 << 7,
	NQ_HAVE_VLAN = 1 << 8,
	NQ_HAVE_PAYLOAD = 1 << 9,
	NQ_HAVE_WIRE_LENGTH = 1 << 10,
	NQ_HAVE_CT_INFO = 1 << 11,
	NQ_HAVE_HEADER = 1 << 12, /* id, hook and ethertype */
};

/* Bits of nq_packet.send: what goes out with the verdict beside it. */
enum {
	NQ_SEND_MARK = 1 << 0,
	NQ_SEND_PRIORITY = 1 << 1,
	NQ_SEND_BYTES = 1 << 2,
	NQ_SEND_CONNMARK = 1 << 3,
	NQ_SEND_LABEL = 1 << 4,
};

/*
 * A packet before its first change. Where that is exact, its transport checksum is brought along
 * with what changes (RFC 1624, equation 3) instead of being summed anew: for first fragments, whose
 * rest is elsewhere, and for what the kernel delivered, where a broken checksum must stay broken.
 */
struct nq_change {
	uint32_t leaving;    /* length without link-layer padding */
	uint32_t transport;  /* offset of the transport header; another one is not followed */
	uint32_t at;	     /* of the checksum in the transport header; 0: it is summed anew */
	uint32_t udp_length; /* what a UDP header rightly claims; 0: completed to the end */
	uint16_t checksum;   /* in memory order */
	uint8_t protocol;
	bool cut_later;	     /* UDP datagrams in one: `checksum` is 0, or the pseudo-header's sum */
	uint64_t difference; /* of all changes so far: sum of ~old + new words */
};

/* Checksums that were assigned and leave as they are: bits of nq_packet.keep. */
enum { NQ_KEEP_IP = 1 << 0, NQ_KEEP_TRANSPORT = 1 << 1 };

/* Both ends of a packet, as it arrived; see tuple.h. */
struct nq_flow_tuple {
	uint8_t version;  /* 4 or 6 */
	uint8_t protocol; /* of the transport */
	bool has_ports;
	uint16_t sport, dport; /* ICMP echo: the identifier in both */
	uint8_t src[16], dst[16];
};

struct nq_packet {
	/* A second place, for content of another length. Holds NQ_PACKET_MAX bytes; may be NULL as
	 * long as no content of another length is given. */
	uint8_t *spare;

	/* From here to `iif` nq_packet_reset clears: what is 0 or NULL when absent. */
	uint8_t *data; /* writable; NULL when nothing was copied */
	uint32_t length;
	uint32_t wire_length; /* NQ_HAVE_WIRE_LENGTH */
	uint32_t have;	      /* NQ_HAVE_* */
	uint32_t id;
	uint16_t queue;
	uint16_t ethertype;
	uint8_t family; /* NFPROTO_* numbers */
	uint8_t hook;
	bool csum_complete; /* delivered with a transport checksum over all of its bytes */
	bool gso;
	uint32_t mark;
	uint32_t priority;
	const uint8_t *l2header;
	const char *secctx;
	const uint8_t *ct; /* NFQA_CT's nested attributes */
	uint16_t l2header_length;
	uint16_t secctx_length;
	uint16_t ct_length;
	uint8_t hwaddr_length;
	bool layout_known;
	enum nq_verdict verdict;
	uint32_t send; /* NQ_SEND_* */
	bool dirty;    /* content was changed and is not complete yet */
	uint8_t keep;  /* NQ_KEEP_* */
	bool tuple_known;
	bool rewritten; /* its numbers are those of its receiver; see table/rewrite.h */
	bool kept;	/* lies in a struct nq_held (host/keep.h), which gives it room when asked */

	/* Facts that a bit of `have`, or a length, says to be there. */
	uint32_t iif, oif, physiif, physoif;
	uint32_t uid, gid, cgroup;
	uint32_t ct_info;
	uint64_t seconds, microseconds;
	uint16_t vlan_proto, vlan_tci;
	uint8_t hwaddr[8];
	struct nq_layout layout; /* of the present content, when layout_known; see header.h */

	/* Parts of the decision that a bit of `send`, the verdict, or `dirty` says to be there. */
	uint32_t send_mark, send_priority;
	uint32_t connmark, connmask;
	int64_t delay;	     /* nanoseconds, with NQ_DELAY */
	uint16_t target;     /* requeue */
	bool bypass;	     /* requeue: accept when nobody listens there */
	uint8_t label;	     /* number of the label bit to set, 0 to 127 */
	uint8_t reject_kind; /* enum nq_reject_kind */
	struct nq_change change;
	uint16_t kept_ip, kept_transport; /* the assigned checksums, host order */
	uint32_t kept_at;		  /* offset of the second, */
	uint8_t kept_protocol;		  /* and whose it is */
	struct nq_flow_tuple tuple;	  /* when tuple_known */
};

/* Makes it a packet about which nothing is known; `spare` stays. */
static inline void nq_packet_reset(struct nq_packet *packet)
{
	memset(&packet->data, 0,
	       offsetof(struct nq_packet, iif) - offsetof(struct nq_packet, data));
}

/* Whether the kernel kept part of the packet back; such a packet can be judged but not edited. */
static inline bool nq_packet_truncated(const struct nq_packet *packet)
{
	return !(packet->have & NQ_HAVE_PAYLOAD) ||
	       ((packet->have & NQ_HAVE_WIRE_LENGTH) && packet->wire_length > packet->length);
}

/* Bytes that the packet has on the wire, where that is known; else those that are here. */
static inline uint32_t nq_wire_length(const struct nq_packet *packet)
{
	return packet->have & NQ_HAVE_WIRE_LENGTH ? packet->wire_length : packet->length;
}

/* Names of families and hooks as nft prints them ("ip", "prerouting"); NULL for a number that has
 * none. */
const char *nq_family_name(uint8_t family);
const char *nq_hook_name(uint8_t family, uint8_t hook);

/* "accept", "drop", "modify", "again", "requeue", "reject", "delay"; NULL for NQ_UNDECIDED. */
const char *nq_verdict_name(enum nq_verdict verdict);

#endif
