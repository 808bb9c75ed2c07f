/*
 * reject.h - the answer to a packet that is refused: as the kernel's REJECT targets answer.
 *
 * A TCP reset or an ICMP error, and which packets get none (nf_reject_ipv4.c, nf_reject_ipv6.c, RFC
 * 1122 section 3.2.2, RFC 4443 section 2.4): resets, ICMP errors, redirects, fragments but the
 * first, what went to or came from no single host, and what arrived with a wrong checksum.
 */
#ifndef NQ_REJECT_H
#define NQ_REJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/answer.h"
#include "packet/build.h"
#include "packet/packet.h"

enum nq_reject_kind {
	NQ_REJECT_USUAL, /* a reset for TCP, else "icmp-port" */
	NQ_REJECT_TCP_RESET,
	/* The ICMP (RFC 792) and ICMPv6 (RFC 4443) codes of destination unreachable: */
	NQ_REJECT_ICMP_PORT,  /* 3 and 4 */
	NQ_REJECT_ICMP_HOST,  /* 1 and 3 */
	NQ_REJECT_ICMP_NET,   /* 0 and 0 */
	NQ_REJECT_ICMP_ADMIN, /* 13 (RFC 1812) and 1 */
	NQ_REJECT_KINDS,
};

/* "tcp-reset", "icmp-port", ...; NULL for NQ_REJECT_USUAL. */
const char *nq_reject_name(enum nq_reject_kind kind);

/* No answer is longer. */
#define NQ_REJECT_MOST 1280

/*
 * Describes the answer of packet->reject_kind in *build; it comes from where the packet was sent
 * to. NULL, or why there is none.
 */
const char *nq_reject_answer(struct nq_packet *packet, struct nq_build *build);

#endif
