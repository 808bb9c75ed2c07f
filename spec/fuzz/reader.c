/*
 * Packets summed anew: what a completed or edited one must be.
 */
#include <netinet/in.h>

#include "places.h"

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

	size_t width = place->version == 4 ? 4 : 16;

	return add_words(add_words(sum, bytes + place->source, width), bytes + place->destination,
			 width);
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
	return place->fragment ? 0 : place_checksum(place);
}

/*
 * Offset of a checksum that follows edits, 0 where it is summed anew: that of a first fragment, and
 * with `exact` of a whole packet. What its bytes add to the sum, the checksum included, must stay.
 */
static size_t follows_at(const uint8_t *bytes, size_t length, bool exact)
{
	struct place place = place_find(bytes, length);
	size_t field = place_checksum(&place), at = place.transport + field;

	if (!place.version || place.later || !field || length < at + 2 ||
	    (place.protocol == IPPROTO_UDP && get16(bytes + at) == 0))
		return 0;
	if (place.fragment)
		return at;
	if (!exact || length < place.transport + 4 ||
	    (place.protocol == IPPROTO_UDP && !hostile_claimed_udp(bytes, length)) ||
	    (place.protocol == IPPROTO_TCP &&
	     !place_has_tcp(bytes + place.transport, length - place.transport)))
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
	struct place place = place_find(bytes, length);
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
	struct place place = place_find(now, length);

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
	struct place place = place_find(old, length);
	size_t follows = follows_at(old, length, exact);

	/* With another transport there is nothing to hold it against. */
	if (!follows || !hostile_same_transport(old, now, length))
		return 0;
	CHECK(run, same_share(&place, old, now, length));
	return follows;
}

size_t hostile_verify_cut_later(struct run *run, const uint8_t *old, size_t old_length,
				const uint8_t *now, size_t length)
{
	struct place before = place_find(old, old_length), after = place_find(now, length);
	size_t at = after.transport + 6;
	uint32_t sum;

	if (!hostile_has_udp(old, old_length) || !after.version || after.fragment ||
	    after.protocol != IPPROTO_UDP || after.transport != before.transport)
		return 0;
	sum = add_pseudo(&after, now, after.transport + get16(now + after.transport + 4));
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	CHECK(run, get16(now + at) == (get16(old + at) ? sum : 0));
	return at;
}

void hostile_verify_preserved(struct run *run, const uint8_t *old, size_t old_length,
			      const uint8_t *now, size_t length)
{
	struct place before = place_find(old, old_length), after = place_find(now, length);

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
