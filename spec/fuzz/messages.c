/*
 * Messages: every field, every cut, lengths that lie, random changes.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>

#include "hostile.h"

enum {
	SEEDS = 5,
	RANDOM_MESSAGES = 20000,
	MUTATIONS = 2000000,
};

static void test_fields(struct run *run)
{
	struct message message;
	struct nq_packet packet;
	const uint32_t all = NQ_HAVE_IIF | NQ_HAVE_OIF | NQ_HAVE_PHYSIIF | NQ_HAVE_PHYSOIF |
			     NQ_HAVE_UID | NQ_HAVE_GID | NQ_HAVE_CGROUP | NQ_HAVE_TIMESTAMP |
			     NQ_HAVE_VLAN | NQ_HAVE_PAYLOAD | NQ_HAVE_WIRE_LENGTH |
			     NQ_HAVE_CT_INFO | NQ_HAVE_HEADER;

	begin(run, "every attribute");
	hostile_make_whole(&message, hostile_udp, sizeof(hostile_udp));
	CHECK(run, hostile_feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
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
	CHECK(run, !packet.csum_complete && packet.gso);
	CHECK(run, packet.length == sizeof(hostile_udp));
}

/* Every cut of a whole message: received short, and claiming to be short. */
static void test_truncation(struct run *run, const struct message *whole)
{
	for (size_t length = 0; length < whole->length; length++) {
		uint8_t bytes[MESSAGE_MAX];

		begin(run, "received short");
		CHECK(run, hostile_feed(run, whole->bytes, length, NULL) != NQ_MESSAGE_PACKET);
		begin(run, "claims to be short");
		memcpy(bytes, whole->bytes, whole->length);
		put_host32(bytes, (uint32_t)length);
		(void)hostile_feed(run, bytes, whole->length, NULL);
		begin(run, "is short and says so");
		(void)hostile_feed(run, bytes, length, NULL);
	}
}

