#include "packet/icmp.h"

#include "packet/checksum.h"
#include "packet/header.h"

enum { ICMP_HEADER = 8, ORIGINAL_LEAST = 128 };

enum {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_SOURCE_QUENCH = 4,
	ICMP_REDIRECT = 5,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
	ICMP_TIMESTAMP = 13, /* 14 its reply, 15 and 16 information, 17 and 18 address mask */
	ICMP_ADDRESS_MASK_REPLY = 18,
	ICMP_DOMAIN_NAME = 37,
	ICMP_DOMAIN_NAME_REPLY = 38,
};

enum {
	ICMP6_UNREACHABLE = 1,
	ICMP6_TIME_EXCEEDED = 3,
	ICMP6_INFORMATIONAL = 128, /* the first type that is no error, and an echo request */
	ICMP6_ECHO_REPLY = 129,
};

/* The message from its type to `*end`; NULL when there is none. */
static const uint8_t *find_message(struct nq_packet *packet, uint32_t *offset, uint32_t *end)
{
	uint32_t payload;

	if (!nq_header_find(packet, NQ_HEADER_ICMP, offset) ||
	    !nq_payload_find(packet, &payload, end))
		return NULL;
	return packet->data + *offset;
}

bool nq_icmp_has_id(struct nq_packet *packet)
{
	uint32_t offset, end;
	const uint8_t *icmp = find_message(packet, &offset, &end);

	if (!icmp || end - offset < ICMP_HEADER)
		return false;
	if (packet->layout.version == 6)
		return icmp[0] == ICMP6_INFORMATIONAL || icmp[0] == ICMP6_ECHO_REPLY;
	return icmp[0] == ICMP_ECHO_REPLY || icmp[0] == ICMP_ECHO ||
	       (icmp[0] >= ICMP_TIMESTAMP && icmp[0] <= ICMP_ADDRESS_MASK_REPLY) ||
	       icmp[0] == ICMP_DOMAIN_NAME || icmp[0] == ICMP_DOMAIN_NAME_REPLY;
}

/* Whether RFC 4884 gave this error a length field and extensions. */
static bool is_extended(uint8_t version, uint8_t type)
{
	if (version == 6)
		return type == ICMP6_UNREACHABLE || type == ICMP6_TIME_EXCEEDED;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

bool nq_icmp_is_error(uint8_t version, uint8_t type)
{
	if (version == 6)
		return type < ICMP6_INFORMATIONAL;
	return is_extended(version, type) || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT;
}

/*
 * Bytes of the original datagram in `size` bytes behind the header (RFC 4884 sections 3 to 5): the
 * length field counts words of 32 bits, in ICMPv6 of 64. Routers older than the field leave it 0
 * and put extensions behind 128 bytes; their version and checksum tell them from a datagram that
 * goes on.
 */
static uint32_t original_size(uint8_t version, const uint8_t *icmp, uint32_t size)
{
	uint32_t claimed = version == 6 ? icmp[4] * 8U : icmp[5] * 4U;
	const uint8_t *extension = icmp + ICMP_HEADER + ORIGINAL_LEAST;

	if (claimed)
		return claimed < size ? claimed : size;
	if (size >= ORIGINAL_LEAST + 8 && extension[0] >> 4 == 2 &&
	    (extension[2] || extension[3]) &&
	    nq_checksum_fold(nq_checksum_add(0, extension, size - ORIGINAL_LEAST)) == 0)
		return ORIGINAL_LEAST;
	return size;
}

bool nq_embedded_find(struct nq_packet *packet, uint32_t *offset, uint32_t *end)
{
	const uint8_t *icmp = find_message(packet, offset, end);
	uint8_t version = packet->layout.version;
	struct nq_layout inner;
	uint32_t size;

	if (!icmp || !nq_icmp_is_error(version, icmp[0]))
		return false;
	if (*end - *offset <= ICMP_HEADER) {
		*offset = *end;
		return true;
	}
	*offset += ICMP_HEADER;
	size = *end - *offset;
	if (is_extended(version, icmp[0]))
		size = original_size(version, icmp, size);
	nq_layout_read(&inner, packet->data + *offset, size);
	if (inner.version && inner.total >= inner.transport && inner.total < size)
		size = inner.total; /* zeros fill a short datagram up */
	*end = *offset + size;
	return true;
}
