#include "packet/split.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/checksum.h"

enum { IP4_HEADER = 20, IP6_HEADER = 40, FRAGMENT_HEADER = 8 };
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_COPIED = 0x80 }; /* RFC 791 section 3.1 */

static bool is_ip4(const struct nq_split *split)
{
	return split->bytes[0] >> 4 == 4;
}

/* The options that say they belong into every fragment. */
static void copy_options(struct nq_split *split)
{
	const uint8_t *options = split->bytes + IP4_HEADER;
	uint32_t length = split->head - IP4_HEADER;
	uint32_t copied = 0;

	for (uint32_t at = 0, size; at < length && options[at] != OPTION_END; at += size) {
		size = 1;
		if (options[at] == OPTION_NOP)
			continue;
		if (length - at < 2 || options[at + 1] < 2 || options[at + 1] > length - at)
			break;
		size = options[at + 1];
		if (options[at] & OPTION_COPIED) {
			memcpy(split->later_options + copied, options + at, size);
			copied += size;
		}
	}
	split->later_options_length = (uint8_t)((copied + 3) / 4 * 4);
}

/*
 * The extension headers that routers on the way read go into every fragment: all up to the last
 * hop-by-hop or routing header. What a payload says of headers may not be so: one that is not all
 * there is none.
 */
static void find_head6(struct nq_split *split)
{
	uint32_t link = 6, offset = IP6_HEADER;

	split->link = link;
	split->head = offset;
	for (;;) {
		uint8_t kind = split->bytes[link];
		uint32_t left = split->length - offset;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_DSTOPTS)
			return;
		if (left < 8 || (split->bytes[offset + 1] + 1u) * 8 > left)
			return;
		link = offset;
		offset += (split->bytes[offset + 1] + 1u) * 8;
		if (kind != IPPROTO_DSTOPTS) {
			split->link = link;
			split->head = offset;
		}
	}
}

const char *nq_split_plan(struct nq_split *split, const uint8_t *bytes, uint32_t length,
			  uint32_t mtu, uint32_t id)
{
	uint32_t first, later, rest;

	memset(split, 0, sizeof(*split));
	split->bytes = bytes;
	split->length = length;
	split->id = id;
	split->count = 1;
	if (length <= mtu)
		return NULL;
	if (is_ip4(split)) {
		split->head = (bytes[0] & 0xfu) * 4;
		copy_options(split);
		first = split->head;
		later = IP4_HEADER + split->later_options_length;
	} else {
		find_head6(split);
		first = later = split->head + FRAGMENT_HEADER;
	}
	if (mtu < first + 8)
		return "the headers alone do not fit";
	/* Offsets count units of 8 bytes. */
	split->first = (mtu - first) / 8 * 8;
	split->later = (mtu - later) / 8 * 8;
	rest = length - split->head - split->first;
	/* The last one needs no whole units, but its length does not exceed theirs by 8 or more. */
	split->count = 2;
	while (rest > mtu - later) {
		rest -= split->later;
		split->count++;
	}
	return NULL;
}

static uint32_t write_head4(const struct nq_split *split, bool is_first, uint32_t offset, bool more,
			    uint32_t size, uint8_t *out)
{
	uint32_t head = split->head;
	uint16_t checksum;

	memcpy(out, split->bytes, head);
	if (!is_first) {
		head = IP4_HEADER + split->later_options_length;
		out[0] = (uint8_t)(0x40 | head / 4);
		memcpy(out + IP4_HEADER, split->later_options, split->later_options_length);
	}
	nq_put_u16(out + 2, head + size);
	nq_put_u16(out + 6, (more ? 0x2000u : 0) | offset / 8);
	memset(out + 10, 0, 2);
	checksum = nq_checksum_fold(nq_checksum_add(0, out, head));
	memcpy(out + 10, &checksum, 2);
	return head;
}

static uint32_t write_head6(const struct nq_split *split, uint32_t offset, bool more, uint32_t size,
			    uint8_t *out)
{
	uint8_t *fragment = out + split->head;

	memcpy(out, split->bytes, split->head);
	nq_put_u16(out + 4, split->head + FRAGMENT_HEADER + size - IP6_HEADER);
	fragment[0] = out[split->link];
	out[split->link] = IPPROTO_FRAGMENT;
	fragment[1] = 0;
	nq_put_u16(fragment + 2, offset | more);
	nq_put_u32(fragment + 4, split->id);
	return split->head + FRAGMENT_HEADER;
}

uint32_t nq_split_write(const struct nq_split *split, uint32_t index, uint8_t *out)
{
	uint32_t offset = index ? split->first + (index - 1) * split->later : 0;
	bool more = index + 1 < split->count;
	uint32_t size, head;

	if (split->count == 1) {
		memcpy(out, split->bytes, split->length);
		return split->length;
	}
	size = split->length - split->head - offset;
	if (more)
		size = index ? split->later : split->first;
	if (is_ip4(split))
		head = write_head4(split, index == 0, offset, more, size, out);
	else
		head = write_head6(split, offset, more, size, out);
	memcpy(out + head, split->bytes + split->head + offset, size);
	return head + size;
}
