/*
 * Hostile bytes into what the packet path is made of: messages into nq_message_read, packets into
 * nq_layout_read and the edits, decisions through nq_batch into a socket.
 *
 * Build it with AddressSanitizer and UBSan (make asan): every input lies in a heap block of exactly
 * its size. Beyond "does not crash" it checks what the headers promise, against readers and sums of
 * its own. Everything follows from the seed; it ends with counts, and 1 when something was wrong.
 *
 *     hostile [SEED] [PERCENT of the random cases]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink/batch.h"
#include "netlink/config.h"
#include "netlink/message.h"
#include "packet/edit.h"
#include "packet/layout.h"
#include "packet/packet.h"

enum {
	HEADER = 20, /* nlmsghdr and nfgenmsg */
	MESSAGE_MAX = 2048,
	PACKET_CASE_MAX = 700,
	MUTATIONS = 2000000,
	PACKETS = 1000000,
	BATCH_ROUNDS = 3000,
	SHOWN_FAILURES = 10,
	CGROUP = 22, /* newer than Debian 12's header, like two of the names below */
	PACKET_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET,
};

struct run {
	uint64_t random;
	const char *what; /* the class of cases under way */
	const uint8_t *bytes;
	size_t length;
	uint8_t *spare; /* NQ_PACKET_MAX bytes exactly */
	unsigned sink;	/* so that reads are not optimized away */
	unsigned failures;
	uint64_t messages, kinds[4], packets, edits, refused, verified, verdicts, datagrams;
};

static uint64_t draw(struct run *run)
{
	run->random ^= run->random << 13;
	run->random ^= run->random >> 7;
	run->random ^= run->random << 17;
	return run->random;
}

/* 0 to limit - 1 */
static uint32_t below(struct run *run, uint32_t limit)
{
	return (uint32_t)((draw(run) >> 32) % limit);
}

static bool one_in(struct run *run, uint32_t count)
{
	return below(run, count) == 0;
}

static void fill(struct run *run, uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(draw(run) >> 24);
}

static void fail(struct run *run, const char *condition, int line)
{
	if (run->failures++ >= SHOWN_FAILURES)
		return;
	printf("hostile.c:%d: %s: not so: %s\n  %zu bytes:", line, run->what, condition,
	       run->length);
	for (size_t i = 0; i < run->length && i < 256; i++)
		printf("%s%02x", i % 4 ? "" : " ", run->bytes[i]);
	printf("\n");
}

#define CHECK(run, condition)                                                                      \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(run, #condition, __LINE__);                                           \
	} while (0)

static void *take(size_t size)
{
	void *block = malloc(size);

	if (!block) {
		perror("malloc");
		exit(1);
	}
	return block;
}

/* A block that ends where its `length` bytes do. It begins at 4 modulo 8: no more is promised. */
static uint8_t *take_bytes(const uint8_t *bytes, size_t length)
{
	uint8_t *block = take(length + 4);

	if (length)
		memcpy(block + 4, bytes, length);
	return block + 4;
}

static void give_bytes(uint8_t *bytes)
{
	free(bytes - 4);
}

static uint32_t get16(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 8 | bytes[1];
}

static uint32_t get32(const uint8_t *bytes)
{
	return get16(bytes) << 16 | get16(bytes + 2);
}

static uint32_t host16(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, 2);
	return value;
}

static uint32_t host32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, 4);
	return value;
}

static void put_host16(uint8_t *bytes, uint16_t value)
{
	memcpy(bytes, &value, 2);
}

static void put_host32(uint8_t *bytes, uint32_t value)
{
	memcpy(bytes, &value, 4);
}

/* --- Packets: an own reader, own sums -----------------------------------------------------------
 */

struct place {
	unsigned version; /* 0: not IP, or its headers are not all there */
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
	place.version = 4;
	place.transport = header;
	place.protocol = bytes[9];
	place.fragment = (get16(bytes + 6) & 0x3fff) != 0; /* MF or an offset; not DF */
	place.later = (get16(bytes + 6) & 0x1fff) != 0;
	return place;
}

static struct place locate6(const uint8_t *bytes, size_t length)
{
	struct place place = {.transport = 40, .destination = 24};
	const uint8_t *header;
	size_t size;

