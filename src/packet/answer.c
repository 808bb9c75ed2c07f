#include "packet/answer.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/complete.h"
#include "packet/header.h"
#include "packet/icmp.h"
#include "packet/option.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };
enum { OPTION_TIMESTAMPS = 8 };
enum { ICMP_HEADER = 8, ECHO_REPLY4 = 0, ECHO4 = 8, ECHO6 = 128, ECHO_REPLY6 = 129 };

size_t nq_icmp_embedded_most(uint8_t version, uint32_t header)
{
	size_t whole = version == 6 ? 1280 : 576;

	return header + ICMP_HEADER < whole ? whole - header - ICMP_HEADER : 0;
}

bool nq_address_is_host(uint8_t version, const uint8_t *address)
{
	static const uint8_t unspecified[16] = {0};

	if (version == 6)
		return address[0] != 0xff && memcmp(address, unspecified, 16) != 0;
	return address[0] != 0 && address[0] < 224;
}

/* The IP headers swapped. */
static const char *swap(struct nq_packet *packet, struct nq_build *build)
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	const uint8_t *bytes = packet->data;

	nq_build_init(build);
	if (layout->version == 0)
		return "neither IPv4 nor IPv6, or shorter than its IP header";
	if (layout->cut)
		return "its headers reach beyond its end";
	build->ip.version = layout->version;
	build->ip.protocol = layout->protocol;
	/* On the way through a route a packet is for whom that names last. */
	if (layout->version == 4) {
		memcpy(build->ip.src, bytes + layout->target, 4);
		memcpy(build->ip.dst, bytes + 12, 4);
		build->ip.df = true; /* RFC 6864: no identification is needed then */
	} else {
		memcpy(build->ip.src, bytes + layout->target, 16);
		memcpy(build->ip.dst, bytes + 8, 16);
	}
	if (!nq_address_is_host(build->ip.version, build->ip.dst))
		return "its source is no single host";
	return NULL;
}

/* Sequence numbers a segment takes: those of its data, SYN and FIN. */
static uint32_t segment_length(struct nq_packet *packet, uint32_t tcp)
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	uint32_t header = tcp + (packet->data[tcp + 12] >> 4) * 4u;
	uint32_t end = packet->length;
	uint8_t flags = packet->data[tcp + 13];

	/* Not all of it may be here; what is there may have padding behind it. */
	if (layout->total > header)
		end = layout->total;
	else if (layout->total == header)
		end = header;
	else if (nq_packet_truncated(packet))
		end = packet->wire_length;
	return end - header + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
}

static void echo_timestamps(struct nq_packet *packet, uint32_t tcp, struct nq_build_tcp *answer)
{
	uint32_t value;
	uint8_t length;

	if (packet->data[tcp + 13] & SYN ||
	    !nq_tcp_option_find(packet, tcp, OPTION_TIMESTAMPS, &value, &length) || length != 8)
		return;
	answer->options[0] = OPTION_TIMESTAMPS;
	answer->options[1] = 10;
	/* The last value of the side that answers is what the packet echoes. */
	memcpy(answer->options + 2, packet->data + value + 4, 4);
	memcpy(answer->options + 6, packet->data + value, 4);
	answer->options_length = 10;
}

static const char *find_segment(struct nq_packet *packet, uint32_t *tcp)
{
	if (nq_is_fragment(nq_packet_layout(packet)))
		return "it is a fragment: the rest of it is elsewhere";
	if (!nq_header_find(packet, NQ_HEADER_TCP, tcp))
		return "its TCP header is cut short";
	if (packet->data[*tcp + 13] & RST)
		return "it is a TCP reset, which gets no answer";
	return NULL;
}

static const char *answer_tcp(struct nq_packet *packet, struct nq_build *build)
{
	uint32_t at = 0;
	const char *reason = find_segment(packet, &at);
	const uint8_t *tcp = packet->data + at;

	if (reason)
		return reason;
	build->transport = NQ_BUILD_TCP;
	build->tcp.sport = nq_get_u16(tcp + 2);
	build->tcp.dport = nq_get_u16(tcp);
	build->tcp.seq = tcp[13] & ACK ? nq_get_u32(tcp + 8) : 0;
	build->tcp.ack_seq = nq_get_u32(tcp + 4) + segment_length(packet, at);
	build->tcp.flags = (tcp[13] & (SYN | ACK)) == SYN ? SYN | ACK : ACK;
	build->tcp.window = 65535;
	echo_timestamps(packet, at, &build->tcp);
	return NULL;
}

