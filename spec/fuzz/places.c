/*
 * Where the parts of a packet lie, by a walk of its own.
 */
#include <netinet/in.h>

#include "packet/layout.h"
#include "places.h"

static struct place locate4(const uint8_t *bytes, size_t length)
{
	struct place place = {.source = 12, .destination = 16};
	size_t header;

	if (length < 20)
		return place;
	header = (bytes[0] & 15U) * 4U;
	if (header < 20 || header > length)
		return place;
	place.header = place.transport = header;
	/* A source route with stops to come: to the last of them. */
	for (size_t at = 20, size; at < header && bytes[at] != 0; at += size) {
		size = bytes[at] == 1 ? 1 : at + 1 < header ? bytes[at + 1] : 0;
		if (size == 0 || (size == 1 && bytes[at] != 1) || size > header - at)
			break;
		if ((bytes[at] == 131 || bytes[at] == 137) && size >= 7 &&
		    bytes[at + 2] <= size - 3) {
			place.destination = at + size - 4;
			break;
		}
	}
	place.protocol = bytes[9];
	place.fragment = (get16(bytes + 6) & 0x3fff) != 0; /* MF or an offset; not DF */
	place.later = (get16(bytes + 6) & 0x1fff) != 0;
	/* authentication: in 4-byte words less 2 */
	while (place.protocol == 51 && !place.later) {
		const uint8_t *ah = bytes + place.transport;

		if (length - place.transport < 8 || 8U + 4U * ah[1] > length - place.transport)
			return place;
		place.protocol = ah[0];
		place.transport += 8U + 4U * ah[1];
	}
	place.version = 4;
	return place;
}

static struct place locate6(const uint8_t *bytes, size_t length)
{
	struct place place = {.header = 40, .transport = 40, .source = 8, .destination = 24};
	const uint8_t *header;
	size_t size;

	if (length < 40)
		return place;
	place.protocol = bytes[6];
	while (!place.later) {
		header = bytes + place.transport;
		size = length - place.transport;
		switch (place.protocol) {
		case 0:	 /* hop-by-hop options */
		case 43: /* routing */
		case 60: /* destination options */
			if (size < 8 || 8U + 8U * header[1] > size)
				return place;
			size = 8U + 8U * header[1];
			break;
		case 51: /* authentication: in 4-byte words less 2 */
			if (size < 8 || 8U + 4U * header[1] > size)
				return place;
			size = 8U + 4U * header[1];
			break;
		case 44: /* fragment */
			if (size < 8)
				return place;
			size = 8;
			if (get16(header + 2) & 0xfff9)
				place.fragment = true;
			if (get16(header + 2) & 0xfff8)
				place.later = true;
			break;
		default:
			goto found;
		}
		if (place.protocol == 43 && header[3] && size >= 24) {
			if (header[2] == 0 || header[2] == 2)
				place.destination = place.transport + size - 16;
			else if (header[2] == 4)
				place.destination = place.transport + 8;
		}
		/* The option with a mobile node's home address. */
		for (size_t at = 2, step; place.protocol == 60 && at + 1 < size; at += step) {
			step = header[at] == 0 ? 1 : 2U + header[at + 1];
			if (step > size - at)
				break;
			if (header[at] == 0xc9 && step == 18) {
				place.source = place.transport + at + 2;
				break;
			}
		}
		place.protocol = header[0];
		place.transport += size;
	}
found:
	place.version = 6;
	return place;
}

struct place place_find(const uint8_t *bytes, size_t length)
{
	if (length && bytes[0] >> 4 == 4)
		return locate4(bytes, length);
	if (length && bytes[0] >> 4 == 6)
		return locate6(bytes, length);
	return (struct place){0};
}

bool hostile_is_ip(const uint8_t *bytes, size_t length)
{
	return place_find(bytes, length).version != 0;
}

bool hostile_same_transport(const uint8_t *old, const uint8_t *now, size_t length)
{
	struct place before = place_find(old, length), after = place_find(now, length);

	return before.version == after.version && before.protocol == after.protocol &&
	       before.transport == after.transport;
}

size_t place_checksum(const struct place *place)
{
	switch (place->protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMP:
		return place->version == 4 ? 2 : 0;
	case IPPROTO_ICMPV6:
		return place->version == 6 ? 2 : 0;
	default:
		return 0;
	}
}

bool place_has_tcp(const uint8_t *bytes, size_t size)
{
	size_t header = size >= 20 ? (bytes[12] >> 4) * 4U : 0;

	return header >= 20 && header <= size;
}

size_t hostile_claimed_udp(const uint8_t *bytes, size_t length)
{
	struct place place = place_find(bytes, length);
	size_t size = length - place.transport, claimed;

	if (!place.version || place.fragment || place.protocol != IPPROTO_UDP || size < 8)
		return 0;
	claimed = get16(bytes + place.transport + 4);
	return claimed >= 8 && claimed <= size ? claimed : 0;
}

/* RFC 2675: the first jumbo payload option of hop-by-hop options that are well-formed up to it. */
static uint64_t total6(const uint8_t *bytes, size_t length)
{
	size_t at = 42, end;

	if (get16(bytes + 4) || bytes[6] != 0 || length < 48)
		return 40 + get16(bytes + 4);
	end = 40 + 8 + 8U * bytes[41];
	if (end > length)
		end = length;
	while (at < end) {
		size_t size = bytes[at] == 0 ? 1 : at + 1 < end ? 2U + bytes[at + 1] : end;

		if (size > end - at)
			break;
		if (bytes[at] == 0xc2 && size == 6) {
			uint64_t total = 40 + (uint64_t)get32(bytes + at + 2);

			if (total <= 40 + 65535)
				break;
			return total > UINT32_MAX ? UINT32_MAX : total;
		}
		at += size;
	}
	return 40;
}