	if (length < 40)
		return place;
	place.protocol = bytes[6];
	for (;;) {
		header = bytes + place.transport;
		size = length - place.transport;
		switch (place.protocol) {
		case 0:	 /* hop-by-hop options */
		case 43: /* routing */
		case 60: /* destination options */
			if (size < 8)
				return place;
			if (8U + 8U * header[1] > size)
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
			if (get16(header + 2) & 0xfff8) {
				place.later = true;
				place.protocol = header[0];
				place.transport += 8;
				goto found;
			}
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

/* The same where it is summed anew: a fragment has not all that it covers. */
static size_t checksum_at(const struct place *place)
{
	return place->fragment ? 0 : field_at(place);
}

/*
 * Offset of the checksum of a first fragment of `length` bytes, 0 for anything else. It follows
 * edits: what the fragment adds to the sum of its datagram, the checksum included, must stay.
 */
static size_t follows_at(const uint8_t *bytes, size_t length)
{
	struct place place = locate(bytes, length);
	size_t at = place.transport + field_at(&place);

	if (!place.version || !place.fragment || place.later || !field_at(&place) ||
	    length < at + 2 || (place.protocol == IPPROTO_UDP && get16(bytes + at) == 0))
		return 0;
	return at;
}

static bool same_share(const struct place *place, const uint8_t *old, const uint8_t *now,
		       size_t length)
{
	bool pseudo = place->protocol != IPPROTO_ICMP;
	uint32_t before = pseudo ? add_pseudo(place, old, length) : 0;
	uint32_t after = pseudo ? add_pseudo(place, now, length) : 0;
	size_t size = length - place->transport;

	return add_words(before, old + place->transport, size) % 0xffff ==
	       add_words(after, now + place->transport, size) % 0xffff;
}

/* What a completed packet must be. */
static void verify(struct run *run, const uint8_t *bytes, size_t length)
{
	struct place place = locate(bytes, length);
	size_t size = length - place.transport;
	const uint8_t *transport = bytes + place.transport;

	CHECK(run, place.version != 0);
	if (!place.version)
		return;
	run->verified++;
	if (place.version == 4) {
		CHECK(run, get16(bytes + 2) == length);
		CHECK(run, sums_up(add_words(0, bytes, place.transport)));
	} else {
		CHECK(run, get16(bytes + 4) == length - 40);
	}
	if (!checksum_at(&place))
		return;
	CHECK(run, size >= checksum_at(&place) + 2);
	if (place.protocol == IPPROTO_ICMP) {
		CHECK(run, sums_up(add_words(0, transport, size)));
		return;
	}
	CHECK(run, sums_up(add_words(add_pseudo(&place, bytes, length), transport, size)));
	if (place.protocol == IPPROTO_UDP) {
		CHECK(run, get16(transport + 4) == size);
		CHECK(run, get16(transport + 6) != 0);
	}
}

/* Completion writes lengths and checksums, nothing else; `follows`: see follows_at. */
static void verify_untouched(struct run *run, const uint8_t *old, const uint8_t *now, size_t length,
			     size_t follows)
{
	struct place place = locate(now, length);
	size_t checksum = checksum_at(&place);

	for (size_t i = 0; i < length; i++) {
		bool free_byte = false;

		if (place.version == 4)
			free_byte = i == 2 || i == 3 || i == 10 || i == 11;
		else if (place.version == 6)
			free_byte = i == 4 || i == 5;
		if (checksum && i >= place.transport + checksum)
			free_byte = free_byte || i < place.transport + checksum + 2;
		if (checksum && place.protocol == IPPROTO_UDP && i >= place.transport + 4)
			free_byte = free_byte || i < place.transport + 6;
		free_byte = free_byte || (follows && (i == follows || i == follows + 1));
		if (!free_byte && old[i] != now[i]) {
			CHECK(run, !"a byte that is no length or checksum changed");
			return;
		}
	}
}

/* What kernels insist on in an edited packet. */
static void verify_preserved(struct run *run, const uint8_t *old, size_t old_length,
			     const uint8_t *now, size_t length)
{
	struct place before = locate(old, old_length), after = locate(now, length);

	if (!before.version)
		return;
	CHECK(run, after.version == before.version);
	CHECK(run, after.transport == before.transport);
	if (after.version != before.version || after.transport != before.transport)
		return;
	if (before.version == 4) {
		CHECK(run, old[0] == now[0] && memcmp(old + 6, now + 6, 2) == 0);
		CHECK(run, memcmp(old + 20, now + 20, before.transport - 20) == 0);
	} else {
		CHECK(run, old[6] == now[6]);
		CHECK(run, memcmp(old + 40, now + 40, before.transport - 40) == 0);
	}
}

static void check_layout(struct run *run, const uint8_t *bytes, size_t length)
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
	CHECK(run, layout.transport == place.transport);
	CHECK(run, layout.transport <= length);
	CHECK(run, layout.protocol == place.protocol);
	CHECK(run, (layout.more_fragments || layout.frag_offset) == place.fragment);
	if (layout.version == 4) {
		CHECK(run, layout.total == get16(bytes + 2));
		CHECK(run, layout.dont_fragment == !!(bytes[6] & 0x40));
	} else {
		CHECK(run, layout.total == (get16(bytes + 4) ? get16(bytes + 4) + 40 : 0));
		CHECK(run, (layout.routing_dest ? layout.routing_dest : 24) == place.destination);
	}
}

/* --- Edits, as the verbs make them
 * ----------------------------------------------------------------- */

static void patch_packet(struct run *run, struct nq_packet *packet)
{
	struct nq_packet before = *packet;
	uint8_t bytes[64];
	uint8_t *old = take_bytes(packet->data, packet->length);
	uint32_t offset = below(run, packet->length + 1);
	uint32_t length = below(run, sizeof(bytes) + 1);
	const char *reason;

	if (one_in(run, 2))
		offset %= 44; /* more often where it hurts */
	if (offset > packet->length)
		offset = packet->length;
	if (length > packet->length - offset)
		length = packet->length - offset;
	if (one_in(run, 2) && length > 2)
		length = 1 + below(run, 2);
	if (length)
		memcpy(bytes, old + offset, length);
	if (!one_in(run, 4))
		fill(run, bytes, length);
	reason = nq_edit_patch(packet, offset, bytes, length);
	run->edits++;
	if (reason) {
		run->refused++;
		CHECK(run, packet->length == 0 || memcmp(packet->data, old, before.length) == 0);
		CHECK(run, memcmp(packet, &before, sizeof(before)) == 0);
	} else {
		CHECK(run, !nq_packet_truncated(&before));
		CHECK(run, packet->dirty && packet->leaving <= packet->length);
		CHECK(run, packet->data == before.data && packet->length == before.length);
		if (length)
			memcpy(old + offset, bytes, length);
		CHECK(run, packet->length == 0 || memcmp(packet->data, old, packet->length) == 0);
	}
	give_bytes(old);
}

/*
 * A first fragment that was edited adds to the sum of its datagram what it added before. Returns
 * the offset of its checksum, which is free to change, or 0.
 */
static size_t verify_share(struct run *run, const uint8_t *original, const struct nq_packet *packet)
{
	struct place place = locate(original, packet->length);
	size_t follows = follows_at(original, packet->length);

	/* With another transport there is nothing to hold it against. */
	if (follows && locate(packet->data, packet->length).protocol == place.protocol)
		CHECK(run, same_share(&place, original, packet->data, packet->length));
	return follows;
}

static void finish_packet(struct run *run, struct nq_packet *packet, const uint8_t *original)
{
	struct nq_packet before = *packet;
	uint8_t *old = take_bytes(packet->data, packet->length);
	bool fixup = !one_in(run, 4);
	const char *reason = nq_edit_finish(packet, fixup);

	run->edits++;
	if (reason) {
		run->refused++;
		CHECK(run, fixup);
		CHECK(run, memcmp(packet->data, old, before.length) == 0);
		CHECK(run, memcmp(packet, &before, sizeof(before)) == 0);
	} else {
		CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
		if (fixup && locate(packet->data, packet->length).version) {
			CHECK(run, packet->length == before.leaving);
			verify(run, packet->data, packet->length);
			verify_untouched(run, old, packet->data, packet->length,
					 verify_share(run, original, packet));
		} else {
			CHECK(run, packet->length == before.length);
			CHECK(run, memcmp(packet->data, old, before.length) == 0);
		}
	}
	give_bytes(old);
}

static void replace_packet(struct run *run, struct nq_packet *packet, const uint8_t *original)
{
	struct nq_packet before = *packet;
	uint8_t *old = take_bytes(packet->data, packet->length);
	uint8_t bytes[PACKET_CASE_MAX];
	uint32_t length = packet->length;
	bool fixup = !one_in(run, 4);
	uint8_t *block;
	const char *reason;

	/* The same with some bytes changed, shortened or longer; or nothing like it. */
	if (length > sizeof(bytes) - 16)
		length = sizeof(bytes) - 16;
	if (length)
		memcpy(bytes, packet->data, length);
	if (one_in(run, 3)) {
		length = below(run, 200);
		fill(run, bytes, length);
	} else {
		if (one_in(run, 3))
			length = below(run, length + 1);
		else if (one_in(run, 2))
			fill(run, bytes + length, 16), length += below(run, 17);
		for (uint32_t i = below(run, 4); i > 0 && length; i--)
			bytes[below(run, length)] = (uint8_t)draw(run);
	}
	block = take_bytes(bytes, length);
	reason = nq_edit_replace(packet, block, length, fixup);
	run->edits++;
	CHECK(run, memcmp(block, bytes, length) == 0);
	CHECK(run, before.length == 0 || memcmp(before.data, old, before.length) == 0);
	if (reason) {
		run->refused++;
		CHECK(run, memcmp(packet, &before, sizeof(before)) == 0);
	} else {
		CHECK(run, length > 0 && !nq_packet_truncated(&before));
		CHECK(run, packet->data == before.spare && packet->length == length);
		CHECK(run, !packet->dirty && packet->send & NQ_SEND_BYTES);
		if (!fixup) {
			CHECK(run, memcmp(packet->data, bytes, length) == 0);
		} else {
			verify_untouched(
				run, bytes, packet->data, length,
				length <= before.length ? verify_share(run, original, packet) : 0);
			verify_preserved(run, original, before.length, packet->data, length);
			if (locate(old, before.length).version)
				verify(run, packet->data, length);
		}
	}
	give_bytes(block);
	give_bytes(old);
}

static void edit_packet(struct run *run, struct nq_packet *packet)
{
	uint8_t *original = take_bytes(packet->data, packet->length);
	uint32_t length = packet->length;

	for (uint32_t i = below(run, 4); i > 0; i--)
		patch_packet(run, packet);
	verify_preserved(run, original, length, packet->data, packet->length);
	if (one_in(run, 2))
		replace_packet(run, packet, original);
	else if (packet->dirty)
		finish_packet(run, packet, original);
	give_bytes(original);
}

/* --- Messages: an own reader
 * ------------------------------------------------------------------------ */

struct expected {
	enum nq_message_kind kind;
	bool has_header, has_payload, has_wire;
	uint32_t id, wire;
	size_t payload, payload_length; /* offset in the message */
};

static struct expected expect_message(const uint8_t *bytes, size_t length)
{
	struct expected expected = {.kind = NQ_MESSAGE_IGNORED};
	int64_t claimed, end, at = HEADER;

	if (length < 16)
		return expected;
	claimed = host32(bytes);
	if (claimed < 16)
		return expected;
	end = claimed < (int64_t)length ? claimed : (int64_t)length;
	if (host16(bytes + 4) == NLMSG_ERROR) {
		int32_t error = end >= 36 ? (int32_t)host32(bytes + 16) : 1;

		if (error <= 0 && error >= -4095)
			expected.kind = NQ_MESSAGE_ANSWER;
		return expected;
	}
	if (host16(bytes + 4) != PACKET_TYPE || end < HEADER)
		return expected;
	while (end - at >= 4) {
		int64_t size = host16(bytes + at);
		const uint8_t *value = bytes + at + 4;

		if (size < 4 || size > end - at)
			break;
		switch (host16(bytes + at + 2) & 0x3fff) {
		case NFQA_PACKET_HDR:
			if (size >= 11) {
				expected.has_header = true;
				expected.id = get32(value);
			}
			break;
		case NFQA_PAYLOAD:
			expected.has_payload = true;
			expected.payload = (size_t)at + 4;
			expected.payload_length = (size_t)size - 4;
			break;
		case NFQA_CAP_LEN:
			if (size >= 8) {
				expected.has_wire = true;
				expected.wire = get32(value);
			}
			break;
		}
		at += (size + 3) / 4 * 4;
	}
	if (expected.has_header)
		expected.kind = claimed > (int64_t)length || end - at >= 4 ? NQ_MESSAGE_BROKEN
									   : NQ_MESSAGE_PACKET;
	return expected;
}

static void touch(struct run *run, const uint8_t *block, size_t size, const void *start,
		  size_t length)
{
	const uint8_t *bytes = start;

	if (!start) {
		CHECK(run, length == 0);
		return;
	}
	CHECK(run, bytes >= block && length <= size && (size_t)(bytes - block) <= size - length);
	for (size_t i = 0; i < length; i++)
		run->sink += bytes[i];
}

static void use_packet(struct run *run, struct nq_packet *packet, const struct expected *expected,
		       uint8_t *block, size_t length)
{
	bool truncated = !expected->has_payload ||
			 (expected->has_wire && expected->wire > expected->payload_length);

	CHECK(run, packet->spare == run->spare);
	CHECK(run, packet->queue == get16(block + 18) && packet->family == block[16]);
	CHECK(run, packet->id == expected->id);
	CHECK(run, !!(packet->have & NQ_HAVE_PAYLOAD) == expected->has_payload);
	CHECK(run, packet->length == expected->payload_length);
	CHECK(run, packet->data == (expected->has_payload ? block + expected->payload : NULL));
	CHECK(run, !!(packet->have & NQ_HAVE_WIRE_LENGTH) == expected->has_wire);
	CHECK(run, packet->wire_length == expected->wire);
	CHECK(run, nq_packet_truncated(packet) == truncated);
	CHECK(run, packet->hwaddr_length <= sizeof(packet->hwaddr));
	CHECK(run, packet->verdict == NQ_UNDECIDED && packet->send == 0 && !packet->dirty);
	touch(run, block, length, packet->data, packet->length);
	touch(run, block, length, packet->l2header, packet->l2header_length);
	touch(run, block, length, packet->secctx, packet->secctx_length);
	touch(run, block, length, packet->ct, packet->ct_length);
	run->sink += (unsigned)(packet->mark + packet->priority + packet->iif + packet->oif +
				packet->physiif + packet->physoif + packet->uid + packet->gid +
				packet->cgroup + packet->seconds + packet->microseconds +
				packet->vlan_proto + packet->vlan_tci + packet->ct_info +
				packet->hook + packet->ethertype + packet->hwaddr[7]);
	run->sink += nq_hook_name(packet->family, packet->hook) != NULL;
	run->sink += nq_family_name(packet->family) != NULL;
}

/* One message as the loop would take it: the kind that came back. `fields`: the packet, or NULL. */
static enum nq_message_kind feed(struct run *run, const uint8_t *bytes, size_t length,
				 struct nq_packet *fields)
{
	struct expected expected = expect_message(bytes, length);
	uint8_t *block = take_bytes(bytes, length);
	struct nq_answer answer = {0};
	struct nq_packet packet;
	enum nq_message_kind kind;

	run->bytes = bytes;
	run->length = length;
	/* Left from the packet before, in the loop. */
	memset(&packet, 0xa5, sizeof(packet));
	packet.spare = run->spare;
	kind = nq_message_read(&packet, &answer, block, length);
	run->messages++;
	run->kinds[kind]++;
	CHECK(run, kind == expected.kind);
	CHECK(run, length == 0 || memcmp(block, bytes, length) == 0);
	if (kind == NQ_MESSAGE_ANSWER && kind == expected.kind) {
		CHECK(run, answer.error == -(int32_t)host32(bytes + 16));
		CHECK(run, answer.error >= 0 && answer.error <= 4095);
		CHECK(run, answer.seq == host32(bytes + 28));
	}
	if ((kind == NQ_MESSAGE_PACKET || kind == NQ_MESSAGE_BROKEN) && kind == expected.kind)
		use_packet(run, &packet, &expected, block, length);
	if (fields)
		*fields = packet;
	if (kind == NQ_MESSAGE_PACKET && kind == expected.kind && !fields) {
		if (packet.data)
			check_layout(run, packet.data, packet.length);
		edit_packet(run, &packet);
	}
	give_bytes(block);
	return kind;
}

struct message {
	uint8_t bytes[MESSAGE_MAX];
	size_t length;
	size_t starts[32]; /* of the attributes */
	unsigned count;
};

static void set_length(struct message *message)
{
	put_host32(message->bytes, (uint32_t)message->length);
}

/* The tail is left unpadded: the next attribute, if any, pads it. */
static void put(struct message *message, uint16_t type, const void *value, size_t length)
{
	while (message->length % 4)
		message->bytes[message->length++] = 0;
	message->starts[message->count++] = message->length;
	put_host16(message->bytes + message->length, (uint16_t)(length + 4));
	put_host16(message->bytes + message->length + 2, type);
	if (length)
		memcpy(message->bytes + message->length + 4, value, length);
	message->length += length + 4;
	set_length(message);
}

static void put32(struct message *message, uint16_t type, uint32_t value)
{
	uint32_t wire = htonl(value);

	put(message, type, &wire, 4);
}

static void start(struct message *message)
{
	static const uint8_t header[HEADER - 6] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x12, 0x34};

	memset(message, 0, sizeof(*message));
	put_host16(message->bytes + 4, PACKET_TYPE);
	memcpy(message->bytes + 6, header, sizeof(header));
	message->length = HEADER;
	set_length(message);
}

static void put_header(struct message *message)
{
	/* id, ethertype, hook: 7 bytes packed */
	static const uint8_t header[] = {0x01, 0x02, 0x03, 0x04, 0x08, 0x00, 3};

	put(message, NFQA_PACKET_HDR, header, sizeof(header));
}

/* Strings, as one header a line reads better; the closing zero is not part of them. */
static const uint8_t udp_packet[33] =
	"\x45\0\0\x21\0\1\0\0\x40\x11\0\0\x7f\0\0\1\x7f\0\0\1" /* IPv4 */
	"\x30\x39\0\x35\0\x0d\0\0"			       /* UDP */
	"hello";

static const uint8_t tcp6_packet[93] =
	"\x60\0\0\0\0\x35\0\x40"			     /* IPv6 */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"	     /* source */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"	     /* destination */
	"\x2b\0\1\4\0\0\0\0"				     /* hop-by-hop options */
	"\6\2\2\1\0\0\0\0"				     /* routing, type 2, one left */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\3"	     /* the final destination */
	"\x30\x39\0\x50\0\0\0\1\0\0\0\2\x50\x18\1\0\0\0\0\0" /* TCP */
	"x";

static void put_facts(struct message *message)
{
	static const uint8_t stamp[16] = {0, 0, 0, 0, 0x60, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3};
	static const uint8_t address[12] = {0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0};
	static const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
	/* two nested attributes: protocol and tag, each padded */
	uint8_t vlan[16] = {6, 0, 1, 0, 0x81, 0, 0, 0, 6, 0, 2, 0, 0x20, 5, 0, 0};

	put_host16(vlan, 6);
	put_host16(vlan + 2, NFQA_VLAN_PROTO);
	put_host16(vlan + 8, 6);
	put_host16(vlan + 10, NFQA_VLAN_TCI);
	put32(message, NFQA_MARK, 0x11223344);
	put(message, NFQA_TIMESTAMP, stamp, sizeof(stamp));
	put32(message, NFQA_IFINDEX_INDEV, 2);
	put32(message, NFQA_IFINDEX_OUTDEV, 3);
	put32(message, NFQA_IFINDEX_PHYSINDEV, 4);
	put32(message, NFQA_IFINDEX_PHYSOUTDEV, 5);
	put(message, NFQA_HWADDR, address, sizeof(address));
	put(message, NFQA_CT | NLA_F_NESTED, "\b\0\1\0abcd", 8);
	put32(message, NFQA_CT_INFO, 2);
	put32(message, NFQA_UID, 1000);
	put32(message, NFQA_GID, 1001);
	put(message, NFQA_SECCTX, "user:role:type", 15);
	put(message, NFQA_VLAN | NLA_F_NESTED, vlan, sizeof(vlan));
	put(message, NFQA_L2HDR, ethernet, sizeof(ethernet));
	put32(message, NFQA_PRIORITY, 7);
	put32(message, CGROUP, 0x100001);
	put32(message, NFQA_SKB_INFO, NFQA_SKB_CSUMNOTREADY | NFQA_SKB_GSO);
}

/* A message with every attribute, the payload where the kernel has it: last, here unpadded. */
static void make_whole(struct message *message, const uint8_t *packet, size_t length)
{
	start(message);
	put_header(message);
	put_facts(message);
	put32(message, NFQA_CAP_LEN, (uint32_t)length);
	put(message, NFQA_PAYLOAD, packet, length);
}

static void test_fields(struct run *run)
{
	struct message message;
	struct nq_packet packet;
	const uint32_t all = NQ_HAVE_IIF | NQ_HAVE_OIF | NQ_HAVE_PHYSIIF | NQ_HAVE_PHYSOIF |
			     NQ_HAVE_UID | NQ_HAVE_GID | NQ_HAVE_CGROUP | NQ_HAVE_TIMESTAMP |
			     NQ_HAVE_VLAN | NQ_HAVE_PAYLOAD | NQ_HAVE_WIRE_LENGTH |
			     NQ_HAVE_CT_INFO | NQ_HAVE_HEADER;

	run->what = "every attribute";
	make_whole(&message, udp_packet, sizeof(udp_packet));
	CHECK(run, feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
	CHECK(run, packet.have == all);
	CHECK(run, packet.id == 0x01020304 && packet.ethertype == 0x0800 && packet.hook == 3);
	CHECK(run, packet.queue == 0x1234 && packet.family == 2);
	CHECK(run, packet.mark == 0x11223344 && packet.priority == 7);
	CHECK(run, packet.seconds == 0x60000001 && packet.microseconds == 0x010203);
	CHECK(run, packet.iif == 2 && packet.oif == 3);
	CHECK(run, packet.physiif == 4 && packet.physoif == 5);
	CHECK(run, packet.hwaddr_length == 6 && memcmp(packet.hwaddr, "\2\0\0\0\0\1", 6) == 0);
	CHECK(run, packet.ct_length == 8 && packet.ct_info == 2);
	CHECK(run, packet.uid == 1000 && packet.gid == 1001 && packet.cgroup == 0x100001);
	CHECK(run, packet.secctx_length == 15 && packet.l2header_length == 14);
	CHECK(run, packet.vlan_proto == 0x8100 && packet.vlan_tci == 0x2005);
	CHECK(run, packet.csum_not_ready && packet.gso);
	CHECK(run, packet.length == sizeof(udp_packet));
}

/* Every cut of a whole message: received short, and claiming to be short. */
static void test_truncation(struct run *run, const struct message *whole)
{
	for (size_t length = 0; length < whole->length; length++) {
		uint8_t bytes[MESSAGE_MAX];

		run->what = "received short";
		CHECK(run, feed(run, whole->bytes, length, NULL) != NQ_MESSAGE_PACKET);
		run->what = "claims to be short";
		memcpy(bytes, whole->bytes, whole->length);
		put_host32(bytes, (uint32_t)length);
		(void)feed(run, bytes, whole->length, NULL);
		run->what = "is short and says so";
		(void)feed(run, bytes, length, NULL);
	}
}

static void test_bytes(struct run *run, const struct message *whole)
{
	uint8_t bytes[MESSAGE_MAX];

	run->what = "one byte changed";
	memcpy(bytes, whole->bytes, whole->length);
	for (size_t i = 0; i < whole->length; i++) {
		uint8_t values[8] = {0, 0xff, 1, 0x80};

		fill(run, values + 4, 4);
		for (unsigned n = 0; n < sizeof(values); n++) {
			bytes[i] = values[n];
			(void)feed(run, bytes, whole->length, NULL);
		}
		bytes[i] = whole->bytes[i];
	}
}

static void test_message_length(struct run *run, const struct message *whole)
{
	static const struct {
		uint32_t claimed;
		enum nq_message_kind kind;
	} cases[] = {
		{0, NQ_MESSAGE_IGNORED},	 {1, NQ_MESSAGE_IGNORED},
		{15, NQ_MESSAGE_IGNORED},	 {16, NQ_MESSAGE_IGNORED},
		{19, NQ_MESSAGE_IGNORED},	 {20, NQ_MESSAGE_IGNORED},
		{0x7fffffff, NQ_MESSAGE_BROKEN}, {0x80000000, NQ_MESSAGE_BROKEN},
		{0x80000010, NQ_MESSAGE_BROKEN}, {0xfffffff0, NQ_MESSAGE_BROKEN},
		{0xfffffffd, NQ_MESSAGE_BROKEN}, {0xffffffff, NQ_MESSAGE_BROKEN},
	};
	uint8_t bytes[MESSAGE_MAX];

	run->what = "nlmsg_len";
	memcpy(bytes, whole->bytes, whole->length);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put_host32(bytes, cases[i].claimed);
		CHECK(run, feed(run, bytes, whole->length, NULL) == cases[i].kind);
	}
	put_host32(bytes, (uint32_t)whole->length + 1);
	CHECK(run, feed(run, bytes, whole->length, NULL) == NQ_MESSAGE_BROKEN);
}

static void test_attribute_length(struct run *run, const struct message *whole)
{
	uint8_t bytes[MESSAGE_MAX];

	run->what = "nla_len";
	for (unsigned i = 0; i < whole->count; i++) {
		size_t at = whole->starts[i];
		uint32_t left = (uint32_t)(whole->length - at);
		uint32_t lengths[] = {0,	1,	2,	3,	left + 1,
				      left + 4, 0x7fff, 0x8000, 0xfffd, 0xffff};
		/* The first attribute is the one with the id: without it there is none to judge. */
		enum nq_message_kind kind = i ? NQ_MESSAGE_BROKEN : NQ_MESSAGE_IGNORED;

		memcpy(bytes, whole->bytes, whole->length);
		for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
			put_host16(bytes + at, (uint16_t)lengths[n]);
			CHECK(run, feed(run, bytes, whole->length, NULL) == kind);
		}
		/* Shorter than its type wants, with what follows misread: no promise but bounds. */
		for (uint32_t length = 4; length < 24 && length <= left; length++) {
			put_host16(bytes + at, (uint16_t)length);
			(void)feed(run, bytes, whole->length, NULL);
		}
	}
}

