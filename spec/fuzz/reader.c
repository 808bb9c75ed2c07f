/*
 * Packets read and summed anew: where their headers lie, what a completed or edited one must be.
 */
#include <netinet/in.h>

#include "hostile.h"
#include "packet/layout.h"

struct place {
	unsigned version; /* 0: not IP, or its headers are not all there */
	size_t header;	  /* length of the IP header, without extensions of IPv6 */
	size_t transport;
	unsigned protocol;
	size_t destination; /* of the pseudo-header */
	bool fragment;	    /* part of a datagram; */
	bool later;	    /* not its first */
};

static struct place locate4(const uint8_t *bytes, size_t length)
{
	struct place place = {.destination = 16};
	size_t header;

	if (length < 20)
		return place;
	header = (bytes[0] & 15U) * 4U;
	if (header < 20 || header > length)
		return place;
	place.header = place.transport = header;
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
	struct place place = {.header = 40, .transport = 40, .destination = 24};
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
		place.protocol = header[0];
		place.transport += size;
	}
found:
	place.version = 6;
	return place;
}

static struct place locate(const uint8_t *bytes, size_t length)
{
	if (length && bytes[0] >> 4 == 4)
		return locate4(bytes, length);
	if (length && bytes[0] >> 4 == 6)
		return locate6(bytes, length);
	return (struct place){0};
}

bool hostile_is_ip(const uint8_t *bytes, size_t length)
{
	return locate(bytes, length).version != 0;
}

/* Plain words in network order; 65,535 of them cannot overflow. An odd byte is a high half. */
static uint32_t add_words(uint32_t sum, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	return sum;
}