static bool is_ip(const uint8_t *bytes, size_t length)
{
	return (length >= 20 && bytes[0] >> 4 == 4) || (length >= 40 && bytes[0] >> 4 == 6);
}

/*
 * The same for who reads headers, within the length that the network header claims. What lies
 * behind *end is padding.
 */
static struct place locate_claimed(const uint8_t *bytes, size_t length, size_t *end)
{
	struct place place = place_find(bytes, length);
	uint64_t total = 0;

	*end = length;
	if (place.version)
		total = place.version == 4 ? get16(bytes + 2) : total6(bytes, length);
	if (total && total < place.transport)
		place.version = 0;
	else if (total && total < length)
		*end = (size_t)total;
	return place;
}

/* How long the header at place->transport is, which ends at `end`; 0: it is not all there. */
static size_t header_size(const struct place *place, const uint8_t *bytes, size_t end)
{
	const uint8_t *transport = bytes + place->transport;
	size_t size = end - place->transport;

	if (place->later)
		return 0;
	switch (place->protocol) {
	case IPPROTO_TCP:
		return place_has_tcp(transport, size) ? (transport[12] >> 4) * 4U : 0;
	case IPPROTO_UDP:
		return size >= 8 ? 8 : 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (size < 4 || (place->protocol == IPPROTO_ICMP) != (place->version == 4))
			return 0;
		return size < 8 ? size : 8;
	default:
		return 0;
	}
}

bool hostile_find_transport(const uint8_t *bytes, size_t length, unsigned *protocol, size_t *at)
{
	size_t end;
	struct place place = locate_claimed(bytes, length, &end);

	*protocol = place.protocol;
	*at = place.transport;
	return place.version && header_size(&place, bytes, end);
}

bool hostile_has_udp(const uint8_t *bytes, size_t length)
{
	size_t end;
	struct place place = locate_claimed(bytes, length, &end);

	return place.version && !place.fragment && place.protocol == IPPROTO_UDP &&
	       header_size(&place, bytes, end);
}

void hostile_find_payload(const uint8_t *bytes, size_t length, size_t *offset, size_t *end)
{
	struct place place = locate_claimed(bytes, length, end);
	size_t size;

	*offset = 0;
	if (!is_ip(bytes, length))
		return;
	*offset = *end; /* nothing behind headers that have no end */
	if (!place.version)
		return;
	size = header_size(&place, bytes, *end);
	*offset = place.transport + size;
	if (place.protocol == IPPROTO_UDP && size) {
		size_t claimed = get16(bytes + place.transport + 4);

		if (claimed >= 8 && claimed < *end - place.transport)
			*end = place.transport + claimed;
	}
}

bool hostile_can_resize(const uint8_t *bytes, size_t length, bool *is_tcp)
{
	size_t end;
	struct place place = locate_claimed(bytes, length, &end);
	size_t size = end - place.transport;

	*is_tcp = place.version && place.protocol == IPPROTO_TCP;
	if (!is_ip(bytes, length))
		return true;
	if (!place.version || place.fragment)
		return false;
	switch (place.protocol) {
	case IPPROTO_TCP:
		return place_has_tcp(bytes + place.transport, size);
	case IPPROTO_UDP:
		return size >= 8;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return size >= 4;
	default:
		return true;
	}
}

void hostile_set_lengths(uint8_t *bytes, size_t length)
{
	struct place place = place_find(bytes, length);
	size_t at = place.version == 4 ? 2 : 4;
	size_t size = place.version == 4 ? length : length - 40;

	if (!place.version)
		return;
	bytes[at] = (uint8_t)(size >> 8);
	bytes[at + 1] = (uint8_t)size;
	if (place.protocol == IPPROTO_UDP && length - place.transport >= 6) {
		size = length - place.transport;
		bytes[place.transport + 4] = (uint8_t)(size >> 8);
		bytes[place.transport + 5] = (uint8_t)size;
	}
}

size_t hostile_checksum_at(unsigned version, unsigned protocol)
{
	return place_checksum(&(struct place){.version = version, .protocol = protocol});
}

void hostile_check_layout(struct run *run, const uint8_t *bytes, size_t length)
{
	struct nq_layout layout;
	struct place place = place_find(bytes, length);
	unsigned nibble = length ? bytes[0] >> 4 : 0;
	bool fixed = (nibble == 4 && length >= 20) || (nibble == 6 && length >= 40);

	memset(&layout, 0xa5, sizeof(layout));
	nq_layout_read(&layout, bytes, length);
	CHECK(run, layout.version == (fixed ? nibble : 0));
	if (!layout.version)
		return;
	CHECK(run, layout.cut == (place.version == 0));
	CHECK(run, layout.origin + (nibble == 4 ? 4 : 16) <= length);
	CHECK(run, layout.target + (nibble == 4 ? 4 : 16) <= length);
	if (layout.cut || !place.version)
		return;
	CHECK(run, layout.header == place.header);
	CHECK(run, layout.origin == place.source);
	CHECK(run, layout.target == place.destination);
	CHECK(run, layout.transport == place.transport);
	CHECK(run, layout.transport <= length);
	CHECK(run, layout.protocol == place.protocol);
	CHECK(run, (layout.more_fragments || layout.frag_offset) == place.fragment);
	if (layout.version == 4) {
		CHECK(run, layout.total == get16(bytes + 2));
		CHECK(run, layout.dont_fragment == !!(bytes[6] & 0x40));
	} else {
		CHECK(run, layout.total == total6(bytes, length));
	}
}