/* An attribute alone of every type and every length up to 40, at the block's very end. */
static void test_short_values(struct run *run)
{
	uint8_t value[40];

	run->what = "a value of another length";
	for (unsigned type = 0; type <= 40; type++) {
		for (size_t length = 0; length <= sizeof(value); length++) {
			struct message message;
			enum nq_message_kind kind;

			fill(run, value, sizeof(value));
			start(&message);
			if (type != NFQA_PACKET_HDR)
				put_header(&message);
			put(&message, (uint16_t)(type | (length % 3 ? 0 : NLA_F_NESTED)), value,
			    length);
			kind = feed(run, message.bytes, message.length, NULL);
			CHECK(run,
			      kind == (type == NFQA_PACKET_HDR && length < 7 ? NQ_MESSAGE_IGNORED
									     : NQ_MESSAGE_PACKET));
		}
	}
}

static void test_odd_attributes(struct run *run)
{
	static const uint8_t vlans[][16] = {
		{0},					       /* nla_len 0 */
		{3, 0, 1, 0},				       /* below its own header */
		{255, 255, 1, 0, 0x81, 0},		       /* beyond its parent */
		{6, 0, 1, 0, 0x81, 0, 0, 0, 5, 0, 2, 0, 1},    /* tag of one byte */
		{6, 0, 2, 0, 0x20, 5, 0, 0, 9, 0, 1, 0, 0x81}, /* one beyond the end */
	};
	struct message message;
	struct nq_packet packet;

	run->what = "duplicate attributes";
	make_whole(&message, udp_packet, sizeof(udp_packet));
	put32(&message, NFQA_MARK, 9);
	put32(&message, NFQA_CAP_LEN, 5000);
	put(&message, NFQA_PAYLOAD, tcp6_packet, sizeof(tcp6_packet));
	CHECK(run, feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
	CHECK(run, packet.mark == 9 && packet.length == sizeof(tcp6_packet));
	CHECK(run, nq_packet_truncated(&packet));

	run->what = "unknown attributes";
	start(&message);
	for (uint16_t type = 30; type < 36; type++)
		put(&message, type, "unknown", type - 30);
	put(&message, 0x3fff, "unknown", 7);
	put_header(&message);
	put(&message, 0, "unspecified", 11);
	put(&message, NFQA_PAYLOAD, udp_packet, sizeof(udp_packet));
	CHECK(run, feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
	CHECK(run, packet.have == (NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD));

	run->what = "broken VLAN attribute";
	for (size_t i = 0; i < sizeof(vlans) / sizeof(vlans[0]); i++) {
		for (size_t length = 0; length <= 13; length++) {
			start(&message);
			put_header(&message);
			put(&message, NFQA_VLAN | NLA_F_NESTED, vlans[i], length);
			CHECK(run, feed(run, message.bytes, message.length, &packet) ==
					   NQ_MESSAGE_PACKET);
			CHECK(run, !(packet.have & NQ_HAVE_VLAN));
		}
	}

	run->what = "unpadded tail";
	for (size_t length = 0; length <= sizeof(tcp6_packet); length++) {
		start(&message);
		put_header(&message);
		put(&message, NFQA_PAYLOAD, tcp6_packet, length);
		CHECK(run, feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
		CHECK(run, packet.data && packet.length == length);
		(void)feed(run, message.bytes, message.length, NULL);
	}
}

static void test_errors(struct run *run)
{
	static const struct {
		int32_t error;
		enum nq_message_kind kind;
	} cases[] = {
		{0, NQ_MESSAGE_ANSWER},		 {-ENOENT, NQ_MESSAGE_ANSWER},
		{-4095, NQ_MESSAGE_ANSWER},	 {-4096, NQ_MESSAGE_IGNORED},
		{1, NQ_MESSAGE_IGNORED},	 {INT32_MIN, NQ_MESSAGE_IGNORED},
		{INT32_MAX, NQ_MESSAGE_IGNORED},
	};

	run->what = "error message";
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t bytes[36] = {0};

		put_host32(bytes, sizeof(bytes));
		put_host16(bytes + 4, NLMSG_ERROR);
		put_host32(bytes + 16, (uint32_t)cases[i].error);
		put_host32(bytes + 28, 0xdeadbeef);
		CHECK(run, feed(run, bytes, sizeof(bytes), NULL) == cases[i].kind);
		for (size_t length = 0; length < sizeof(bytes); length++) {
			CHECK(run, feed(run, bytes, length, NULL) == NQ_MESSAGE_IGNORED);
			put_host32(bytes, (uint32_t)length);
			CHECK(run, feed(run, bytes, sizeof(bytes), NULL) == NQ_MESSAGE_IGNORED);
			put_host32(bytes, sizeof(bytes));
		}
	}
}

static void test_mutations(struct run *run, const struct message *seeds, unsigned seed_count,
			   uint64_t count)
{
	static const uint32_t odd[] = {0,    1,	   3,	 4,	 5,	 7,	8,
				       0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff};
	uint8_t bytes[MESSAGE_MAX];

	run->what = "random changes";
	for (uint64_t i = 0; i < count; i++) {
		const struct message *seed = &seeds[below(run, seed_count)];
		size_t length = seed->length;

		memcpy(bytes, seed->bytes, length);
		for (uint32_t n = 1 + below(run, 4); n > 0; n--) {
			uint32_t at = below(run, (uint32_t)length);

			switch (below(run, 4)) {
			case 0: /* the head of an attribute */
				at = (uint32_t)seed->starts[below(run, seed->count)] +
				     below(run, 4);
				/* fall through */
			case 1:
				bytes[at] = (uint8_t)draw(run);
				break;
			case 2:
				at &= ~1U;
				put_host16(bytes + at, (uint16_t)odd[below(run, 13)]);
				break;
			default:
				bytes[at] ^= (uint8_t)(1U << below(run, 8));
			}
		}
		if (one_in(run, 4))
			length = below(run, (uint32_t)length + 1);
		if (one_in(run, 4))
			put_host32(bytes, (uint32_t)length);
		(void)feed(run, bytes, length, NULL);
	}
}

static void test_messages(struct run *run, uint64_t percent)
{
	struct message *seeds = take(5 * sizeof(*seeds));
	uint8_t random_bytes[64];

	make_whole(&seeds[0], udp_packet, sizeof(udp_packet));
	make_whole(&seeds[1], tcp6_packet, sizeof(tcp6_packet));
	/* The payload first, and a padded tail. */
	start(&seeds[2]);
	put(&seeds[2], NFQA_PAYLOAD, tcp6_packet, sizeof(tcp6_packet));
	put_header(&seeds[2]);
	put_facts(&seeds[2]);
	/* A truncated packet; the least there is. */
	start(&seeds[3]);
	put_header(&seeds[3]);
	put32(&seeds[3], NFQA_CAP_LEN, 1500);
	put(&seeds[3], NFQA_PAYLOAD, tcp6_packet, 48);
	start(&seeds[4]);
	put_header(&seeds[4]);
	put(&seeds[4], NFQA_PAYLOAD, udp_packet, sizeof(udp_packet));

	test_fields(run);
	for (unsigned i = 0; i < 5; i++) {
		test_truncation(run, &seeds[i]);
		test_bytes(run, &seeds[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		test_message_length(run, &seeds[i]);
		test_attribute_length(run, &seeds[i]);
	}
	test_short_values(run);
	test_odd_attributes(run);
	test_errors(run);
	run->what = "random bytes";
	for (unsigned i = 0; i < 20000; i++) {
		size_t length = below(run, sizeof(random_bytes) + 1);

		fill(run, random_bytes, length);
		if (length >= 6 && one_in(run, 2))
			put_host16(random_bytes + 4, one_in(run, 4) ? NLMSG_ERROR : PACKET_TYPE);
		if (length >= 4 && one_in(run, 2))
			put_host32(random_bytes, (uint32_t)length);
		(void)feed(run, random_bytes, length, NULL);
	}
	test_mutations(run, seeds, 5, MUTATIONS * percent / 100);
	free(seeds);
}

/* --- Random packets
 * ----------------------------------------------------------------------------------- */

static size_t make_extension(struct run *run, uint8_t *at, uint8_t *protocol)
{
	static const uint8_t extensions[] = {0, 43, 44, 51, 60, 135};
	size_t size = 8;

	fill(run, at, 48);
	*protocol = extensions[below(run, sizeof(extensions))];
	switch (*protocol) {
	case 44:
		if (!one_in(run, 8))
			at[2] = 0, at[3] &= 7;
		if (!one_in(run, 4))
			at[3] = 0;
		break;
	case 51:
		at[1] = (uint8_t)below(run, 8);
		size = 8 + 4U * at[1];
		break;
	case 43:
		at[2] = (uint8_t)below(run, 6);
		at[3] = (uint8_t)below(run, 3);
		/* fall through */
	default:
		at[1] = (uint8_t)below(run, 5);
		size = 8 + 8U * at[1];
	}
	if (one_in(run, 50))
		at[1] = (uint8_t)draw(run);
	return size;
}

static size_t make_packet(struct run *run, uint8_t *bytes)
{
	static const uint8_t transports[] = {6, 17, 1, 58, 59, 132};
	uint8_t protocol = transports[below(run, sizeof(transports))];
	size_t at, length;

	if (one_in(run, 20))
		protocol = (uint8_t)draw(run);
	if (one_in(run, 2)) {
		at = one_in(run, 4) ? 4U * below(run, 16) : 20;
		fill(run, bytes, 60);
		bytes[0] = (uint8_t)(0x40 | at / 4);
		if (!one_in(run, 8))
			bytes[6] = one_in(run, 2) ? 0x40 : 0, bytes[7] = 0;
		bytes[9] = protocol;
	} else {
		uint8_t *next = bytes + 6;

		fill(run, bytes, 40);
		bytes[0] = 0x60;
		at = 40;
		for (uint32_t n = one_in(run, 2) ? 0 : below(run, 6); n > 0; n--) {
			uint8_t *extension = bytes + at;

			at += make_extension(run, extension, next);
			next = extension;
		}
		*next = protocol;
	}
	length = at + below(run, one_in(run, 4) ? 300 : 60);
	fill(run, bytes + at, length - at);
	if (length > at + 12 && !one_in(run, 4))
		bytes[at + 12] = (uint8_t)(0x50 + (below(run, 3) << 4)); /* TCP's data offset */
	if (one_in(run, 10))
		length = below(run, (uint32_t)length + 1);
	if (length > 6 && !one_in(run, 4)) {
		/* The true length, or one that leaves padding behind. */
		size_t total = one_in(run, 4) ? length - below(run, 7) : length;

		if (bytes[0] >> 4 == 6)
			total = total < 40 ? 0 : total - 40;
		bytes[bytes[0] >> 4 == 4 ? 2 : 4] = (uint8_t)(total >> 8);
		bytes[bytes[0] >> 4 == 4 ? 3 : 5] = (uint8_t)total;
	}
	return length;
}

static void test_complete(struct run *run, const uint8_t *bytes, size_t length)
{
	uint8_t *block = take_bytes(bytes, length);
	uint8_t *once;
	const char *reason = nq_edit_complete(block, (uint32_t)length);

	if (reason) {
		CHECK(run, length == 0 || memcmp(block, bytes, length) == 0);
	} else {
		verify(run, block, length);
		verify_untouched(run, bytes, block, length, 0);
		once = take_bytes(block, length);
		CHECK(run, nq_edit_complete(once, (uint32_t)length) == NULL);
		CHECK(run, memcmp(block, once, length) == 0);
		give_bytes(once);
	}
	give_bytes(block);
}

static void test_packets(struct run *run, uint64_t count)
{
	uint8_t bytes[PACKET_CASE_MAX];

	run->what = "random packets";
	run->bytes = bytes;
	for (uint64_t i = 0; i < count; i++) {
		struct nq_packet packet = {.have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD};
		uint8_t *block;

		run->length = make_packet(run, bytes);
		block = take_bytes(bytes, run->length);
		run->packets++;
		check_layout(run, block, run->length);
		test_complete(run, block, run->length);
		packet.data = block;
		packet.length = (uint32_t)run->length;
		packet.spare = run->spare;
		if (one_in(run, 16)) {
			packet.have |= NQ_HAVE_WIRE_LENGTH;
			packet.wire_length = packet.length - 1 + below(run, 3);
		}
		edit_packet(run, &packet);
		give_bytes(block);
	}
	run->length = 0;
	run->bytes = NULL;
}

/* A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768): 0 would mean none. */
static void test_udp_zero(struct run *run)
{
	uint8_t *bytes = take_bytes(udp_packet, sizeof(udp_packet));

	run->what = "UDP checksum of 0";
	run->bytes = udp_packet;
	run->length = sizeof(udp_packet);
	memset(bytes + 28, 0, 2);
	CHECK(run, !nq_edit_complete(bytes, sizeof(udp_packet)));
	memcpy(bytes + 28, bytes + 26, 2); /* the payload makes up the sum */
	CHECK(run, !nq_edit_complete(bytes, sizeof(udp_packet)));
	CHECK(run, get16(bytes + 26) == 0xffff);
	verify(run, bytes, sizeof(udp_packet));
	give_bytes(bytes);
}

/* The sizes at the edge of what a verdict can carry. */
static void test_sizes(struct run *run)
{
	uint8_t *bytes = take(70000);
	uint8_t *data = take_bytes(udp_packet, sizeof(udp_packet));
	static const struct {
		size_t length;
		bool good;
	} cases[] = {{0, false},     {1, false},     {19, false},    {27, false},
		     {28, true},     {65530, true},  {65531, true},  {65532, false},
		     {65535, false}, {65536, false}, {65564, false}, {70000, false}};

	run->what = "sizes of new content";
	run->bytes = udp_packet;
	run->length = sizeof(udp_packet);
	memset(bytes, 0xff, 70000);
	memcpy(bytes, udp_packet, sizeof(udp_packet));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nq_packet packet = {.have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD,
					   .data = data,
					   .length = sizeof(udp_packet),
					   .spare = run->spare};
		bool good = !nq_edit_replace(&packet, bytes, cases[i].length, true);

		CHECK(run, good == cases[i].good);
		if (good)
			verify(run, packet.data, packet.length);
		packet.data = data;
		packet.length = sizeof(udp_packet);
		good = !nq_edit_replace(&packet, bytes, cases[i].length, false);
		CHECK(run, good == (cases[i].length >= 1 && cases[i].length <= NQ_PACKET_MAX));
	}
	give_bytes(data);
	free(bytes);
}

/* --- Verdicts
 * ----------------------------------------------------------------------------------------- */

enum { MODEL_QUEUES = 3, MODEL_IDS = 400, BASE_SIZE = 1 << 20, RECEIVE_SIZE = 1 << 20 };

/* What was decided for one packet, and what arrived for it. */
struct decision {
	uint32_t id;
	bool decided, arrived;
	bool alone; /* must not be part of a batch verdict: it carries something */
	uint32_t verdict;
	uint32_t send, mark, priority;
	uint8_t *payload;
	uint32_t payload_length;
};

struct model_queue {
	uint16_t number;
	uint32_t count; /* of packets received */
	struct decision packets[MODEL_IDS];
	struct nq_batch_run run;
};

struct model {
	struct nq_batch batch;
	int receiver;
	uint8_t *received; /* one datagram */
	bool doubtful;	   /* what lies in the batch was marked so */
	bool always_edit;  /* every verdict carries as many bytes as it may */
	struct model_queue queues[MODEL_QUEUES];
};

static struct model_queue *find_model(struct model *model, uint32_t number)
{
	for (unsigned i = 0; i < MODEL_QUEUES; i++)
		if (model->queues[i].number == number)
			return &model->queues[i];
	return NULL;
}

static void settle_batch(struct run *run, struct model_queue *queue, uint32_t id, uint32_t verdict)
{
	bool found = false;

	for (uint32_t i = 0; i < queue->count && queue->packets[i].id <= id; i++) {
		struct decision *packet = &queue->packets[i];

		found = packet->id == id;
		if (packet->arrived)
			continue;
		CHECK(run, packet->decided && !packet->alone && packet->verdict == verdict);
		packet->arrived = true;
		run->verdicts++;
	}
	CHECK(run, found);
}

static void settle_one(struct run *run, struct model_queue *queue, uint32_t id, uint32_t verdict,
		       const struct decision *got)
{
	for (uint32_t i = 0; i < queue->count; i++) {
		struct decision *packet = &queue->packets[i];

		if (packet->id != id)
			continue;
		CHECK(run, packet->decided && !packet->arrived);
		CHECK(run, packet->verdict == verdict && packet->send == got->send);
		CHECK(run, packet->mark == got->mark && packet->priority == got->priority);
		CHECK(run, packet->payload_length == got->payload_length);
		CHECK(run, packet->payload_length != got->payload_length ||
				   !packet->payload_length ||
				   memcmp(packet->payload, got->payload, got->payload_length) == 0);
		packet->arrived = true;
		run->verdicts++;
		return;
	}
	CHECK(run, !"a verdict for a packet there is none of");
}

/* One message of a datagram, as the kernel reads it. */
static void read_verdict(struct run *run, struct model *model, uint8_t *bytes, size_t length)
{
	struct model_queue *queue = find_model(model, get16(bytes + 18));
	uint32_t type = host16(bytes + 4), seq = host32(bytes + 8);
	uint32_t verdict = 0, id = 0;
	struct decision got = {0};
	bool has_verdict = false;
	size_t at = HEADER;

	CHECK(run, host16(bytes + 6) == NLM_F_REQUEST && get16(bytes + 16) == 0);
	CHECK(run, queue != NULL);
	CHECK(run, nq_seq_queue(seq) == get16(bytes + 18));
	CHECK(run, nq_seq_class(seq) == (model->doubtful ? NQ_SEQ_DOUBTFUL : NQ_SEQ_VERDICT));
	while (at < length) {
		size_t size = host16(bytes + at);
		uint8_t *value = bytes + at + 4;

		CHECK(run, size >= 4 && size <= length - at);
		if (size < 4 || size > length - at)
			return;
		switch (host16(bytes + at + 2)) {
		case NFQA_VERDICT_HDR:
			CHECK(run, size == 12);
			has_verdict = true;
			verdict = get32(value);
			id = get32(value + 4);
			break;
		case NFQA_MARK:
			got.send |= NQ_SEND_MARK;
			got.mark = get32(value);
			break;
		case NFQA_PRIORITY:
			got.send |= NQ_SEND_PRIORITY;
			got.priority = get32(value);
			break;
		case NFQA_PAYLOAD:
			got.send |= NQ_SEND_BYTES;
			got.payload = value;
			got.payload_length = (uint32_t)size - 4;
			break;
		default:
			CHECK(run, !"an attribute that verdicts have not");
		}
		at += (size + 3) & ~(size_t)3;
	}
	CHECK(run, has_verdict);
	if (!queue)
		return;
	if (type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH)) {
		CHECK(run, got.send == 0);
		settle_batch(run, queue, id, verdict);
	} else {
		CHECK(run, type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT));
		settle_one(run, queue, id, verdict, &got);
	}
}

static void drain(struct run *run, struct model *model, uint32_t most)
{
	uint8_t *bytes = model->received;

	while (most-- > 0) {
		ssize_t got = recv(model->receiver, bytes, RECEIVE_SIZE, MSG_DONTWAIT);
		size_t length = (size_t)got, at = 0;

		if (got < 0)
			return;
		run->datagrams++;
		while (length - at >= HEADER) {
			size_t size = host32(bytes + at);

			run->bytes = bytes + at;
			run->length = length - at;
			CHECK(run, size >= HEADER && size <= length - at);
			if (size < HEADER || size > length - at)
				return;
			read_verdict(run, model, bytes + at, size);
			at += (size + 3) & ~(size_t)3;
			/* The last may be unpadded; ours pads with zeros. */
			for (size_t i = at - ((4 - size % 4) % 4); i < at && i < length; i++)
				CHECK(run, bytes[i] == 0);
		}
		CHECK(run, at == length);
	}
}

/* Flushes as the loop does: again and again while the socket is full. */
static void flush_model(struct run *run, struct model *model)
{
	int error = 0;

	for (unsigned tries = 0; tries < 10000; tries++) {
		error = nq_batch_flush(&model->batch);
		if (error != -EAGAIN && error != -ENOBUFS)
			break;
		CHECK(run, model->batch.store->count > 0);
		drain(run, model, 1 + below(run, 8));
	}
	CHECK(run, error == 0 && model->batch.store->count == 0);
	drain(run, model, UINT32_MAX);
	model->doubtful = false;
}

static bool any_open_below(const struct model_queue *queue, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++)
		if (!queue->packets[i].decided)
			return true;
	return false;
}