/* A sum over a correct checksum and all it covers is 0xffff. */
static bool sums_up(uint32_t sum)
{
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static uint32_t add_pseudo(const struct place *place, const uint8_t *bytes, size_t length)
{
	uint32_t size = (uint32_t)(length - place->transport);
	uint32_t sum = place->protocol + (size & 0xffff) + (size >> 16);

	if (place->version == 4)
		return add_words(sum, bytes + 12, 8);
	return add_words(add_words(sum, bytes + 8, 16), bytes + place->destination, 16);
}

/* Where the checksum of a transport lies in its header; 0: it has none that is ours to write. */
static size_t field_at(const struct place *place)
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

/* SCTP's checksum is a CRC, which is completed where all of the packet is there. */
static bool has_crc(const struct place *place, size_t length)
{
	return place->protocol == IPPROTO_SCTP && !place->fragment &&
	       length - place->transport >= 12;
}

/* The same where it is summed anew: a fragment has not all that it covers. */
static size_t checksum_at(const struct place *place)
{
	return place->fragment ? 0 : field_at(place);
}

size_t hostile_claimed_udp(const uint8_t *bytes, size_t length)
{
	struct place place = locate(bytes, length);
	size_t size = length - place.transport, claimed;

	if (!place.version || place.fragment || place.protocol != IPPROTO_UDP || size < 8)
		return 0;
	claimed = get16(bytes + place.transport + 4);
	return claimed >= 8 && claimed <= size ? claimed : 0;
}

/* A TCP header that lies within the packet. */
static bool has_tcp(const uint8_t *bytes, size_t size)
{
	size_t header = size >= 20 ? (bytes[12] >> 4) * 4U : 0;

	return header >= 20 && header <= size;
}

/*
 * Offset of a checksum that follows edits, 0 where it is summed anew: that of a first fragment, and
 * with `exact` of a whole packet. What its bytes add to the sum, the checksum included, must stay.
 */
static size_t follows_at(const uint8_t *bytes, size_t length, bool exact)
{
	struct place place = locate(bytes, length);
	size_t field = field_at(&place), at = place.transport + field;

	if (!place.version || place.later || !field || length < at + 2 ||
	    (place.protocol == IPPROTO_UDP && get16(bytes + at) == 0))
		return 0;
	if (place.fragment)
		return at;
	if (!exact || length < place.transport + 4 ||
	    (place.protocol == IPPROTO_UDP && !hostile_claimed_udp(bytes, length)) ||
	    (place.protocol == IPPROTO_TCP &&
	     !has_tcp(bytes + place.transport, length - place.transport)))
		return 0;
	return at;
}

static bool same_share(const struct place *place, const uint8_t *old, const uint8_t *now,
		       size_t length)
{
	bool pseudo = place->protocol != IPPROTO_ICMP;
	size_t udp = hostile_claimed_udp(old, length);
	size_t size = udp ? udp : length - place->transport;
	uint32_t before = pseudo ? add_pseudo(place, old, place->transport + size) : 0;
	uint32_t after = pseudo ? add_pseudo(place, now, place->transport + size) : 0;

	return add_words(before, old + place->transport, size) % 0xffff ==
	       add_words(after, now + place->transport, size) % 0xffff;
}

/* RFC 9260 appendix A, a bit at a time. */
static uint32_t crc32c(const uint8_t *bytes, size_t length)
{
	uint32_t crc = 0xffffffff;

	for (size_t i = 0; i < length; i++) {
		crc ^= i >= 8 && i < 12 ? 0 : bytes[i]; /* its own field counts as 0 */
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

void hostile_verify(struct run *run, const uint8_t *bytes, size_t length, size_t udp,
		    size_t follows)
{
	struct place place = locate(bytes, length);
	size_t size = length - place.transport, checksum = checksum_at(&place);
	const uint8_t *transport = bytes + place.transport;

	if (!CHECK(run, place.version != 0))
		return;
	run->verified++;
	if (place.version == 4) {
		CHECK(run, get16(bytes + 2) == length);
		CHECK(run, sums_up(add_words(0, bytes, place.header)));
	} else {
		CHECK(run, get16(bytes + 4) == length - 40);
	}
	if (has_crc(&place, length)) {
		uint32_t crc = crc32c(transport, size);

		for (unsigned i = 0; i < 4; i++)
			CHECK(run, transport[8 + i] == (uint8_t)(crc >> 8 * i));
	}
	if (!checksum || !CHECK(run, size >= checksum + 2))
		return;
	if (place.protocol == IPPROTO_UDP) {
		if (udp)
			size = udp;
		CHECK(run, get16(transport + 4) == size);
	}
	if (follows)
		return;
	if (place.protocol == IPPROTO_ICMP) {
		CHECK(run, sums_up(add_words(0, transport, size)));
		return;
	}
	CHECK(run, sums_up(add_words(add_pseudo(&place, bytes, place.transport + size), transport,
				     size)));
	if (place.protocol == IPPROTO_UDP)
		CHECK(run, get16(transport + 6) != 0);
}

static bool within(size_t i, size_t start, size_t length)
{
	return i >= start && i - start < length;
}

/* Whether completion writes this byte. */
static bool is_completed(const struct place *place, size_t i, size_t length)
{
	size_t checksum = checksum_at(place);

	if (place->version == 4 && (within(i, 2, 2) || within(i, 10, 2)))
		return true;
	if (place->version == 6 && within(i, 4, 2))
		return true;
	if (has_crc(place, length) && within(i, place->transport + 8, 4))
		return true;
	if (!checksum)
		return false;
	return within(i, place->transport + checksum, 2) ||
	       (place->protocol == IPPROTO_UDP && within(i, place->transport + 4, 2));
}

void hostile_verify_untouched(struct run *run, const uint8_t *old, const uint8_t *now,
			      size_t length, size_t follows)
{
	struct place place = locate(now, length);

	for (size_t i = 0; i < length; i++) {
		if (old[i] == now[i] || is_completed(&place, i, length) ||
		    (follows && within(i, follows, 2)))
			continue;
		CHECK(run, !"a byte that is no length or checksum changed");
		return;
	}
}

size_t hostile_verify_share(struct run *run, const uint8_t *old, const uint8_t *now, size_t length,
			    bool exact)
{
	struct place place = locate(old, length);
	size_t follows = follows_at(old, length, exact);

	/* With another transport there is nothing to hold it against. */
	if (!follows || locate(now, length).protocol != place.protocol)
		return 0;
	CHECK(run, same_share(&place, old, now, length));
	return follows;
}

void hostile_verify_preserved(struct run *run, const uint8_t *old, size_t old_length,
			      const uint8_t *now, size_t length)
{
	struct place before = locate(old, old_length), after = locate(now, length);

	if (!before.version)
		return;
	if (before.version == 4) {
		/* Another protocol may make what follows an authentication header, perhaps cut. */
		if (!CHECK(run, length >= before.header && old[0] == now[0]))
			return;
		CHECK(run, memcmp(old + 6, now + 6, 2) == 0);
		CHECK(run, memcmp(old + 20, now + 20, before.header - 20) == 0);
	} else if (CHECK(run, after.version == before.version) &&
		   CHECK(run, after.transport == before.transport)) {
		CHECK(run, old[6] == now[6]);
		CHECK(run, memcmp(old + 40, now + 40, before.transport - 40) == 0);
	}
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

void hostile_check_layout(struct run *run, const uint8_t *bytes, size_t length)
{
	struct nq_layout layout;
	struct place place = locate(bytes, length);
	unsigned nibble = length ? bytes[0] >> 4 : 0;
	bool fixed = (nibble == 4 && length >= 20) || (nibble == 6 && length >= 40);

	memset(&layout, 0xa5, sizeof(layout));
	nq_layout_read(&layout, bytes, length);
	CHECK(run, layout.version == (fixed ? nibble : 0));
	if (!layout.version)
		return;
	CHECK(run, layout.cut == (place.version == 0));
	CHECK(run, layout.routing_dest == 0 || layout.routing_dest + 16 <= length);
	if (layout.cut || !place.version)
		return;
	CHECK(run, layout.header == place.header);
	CHECK(run, layout.transport == place.transport);
	CHECK(run, layout.transport <= length);
	CHECK(run, layout.protocol == place.protocol);
	CHECK(run, (layout.more_fragments || layout.frag_offset) == place.fragment);
	if (layout.version == 4) {
		CHECK(run, layout.total == get16(bytes + 2));
		CHECK(run, layout.dont_fragment == !!(bytes[6] & 0x40));
	} else {
		CHECK(run, layout.total == total6(bytes, length));
		CHECK(run, (layout.routing_dest ? layout.routing_dest : 24) == place.destination);
	}
}
