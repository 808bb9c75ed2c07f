/*
 * hostile.h - what the units of the fuzzer share: the run, its random numbers, checks, blocks of
 * exact size, numbers in bytes.
 *
 * What judges has readers and sums of its own; from src/ it takes types, and nq_packet_truncated,
 * which feed.c checks first. A failed check is counted and shown, not fatal.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "netlink/message.h"
#include "packet/packet.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum {
	HEADER = 20, /* nlmsghdr and nfgenmsg */
	MESSAGE_MAX = 2048,
	PACKET_CASE_MAX = 700,
	PACKET_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET,
};

struct run {
	uint64_t random;
	/* While not NULL, choices come from here instead of from the random numbers. */
	const uint8_t *input;
	size_t input_left;
	const char *what;     /* the class of cases under way */
	const uint8_t *bytes; /* the case, to be shown; NULL: there is none */
	size_t length;
	uint8_t *spare; /* NQ_PACKET_MAX bytes exactly */
	unsigned sink;	/* so that reads are not optimized away */
	unsigned failures;
	uint64_t messages, kinds[4], packets, edits, refused, verified, verdicts, datagrams;
	uint64_t answers, unanswered;
};

/* A class of cases begins; what the last one showed may be gone. */
static inline void begin(struct run *run, const char *what)
{
	run->what = what;
	run->bytes = NULL;
	run->length = 0;
}

/* --- Checks --- */

/* Counts a failure and shows the first few. */
void hostile_fail(struct run *run, const char *condition, const char *file, int line);

static inline bool check(struct run *run, bool holds, const char *condition, const char *file,
			 int line)
{
	if (!holds)
		hostile_fail(run, condition, file, line);
	return holds;
}

/* Whether the condition, evaluated once, holds. */
#define CHECK(run, condition) check(run, condition, #condition, __FILE__, __LINE__)

/* memcmp and memcpy want pointers even for nothing. */
static inline bool same_bytes(const void *one, const void *other, size_t length)
{
	return length == 0 || memcmp(one, other, length) == 0;
}

static inline void copy_bytes(void *to, const void *from, size_t length)
{
	if (length)
		memcpy(to, from, length);
}

/* --- Choices: all follow from the seed, or from the input, in the order of the calls --- */

/* support.c: the next 1 to 4 bytes of run->input as a number; zeros when it is used up. */
uint32_t hostile_next(struct run *run, unsigned size);

static inline uint64_t draw(struct run *run)
{
	run->random ^= run->random << 13;
	run->random ^= run->random >> 7;
	run->random ^= run->random << 17;
	return run->random;
}

/* 0 to limit - 1 */
static inline uint32_t below(struct run *run, uint32_t limit)
{
	if (run->input)
		return hostile_next(run, limit <= 1U << 8 ? 1 : limit <= 1U << 16 ? 2 : 4) % limit;
	return (uint32_t)((draw(run) >> 32) % limit);
}

static inline bool one_in(struct run *run, uint32_t count)
{
	return below(run, count) == 0;
}

static inline void fill(struct run *run, uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(run->input ? hostile_next(run, 1) : draw(run) >> 24);
}

/* --- support.c: blocks --- */

/* malloc, or the end. */
void *hostile_take(size_t size);

/*
 * A block that ends where its `length` bytes do, copied from `bytes` (NULL: whatever is there). It
 * begins at 4 modulo 8: no more is promised to readers.
 */
uint8_t *hostile_take_bytes(const uint8_t *bytes, size_t length);
void hostile_give_bytes(uint8_t *bytes);

/* --- Numbers in bytes: network order, then host order --- */

static inline uint32_t get16(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 8 | bytes[1];
}

static inline uint32_t get32(const uint8_t *bytes)
{
	return get16(bytes) << 16 | get16(bytes + 2);
}

static inline uint32_t host16(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, 2);
	return value;
}

static inline uint32_t host32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, 4);
	return value;
}

static inline void put_host16(uint8_t *bytes, uint16_t value)
{
	memcpy(bytes, &value, 2);
}

static inline void put_host32(uint8_t *bytes, uint32_t value)
{
	memcpy(bytes, &value, 4);
}

/* --- reader.c: packets read and summed anew --- */

/* Whether the bytes are IPv4 or IPv6 with all headers before the transport. */
bool hostile_is_ip(const uint8_t *bytes, size_t length);

/* Whether both packets have the same transport at the same place. */
bool hostile_same_transport(const uint8_t *old, const uint8_t *now, size_t length);

/* nq_layout_read says what an own walk says. */
void hostile_check_layout(struct run *run, const uint8_t *bytes, size_t length);

/* What a completed packet must be; `udp`: the length its UDP header had and keeps, 0: to the end;
 * `follows`: its transport checksum is judged by hostile_verify_share. */
void hostile_verify(struct run *run, const uint8_t *bytes, size_t length, size_t udp,
		    size_t follows);

/* What a UDP header rightly says of its length; 0 for anything else. */
size_t hostile_claimed_udp(const uint8_t *bytes, size_t length);

/*
 * Completion writes lengths and checksums, nothing else; `follows`: offset of a checksum that is
 * free to change, too, or 0.
 */
void hostile_verify_untouched(struct run *run, const uint8_t *old, const uint8_t *now,
			      size_t length, size_t follows);

/* What kernels insist on in an edited packet. */
void hostile_verify_preserved(struct run *run, const uint8_t *old, size_t old_length,
			      const uint8_t *now, size_t length);

