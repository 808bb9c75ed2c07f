#include "packet/tuple.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/header.h"

enum { PROTOCOL_DCCP = 33, PROTOCOL_UDPLITE = 136 };

static bool has_ports(uint8_t protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == PROTOCOL_DCCP || protocol == PROTOCOL_UDPLITE;
}

static bool is_echo(uint8_t version, uint8_t type)
{
	return version == 4 ? type == 8 || type == 0 : type == 128 || type == 129;
}

static bool read_tuple(struct nq_packet *packet, struct nq_flow_tuple *tuple)
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	const uint8_t *bytes = packet->data;
	const uint8_t *transport;
	uint32_t size, offset, end = packet->length;

	if (layout->version == 0 || layout->cut || layout->frag_offset)
		return false;
	if (layout->total >= layout->transport && layout->total < end)
		end = layout->total;
	size = end - layout->transport;
	transport = bytes + layout->transport;
	*tuple = (struct nq_flow_tuple){.version = layout->version, .protocol = layout->protocol};
	if (layout->version == 4) {
		memcpy(tuple->src, bytes + 12, 4);
		memcpy(tuple->dst, bytes + 16, 4);
	} else {
		memcpy(tuple->src, bytes + 8, 16);
		memcpy(tuple->dst, bytes + 24, 16);
	}
	if (has_ports(layout->protocol)) {
		if (size < 4)
			return false;
		tuple->has_ports = true;
		tuple->sport = nq_get_u16(transport);
		tuple->dport = nq_get_u16(transport + 2);
	} else if (nq_header_find(packet, NQ_HEADER_ICMP, &offset) && size >= 8 &&
		   is_echo(layout->version, transport[0])) {
		tuple->has_ports = true;
		tuple->sport = tuple->dport = nq_get_u16(transport + 4);
	}
	return true;
}

void nq_tuple_freeze(struct nq_packet *packet)
{
	if (packet->tuple_known)
		return;
	if (!read_tuple(packet, &packet->tuple))
		packet->tuple.version = 0;
	packet->tuple_known = true;
}

bool nq_tuple_find(struct nq_packet *packet, const struct nq_flow_tuple **tuple)
{
	nq_tuple_freeze(packet);
	*tuple = &packet->tuple;
	return packet->tuple.version != 0;
}

static size_t print_end(char *text, const struct nq_flow_tuple *tuple, const uint8_t *address,
			uint16_t port)
{
	char name[INET6_ADDRSTRLEN] = "?";
	bool is_ip6 = tuple->version == 6;

	(void)inet_ntop(is_ip6 ? AF_INET6 : AF_INET, address, name, sizeof(name));
	if (!tuple->has_ports)
		return (size_t)sprintf(text, "%s", name);
	return (size_t)sprintf(text, is_ip6 ? "[%s]:%u" : "%s:%u", name, port);
}

size_t nq_tuple_print(const struct nq_flow_tuple *tuple, char text[NQ_TUPLE_SIZE])
{
	size_t length;

	switch (tuple->protocol) {
	case IPPROTO_TCP:
		length = (size_t)sprintf(text, "tcp ");
		break;
	case IPPROTO_UDP:
		length = (size_t)sprintf(text, "udp ");
		break;
	case IPPROTO_ICMP:
		length = (size_t)sprintf(text, "icmp ");
		break;
	case IPPROTO_ICMPV6:
		length = (size_t)sprintf(text, "icmp6 ");
		break;
	default:
		length = (size_t)sprintf(text, "%u ", tuple->protocol);
	}
	length += print_end(text + length, tuple, tuple->src, tuple->sport);
	length += (size_t)sprintf(text + length, " > ");
	return length + print_end(text + length, tuple, tuple->dst, tuple->dport);
}
