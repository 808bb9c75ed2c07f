/*
 * Descriptions of packets, built, read back, and split. The choices make the description; the
 * content is what lies in it: extension headers and the payload.
 */
#include <netinet/in.h>
#include <stdlib.h>

#include "packet/build.h"
#include "packet/header.h"
#include "packet/split.h"
#include "target.h"

/* Takes at most `most` bytes from the front of the content, as many as chosen. */
static const uint8_t *take(struct target *target, uint32_t most, uint32_t *length)
{
	const uint8_t *bytes = target->bytes;

	*length = below(target->run, most + 1);
	if (*length > target->length)
		*length = (uint32_t)target->length;
	target->bytes += *length;
	target->length -= *length;
	return bytes;
}

static void choose_extension(struct target *target, struct nq_build_extension *extension)
{
	static const uint8_t kinds[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT,
					IPPROTO_DSTOPTS, IPPROTO_AH};
	static const uint8_t zeros[22];
	uint32_t length;

	extension->kind = kinds[below(target->run, sizeof(kinds))];
	extension->bytes = take(target, one_in(target->run, 4) ? 2046 : 30, &length);
	if (extension->kind == IPPROTO_FRAGMENT)
		length = length < 6 ? 0 : 6;
	else if (extension->kind != IPPROTO_HOPOPTS && extension->kind != IPPROTO_DSTOPTS)
		length = length < 6 ? 0 : (length + 2) / 8 * 8 - 2;
	if (extension->kind == IPPROTO_AH && length > 1022)
		length = 1022; /* it counts words of 4, in a byte */
	if (length == 0) {
		extension->bytes = zeros;
		length = extension->kind == IPPROTO_AH ? 22 : 6;
	}
	extension->length = length;
}

static void choose_ip(struct target *target, struct nq_build_ip *ip)
{
	struct run *run = target->run;

	ip->version = one_in(run, 2) ? 6 : 4;
	fill(run, ip->src, ip->version == 4 ? 4 : 16);
	fill(run, ip->dst, ip->version == 4 ? 4 : 16);
	ip->ttl = (uint8_t)below(run, 256);
	ip->tos = (uint8_t)below(run, 256);
	if (one_in(run, 8))
		ip->checksum = (int32_t)below(run, 65536);
	if (ip->version == 4) {
		ip->id = (uint16_t)below(run, 65536);
		ip->df = one_in(run, 2);
		if (one_in(run, 4)) {
			ip->mf = one_in(run, 2);
			ip->frag_offset = (uint16_t)(8 * below(run, 8192));
		}
		ip->options_length = (uint8_t)(one_in(run, 2) ? below(run, 41) : 0);
		fill(run, ip->options, ip->options_length);
	} else {
		ip->flow_label = below(run, 0x100000);
		ip->extension_count = one_in(run, 2) ? below(run, NQ_BUILD_EXTENSIONS + 1) : 0;
		for (unsigned i = 0; i < ip->extension_count; i++)
			choose_extension(target, &ip->extensions[i]);
	}
}

static void choose_transport(struct target *target, struct nq_build *build)
{
	struct run *run = target->run;

	build->transport = (enum nq_build_transport)below(run, 4);
	if (build->transport != NQ_BUILD_NONE && one_in(run, 8))
		build->checksum = (int32_t)below(run, 65536);
	switch (build->transport) {
	case NQ_BUILD_TCP:
		build->ip.protocol = IPPROTO_TCP;
		build->tcp.sport = (uint16_t)below(run, 65536);
		build->tcp.seq = below(run, UINT32_MAX);
		build->tcp.flags = (uint8_t)below(run, 256);
		build->tcp.options_length = (uint8_t)(one_in(run, 2) ? below(run, 41) : 0);
		fill(run, build->tcp.options, build->tcp.options_length);
		break;
	case NQ_BUILD_UDP:
		build->ip.protocol = IPPROTO_UDP;
		build->udp.dport = (uint16_t)below(run, 65536);
		break;
	case NQ_BUILD_ICMP:
		build->ip.protocol = build->ip.version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
		build->icmp.type = (uint8_t)below(run, 256);
		build->icmp.id = (uint16_t)below(run, 65536);
		break;
	default:
		build->ip.protocol = (uint8_t)below(run, 256);
	}
}

