/*
 * icmp.h - what the messages of ICMP (RFC 792) and ICMPv6 (RFC 4443) hold behind their first four
 * bytes. The header itself is found by header.h.
 */
#ifndef NQ_ICMP_H
#define NQ_ICMP_H

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

/*
 * Whether the packet's message is of a type that has an identifier and a sequence number, 16 bits
 * each behind the first four bytes, and they are there: echo, timestamp, information, address mask
 * (RFC 792, RFC 950), domain name (RFC 1788), ICMPv6 echo (RFC 4443).
 */
bool nq_icmp_has_id(struct nq_packet *packet);

/* Whether a message of this type is an error, which embeds the packet it is about: types 3, 4, 5,
 * 11 and 12 of ICMP, and those below 128 of ICMPv6 (RFC 4443 section 2.1). */
bool nq_icmp_is_error(uint8_t version, uint8_t type);

/*
 * Where the packet lies that an error message is about: as much of it as the message carries,
 * perhaps nothing, without the padding and the extensions of RFC 4884. False when there is no ICMP
 * header or its message is no error.
 */
bool nq_embedded_find(struct nq_packet *packet, uint32_t *offset, uint32_t *end);

#endif
