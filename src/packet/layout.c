#include "packet/layout.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"

enum { IP4_HEADER = 20, IP6_HEADER = 40 };
enum { EXTENSION_LEAST = 8, AH_LEAST = EXTENSION_LEAST };
/* Offsets of the addresses. */
enum { IP4_SOURCE = 12, IP4_DESTINATION = 16, IP6_SOURCE = 8, IP6_DESTINATION = 24 };
/* Options of IPv4: RFC 791 section 3.1; loose and strict source route. */
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };
/* Options of IPv6: RFC 8200 section 4.2, RFC 2675 section 2, RFC 6275 section 6.3. */
enum { OPTION_PAD1 = 0, OPTION_JUMBO = 0xc2, OPTION_HOME_ADDRESS = 0xc9 };

/* RFC 4302 section 2.2; at least AH_LEAST bytes are there. */
static size_t ah_size(const uint8_t *header)
{
	return ((size_t)header[1] + 2) * 4;
}

/*
 * The offset of the last stop of a source route in an IPv4 header of `length` bytes, while there
 * are stops to come; else that of the destination. A route's pointer counts from 1 and ends behind
 * the last stop.
 */
static uint32_t find_target(const uint8_t *bytes, uint32_t length)
{
	uint32_t at = IP4_HEADER;

	while (at < length && bytes[at] != OPTION_END) {
		uint32_t size = 1;

		if (bytes[at] != OPTION_NOP) {
			if (length - at < 2)
				break;
			size = bytes[at + 1];
			if (size < 2 || size > length - at)
				break;
			if ((bytes[at] == OPTION_LSRR || bytes[at] == OPTION_SSRR) && size >= 7 &&
			    bytes[at + 2] + 3U <= size)
				return at + size - 4;
		}
		at += size;
	}
	return IP4_DESTINATION;
}

static void read_ip4(struct nq_layout *layout, const uint8_t *bytes, size_t length)
{
	uint16_t frag;

	if (length < IP4_HEADER)
		return;
	layout->version = 4;
	layout->header = layout->transport = (uint32_t)(bytes[0] & 0x0f) * 4;
	layout->total = nq_get_u16(bytes + 2);
	frag = nq_get_u16(bytes + 6);
	layout->dont_fragment = frag & 0x4000;
	layout->more_fragments = frag & 0x2000;
	layout->frag_offset = (uint16_t)((frag & 0x1fff) * 8);
	layout->protocol = bytes[9];
	layout->origin = IP4_SOURCE;
	layout->target = IP4_DESTINATION;
	layout->cut = layout->header < IP4_HEADER || layout->header > length;
	if (layout->header > IP4_HEADER && !layout->cut)
		layout->target = find_target(bytes, layout->header);
	while (layout->protocol == IPPROTO_AH && !layout->cut && !layout->frag_offset) {
		size_t left = length - layout->transport;
		size_t size = left < AH_LEAST ? AH_LEAST : ah_size(bytes + layout->transport);

		layout->cut = size > left;
		if (layout->cut)
			return;
		layout->protocol = bytes[layout->transport];
		layout->transport += (uint32_t)size;
	}
}

/*
 * The offset of the option `kind` with a value of `size` bytes in a header of options that begins
 * at `offset`, of which at most the bytes up to `end` are there; 0: there is none before the first
 * that is malformed.
 */
static size_t find_option6(const uint8_t *bytes, size_t offset, size_t end, uint8_t kind,
			   uint8_t size)
{
	size_t at = offset + 2;

	if (end - offset < EXTENSION_LEAST)
		return 0;
	if (end - offset > ((size_t)bytes[offset + 1] + 1) * 8)
		end = offset + ((size_t)bytes[offset + 1] + 1) * 8;
	while (end - at >= 2) {
		if (bytes[at] == OPTION_PAD1) {
			at++;
			continue;
		}
		if (bytes[at + 1] > end - at - 2)
			return 0;
		if (bytes[at] == kind && bytes[at + 1] == size)
			return at;
		at += 2U + bytes[at + 1];
	}
	return 0;
}

/*
 * The length of a packet whose payload length is 0, from its hop-by-hop options (RFC 2675). Without
 * a jumbo payload option, or with one that says less than 64 KB, nothing follows the IPv6 header.
 */
