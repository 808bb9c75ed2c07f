#include "packet/header.h"

#include <netinet/in.h>

#include "packet/bytes.h"

enum { IP6_HEADER = 40, IP6_MOST = 40 + 65535 };
enum { TCP_HEADER = 20, UDP_HEADER = 8, ICMP_LEAST = 4, ICMP_HEADER = 8 };

/*
 * Headers lie within the length that the network header claims. Completing an edit does not go by
 * it, since it writes it; reading does.
 */
static void heed_total(const struct nq_packet *packet, struct nq_layout *layout)
{
	uint32_t wire = nq_wire_length(packet);
	uint32_t total = layout->total;

	/* Segments beyond 64 KB: the length field is 0, and newer kernels do without the option
	 * that tells their length. */
	if ((layout->version == 4 && total == 0 && wire > 65535) ||
	    (layout->version == 6 && total == IP6_HEADER && wire > IP6_MOST))
		total = layout->total = wire;
	if (layout->version == 0 || total == 0 || total >= layout->transport)
		return;
	if (layout->version == 6) /* what the chain says beyond the total is not so */
		nq_layout_read(layout, packet->data, total);
	layout->cut = true;
}

const struct nq_layout *nq_packet_layout(struct nq_packet *packet)
{
	if (!packet->layout_known) {
		nq_layout_read(&packet->layout, packet->data, packet->length);
		heed_total(packet, &packet->layout);
		packet->layout_known = true;
	}
	return &packet->layout;
}

/* Bytes from the transport header on, without link-layer padding; 0 where there is no such header.
 */
static uint32_t transport_size(const struct nq_packet *packet, const struct nq_layout *layout)
{
	uint32_t end = packet->length;

	if (layout->version == 0 || layout->cut || layout->frag_offset)
		return 0;
	if (layout->total >= layout->transport && layout->total < end)
		end = layout->total;
	return end - layout->transport;
}

static uint32_t tcp_header_length(const struct nq_packet *packet, uint32_t offset)
{
	return (uint32_t)(packet->data[offset + 12] >> 4) * 4;
}

static bool has_tcp(const struct nq_packet *packet, const struct nq_layout *layout)
{
	uint32_t size = transport_size(packet, layout);
	uint32_t header;

	if (layout->protocol != IPPROTO_TCP || size < TCP_HEADER)
		return false;
	header = tcp_header_length(packet, layout->transport);
	return header >= TCP_HEADER && header <= size;
}

static bool has_udp(const struct nq_packet *packet, const struct nq_layout *layout)
{
	return layout->protocol == IPPROTO_UDP && transport_size(packet, layout) >= UDP_HEADER;
}

static bool has_icmp(const struct nq_packet *packet, const struct nq_layout *layout)
{
	uint8_t protocol = layout->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;

	return layout->protocol == protocol && transport_size(packet, layout) >= ICMP_LEAST;
}

bool nq_header_find(struct nq_packet *packet, enum nq_header header, uint32_t *offset)
{
	const struct nq_layout *layout = nq_packet_layout(packet);

	*offset = 0;
	switch (header) {
	case NQ_HEADER_IP:
		return layout->version != 0;
	case NQ_HEADER_IP4:
		return layout->version == 4;
	case NQ_HEADER_IP6:
		return layout->version == 6;
	case NQ_HEADER_TCP:
		*offset = layout->transport;
		return has_tcp(packet, layout);
	case NQ_HEADER_UDP:
		*offset = layout->transport;
		return has_udp(packet, layout);
	case NQ_HEADER_ICMP:
		*offset = layout->transport;
		return has_icmp(packet, layout);
	}
	return false;
}

/* A length that cannot be right is not believed: less than the header, or (a first fragment's, a
 * jumbogram's 0) not that of the bytes here. */
static void skip_udp(const struct nq_packet *packet, uint32_t *offset, uint32_t *end)
{
	uint32_t claimed = nq_get_u16(packet->data + *offset + 4);

	if (claimed >= UDP_HEADER && claimed < *end - *offset)
		*end = *offset + claimed;
	*offset += UDP_HEADER;
}

bool nq_payload_find(struct nq_packet *packet, uint32_t *offset, uint32_t *end)
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	uint32_t size = packet->length;

	if (packet->length == 0 && nq_packet_truncated(packet))
		return false;
	*offset = 0;
	*end = size;
	if (layout->version == 0)
		return true; /* no header is understood */
	if (layout->total >= layout->transport && layout->total < size)
		*end = size = layout->total;
	*offset = layout->transport < size ? layout->transport : size;
	if (layout->cut)
		*offset = size;
	else if (has_tcp(packet, layout))
		*offset += tcp_header_length(packet, layout->transport);
	else if (has_udp(packet, layout))
		skip_udp(packet, offset, end);
	else if (has_icmp(packet, layout))
		*offset += size - *offset < ICMP_HEADER ? size - *offset : ICMP_HEADER;
	return true;
}
