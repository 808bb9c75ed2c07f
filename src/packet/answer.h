/*
 * answer.h - what answers a packet: the description of the reply, for build.h.
 *
 * Addresses and ports are swapped and the conversation goes on where the packet left it. Each call
 * fills *build from scratch, with a payload that points into the packet's bytes, and returns NULL,
 * or a constant string that completes "bad argument 'reply' (...)".
 */
#ifndef NQ_ANSWER_H
#define NQ_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/build.h"
#include "packet/packet.h"

/*
 * The next segment of the other side for TCP (RFC 9293 sections 3.4 and 3.10.7: sequence number as
 * acknowledged, everything here acknowledged; a SYN gets a SYN; timestamps are echoed, RFC 7323), a
 * datagram for UDP, the echo reply with the same data for an ICMP echo request (RFC 792, RFC 4443
 * section 4.2), and for other protocols what the caller puts behind the header. None of them has a
 * payload but the echo.
 */
const char *nq_answer_reply(struct nq_packet *packet, struct nq_build *build);

/* The reset of a TCP segment for which there is no connection (RFC 9293 section 3.10.7.1). */
const char *nq_answer_reset(struct nq_packet *packet, struct nq_build *build);

/*
 * An ICMP or ICMPv6 error about the packet, its beginning embedded. Refused where RFC 1122 section
 * 3.2.2 and RFC 4443 section 2.4 forbid one. The type is the caller's to set.
 */
const char *nq_answer_error(struct nq_packet *packet, struct nq_build *build);

/*
 * How much of a packet an error may embed when its own IP header is `header` bytes long: as fits
 * 576 bytes (IPv4, RFC 1812 section 4.3.2.3) or 1280 (IPv6, RFC 4443 section 2.4).
 */
size_t nq_icmp_embedded_most(uint8_t version, uint32_t header);

/* Whether it is a host's: no multicast, not unspecified, no limited broadcast. */
bool nq_address_is_host(uint8_t version, const uint8_t *address);

#endif