static const char *answer_udp(struct nq_packet *packet, struct nq_build *build)
{
	uint32_t at;

	if (!nq_header_find(packet, NQ_HEADER_UDP, &at))
		return "its UDP header is cut short";
	build->transport = NQ_BUILD_UDP;
	build->udp.sport = nq_get_u16(packet->data + at + 2);
	build->udp.dport = nq_get_u16(packet->data + at);
	return NULL;
}

static const char *answer_icmp(struct nq_packet *packet, struct nq_build *build)
{
	bool is_ip6 = build->ip.version == 6;
	uint32_t at, end;
	const uint8_t *icmp;

	if (nq_is_fragment(nq_packet_layout(packet)))
		return "it is a fragment: the rest of it is elsewhere";
	if (nq_packet_truncated(packet))
		return "not all of its data is here, which an echo reply returns";
	if (!nq_header_find(packet, NQ_HEADER_ICMP, &at) || !nq_payload_find(packet, &at, &end) ||
	    at < nq_packet_layout(packet)->transport + ICMP_HEADER)
		return "its ICMP header is cut short";
	icmp = packet->data + at - ICMP_HEADER;
	if (icmp[0] != (is_ip6 ? ECHO6 : ECHO4))
		return "only an echo request among ICMP messages has an answer";
	build->transport = NQ_BUILD_ICMP;
	build->icmp.type = is_ip6 ? ECHO_REPLY6 : ECHO_REPLY4;
	build->icmp.id = nq_get_u16(icmp + 4);
	build->icmp.seq = nq_get_u16(icmp + 6);
	/* As the request had it (RFC 1122 section 3.2.2.6), without its congestion bits. */
	build->ip.tos = is_ip6 ? (uint8_t)(nq_get_u16(packet->data) >> 4) : packet->data[1];
	build->ip.tos &= 0xfc;
	build->payload = packet->data + at;
	build->payload_length = end - at;
	return NULL;
}

const char *nq_answer_reply(struct nq_packet *packet, struct nq_build *build)
{
	const char *reason = swap(packet, build);

	if (reason)
		return reason;
	if (nq_packet_layout(packet)->frag_offset)
		return "it is a later fragment, without the header that says who is asked";
	switch (build->ip.protocol) {
	case IPPROTO_TCP:
		return answer_tcp(packet, build);
	case IPPROTO_UDP:
		return answer_udp(packet, build);
	case IPPROTO_ICMP:
		return build->ip.version == 4 ? answer_icmp(packet, build) : NULL;
	case IPPROTO_ICMPV6:
		return build->ip.version == 6 ? answer_icmp(packet, build) : NULL;
	default:
		return NULL;
	}
}

const char *nq_answer_reset(struct nq_packet *packet, struct nq_build *build)
{
	const char *reason = swap(packet, build);

	if (!reason && build->ip.protocol != IPPROTO_TCP)
		reason = "only TCP is reset";
	if (!reason)
		reason = answer_tcp(packet, build);
	if (reason)
		return reason;
	/* What carried an acknowledgement says which sequence number is believed. */
	if (packet->data[nq_packet_layout(packet)->transport + 13] & ACK) {
		build->tcp.flags = RST;
		build->tcp.ack_seq = 0;
	} else {
		build->tcp.flags = RST | ACK;
	}
	build->tcp.window = 0;
	build->tcp.options_length = 0;
	return NULL;
}

const char *nq_answer_error(struct nq_packet *packet, struct nq_build *build)
{
	const char *reason = swap(packet, build);
	bool is_ip6 = build->ip.version == 6;
	uint32_t at, end = 0;
	size_t most = nq_icmp_embedded_most(build->ip.version, is_ip6 ? 40 : 20);

	if (reason)
		return reason;
	(void)nq_payload_find(packet, &at, &end); /* where link-layer padding begins */
	if (nq_packet_layout(packet)->frag_offset)
		return "it is a later fragment: no ICMP error is about one";
	if (nq_header_find(packet, NQ_HEADER_ICMP, &at) &&
	    (nq_icmp_is_error(build->ip.version, packet->data[at]) ||
	     (is_ip6 && packet->data[at] == 137))) /* redirect: RFC 4443 section 2.4 (e.2) */
		return "it is an ICMP error: no error is about one";
	if (!nq_address_is_host(build->ip.version, build->ip.src))
		return "it went to no single host: no ICMP error is about such";
	build->transport = NQ_BUILD_ICMP;
	build->ip.protocol = is_ip6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	build->payload = packet->data;
	build->payload_length = end < most ? end : most;
	return NULL;
}