static void decide(struct run *run, struct model *model, struct model_queue *queue, uint32_t index,
		   uint32_t payload_limit)
{
	struct decision *decision = &queue->packets[index];
	bool open = any_open_below(queue, index);
	struct nq_packet packet = {.id = decision->id, .queue = queue->number};

	decision->decided = true;
	decision->verdict = NF_ACCEPT;
	switch (model->always_edit ? 5 : below(run, 12)) {
	case 0:
		packet.verdict = NQ_AGAIN;
		decision->verdict = NF_REPEAT;
		decision->alone = true;
		break;
	case 1:
		packet.verdict = NQ_REQUEUE;
		packet.target = (uint16_t)draw(run);
		packet.bypass = one_in(run, 2);
		decision->verdict = (uint32_t)packet.target << 16 | NF_QUEUE |
				    (packet.bypass ? NF_VERDICT_FLAG_QUEUE_BYPASS : 0);
		decision->alone = true;
		break;
	case 2:
	case 3:
	case 4:
		packet.verdict = NQ_DROP;
		decision->verdict = NF_DROP;
		break;
	case 5:
		packet.verdict = NQ_MODIFY;
		packet.send = NQ_SEND_BYTES;
		break;
	default:
		packet.verdict = NQ_ACCEPT;
	}
	if (packet.verdict != NQ_DROP && one_in(run, 6))
		packet.send |= NQ_SEND_MARK;
	if (packet.verdict != NQ_DROP && one_in(run, 12))
		packet.send |= NQ_SEND_PRIORITY;
	if (packet.send & NQ_SEND_MARK)
		decision->mark = packet.send_mark = (uint32_t)draw(run);
	if (packet.send & NQ_SEND_PRIORITY)
		decision->priority = packet.send_priority = (uint32_t)draw(run);
	if (packet.send & NQ_SEND_BYTES) {
		packet.length = 1 + below(run, one_in(run, 10) ? payload_limit : 40);
		if (model->always_edit)
			packet.length = payload_limit;
		packet.data = model->batch.base + below(run, BASE_SIZE - packet.length);
		decision->payload = packet.data;
		decision->payload_length = packet.length;
	}
	decision->send = packet.send;
	decision->alone = decision->alone || packet.send;
	nq_batch_add(&model->batch, &queue->run, &packet, open);
}

