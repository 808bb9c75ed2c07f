#include "packet/layout.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"

enum { IP4_HEADER = 20, IP6_HEADER = 40 };
enum { EXTENSION_LEAST = 8, AH_LEAST = EXTENSION_LEAST };
enum { OPTION_PAD1 = 0, OPTION_JUMBO = 0xc2 }; /* RFC 8200 section 4.2, RFC 2675 section 2 */

/* RFC 4302 section 2.2; at least AH_LEAST bytes are there. */
static size_t ah_size(const uint8_t *header)
{
	return ((size_t)header[1] + 2) * 4;
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
	layout->cut = layout->header < IP4_HEADER || layout->header > length;
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
 * The length of a packet whose payload length is 0, from its hop-by-hop options of at most `length`
 * bytes (RFC 2675). Without a jumbo payload option, or with one that says less than 64 KB, nothing
 * follows the IPv6 header.
 */
static uint32_t jumbo_total(const uint8_t *options, size_t length)
{
	size_t at = 2;

	if (length < 8)
		return IP6_HEADER;
	if (length > ((size_t)options[1] + 1) * 8)
		length = ((size_t)options[1] + 1) * 8;
	while (length - at >= 2) {
		if (options[at] == OPTION_PAD1) {
			at++;
			continue;
		}
		if (options[at] == OPTION_JUMBO && options[at + 1] == 4 && length - at >= 6) {
			uint32_t payload = nq_get_u32(options + at + 2);

			if (payload <= 0xffff)
				break;
			return payload <= UINT32_MAX - IP6_HEADER ? IP6_HEADER + payload
								  : UINT32_MAX;
		}
		if (options[at + 1] > length - at - 2)
			break;
		at += 2U + options[at + 1];
	}
	return IP6_HEADER;
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
	layout->total = IP6_HEADER + nq_get_u16(bytes + 4);
	if (layout->total == IP6_HEADER && bytes[6] == IPPROTO_HOPOPTS)
		layout->total = jumbo_total(bytes + IP6_HEADER, length - IP6_HEADER);
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
		if (next == IPPROTO_ROUTING && bytes[offset + 3]) {
			/*
			 * Segments left: the checksum is over the final destination. Type 2 (RFC
			 * 6275) and the deprecated type 0 list addresses forward, the last is
			 * final; a segment routing header (type 4, RFC 8754) lists them backward,
			 * the first is final.
			 */
			uint8_t type = bytes[offset + 2];

			if ((type == 0 || type == 2) && size >= 24)
				layout->routing_dest = (uint32_t)(offset + size - 16);
			else if (type == 4 && size >= 24)
				layout->routing_dest = (uint32_t)(offset + 8);
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
