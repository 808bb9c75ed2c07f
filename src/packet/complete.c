#include "packet/complete.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/checksum.h"
#include "packet/crc32c.h"

enum { UDP_HEADER = 8, UDP_LENGTH = 4, SCTP_HEADER = 12, SCTP_CHECKSUM = 8 };

static uint32_t address_size(const struct nq_layout *layout)
{
	return layout->version == 4 ? 4 : 16;
}

uint64_t nq_pseudo_header_sum(const struct nq_layout *layout, const uint8_t *bytes, uint32_t length)
{
	uint8_t tail[8] = {0};
	uint64_t sum;

	nq_put_u32(tail, length);
	tail[7] = layout->protocol;
	sum = nq_checksum_add(0, tail, sizeof(tail));
	sum = nq_checksum_add(sum, bytes + layout->origin, address_size(layout));
	return nq_checksum_add(sum, bytes + layout->target, address_size(layout));
}

static bool has_pseudo_header(const struct nq_layout *layout)
{
	return layout->protocol != IPPROTO_ICMP;
}

static void write_checksum(uint8_t *bytes, uint32_t at, uint32_t length, uint64_t sum, bool udp)
{
	uint16_t checksum;

	memset(bytes + at, 0, 2);
	checksum = nq_checksum_fold(nq_checksum_add(sum, bytes, length));
	if (udp && checksum == 0)
		checksum = 0xffff;
	memcpy(bytes + at, &checksum, 2);
}

static const char *check_transport(const struct nq_layout *layout, const uint8_t *bytes,
				   uint32_t length)
{
	uint32_t size = length - layout->transport;

	switch (layout->protocol) {
	case IPPROTO_TCP: {
		uint32_t header;

		if (size < 20)
			return "its TCP header is cut short";
		header = (uint32_t)(bytes[layout->transport + 12] >> 4) * 4;
		if (header < 20 || header > size)
			return "its TCP data offset points outside the packet";
		return NULL;
	}
	case IPPROTO_UDP:
		return size < UDP_HEADER ? "its UDP header is cut short" : NULL;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return size < 4 ? "its ICMP header is cut short" : NULL;
	default:
		return NULL;
	}
}

const char *nq_complete_check(const struct nq_layout *layout, const uint8_t *bytes, uint32_t length)
{
	if (layout->version == 0)
		return "it is neither IPv4 nor IPv6, or shorter than its IP header";
	if (layout->cut)
		return "its headers reach beyond its end";
	return nq_is_fragment(layout) ? NULL : check_transport(layout, bytes, length);
}

uint32_t nq_checksum_offset(const struct nq_layout *layout)
{
	switch (layout->protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMP:
		return layout->version == 4 ? 2 : 0;
	case IPPROTO_ICMPV6:
		return layout->version == 6 ? 2 : 0;
	default:
		return 0;
	}
}

/* The sum itself, not its complement: what whoever cuts the packet goes on from. */
static void sum_pseudo_header(const struct nq_change *change, const struct nq_layout *layout,
			      uint8_t *bytes, uint32_t size)
{
	uint16_t sum = 0;

	if (change->checksum != 0)
		sum = (uint16_t)~nq_checksum_fold(nq_pseudo_header_sum(layout, bytes, size));
	memcpy(bytes + layout->transport + nq_checksum_offset(layout), &sum, 2);
}

enum nq_checksum_state nq_checksum_check(const struct nq_layout *layout, const uint8_t *bytes,
					 uint32_t length, uint16_t *right)
{
	static const uint8_t zeros[2] = {0};
	uint32_t at = nq_checksum_offset(layout);
	const uint8_t *transport = bytes + layout->transport;
	bool is_udp = layout->protocol == IPPROTO_UDP;
	uint16_t found, wanted, partial;
	uint32_t size;
	uint64_t sum;

	if (!at || layout->cut || nq_is_fragment(layout))
		return NQ_CHECKSUM_UNKNOWN;
	if (layout->total >= layout->transport && layout->total < length)
		length = layout->total; /* the rest is padding */
	if (check_transport(layout, bytes, length))
		return NQ_CHECKSUM_UNKNOWN;
	size = length - layout->transport;
	if (is_udp) {
		uint32_t claimed = nq_get_u16(transport + UDP_LENGTH);

		if (memcmp(transport + at, zeros, 2) == 0)
			return NQ_CHECKSUM_UNKNOWN;
		if (claimed >= UDP_HEADER && claimed < size)
			size = claimed;
	}
	memcpy(&found, transport + at, 2);
	sum = has_pseudo_header(layout) ? nq_pseudo_header_sum(layout, bytes, size) : 0;
	partial = (uint16_t)~nq_checksum_fold(sum);
	sum = nq_checksum_add(sum, transport, at);
	sum = nq_checksum_add(sum, transport + at + 2, size - at - 2);
	wanted = nq_checksum_fold(sum);
	if (wanted == 0 && is_udp)
		wanted = 0xffff;
	if (right)
		*right = wanted;
	/* 0 and 0xffff are the same number. */
	if (found == wanted || (found == 0xffff && wanted == 0))
		return NQ_CHECKSUM_RIGHT;
	return has_pseudo_header(layout) && found == partial ? NQ_CHECKSUM_PARTIAL
							     : NQ_CHECKSUM_WRONG;
}

static void sum_anew(const struct nq_layout *layout, uint8_t *bytes, uint32_t size)
{
	uint8_t *transport = bytes + layout->transport;
	uint32_t at = nq_checksum_offset(layout);
	uint32_t crc;

	if (at) {
		uint64_t sum =
			has_pseudo_header(layout) ? nq_pseudo_header_sum(layout, bytes, size) : 0;

		write_checksum(transport, at, size, sum, layout->protocol == IPPROTO_UDP);
	} else if (layout->protocol == IPPROTO_SCTP && size >= SCTP_HEADER) {
		memset(transport + SCTP_CHECKSUM, 0, 4);
		crc = htole32(nq_crc32c(transport, size));
		memcpy(transport + SCTP_CHECKSUM, &crc, 4);
	}
}