/* One more packet, or one that was held: decided, or held for later. */
static void take_packet(struct run *run, struct model *model, uint32_t payload_limit)
{
	struct model_queue *queue = &model->queues[one_in(run, 3) ? below(run, MODEL_QUEUES) : 0];
	uint32_t index = queue->count;

	for (uint32_t i = 0; i < queue->count && one_in(run, 2); i++) {
		if (!queue->packets[i].decided && one_in(run, 2)) {
			decide(run, model, queue, i, payload_limit);
			return;
		}
	}
	if (index == MODEL_IDS)
		return;
	queue->packets[index].id = index ? queue->packets[index - 1].id + 1 : below(run, 1U << 31);
	if (one_in(run, 8))
		queue->packets[index].id += below(run, 5); /* lost ones */
	queue->count++;
	if (!one_in(run, 40))
		decide(run, model, queue, index, payload_limit);
}

static void fini_model(struct model *model)
{
	close(model->batch.fd);
	close(model->receiver);
	free(model->batch.store);
	free(model->batch.base);
	free(model->received);
	free(model);
}

static struct model *make_model(struct run *run, int type, int send_buffer)
{
	struct model *model = take(sizeof(*model));
	int ends[2];
	int room = 4 << 20;

	memset(model, 0, sizeof(*model));
	if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, ends) < 0) {
		perror("socketpair");
		exit(1);
	}
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
	setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	model->receiver = ends[1];
	model->received = take(RECEIVE_SIZE);
	model->batch = (struct nq_batch){.store = take(sizeof(struct nq_batch_store)),
					 .base = take(BASE_SIZE),
					 .fd = ends[0],
					 .serial = 1};
	memset(model->batch.store, 0, sizeof(*model->batch.store));
	fill(run, model->batch.base, BASE_SIZE);
	model->queues[0].number = 0;
	model->queues[1].number = 65535;
	model->queues[2].number = (uint16_t)(1 + below(run, 65534));
	return model;
}

