#include "packet/build.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/checksum.h"
#include "packet/edit.h"

enum { IP4_HEADER = 20, IP6_HEADER = 40, TCP_HEADER = 20, UDP_HEADER = 8, ICMP_HEADER = 8 };
enum { OPTION_PAD1 = 0, OPTION_PADN = 1 }; /* RFC 8200 section 4.2 */

void nq_build_init(struct nq_build *build)
{
	memset(build, 0, sizeof(*build));
	build->ip.ttl = 64;
	build->ip.checksum = NQ_BUILD_COMPUTED;
	build->checksum = NQ_BUILD_COMPUTED;
}

static uint32_t rounded(uint32_t length, uint32_t unit)
{
	return (length + unit - 1) / unit * unit;
}

static uint32_t extension_size(const struct nq_build_extension *extension)
{
	return rounded(2 + extension->length, 8);
}

static uint32_t ip_size(const struct nq_build_ip *ip)
{
	uint32_t size = IP6_HEADER;

	if (ip->version == 4)
		return IP4_HEADER + rounded(ip->options_length, 4);
	for (unsigned i = 0; i < ip->extension_count; i++)
		size += extension_size(&ip->extensions[i]);
	return size;
}

static uint32_t transport_size(const struct nq_build *build)
{
	switch (build->transport) {
	case NQ_BUILD_TCP:
		return TCP_HEADER + rounded(build->tcp.options_length, 4);
	case NQ_BUILD_UDP:
		return UDP_HEADER;
	case NQ_BUILD_ICMP:
		return ICMP_HEADER;
	default:
		return 0;
	}
}

size_t nq_build_size(const struct nq_build *build)
{
	return (size_t)ip_size(&build->ip) + transport_size(build) + build->payload_length;
}

/* Options and the zeros that pad them: end of option list (RFC 791, RFC 9293). */
static void write_options(uint8_t *bytes, const uint8_t *options, uint8_t length)
{
	memset(bytes, 0, rounded(length, 4));
	memcpy(bytes, options, length);
}

/*
 *  0      1      2             4
 * +------+------+-------------+-------------+-------------+
 * | 45   | tos  | total length| id          |flags, offset|
 * +------+------+-------------+-------------+-------------+
 *  8      9      10            12            16            20
 * | ttl  | prot | checksum    | src         | dst         | options
 */
static void write_ip4(const struct nq_build_ip *ip, uint8_t *bytes, uint32_t total)
{
	uint32_t size = ip_size(ip);

	bytes[0] = (uint8_t)(0x40 | size / 4);
	bytes[1] = ip->tos;
	nq_put_u16(bytes + 2, total);
	nq_put_u16(bytes + 4, ip->id);
	nq_put_u16(bytes + 6,
		   (ip->df ? 0x4000u : 0) | (ip->mf ? 0x2000u : 0) | ip->frag_offset / 8u);
	bytes[8] = ip->ttl;
	bytes[9] = ip->protocol;
	memset(bytes + 10, 0, 2);
	memcpy(bytes + 12, ip->src, 4);
	memcpy(bytes + 16, ip->dst, 4);
	write_options(bytes + IP4_HEADER, ip->options, ip->options_length);
	if (ip->checksum == NQ_BUILD_COMPUTED) {
		uint16_t checksum = nq_checksum_fold(nq_checksum_add(0, bytes, size));

		memcpy(bytes + 10, &checksum, 2);
	} else {
		nq_put_u16(bytes + 10, (uint32_t)ip->checksum);
	}
}

static void write_extension(const struct nq_build_extension *extension, uint8_t *bytes,
			    uint8_t next)
{
	uint32_t size = extension_size(extension);
	uint32_t padding = size - 2 - extension->length;

	bytes[0] = next;
	bytes[1] = (uint8_t)(size / 8 - 1);
	if (extension->kind == IPPROTO_AH)
		bytes[1] = (uint8_t)(size / 4 - 2); /* RFC 4302 section 2.2 */
	else if (extension->kind == IPPROTO_FRAGMENT)
		bytes[1] = 0; /* reserved */
	memcpy(bytes + 2, extension->bytes, extension->length);
	bytes += 2 + extension->length;
	memset(bytes, 0, padding);
	if (padding > 1) {
		bytes[0] = OPTION_PADN;
		bytes[1] = (uint8_t)(padding - 2);
	} else if (padding) {
		bytes[0] = OPTION_PAD1;
	}
}

/*
 *  0                       4             6      7      8        24       40
 * +-----+-----+-----------+-------------+------+------+--------+--------+
 * |  6  | tos | flow label| payload len | next | ttl  | src    | dst    | extension headers
 * +-----+-----+-----------+-------------+------+------+--------+--------+
 */