static void test_bytes(struct run *run, const struct message *whole)
{
	uint8_t bytes[MESSAGE_MAX];

	begin(run, "one byte changed");
	memcpy(bytes, whole->bytes, whole->length);
	for (size_t i = 0; i < whole->length; i++) {
		uint8_t values[8] = {0, 0xff, 1, 0x80};

		fill(run, values + 4, 4);
		for (unsigned n = 0; n < sizeof(values); n++) {
			bytes[i] = values[n];
			(void)hostile_feed(run, bytes, whole->length, NULL);
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

	begin(run, "nlmsg_len");
	memcpy(bytes, whole->bytes, whole->length);
	for (size_t i = 0; i < COUNT(cases); i++) {
		put_host32(bytes, cases[i].claimed);
		CHECK(run, hostile_feed(run, bytes, whole->length, NULL) == cases[i].kind);
	}
	put_host32(bytes, (uint32_t)whole->length + 1);
	CHECK(run, hostile_feed(run, bytes, whole->length, NULL) == NQ_MESSAGE_BROKEN);
}

static void test_attribute_length(struct run *run, const struct message *whole)
{
	uint8_t bytes[MESSAGE_MAX];

	begin(run, "nla_len");
	for (unsigned i = 0; i < whole->count; i++) {
		size_t at = whole->starts[i];
		uint32_t left = (uint32_t)(whole->length - at);
		uint32_t lengths[] = {0,	1,	2,	3,	left + 1,
				      left + 4, 0x7fff, 0x8000, 0xfffd, 0xffff};
		/* The first attribute is the one with the id: without it there is none to judge. */
		enum nq_message_kind kind = i ? NQ_MESSAGE_BROKEN : NQ_MESSAGE_IGNORED;

		memcpy(bytes, whole->bytes, whole->length);
		for (size_t n = 0; n < COUNT(lengths); n++) {
			put_host16(bytes + at, (uint16_t)lengths[n]);
			CHECK(run, hostile_feed(run, bytes, whole->length, NULL) == kind);
		}
		/* Shorter than its type wants, with what follows misread: no promise but bounds. */
		for (uint32_t length = 4; length < 24 && length <= left; length++) {
			put_host16(bytes + at, (uint16_t)length);
			(void)hostile_feed(run, bytes, whole->length, NULL);
		}
	}
}

/* An attribute alone of every type and every length up to 40, at the block's very end. */
static void test_short_values(struct run *run)
{
	uint8_t value[40];

	begin(run, "a value of another length");
	for (unsigned type = 0; type <= 40; type++) {
		for (size_t length = 0; length <= sizeof(value); length++) {
			struct message message;
			enum nq_message_kind kind;

			fill(run, value, sizeof(value));
			hostile_start(&message);
			if (type != NFQA_PACKET_HDR)
				hostile_put_header(&message);
			hostile_put(&message, (uint16_t)(type | (length % 3 ? 0 : NLA_F_NESTED)),
				    value, length);
			kind = hostile_feed(run, message.bytes, message.length, NULL);
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

	begin(run, "duplicate attributes");
	hostile_make_whole(&message, hostile_udp, sizeof(hostile_udp));
	hostile_put32(&message, NFQA_MARK, 9);
	hostile_put32(&message, NFQA_CAP_LEN, 5000);
	hostile_put(&message, NFQA_PAYLOAD, hostile_tcp6, sizeof(hostile_tcp6));
	CHECK(run, hostile_feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
	CHECK(run, packet.mark == 9 && packet.length == sizeof(hostile_tcp6));
	CHECK(run, nq_packet_truncated(&packet));

	begin(run, "unknown attributes");
	hostile_start(&message);
	for (uint16_t type = 30; type < 36; type++)
		hostile_put(&message, type, "unknown", type - 30);
	hostile_put(&message, 0x3fff, "unknown", 7);
	hostile_put_header(&message);
	hostile_put(&message, 0, "unspecified", 11);
	hostile_put(&message, NFQA_PAYLOAD, hostile_udp, sizeof(hostile_udp));
	CHECK(run, hostile_feed(run, message.bytes, message.length, &packet) == NQ_MESSAGE_PACKET);
	CHECK(run, packet.have == (NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD));

	begin(run, "broken VLAN attribute");
	for (size_t i = 0; i < COUNT(vlans); i++) {
		for (size_t length = 0; length <= 13; length++) {
			hostile_start_packet(&message);
			hostile_put(&message, NFQA_VLAN | NLA_F_NESTED, vlans[i], length);
			CHECK(run, hostile_feed(run, message.bytes, message.length, &packet) ==
					   NQ_MESSAGE_PACKET);
			CHECK(run, !(packet.have & NQ_HAVE_VLAN));
		}
	}

	begin(run, "unpadded tail");
	for (size_t length = 0; length <= sizeof(hostile_tcp6); length++) {
		hostile_start_packet(&message);
		hostile_put(&message, NFQA_PAYLOAD, hostile_tcp6, length);
		CHECK(run, hostile_feed(run, message.bytes, message.length, &packet) ==
				   NQ_MESSAGE_PACKET);
		CHECK(run, packet.data && packet.length == length);
		(void)hostile_feed(run, message.bytes, message.length, NULL);
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

	begin(run, "error message");
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t bytes[36] = {0};

		put_host32(bytes, sizeof(bytes));
		put_host16(bytes + 4, NLMSG_ERROR);
		put_host32(bytes + 16, (uint32_t)cases[i].error);
		put_host32(bytes + 28, 0xdeadbeef);
		CHECK(run, hostile_feed(run, bytes, sizeof(bytes), NULL) == cases[i].kind);
		for (size_t length = 0; length < sizeof(bytes); length++) {
			CHECK(run, hostile_feed(run, bytes, length, NULL) == NQ_MESSAGE_IGNORED);
			put_host32(bytes, (uint32_t)length);
			CHECK(run,
			      hostile_feed(run, bytes, sizeof(bytes), NULL) == NQ_MESSAGE_IGNORED);
			put_host32(bytes, sizeof(bytes));
		}
	}
}

static void test_mutations(struct run *run, const struct message *seeds, uint64_t count)
{
	static const uint32_t odd[] = {0,    1,	   3,	 4,	 5,	 7,	8,
				       0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff};
	uint8_t bytes[MESSAGE_MAX];

	begin(run, "random changes");
	for (uint64_t i = 0; i < count; i++) {
		const struct message *seed = &seeds[below(run, SEEDS)];
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
				put_host16(bytes + at, (uint16_t)odd[below(run, COUNT(odd))]);
				break;
			default:
				bytes[at] ^= (uint8_t)(1U << below(run, 8));
			}
		}
		if (one_in(run, 4))
			length = below(run, (uint32_t)length + 1);
		if (one_in(run, 4))
			put_host32(bytes, (uint32_t)length);
		(void)hostile_feed(run, bytes, length, NULL);
	}
}

static void test_random_bytes(struct run *run)
{
	uint8_t bytes[64];

	begin(run, "random bytes");
	for (unsigned i = 0; i < RANDOM_MESSAGES; i++) {
		size_t length = below(run, sizeof(bytes) + 1);

		fill(run, bytes, length);
		if (length >= 6 && one_in(run, 2))
			put_host16(bytes + 4, one_in(run, 4) ? NLMSG_ERROR : PACKET_TYPE);
		if (length >= 4 && one_in(run, 2))
			put_host32(bytes, (uint32_t)length);
		(void)hostile_feed(run, bytes, length, NULL);
	}
}

void hostile_test_messages(struct run *run, uint64_t percent)
{
	struct message *seeds = hostile_take(SEEDS * sizeof(*seeds));

	hostile_make_whole(&seeds[0], hostile_udp, sizeof(hostile_udp));
	hostile_make_whole(&seeds[1], hostile_tcp6, sizeof(hostile_tcp6));
	/* The payload first, and a padded tail. */
	hostile_start(&seeds[2]);
	hostile_put(&seeds[2], NFQA_PAYLOAD, hostile_tcp6, sizeof(hostile_tcp6));
	hostile_put_header(&seeds[2]);
	hostile_put_facts(&seeds[2]);
	/* A truncated packet; the least there is. */
	hostile_start_packet(&seeds[3]);
	hostile_put32(&seeds[3], NFQA_CAP_LEN, 1500);
	hostile_put(&seeds[3], NFQA_PAYLOAD, hostile_tcp6, 48);
	hostile_start_packet(&seeds[4]);
	hostile_put(&seeds[4], NFQA_PAYLOAD, hostile_udp, sizeof(hostile_udp));

	test_fields(run);
	for (unsigned i = 0; i < SEEDS; i++) {
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
	test_random_bytes(run);
	test_mutations(run, seeds, MUTATIONS * percent / 100);
	free(seeds);
}