static void check_arrived(struct run *run, const struct model *model)
{
	for (unsigned q = 0; q < MODEL_QUEUES; q++) {
		const struct model_queue *queue = &model->queues[q];

		for (uint32_t i = 0; i < queue->count; i++)
			CHECK(run, queue->packets[i].decided == queue->packets[i].arrived);
	}
}

static void test_batches(struct run *run, uint64_t rounds)
{
	static const struct {
		int type, buffer;
		uint32_t payload_limit;
	} sockets[] = {{SOCK_DGRAM, 1 << 20, 65531},
		       {SOCK_SEQPACKET, 1 << 17, 20000},
		       {SOCK_DGRAM, 1 << 14, 8000},
		       {SOCK_SEQPACKET, 1, 1500}}; /* the least the kernel gives: 4,608 bytes */
	struct model *models[4];

	run->what = "batches of verdicts";
	for (unsigned i = 0; i < 4; i++)
		models[i] = make_model(run, sockets[i].type, sockets[i].buffer);
	for (uint64_t round = 0; round < rounds; round++) {
		struct model *model = models[round % 4];
		uint32_t payload_limit = sockets[round % 4].payload_limit;

		for (unsigned q = 0; q < MODEL_QUEUES; q++) {
			memset(model->queues[q].packets, 0, sizeof(model->queues[q].packets));
			model->queues[q].count = 0;
		}
		for (uint32_t n = below(run, 400); n > 0; n--) {
			if (nq_batch_full(&model->batch) || one_in(run, 60)) {
				if (one_in(run, 8)) {
					nq_batch_doubt(&model->batch);
					model->doubtful = true;
				}
				flush_model(run, model);
			}
			take_packet(run, model, payload_limit);
		}
		flush_model(run, model);
		check_arrived(run, model);
	}
	for (unsigned i = 0; i < 4; i++)
		fini_model(models[i]);
}