static void write_ip6(const struct nq_build_ip *ip, uint8_t *bytes, uint32_t total)
{
	uint32_t offset = IP6_HEADER;

	nq_put_u32(bytes, 0x60000000u | (uint32_t)ip->tos << 20 | ip->flow_label);
	nq_put_u16(bytes + 4, total - IP6_HEADER);
	bytes[6] = ip->extension_count ? ip->extensions[0].kind : ip->protocol;
	bytes[7] = ip->ttl;
	memcpy(bytes + 8, ip->src, 16);
	memcpy(bytes + 24, ip->dst, 16);
	for (unsigned i = 0; i < ip->extension_count; i++) {
		bool is_last = i + 1 == ip->extension_count;

		write_extension(&ip->extensions[i], bytes + offset,
				is_last ? ip->protocol : ip->extensions[i + 1].kind);
		offset += extension_size(&ip->extensions[i]);
	}
}

static void write_ip(const struct nq_build_ip *ip, uint8_t *bytes, uint32_t total)
{
	if (ip->version == 4)
		write_ip4(ip, bytes, total);
	else
		write_ip6(ip, bytes, total);
}

/* RFC 9293 section 3.1; the checksum comes later. */
static void write_tcp(const struct nq_build_tcp *tcp, uint8_t *bytes)
{
	uint32_t size = TCP_HEADER + rounded(tcp->options_length, 4);

	nq_put_u16(bytes, tcp->sport);
	nq_put_u16(bytes + 2, tcp->dport);
	nq_put_u32(bytes + 4, tcp->seq);
	nq_put_u32(bytes + 8, tcp->ack_seq);
	bytes[12] = (uint8_t)(size / 4 << 4);
	bytes[13] = tcp->flags;
	nq_put_u16(bytes + 14, tcp->window);
	nq_put_u16(bytes + 16, 0);
	nq_put_u16(bytes + 18, tcp->urg_ptr);
	write_options(bytes + TCP_HEADER, tcp->options, tcp->options_length);
}

static void write_transport(const struct nq_build *build, uint8_t *bytes)
{
	switch (build->transport) {
	case NQ_BUILD_TCP:
		write_tcp(&build->tcp, bytes);
		break;
	case NQ_BUILD_UDP:
		memset(bytes, 0, UDP_HEADER);
		nq_put_u16(bytes, build->udp.sport);
		nq_put_u16(bytes + 2, build->udp.dport);
		break;
	case NQ_BUILD_ICMP:
		bytes[0] = build->icmp.type;
		bytes[1] = build->icmp.code;
		nq_put_u16(bytes + 2, 0);
		nq_put_u16(bytes + 4, build->icmp.id);
		nq_put_u16(bytes + 6, build->icmp.seq);
		break;
	default:
		break;
	}
}

/*
 * Lengths and checksum of the transport, as of a whole packet: with the fragment bits the sums
 * would be left alone, as parts that are elsewhere belong to them.
 */
static void complete_transport(const struct nq_build *build, uint8_t *bytes, uint32_t total)
{
	static const uint8_t checksum_offset[] = {
		[NQ_BUILD_TCP] = 16, [NQ_BUILD_UDP] = 6, [NQ_BUILD_ICMP] = 2};
	static const uint8_t whole[6] = {0};
	struct nq_build_ip ip = build->ip;

	ip.mf = false;
	ip.frag_offset = 0;
	for (unsigned i = 0; i < ip.extension_count; i++) {
		if (ip.extensions[i].kind == IPPROTO_FRAGMENT)
			ip.extensions[i].bytes = whole;
	}
	write_ip(&ip, bytes, total);
	(void)nq_edit_complete(bytes, total);
	if (build->checksum != NQ_BUILD_COMPUTED)
		nq_put_u16(bytes + ip_size(&ip) + checksum_offset[build->transport],
			   (uint32_t)build->checksum);
}

void nq_build_write(const struct nq_build *build, uint8_t *bytes)
{
	uint32_t total = (uint32_t)nq_build_size(build);
	uint32_t transport = ip_size(&build->ip);

	write_transport(build, bytes + transport);
	if (build->payload_length)
		memcpy(bytes + transport + transport_size(build), build->payload,
		       build->payload_length);
	if (build->transport != NQ_BUILD_NONE)
		complete_transport(build, bytes, total);
	write_ip(&build->ip, bytes, total);
	if (build->transport == NQ_BUILD_NONE && build->ip.protocol == IPPROTO_SCTP) {
		(void)nq_edit_complete(bytes, total); /* its CRC32c, unless it is a fragment */
		write_ip(&build->ip, bytes, total);
	}
}