/*
 * A first fragment that was edited adds to the sum of its datagram what it added before, and with
 * `exact` so does a whole packet. Returns the offset of its checksum, which is free to change, or 0
 * where it is summed anew. Both are `length` bytes.
 */
size_t hostile_verify_share(struct run *run, const uint8_t *old, const uint8_t *now, size_t length,
			    bool exact);

/* Where the payload begins and ends, without the padding of the link layer. */
void hostile_find_payload(const uint8_t *bytes, size_t length, size_t *offset, size_t *end);

/* Whether the bytes can get another length, `is_tcp`: and are TCP. What is not IP can. */
bool hostile_can_resize(const uint8_t *bytes, size_t length, bool *is_tcp);

/* Writes the lengths of IP and UDP; the bytes are no fragment. */
void hostile_set_lengths(uint8_t *bytes, size_t length);

/* A whole transport header of IP: its protocol, and where it begins; false for other packets. */
bool hostile_find_transport(const uint8_t *bytes, size_t length, unsigned *protocol, size_t *at);

/* Whether it is a whole UDP datagram, or several in one. */
bool hostile_has_udp(const uint8_t *bytes, size_t length);

/*
 * What must be of UDP datagrams in one (GSO) that were `old`: a checksum that is the sum of the
 * pseudo-header, or 0 as it was. Returns its offset, which is not to be judged otherwise; 0: they
 * were none, or are something else by now.
 */
size_t hostile_verify_cut_later(struct run *run, const uint8_t *old, size_t old_length,
				const uint8_t *now, size_t length);

/* Offset of the checksum in the headers of a protocol (IPv4: version 4); 0: none of ours. */
size_t hostile_checksum_at(unsigned version, unsigned protocol);

/* --- edits.c, resizes.c: packets edited --- */

/* A packet under edit: what it was, and what must come of it. */
struct edited {
	struct nq_packet *packet;
	const uint8_t *original;
	uint32_t length; /* of the original */
	bool resized;
	bool keeps_ip, keeps_transport; /* checksums that were assigned */
	uint16_t kept_ip, kept_transport;
	unsigned kept_protocol; /* of the second, */
	size_t kept_at;		/* and its offset */
};

/* Edits of the packet, as the verbs make them, and its leave, each judged. */
void hostile_edit(struct run *run, struct nq_packet *packet);

/* One edit each. */
void hostile_edit_payload(struct run *run, struct edited *edited);
void hostile_edit_option(struct run *run, struct edited *edited);
void hostile_edit_replace(struct run *run, struct edited *edited);

/* The end of edits: the packet, which is dirty, leaves. */
void hostile_edit_finish(struct run *run, struct edited *edited);

/* The packet once what may be remembered of it is: that is no change. */
struct nq_packet hostile_remember(struct nq_packet *packet);

/* A refused edit changed nothing. */
void hostile_refused(struct run *run, const struct nq_packet *packet,
		     const struct nq_packet *before, const uint8_t *old);

/* --- answers.c --- */

/* What answers the packet, built and split, each judged; or refused with a reason. */
void hostile_answer(struct run *run, struct nq_packet *packet);

/* --- injected.c --- */

/* The answers of every kind to the packet as it is rejected, each judged. */
void hostile_reject(struct run *run, struct nq_packet *packet);

/* The packet sent again: completed, and cut for some link. */
void hostile_send(struct run *run, const uint8_t *bytes, size_t length);

/* --- samples.c: messages as the kernel makes them --- */

struct message {
	uint8_t bytes[MESSAGE_MAX];
	size_t length;
	size_t starts[32]; /* of the attributes */
	unsigned count;
};

extern const uint8_t hostile_udp[33];  /* IPv4, UDP */
extern const uint8_t hostile_tcp6[93]; /* IPv6, hop-by-hop options, routing header, TCP */

/* A packet message without attributes, and one with the packet header alone. */
void hostile_start(struct message *message);
void hostile_start_packet(struct message *message);

/* One more attribute. Its tail is left unpadded: the next, if any, pads it. */
void hostile_put(struct message *message, uint16_t type, const void *value, size_t length);
void hostile_put32(struct message *message, uint16_t type, uint32_t value);
void hostile_put_header(struct message *message);
void hostile_put_facts(struct message *message);

/* A message with every attribute, the payload where the kernel has it: last, here unpadded. */
void hostile_make_whole(struct message *message, const uint8_t *packet, size_t length);

/* --- feed.c: messages read --- */

/*
 * One message as the loop would take it, against an own reader: the kind that came back. `fields`:
 * gets the packet, its pointers no longer valid, and spares it the edits; or NULL.
 */
enum nq_message_kind hostile_feed(struct run *run, const uint8_t *bytes, size_t length,
				  struct nq_packet *fields);

/* --- The cases: messages.c, packets.c, batches.c, tables.c, keeping.c, loops.c; `percent` of the
 * random ones
 * --- */

void hostile_test_messages(struct run *run, uint64_t percent);
void hostile_test_packets(struct run *run, uint64_t percent);

/* Bytes that are completed as they are, or refused. */
void hostile_check_complete(struct run *run, const uint8_t *bytes, size_t length);
void hostile_test_batches(struct run *run, uint64_t percent);
void hostile_test_tables(struct run *run, uint64_t percent);
void hostile_test_keeping(struct run *run, uint64_t percent);
void hostile_test_loops(struct run *run, uint64_t percent);

#endif