/*
 * A socket that is always full: a few verdicts leave, as many come behind those that stay, and the
 * store is never empty.
 */
static void test_stuck_socket(struct run *run)
{
	struct model *model = make_model(run, SOCK_DGRAM, 1);
	unsigned emptied = 0;

	run->what = "a socket that stays full";
	model->always_edit = true;
	for (unsigned n = 0; n < 2 * MODEL_IDS; n++) {
		while (nq_batch_full(&model->batch)) {
			(void)nq_batch_flush(&model->batch);
			emptied += model->batch.store->count == 0;
			drain(run, model, 1);
		}
		take_packet(run, model, 1400);
	}
	CHECK(run, emptied == 0);
	flush_model(run, model);
	check_arrived(run, model);
	fini_model(model);
}

/* A verdict that no datagram can hold: it alone stays, with the error; what was before it went. */
static void test_too_large(struct run *run)
{
	struct model *model = make_model(run, SOCK_DGRAM, 1);
	struct model_queue *queue = &model->queues[0];
	int error;

	run->what = "a verdict larger than the socket takes";
	for (uint32_t i = 0; i < 3; i++) {
		struct nq_packet packet = {.id = i + 1, .verdict = NQ_DROP};

		if (i == 1) {
			packet.verdict = NQ_MODIFY;
			packet.send = NQ_SEND_BYTES;
			packet.data = model->batch.base;
			packet.length = 60000;
		}
		queue->packets[i].id = i + 1;
		queue->packets[i].decided = i == 0;
		queue->count++;
		nq_batch_add(&model->batch, &queue->run, &packet, false);
	}
	error = nq_batch_flush(&model->batch);
	CHECK(run, error == -EMSGSIZE);
	CHECK(run, model->batch.store->count == 2);
	CHECK(run, model->batch.store->entries[0].payload_length == 60000);
	drain(run, model, UINT32_MAX);
	check_arrived(run, model);
	fini_model(model);
}