/* RFC 1624, equation 3. */
static void follow(const struct nq_change *change, const struct nq_layout *layout, uint8_t *bytes)
{
	uint16_t checksum =
		nq_checksum_fold((uint64_t)(uint16_t)~change->checksum + change->difference);

	if (checksum == 0 && layout->protocol == IPPROTO_UDP)
		checksum = 0xffff;
	memcpy(bytes + layout->transport + change->at, &checksum, 2);
}

void nq_complete(const struct nq_layout *layout, uint8_t *bytes, uint32_t length,
		 const struct nq_change *change)
{
	uint32_t size = length - layout->transport;
	bool follows;

	/* What was remembered of another transport, or of one elsewhere, says nothing here. */
	if (change &&
	    (change->protocol != layout->protocol || change->transport != layout->transport))
		change = NULL;
	follows = change && change->at;
	if (layout->version == 4) {
		nq_put_u16(bytes + 2, length);
		write_checksum(bytes, 10, layout->header, 0, false);
	} else {
		nq_put_u16(bytes + 4, length - 40);
	}
	if (!nq_is_fragment(layout)) {
		if (layout->protocol == IPPROTO_UDP) {
			/* What lies behind the length that UDP claims is no part of the datagram
			 * (RFC 9868). */
			if (change && change->udp_length)
				size = change->udp_length;
			nq_put_u16(bytes + layout->transport + UDP_LENGTH, size);
		}
		if (change && change->cut_later)
			sum_pseudo_header(change, layout, bytes, size);
		else if (!follows)
			sum_anew(layout, bytes, size);
	}
	/* The checksum of a fragment covers bytes that are not here: it is followed or left. */
	if (follows)
		follow(change, layout, bytes);
}

void nq_change_begin(struct nq_change *change, const struct nq_layout *layout, const uint8_t *bytes,
		     uint32_t length, bool exact, bool gso)
{
	uint32_t at = nq_checksum_offset(layout);
	uint32_t size;

	*change = (struct nq_change){
		.leaving = length, .transport = layout->transport, .protocol = layout->protocol};
	if (!layout->version || layout->cut)
		return;
	/* Padding of the link layer does not leave: kernels want the two lengths equal. */
	if (layout->total >= layout->transport && layout->total < length)
		change->leaving = length = layout->total;
	size = length - layout->transport;
	if (layout->protocol == IPPROTO_UDP && !nq_is_fragment(layout) && size >= UDP_HEADER) {
		uint32_t claimed = nq_get_u16(bytes + layout->transport + UDP_LENGTH);

		if (claimed >= UDP_HEADER && claimed <= size)
			change->udp_length = claimed;
		else
			exact = false;
	}
	if (gso && layout->protocol == IPPROTO_UDP && !nq_is_fragment(layout) &&
	    size >= UDP_HEADER) {
		change->cut_later = true;
		memcpy(&change->checksum, bytes + layout->transport + at, 2);
		return;
	}
	if (layout->frag_offset || !at || size < at + 2 ||
	    (!nq_is_fragment(layout) && (!exact || check_transport(layout, bytes, length))))
		return;
	memcpy(&change->checksum, bytes + layout->transport + at, 2);
	/* A UDP checksum of 0 means that there is none. */
	if (change->checksum != 0 || layout->protocol != IPPROTO_UDP)
		change->at = at;
}

const char *nq_change_check(const struct nq_layout *layout, uint32_t length)
{
	uint32_t at = nq_checksum_offset(layout);

	if (layout->total >= layout->transport && layout->total < length)
		length = layout->total;
	if (layout->protocol == IPPROTO_SCTP)
		return "it is a first fragment: SCTP's checksum is made of the whole packet only";
	if (at && length - layout->transport < at + 2)
		return "it is a first fragment: the checksum over it lies in a later one";
	return NULL;
}

/* Adds what of [from, to) lies in [start, end), which begins at an even offset; whole words. */
static uint64_t add_part(uint64_t sum, const uint8_t *bytes, uint32_t from, uint32_t to,
			 uint32_t start, uint32_t end)
{
	from = from > start ? from & ~1U : start;
	to = to < end ? (to + 1) & ~1U : end;
	if (to > end)
		to = end;
	return from < to ? nq_checksum_add(sum, bytes + from, to - from) : sum;
}

uint16_t nq_change_sum(const struct nq_change *change, const struct nq_layout *layout,
		       const uint8_t *bytes, uint32_t from, uint32_t to)
{
	uint32_t at = change->transport + change->at;
	uint32_t end =
		change->udp_length ? change->transport + change->udp_length : change->leaving;
	uint64_t sum = 0;

	if (change->protocol != IPPROTO_ICMP) {
		uint32_t width = address_size(layout);

		sum = add_part(sum, bytes, from, to, layout->origin, layout->origin + width);
		sum = add_part(sum, bytes, from, to, layout->target, layout->target + width);
	}
	if (change->udp_length) {
		/* The length is written back as it was. */
		sum = add_part(sum, bytes, from, to, change->transport,
			       change->transport + UDP_LENGTH);
	} else {
		sum = add_part(sum, bytes, from, to, change->transport, at);
	}
	sum = add_part(sum, bytes, from, to, at + 2, end);
	return (uint16_t)~nq_checksum_fold(sum);
}

void nq_change_add(struct nq_change *change, uint16_t before, uint16_t after)
{
	change->difference += (uint16_t)~before;
	change->difference += after;
}