static uint32_t jumbo_total(const uint8_t *bytes, size_t length)
{
	size_t at = find_option6(bytes, IP6_HEADER, length, OPTION_JUMBO, 4);
	uint32_t payload = at ? nq_get_u32(bytes + at + 2) : 0;

	if (payload <= 0xffff)
		return IP6_HEADER;
	return payload <= UINT32_MAX - IP6_HEADER ? IP6_HEADER + payload : UINT32_MAX;
}

/*
 * The last stop of a routing header of `size` bytes at `offset` that names stops to come. Type 2
 * (RFC 6275) and the deprecated type 0 list them forward, a segment routing header (type 4, RFC
 * 8754) backward.
 */
static void follow_route(struct nq_layout *layout, const uint8_t *bytes, size_t offset, size_t size)
{
	uint8_t type = bytes[offset + 2];

	if (bytes[offset + 3] == 0 || size < 24)
		return;
	if (type == 0 || type == 2)
		layout->target = (uint32_t)(offset + size - 16);
	else if (type == 4)
		layout->target = (uint32_t)(offset + 8);
}

/*
 * Extension headers (RFC 8200 section 4). Each is at least 8 bytes and begins with the next
 * header's number, so the walk ends within length / 8 steps whatever the bytes say.
 */
static void read_ip6(struct nq_layout *layout, const uint8_t *bytes, size_t length)
{
	size_t offset = IP6_HEADER;
	uint8_t next;

	if (length < IP6_HEADER)
		return;
	layout->version = 6;
	layout->header = IP6_HEADER;
	layout->origin = IP6_SOURCE;
	layout->target = IP6_DESTINATION;
	layout->total = IP6_HEADER + nq_get_u16(bytes + 4);
	if (layout->total == IP6_HEADER && bytes[6] == IPPROTO_HOPOPTS)
		layout->total = jumbo_total(bytes, length);
	next = bytes[6];
	for (;;) {
		size_t size;

		layout->protocol = next;
		layout->transport = (uint32_t)offset;
		if (layout->frag_offset)
			return; /* what follows is the middle of something */
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			return;
		}
		if (length - offset < EXTENSION_LEAST) {
			layout->cut = true;
			return;
		}
		if (next == IPPROTO_FRAGMENT) {
			uint16_t frag = nq_get_u16(bytes + offset + 2);

			if (!layout->fragment_header)
				layout->fragment_header = (uint32_t)offset;
			layout->frag_offset = frag & 0xfff8;
			layout->more_fragments |= frag & 1;
			size = 8;
		} else if (next == IPPROTO_AH) {
			size = ah_size(bytes + offset);
		} else {
			size = ((size_t)bytes[offset + 1] + 1) * 8;
		}
		if (size > length - offset) {
			layout->cut = true;
			return;
		}
		if (next == IPPROTO_ROUTING) {
			follow_route(layout, bytes, offset, size);
		} else if (next == IPPROTO_DSTOPTS) {
			size_t home = find_option6(bytes, offset, length, OPTION_HOME_ADDRESS, 16);

			if (home)
				layout->origin = (uint32_t)(home + 2);
		}
		next = bytes[offset];
		offset += size;
	}
}

void nq_layout_read(struct nq_layout *layout, const uint8_t *bytes, size_t length)
{
	memset(layout, 0, sizeof(*layout));
	if (length == 0)
		return;
	if (bytes[0] >> 4 == 4)
		read_ip4(layout, bytes, length);
	else if (bytes[0] >> 4 == 6)
		read_ip6(layout, bytes, length);
}

const char *nq_layout_difference(const struct nq_layout *before, const uint8_t *old,
				 const struct nq_layout *after, const uint8_t *now)
{
	if (before->version != after->version)
		return "the IP version must stay";
	if (before->version == 4) {
		if (before->header != after->header)
			return "the IPv4 header length must stay";
		if (memcmp(old + 6, now + 6, 2) != 0)
			return "the IPv4 fragment bits must stay";
		if (memcmp(old + IP4_HEADER, now + IP4_HEADER, before->header - IP4_HEADER) != 0)
			return "the IPv4 options must stay";
	}
	if (before->version == 6) {
		bool has_chain = before->transport > IP6_HEADER;

		/* The chain must stay to the byte; without one, byte 6 is the transport's number.
		 */
		if (before->transport != after->transport || before->protocol != after->protocol ||
		    (has_chain && old[6] != now[6]) ||
		    memcmp(old + IP6_HEADER, now + IP6_HEADER, before->transport - IP6_HEADER) != 0)
			return "the IPv6 extension headers must stay";
	}
	return NULL;
}