/* --- All of it
 * ------------------------------------------------------------------------------------------ */

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 0x6e66717565756531;
	uint64_t percent = argc > 2 ? strtoull(argv[2], NULL, 0) : 100;
	struct run run = {.random = seed ? seed : 1, .spare = take(NQ_PACKET_MAX)};

	setvbuf(stdout, NULL, _IOLBF, 0); /* a sanitizer's abort must not swallow what was said */
	printf("hostile: seed 0x%" PRIx64 "\n", run.random);
	test_messages(&run, percent);
	test_udp_zero(&run);
	test_sizes(&run);
	test_packets(&run, PACKETS * percent / 100);
	test_too_large(&run);
	test_batches(&run, BATCH_ROUNDS * percent / 100);
	test_stuck_socket(&run);
	free(run.spare);
	printf("hostile: %" PRIu64 " messages (%" PRIu64 " packets, %" PRIu64 " answers, %" PRIu64
	       " ignored, %" PRIu64 " broken), %" PRIu64 " random packets, %" PRIu64
	       " edits (%" PRIu64 " refused), %" PRIu64 " completions verified, %" PRIu64
	       " verdicts in %" PRIu64 " datagrams, %u failures\n",
	       run.messages, run.kinds[NQ_MESSAGE_PACKET], run.kinds[NQ_MESSAGE_ANSWER],
	       run.kinds[NQ_MESSAGE_IGNORED], run.kinds[NQ_MESSAGE_BROKEN], run.packets, run.edits,
	       run.refused, run.verified, run.verdicts, run.datagrams, run.failures);
	return run.failures ? 1 : 0;
}