/* Whether its headers say so; `any`: or could, with a fragment header. */
static bool is_fragment(const struct nq_build *build, bool any)
{
	for (unsigned i = 0; i < build->ip.extension_count; i++) {
		if (build->ip.extensions[i].kind == IPPROTO_FRAGMENT &&
		    (any || get16(build->ip.extensions[i].bytes) & 0xfff9))
			return true;
	}
	return build->ip.mf || build->ip.frag_offset;
}

/* Put together again by what the fragments say, they are the packet. */
static void check_split(struct run *run, const uint8_t *bytes, size_t length)
{
	uint32_t mtu = 68 + below(run, one_in(run, 2) ? 200 : 1500);
	bool is_ip4 = bytes[0] >> 4 == 4;
	size_t from = 0, joined = 0;
	struct nq_split split;

	if (nq_split_plan(&split, bytes, (uint32_t)length, mtu, 7))
		return;
	for (uint32_t i = 0; i < split.count; i++) {
		uint8_t *piece = hostile_take_bytes(NULL, mtu);
		size_t size = nq_split_write(&split, i, piece);
		size_t head = is_ip4 ? (piece[0] & 15U) * 4U : split.head + 8;
		const uint8_t *word = is_ip4 ? piece + 6 : piece + split.head + 2;
		bool more = is_ip4 ? (word[0] & 0x20) != 0 : (word[1] & 1) != 0;
		size_t offset = is_ip4 ? (get16(word) & 0x1fff) * 8U : get16(word) & 0xfff8;

		CHECK(run, size > 0 && size <= mtu);
		if (split.count == 1) {
			CHECK(run, size == length && same_bytes(piece, bytes, length));
		} else if (CHECK(run, size >= head)) {
			if (i == 0)
				from = is_ip4 ? head : split.head;
			CHECK(run, offset == joined && more == (i + 1 < split.count));
			CHECK(run, size - head <= length - from - joined);
			CHECK(run, same_bytes(piece + head, bytes + from + joined, size - head));
			if (is_ip4)
				CHECK(run, get16(piece + 2) == size);
			else
				CHECK(run, get16(piece + 4) == size - 40);
			joined += size - head;
		}
		hostile_give_bytes(piece);
	}
	if (split.count > 1)
		CHECK(run, from + joined == length);
}

static void check_built(struct run *run, const struct nq_build *build, uint8_t *bytes,
			size_t length)
{
	static const enum nq_header headers[] = {NQ_HEADER_IP, NQ_HEADER_TCP, NQ_HEADER_UDP,
						 NQ_HEADER_ICMP};
	struct nq_packet packet = {
		.have = NQ_HAVE_PAYLOAD, .data = bytes, .length = (uint32_t)length};
	uint32_t offset, end;

	/* A payload right behind IP stays as it is, also where it is to be a known transport. */
	if (build->checksum == NQ_BUILD_COMPUTED && build->ip.checksum == NQ_BUILD_COMPUTED &&
	    (build->transport != NQ_BUILD_NONE || build->ip.protocol > IPPROTO_DSTOPTS))
		hostile_verify(run, bytes, length, 0, 0);
	hostile_check_layout(run, bytes, length);
	if (is_fragment(build, false) || build->transport == NQ_BUILD_NONE)
		return;
	CHECK(run, nq_header_find(&packet, headers[build->transport], &offset));
	if (CHECK(run, nq_payload_find(&packet, &offset, &end)) &&
	    CHECK(run, end == length && end - offset == build->payload_length))
		CHECK(run, same_bytes(bytes + offset, build->payload, build->payload_length));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("build", input, size);
	struct target content = target; /* its rest */
	struct nq_build build;
	uint8_t *bytes;
	size_t length;

	nq_build_init(&build);
	choose_ip(&content, &build.ip);
	choose_transport(&content, &build);
	build.payload = content.bytes;
	build.payload_length = content.length;
	length = nq_build_size(&build);
	CHECK(target.run, length >= build.payload_length + 20);
	if (length <= (build.ip.version == 4 ? NQ_BUILD_MAX4 : NQ_BUILD_MAX6)) {
		bytes = hostile_take_bytes(NULL, length);
		memset(bytes, 0xa5, length); /* all of it is written */
		nq_build_write(&build, bytes);
		check_built(target.run, &build, bytes, length);
		if (!is_fragment(&build, true))
			check_split(target.run, bytes, length);
		hostile_give_bytes(bytes);
	}
	target_end(&target);
	return 0;
}
