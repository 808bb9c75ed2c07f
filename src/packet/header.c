#include "packet/header.h"

#include <netinet/in.h>

#include "packet/bytes.h"

enum { TCP_HEADER = 20, UDP_HEADER = 8, ICMP_LEAST = 4, ICMP_HEADER = 8 };

const struct nq_layout *nq_packet_layout(struct nq_packet *packet)
{
	if (!packet->layout_known) {
		nq_layout_read(&packet->layout, packet->data, packet->length);
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
		*offset += UDP_HEADER;
	else if (has_icmp(packet, layout))
		*offset += size - *offset < ICMP_HEADER ? size - *offset : ICMP_HEADER;
	return true;
}
